//! `Interrupt`: ends waits of other threads, through a descriptor that they poll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};

use crate::deadline::Deadline;
use crate::error::SpritesProblem;
use crate::poll;

/// Cancels calls. A clone cancels the same calls.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<Pipe>);

#[derive(Debug)]
struct Pipe {
    reader: io::PipeReader,
    /// Closed to cancel: from then on the other end is always readable, for any number of waits.
    writer: Mutex<Option<io::PipeWriter>>,
}

/// How long a call may take, and what cancels it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within<'a> {
    pub(super) deadline: Deadline,
    /// The time allowed, to be named in errors.
    pub(super) limit: Duration,
    pub(super) interrupt: &'a Interrupt,
}

impl Interrupt {
    /// # Errors
    /// The process has no descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let writer = Mutex::new(Some(writer));
        Ok(Self(Arc::new(Pipe { reader, writer })))
    }

    /// Ends every call that has this interrupt, now and later. Never blocks.
    pub(crate) fn cancel(&self) {
        self.0.writer.lock().take();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.writer.lock().is_none()
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.reader.as_fd()
    }
}

impl<'a> Within<'a> {
    pub(crate) fn new(limit: Duration, interrupt: &'a Interrupt) -> Self {
        Self {
            deadline: Deadline::after(limit),
            limit,
            interrupt,
        }
    }

    /// Returns the same with no more than `limit` from now on.
    pub(super) fn at_most(self, limit: Duration) -> Self {
        let deadline = Deadline::after(limit);
        if self.deadline <= deadline {
            return self;
        }
        Self {
            deadline,
            limit,
            ..self
        }
    }

    /// # Errors
    /// The time is over, or the call was cancelled. A caller that cancels because the time is over learns
    /// of the time.
    pub(super) fn check(&self) -> Result<(), SpritesProblem> {
        if self.deadline.has_passed() {
            return Err(SpritesProblem::Timeout { limit: self.limit });
        }
        if self.interrupt.is_cancelled() {
            return Err(SpritesProblem::Cancelled);
        }
        Ok(())
    }

    /// Waits until the descriptor is ready.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`Broken`](SpritesProblem::Broken) when the system refuses to wait.
    pub(super) fn wait(
        &self,
        descriptor: BorrowedFd<'_>,
        flags: PollFlags,
    ) -> Result<(), SpritesProblem> {
        self.check()?;
        let mut descriptors = [
            PollFd::from_borrowed_fd(self.interrupt.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(descriptor, flags),
        ];
        poll::wait(&mut descriptors, Some(self.deadline)).map_err(SpritesProblem::Broken)?;
        self.check()
    }

    /// Lets this time pass.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(super) fn pause(&self, time: Duration) -> Result<(), SpritesProblem> {
        let end = self.deadline.min(Deadline::after(time));
        poll::readable(self.interrupt.as_fd(), end).map_err(SpritesProblem::Broken)?;
        self.check()
    }
}
