//! The only way from a message to the transport: a message over the peer's limit is never written.

use crate::deadline::Deadline;
use crate::duplex::{SendError, Ticket, WritingHalf};
use crate::error::{Disconnect, Error, Result};

type Sent<T> = std::result::Result<T, SendError>;

/// The writing half, and the largest message the peer accepts.
pub(super) struct Sending {
    writer: WritingHalf,
    /// Largest message, in bytes.
    limit: usize,
}

/// A message within the peer's limit.
pub(super) struct Fitting<'a> {
    writer: &'a WritingHalf,
    message: &'a str,
}

impl Sending {
    pub(super) fn new(writer: WritingHalf, limit: usize) -> Self {
        Self { writer, limit }
    }

    /// Checks a message against the limit.
    pub(super) fn fit<'a>(&'a self, message: &'a str) -> Result<Fitting<'a>> {
        if message.len() > self.limit {
            return Err(Error::MessageTooLarge {
                size: message.len(),
                limit: self.limit,
            });
        }
        Ok(Fitting {
            writer: &self.writer,
            message,
        })
    }

    /// Returns the writer, for everything but messages.
    pub(super) fn control(&self) -> &WritingHalf {
        &self.writer
    }
}

impl Fitting<'_> {
    pub(super) fn len(&self) -> usize {
        self.message.len()
    }

    pub(super) fn send(&self, deadline: Deadline) -> Sent<Ticket> {
        self.writer.send(self.message, deadline)
    }

    pub(super) fn try_send(&self) -> Sent<Ticket> {
        self.writer.try_send(self.message)
    }

    pub(super) fn queue(&self, deadline: Deadline) -> Sent<Ticket> {
        self.writer.queue(self.message, deadline)
    }

    pub(super) fn post(&self) -> std::result::Result<(), Disconnect> {
        self.writer.post(self.message)
    }
}
