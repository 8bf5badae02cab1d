//! The writing pipe as a medium for the shared writer, and the wake pipe that ends every wait of
//! the connection.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};

use crate::deadline::Deadline;
use crate::duplex::outgoing::Sink;
use crate::poll;

/// A descriptor that becomes ready, for good, when it is woken.
pub(super) struct Wake {
    waiting: PipeReader,
    /// Dropped to wake: the end of a stream is seen by any number of waiters, any number of times.
    held: Mutex<Option<PipeWriter>>,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        let (waiting, held) = io::pipe()?;
        Ok(Self {
            waiting,
            held: Mutex::new(Some(held)),
        })
    }

    fn wake(&self) {
        let held = self.held.lock().take();
        drop(held);
    }

    /// Returns the descriptor for `poll`: ready means woken.
    fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.waiting, PollFlags::IN)
    }
}

/// How long a full pipe is held at once while it is waited for.
const HELD: Duration = Duration::from_millis(100);

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// There is something to read.
    Ready,
    /// The connection is over.
    Woken,
    /// The deadline passed.
    TimedOut,
}

/// The pipe that is written to.
pub(in crate::duplex) struct WritePipe {
    /// `None` after the end. The writer holds the descriptor while it uses it, so it is not closed
    /// meanwhile.
    writer: Mutex<Option<Arc<OwnedFd>>>,
    /// The descriptor's modes are not ours to change.
    shared: bool,
    wake: Wake,
}

impl WritePipe {
    pub(super) fn new(writer: OwnedFd, shared: bool, wake: Wake) -> io::Result<Self> {
        if !shared {
            rustix::io::ioctl_fionbio(&writer, true)?;
        }
        Ok(Self {
            writer: Mutex::new(Some(Arc::new(writer))),
            shared,
            wake,
        })
    }

    fn descriptor(&self) -> io::Result<Arc<OwnedFd>> {
        let writer = self.writer.lock().clone();
        writer.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits until `descriptor` is ready, the connection was woken, or the deadline has passed.
    pub(super) fn wait_readable(
        &self,
        descriptor: BorrowedFd<'_>,
        deadline: Option<Deadline>,
    ) -> io::Result<Waited> {
        let mut descriptors = [
            PollFd::from_borrowed_fd(descriptor, PollFlags::IN),
            self.wake.poll_fd(),
        ];
        if !poll::wait(&mut descriptors, deadline)? {
            return Ok(Waited::TimedOut);
        }
        let is_ready = !descriptors[0].revents().is_empty();
        Ok(if is_ready {
            Waited::Ready
        } else {
            Waited::Woken
        })
    }
}

impl Sink for WritePipe {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let writer = self.descriptor()?;
        if !self.shared {
            return Ok(rustix::io::write(&*writer, bytes)?);
        }
        if !poll::writable(writer.as_fd(), Deadline::after(Duration::ZERO))? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // A pipe that is ready takes this much without blocking.
        let piece = bytes.get(..rustix::pipe::PIPE_BUF).unwrap_or(bytes);
        Ok(rustix::io::write(&*writer, piece)?)
    }

    fn wait_writable(&self, deadline: Deadline) -> io::Result<bool> {
        loop {
            // Held for a moment only: the pipe closes when the last holder lets go.
            let writer = self.descriptor()?;
            let mut descriptors = [PollFd::new(&*writer, PollFlags::OUT), self.wake.poll_fd()];
            let moment = deadline.min(Deadline::after(HELD));
            if poll::wait(&mut descriptors, Some(moment))? {
                return Ok(true);
            }
            if deadline.has_passed() {
                return Ok(false);
            }
        }
    }

    fn shutdown_write(&self) {
        let writer = self.writer.lock().take();
        drop(writer);
    }

    fn shutdown_both(&self) {
        self.shutdown_write();
        self.wake.wake();
    }
}
