//! What the crate logs.

use parking_lot::Mutex;

/// A logger that keeps the crate's lines. A process has one logger, so it is for tests that are run alone.
pub(crate) struct LogLines(pub(crate) Mutex<Vec<String>>);

impl LogLines {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl log::Log for LogLines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("plugin_runner")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}
