//! The database's file: making one, finding out whether one is sound, and opening it to write.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::archive_files;
use super::dir::{StoreDir, new_file, sync};
use super::failure::{NO_DATABASE, damaged, database, reading, system};
use super::schema::{self, APPLICATION, SUPPORTED};
use super::settings::SqliteSettings;
use crate::error::{Result, StoreError};

/// Bytes of the smallest page, and so of the smallest database.
const SMALLEST: u64 = 512;
/// Bytes before the first frame of a log, and before the page in each frame.
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// Makes the database if there is none. Only for the owner of the folder.
///
/// # Errors
/// - [`StoreError::Damaged`]: there is none, and there was one.
/// - [`StoreError::Full`], [`StoreError::ReadOnly`], [`StoreError::Database`],
///   [`Error::Io`](crate::Error::Io).
pub(super) fn make_if_missing(dir: &StoreDir) -> Result<()> {
    let path = dir.database();
    if path.try_exists().map_err(reading("read", &path))? {
        return Ok(());
    }
    // SQLite would begin an empty one, and all of these would be nobody's.
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

/// Makes it under another name first: what has the right one is always whole.
fn make(dir: &StoreDir) -> Result<()> {
    let path = dir.database();
    let unfinished = dir.unfinished();
    let make = system("make", &path);
    dir.remove_unfinished().map_err(&make)?;
    let file = new_file(&unfinished).map_err(&make)?;
    let fill = || {
        let mut connection = Connection::open_with_flags(&unfinished, writing())?;
        connection.pragma_update(None, "journal_mode", "MEMORY")?;
        connection.pragma_update(None, "application_id", APPLICATION)?;
        schema::migrate(&mut connection)?;
        connection.close().map_err(|(_, error)| error)
    };
    fill().map_err(database("make", &path))?;
    file.sync_all().map_err(&make)?;
    fs::rename(&unfinished, &path).map_err(&make)?;
    sync(dir.path()).map_err(make)
}

/// Opens a database that is sound, and brings it up to date. Only for the owner of the folder. Where
/// this is refused nothing has changed, so that what is wrong can still be looked into.
///
/// # Errors
/// [`StoreError::Foreign`], [`StoreError::Damaged`], [`StoreError::NewerSchema`],
/// [`StoreError::Full`], [`StoreError::ReadOnly`], [`StoreError::Busy`], [`StoreError::Database`],
/// [`Error::Io`](crate::Error::Io).
pub(super) fn open_to_write(dir: &StoreDir, settings: &SqliteSettings) -> Result<Connection> {
    let path = dir.database();
    let db_err = database("open", &path);
    let mut connection = open(dir, writing(), settings)?;
    // Closing would move the log into a database that is damaged.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(&db_err)?;
    expect_known(&connection, &path)?;
    expect_whole(&connection, dir)?;
    // Before SQLite makes the other files, which get the mode of this one.
    dir.make_database_private()
        .map_err(system("set the permissions of", &path))?;
    let mut prepare = || {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // What was a token is overwritten.
        connection.pragma_update(None, "secure_delete", true)?;
        schema::migrate(&mut connection)
    };
    prepare().map_err(&db_err)?;
    Ok(connection)
}

/// Moves the log into the database and leaves the mode that needs one: a database that nobody owns is a
/// single file, which SQLite reads without making others beside it. Does not wait for whoever is
/// reading meanwhile; then the log stays, for the next owner.
///
/// # Errors
/// What the database says.
pub(super) fn leave_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_update(None, "journal_mode", "DELETE")
}

/// Opens the database without changing it.
///
/// # Errors
/// [`StoreError::Damaged`], [`StoreError::Database`], [`Error::Io`](crate::Error::Io).
pub(super) fn open_to_read(dir: &StoreDir, settings: &SqliteSettings) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    open(dir, flags, settings)
}

fn open(dir: &StoreDir, flags: OpenFlags, settings: &SqliteSettings) -> Result<Connection> {
    let path = dir.database();
    let size = dir.find_database().map_err(reading("open", &path))?;
    // SQLite takes it for a database with nothing in it.
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
        connection.busy_timeout(settings.busy_timeout)?;
        harden(&connection)?;
        Ok(connection)
    };
    open().map_err(database("open", &path))
}

/// Gives the schema, which must be one that is known.
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

/// Has SQLite check everything but the indices, and makes sure that no page is cut off: SQLite takes a
/// missing one for a page of zeros, which may stand at the end of a long record.
///
/// # Errors
/// [`StoreError::Damaged`], or what else the database says.
pub(super) fn expect_whole(connection: &Connection, dir: &StoreDir) -> Result<()> {
    let path = &dir.database();
    expect_ok(connection, "quick_check", path)?;
    let number = |name| {
        let number = connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
        number.map_err(database("read", path))
    };
    let (pages, page_size) = (number("page_count")?, u64::from(number("page_size")?));
    let logged = logged_pages(connection, dir, page_size)?;
    // Only now, since an owner may be moving pages from its log into the file.
    let in_file = fs::metadata(path).map_err(reading("read", path))?.len() / page_size;
    match (1..=pages).find(|page| u64::from(*page) > in_file && !logged.contains(page)) {
        Some(page) => Err(damaged(
            path,
            format!("of its {pages} pages, page {page} is cut off"),
        )),
        None => Ok(()),
    }
}

/// The pages in the part of the log that SQLite says is valid.
fn logged_pages(connection: &Connection, dir: &StoreDir, page_size: u64) -> Result<HashSet<u32>> {
    let path = &dir.log();
    // Does nothing but say how many there are; -1 where there is no log.
    let frames: i64 = connection
        .query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))
        .map_err(database("read", path))?;
    let Ok(frames @ 1..) = u64::try_from(frames) else {
        return Ok(HashSet::new());
    };
    let log = File::open(path).map_err(reading("open", path))?;
    let page = |frame: u64| {
        // A frame begins with the number of its page.
        let mut number = [0; 4];
        log.read_exact_at(&mut number, LOG_HEADER + frame * (FRAME_HEADER + page_size))?;
        Ok(u32::from_be_bytes(number))
    };
    let pages: io::Result<_> = (0..frames).map(page).collect();
    pages.map_err(reading("read", path))
}

/// Has SQLite look at all of it.
///
/// # Errors
/// [`StoreError::Damaged`], or what else the database says.
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

/// A file that is not there is not made: it is made under another name.
fn writing() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// The file may be damaged, and somebody may have damaged it on purpose; and it has secrets.
fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cell_size_check", true)?;
    // Or parts of records are in the system's folder for temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)
}
