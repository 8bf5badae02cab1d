//! Errors of the stores that come with the crate.

use std::path::PathBuf;
use std::sync::Arc;

use crate::id::InstallationId;

/// Why a store cannot be opened, or cannot do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the folder, or another store in this one. It is free again as soon as that
    /// ends, however it ends.
    #[error(
        "the data folder {} is in use by {}; stop that, or use another folder",
        .folder.display(),
        .owner.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The process that has it, where it could be told.
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
    /// The file is a database, but of another program.
    #[error("{} is not a database of plugin-runner; use another folder", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The database cannot be read. Nothing in the folder was touched.
    #[error(
        "{} is damaged: {problem}; put a backup of it in its place, or move the whole folder away to begin anew",
        .path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        problem: Arc<str>,
    },
    /// Only this record cannot be read, or not whole.
    #[error(
        "the record of plugin {id} is damaged: {problem}; update the plugin with its package, an external one with its manifest, or remove it"
    )]
    DamagedRecord {
        /// The plugin.
        id: InstallationId,
        /// What was found.
        problem: Arc<str>,
    },
    /// There is no room. What was there is as it was.
    #[error("no space left for {}", .path.display())]
    Full {
        /// What was to be written.
        path: PathBuf,
    },
    /// It may not be written to. What was there is as it was.
    #[error("{} is read-only", .path.display())]
    ReadOnly {
        /// What was to be written.
        path: PathBuf,
    },
    /// An archive that a record names is not there any more, or is not what it was.
    #[error("the archive {sha256} is {problem}; update the plugin with its package")]
    Archive {
        /// Its SHA-256.
        sha256: Arc<str>,
        /// `missing` or `damaged`.
        problem: &'static str,
    },
    /// The archive cannot be deleted: a record names it. Nothing has changed.
    #[error("the archive {sha256} is in use by an installed plugin")]
    ArchiveInUse {
        /// Its SHA-256.
        sha256: Arc<str>,
    },
    /// The record has something in it that the store cannot keep. What was there is as it was.
    #[error("the record of plugin {id} cannot be stored: {problem}")]
    Unstorable {
        /// The plugin.
        id: InstallationId,
        /// What it has.
        problem: Arc<str>,
    },
    /// Another program has locked the database for longer than the store waits. What was there is as
    /// it was.
    #[error("{} is locked by another program", .path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// Anything else that the database says.
    #[error("cannot {action} {}: {source}", .path.display())]
    Database {
        /// What was being done.
        action: &'static str,
        /// The database.
        path: PathBuf,
        /// What it says.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}
