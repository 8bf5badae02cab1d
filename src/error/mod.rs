//! The one error type of the crate, and the typed sub-enums it is made of.
//!
//! `Error` tells what failed: the caller's input, the plugin (it refused, or broke the protocol), the
//! transport, or a timeout. Each sub-enum has a file of its own beside this one.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use plugin_runner::protocol::method::Ping;
//! use plugin_runner::{Error, Session};
//!
//! fn is_well(session: &Session) -> Result<bool, Error> {
//!     match session.call(&Ping {}, Duration::from_secs(10)) {
//!         Ok(reply) => Ok(reply.pong),
//!         // It answers, so it is running.
//!         Err(Error::Rpc(_)) => Ok(true),
//!         Err(error) if error.is_timeout() || error.is_disconnected() => Ok(false),
//!         Err(error) => Err(error),
//!     }
//! }
//! ```

mod descendants;
mod disconnect;
mod fetch;
mod manifest;
mod operation;
mod package;
mod phase;
mod rpc;
mod start;
mod store;
mod token;

use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use descendants::Descendants;
pub use disconnect::Disconnect;
pub use fetch::{FetchError, FetchStep};
pub use manifest::{ManifestError, ManifestProblem, ManifestProblemKind};
pub use operation::{ConfigurationProblem, OperationError};
pub use package::{CommandProblem, PackageError};
pub use phase::Phase;
pub use rpc::RpcError;
pub use start::{SpawnError, StartError};
pub use store::StoreError;
pub use token::TokenError;

pub use crate::id::IdError;
use crate::id::{InstallationId, RequestId};
use crate::state::ReportedState;
pub use crate::state::UnknownName;
use crate::text::Foreign;

