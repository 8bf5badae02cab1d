//! How a connection ends, seen from the writing side. The first cause wins.
//!
//! **A close must reach the peer, and no thread may wait for it without limit.** A socket that is
//! closed while bytes from the peer lie unread in it is reset by the kernel, and a reset can
//! overtake the close frame. So nothing is closed right after the frame is written: the
//! writing direction alone is ended ([`Sink::shutdown_write`]), and the reader reads on, throwing away
//! what comes, until the peer ends its direction too. That takes one round trip with a peer that
//! behaves. With one that does not, [`shut_down`](WriterShared::shut_down) shuts both directions; a
//! thread that is awake anyway does it when the time is over, so no timer is needed:
//!
//! - the host closes: the closing thread waits for the reader to end, and shuts down. The reader may be
//!   blocked in a plain read all the while; the shutdown wakes it. A caller that closes many
//!   connections begins them all before it waits for any;
//! - the peer closes, or breaks the rules: the reader itself waits, in a `poll` with a limit, and
//!   a writer thread writes the frame.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::{Outgoing, Sink, WriterShared, WriterState};
use crate::deadline::Deadline;
use crate::error::Disconnect;

/// How long the peer has to end its direction after the close was written; and, when the reader
/// closes, how long it all may take.
const GRACE: Duration = Duration::from_secs(1);

/// A close on its way.
pub(super) struct Closing {
    /// The close frame, until it is begun.
    frame: Option<Vec<u8>>,
    written: bool,
    /// When the reader stops waiting for the peer.
    shut_down_at: Deadline,
    /// When the peer's time is over, if the host has begun to close and not come back yet to wait.
    unattended: Option<Deadline>,
}

impl WriterState {
    pub(super) fn has_close(&self) -> bool {
        self.closing
            .as_ref()
            .is_some_and(|closing| closing.frame.is_some())
    }

    pub(super) fn take_close(&mut self) -> Option<Vec<u8>> {
        self.closing.as_mut()?.frame.take()
    }

    pub(super) fn close_written(&mut self) {
        if let Some(closing) = &mut self.closing {
            closing.written = true;
        }
    }

    /// Returns whether the close frame is written, or cannot be.
    fn close_settled(&self) -> bool {
        self.failed.is_some() || self.closing.as_ref().is_none_or(|closing| closing.written)
    }

    fn drop_waiting(&mut self) {
        self.queue.clear();
        self.control.clear();
    }
}

impl<S: Sink> Outgoing<S> {
    /// Closes for the host; blocks at most until the deadline. `frame` is written after what has
    /// been begun. With `waits`, the peer then has a second to end its side, as far as the
    /// deadline allows.
    pub(in crate::duplex) fn close(
        &self,
        cause: Disconnect,
        frame: Vec<u8>,
        waits: bool,
        deadline: Deadline,
    ) {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let begun = state
            .closing
            .as_mut()
            .and_then(|closing| closing.unattended.take());
        if begun.is_none() && !shared.begin(&mut state, cause, frame, deadline) {
            // Another thread is closing it, and will end it in time.
            while !shared.is_shut_down() {
                if shared.times_out(&mut state, deadline) {
                    return;
                }
            }
            return;
        }
        while !state.close_settled() && !shared.is_shut_down() {
            if !state.writing {
                shared.write_until(&mut state, deadline);
                if deadline.has_passed() {
                    break;
                }
            } else if shared.times_out(&mut state, deadline) {
                break;
            }
        }
        let grace = || Deadline::after(if waits { GRACE } else { Duration::ZERO });
        let until = deadline.min(begun.unwrap_or_else(grace));
        while !state.reader_gone && !shared.is_shut_down() {
            if shared.times_out(&mut state, until) {
                break;
            }
        }
        shared.shut_down(&mut state);
    }

    /// Begins a [`close`](Self::close) for the host, which calls that next and waits there. Writes the frame
    /// as far as the medium takes it right now, and leaves the rest to a writer thread; never blocks. Does
    /// nothing when the connection is ending already.
    pub(in crate::duplex) fn begin_close(&self, cause: Disconnect, frame: Vec<u8>) {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let until = Deadline::after(GRACE);
        if shared.begin(&mut state, cause, frame, until) {
            if let Some(closing) = &mut state.closing {
                closing.unattended = Some(until);
            }
            shared.write_in_passing(&mut state);
        }
    }

