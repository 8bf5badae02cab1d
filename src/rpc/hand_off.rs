//! The hand-off of the reading half to the caller that waits, so that a lone caller reads its own answer.
//!
//! An answer that one thread reads and another awaits costs a switch between the two, which on a busy
//! processor is a third of a whole call. [`ReaderHandOff`] avoids that switch. Its protocol:
//!
//! 1. The reading thread owns the [`ReadHalf`] and counts [`FastReplies`]: answers, each soon after the one
//!    before, to a caller that was the only one to wait. After [`FAST_REPLIES`] of them in a row it
//!    [lends](ReaderHandOff::lend) the half and sleeps. It offers the half before the caller gets its
//!    answer, so that the next call of the same thread finds it.
//! 2. A caller that waits alone takes the half as a [`ReadGuard`] and reads with [`Connection::read_for`] for
//!    [`LOAN`] at most. It does with everything that arrives what the reading thread would do, but for what
//!    may take long, which it leaves in the half: messages that are no JSON-RPC, output, the end. So it
//!    runs nothing of the embedder's but the logger and the dispatch to workers.
//! 3. Dropping the guard gives the half back. If all went well the next caller may take it; otherwise the
//!    half is recalled.
//! 4. The half is [recalled](ReaderHandOff::recall) when another thread needs the reading thread: a call that
//!    is not waited for at once, or the end of the connection. A second caller that waits shows in the
//!    table of pending calls, and the first one's loan runs out.
//! 5. The reading thread wakes when the half is recalled, and every [`IDLE_CHECK`]; if nobody took the half
//!    since the last check, it takes it back. So what the peer sends between two calls may lie unread for
//!    twice that long, and an idle connection wakes no thread.
//!
//! Only transports with timed reads take part (`duplex/halves.rs`); from any other
//! the reading thread always reads itself.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::one_shot::OneShot;
use super::pending::CallOutcome;
use super::reading::{Dispatched, Unreadable};
use super::{Connection, InboundRequest};
use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::duplex::{ReadingHalf, WaitPolicy};
use crate::error::Disconnect;
use crate::thread::panic_text;

/// The half is lent after so many fast replies in a row.
const FAST_REPLIES: u32 = 8;
/// A reply that comes later after the one before is not fast.
const FAST: Duration = Duration::from_micros(400);
/// The half is taken back when no caller has taken it for so long.
const IDLE_CHECK: Duration = Duration::from_micros(500);
/// How long a caller keeps the half; a few milliseconds more where the system's clock is coarse and the
/// caller has time.
pub(super) const LOAN: Duration = Duration::from_millis(1);
/// A caller with that much time left has time.
const AMPLE: Duration = Duration::from_millis(50);

/// Takes on a call from the peer. Runs on the thread that reads.
pub(crate) type Dispatch = Box<dyn FnMut(InboundRequest) + Send>;

/// What it takes to read.
pub(super) struct ReadHalf {
    pub(super) reader: ReadingHalf,
    pub(super) dispatch: Dispatch,
    /// What a caller read and left to the reading thread.
    pub(super) unreadable: Option<Unreadable>,
}

impl ReadHalf {
    /// Prepares the transport for timed reads, or for blocking ones again. Returns whether it could.
    pub(super) fn set_timed(&mut self, limit: Option<Duration>) -> bool {
        self.reader
            .own()
            .is_some_and(|reader| reader.set_timed(limit))
    }
}

/// What came of a caller's attempt to read for itself.
#[must_use]
pub(super) enum CallerRead {
    /// The outcome of its call.
    Outcome(CallOutcome),
    /// The outcome did not come during the loan; another thread reads on.
    NotReady,
    /// The caller did not get the half.
    Unavailable,
}

/// Where the reading half is while the reading thread does not use it.
#[derive(Default)]
pub(super) struct ReaderHandOff {
    /// The half is lent out or may be taken. A hint, read without the lock.
    offered: AtomicBool,
    state: Mutex<HandOffState>,
    /// The half was recalled, or given back after that.
    changed: Condvar,
}

#[derive(Default)]
struct HandOffState {
    /// None also while a caller has it.
    half: Option<ReadHalf>,
    /// How often it was taken.
    loans: u64,
    /// The reading thread is to take it back.
    recalled: bool,
}

impl ReaderHandOff {
    /// Makes the reading thread take the half back, if it is lent. Never blocks.
    pub(super) fn recall(&self) {
        if self.offered.load(Ordering::SeqCst) {
            self.state.lock().recalled = true;
            self.changed.notify_one();
        }
    }

