//! `CliError`: why the program ends with another status than 0, in one sentence; and the statuses.

use std::fmt;
use std::process::ExitCode;

use plugin_runner::Error;
use plugin_runner::text::escape;

/// What every command ends with, for the help.
pub(super) const STATUSES: &str = "\
Exit statuses:
  0  done, or ended on request, or the reader of the output has left
  1  something failed: the host, a plugin or the system refused it
  2  wrong arguments or settings
  3  there is no such plugin, or the name fits several
  4  no host runs there, it cannot be reached, or it refuses the token";

/// How the program ends, as [`STATUSES`] tells users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NoSuchPlugin = 3,
    NoHost = 4,
}

/// A sentence for standard error, and an exit status.
#[derive(Debug)]
pub(crate) struct CliError {
    status: Status,
    message: String,
    is_said: bool,
}

impl CliError {
    fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            is_said: false,
        }
    }

    /// Returns what makes a failure of an error: `cannot {action}: {error}`.
    pub(crate) fn cannot<E: fmt::Display>(action: impl fmt::Display) -> impl Fn(E) -> Self {
        move |error| format!("cannot {action}: {error}").into()
    }

    /// Returns an error for invalid arguments.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Status::Usage, message)
    }

    /// Returns an error for a plugin that there is not, or not only once.
    pub(crate) fn no_such_plugin(message: impl Into<String>) -> Self {
        Self::new(Status::NoSuchPlugin, message)
    }

    /// Returns an error for a host that does not run, cannot be reached, or does not take the token.
    pub(crate) fn no_host(message: impl Into<String>) -> Self {
        Self::new(Status::NoHost, message)
    }

    /// Returns what ends the program when the reader of its output has left, as `head` does: no failure.
    pub(crate) const fn reader_has_left() -> Self {
        Self {
            status: Status::Done,
            message: String::new(),
            is_said: true,
        }
    }

    /// For a command that has said what failed in its own way, such as in its log.
    pub(crate) fn said(self) -> Self {
        Self {
            is_said: true,
            ..self
        }
    }

    /// Whether the message need not be shown any more.
    pub(crate) const fn is_said(&self) -> bool {
        self.is_said
    }

    pub(crate) const fn status(&self) -> Status {
        self.status
    }

    /// Adds the way out.
    pub(crate) fn with(self, way_out: impl fmt::Display) -> Self {
        Self {
            message: format!("{self}; {way_out}"),
            ..self
        }
    }

    /// Puts before the message what was being done, or to what.
    pub(crate) fn about(self, what: impl fmt::Display) -> Self {
        Self {
            message: format!("{what}: {self}"),
            ..self
        }
    }
}

/// For anything that failed.
impl From<String> for CliError {
    fn from(message: String) -> Self {
        Self::new(Status::Failed, message)
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

impl From<&str> for CliError {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        match error {
            // The host checks settings that came from arguments.
            Error::Setting {
                name: "rpc_base_url",
                problem,
            } => Self::usage(format!("--public-url {problem}")),
            Error::Setting { .. } => Self::usage(error.to_string()),
            _ => error.to_string().into(),
        }
    }
}

/// Characters of a message that are shown: more than any sentence has, and few enough for a terminal.
pub(super) const SHOWN: usize = 16 * 1024;

/// Always one line, whatever the message has.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.message.lines().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{:.SHOWN$}", escape(line.trim()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = CliError::from("field `id` is empty\nfield `name` is empty").about("p.json");
        assert_eq!(
            failure.to_string(),
            "p.json: field `id` is empty; field `name` is empty"
        );
        assert_eq!(failure.status(), Status::Failed);
        let failure = CliError::from("a\r\u{1b}[2J\u{202e}");
        assert_eq!(failure.to_string(), r"a\r\u{1b}[2J\u{202e}");
    }
}
