//! Where records and archives live: what is known of each installed plugin, and the trait behind which
//! it is kept. What a record means is the business of others; nothing here starts or stops anything.

#[cfg(feature = "conformance")]
pub mod conformance;
mod index;
mod memory;
mod overrides;
mod record;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;

pub use memory::MemoryStore;
pub use overrides::Overrides;
pub use record::{PluginKind, Record, Source};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteSettings, SqliteStore};

use crate::auth::ExternalToken;
use crate::error::Result;
use crate::id::InstallationId;
use crate::package::{Archive, ArchiveContent};

/// An archive in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredArchive {
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Keeps records, and the archives that they name. Implementations are shared by threads and must not
/// lose a write that they acknowledged: after a crash it has happened wholly or not at all. The host
/// asks for records whenever a plugin is loaded, started, connects or calls; what a method waits for,
/// those wait for, so an implementation on a far database does well to keep records at hand.
///
/// The tests of an implementation check it with `store::conformance`, which the feature `conformance`
/// adds.
///
/// An archive is stored before the first record that names it and removed after the last one, by
/// the manager, never in between: a store need not count who names what.
///
/// For errors of their own, implementations make an [`Error::Io`](crate::Error::Io) with
/// [`Error::io`](crate::Error::io).
pub trait Store: Send + Sync + fmt::Debug {
    /// The record with this id. One that cannot be read whole is given all the same, with its
    /// [`damage`](Record::damage). May block for the store's own I/O.
    ///
    /// # Errors
    /// What the store reports.
    fn get(&self, id: InstallationId) -> Result<Option<Record>>;

    /// All records, by id, which is oldest first; damaged ones too. May block for the store's own I/O.
    ///
    /// # Errors
    /// What the store reports.
    fn list(&self) -> Result<Vec<Record>>;

    /// How many records there are. May block for the store's own I/O. As it is, it counts what
    /// [`list`](Self::list) gives.
    ///
    /// # Errors
    /// What the store reports.
    fn count(&self) -> Result<usize> {
        Ok(self.list()?.len())
    }

    /// Stores a record, in place of one with the same id. One that has [`damage`](Record::damage) is not
    /// to be stored as it is: its stand-ins would take the place of what may be mended yet. May block for
    /// the store's own I/O.
    ///
    /// # Errors
    /// What the store reports; then nothing has changed.
    fn put(&self, record: Record) -> Result<()>;

    /// Removes a record, if it is there. May block for the store's own I/O.
    ///
    /// # Errors
    /// What the store reports; then nothing has changed.
    fn delete(&self, id: InstallationId) -> Result<()>;

    /// The external plugin whose token this is; see [`Record::has_token`]. May block for the store's own
    /// I/O. Asked at each handshake of an external plugin. As it is, it goes through
    /// [`list`](Self::list), which takes the longer the more plugins there are.
    ///
    /// # Errors
    /// What the store reports.
    fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        let mut found = None;
        for record in self.list()? {
            if record.has_token(token) {
                found = Some(record.id);
            }
        }
        Ok(found)
    }

    /// Keeps this archive under its SHA-256. One that is there already is put right where its content
    /// is not there any more, and stays as it is otherwise. May block for the store's own I/O and for
    /// reading the archive, which need not be in memory and need not be read into it.
    ///
    /// # Errors
    /// What the store reports; then nothing has changed.
    fn put_archive(&self, archive: &Archive) -> Result<()>;

    /// The archive with this SHA-256. What is given stays readable while it is held, also when the
    /// archive is deleted. May block for the store's own I/O.
    ///
    /// # Errors
    /// What the store reports.
    fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>>;

    /// Removes an archive, if it is there. May block for the store's own I/O.
    ///
    /// # Errors
    /// What the store reports, as when a record names the archive; then nothing has changed.
    fn delete_archive(&self, sha256: &str) -> Result<()>;

    /// All archives, in any order. May block for the store's own I/O.
    ///
    /// # Errors
    /// What the store reports.
    fn list_archives(&self) -> Result<Vec<StoredArchive>>;
}
