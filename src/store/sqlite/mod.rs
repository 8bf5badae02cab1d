//! `SqliteStore`: records in an SQLite database, archives in files next to it.
//!
//! What lives here: the folder and its lock (`dir`), the database and its schema (`database`,
//! `schema`), records as rows (`row`), the files of archives (`archive_files`), and the two ways
//! in which a store is used (`owner`, `reader`). No threads. The owner's mutex is held over the
//! database's I/O, since that is what it guards; what reads takes another lock, under which nothing is
//! waited for.

mod archive_files;
mod database;
mod dir;
mod failure;
mod reader;
mod row;
mod schema;
mod settings;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::Path;

use dir::StoreDir;
use reader::StoreReader;
pub use settings::SqliteSettings;
use writer::StoreWriter;

use super::{Record, Store, StoredArchive};
use crate::auth::ExternalToken;
use crate::error::Result;
use crate::id::InstallationId;
use crate::package::{Archive, ArchiveContent};

/// A [`Store`] in a folder: records in an SQLite database, archives in files.
///
/// | in the folder | what it is |
/// | --- | --- |
/// | `plugins.sqlite`, `-wal`, `-shm` | the database and its log |
/// | `archives/<sha256>.zip` | the archives |
/// | `owner.lock` | the process id of the owner, and its lock |
///
/// The folder may be the host's data folder. It and what is in it here are for their owner's eyes only
/// (0700, 0600), whatever the umask, and also if the folder was there before: use one that is for
/// nothing else.
///
/// **One process owns the folder**, and in it one store: a second one is refused, with the owner's
/// process id. A process that dies gives it up, however it dies. Others may read meanwhile
/// ([`open_read_only`](Self::open_read_only)), also with the `sqlite3` tool; what such a tool writes,
/// a running owner does not see and may overwrite. Within the process nobody else may open the files
/// of the database, not even to copy them: closing a file ends the locks that SQLite has on it. (From
/// another process `sqlite3 plugins.sqlite '.backup …'` makes a copy at any time.)
///
/// **What is acknowledged is on the disk.** Each write is a transaction that has reached the disk when
/// the call comes back; after a crash it is there wholly or not at all. Reads are answered from memory
/// and wait for nothing. A write that fails, because the disk is full, say, changes nothing, and the
/// same store goes on when there is room again.
///
/// **Damage is found when the folder is opened.** A database that is not whole is refused and left as it
/// is. A single record that cannot be read is given with its [`damage`](Record::damage); it can be
/// deleted, and replaced by a whole one, and one that has damage is not stored. A row that has not even
/// an id is left alone ([`unreadable_rows`](Self::unreadable_rows)).
///
/// ```
/// use plugin_runner::protocol::Manifest;
/// use plugin_runner::store::{Record, Source, SqliteStore, Store as _};
///
/// # fn main() -> plugin_runner::Result<()> {
/// # let data = std::env::temp_dir().join(format!("sqlite-store-{}", std::process::id()));
/// let manifest = Manifest::parse(br#"{"id":"clock","author":"acme","name":"Clock"}"#)?;
/// let record = Record::supervised(manifest, Source::Folder("/plugins/clock".into()));
/// let id = record.id;
/// SqliteStore::open(&data)?.put(record)?;
///
/// // The next time it runs.
/// let store = SqliteStore::open(&data)?;
/// assert_eq!(store.get(id)?.unwrap().manifest.name, "Clock");
/// # drop(store);
/// # std::fs::remove_dir_all(&data).unwrap();
/// # Ok(())
/// # }
/// ```
pub struct SqliteStore {
    access: Access,
}

enum Access {
    Writer(Box<StoreWriter>),
    Reader(Box<StoreReader>),
}

