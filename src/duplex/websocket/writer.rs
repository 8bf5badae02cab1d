//! The writing half of a WebSocket: encodes on the caller's thread, then hands the frame to the
//! shared writer.

use std::sync::Arc;

use super::{Role, Socket, frame};
use crate::deadline::Deadline;
use crate::duplex::outgoing::{Outgoing, PostError};
use crate::duplex::{DuplexWriter, SendError, Ticket, close_code};
use crate::error::Disconnect;

pub(super) struct WebSocketWriter {
    outgoing: Outgoing<Socket>,
    role: Role,
}

impl WebSocketWriter {
    pub(super) fn new(outgoing: Outgoing<Socket>, role: Role) -> Self {
        Self { outgoing, role }
    }
}

impl WebSocketWriter {
    fn close_of(&self, code: u16, reason: &str) -> (Disconnect, Vec<u8>) {
        let cause = Disconnect::ByHost {
            code,
            reason: Arc::from(reason),
        };
        (cause, frame::close(self.role, Some(code), reason))
    }
}

impl DuplexWriter for WebSocketWriter {
    fn send(&self, message: &str, deadline: Deadline) -> Result<Ticket, SendError> {
        self.outgoing
            .send(frame::text(self.role, message), deadline)
    }

    fn try_send(&self, message: &str) -> Result<Ticket, SendError> {
        self.outgoing.try_send(frame::text(self.role, message))
    }

    fn queue(&self, message: &str, deadline: Deadline) -> Result<Ticket, SendError> {
        self.outgoing
            .queue(frame::text(self.role, message), deadline)
    }

    fn flush(&self) {
        self.outgoing.flush();
    }

    fn withdraw(&self, ticket: Ticket) -> bool {
        self.outgoing.withdraw(ticket)
    }

    fn post(&self, message: &str) -> Result<(), SendError> {
        match self.outgoing.post(frame::text(self.role, message)) {
            Ok(()) => Ok(()),
            Err(PostError::Closed(cause)) => Err(SendError::Closed(cause)),
            Err(PostError::Full) => {
                let cause = Disconnect::ControlOverflow;
                let close = frame::close(
                    self.role,
                    Some(close_code::TRY_AGAIN_LATER),
                    &cause.to_string(),
                );
                self.outgoing.close_from_reader(cause.clone(), close);
                // Which may be an earlier one.
                let cause = self.outgoing.cause().unwrap_or_else(|| Arc::new(cause));
                Err(SendError::Closed(cause))
            }
        }
    }

    fn ping(&self) -> bool {
        self.outgoing.ping(frame::ping(self.role, b"plugin-runner"));
        true
    }

    fn take_progress(&self) -> bool {
        self.outgoing.take_progress()
    }

    fn has_ping(&self) -> bool {
        true
    }

    fn begin_close(&self, code: u16, reason: &str) -> bool {
        let (cause, close) = self.close_of(code, reason);
        self.outgoing.begin_close(cause, close);
        true
    }

    fn close(&self, code: u16, reason: &str, deadline: Deadline) {
        let (cause, close) = self.close_of(code, reason);
        self.outgoing.close(cause, close, true, deadline);
    }
}
