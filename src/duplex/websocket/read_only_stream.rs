//! The socket as tungstenite sees it: a stream that reads and never writes.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::time::Duration;

use super::Socket;
use crate::duplex::WaitPolicy;
use crate::duplex::outgoing::Outgoing;

/// Bytes read at once in the middle of a long message.
const READ_AHEAD: usize = 64 * 1024;

/// What tungstenite reads from.
///
/// tungstenite answers pings and closes from inside `read`, by writing. The reading thread must
/// not write, so those bytes go nowhere: the same frames come up as messages too, and the reader
/// posts the answers.
///
/// It also asks for few bytes at a time, because that is what each connection keeps for as long as it
/// lives. When a message turns out to be longer, more are read at once into a buffer that goes with the
/// next short one.
pub(super) struct ReadOnlyStream {
    outgoing: Outgoing<Socket>,
    /// For a timed read; `None` for one without a limit.
    pub(super) policy: Option<WaitPolicy>,
    /// After this long a blocking read gives up.
    limit: Option<Duration>,
    /// What was read ahead, and which part of it has not been passed on. Kept from one long message to the
    /// next, and not beyond.
    read_ahead: Vec<u8>,
    ahead: Range<usize>,
    /// The last read filled all there was to fill: there is more.
    is_flowing: bool,
}

impl ReadOnlyStream {
    pub(super) fn new(outgoing: Outgoing<Socket>) -> Self {
        Self {
            outgoing,
            policy: None,
            limit: None,
            read_ahead: Vec::new(),
            ahead: 0..0,
            is_flowing: false,
        }
    }

    /// Sets a limit for blocking reads, or none; returns whether that was possible.
    pub(super) fn set_limit(&mut self, limit: Option<Duration>) -> bool {
        let set = self.outgoing.sink().set_read_timeout(limit);
        self.limit = limit.filter(|_| set.is_ok());
        set.is_ok()
    }

    fn read_socket(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = self.outgoing.sink();
        let read = match self.policy {
            None => loop {
                match socket.read(buffer) {
                    // A limit that could not be taken off; or the embedder has kept a handle to the socket, and made
                    // it non-blocking.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        socket.await_readable()?;
                    }
                    read => break read,
                }
            },
            Some(policy) => socket.read_within(buffer, policy, self.limit),
        };
        self.note(&read, buffer.len());
        read
    }

    /// Reads what may be a message of its own; if it is a short one, no long ones are expected.
    fn read_first(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_socket(buffer);
        if read.is_ok() && !self.is_flowing && !self.read_ahead.is_empty() {
            self.read_ahead = Vec::new();
        }
        read
    }

    /// Reads as much as is there already, if there is anything, into the read_ahead buffer.
    fn read_ahead(&mut self) -> io::Result<usize> {
        self.read_ahead.resize(READ_AHEAD, 0);
        let read = self.outgoing.sink().read_arrived(&mut self.read_ahead);
        self.note(&read, READ_AHEAD);
        self.ahead = 0..*read.as_ref().unwrap_or(&0);
        read
    }

    fn note(&mut self, read: &io::Result<usize>, room: usize) {
        let count = *read.as_ref().unwrap_or(&0);
        if count > 0 {
            self.outgoing.progressed();
        }
        self.is_flowing = count == room;
    }

    fn give(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.read_ahead[self.ahead.clone()];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.ahead.start += count;
        count
    }
}

impl Read for ReadOnlyStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.outgoing.is_over() {
            // What is left is for the reader to see out, which has a limit.
            return Ok(0);
        }
        if self.ahead.is_empty() {
            let is_late = self
                .policy
                .is_some_and(|policy| policy.deadline.has_passed());
            if is_late {
                // Also for a peer that sends without end.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if !self.is_flowing {
                return self.read_first(buffer);
            }
            match self.read_ahead() {
                Ok(_) => {}
                // It had ended where the buffer did.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.read_first(buffer);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.give(buffer))
    }
}

impl Write for ReadOnlyStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
