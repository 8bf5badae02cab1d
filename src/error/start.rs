//! Why a plugin could not be started.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Error, PackageError};

/// Why no process came to be. What can only fail the same way again is permanent: the plugin goes
/// to `errored` without retries.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The archive cannot be unpacked.
    #[error("could not unpack: {0}")]
    Unpack(#[source] Arc<PackageError>),
    /// The process cannot be spawned.
    #[error("could not start {}: {source}", .command.display())]
    Spawn {
        /// The command, resolved as far as it could be.
        command: PathBuf,
        /// Why.
        source: SpawnError,
    },
    /// The manifest of a supervised plugin names no command.
    #[error("the manifest names no command")]
    NoCommand,
    /// A websocket plugin has nowhere to connect to.
    #[error("no address for the plugin to connect to: start a listener or set rpc_base_url")]
    NoAddress,
    /// Anything else while preparing.
    #[error("could not prepare: {0}")]
    Prepare(#[source] Box<Error>),
    /// It was asked to stop meanwhile.
    #[error("cancelled")]
    Cancelled,
}

/// Why the system did not spawn a process.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// There is no such file.
    #[error("not found")]
    NotFound,
    /// The command is a bare name, and no such file is on `PATH`.
    #[error("not found on PATH; the plugin's own files are named with ./ in front")]
    NotOnPath,
    /// There is something else than a file, such as a folder.
    #[error("not a file")]
    NotAFile,
    /// The file is not marked executable.
    #[error("not executable; chmod +x makes it so")]
    NotExecutable,
    /// The system cannot run this kind of file.
    #[error("not a program for this system; a script needs a first line such as #!/bin/sh")]
    WrongFormat,
    /// The system does not allow it.
    #[error("permission denied")]
    PermissionDenied,
    /// Anything else, such as too many processes; worth trying again.
    #[error("{0}")]
    Io(Arc<io::Error>),
}

impl StartError {
    /// Whether starting again can only fail the same way.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unpack(error) => error.is_permanent(),
            Self::NoCommand | Self::NoAddress => true,
            Self::Spawn { source, .. } => match source {
                // An interpreter that is not there.
                SpawnError::Io(error) => error.kind() == io::ErrorKind::NotFound,
                _ => true,
            },
            // A folder that is not there.
            Self::Prepare(error) => {
                matches!(&**error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
            }
            Self::Cancelled => false,
        }
    }

    /// Whether the program's file was open for writing. While a package is unpacked, another
    /// plugin's child may for a moment hold what is written open, until it has executed.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Spawn { source: SpawnError::Io(error), .. }
                if error.kind() == io::ErrorKind::ExecutableFileBusy
        )
    }
}