    /// Offers the half to callers and waits until it is recalled or unused. Calls `on_offered` once the
    /// half is on offer. `is_needed` says whether the reading thread is needed already.
    pub(super) fn lend(
        &self,
        half: ReadHalf,
        is_needed: impl FnOnce() -> bool,
        on_offered: impl FnOnce(),
    ) -> ReadHalf {
        let mut state = self.state.lock();
        *state = HandOffState {
            half: Some(half),
            ..HandOffState::default()
        };
        self.offered.store(true, Ordering::SeqCst);
        // A caller registers first and looks for the half second, so one that did not see the half is
        // seen here. Likewise the close cause is set before the recall.
        state.recalled = is_needed();
        drop(state);
        on_offered();
        let mut state = self.state.lock();
        loop {
            let loans = state.loans;
            if !state.recalled {
                self.changed.wait_for(&mut state, IDLE_CHECK);
            }
            state.recalled |= state.loans == loans;
            while state.recalled {
                if let Some(half) = state.half.take() {
                    self.offered.store(false, Ordering::SeqCst);
                    return half;
                }
                // The caller that has it gives it back within its loan, and notifies.
                self.changed.wait(&mut state);
            }
        }
    }

    fn take(&self) -> Option<ReadGuard<'_>> {
        if !self.offered.load(Ordering::SeqCst) {
            return None;
        }
        let mut state = self.state.lock();
        if state.recalled {
            return None;
        }
        let half = state.half.take()?;
        state.loans += 1;
        Some(ReadGuard {
            hand_off: self,
            half: Some(half),
            may_lend_on: false,
        })
    }
}

/// The half, with a caller. Dropping it gives the half back.
struct ReadGuard<'a> {
    hand_off: &'a ReaderHandOff,
    half: Option<ReadHalf>,
    /// The next caller may have it.
    may_lend_on: bool,
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.hand_off.state.lock();
        state.half = self.half.take();
        state.recalled |= !self.may_lend_on;
        if state.recalled {
            drop(state);
            self.hand_off.changed.notify_one();
        }
    }
}

/// Counts the fast replies in a row to callers that waited alone.
#[derive(Default)]
pub(super) struct FastReplies {
    count: u32,
    last: Option<Instant>,
}

impl FastReplies {
    /// Counts a reply; returns whether lending the half pays.
    pub(super) fn add(&mut self) -> bool {
        let now = Instant::now();
        let is_fast = |last| now.saturating_duration_since(last) <= FAST;
        self.count = if self.last.replace(now).is_some_and(is_fast) {
            self.count + 1
        } else {
            1
        };
        self.count >= FAST_REPLIES
    }

    /// Starts over, because something else arrived.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Connection {
    /// Reads for a caller that waits alone, if the half is to be had.
    pub(super) fn read_for(&self, one_shot: &OneShot, deadline: Deadline) -> CallerRead {
        if self.pending.len() != 1 {
            return CallerRead::Unavailable;
        }
        let Some(mut guard) = self.hand_off.take() else {
            return CallerRead::Unavailable;
        };
        let Some(half) = guard.half.as_mut() else {
            return CallerRead::Unavailable;
        };
        let read = AssertUnwindSafe(|| self.read_with(half, one_shot, deadline));
        let outcome = panic::catch_unwind(read).unwrap_or_else(|panic| {
            // As on the reading thread: an embedder's transport or logger may panic.
            let text = panic_text(&*panic);
            self.abort(Disconnect::Violation(
                format!("reading panicked: {text}").into(),
            ));
            None
        });
        let Some(outcome) = outcome else {
            return CallerRead::NotReady;
        };
        count_by(&self.counters.read_by_caller, 1);
        let is_clean = half.unreadable.is_none();
        guard.may_lend_on = is_clean && self.pending.len() == 0;
        CallerRead::Outcome(outcome)
    }

    fn read_with(
        &self,
        half: &mut ReadHalf,
        one_shot: &OneShot,
        deadline: Deadline,
    ) -> Option<CallOutcome> {
        let reader = half.reader.own()?;
        let until = deadline.min(Deadline::after(LOAN));
        let wait = self.spin.begin(until);
        let policy = WaitPolicy {
            spin_until: wait.as_ref().and_then(|wait| wait.spin_until),
            deadline: until,
            is_coarse: deadline.remaining() > AMPLE,
        };
        let outcome = loop {
            // First, because the outcome may have come just before the half was lent.
            let outcome = one_shot.take();
            if outcome.is_some() || policy.deadline.has_passed() {
                break outcome;
            }
            let Some(received) = reader.receive_within(policy) else {
                break None;
            };
            match self.on_received(received, &mut half.dispatch) {
                // Sent when it is dropped.
                Dispatched::SoleReply(_) | Dispatched::Done => {}
                Dispatched::Unreadable(message) => {
                    // What is done with it may take any time.
                    half.unreadable = Some(message);
                    break one_shot.take();
                }
            }
        };
        if let Some(wait) = wait {
            self.spin.ended(&wait);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_quick_answers_in_a_row_make_a_streak() {
        let mut replies = FastReplies::default();
        let mut count = 1;
        // As often as it takes for none to be late on a busy machine.
        while !replies.add() {
            count += 1;
        }
        assert!(count >= FAST_REPLIES, "{count}");
        replies.reset();
        assert!(!replies.add());
        replies.count = FAST_REPLIES;
        replies.last = Instant::now().checked_sub(FAST * 2);
        assert!(!replies.add(), "it was late");
    }
}
