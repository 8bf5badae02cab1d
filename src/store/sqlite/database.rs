//! The database file: creating it, checking it, and opening it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::archive_files;
use super::dir::{StoreDir, new_file, sync};
use super::failure::{NO_DATABASE, damaged, database, reading, system};
use super::schema::{self, APPLICATION, SUPPORTED};
use crate::error::{Result, StoreError};
use crate::package::open_file;

/// How long a write, and opening, waits for another program that has locked the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of the smallest page, and so of the smallest database.
const SMALLEST: u64 = 512;
/// Bytes before the first frame of a log, and before the page in each frame.
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// Creates the database if it is missing. Only for the owner of the directory.
///
/// # Errors
/// - [`StoreError::Damaged`]: it is missing, and there was one.
/// - [`StoreError::Full`], [`StoreError::ReadOnly`], [`StoreError::Database`],
///   [`Error::Io`](crate::Error::Io).
pub(super) fn make_if_missing(dir: &StoreDir) -> Result<()> {
    let path = dir.database();
    if path.try_exists().map_err(reading("read", &path))? {
        return Ok(());
    }
    // An empty database would know none of these archives, and they would be removed.
    if archive_files::exist(dir) {
        return Err(damaged(
            &path,
            "it is missing, and there are archives that belong to it",
        ));
    }
    if fs::metadata(dir.log()).is_ok_and(|log| log.len() > 0) {
        return Err(damaged(
            &path,
            "it is missing, and there is a -wal file that belongs to it",
        ));
    }
    make(dir).inspect_err(|_| {
        if let Err(error) = dir.remove_unfinished() {
            log::warn!("cannot remove {}: {error}", dir.unfinished().display());
        }
    })
}

/// Creates the database under another name first, so that what has the final name is always whole.
fn make(dir: &StoreDir) -> Result<()> {
    let path = dir.database();
    let unfinished = dir.unfinished();
    let make = system("create", &path);
    dir.remove_unfinished().map_err(&make)?;
    let file = new_file(&unfinished).map_err(&make)?;
    let fill = || {
        let mut connection = Connection::open_with_flags(&unfinished, writing())?;
        connection.pragma_update(None, "journal_mode", "MEMORY")?;
        connection.pragma_update(None, "application_id", APPLICATION)?;
        schema::migrate(&mut connection)?;
        connection.close().map_err(|(_, error)| error)
    };
    fill().map_err(database("create", &path))?;
    file.sync_all().map_err(&make)?;
    fs::rename(&unfinished, &path).map_err(&make)?;
    sync(dir.path()).map_err(make)
}

/// Opens the database if it is sound, and migrates it to the newest schema. Only for the owner of the
/// directory. A database that is refused is left as it is, so that it can still be examined.
///
/// # Errors
/// [`StoreError::Foreign`], [`StoreError::Damaged`], [`StoreError::NewerSchema`],
/// [`StoreError::Full`], [`StoreError::ReadOnly`], [`StoreError::Busy`], [`StoreError::Database`],
/// [`Error::Io`](crate::Error::Io).
pub(super) fn open_to_write(dir: &StoreDir) -> Result<Connection> {
    let path = dir.database();
    let db_err = database("open", &path);
    let mut connection = open(dir, writing())?;
    // Closing would otherwise move the log into a database that is damaged.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(&db_err)?;
    expect_known(&connection, &path)?;
    expect_whole(&connection, dir)?;
    // Before SQLite creates the other files, which get the mode of this one.
    dir.make_database_private()
        .map_err(system("set the permissions of", &path))?;
    let mut prepare = || {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        enter_wal(&connection)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // Deleted tokens are overwritten.
        connection.pragma_update(None, "secure_delete", true)?;
        schema::migrate(&mut connection)
    };
    prepare().map_err(&db_err)?;
    Ok(connection)
}

/// Moves the log into the database and leaves WAL mode: a database without an owner is then a single
/// file, which SQLite can read without creating others beside it, and so on a read-only disk as well.
/// Does not wait for readers; while there is one the log stays, for the next owner.
///
/// # Errors
/// What the database reports.
pub(super) fn leave_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_update(None, "journal_mode", "MEMORY")
}

/// Enters WAL mode, unless the database is in it already.
///
/// As [`leave_wal`], it makes no journal beside the database: a crash at that moment would leave it, and it
/// keeps every reader out until an owner has come. Nothing but the version and the change counter in the
/// header are written, and a header with any beginning of that is valid.
fn enter_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        connection.pragma_update(None, "journal_mode", "MEMORY")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
    }
    Ok(())
}

/// Opens the database for reading.
///
/// # Errors
/// [`StoreError::Damaged`], [`StoreError::Database`], [`Error::Io`](crate::Error::Io).
pub(super) fn open_to_read(dir: &StoreDir) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    open(dir, flags)
}

