//! `Interrupt`: ends waits of other threads, through a descriptor that they poll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use parking_lot::Mutex;

/// Cancels calls. A clone cancels the same calls.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<Pipe>);

#[derive(Debug)]
struct Pipe {
    reader: io::PipeReader,
    /// Closed to cancel: from then on the other end is always readable, for any number of waits.
    writer: Mutex<Option<io::PipeWriter>>,
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
