//! `SqliteStore`: records and notes in an SQLite database, archives in files next to it.
//!
//! What lives here: the directory (`dir`), the database and its schema (`database`, `schema`), records as
//! rows (`row`), the files of archives (`archive_files`), and the two ways to use a store (`writer`,
//! `reader`). No threads. The writer's mutex is held during the database's I/O, since that is what it
//! guards; reads take another lock, under which no thread waits for I/O.

mod archive_files;
mod database;
mod dir;
mod failure;
mod reader;
mod row;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use dir::StoreDir;
use reader::StoreReader;
use writer::StoreWriter;

use super::{Record, Store};
use crate::auth::ExternalToken;
use crate::error::Result;
use crate::id::InstallationId;
use crate::package::{Archive, ArchiveContent};

/// A [`Store`] in a directory: records and notes in an SQLite database, archives in files. Needs the feature `sqlite`.
///
/// | in the directory | what it is |
/// | --- | --- |
/// | `plugins.sqlite` | the database |
/// | `plugins.sqlite-wal`, `-shm` | its log, while it has an owner and after a crash |
/// | `archives/<sha256>.zip` | the archives |
/// | `owner.lock` | the owner's process id, and its lock |
///
/// The directory may be the host's data directory. Only its owner may read it and what the store puts in
/// it (0700, 0600), whatever the umask, and also if the directory existed before: use one that serves no
/// other purpose.
///
/// **One process owns the directory**, with one store: a second one is refused with the owner's process
/// id. The ownership ends with the process, however that ends. Others may read meanwhile
/// ([`open_read_only`](Self::open_read_only)), also with the `sqlite3` tool; a running owner does not see
/// what such a tool writes, and may overwrite it. Nothing else within the process may open the database
/// files, not even to copy them: closing a file drops the locks that SQLite has on it. (In another
/// process, `sqlite3 plugins.sqlite '.backup …'` makes a copy at any time.)
///
/// **An acknowledged write is on the disk.** Each write is a transaction that has reached the disk when
/// the call returns; after a crash it is there wholly or not at all. Reads are answered from memory
/// without waiting for I/O. A write that fails, for example because the disk is full, changes nothing,
/// and the same store continues once there is room again.
///
/// **Damage is found when the directory is opened.** A database that is damaged is refused and left as
/// it is. A single record that cannot be read is returned with its [`damage`](Record::damage); it can be
/// deleted or replaced by a whole one, and a record with damage is not stored. A row without a valid id
/// is left alone ([`unreadable_rows`](Self::unreadable_rows)).
///
/// ```
/// use plugin_runner::protocol::Manifest;
/// use plugin_runner::store::Source;
/// use plugin_runner::{Record, SqliteStore, Store as _};
///
/// # fn main() -> plugin_runner::Result<()> {
/// # let data = std::env::temp_dir().join(format!("sqlite-store-{}", std::process::id()));
/// let manifest = Manifest::parse(br#"{"id":"clock","author":"acme","name":"Clock"}"#)?;
/// let record = Record::supervised(manifest, Source::Directory("/plugins/clock".into()));
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
    /// Opens the store in this directory, which is created if it is missing, and owns it until it is
    /// dropped. Checks the database, migrates one that an older version created, reads all records, and
    /// removes what crashes have left behind.
    ///
    /// # Blocking
    /// For the disk, and at most five seconds for another program that has locked the database, such as a
    /// `sqlite3` with an open transaction; so does each write. Dropping the store waits for the disk as well.
    ///
    /// # Errors
    /// - [`ErrorKind::StoreInUse`](crate::ErrorKind::StoreInUse): the directory has an owner.
    /// - [`ErrorKind::NewerSchema`](crate::ErrorKind::NewerSchema): a newer version of this crate wrote it.
    /// - [`ErrorKind::StoreDamaged`](crate::ErrorKind::StoreDamaged): the database is damaged, another
    ///   program's, or missing where there are archives. Nothing was changed.
    /// - [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull),
    ///   [`ReadOnly`](crate::ErrorKind::ReadOnly): the directory cannot be written to.
    /// - [`ErrorKind::StoreBusy`](crate::ErrorKind::StoreBusy): another program has locked the database.
    /// - [`ErrorKind::StoreFailed`](crate::ErrorKind::StoreFailed), [`Error::Io`](crate::Error::Io).
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = StoreDir::make(dir.as_ref())?;
        let access = Access::Writer(Box::new(StoreWriter::open(dir)?));
        Ok(Self { access })
    }

    /// Opens the store in this directory for reading, whether it has an owner or not. Each question goes
    /// to the disk and is answered with what the owner has acknowledged by then. Writing fails with
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly).
    ///
    /// Neither the database nor its log nor an archive is ever changed. After a crash of the owner, or
    /// next to a running one, SQLite registers readers in `plugins.sqlite-shm`.
    ///
    /// # Blocking
    /// This and each question: for the disk, and at most five seconds for an
    /// owner that is opening or closing the store.
    ///
    /// # Errors
    /// - [`Error::Io`](crate::Error::Io): the directory or the database in it is missing or cannot be
    ///   read.
    /// - [`ErrorKind::NewerSchema`](crate::ErrorKind::NewerSchema),
    ///   [`StoreDamaged`](crate::ErrorKind::StoreDamaged), [`StoreBusy`](crate::ErrorKind::StoreBusy),
    ///   [`StoreFailed`](crate::ErrorKind::StoreFailed).
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = StoreDir::open(dir.as_ref())?;
        let access = Access::Reader(Box::new(StoreReader::open(dir)?));
        Ok(Self { access })
    }

    /// The directory, with no symbolic links in its path.
    pub fn dir(&self) -> &Path {
        match &self.access {
            Access::Writer(writer) => writer.dir().path(),
            Access::Reader(reader) => reader.dir().path(),
        }
    }

    /// Checks the whole database, for operators and tests: opening checks everything but the indices.
    ///
    /// # Blocking
    /// For the disk, and for a write in progress; writes wait for the check.
    ///
    /// # Errors
    /// - [`ErrorKind::StoreDamaged`](crate::ErrorKind::StoreDamaged), with what was found.
    /// - [`ErrorKind::StoreBusy`](crate::ErrorKind::StoreBusy),
    ///   [`StoreFailed`](crate::ErrorKind::StoreFailed): the database could not be checked.
    pub fn check_integrity(&self) -> Result<()> {
        match &self.access {
            Access::Writer(writer) => writer.check_integrity(),
            Access::Reader(reader) => reader.check_integrity(),
        }
    }

    /// The number of rows without a valid id that were found at opening. They do no harm, and only the
    /// `sqlite3` tool shows or removes them. Always 0 for a read-only store.
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

    fn list_archives(&self) -> Result<BTreeMap<String, u64>> {
        self.store().list_archives()
    }

    fn notes(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        self.store().notes(prefix)
    }

    fn set_note(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.store().set_note(key, value)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read_only = matches!(self.access, Access::Reader(_));
        f.debug_struct("SqliteStore")
            .field("dir", &self.dir())
            .field("read_only", &read_only)
            .finish_non_exhaustive()
    }
}