fn open(dir: &StoreDir, flags: OpenFlags) -> Result<Connection> {
    let path = dir.database();
    let size = dir.find_database().map_err(reading("open", &path))?;
    // SQLite would take it for a database with nothing in it.
    if size < SMALLEST {
        let problem = if size == 0 {
            "it is empty"
        } else {
            NO_DATABASE
        };
        return Err(damaged(&path, problem));
    }
    let open = || {
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        harden(&connection)?;
        Ok(connection)
    };
    open().map_err(database("open", &path))
}

/// Returns the version of the schema, which must be a known one.
///
/// # Errors
/// [`StoreError::Foreign`], [`StoreError::NewerSchema`], [`StoreError::Damaged`], or what else the
/// database says.
pub(super) fn expect_known(connection: &Connection, path: &Path) -> Result<u32> {
    let db_err = database("read", path);
    let application: u32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(&db_err)?;
    if application != APPLICATION {
        let path = path.to_owned();
        return Err(StoreError::Foreign { path }.into());
    }
    let found = schema::version(connection).map_err(db_err)?;
    match found {
        0 => Err(damaged(path, "it has no tables")),
        1..=SUPPORTED => Ok(found),
        _ => Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found,
            supported: SUPPORTED,
        }
        .into()),
    }
}

/// Checks everything but the indices, and that no page is missing: SQLite reads a page behind the end of
/// the file as zeros, which it does not notice where the page only holds the end of a long record.
///
/// # Errors
/// [`StoreError::Damaged`], or any other error of the database.
pub(super) fn expect_whole(connection: &Connection, dir: &StoreDir) -> Result<()> {
    let path = &dir.database();
    expect_ok(connection, "quick_check", path)?;
    let number = |name| {
        let number = connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
        number.map_err(database("read", path))
    };
    let (pages, page_size) = (number("page_count")?, u64::from(number("page_size")?));
    let logged = logged_pages(connection, dir, page_size)?;
    // After the log was read, since an owner may be moving pages from it into the file.
    let in_file = fs::metadata(path).map_err(reading("read", path))?.len() / page_size;
    match (1..=pages).find(|page| u64::from(*page) > in_file && !logged.contains(page)) {
        Some(page) => Err(damaged(
            path,
            format!("of its {pages} pages, page {page} is cut off"),
        )),
        None => Ok(()),
    }
}

/// Returns the pages in the part of the log that SQLite considers valid; of a log that may only be read, all
/// its pages.
fn logged_pages(connection: &Connection, dir: &StoreDir, page_size: u64) -> Result<HashSet<u32>> {
    let path = &dir.log();
    // NOOP only reports the number of frames; -1 without a log.
    let frames = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
        row.get::<_, i64>(1)
    });
    let frames = match frames {
        // It does not even report on a log that it may not write to.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => None,
        other => Some(other.map_err(database("read", path))?),
    };
    if frames.is_some_and(|frames| frames < 1) {
        return Ok(HashSet::new());
    }
    let (log, metadata) = open_file(path).map_err(reading("open", path))?;
    let frame_size = FRAME_HEADER + page_size;
    let frames = frames.and_then(|frames| u64::try_from(frames).ok());
    let frames = frames.unwrap_or(metadata.len().saturating_sub(LOG_HEADER) / frame_size);
    let page = |frame: u64| {
        // A frame begins with the number of its page, big-endian.
        let mut number = [0; 4];
        log.read_exact_at(&mut number, LOG_HEADER + frame * frame_size)?;
        Ok(u32::from_be_bytes(number))
    };
    let pages: io::Result<_> = (0..frames).map(page).collect();
    pages.map_err(reading("read", path))
}

/// Checks the whole database, with indices and references.
///
/// # Errors
/// [`StoreError::Damaged`], or any other error of the database.
pub(super) fn check_integrity(connection: &Connection, path: &Path) -> Result<()> {
    expect_ok(connection, "integrity_check", path)?;
    let mut dangling = 0;
    connection
        .pragma_query(None, "foreign_key_check", |_| {
            dangling += 1;
            Ok(())
        })
        .map_err(database("read", path))?;
    if dangling > 0 {
        let problem = format!("{dangling} rows name archives that it does not know");
        return Err(damaged(path, problem));
    }
    Ok(())
}

fn expect_ok(connection: &Connection, check: &str, path: &Path) -> Result<()> {
    let mut problems = Vec::new();
    connection
        .pragma_query(None, check, |row| {
            problems.push(row.get::<_, String>(0)?);
            Ok(())
        })
        .map_err(database("read", path))?;
    match problems.as_slice() {
        [verdict] if verdict == "ok" => Ok(()),
        [] => Err(damaged(path, "it cannot be checked")),
        [first, ..] => Err(damaged(path, first.lines().collect::<Vec<_>>().join(" "))),
    }
}

/// No SQLITE_OPEN_CREATE: a new database is created under another name.
fn writing() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Prepares for a file that may be damaged, perhaps on purpose, and that holds secrets.
fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cell_size_check", true)?;
    // Or parts of records would be written to the system's temporary directory.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)
}
