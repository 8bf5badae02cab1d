//! `Within`: how long a call may take, and what cancels it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use crate::deadline::Deadline;
use crate::error::SpritesProblem;
use crate::poll;
pub(crate) use crate::runtime::interrupt::Interrupt;

/// How long a call may take, and what cancels it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within<'a> {
    pub(super) deadline: Deadline,
    /// The time allowed, to be named in errors.
    pub(super) limit: Duration,
    pub(super) interrupt: &'a Interrupt,
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
