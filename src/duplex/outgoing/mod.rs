//! The shared writer of the stream transports: any number of threads send through it, and one at a time
//! writes. This is flat combining: the thread that writes does so for all.
//!
//! No writer thread waits for work. A caller encodes its frame on its own thread, puts it into the queue,
//! and if no thread is writing takes the role of the writer itself ([`writer`]): it writes what is queued,
//! its own frame and those that arrive meanwhile. A caller that finds a writer at work leaves its frame in
//! the queue and returns. When the writer has done its part and bytes remain, a thread started for that
//! goes on. [`closing`] has how a connection ends.
//!
//! One mutex guards the queue and the role of the writer. It is never held during I/O: the writer takes the
//! batch out, unlocks, and writes.
//!
//! What does not live here: how messages become frames, and how the medium takes bytes ([`Sink`]).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::batch::FrameBatch;
use self::closing::Closing;
use self::queue::{ControlQueue, FrameQueue};
use self::writer::{TurnEnd, WriterTurn};
use super::{DuplexSettings, SendError, Ticket, by_host, close_code};
use crate::deadline::Deadline;
use crate::error::Disconnect;
use crate::thread::Threads;

mod batch;
mod closing;
mod queue;
mod writer;

/// What takes the bytes. At most one thread at a time writes; the other methods may be called from
/// any thread.
pub(super) trait Sink: Send + Sync + 'static {
    /// Writes what the medium takes right now; `WouldBlock` when it takes nothing.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Waits until [`try_write`](Self::try_write) is worth trying, at most until the deadline; false
    /// when that passed. [`shutdown_both`](Self::shutdown_both) ends the wait.
    fn wait_writable(&self, deadline: Deadline) -> io::Result<bool>;

    /// Ends the writing direction in an orderly way, after the last byte: the peer reads to the
    /// end of the stream.
    fn shutdown_write(&self);

    /// Ends both directions and wakes every thread that waits in either. What the peer has sent before
    /// may still be read.
    fn shutdown_both(&self);
}

/// A handle to the shared writer of one connection. The transport's reader holds one too, to post
/// its answers and to say how the connection ended.
pub(super) struct Outgoing<S> {
    shared: Arc<WriterShared<S>>,
}

impl<S> Clone for Outgoing<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

struct WriterShared<S> {
    sink: S,
    threads: Threads,
    thread_name: String,
    outbound_bytes: usize,
    write_stall: Duration,
    state: Mutex<WriterState>,
    /// There is room in the queue, the role of the writer is free, the close was written, the
    /// reader has gone, or the connection has ended.
    changed: Condvar,
    /// The waiting writer thread has been given the role, or the connection has ended.
    wake: Condvar,
    /// Why the connection ended or is ending. Set under the lock, read without.
    cause: OnceLock<Arc<Disconnect>>,
    /// Both directions are shut down: nothing more is read or written, whatever is left.
    shut_down: AtomicBool,
    /// Bytes have come since the last [`take_progress`](Outgoing::take_progress).
    progress: AtomicBool,
}

#[derive(Default)]
struct WriterState {
    queue: FrameQueue,
    control: ControlQueue,
    /// A thread has the role of the writer, or is being started for it.
    writing: bool,
    /// A writer thread without the role waits on `wake`.
    parked: bool,
    /// Another caller left a frame with the writer of the last turn, so more may come.
    contended: bool,
    /// Begun bytes. Taken out by the writer while it writes; left here when no thread can write on.
    batch: FrameBatch,
    closing: Option<Closing>,
    /// A write failed. Stands in for the cause until the reader has found out more: it may still
    /// read the peer's close.
    failed: Option<Arc<Disconnect>>,
    /// The host hung up, so that failure says nothing of the peer.
    hung_up: bool,
    reader_gone: bool,
}

/// What becomes of a caller's own frame when its deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnTimeout {
    /// The frame is taken back if it has not been begun.
    Withdraw,
    /// Another thread writes the frame.
    HandOver,
}

/// A post that was not queued.
#[derive(Debug)]
pub(super) enum PostError {
    /// The queue for posts is full.
    Full,
    /// The connection has ended.
    Closed(Arc<Disconnect>),
}

