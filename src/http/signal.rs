//! A signal that comes once and wakes every thread that polls for it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

pub(super) struct Signal {
    has_come: AtomicBool,
    reader: io::PipeReader,
    writer: Mutex<Option<io::PipeWriter>>,
}

impl Signal {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self {
            has_come: AtomicBool::new(false),
            reader,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Gives the signal. Never blocks.
    pub(super) fn give(&self) {
        self.has_come.store(true, Ordering::Release);
        self.writer.lock().take();
    }

    pub(super) fn has_come(&self) -> bool {
        self.has_come.load(Ordering::Acquire)
    }

    /// Returns a pipe that has ended once the signal has come.
    pub(super) fn pipe(&self) -> &io::PipeReader {
        &self.reader
    }
}
