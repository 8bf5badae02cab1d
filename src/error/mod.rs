//! The one error type of the crate, and the kinds of errors.
//!
//! An [`Error`] says what failed: the caller's input, the plugin (it refused, or broke the protocol), the
//! transport, or a timeout. Callers match the variants, ask for the [`kind`](Error::kind), or show the text,
//! which is one plain sentence.
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
//!
//! # Kinds
//!
//! The words are stable. The HTTP status is the one with which an HTTP API may answer. After an error that is
//! worth a retry, the same operation may succeed without any change.
//!
//! | kind | word | HTTP | retry | when |
//! | --- | --- | --- | --- | --- |
//! | [`ErrorKind::Timeout`] | `timeout` | 504 | yes | Time ran out |
//! | [`ErrorKind::DescendantsLeft`] | `descendants_left` | 504 | yes | Processes of the plugin that left its process group still run |
//! | [`ErrorKind::Cancelled`] | `cancelled` | 409 | no | The operation was cancelled |
//! | [`ErrorKind::ShutDown`] | `shut_down` | 503 | no | The host is shut down |
//! | [`ErrorKind::Busy`] | `busy` | 409 | yes | Another operation on the same installation is in progress |
//! | [`ErrorKind::Overloaded`] | `overloaded` | 503 | yes | A limit on threads or waiting calls is reached for the moment |
//! | [`ErrorKind::InvalidInput`] | `invalid_input` | 400 | no | A text is not an id, a name of a fixed set, a token or a URL; or a value cannot be encoded or stored |
//! | [`ErrorKind::InvalidSetting`] | `invalid_setting` | 400 | no | A setting has a value that it cannot have, or one is missing |
//! | [`ErrorKind::Unsupported`] | `unsupported` | 501 | no | The operation is not possible with this kind of plugin or store, or not built in |
//! | [`ErrorKind::Disabled`] | `disabled` | 403 | no | Supervised plugins are disabled |
//! | [`ErrorKind::NotInstalled`] | `not_installed` | 404 | no | No plugin with this id is installed |
//! | [`ErrorKind::NotLoaded`] | `not_loaded` | 404 | no | No plugin with this id is loaded |
//! | [`ErrorKind::Disconnected`] | `disconnected` | 503 | yes | The plugin is not connected, or its connection ended |
//! | [`ErrorKind::NotReady`] | `not_ready` | 503 | yes | The plugin is on its way to being active |
//! | [`ErrorKind::WrongState`] | `wrong_state` | 409 | no | The plugin is in a state in which the operation is not possible |
//! | [`ErrorKind::PluginFailed`] | `plugin_failed` | 502 | no | The plugin could not be started, or was given up |
//! | [`ErrorKind::AlreadyConnected`] | `already_connected` | 409 | yes | The plugin already has a connection |
//! | [`ErrorKind::Refused`] | `refused` | 403 | no | A connection was refused at its handshake |
//! | [`ErrorKind::IdInUse`] | `id_in_use` | 409 | no | A call with the same id is in flight |
//! | [`ErrorKind::MessageTooLarge`] | `message_too_large` | 413 | no | The message is larger than the plugin accepts |
//! | [`ErrorKind::Rpc`] | `rpc` | 502 | no | The plugin answered with an error |
//! | [`ErrorKind::InvalidReply`] | `invalid_reply` | 502 | no | The plugin's answer cannot be read |
//! | [`ErrorKind::InvalidPackage`] | `invalid_package` | 422 | no | The archive is damaged, or its content cannot be a plugin |
//! | [`ErrorKind::PackageTooLarge`] | `package_too_large` | 413 | no | The archive, a file of it or their number is over a limit |
//! | [`ErrorKind::InvalidManifest`] | `invalid_manifest` | 422 | no | The manifest cannot be used |
//! | [`ErrorKind::DigestMismatch`] | `digest_mismatch` | 422 | no | The SHA-256 is not the expected one |
//! | [`ErrorKind::OtherPlugin`] | `other_plugin` | 409 | no | The package or manifest is another plugin's |
//! | [`ErrorKind::UnknownVersion`] | `unknown_version` | 404 | no | The version to go back to is not kept, or there is none |
//! | [`ErrorKind::Ambiguous`] | `ambiguous` | 409 | no | More than one installed plugin could be meant |
//! | [`ErrorKind::InstallationLimit`] | `installation_limit` | 409 | no | The limit on installations, or on the bytes of their archives, is reached |
//! | [`ErrorKind::MigrationTooLarge`] | `migration_too_large` | 409 | no | The plugin's own files are more than an update copies |
//! | [`ErrorKind::RolledBack`] | `rolled_back` | 502 | no | The new version did not become active; the old one runs again as before |
//! | [`ErrorKind::RollbackFailed`] | `rollback_failed` | 500 | no | The new version did not become active, and the old one does not run again either |
//! | [`ErrorKind::PrivateAddress`] | `private_address` | 403 | no | The URL leads to a private or local address |
//! | [`ErrorKind::FetchFailed`] | `fetch_failed` | 502 | yes | Fetching the package failed, and may succeed later |
//! | [`ErrorKind::FetchRefused`] | `fetch_refused` | 502 | no | The package cannot be had at this URL |
//! | [`ErrorKind::RateLimited`] | `rate_limited` | 429 | yes | The service that runs plugins asks for fewer requests, or runs as many plugins as it may |
//! | [`ErrorKind::RuntimeUnavailable`] | `runtime_unavailable` | 503 | yes | The service that runs plugins cannot be reached, or fails for the moment |
//! | [`ErrorKind::RuntimeRefused`] | `runtime_refused` | 502 | no | The service that runs plugins refused, or its answer cannot be used |
//! | [`ErrorKind::InvalidConfiguration`] | `invalid_configuration` | 422 | no | Members of the configuration do not have the type of their fields |
//! | [`ErrorKind::ConfigurationRefused`] | `configuration_refused` | 422 | no | The plugin refused the configuration |
//! | [`ErrorKind::ConfigurationUncertain`] | `configuration_uncertain` | 502 | no | Whether the plugin accepted the configuration is not known |
//! | [`ErrorKind::ConfigurationNotStored`] | `configuration_not_stored` | 500 | no | The plugin accepted the configuration, but it could not be stored |
//! | [`ErrorKind::StoreInUse`] | `store_in_use` | 503 | no | Another process, or another manager, uses the data directory |
//! | [`ErrorKind::NewerSchema`] | `newer_schema` | 500 | no | A newer version wrote the store |
//! | [`ErrorKind::StoreDamaged`] | `store_damaged` | 500 | no | The store is damaged, or another program's |
//! | [`ErrorKind::RecordDamaged`] | `record_damaged` | 500 | no | The record or the archive of one plugin is missing or damaged; others are usable |
//! | [`ErrorKind::ArchiveInUse`] | `archive_in_use` | 409 | no | An installed plugin needs the archive |
//! | [`ErrorKind::StoreBusy`] | `store_busy` | 503 | yes | The store is locked by another program |
//! | [`ErrorKind::StoreFailed`] | `store_failed` | 500 | no | The store failed in another way |
//! | [`ErrorKind::StorageFull`] | `storage_full` | 507 | no | No space is left on the device |
//! | [`ErrorKind::ReadOnly`] | `read_only` | 500 | no | A file or its file system may not be written to |
//! | [`ErrorKind::Io`] | `io` | 500 | no | The operating system returned another error |

