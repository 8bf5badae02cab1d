//! `LogSettings`: how large a plugin's log may become. No behaviour but validation.

use crate::error::{Error, Result};

/// Room for the mark of a cut line, and for text beside it.
const LEAST_MAX_LINE: usize = 64;

/// Bounds of one plugin's log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogSettings {
    /// Whether lines go to files at all. Without, the tail and the tap still work. Default true.
    pub enabled: bool,
    /// Size in bytes that a file does not grow over; at least 1. Only a single line that is larger
    /// than this makes a larger file, with nothing else in it. Default 10 MiB.
    pub max_file_size: u64,
    /// Old files that are kept beside the current one; 0 keeps none. Default 3.
    pub keep: usize,
    /// Length in bytes, without the line end, over which a line is cut into several; at least 64.
    /// Each piece but the last ends in [`CONTINUES`](super::CONTINUES). Default 64 KiB.
    pub max_line: usize,
    /// Lines kept in memory for error details. Default 20.
    pub tail_lines: usize,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            max_file_size: 10 * 1024 * 1024,
            keep: 3,
            max_line: 64 * 1024,
            tail_lines: 20,
        }
    }
}

impl LogSettings {
    /// Sets whether lines go to files.
    #[must_use]
    pub const fn with_enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets the size of a file, in bytes.
    #[must_use]
    pub const fn with_max_file_size(mut self, bytes: u64) -> Self {
        self.max_file_size = bytes;
        self
    }

    /// Sets the number of old files that are kept.
    #[must_use]
    pub const fn with_keep(mut self, files: usize) -> Self {
        self.keep = files;
        self
    }

    /// Sets the length over which a line is cut, in bytes.
    #[must_use]
    pub const fn with_max_line(mut self, bytes: usize) -> Self {
        self.max_line = bytes;
        self
    }

    /// Sets the number of lines kept in memory.
    #[must_use]
    pub const fn with_tail_lines(mut self, lines: usize) -> Self {
        self.tail_lines = lines;
        self
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that cannot work.
    pub fn validate(&self) -> Result<()> {
        if self.max_file_size == 0 {
            return Err(Error::Setting {
                name: "max_file_size",
                problem: "must be at least 1 byte".into(),
            });
        }
        if self.max_line < LEAST_MAX_LINE {
            return Err(Error::Setting {
                name: "max_line",
                problem: format!("must be at least {LEAST_MAX_LINE} bytes").into(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_work_are_named() {
        let text = |settings: LogSettings| settings.validate().unwrap_err().to_string();
        assert!(LogSettings::default().validate().is_ok());
        assert_eq!(
            text(LogSettings::default().with_max_file_size(0)),
            "setting max_file_size: must be at least 1 byte"
        );
        assert_eq!(
            text(LogSettings::default().with_max_line(63)),
            "setting max_line: must be at least 64 bytes"
        );
    }
}
