//! Why a plugin could not be started.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Error, ErrorKind, FailureCause, PackageError, StoreError};
use crate::text::Foreign;

/// Why no process was started. An error that can only occur again is permanent: the plugin becomes
/// `errored` without retries.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The archive cannot be unpacked.
    #[error("could not unpack: {0}")]
    Unpack(#[source] Arc<PackageError>),
    /// The process cannot be spawned.
    #[error("could not start {}: {source}", Foreign::new(&.command.to_string_lossy()))]
    Spawn {
        /// The command, resolved as far as possible.
        command: PathBuf,
        /// Why.
        source: SpawnError,
    },
    /// The manifest of a supervised plugin names no command.
    #[error("the manifest names no command")]
    NoCommand,
    /// A WebSocket plugin has no address to connect to.
    #[error("no address for the plugin to connect to: start a listener or set rpc_base_url")]
    NoAddress,
    /// A limit could not be applied to the process, which was killed therefore.
    #[error("could not limit {limit}: {source}")]
    Limit {
        /// The field of [`ProcessLimits`](crate::ProcessLimits), such as `open_files`.
        limit: &'static str,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Any other error while preparing the start.
    #[error("could not prepare: {0}")]
    Prepare(#[source] Box<Error>),
    /// The plugin was stopped meanwhile.
    #[error("cancelled")]
    Cancelled,
}

/// Why the system did not spawn a process.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// There is no such file.
    #[error("not found")]
    NotFound,
    /// The command is a bare name, and no such file is on `PATH`.
    #[error("not found on PATH; the plugin's own files are named with ./ in front")]
    NotOnPath,
    /// The path is not a file, but a directory for example.
    #[error("not a file")]
    NotAFile,
    /// No execute bit of the file is set.
    #[error("not executable; chmod +x makes it so")]
    NotExecutable,
    /// The file is executable, but not by this user.
    #[error("executable, but not by this user; its owner, group and mode say by whom")]
    NotForThisUser,
    /// This user may not search a directory above the file.
    #[error("this user may not search a directory above it")]
    NotSearchable,
    /// The file system that the file is on is mounted with `noexec`.
    #[error("its file system is mounted noexec, so nothing on it is executed")]
    NoExecMount,
    /// The system cannot run this kind of file.
    #[error("not a program for this system; a script needs a first line such as #!/bin/sh")]
    WrongFormat,
    /// The system does not allow it.
    #[error("permission denied")]
    PermissionDenied,
    /// The interpreter that the script's first line names does not exist.
    #[error("the interpreter {:?} that its first line names is not found", Foreign::new(.0))]
    NoInterpreter(String),
    /// The loader (ELF interpreter) that the program was linked with does not exist.
    #[error("the loader that it was linked with is not found")]
    NoLoader,
    /// The working directory does not exist.
    #[error("the directory that it was to run in is not found")]
    NoWorkingDirectory,
    /// The arguments and the environment together, or one of them, are over the system's limit.
    #[error("its arguments and environment are too long for the system")]
    TooLong,
    /// The file is open for writing; worth trying again.
    #[error("{0}")]
    Busy(#[source] Arc<io::Error>),
    /// Any other error, such as too many processes; worth trying again.
    #[error("{0}")]
    Io(#[source] Arc<io::Error>),
}

impl SpawnError {
    /// The value of `spawn_error` in
    /// [`Session::error_details`](crate::Session::error_details): `not_found`, `not_on_path`,
    /// `not_a_file`, `not_executable`, `not_for_this_user`, `not_searchable`, `noexec`, `wrong_format`,
    /// `permission_denied`, `interpreter_not_found`, `loader_not_found`, `no_working_directory`,
    /// `too_long`, `busy` or `other`. They are stable across versions; new ones may be added.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NotOnPath => "not_on_path",
            Self::NotAFile => "not_a_file",
            Self::NotExecutable => "not_executable",
            Self::NotForThisUser => "not_for_this_user",
            Self::NotSearchable => "not_searchable",
            Self::NoExecMount => "noexec",
            Self::WrongFormat => "wrong_format",
            Self::PermissionDenied => "permission_denied",
            Self::NoInterpreter(_) => "interpreter_not_found",
            Self::NoLoader => "loader_not_found",
            Self::NoWorkingDirectory => "no_working_directory",
            Self::TooLong => "too_long",
            Self::Busy(_) => "busy",
            Self::Io(_) => "other",
        }
    }
}

impl From<Error> for StartError {
    /// What goes wrong on the way to a start keeps it from being prepared, unless it says more.
    fn from(error: Error) -> Self {
        match error.cause() {
            Some(FailureCause::Start(start)) => start.clone(),
            _ if error.kind() == ErrorKind::Cancelled => Self::Cancelled,
            _ => Self::Prepare(Box::new(error)),
        }
    }
}

impl StartError {
    pub(super) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::PluginFailed,
        }
    }

    /// Whether starting again can only fail the same way.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Unpack(error) => error.is_permanent(),
            Self::NoCommand | Self::NoAddress | Self::Limit { .. } => true,
            Self::Spawn { source, .. } => {
                !matches!(source, SpawnError::Busy(_) | SpawnError::Io(_))
            }
            Self::Prepare(error) => match &**error {
                // A directory that does not exist.
                Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
                Error::Setting { .. } | Error::Unsupported(_) => true,
                error => match error.cause() {
                    Some(FailureCause::Store(error)) => matches!(
                        error,
                        StoreError::DamagedRecord { .. } | StoreError::Archive { .. }
                    ),
                    Some(FailureCause::Sprites(error)) => error.is_permanent(),
                    _ => matches!(
                        error.kind(),
                        ErrorKind::RuntimeRefused | ErrorKind::Unsupported
                    ),
                },
            },
            Self::Cancelled => false,
        }
    }

    /// Whether the place where plugins run failed, and not the plugin.
    pub(crate) fn is_passing(&self) -> bool {
        let Self::Prepare(error) = self else {
            return false;
        };
        matches!(
            error.kind(),
            ErrorKind::RateLimited | ErrorKind::RuntimeUnavailable | ErrorKind::Timeout
        )
    }

    /// Whether the program's file was open for writing. While a package is unpacked, another
    /// plugin's child may for a moment hold what is written open, until it has executed.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Spawn {
                source: SpawnError::Busy(_),
                ..
            }
        )
    }
}
