//! The role of the writer: one thread at a time has it, and takes batches out of the queue until
//! nothing is left or it has reason to pass the role on.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::batch::FrameBatch;
use super::queue::Frame;
use super::{Sink, WriterShared, WriterState};
use crate::deadline::Deadline;
use crate::duplex::Ticket;
use crate::error::Disconnect;

/// Frames are taken into a batch up to this size, a larger frame alone. Enough for one system call
/// to be worth it; and what has not been taken can still be withdrawn.
const BATCH_TARGET: usize = 256 * 1024;

/// Batches that a caller writes, beyond its own, before it passes the role on.
const MOST_BATCHES: u32 = 16;

/// How long a writer thread stays after its last batch, so that a stream of pings does not start one
/// for each.
const PARKED: Duration = Duration::from_millis(250);

/// Stack of a writer thread, in bytes: room for a logger, no more.
const STACK: usize = 256 * 1024;

/// One thread's time as the writer.
#[derive(Default)]
pub(super) struct WriterTurn {
    /// When the writer wants to go; none for the writer thread.
    deadline: Option<Deadline>,
    /// The writer's own frame.
    own: Option<Ticket>,
    /// Where it ends in the batch that is being written.
    own_end: Option<usize>,
    own_done: bool,
    batches: u32,
    /// The role is not passed on.
    stays: bool,
}

/// Why a turn ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// Nothing is left. The role is free.
    Empty,
    /// The connection has ended. The role is free.
    Ended,
    /// The writer's deadline has passed and bytes remain. The role is still the caller's.
    TimedOut,
    /// The writer's own frame is written and it has written enough for others. The role is still the
    /// caller's.
    Yield,
}

impl WriterTurn {
    /// Returns the turn of a caller that has a frame in the queue.
    pub(super) fn for_frame(ticket: Ticket, deadline: Deadline) -> Self {
        Self {
            deadline: Some(deadline),
            own: Some(ticket),
            ..Self::default()
        }
    }

    /// Returns a turn that writes what there is, until the deadline or the end.
    fn until(deadline: Option<Deadline>) -> Self {
        Self {
            deadline,
            stays: true,
            ..Self::default()
        }
    }

    /// Returns a turn that never blocks: one batch of what is queued, as far as the medium takes it.
    fn in_passing() -> Self {
        Self {
            own_done: true,
            batches: MOST_BATCHES,
            ..Self::default()
        }
    }

    /// Returns whether the writer's own frame is written.
    pub(super) fn own_done(&self) -> bool {
        self.own_done
    }

    /// Makes the writer go on for others until its deadline.
    pub(super) fn stay(&mut self) {
        self.stays = true;
    }

    fn written(&mut self, position: usize) {
        if self.own_end.is_some_and(|end| position >= end) {
            self.own_done = true;
        }
    }

    fn may_go(&self) -> bool {
        self.own_done && !self.stays
    }
}

/// Takes the free role. If other callers left frames with the last writer, lets them run first, so that
/// their frames go out with this one in one write.
pub(super) fn take_role(state: &mut MutexGuard<'_, WriterState>) {
    state.writing = true;
    if std::mem::take(&mut state.contended) {
        MutexGuard::unlocked(state, thread::yield_now);
    }
}

/// How far one batch got.
enum BatchProgress {
    Done,
    TimedOut,
    Yield,
    Stalled,
    Failed(io::Error),
}

impl<S: Sink> WriterShared<S> {
    /// Leaves the role with bytes left over, for the next sender.
    pub(super) fn leave_role(&self, state: &mut WriterState) {
        state.writing = false;
        self.changed.notify_all();
    }

    /// Passes the caller's role on to the writer thread, which is started if there is none. Returns false
    /// if no thread could be started: then the role is still the caller's.
    pub(super) fn hand_over(self: &Arc<Self>, state: &mut MutexGuard<'_, WriterState>) -> bool {
        if state.parked {
            state.parked = false;
            self.wake.notify_one();
            return true;
        }
        let shared = Arc::clone(self);
        // The role stays taken meanwhile, so no second thread is started.
        let started = MutexGuard::unlocked(state, || {
            self.threads
                .spawn(&self.thread_name, STACK, move || shared.run_thread())
        });
        if let Err(error) = &started {
            log::debug!("{}: no writer thread: {error}", self.thread_name);
        }
        started.is_ok()
    }

    /// Makes sure that a thread writes what was just queued, without writing here. If none can be started,
    /// the next sender writes it.
    pub(super) fn ensure_writer(self: &Arc<Self>, state: &mut MutexGuard<'_, WriterState>) {
        if state.writing || self.is_shut_down() || state.failed.is_some() {
            return;
        }
        state.writing = true;
        if !self.hand_over(state) {
            self.leave_role(state);
        }
    }

    /// Takes the free role and writes what there is, at most until the deadline.
    pub(super) fn write_until(&self, state: &mut MutexGuard<'_, WriterState>, deadline: Deadline) {
        state.writing = true;
        match self.write(state, &mut WriterTurn::until(Some(deadline))) {
            TurnEnd::Empty | TurnEnd::Ended => {}
            TurnEnd::TimedOut | TurnEnd::Yield => self.leave_role(state),
        }
    }

