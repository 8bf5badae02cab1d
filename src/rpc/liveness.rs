//! Signs of life: what was received from the peer lately, and pings that ask for more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;

use super::{Connection, with_buffer};
use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::id::RequestId;
use crate::protocol::method::{Method, Ping};

/// What was received lately. The reading thread sets it, health checks take it.
#[derive(Default)]
pub(super) struct SignsOfLife {
    /// Something arrived since the last check, and a whole message did.
    anything: AtomicBool,
    message: AtomicBool,
    /// A call's time ran out after it was written, and no message has come since.
    overdue: AtomicBool,
    /// A probe waits, see [`Connection::is_alive`].
    probed: AtomicBool,
    probe: Mutex<Option<Sender<()>>>,
}

impl SignsOfLife {
    /// Notes that something arrived, whatever it is.
    pub(super) fn received(&self) {
        raise(&self.anything);
        if self.probed.load(Ordering::Acquire) {
            self.probed.store(false, Ordering::Release);
            if let Some(probe) = self.probe.lock().take() {
                // There is room for one; a probe whose time ran out is gone.
                let _ = probe.try_send(());
            }
        }
    }

    /// Notes that it was a whole message.
    pub(super) fn received_message(&self) {
        raise(&self.message);
        if self.overdue.load(Ordering::Relaxed) {
            self.overdue.store(false, Ordering::Relaxed);
        }
    }

    /// Notes that a call's time ran out after it was written.
    pub(super) fn call_overdue(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    /// Ends a waiting probe, because nothing more is read.
    pub(super) fn end(&self) {
        self.probe.lock().take();
    }
}

/// Sets a flag that mostly is set already, without taking its cache line from other threads that read it.
fn raise(flag: &AtomicBool) {
    if !flag.load(Ordering::Relaxed) {
        flag.store(true, Ordering::Relaxed);
    }
}

impl Connection {
    /// Asks the peer for a sign of life with a transport-level ping, and waits until anything arrives, at
    /// most until the deadline. Returns whether it did; true where the transport has no ping.
    pub(crate) fn is_alive(&self, deadline: Deadline) -> bool {
        let (sender, receiver) = bounded(1);
        *self.signs.probe.lock() = Some(sender);
        self.signs.probed.store(true, Ordering::Release);
        if self.has_ended() {
            return false;
        }
        let _ = self.sending.control().take_progress();
        if !self.sending.control().ping() {
            return true;
        }
        // An error is the end of the connection, or the deadline. Then a large message may be on its way,
        // inside of which no pong can come.
        receiver.recv_deadline(deadline.instant()).is_ok()
            || (!self.has_ended() && self.sending.control().take_progress())
    }

    /// Returns whether anything arrived since the last check, also a part of a message; with
    /// `messages_only`, whether a whole message did.
    pub(crate) fn take_signs(&self, messages_only: bool) -> bool {
        let anything = self.signs.anything.swap(false, Ordering::Relaxed)
            | self.sending.control().take_progress();
        let message = self.signs.message.swap(false, Ordering::Relaxed);
        if messages_only { message } else { anything }
    }

    /// Returns whether the peer waits for an answer of ours.
    pub(crate) fn waits_for_us(&self) -> bool {
        self.counters.inbound_in_flight.load(Ordering::Relaxed) > 0
    }

    /// Returns whether the peer may be handling a call of ours, and so answer nothing else. Once a call's
    /// time ran out and nothing came since, the next call does not excuse it: a series of callers would hide
    /// a hung plugin.
    pub(crate) fn is_called(&self, now: Instant) -> bool {
        !self.signs.overdue.load(Ordering::Relaxed) && self.pending.has_calls_within_time(now)
    }

    /// Returns whether the transport has a ping of its own.
    pub(crate) fn has_transport_ping(&self) -> bool {
        self.sending.control().has_ping()
    }

    /// Sends the transport's own ping without blocking. Returns false where there is none.
    pub(crate) fn ping_transport(&self) -> bool {
        self.sending.control().ping()
    }

    /// Sends the protocol's `ping` as a health ping, without blocking. Whatever arrives shows in
    /// [`take_signs`](Self::take_signs). Returns false when there is no room for it now.
    pub(crate) fn ping_peer(&self) -> bool {
        let id = RequestId::generate();
        with_buffer(|buffer| {
            let Ok(fitting) = self.encode(buffer, id, Ping::NAME, &Ping {}) else {
                return false;
            };
            // Before it is sent, because the answer may come at once.
            self.pending.expect_own_ping(id);
            let sent = fitting.try_send().is_ok();
            if sent {
                count_by(&self.counters.bytes_sent, fitting.len());
            } else {
                self.pending.take_own_ping(id);
            }
            sent
        })
    }

    /// Returns whether the answer to the newest health ping is outstanding.
    pub(crate) fn expects_own_ping(&self) -> bool {
        self.pending.expects_own_ping()
    }
}