impl<S: Sink> Outgoing<S> {
    pub(super) fn new(sink: S, settings: &DuplexSettings) -> Self {
        let shared = WriterShared {
            sink,
            threads: settings.threads.clone(),
            thread_name: thread_name(&settings.name),
            outbound_bytes: settings.outbound_bytes,
            write_stall: settings.write_stall.min(LONGEST_STALL),
            state: Mutex::default(),
            changed: Condvar::new(),
            wake: Condvar::new(),
            cause: OnceLock::new(),
            shut_down: AtomicBool::new(false),
            progress: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    pub(super) fn sink(&self) -> &S {
        &self.shared.sink
    }

    /// See [`DuplexWriter::send`](super::DuplexWriter::send); `frame` is the encoded message.
    pub(super) fn send(&self, frame: Vec<u8>, deadline: Deadline) -> Result<Ticket, SendError> {
        if deadline.has_passed() {
            return Err(SendError::Timeout { withdrawn: true });
        }
        self.enqueue(frame, deadline, OnTimeout::Withdraw)
    }

    /// See [`DuplexWriter::try_send`](super::DuplexWriter::try_send); `frame` is the encoded
    /// message.
    pub(super) fn try_send(&self, frame: Vec<u8>) -> Result<Ticket, SendError> {
        self.enqueue(frame, Deadline::after(Duration::ZERO), OnTimeout::HandOver)
    }

    /// See [`DuplexWriter::queue`](super::DuplexWriter::queue); `frame` is the encoded message.
    pub(super) fn queue(&self, frame: Vec<u8>, deadline: Deadline) -> Result<Ticket, SendError> {
        if deadline.has_passed() {
            return Err(SendError::Timeout { withdrawn: true });
        }
        let mut state = self.shared.state.lock();
        self.push(&mut state, frame, deadline)
    }

    /// See [`DuplexWriter::flush`](super::DuplexWriter::flush).
    pub(super) fn flush(&self) {
        let mut state = self.shared.state.lock();
        if state.has_work() {
            self.shared.write_in_passing(&mut state);
        }
    }

    fn enqueue(
        &self,
        frame: Vec<u8>,
        deadline: Deadline,
        on_timeout: OnTimeout,
    ) -> Result<Ticket, SendError> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let ticket = self.push(&mut state, frame, deadline)?;
        if state.writing {
            state.contended = true;
            return Ok(ticket);
        }
        shared.write_own(&mut state, ticket, deadline, on_timeout)
    }

    /// Puts a frame at the end of the queue; waits for room until the deadline.
    fn push(
        &self,
        state: &mut MutexGuard<'_, WriterState>,
        frame: Vec<u8>,
        deadline: Deadline,
    ) -> Result<Ticket, SendError> {
        let shared = &self.shared;
        let mut place = None;
        loop {
            if let Some(cause) = shared.closed(state) {
                // The line no longer matters.
                return Err(SendError::Closed(cause));
            }
            if state
                .queue
                .admits(frame.len(), shared.outbound_bytes, place)
            {
                break;
            }
            let place = *place.get_or_insert_with(|| state.queue.join_line());
            let late = if state.writing || !state.has_work() {
                // Woken when there is room, or when the callers ahead in the line have gone.
                shared.times_out(state, deadline)
            } else {
                // Full, and no thread writes: queued frames fill it, or no thread could be started. Some of
                // them are written here and now, and a writer thread goes on.
                shared.write_in_passing(state);
                if !state.writing && state.has_work() {
                    shared.write_until(state, deadline);
                }
                deadline.has_passed()
            };
            if late
                && !state
                    .queue
                    .admits(frame.len(), shared.outbound_bytes, Some(place))
            {
                state.queue.leave_line(place);
                shared.changed.notify_all();
                return Err(SendError::Timeout { withdrawn: true });
            }
        }
        if let Some(place) = place {
            state.queue.leave_line(place);
            // There may be room for the next in line as well.
            shared.changed.notify_all();
        }
        Ok(state.queue.push(frame))
    }

    /// See [`OwnWriter::withdraw`](super::halves::OwnWriter::withdraw).
    pub(super) fn withdraw(&self, ticket: Ticket) -> bool {
        let removed = self.shared.state.lock().queue.remove(ticket);
        if removed {
            self.shared.changed.notify_all();
        }
        removed
    }

    /// Queues an answer of the reading thread. Never blocks, never writes.
    pub(super) fn post(&self, frame: Vec<u8>) -> Result<(), PostError> {
        let mut state = self.shared.state.lock();
        if let Some(cause) = self.shared.closed(&state) {
            return Err(PostError::Closed(cause));
        }
        if !state.control.post(frame) {
            return Err(PostError::Full);
        }
        self.shared.ensure_writer(&mut state);
        Ok(())
    }

    /// Queues a pong in place of an older one. Never blocks, never writes.
    pub(super) fn pong(&self, frame: Vec<u8>) {
        let mut state = self.shared.state.lock();
        if self.shared.closed(&state).is_none() {
            state.control.set_pong(frame);
            self.shared.ensure_writer(&mut state);
        }
    }

    /// Sends a ping in place of one that has not gone out: writes it as far as the medium takes it
    /// right now. Never blocks; not for the reading thread.
    pub(super) fn ping(&self, frame: Vec<u8>) {
        let mut state = self.shared.state.lock();
        if self.shared.closed(&state).is_none() {
            state.control.set_ping(frame);
            self.shared.write_in_passing(&mut state);
        }
    }

    /// Returns why the connection ended or is ending, if it is.
    pub(super) fn cause(&self) -> Option<Arc<Disconnect>> {
        self.shared.cause.get().cloned()
    }

    /// Returns whether the connection has ended or is ending: what the peer sends no longer counts.
    pub(super) fn is_over(&self) -> bool {
        self.shared.cause.get().is_some()
    }

    /// Returns whether a write has failed. The reader may go on for a while, to find out why.
    pub(super) fn has_failed(&self) -> bool {
        let state = self.shared.state.lock();
        state.failed.is_some() && !state.hung_up
    }

    /// Notes that bytes have come from the peer.
    pub(super) fn progressed(&self) {
        // Read first, because it mostly is set, and a write would take the cache line from other threads.
        if !self.shared.progress.load(Ordering::Relaxed) {
            self.shared.progress.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether bytes have come since the last call.
    pub(super) fn take_progress(&self) -> bool {
        self.shared.progress.swap(false, Ordering::Relaxed)
    }

    /// See [`DuplexWriter::interrupt`](super::DuplexWriter::interrupt).
    pub(super) fn interrupt(&self) {
        self.end(by_host(close_code::ABNORMAL, "interrupted"));
    }

    /// Returns whether both directions are shut down.
    pub(super) fn is_shut_down(&self) -> bool {
        self.shared.is_shut_down()
    }
}

impl<S: Sink> WriterShared<S> {
    /// Returns why nothing more may be sent, if that is so.
    fn closed(&self, state: &WriterState) -> Option<Arc<Disconnect>> {
        self.cause.get().or(state.failed.as_ref()).cloned()
    }

    fn is_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::Acquire)
    }

    /// Waits for any change; true at the deadline.
    fn times_out(&self, state: &mut MutexGuard<'_, WriterState>, deadline: Deadline) -> bool {
        let waited = self.changed.wait_until(state, deadline.instant());
        waited.timed_out()
    }

    /// Writes the caller's own frame, just queued, and what comes after it. The role is free.
    fn write_own(
        self: &Arc<Self>,
        state: &mut MutexGuard<'_, WriterState>,
        ticket: Ticket,
        deadline: Deadline,
        on_timeout: OnTimeout,
    ) -> Result<Ticket, SendError> {
        let mut turn = WriterTurn::for_frame(ticket, deadline);
        writer::take_role(state);
        loop {
            match self.write(state, &mut turn) {
                TurnEnd::Empty | TurnEnd::Ended => break,
                TurnEnd::Yield => {
                    if self.hand_over(state) {
                        break;
                    }
                    // No other thread will write the rest, so go on as long as the caller has time.
                    turn.stay();
                }
                TurnEnd::TimedOut if on_timeout == OnTimeout::HandOver && self.hand_over(state) => {
                    return Ok(ticket);
                }
                TurnEnd::TimedOut => {
                    // Taken back before the role is passed on, or the next writer would begin it.
                    let withdrawn = state.queue.remove(ticket);
                    let closed = self.closed(state);
                    if !self.hand_over(state) {
                        self.leave_role(state);
                    }
                    return match closed {
                        _ if turn.own_done() => Ok(ticket),
                        // No thread to hand it to, but begun: the next sender finishes it.
                        None if on_timeout == OnTimeout::HandOver && !withdrawn => Ok(ticket),
                        Some(cause) => Err(SendError::Closed(cause)),
                        None => Err(SendError::Timeout { withdrawn }),
                    };
                }
            }
        }
        match self.closed(state) {
            // A close dropped the frame from the queue, or the write failed before its end.
            Some(cause) if !turn.own_done() => Err(SendError::Closed(cause)),
            _ => Ok(ticket),
        }
    }
}

/// Keeps sums of times from overflowing.
const LONGEST_STALL: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// `write-<name>`, cut to what Linux shows.
fn thread_name(name: &str) -> String {
    let mut text = format!("write-{name}");
    let mut length = text.len().min(15);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    text.truncate(length);
    text
}