    /// Writes what the medium takes right now, a batch at most, unless a thread is writing already; the
    /// writer thread writes the rest. Never blocks.
    pub(super) fn write_in_passing(self: &Arc<Self>, state: &mut MutexGuard<'_, WriterState>) {
        if state.writing {
            return;
        }
        state.writing = true;
        match self.write(state, &mut WriterTurn::in_passing()) {
            TurnEnd::Empty | TurnEnd::Ended => {}
            TurnEnd::TimedOut | TurnEnd::Yield => {
                if !self.hand_over(state) {
                    self.leave_role(state);
                }
            }
        }
    }

    /// Writes batch after batch. The caller has the role, and keeps it or not as [`TurnEnd`] says.
    pub(super) fn write(
        &self,
        state: &mut MutexGuard<'_, WriterState>,
        turn: &mut WriterTurn,
    ) -> TurnEnd {
        let mut frames = Vec::new();
        loop {
            if self.is_shut_down() || state.failed.is_some() {
                self.leave_role(state);
                return TurnEnd::Ended;
            }
            let mut last = false;
            if state.batch.is_done() {
                if !state.has_frames() {
                    state.batch.shrink();
                    self.leave_role(state);
                    return TurnEnd::Empty;
                }
                if turn.may_go() && turn.batches > MOST_BATCHES {
                    return TurnEnd::Yield;
                }
                turn.batches += 1;
                last = state.take_frames(&mut frames);
                self.changed.notify_all();
            }
            let mut batch = std::mem::take(&mut state.batch);
            let progress = MutexGuard::unlocked(state, || {
                if !frames.is_empty() {
                    turn.own_end = batch.fill(&mut frames, turn.own, last);
                }
                let progress = self.write_batch(&mut batch, turn);
                if matches!(progress, BatchProgress::Done) && batch.last {
                    self.sink.shutdown_write();
                }
                progress
            });
            state.batch = batch;
            match progress {
                BatchProgress::Done => {
                    turn.own_end = None;
                    if state.batch.last {
                        state.close_written();
                        self.changed.notify_all();
                    }
                }
                BatchProgress::TimedOut => return TurnEnd::TimedOut,
                BatchProgress::Yield => return TurnEnd::Yield,
                BatchProgress::Stalled => {
                    self.end_locked(
                        state,
                        Disconnect::Stalled {
                            limit: self.write_stall,
                        },
                    );
                }
                BatchProgress::Failed(error) => self.fail(state, error),
            }
        }
    }

    /// Writes one batch. Not under the lock.
    fn write_batch(&self, batch: &mut FrameBatch, turn: &mut WriterTurn) -> BatchProgress {
        while !batch.is_done() {
            match self.sink.try_write(batch.rest()) {
                Ok(0) => return BatchProgress::Failed(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    batch.advance(count);
                    turn.written(batch.position());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let since = *batch.blocked_since.get_or_insert_with(Instant::now);
                    let stall = Deadline::at(since + self.write_stall);
                    // Only after a try: a kernel buffer may take bytes long before `poll` says so,
                    // and the last try may be long ago.
                    if stall.has_passed() {
                        return BatchProgress::Stalled;
                    }
                    if turn.may_go() {
                        return BatchProgress::Yield;
                    }
                    if turn.deadline.is_some_and(Deadline::has_passed) {
                        return BatchProgress::TimedOut;
                    }
                    let until = turn.deadline.map_or(stall, |deadline| deadline.min(stall));
                    if let Err(error) = self.sink.wait_writable(until) {
                        return BatchProgress::Failed(error);
                    }
                }
                Err(error) => return BatchProgress::Failed(error),
            }
        }
        BatchProgress::Done
    }

    /// The body of the writer thread, which has the role.
    fn run_thread(self: &Arc<Self>) {
        let mut state = self.state.lock();
        loop {
            self.write(&mut state, &mut WriterTurn::until(None));
            state.parked = true;
            let until = Instant::now() + PARKED;
            while state.parked && self.closed(&state).is_none() {
                if self.wake.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
            if std::mem::take(&mut state.parked) {
                return;
            }
        }
    }
}

impl WriterState {
    /// Returns whether there are bytes to be written.
    pub(super) fn has_work(&self) -> bool {
        !self.batch.is_done() || self.has_frames()
    }

    fn has_frames(&self) -> bool {
        !self.control.is_empty() || !self.queue.is_empty() || self.has_close()
    }

    /// Takes the next frames; returns whether they are the last.
    fn take_frames(&mut self, frames: &mut Vec<Frame>) -> bool {
        self.control.take(frames);
        self.queue.take(frames, BATCH_TARGET);
        // Closing emptied both queues, so the close is alone.
        let close = self.take_close();
        let last = close.is_some();
        frames.extend(close.map(|bytes| Frame {
            ticket: Ticket(0),
            bytes,
        }));
        last
    }
}
