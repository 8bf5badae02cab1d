//! `CliError`: why the program ends with another exit code than 0, in one sentence.

use std::fmt;

use plugin_runner::Error;
use plugin_runner::text::escape;

/// A sentence for standard error, and an exit code.
#[derive(Debug)]
pub(crate) struct CliError {
    code: u8,
    message: String,
    is_said: bool,
}

impl CliError {
    /// Returns what makes a failure of an error: `cannot {action}: {error}`.
    pub(crate) fn cannot<E: fmt::Display>(action: impl fmt::Display) -> impl Fn(E) -> Self {
        move |error| format!("cannot {action}: {error}").into()
    }

    /// Returns an error for invalid arguments: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
            is_said: false,
        }
    }

    /// Returns an error for a plugin that there is not, or not only once: exit code 3.
    pub(crate) fn no_such_plugin(message: impl Into<String>) -> Self {
        Self {
            code: 3,
            message: message.into(),
            is_said: false,
        }
    }

    /// Returns an error for a host that does not run, cannot be reached, or does not take the token: exit code 4.
    pub(crate) fn no_host(message: impl Into<String>) -> Self {
        Self {
            code: 4,
            message: message.into(),
            is_said: false,
        }
    }

    /// Returns what ends the program when the reader of its output has left, as `head` does: no failure.
    pub(crate) const fn reader_has_left() -> Self {
        Self {
            code: 0,
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

    pub(crate) const fn code(&self) -> u8 {
        self.code
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

/// For anything that failed: exit code 1.
impl From<String> for CliError {
    fn from(message: String) -> Self {
        Self {
            code: 1,
            message,
            is_said: false,
        }
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
        assert_eq!(failure.code(), 1);
        let failure = CliError::from("a\r\u{1b}[2J\u{202e}");
        assert_eq!(failure.to_string(), r"a\r\u{1b}[2J\u{202e}");
    }
}