    /// Ends the writing direction alone, for good: what is queued is dropped, what is begun is not finished,
    /// senders fail with this cause. Reading goes on. Never blocks; a writer that waits for a peer that does
    /// not read lets go of the medium a moment later.
    pub(in crate::duplex) fn hang_up(&self, cause: Disconnect) {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        if shared.closed(&state).is_some() {
            return;
        }
        state.failed = Some(Arc::new(cause));
        state.hung_up = true;
        state.drop_waiting();
        MutexGuard::unlocked(&mut state, || shared.sink.shutdown_write());
        shared.changed.notify_all();
        shared.wake.notify_all();
    }

    /// Closes for the reading thread, which does not write: a writer thread sends the frame. Returns false
    /// when the connection was ending already.
    pub(in crate::duplex) fn close_from_reader(&self, cause: Disconnect, frame: Vec<u8>) -> bool {
        let mut state = self.shared.state.lock();
        let shut_down_at = Deadline::after(GRACE);
        let begun = self.shared.begin(&mut state, cause, frame, shut_down_at);
        if begun {
            self.shared.ensure_writer(&mut state);
        }
        begun
    }

    /// Returns until when the reader waits for the peer's end of the stream.
    pub(in crate::duplex) fn shut_down_at(&self) -> Deadline {
        let state = self.shared.state.lock();
        state.closing.as_ref().map_or_else(
            || Deadline::after(Duration::ZERO),
            |closing| closing.shut_down_at,
        )
    }

    /// Waits until the close frame is written or cannot be, at most until the reader's time is
    /// over; for the reader, when the peer's stream has ended before that.
    pub(in crate::duplex) fn await_close(&self) {
        let shut_down_at = self.shut_down_at();
        let mut state = self.shared.state.lock();
        while !state.close_settled() && !self.is_shut_down() {
            if self.shared.times_out(&mut state, shut_down_at) {
                break;
            }
        }
    }

    /// Ends the connection at once: senders fail, both directions are shut down. Returns the cause that
    /// counts, which is an earlier one if there is one.
    pub(in crate::duplex) fn end(&self, cause: Disconnect) -> Disconnect {
        let mut state = self.shared.state.lock();
        self.shared.end_locked(&mut state, cause);
        drop(state);
        self.shared
            .cause
            .get()
            .map_or(Disconnect::Lost, |cause| Disconnect::clone(cause))
    }

    /// As [`end`](Self::end), for the reader when it is done; a close that waits for it goes on.
    pub(in crate::duplex) fn end_from_reader(&self, cause: Disconnect) -> Disconnect {
        self.shared.state.lock().reader_gone = true;
        self.end(cause)
    }
}

impl<S: Sink> WriterShared<S> {
    /// Sets the cause, drops what has not been begun, and makes `frame` the last to be written.
    /// False when there is a cause already.
    fn begin(
        &self,
        state: &mut WriterState,
        cause: Disconnect,
        frame: Vec<u8>,
        shut_down_at: Deadline,
    ) -> bool {
        if self.cause.set(Arc::new(cause)).is_err() {
            return false;
        }
        state.drop_waiting();
        state.closing = Some(Closing {
            frame: Some(frame),
            written: false,
            shut_down_at,
            unattended: None,
        });
        self.changed.notify_all();
        self.wake.notify_all();
        true
    }

    /// Sets the cause if there is none, and shuts both directions.
    pub(super) fn end_locked(&self, state: &mut MutexGuard<'_, WriterState>, cause: Disconnect) {
        // First cause wins.
        let _ = self.cause.set(Arc::new(cause));
        self.shut_down(state);
    }

    fn shut_down(&self, state: &mut MutexGuard<'_, WriterState>) {
        state.drop_waiting();
        if !self.shut_down.swap(true, Ordering::AcqRel) {
            MutexGuard::unlocked(state, || self.sink.shutdown_both());
        }
        self.changed.notify_all();
        self.wake.notify_all();
    }

    /// Notes that a write failed: senders fail from now on. The reader finds the true cause, which may
    /// be the peer's close among what has arrived.
    pub(super) fn fail(&self, state: &mut MutexGuard<'_, WriterState>, error: io::Error) {
        if state.failed.is_some() {
            // The host hung up, which is no reason to stop reading.
            return;
        }
        let cause = Disconnect::from(error);
        log::debug!("{}: {cause}", self.thread_name);
        state.failed = Some(Arc::new(cause));
        state.drop_waiting();
        MutexGuard::unlocked(state, || self.sink.shutdown_both());
        self.changed.notify_all();
        self.wake.notify_all();
    }
}
