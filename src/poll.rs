//! Waiting for descriptors, under a deadline.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::deadline::Deadline;

/// Waits until one of the descriptors is ready, or until the deadline. Returns whether one is.
///
/// A signal does not end the wait.
pub(crate) fn wait(descriptors: &mut [PollFd<'_>], deadline: Option<Deadline>) -> io::Result<bool> {
    loop {
        let timeout = deadline
            .map(|deadline| Timespec::try_from(deadline.remaining()))
            .transpose()
            .map_err(io::Error::other)?;
        match rustix::event::poll(descriptors, timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the descriptor can be read, has ended, or has an error to report.
pub(crate) fn readable(descriptor: BorrowedFd<'_>, deadline: Deadline) -> io::Result<bool> {
    let mut descriptors = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    wait(&mut descriptors, Some(deadline))
}

/// Waits until the descriptor takes bytes, has been closed, or has an error to report.
pub(crate) fn writable(descriptor: BorrowedFd<'_>, deadline: Deadline) -> io::Result<bool> {
    let mut descriptors = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
    wait(&mut descriptors, Some(deadline))
}
