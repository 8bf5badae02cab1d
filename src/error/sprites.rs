//! Errors of the service that runs plugins in sprites.

use std::io;
use std::time::Duration;

use super::ErrorKind;
use crate::text::Foreign;

/// Why the service did not do what it was asked. The text names neither the token nor a URL.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {problem}")]
pub(crate) struct SpritesError {
    /// What was asked, such as `create a sprite`.
    pub(crate) action: &'static str,
    pub(crate) problem: SpritesProblem,
}

/// What went wrong. What the service says is shown [escaped](crate::text::escape) and cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpritesProblem {
    /// Status 404 or 410, or a file system's way of saying so.
    #[error("the service has no such sprite, file or session")]
    NotFound,
    /// The same of a sprite that was there, or was made, before.
    #[error("the sprite is gone, or not there yet; it is looked for again at the next attempt")]
    Gone,
    /// Status 429.
    #[error("the service limits requests or sprites{}{}", wait_text(*.wait), said(.message))]
    RateLimited {
        /// How long the service asks to wait.
        wait: Option<Duration>,
        /// The service's word for the limit, if it has one.
        code: Option<Box<str>>,
        /// What it says about it; may be empty.
        message: Box<str>,
    },
    /// Status 408 or 5xx.
    #[error("the service fails with status {status}{}", said(.message))]
    Unavailable {
        /// The status.
        status: u16,
        /// How long the service asks to wait.
        wait: Option<Duration>,
        /// What it says about it; may be empty.
        message: Box<str>,
    },
    /// Any other status that is no success.
    #[error("the service refused with status {status}{}{}", hint(*.status), said(.message))]
    Refused {
        /// The status.
        status: u16,
        /// What it says about it; may be empty.
        message: Box<str>,
    },
    /// The answer leads elsewhere, where the token must not go.
    #[error(
        "the service redirects (status {status}), which is not followed; check SPRITES_API_URL"
    )]
    Redirect {
        /// The status.
        status: u16,
    },
    /// The service has no address, or none that takes connections.
    #[error("the service cannot be reached: {0}; check SPRITES_API_URL and the network")]
    Unreachable(io::Error),
    /// The connection cannot be secured.
    #[error("no secure connection to the service: {}", Foreign::new(&.0.to_string()))]
    Insecure(io::Error),
    /// The connection ended, or what came over it is not HTTP.
    #[error("the connection to the service broke: {}", Foreign::new(&.0.to_string()))]
    Broken(io::Error),
    /// What the service sends is over a limit.
    #[error("what the service sends is over the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// A file is larger than the service takes.
    #[error("it has {size} bytes, and the service takes files of up to {limit}")]
    FileTooLarge {
        /// Bytes of the file.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// What the service sends is not what the request asks for.
    #[error("the service's answer cannot be used: {}", Foreign::new(.0))]
    Protocol(Box<str>),
    /// Files that were uploaded are not as they were sent.
    #[error("files arrived damaged; they are sent again at the next attempt")]
    Damaged,
    /// A script of ours failed on the sprite.
    #[error("the script ended with {}{}", exit_text(*.code), said(.message))]
    Script {
        /// Its exit code; `None` if it was not started.
        code: Option<i32>,
        /// What it, or the service, says about it; may be empty.
        message: Box<str>,
    },
    /// What is asked cannot be written as a request.
    #[error("{0}")]
    Input(&'static str),
    /// No thread can be started for looking up the service's address.
    #[error("{0}")]
    Thread(Box<super::Error>),
    /// The time ran out.
    #[error("the service took longer than {limit:?}")]
    Timeout {
        /// The time allowed.
        limit: Duration,
    },
    /// The caller gave it up.
    #[error("it was cancelled")]
    Cancelled,
}

impl SpritesError {
    /// Whether the service has no such thing. A missing sprite and a missing file on it look the same.
    pub(crate) const fn is_not_found(&self) -> bool {
        matches!(self.problem, SpritesProblem::NotFound)
    }

    /// Whether asking again can only fail the same way.
    pub(super) const fn is_permanent(&self) -> bool {
        matches!(
            self.problem,
            SpritesProblem::Refused { .. }
                | SpritesProblem::Redirect { .. }
                | SpritesProblem::Insecure(_)
                | SpritesProblem::FileTooLarge { .. }
                | SpritesProblem::Input(_)
        )
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match &self.problem {
            SpritesProblem::RateLimited { .. } => ErrorKind::RateLimited,
            SpritesProblem::Unavailable { .. }
            | SpritesProblem::Unreachable(_)
            | SpritesProblem::Broken(_)
            | SpritesProblem::Gone
            | SpritesProblem::Damaged => ErrorKind::RuntimeUnavailable,
            SpritesProblem::NotFound
            | SpritesProblem::Refused { .. }
            | SpritesProblem::Redirect { .. }
            | SpritesProblem::Insecure(_)
            | SpritesProblem::TooLarge { .. }
            | SpritesProblem::Protocol(_)
            | SpritesProblem::Script { .. } => ErrorKind::RuntimeRefused,
            SpritesProblem::FileTooLarge { .. } => ErrorKind::PackageTooLarge,
            SpritesProblem::Input(_) => ErrorKind::InvalidInput,
            SpritesProblem::Thread(error) => error.kind(),
            SpritesProblem::Timeout { .. } => ErrorKind::Timeout,
            SpritesProblem::Cancelled => ErrorKind::Cancelled,
        }
    }
}

fn said(message: &str) -> String {
    if message.is_empty() {
        return String::new();
    }
    format!(": {}", Foreign::new(message))
}

fn wait_text(wait: Option<Duration>) -> String {
    wait.map_or_else(String::new, |wait| format!(" for the next {wait:?}"))
}

fn exit_text(code: Option<i32>) -> String {
    code.map_or_else(
        || "no exit code".to_owned(),
        |code| format!("exit code {code}"),
    )
}

const fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => " (check SPRITES_API_KEY)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn what_the_service_says_is_escaped_and_cut_and_the_kind_says_what_to_do() {
        let message: Box<str> = "evil\n\u{1b}[2J".repeat(100_000).into();
        for (problem, kind) in [
            (
                SpritesProblem::Refused {
                    status: 401,
                    message: message.clone(),
                },
                ErrorKind::RuntimeRefused,
            ),
            (
                SpritesProblem::Unavailable {
                    status: 503,
                    wait: None,
                    message: message.clone(),
                },
                ErrorKind::RuntimeUnavailable,
            ),
            (
                SpritesProblem::RateLimited {
                    wait: Some(Duration::from_secs(3)),
                    code: None,
                    message: message.clone(),
                },
                ErrorKind::RateLimited,
            ),
            (SpritesProblem::Protocol(message), ErrorKind::RuntimeRefused),
        ] {
            let action = "create a sprite";
            let error = Error::from(SpritesError { action, problem });
            let text = error.to_string();
            assert_eq!(error.kind(), kind);
            assert!(text.starts_with("cannot create a sprite: "), "{text}");
            assert!(text.len() < 2_000, "{} bytes", text.len());
            assert!(!text.contains(['\n', '\u{1b}']), "{text}");
        }
    }
}
