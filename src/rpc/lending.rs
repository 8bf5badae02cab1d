//! Lending the reading half to the caller that waits.
//!
//! An answer that is read by one thread and awaited by another costs a switch between the two, which
//! on a busy processor is a third of a whole call. When one caller after the other gets its answer at
//! once, the reading thread therefore steps aside: whoever waits alone reads for itself, in the same
//! way and for everybody, and for a moment only. As soon as that does not go well the half goes back:
//! a second caller, an answer that is slow, a request to close, or nobody who came for a while.
//!
//! A caller runs nothing of the embedder's meanwhile, but for the logger: output and what is no JSON-RPC
//! is left to the reading thread, and calls from the peer go to workers as ever.
//!
//! While it is lent the reading thread looks every [`LOOK`] whether the half is still in use. So what
//! the peer sends between two such calls may lie there for twice that long, and a connection that
//! rests costs no look at all.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::pending::Outcome;
use super::reading::{Heard, Unreadable};
use super::slot::Slot;
use super::{Connection, InboundRequest};
use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::duplex::{DuplexReader, Patience};
use crate::error::Disconnect;
use crate::thread::panic_text;

/// So many answers in a row to callers that waited alone, and the half is lent.
const STREAK: u32 = 8;
/// Answers that come later after the one before do not count.
const SOON: Duration = Duration::from_micros(400);
/// How long nobody may have borrowed it before it is taken back.
const LOOK: Duration = Duration::from_micros(500);
/// How long a caller keeps it; a few milliseconds more where the system's clock is coarse, and where the
/// caller has time.
pub(super) const LOAN: Duration = Duration::from_millis(1);
/// That much time is enough for that.
const AMPLE: Duration = Duration::from_millis(50);

/// Takes a call from the peer on. Runs on the thread that reads.
pub(crate) type Dispatch = Box<dyn FnMut(InboundRequest) + Send>;

/// What it takes to read.
pub(super) struct Half {
    pub(super) reader: Box<dyn DuplexReader>,
    pub(super) dispatch: Dispatch,
    /// What a caller came upon and left to the reading thread.
    pub(super) unreadable: Option<Unreadable>,
}

/// What came of a caller's wish to read for itself.
#[must_use]
pub(super) enum Borrowed {
    /// The outcome of its call.
    Outcome(Outcome),
    /// It was not to be learnt in a moment; somebody else reads on.
    InVain,
    /// The half was not to be had.
    NotAtAll,
}

/// Where the half lies while it is lent.
#[derive(Default)]
pub(super) struct Lending {
    /// There is a half to borrow, or somebody has. A hint, read without the lock.
    offered: AtomicBool,
    place: Mutex<Place>,
    changed: Condvar,
}

#[derive(Default)]
struct Place {
    /// None also while somebody has borrowed it.
    half: Option<Half>,
    /// How often it was borrowed.
    loans: u64,
    /// The reading thread wants it back.
    recalled: bool,
}

/// Counts answers to callers that waited alone.
#[derive(Default)]
pub(super) struct Streak {
    length: u32,
    last: Option<Instant>,
}

impl Streak {
    /// One more; gives whether they have become so many that lending pays.
    pub(super) fn grows(&mut self) -> bool {
        let now = Instant::now();
        let soon = |last| now.saturating_duration_since(last) <= SOON;
        self.length = if self.last.replace(now).is_some_and(soon) {
            self.length + 1
        } else {
            1
        };
        self.length >= STREAK
    }

    /// Something else came.
    pub(super) fn ends(&mut self) {
        *self = Self::default();
    }
}

impl Lending {
    /// Wants the half back, if it is lent.
    pub(super) fn recall(&self) {
        if self.offered.load(Ordering::SeqCst) {
            self.place.lock().recalled = true;
            self.changed.notify_one();
        }
    }

    fn borrow(&self) -> Option<Loan<'_>> {
        if !self.offered.load(Ordering::SeqCst) {
            return None;
        }
        let mut place = self.place.lock();
        if place.recalled {
            return None;
        }
        let half = place.half.take()?;
        place.loans += 1;
        Some(Loan {
            lending: self,
            half: Some(half),
            in_order: false,
        })
    }
}

