//! The writing half of the stream transports: frames messages on the caller's thread, and hands the
//! frames to the shared writer.

use std::sync::Arc;
use std::time::Instant;

use super::halves::{OwnWriter, taken};
use super::outgoing::{Outgoing, PostError, Sink};
use super::{DuplexWriter, SendError, Ticket, by_host, close_code};
use crate::deadline::Deadline;
use crate::error::Disconnect;

/// How a transport puts messages on its stream.
pub(super) trait Framing: Send + Sync + 'static {
    /// Returns the frame of a message.
    fn message(&self, message: &str) -> Vec<u8>;

    /// Returns a ping of the transport's own, if it has one.
    fn ping(&self) -> Option<Vec<u8>>;

    /// Returns a close with its code and reason. `None` where only the end of the stream says it.
    fn close(&self, code: u16, reason: &str) -> Option<Vec<u8>>;
}

/// The writing half over a shared writer.
pub(super) struct FramedWriter<F, S> {
    pub(super) framing: F,
    pub(super) outgoing: Outgoing<S>,
}

impl<F: Framing, S: Sink> OwnWriter for FramedWriter<F, S> {
    fn send_ticketed(&self, message: &str, deadline: Deadline) -> Result<Ticket, SendError> {
        self.outgoing.send(self.framing.message(message), deadline)
    }

    fn try_send_ticketed(&self, message: &str) -> Result<Ticket, SendError> {
        self.outgoing.try_send(self.framing.message(message))
    }

    fn queue_ticketed(&self, message: &str, deadline: Deadline) -> Result<Ticket, SendError> {
        self.outgoing.queue(self.framing.message(message), deadline)
    }

    fn withdraw(&self, ticket: Ticket) -> bool {
        self.outgoing.withdraw(ticket)
    }
}

impl<F: Framing, S: Sink> DuplexWriter for FramedWriter<F, S> {
    fn send(&self, message: &str, deadline: Instant) -> Result<bool, Disconnect> {
        taken(self.send_ticketed(message, Deadline::at(deadline)))
    }

    fn try_send(&self, message: &str) -> Result<bool, Disconnect> {
        taken(self.try_send_ticketed(message))
    }

    fn queue(&self, message: &str, deadline: Instant) -> Result<bool, Disconnect> {
        taken(self.queue_ticketed(message, Deadline::at(deadline)))
    }

    fn flush(&self) {
        self.outgoing.flush();
    }

    fn post(&self, message: &str) -> Result<(), Disconnect> {
        let cause = match self.outgoing.post(self.framing.message(message)) {
            Ok(()) => return Ok(()),
            Err(PostError::Closed(cause)) => cause,
            Err(PostError::Full) => {
                let own = Disconnect::ControlOverflow;
                let code = close_code::TRY_AGAIN_LATER;
                if let Some(close) = self.framing.close(code, &own.to_string()) {
                    self.outgoing.close_from_reader(own.clone(), close);
                } else {
                    self.outgoing.end(own.clone());
                }
                // Which may be an earlier one.
                self.outgoing.cause().unwrap_or_else(|| Arc::new(own))
            }
        };
        Err(Disconnect::clone(&cause))
    }

    fn ping(&self) -> bool {
        let ping = self.framing.ping();
        ping.map(|ping| self.outgoing.ping(ping)).is_some()
    }

    fn has_ping(&self) -> bool {
        self.framing.ping().is_some()
    }

    fn take_progress(&self) -> bool {
        self.outgoing.take_progress()
    }

    fn begin_close(&self, code: u16, reason: &str) -> bool {
        let close = self.framing.close(code, reason);
        let begun = close.map(|close| self.outgoing.begin_close(by_host(code, reason), close));
        begun.is_some()
    }

    fn hang_up(&self, code: u16, reason: &str) {
        // Where there is a close frame, nothing but that frame ends the stream.
        if self.framing.close(code, reason).is_none() {
            self.outgoing.hang_up(by_host(code, reason));
        }
    }

    fn close(&self, code: u16, reason: &str, deadline: Instant) {
        let close = self.framing.close(code, reason);
        // A peer that sees the close answers it. The end of the stream has no answer to wait for.
        let waits = close.is_some();
        let close = close.unwrap_or_default();
        self.outgoing
            .close(by_host(code, reason), close, waits, Deadline::at(deadline));
    }

    fn interrupt(&self) {
        self.outgoing.interrupt();
    }
}