mod descendants;
mod disconnect;
mod failure;
mod fetch;
mod kind;
mod manifest;
mod operation;
mod package;
mod phase;
mod rpc;
#[cfg_attr(not(feature = "sprites"), allow(dead_code))]
mod sprites;
mod start;
mod store;
mod token;

use std::io;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use descendants::Descendants;
pub use disconnect::Disconnect;
pub use failure::Failure;
pub(crate) use failure::FailureCause;
pub(crate) use fetch::{FetchError, FetchStep};
pub use kind::ErrorKind;
pub use manifest::FieldProblem;
pub(crate) use manifest::{FieldProblemKind, ManifestError};
pub(crate) use operation::OperationError;
pub(crate) use package::{CommandProblem, PackageError};
pub use phase::Phase;
pub use rpc::RpcError;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
pub(crate) use sprites::SpritesError;
#[cfg(feature = "sprites")]
pub(crate) use sprites::SpritesProblem;
pub(crate) use start::{SpawnError, StartError};
pub(crate) use store::StoreError;
pub(crate) use token::TokenError;

use crate::id::{IdError, InstallationId, RequestId};
use crate::state::{ReportedState, UnknownName};
use crate::text::Foreign;

/// The result of most fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of this crate.
///
/// Cheap to move (at most 40 bytes) and to clone, because one cause often ends many waits.
///
/// The text of an error is fit for a log or a terminal: everything that comes from a plugin is in it
/// [escaped](crate::text::escape) and cut. The fields hold it as it was received.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// There is no connection, or it ended while the call was in flight. Whether the plugin acted
    /// on a call in flight is unknown; nothing is sent again.
    #[error("not connected: {0}")]
    Disconnected(Arc<Disconnect>),
    /// The plugin answered with a JSON-RPC error.
    #[error("the plugin answered with an error: {0}")]
    Rpc(Arc<RpcError>),
    /// The plugin's answer does not have the shape of the method's result, or is not a JSON-RPC message.
    /// A message that cannot be read fails its call at once over WebSocket. Over stdio, where plugins print what
    /// they are about to send, only a line that holds the answer beside other text does, a second later unless the
    /// answer comes after all; otherwise the call runs into its [`Timeout`](Self::Timeout), which quotes the line.
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
        /// The most bytes that this peer accepts.
        limit: usize,
    },
    /// Too many calls to this plugin are waiting for an answer.
    #[error("{limit} calls to this plugin are already waiting for an answer")]
    TooManyPending {
        /// How many may wait: [`Limits::pending_calls`](crate::Limits::pending_calls).
        limit: usize,
    },
    /// A call with this id is in flight to the same plugin; nothing was sent.
    #[error("a call with the id {0} is waiting for its answer already")]
    IdInUse(RequestId),
    /// The host has as many threads as it may have: [`Host::thread_limit`](crate::Host::thread_limit).
    #[error("all {limit} threads of the host's budget are in use, none is left for {name}")]
    ThreadLimit {
        /// How many it may have.
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
    #[error("cannot {context}: {source}")]
    Io {
        /// What was being done, and to what.
        context: Arc<str>,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// Anything else. Its [`kind`](Error::kind) says what may be done about it.
    #[error(transparent)]
    Failed(Failure),
}

/// The first problems, as a part of a sentence.
fn listed(problems: &[FieldProblem]) -> String {
    const SHOWN: usize = 10;
    let shown = problems.iter().take(SHOWN).map(ToString::to_string);
    let more = problems.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("and {more} more"));
    shown.chain(more).collect::<Vec<_>>().join("; ")
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
    /// was being done and to what, in the form that follows "cannot": `open log`.
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

    /// An error of this kind, with a text of the caller's; for what an embedder's own store or transport
    /// reports. The text should say what to do about it, in one sentence without a full stop, and name no
    /// secret.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into().into();
        FailureCause::Other { kind, message }.into()
    }

    /// Returns the kind of the error, which has a word that is stable and an HTTP status. The
    /// [table](self#kinds) lists them all.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Timeout { .. } => ErrorKind::Timeout,
            // A 4xx is a refusal for good (PROTOCOL.md, "Refused or disconnected").
            Self::Disconnected(cause) => match **cause {
                Disconnect::Refused { status } if status < 500 => ErrorKind::Refused,
                _ => ErrorKind::Disconnected,
            },
            Self::Rpc(_) => ErrorKind::Rpc,
            Self::InvalidReply { .. } => ErrorKind::InvalidReply,
            Self::Encode { .. } => ErrorKind::InvalidInput,
            Self::MessageTooLarge { .. } => ErrorKind::MessageTooLarge,
            Self::TooManyPending { .. } | Self::ThreadLimit { .. } => ErrorKind::Overloaded,
            Self::IdInUse(_) => ErrorKind::IdInUse,
            Self::State { state, .. } => match state {
                ReportedState::Starting | ReportedState::Connecting | ReportedState::Restarting => {
                    ErrorKind::NotReady
                }
                ReportedState::Errored => ErrorKind::PluginFailed,
                _ => ErrorKind::WrongState,
            },
            Self::NotInstalled(_) => ErrorKind::NotInstalled,
            Self::NotLoaded(_) => ErrorKind::NotLoaded,
            Self::AlreadyConnected(_) => ErrorKind::AlreadyConnected,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::Disabled => ErrorKind::Disabled,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Setting { .. } => ErrorKind::InvalidSetting,
            Self::ShutDown => ErrorKind::ShutDown,
            Self::Io { source, .. } => ErrorKind::of_io(source),
            Self::Failed(failure) => failure.cause().kind(),
        }
    }

    /// Returns what is wrong with each field of a manifest or of a proposed configuration; nothing for any
    /// other error.
    pub fn problems(&self) -> &[FieldProblem] {
        match self.cause() {
            Some(FailureCause::Manifest(error)) => error.problems(),
            Some(FailureCause::Operation(OperationError::Configuration { problems })) => problems,
            _ => &[],
        }
    }

    /// Returns the error of a domain that this is.
    pub(crate) fn cause(&self) -> Option<&FailureCause> {
        match self {
            Self::Failed(failure) => Some(failure.cause()),
            _ => None,
        }
    }

    /// Whether a time limit was exceeded.
    pub fn is_timeout(&self) -> bool {
        matches!(self.kind(), ErrorKind::Timeout | ErrorKind::DescendantsLeft)
    }

    /// Whether there is no connection to the plugin, or it ended meanwhile.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected(_)) || self.kind() == ErrorKind::Disconnected
    }

    /// Whether the same operation may succeed later without any change.
    ///
    /// This says nothing about whether the plugin already acted: after a timeout or a lost
    /// connection it may have.
    pub fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }
}

