//! `Reader`: a store that somebody else may own and change meanwhile, and that is only read.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::Connection;

use super::archive_files;
use super::database::{self, PAST_SQLITE};
use super::failure;
use super::folder::Folder;
use super::owner;
use super::row;
use super::settings::SqliteSettings;
use super::sound;
use crate::auth::ExternalToken;
use crate::error::{Result, StoreError};
use crate::id::InstallationId;
use crate::package::ArchiveContent;
use crate::store::{Record, StoredArchive};

/// How often something is read again because it changed meanwhile.
const ATTEMPTS: usize = 10;

/// Opens the database anew for each question: what is right at one time, such as reading the file
/// without locks because nothing changes it, is wrong at another.
#[derive(Debug)]
pub(super) struct Reader {
    folder: Folder,
    settings: SqliteSettings,
}

impl Reader {
    /// See [`SqliteStore::open_read_only`](super::SqliteStore::open_read_only).
    pub(super) fn open(folder: Folder, settings: SqliteSettings) -> Result<Self> {
        let reader = Self { folder, settings };
        let path = reader.folder.database();
        let size = std::fs::metadata(&path)
            .map_err(failure::reading("open", &path))?
            .len();
        // SQLite takes it for a database with nothing in it.
        if size < sound::HEADER as u64 {
            return Err(failure::damaged(
                &path,
                format!("only {size} bytes of it are there"),
            ));
        }
        reader.read(|connection| {
            database::expect_known(connection, &path)?;
            database::expect_sound(connection, &path)?;
            reader.expect_whole(connection, &path)
        })?;
        Ok(reader)
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(super) fn get(&self, id: InstallationId) -> Result<Option<Record>> {
        Ok(self.records("WHERE id = ?1", Some(&id.to_string()))?.pop())
    }

    pub(super) fn list(&self) -> Result<Vec<Record>> {
        self.records("ORDER BY id", None)
    }

    pub(super) fn check_integrity(&self) -> Result<()> {
        let path = self.folder.database();
        self.read(|connection| database::check_integrity(connection, &path))
    }

    pub(super) fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        let digest = token.digest().to_string();
        let mut found = self.records("WHERE token_digest = ?1 ORDER BY id", Some(&digest))?;
        found.retain(|record| record.has_token(token));
        Ok(found.pop().map(|record| record.id))
    }

    pub(super) fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>> {
        let Some(size) = self.archive_size(sha256)? else {
            return Ok(None);
        };
        match archive_files::open(&self.folder, sha256, size) {
            // Deleted in between, or put right.
            Err(error) => match self.archive_size(sha256)? {
                None => Ok(None),
                Some(now) if now != size => {
                    archive_files::open(&self.folder, sha256, now).map(Some)
                }
                Some(_) => Err(error),
            },
            content => content.map(Some),
        }
    }

    pub(super) fn list_archives(&self) -> Result<Vec<StoredArchive>> {
        let path = self.folder.database();
        self.read(|connection| {
            owner::archives(connection).map_err(failure::database("read", &path))
        })
    }

    fn archive_size(&self, sha256: &str) -> Result<Option<u64>> {
        let archives = self.list_archives()?;
        let found = archives.iter().find(|archive| archive.sha256 == sha256);
        Ok(found.map(|archive| archive.size))
    }

    fn records(&self, condition: &str, parameter: Option<&str>) -> Result<Vec<Record>> {
        let path = self.folder.database();
        self.read(|connection| {
            // An owner of another version may have come.
            let schema = database::expect_known(connection, &path)?;
            let rows = row::select(connection, schema, condition, parameter)
                .map_err(failure::database("read", &path))?;
            Ok(row::decode_all(&rows).0)
        })
    }

    /// Asks the database, again where it changed meanwhile without SQLite's noticing.
    fn read<T>(&self, ask: impl Fn(&Connection) -> Result<T>) -> Result<T> {
        let path = self.folder.database();
        let _sqlite = PAST_SQLITE.read();
        for _ in 0..ATTEMPTS {
            let before = State::of(&self.folder)?;
            let answer = database::open_to_read(&self.folder, &self.settings)
                .map_err(failure::database("open", &path))
                .and_then(|connection| ask(&connection));
            if before.is_logged() || State::of(&self.folder)? == before {
                return answer;
            }
        }
        Err(StoreError::Busy { path }.into())
    }

    /// All pages that the database says it has are in its file, unless some are still in the log.
    fn expect_whole(&self, connection: &Connection, path: &Path) -> Result<()> {
        if !database::log_is_empty(&self.folder) {
            return Ok(());
        }
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
        let (pages, size) = number("page_count")
            .and_then(|pages| Ok((pages, number("page_size")?)))
            .map_err(failure::database("read", path))?;
        let found = std::fs::metadata(path)
            .map_err(failure::reading("read", path))?
            .len();
        if found < u64::from(pages) * u64::from(size) {
            return Err(failure::damaged(path, "it is cut off"));
        }
        Ok(())
    }
}

/// What shows that the database has been written to.
#[derive(PartialEq, Eq)]
struct State {
    database: Stamp,
    log: Option<Stamp>,
}

/// Which file, how long, and when it was changed.
type Stamp = (u64, u64, i64, i64);

impl State {
    /// Without opening anything: closing it again would end the locks that an owner in this process
    /// has on it.
    fn of(folder: &Folder) -> Result<Self> {
        let path = folder.database();
        let database = std::fs::metadata(&path).map_err(failure::reading("read", &path))?;
        let log = match std::fs::metadata(folder.log()) {
            Ok(log) => Some(stamp(&log)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failure::reading("read", &folder.log())(error)),
        };
        Ok(Self {
            database: stamp(&database),
            log,
        })
    }

    /// Whether there is something in the log, so that SQLite's own locks are used.
    fn is_logged(&self) -> bool {
        self.log.is_some_and(|(_, size, _, _)| size > 0)
    }
}

fn stamp(file: &Metadata) -> Stamp {
    (file.ino(), file.len(), file.mtime(), file.mtime_nsec())
}
