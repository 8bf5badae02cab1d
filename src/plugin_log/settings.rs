//! `LogSettings`: how large a plugin's log may become, and how old.

use std::time::Duration;

use crate::error::Result;
use crate::settings::{require, settings};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Room for the mark of a cut line, and for text beside it.
const LEAST_MAX_LINE: usize = 64;

settings! {
    /// Bounds of one plugin's log.
    pub struct LogSettings {
        /// Whether lines are written to files. Without files, [`Problem::output`](crate::Problem::output) and
        /// [`HostBuilder::on_output`](crate::HostBuilder::on_output) still work, and a
        /// [`Follower`](super::Follower) waits in vain. Default true.
        enabled: bool = true;
        /// Greatest size of a file in bytes; at least 1. Only a single line that is larger than this is
        /// written to a larger file, with nothing else in it. Default 10 MiB.
        max_file_size: u64 = 10 * 1024 * 1024;
        /// Old files that are kept beside the current one; 0 keeps none. Default 3.
        keep: usize = 3;
        /// Age at which old files are removed, counted from when a new file was begun in their place; longer
        /// than zero, and [`Duration::MAX`] removes none for its age. The current file is never removed,
        /// however old its lines are.
        ///
        /// It happens when the log is opened, when a file is begun, and while the plugin runs, also when it
        /// prints nothing: then at most an hour late, or as long as this if that is shorter. Nothing is
        /// removed while the plugin does not run and the log is not followed.
        ///
        /// The clock is believed when the log is opened. From then on no file grows older faster than time
        /// passes: a clock that is set forward while the log is open removes nothing, and one that is set back
        /// keeps files for longer. Default 28 days.
        max_age: Duration = 28 * DAY;
        /// Length in bytes, without the line end, over which a line is cut into several; at least 64.
        /// Each piece but the last ends in [`CONTINUES`](super::CONTINUES). Default 64 KiB.
        max_line: usize = 64 * 1024;
    }
}

impl LogSettings {
    /// Bytes of all files together, but for single lines that are larger than a file may be.
    pub(super) fn kept_bytes(&self) -> u64 {
        let files = (self.keep as u64).saturating_add(1);
        self.max_file_size.saturating_mul(files)
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) names the first that is invalid.
    pub(crate) fn validate(&self) -> Result<()> {
        require(
            self.max_file_size > 0,
            "max_file_size",
            "must be at least 1 byte",
        )?;
        require(
            !self.max_age.is_zero(),
            "max_age",
            "must be longer than zero; `Duration::MAX` removes no file for its age",
        )?;
        require(
            self.max_line >= LEAST_MAX_LINE,
            "max_line",
            format!("must be at least {LEAST_MAX_LINE} bytes"),
        )
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
            text(LogSettings::default().max_file_size(0)),
            "setting max_file_size: must be at least 1 byte"
        );
        assert_eq!(
            text(LogSettings::default().max_age(Duration::ZERO)),
            "setting max_age: must be longer than zero; `Duration::MAX` removes no file for its age"
        );
        assert_eq!(
            text(LogSettings::default().max_line(63)),
            "setting max_line: must be at least 64 bytes"
        );
    }
}
