//! One connection: bytes in, with those that were read ahead, and bytes out, each under a deadline.
//!
//! There is one buffer for all requests of a connection: what was read behind one request begins the next.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::head::{HeadError, Interruption, read_head, wait_readable};
use super::signal::Signal;
use super::slots::Slot;
use crate::deadline::Deadline;
use crate::duplex::websocket::Socket;
use crate::poll;

/// How much is written under one deadline, in bytes.
pub(super) const PACE: usize = 64 * 1024;

/// How much is read ahead at once, in bytes.
const READ_AHEAD: usize = 8 * 1024;

/// How a server tells its connections that it stops.
pub(super) struct Stop {
    /// No further request is read, and what has no end by itself ends.
    pub(super) begun: Signal,
    /// Handlers that wait for something answer without it.
    pub(super) late: Signal,
    /// Whatever still waits for a peer ends.
    pub(super) cut: Signal,
}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            begun: Signal::new()?,
            late: Signal::new()?,
            cut: Signal::new()?,
        })
    }
}

pub(super) struct Wire {
    pub(super) socket: Arc<Socket>,
    stop: Arc<Stop>,
    /// How long each [`PACE`] bytes may take to be written.
    write: Duration,
    buffer: Vec<u8>,
    /// How much of the buffer has been used.
    used: usize,
}

impl Wire {
    pub(super) fn new(socket: Arc<Socket>, stop: Arc<Stop>, write: Duration) -> Self {
        Self {
            socket,
            stop,
            write,
            buffer: Vec::new(),
            used: 0,
        }
    }

    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Returns what was read ahead.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Returns the buffer with nothing in it but what was read ahead.
    pub(super) fn compact(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.used);
        self.used = 0;
        // A connection that is idle keeps no large buffer.
        if self.buffer.is_empty() && self.buffer.capacity() > READ_AHEAD {
            self.buffer = Vec::new();
        }
        &mut self.buffer
    }

    /// Takes bytes that were read ahead; `count` is at most as many as there are.
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        let begin = self.used;
        self.used += count;
        &self.buffer[begin..self.used]
    }

    /// Reads ahead until there is a whole head of at most `limit` bytes, and returns its length. Its first byte
    /// comes before `idle`, and the rest within `time` after that. The stop and the loss of the slot wake it.
    pub(super) fn read_head(
        &mut self,
        limit: usize,
        idle: Deadline,
        time: Duration,
        slot: &Slot,
    ) -> Result<usize, HeadError> {
        let stop = self.stop.begun.pipe();
        if self.ahead().is_empty() {
            wait_readable(&self.socket, idle, Some(stop))?;
        }
        self.compact();
        let interruption = Interruption {
            stop: self.stop.begun.pipe(),
            slot,
        };
        let deadline = Deadline::after(time);
        read_head(
            &self.socket,
            &mut self.buffer,
            limit,
            deadline,
            Some(interruption),
        )
    }

    /// Reads more ahead. Returns how much; zero at the end of the stream.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(super) fn read_ahead(&mut self, deadline: Deadline) -> io::Result<usize> {
        let end = self.compact().len();
        self.buffer.resize(end + READ_AHEAD, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.receive(&mut buffer[end..], deadline);
        buffer.truncate(end + read.as_ref().copied().unwrap_or(0));
        self.buffer = buffer;
        read
    }

    /// Reads what was read ahead, or else from the socket. Returns zero at the end of the stream.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(super) fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        let count = self.ahead().len().min(buffer.len());
        if count == 0 {
            return self.receive(buffer, deadline);
        }
        buffer[..count].copy_from_slice(self.take(count));
        Ok(count)
    }

    /// Reads from the socket once there is something.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, `ConnectionAborted` when the server cuts its connections off, and the
    /// system's.
    fn receive(&self, buffer: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        loop {
            // Checked each time, for a peer that keeps sending.
            self.check(deadline)?;
            match self.socket.read_arrived(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::IN, deadline)?;
                }
                read => return read,
            }
        }
    }

    /// Writes all of it, each [`PACE`] bytes within the time for a write.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PACE) {
            let deadline = Deadline::after(self.write);
            let mut left = piece;
            while !left.is_empty() {
                self.check(deadline)?;
                match self.socket.write_now(left) {
                    Ok(count) => left = &left[count..],
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.wait(PollFlags::OUT, deadline)?;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn check(&self, deadline: Deadline) -> io::Result<()> {
        if self.stop.cut.has_come() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if deadline.has_passed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Waits until the socket is ready, or until what [`check`](Self::check) finds.
    fn wait(&self, flags: PollFlags, deadline: Deadline) -> io::Result<()> {
        let mut descriptors = [
            PollFd::new(&*self.socket, flags),
            PollFd::from_borrowed_fd(self.stop.cut.pipe().as_fd(), PollFlags::IN),
        ];
        poll::wait(&mut descriptors, Some(deadline)).map(drop)
    }

    /// Whether the peer is still there and the server does not stop. A peer that has ended its writing
    /// direction counts as gone. Never blocks.
    pub(super) fn is_open(&self) -> bool {
        !self.stop.begun.has_come() && !self.socket.has_ended()
    }

    /// The same, but a server that stops has the time for an answer that will soon be there.
    pub(super) fn is_awaited(&self) -> bool {
        !self.stop.late.has_come() && !self.socket.has_ended()
    }

    /// Ends writing, and discards what still comes until the peer ends too or the time is up. A connection
    /// that is closed with unread bytes is reset, and the reset may destroy the last response on its way.
    pub(super) fn linger(&self, time: Duration) {
        self.socket.end_writing();
        let deadline = Deadline::after(time);
        let mut buffer = [0; 4096];
        while self
            .receive(&mut buffer, deadline)
            .is_ok_and(|count| count > 0)
        {}
    }
}