impl Serialize for Error {
    /// Writes an object with the `kind` as its word and the text as `message`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Error", 2)?;
        object.serialize_field("kind", &self.kind())?;
        object.serialize_field("message", &self.to_string())?;
        object.end()
    }
}

impl From<FailureCause> for Error {
    fn from(cause: FailureCause) -> Self {
        Self::Failed(Failure::new(cause))
    }
}

macro_rules! from_causes {
    ($($variant:ident($error:ty),)+) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                FailureCause::$variant(error).into()
            }
        })+
    };
}

from_causes! {
    Id(IdError),
    UnknownName(UnknownName),
    Manifest(ManifestError),
    Token(TokenError),
    Package(PackageError),
    Store(StoreError),
    Operation(OperationError),
    Fetch(FetchError),
    Start(StartError),
    Sprites(SpritesError),
    DescendantsLeft(Descendants),
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
            Error::from(UnknownName::new("thing", &hostile, &[])),
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
            assert!(!shown.contains(crate::text::needs_escape), "{shown:?}");
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

    #[test]
    fn an_error_of_an_embedders_own_has_the_kind_and_the_text_that_it_was_given() {
        let busy = Error::new(ErrorKind::StoreBusy, "the table is locked");
        assert_eq!(busy.kind(), ErrorKind::StoreBusy);
        assert!(busy.is_retryable() && !busy.is_timeout());
        assert_eq!(
            serde_json::to_value(&busy).unwrap(),
            serde_json::json!({"kind": "store_busy", "message": "the table is locked"})
        );
        let error = Error::new(ErrorKind::Timeout, "the database did not answer within 5s");
        assert!(error.is_timeout() && error.is_retryable());
    }

    #[test]
    fn many_problems_are_one_sentence_and_all_can_be_had() {
        let problem =
            |field: usize| FieldProblem::new(format!("args[{field}]"), FieldProblemKind::Empty);
        let problems = (0..12).map(problem).collect();
        let error = Error::from(ManifestError::Invalid { problems });
        assert_eq!(error.problems().len(), 12);
        let text = error.to_string();
        assert!(text.starts_with("the manifest cannot be used: field `args[0]` is"));
        assert!(
            text.ends_with("`args[9]` is missing or empty; and 2 more"),
            "{text}"
        );
        assert_eq!(Error::ShutDown.problems(), []);
    }

    #[test]
    fn why_an_update_was_rolled_back_is_its_source() {
        let rolled_back = |restored| {
            Error::from(OperationError::RolledBack {
                cause: Error::timeout(Phase::Connect, Duration::from_secs(30)),
                problem: None,
                restored,
                gap: Duration::from_secs(31),
            })
        };
        let error = rolled_back(None);
        assert_eq!(error.kind(), ErrorKind::RolledBack);
        let cause: &Error = error.source().unwrap().downcast_ref().unwrap();
        assert_eq!(cause.kind(), ErrorKind::Timeout);
        assert_eq!(
            error.to_string(),
            "the version put in place did not come up: waiting for the plugin to connect timed out after 30s; \
             the one before was put back within 31s"
        );
        let error = rolled_back(Some(Error::ShutDown));
        assert_eq!(error.kind(), ErrorKind::RollbackFailed);
    }
}