impl SqliteStore {
    /// Opens the store in this folder, which is made if it is not there, and owns it until it is
    /// dropped. Waits for the disk: reads all records, checks the database, brings it up to date where
    /// an older version made it, and removes what crashes have left.
    ///
    /// # Errors
    /// - [`StoreError::InUse`](crate::error::StoreError::InUse): it has an owner.
    /// - [`StoreError::NewerSchema`](crate::error::StoreError::NewerSchema),
    ///   [`StoreError::Foreign`](crate::error::StoreError::Foreign): somebody else's database.
    /// - [`StoreError::Damaged`](crate::error::StoreError::Damaged): the database is not whole, or is
    ///   missing where there are archives. Nothing was changed.
    /// - [`StoreError::Full`](crate::error::StoreError::Full),
    ///   [`StoreError::ReadOnly`](crate::error::StoreError::ReadOnly): the folder cannot be written to.
    /// - [`StoreError::Busy`](crate::error::StoreError::Busy): another program has locked the database.
    /// - [`StoreError::Database`](crate::error::StoreError::Database), [`Error::Io`](crate::Error::Io).
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, &SqliteSettings::default())
    }

    /// As [`open`](Self::open), with these settings.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_with(dir: impl AsRef<Path>, settings: &SqliteSettings) -> Result<Self> {
        let dir = StoreDir::make(dir.as_ref())?;
        let access = Access::Writer(Box::new(StoreWriter::open(dir, settings)?));
        Ok(Self { access })
    }

    /// Opens the store in this folder to read it, whether somebody owns it or not. Each question goes to
    /// the disk and is answered with what the owner has acknowledged by then. Writing fails with
    /// [`StoreError::ReadOnly`](crate::error::StoreError::ReadOnly).
    ///
    /// Neither the database nor its log nor an archive is ever changed. After a crash of the owner, or
    /// next to a running one, SQLite notes in `plugins.sqlite-shm` who reads.
    ///
    /// # Errors
    /// - [`Error::Io`](crate::Error::Io): there is no such folder, or no database in it, or it may not
    ///   be read.
    /// - [`StoreError::NewerSchema`](crate::error::StoreError::NewerSchema),
    ///   [`StoreError::Foreign`](crate::error::StoreError::Foreign),
    ///   [`StoreError::Damaged`](crate::error::StoreError::Damaged),
    ///   [`StoreError::Busy`](crate::error::StoreError::Busy),
    ///   [`StoreError::Database`](crate::error::StoreError::Database).
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_read_only_with(dir, &SqliteSettings::default())
    }

    /// As [`open_read_only`](Self::open_read_only), with these settings.
    ///
    /// # Errors
    /// Those of [`open_read_only`](Self::open_read_only).
    pub fn open_read_only_with(dir: impl AsRef<Path>, settings: &SqliteSettings) -> Result<Self> {
        let dir = StoreDir::open(dir.as_ref())?;
        let access = Access::Reader(Box::new(StoreReader::open(dir, settings.clone())?));
        Ok(Self { access })
    }

    /// The folder, with no symbolic links in its path.
    pub fn dir(&self) -> &Path {
        match &self.access {
            Access::Writer(writer) => writer.dir().path(),
            Access::Reader(reader) => reader.dir().path(),
        }
    }

    /// Has SQLite check the whole database, for operators and tests: opening checks all but the indices.
    ///
    /// # Blocking
    /// For the disk, and for a write that is under way; writes wait for it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`](crate::error::StoreError::Damaged), or what else the database says.
    pub fn check_integrity(&self) -> Result<()> {
        match &self.access {
            Access::Writer(writer) => writer.check_integrity(),
            Access::Reader(reader) => reader.check_integrity(),
        }
    }

    /// How many rows were found at opening that have no valid id. They are in nobody's way, and nothing
    /// but the `sqlite3` tool shows or removes them. Always 0 for a store that is only read.
    pub fn unreadable_rows(&self) -> usize {
        match &self.access {
            Access::Writer(writer) => writer.skipped(),
            Access::Reader(_) => 0,
        }
    }

    fn store(&self) -> &dyn Store {
        match &self.access {
            Access::Writer(writer) => &**writer,
            Access::Reader(reader) => &**reader,
        }
    }
}

impl Store for SqliteStore {
    fn get(&self, id: InstallationId) -> Result<Option<Record>> {
        self.store().get(id)
    }

    fn list(&self) -> Result<Vec<Record>> {
        self.store().list()
    }

    fn count(&self) -> Result<usize> {
        self.store().count()
    }

    fn put(&self, record: Record) -> Result<()> {
        self.store().put(record)
    }

    fn delete(&self, id: InstallationId) -> Result<()> {
        self.store().delete(id)
    }

    fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        self.store().find_external(token)
    }

    fn put_archive(&self, archive: &Archive) -> Result<()> {
        self.store().put_archive(archive)
    }

    fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>> {
        self.store().get_archive(sha256)
    }

    fn delete_archive(&self, sha256: &str) -> Result<()> {
        self.store().delete_archive(sha256)
    }

    fn list_archives(&self) -> Result<Vec<StoredArchive>> {
        self.store().list_archives()
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read_only = matches!(self.access, Access::Reader(_));
        f.debug_struct("SqliteStore")
            .field("folder", &self.dir())
            .field("read_only", &read_only)
            .finish_non_exhaustive()
    }
}
