//! `StoreWriter`: a store that owns its directory, and so may cache in memory what is in it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard, RwLock};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::archive_files::{self, UnfinishedArchive, archive_error};
use super::database;
use super::dir::StoreDir;
use super::failure;
use super::row;
use super::schema::SUPPORTED;
use crate::auth::ExternalToken;
use crate::error::{Result, StoreError};
use crate::id::InstallationId;
use crate::owner_lock::OwnerLock;
use crate::package::{Archive, ArchiveContent};
use crate::store::index::RecordIndex;
use crate::store::release::is_digest;
use crate::store::{Record, Store, note, validate_note};

#[derive(Debug)]
pub(super) struct StoreWriter {
    dir: StoreDir,
    /// The database file, by device and inode.
    file: (u64, u64),
    /// What was committed last. No thread waits for I/O while it holds this lock.
    cache: RwLock<Cache>,
    /// Held while the database, then the files of archives, then the cache are written.
    connection: Mutex<Connection>,
    /// How many rows are no records.
    skipped: usize,
    /// Declared after the connection, so that it is released after that is closed.
    _lock: OwnerLock,
}

#[derive(Debug, Default)]
struct Cache {
    records: RecordIndex,
    /// Sizes in bytes, by digest.
    archives: BTreeMap<String, u64>,
    notes: BTreeMap<String, String>,
}

impl StoreWriter {
    /// See [`SqliteStore::open`](super::SqliteStore::open).
    pub(super) fn open(dir: StoreDir) -> Result<Self> {
        let path = dir.lock();
        let lock = OwnerLock::take(&path, &|action, error| {
            failure::system(action, &path)(error)
        })?;
        database::make_if_missing(&dir)?;
        let connection = database::open_to_write(&dir)?;
        let (cache, skipped) =
            load(&connection).map_err(failure::database("read", &dir.database()))?;
        // Only now is it certain that no record needs what the database does not know.
        archive_files::sweep(&dir, |sha256| cache.archives.contains_key(sha256));
        if let Err(error) = dir.remove_unfinished() {
            log::warn!("cannot remove {}: {error}", dir.unfinished().display());
        }
        let file = identity(&dir)?;
        Ok(Self {
            file,
            dir,
            cache: RwLock::new(cache),
            connection: Mutex::new(connection),
            skipped,
            _lock: lock,
        })
    }

    pub(super) fn dir(&self) -> &StoreDir {
        &self.dir
    }

    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }

    /// See [`SqliteStore::check_integrity`](super::SqliteStore::check_integrity).
    pub(super) fn check_integrity(&self) -> Result<()> {
        database::check_integrity(&self.connection.lock(), &self.dir.database())
    }

    /// Locks the database for writing. Refuses if the file was removed or replaced: what is written to the
    /// old one would never be read again.
    fn to_write(&self) -> Result<MutexGuard<'_, Connection>> {
        let connection = self.connection.lock();
        if identity(&self.dir).ok() == Some(self.file) {
            return Ok(connection);
        }
        let path = self.dir.database();
        let problem =
            "it was removed or replaced while this process had it open; stop the process first";
        Err(failure::damaged(&path, problem))
    }

    fn has_archive(&self, sha256: &str) -> bool {
        let size = self.cache.read().archives.get(sha256).copied();
        size.is_some_and(|size| archive_files::exists(&self.dir, sha256, size))
    }

    fn db_err(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> crate::Error + use<> {
        let path = self.dir.database();
        move |error| failure::database(action, &path)(error)
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock()
    }
}

impl Store for StoreWriter {
    fn get(&self, id: InstallationId) -> Result<Option<Record>> {
        Ok(self.cache.read().records.get(id).cloned())
    }

    fn list(&self) -> Result<Vec<Record>> {
        Ok(self.cache.read().records.list())
    }

    fn count(&self) -> Result<usize> {
        Ok(self.cache.read().records.count())
    }

    fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        Ok(self.cache.read().records.find_external(token))
    }

    fn put(&self, record: Record) -> Result<()> {
        record.validate()?;
        let values = row::encode(&record)?;
        let normalized = row::normalized(&values, record.id)?;
        let connection = self.to_write()?;
        connection
            .execute(&row::upsert(), rusqlite::params_from_iter(&values))
            .map_err(|error| match record.stored_archive() {
                Some(sha256) if failure::is_reference(&error) => archive_error(sha256, "missing"),
                _ => self.db_err("write to")(error),
            })?;
        self.cache.write().records.put(normalized);
        Ok(())
    }

    fn delete(&self, id: InstallationId) -> Result<()> {
        let connection = self.to_write()?;
        connection
            .execute("DELETE FROM installation WHERE id = ?1", [id.to_string()])
            .map_err(self.db_err("write to"))?;
        self.cache.write().records.remove(id);
        Ok(())
    }

    fn put_archive(&self, archive: &Archive) -> Result<()> {
        let sha256 = archive.sha256();
        // Hashing and copying take no lock.
        let exists = self.has_archive(sha256);
        if exists && archive_files::is_whole(&self.dir, sha256) {
            return Ok(());
        }
        let mut content = archive.content().reader();
        let (unfinished, size) = UnfinishedArchive::copy(&self.dir, sha256, &mut content)?;
        let connection = self.to_write()?;
        if !exists && self.has_archive(sha256) {
            return Ok(());
        }
        let was_known = self.cache.read().archives.contains_key(sha256);
        let stored = unfinished.place(sha256).and_then(|()| {
            connection
                .execute(
                    "INSERT INTO archive (sha256, size, added_at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (sha256) DO UPDATE SET size = excluded.size",
                    params![sha256, i64::try_from(size).unwrap_or(i64::MAX), now()],
                )
                .map_err(self.db_err("write to"))
        });
        if let Err(error) = stored {
            if !was_known {
                archive_files::remove_file(&self.dir, sha256);
            }
            return Err(error);
        }
        let mut cache = self.cache.write();
        cache.archives.insert(sha256.to_owned(), size);
        Ok(())
    }

    fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>> {
        let size = || self.cache.read().archives.get(sha256).copied();
        let Some(expected) = size() else {
            return Ok(None);
        };
        match archive_files::open(&self.dir, sha256, expected) {
            // Deleted in between.
            Err(_) if size().is_none() => Ok(None),
            other => other.map(Some),
        }
    }

    fn delete_archive(&self, sha256: &str) -> Result<()> {
        // A row that another program has put there could lead to any path.
        if !is_digest(sha256) {
            return Ok(());
        }
        let connection = self.to_write()?;
        let deleted = connection
            .execute("DELETE FROM archive WHERE sha256 = ?1", [sha256])
            .map_err(|error| {
                if failure::is_reference(&error) {
                    let sha256 = sha256.into();
                    StoreError::ArchiveInUse { sha256 }.into()
                } else {
                    self.db_err("write to")(error)
                }
            })?;
        if deleted == 0 {
            return Ok(());
        }
        self.cache.write().archives.remove(sha256);
        // After a crash before this point, the next opening removes the file.
        archive_files::remove_file(&self.dir, sha256);
        Ok(())
    }

    fn list_archives(&self) -> Result<BTreeMap<String, u64>> {
        Ok(self.cache.read().archives.clone())
    }

    fn notes(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        Ok(note::below(&self.cache.read().notes, prefix))
    }

    fn set_note(&self, key: &str, value: Option<&str>) -> Result<()> {
        validate_note(key, value)?;
        let connection = self.to_write()?;
        let written = match value {
            Some(value) => connection.execute(
                "INSERT OR REPLACE INTO note (key, value) VALUES (?1, ?2)",
                [key, value],
            ),
            None => connection.execute("DELETE FROM note WHERE key = ?1", [key]),
        };
        written.map_err(self.db_err("write to"))?;
        note::set(&mut self.cache.write().notes, key, value);
        Ok(())
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        // Not if the file was replaced: SQLite would put its journal beside the new one.
        if let Ok(connection) = self.to_write()
            && let Err(error) = database::leave_wal(&connection)
        {
            log::debug!("{} keeps its log: {error}", self.dir.database().display());
        }
    }
}

fn identity(dir: &StoreDir) -> Result<(u64, u64)> {
    let path = dir.database();
    let file = std::fs::metadata(&path).map_err(failure::reading("read", &path))?;
    Ok((file.dev(), file.ino()))
}

fn load(connection: &Connection) -> rusqlite::Result<(Cache, usize)> {
    let mut cache = Cache::default();
    let rows = row::select(connection, SUPPORTED, "", None)?;
    let (records, skipped) = row::decode_all(&rows);
    if skipped > 0 {
        log::warn!("{skipped} rows of the store have no valid id and are left alone");
    }
    for record in records {
        cache.records.put(record);
    }
    cache.archives = archives(connection)?;
    cache.notes = notes(connection)?;
    Ok((cache, skipped))
}

/// Returns the archives that the database knows, with their sizes.
///
/// # Errors
/// What the database reports.
pub(super) fn archives(connection: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    let mut statement = connection.prepare("SELECT sha256, size FROM archive")?;
    let mut rows = statement.query([])?;
    let mut archives = BTreeMap::new();
    while let Some(row) = rows.next()? {
        // It becomes a part of a path.
        let sha256 = row.get::<_, String>(0).unwrap_or_default();
        let size = row
            .get::<_, i64>(1)
            .map_or(None, |size| u64::try_from(size).ok());
        match size {
            Some(size) if is_digest(&sha256) => {
                archives.insert(sha256, size);
            }
            _ => log::warn!(
                "an archive of the store has no valid digest and size, and is left alone"
            ),
        }
    }
    Ok(archives)
}

/// Returns all notes. What is damaged in one is shown as such: whoever made it knows what it can be.
///
/// # Errors
/// What the database reports.
pub(super) fn notes(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut statement = connection.prepare("SELECT key, value FROM note")?;
    let mut rows = statement.query([])?;
    let mut notes = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let text = |column| match row.get_ref(column) {
            Ok(ValueRef::Text(text)) => Ok(String::from_utf8_lossy(text).into_owned()),
            other => other.map(|_| String::new()),
        };
        notes.insert(text(0)?, text(1)?);
    }
    Ok(notes)
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
