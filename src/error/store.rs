//! Errors of the stores that come with the crate.

use std::path::PathBuf;
use std::sync::Arc;

use super::ErrorKind;
use crate::id::InstallationId;

/// Why a store cannot be opened, or cannot do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Another process uses the directory, or another store in this process. It is free again as soon as
    /// that one ends, however it ends.
    #[error(
        "the data directory {} is in use by {}; stop that, or use another directory",
        .dir.display(), owner_text(*.owner)
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process that uses it, if that is known.
        owner: Option<u32>,
    },
    /// A later version of this crate wrote the store.
    #[error(
        "{} was written by a newer version (schema {found}, this version knows up to {supported}); update this program",
        .path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema known here.
        supported: u32,
    },
    /// The file is another program's database.
    #[error("{} is not a database of plugin-runner; use another directory", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The database cannot be read. Nothing in the directory was changed.
    #[error(
        "{} is damaged: {problem}; put a backup of it in its place, or move the whole directory away to start over",
        .path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        problem: Arc<str>,
    },
    /// This record cannot be read, or not completely; the others can.
    #[error(
        "the record of plugin {id} is damaged: {problem}; update the plugin with its package, an external one with its manifest, or remove it"
    )]
    DamagedRecord {
        /// The plugin.
        id: InstallationId,
        /// What is wrong with it.
        problem: Arc<str>,
    },
    /// No space is left on the device. What was stored is unchanged.
    #[error("no space left for {}", .path.display())]
    Full {
        /// The file that was to be written.
        path: PathBuf,
    },
    /// The file may not be written to. What was stored is unchanged.
    #[error("{} is read-only", .path.display())]
    ReadOnly {
        /// The file that was to be written.
        path: PathBuf,
    },
    /// An archive that a record names is missing or was changed.
    #[error("the archive {sha256} is {problem}; update the plugin with its package")]
    Archive {
        /// Its SHA-256.
        sha256: Arc<str>,
        /// `missing` or `damaged`.
        problem: &'static str,
    },
    /// The archive cannot be deleted because a record names it. Nothing has changed.
    #[error("the archive {sha256} is in use by an installed plugin")]
    ArchiveInUse {
        /// Its SHA-256.
        sha256: Arc<str>,
    },
    /// The record holds something that the store cannot keep. What was stored is unchanged.
    #[error("the record of plugin {id} cannot be stored: {problem}")]
    Unstorable {
        /// The plugin.
        id: InstallationId,
        /// What cannot be kept.
        problem: Arc<str>,
    },
    /// Another program has locked the database for longer than the store waits. What was stored is
    /// unchanged.
    #[error("{} is locked by another program", .path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// Any other error of the database.
    #[error("cannot {action} {}: {source}", .path.display())]
    Database {
        /// What was being done.
        action: &'static str,
        /// The database.
        path: PathBuf,
        /// The database's error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

fn owner_text(owner: Option<u32>) -> String {
    match owner {
        None => "another process".to_owned(),
        Some(pid) if pid == std::process::id() => {
            "another store or manager of this process".to_owned()
        }
        Some(pid) => format!("process {pid}"),
    }
}

impl StoreError {
    pub(super) const fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } => ErrorKind::StoreInUse,
            Self::NewerSchema { .. } => ErrorKind::NewerSchema,
            Self::Foreign { .. } | Self::Damaged { .. } => ErrorKind::StoreDamaged,
            Self::DamagedRecord { .. } | Self::Archive { .. } => ErrorKind::RecordDamaged,
            Self::Full { .. } => ErrorKind::StorageFull,
            Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::ArchiveInUse { .. } => ErrorKind::ArchiveInUse,
            Self::Unstorable { .. } => ErrorKind::InvalidInput,
            Self::Busy { .. } => ErrorKind::StoreBusy,
            Self::Database { .. } => ErrorKind::StoreFailed,
        }
    }
}