/// The result of most fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of this crate.
///
/// Cheap to move (at most 40 bytes) and `Clone`, because one cause often ends many waits.
///
/// The text of an error is fit for a log or a terminal: everything that comes from a plugin is in it
/// [escaped](crate::text::escape) and cut. The fields hold it as it was received.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not an id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The name is not one of a fixed set, such as an unknown runtime provider.
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(Arc<ManifestError>),
    /// The token, secret or connection URL cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The archive cannot be used.
    #[error(transparent)]
    Package(Arc<PackageError>),
    /// The store cannot be opened, or failed to read or write.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// An operation on an installation failed.
    #[error(transparent)]
    Operation(Arc<OperationError>),
    /// The package could not be fetched by URL.
    #[error(transparent)]
    Fetch(Arc<FetchError>),
    /// The plugin could not be started, and starting it again would fail in the same way.
    #[error(transparent)]
    Start(Arc<StartError>),

    /// Time ran out; `phase` says what was being waited for.
    #[error("{phase} timed out after {limit:?}{}", .problem.as_deref().map(problem_text).unwrap_or_default())]
    Timeout {
        /// What was being waited for.
        phase: Phase,
        /// The time allowed.
        limit: Duration,
        /// What is known to have gone wrong meanwhile. For a wait for a plugin, how its last run ended:
        /// `it ended with exit status 1 and is being restarted`. For a call, what arrived in place of its
        /// answer.
        problem: Option<Arc<str>>,
    },
    /// Processes of the plugin that left its process group still run; the host goes on looking for them.
    #[error("the plugin is not all gone: {0}")]
    DescendantsLeft(Descendants),
    /// There is no connection, or it ended while the call was in flight. Whether the plugin acted
    /// on a call in flight is unknown; nothing is sent again.
    #[error("not connected: {0}")]
    Disconnected(Arc<Disconnect>),
    /// The plugin answered with a JSON-RPC error.
    #[error("the plugin answered with an error: {0}")]
    Rpc(Arc<RpcError>),
    /// The plugin's answer does not have the shape of the method's result, or is not a JSON-RPC message.
    /// A message that cannot be read fails its call at once over WebSocket; over stdio, where
    /// plugins print what they are about to send, a second later unless the answer comes after all.
    #[error("the plugin's answer to {} cannot be read: {}", Foreign::new(.method), Foreign::new(&.source.to_string()))]
    InvalidReply {
        /// The method that was called.
        method: Arc<str>,
        /// The decoder's error.
        source: Arc<serde_json::Error>,
    },
    /// The value to be sent cannot be written as JSON, or is not a JSON object.
    #[error("cannot encode {what}: {source}")]
    Encode {
        /// What was to be encoded, such as `params`.
        what: &'static str,
        /// The encoder's error.
        source: Arc<serde_json::Error>,
    },
    /// The message is larger than this peer accepts; nothing was sent.
    #[error("message of {size} bytes is over the limit of {limit} bytes for this plugin")]
    MessageTooLarge {
        /// Bytes of the message.
        size: usize,
        /// The limit for this peer.
        limit: usize,
    },
    /// Too many calls to this plugin are waiting for an answer.
    #[error("{limit} calls to this plugin are already waiting for an answer")]
    TooManyPending {
        /// The limit.
        limit: usize,
    },
    /// A call with this id is in flight to the same plugin; nothing was sent.
    #[error("a call with the id {0} is waiting for its answer already")]
    IdInUse(RequestId),
    /// The host's thread budget is used up.
    #[error("all {limit} threads of the host's budget are in use, none is left for {name}")]
    ThreadLimit {
        /// The budget.
        limit: usize,
        /// The thread that was wanted.
        name: Arc<str>,
    },
    /// The plugin is in a state in which the operation is not possible.
    #[error("the plugin is {state}{}", .message.as_deref().map(state_reason).unwrap_or_default())]
    State {
        /// The state it is in.
        state: ReportedState,
        /// The reason, if there is one.
        message: Option<Arc<str>>,
    },
    /// The store has no record with this id.
    #[error("no plugin {0} is installed")]
    NotInstalled(InstallationId),
    /// No plugin with this id is loaded.
    #[error("no plugin {0} is loaded")]
    NotLoaded(InstallationId),
    /// The plugin already has a connection and keeps it.
    #[error("plugin {0} is already connected")]
    AlreadyConnected(InstallationId),
    /// The connection was refused at its handshake.
    #[error("connection refused with status {status}: {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The body of the answer.
        reason: &'static str,
    },
    /// Supervised plugins are switched off by the runtime provider `none`.
    #[error("supervised plugins are disabled: the runtime provider is 'none'")]
    Disabled,
    /// The operation is not possible with this kind of plugin, or is not built in.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A setting has an invalid value.
    #[error("setting {name}: {problem}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What is wrong with it.
        problem: Arc<str>,
    },
    /// The host is shutting down or has shut down.
    #[error("the host is shut down")]
    ShutDown,
    /// The operating system returned an error.
    #[error("{context}: {source}")]
    Io {
        /// What was being done, and to what.
        context: Arc<str>,
        /// The system's error.
        source: Arc<io::Error>,
    },
}

/// The problems, one to a line.
fn lines<T: ToString>(problems: &[T]) -> String {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn state_reason(reason: &str) -> String {
    format!(": {}", shown(reason))
}

fn problem_text(problem: &str) -> String {
    format!("; {}", shown(problem))
}

/// The text may consist of several pieces of foreign text, each cut already.
fn shown(reason: &str) -> Foreign<'_> {
    Foreign::new(reason).limited_to(4 * Foreign::LIMIT)
}