/// The half, with a caller. It goes back when this is dropped, whatever happens.
struct Loan<'a> {
    lending: &'a Lending,
    half: Option<Half>,
    /// The next caller may have it.
    in_order: bool,
}

impl Loan<'_> {
    fn is_clean(&self) -> bool {
        self.half
            .as_ref()
            .is_some_and(|half| half.unreadable.is_none())
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut place = self.lending.place.lock();
        place.half = self.half.take();
        place.recalled |= !self.in_order;
        if place.recalled {
            drop(place);
            self.lending.changed.notify_one();
        }
    }
}

impl Connection {
    /// Lends the half until nobody wants it any more. On the reading thread, which waits here. Calls
    /// `tell` once the half is offered.
    pub(super) fn lend(&self, half: Half, tell: impl FnOnce()) -> Half {
        let lending = &self.lending;
        let mut place = lending.place.lock();
        *place = Place {
            half: Some(half),
            ..Place::default()
        };
        lending.offered.store(true, Ordering::SeqCst);
        // A caller looks the other way round: it is counted first, and looks for the half then. So one
        // that did not see it is seen here. And whoever ends the connection says so before it recalls.
        if self.pending.len() > 0 || self.is_blamed() {
            place.recalled = true;
        }
        drop(place);
        tell();
        let mut place = lending.place.lock();
        loop {
            let loans = place.loans;
            if !place.recalled {
                lending.changed.wait_for(&mut place, LOOK);
            }
            place.recalled |= place.loans == loans;
            while place.recalled {
                if let Some(half) = place.half.take() {
                    lending.offered.store(false, Ordering::SeqCst);
                    return half;
                }
                // Whoever has it brings it back soon, and says so.
                lending.changed.wait(&mut place);
            }
        }
    }

    /// Reads for a caller that waits alone, if the half is to be had.
    pub(super) fn read_for(&self, slot: &Slot, deadline: Deadline) -> Borrowed {
        if self.pending.len() != 1 {
            return Borrowed::NotAtAll;
        }
        let Some(mut loan) = self.lending.borrow() else {
            return Borrowed::NotAtAll;
        };
        let Some(half) = loan.half.as_mut() else {
            return Borrowed::NotAtAll;
        };
        let read = AssertUnwindSafe(|| self.read_with(half, slot, deadline));
        let outcome = panic::catch_unwind(read).unwrap_or_else(|panic| {
            // As on the reading thread: an embedder's transport or logger may panic.
            let text = panic_text(&*panic);
            self.abort(Disconnect::Violation(
                format!("reading panicked: {text}").into(),
            ));
            None
        });
        match outcome {
            Some(outcome) => {
                count_by(&self.counters.read_by_caller, 1);
                loan.in_order = self.pending.len() == 0 && loan.is_clean();
                Borrowed::Outcome(outcome)
            }
            None => Borrowed::InVain,
        }
    }

    fn read_with(&self, half: &mut Half, slot: &Slot, deadline: Deadline) -> Option<Outcome> {
        let until = deadline.min(Deadline::after(LOAN));
        let wait = self.spin.begin(until);
        let patience = Patience {
            looking_until: wait.as_ref().and_then(|wait| wait.looking_until),
            deadline: until,
            is_coarse: deadline.remaining() > AMPLE,
        };
        let outcome = loop {
            // First of all: it may have come just before the half was lent.
            let outcome = slot.take();
            if outcome.is_some() || patience.deadline.has_passed() {
                break outcome;
            }
            let Some(received) = half.reader.receive_within(patience) else {
                break None;
            };
            match self.hear(received, &mut half.dispatch) {
                // Told by being dropped.
                Heard::LoneAnswer(_) | Heard::Nothing => {}
                Heard::Unreadable(message) => {
                    // What is done with it may take any time.
                    half.unreadable = Some(message);
                    break slot.take();
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
        let mut streak = Streak::default();
        let mut length = 1;
        // As often as it takes for none to be late on a busy machine.
        while !streak.grows() {
            length += 1;
        }
        assert!(length >= STREAK, "{length}");
        streak.ends();
        assert!(!streak.grows());
        streak.length = STREAK;
        streak.last = Instant::now().checked_sub(SOON * 2);
        assert!(!streak.grows(), "it was late");
    }
}