impl Error {
    /// An [`Error::Io`]; for what an embedder's own store or transport reports. `context` says what
    /// was being done, and to what.
    pub fn io(context: impl Into<Arc<str>>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            context: context.into(),
            source: Arc::new(source.into()),
        }
    }

    pub(crate) fn setting(name: &'static str, problem: impl Into<Arc<str>>) -> Self {
        Self::Setting {
            name,
            problem: problem.into(),
        }
    }

    pub(crate) fn encode(what: &'static str, source: serde_json::Error) -> Self {
        Self::Encode {
            what,
            source: Arc::new(source),
        }
    }

    pub(crate) const fn timeout(phase: Phase, limit: Duration) -> Self {
        Self::Timeout {
            phase,
            limit,
            problem: None,
        }
    }

    /// Whether a time limit was exceeded.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::DescendantsLeft(_) => true,
            Self::Fetch(error) => error.is_timeout(),
            _ => false,
        }
    }

    /// Whether there is no connection to the plugin, or it ended meanwhile.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected(_))
    }

    /// Whether the same operation may succeed later without any change.
    ///
    /// This says nothing about whether the plugin already acted: after a timeout or a lost
    /// connection it may have.
    pub fn is_retryable(&self) -> bool {
        match self {
            // A 4xx is a refusal for good (PROTOCOL.md, "Refused or disconnected").
            Self::Disconnected(cause) => {
                !matches!(**cause, Disconnect::Refused { status } if status < 500)
            }
            Self::Operation(error) => matches!(**error, OperationError::Busy { .. }),
            Self::Fetch(error) => error.is_retryable(),
            Self::Store(error) => matches!(**error, StoreError::Busy { .. }),
            Self::Timeout { .. }
            | Self::DescendantsLeft(_)
            | Self::TooManyPending { .. }
            | Self::ThreadLimit { .. }
            | Self::AlreadyConnected(_) => true,
            Self::State { state, .. } => matches!(
                state,
                ReportedState::Starting | ReportedState::Connecting | ReportedState::Restarting
            ),
            _ => false,
        }
    }
}

impl From<ManifestError> for Error {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(Arc::new(error))
    }
}

impl From<PackageError> for Error {
    fn from(error: PackageError) -> Self {
        Self::Package(Arc::new(error))
    }
}

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Arc::new(error))
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Start(Arc::new(error))
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<OperationError> for Error {
    fn from(error: OperationError) -> Self {
        Self::Operation(Arc::new(error))
    }
}

impl From<RpcError> for Error {
    fn from(error: RpcError) -> Self {
        Self::Rpc(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn errors_are_small() {
        assert!(size_of::<Error>() <= 40, "{} bytes", size_of::<Error>());
    }

    #[test]
    fn errors_cross_threads() {
        fn check<T: Send + Sync + Clone + 'static>() {}
        check::<Error>();
    }

    #[test]
    fn what_plugins_say_is_shown_on_one_line_escaped_and_cut() {
        let hostile = "evil\n\u{1b}[2J\u{202e}".repeat(500_000);
        let shared: Arc<str> = hostile.as_str().into();
        let json: serde_json::Error = serde::de::Error::custom(&hostile);
        let rpc = RpcError::new(1, &*hostile);
        let closed = Disconnect::ByPeer {
            code: Some(4000),
            reason: hostile.clone(),
        };
        for error in [
            Error::from(rpc),
            Error::Disconnected(Arc::new(closed)),
            Error::Disconnected(Arc::new(Disconnect::Violation(shared.clone()))),
            Error::Disconnected(Arc::new(Disconnect::Io(Arc::new(io::Error::other(
                &*hostile,
            ))))),
            Error::State {
                state: ReportedState::Errored,
                message: Some(shared.clone()),
            },
            Error::Timeout {
                phase: Phase::State,
                limit: Duration::ZERO,
                problem: Some(shared.clone()),
            },
            Error::InvalidReply {
                method: shared.clone(),
                source: Arc::new(json),
            },
            Error::from(UnknownName::new("thing", &hostile)),
            Error::from(StartError::Spawn {
                command: hostile.as_str().into(),
                source: SpawnError::NoInterpreter(hostile.clone()),
            }),
            Error::from(OperationError::OtherPlugin {
                installed: shared.clone(),
                found: shared,
            }),
        ] {
            let shown = error.to_string();
            assert!(shown.contains("evil\\n\\u{1b}[2J\\u{202e}"), "{shown}");
            assert!(!shown.contains(crate::text::disturbs), "{shown:?}");
            assert!(shown.len() < 5000, "{} bytes", shown.len());
        }
    }

    #[test]
    fn predicates_and_sources() {
        let timeout = Error::timeout(Phase::Reply, Duration::from_secs(30));
        assert!(timeout.is_timeout() && timeout.is_retryable() && !timeout.is_disconnected());
        assert_eq!(
            timeout.to_string(),
            "waiting for the reply timed out after 30s"
        );

        let io = Error::io("open log", io::ErrorKind::PermissionDenied);
        assert!(io.source().is_some());
        assert!(!io.is_retryable());
        assert!(Error::Disconnected(Arc::new(Disconnect::Lost)).is_disconnected());
    }
}
