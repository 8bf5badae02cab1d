//! The database's file: making one, finding out whether one is sound, and opening it to write.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use parking_lot::RwLock;
use rusqlite::{Connection, OpenFlags};

use super::archive_files;
use super::failure::{damaged, database, reading, system};
use super::folder::{Folder, new_file, sync};
use super::schema::{self, APPLICATION, SUPPORTED};
use super::settings::SqliteSettings;
use super::sound::{self, Unsound};
use crate::error::{Result, StoreError};

/// Held for reading while somebody in this process reads a database that it does not own, and for
/// writing while the file of one is looked at past SQLite: that would end the locks of the former.
pub(super) static PAST_SQLITE: RwLock<()> = RwLock::new(());

/// Makes the database if there is none. Only for the owner of the folder.
///
/// # Errors
/// - [`StoreError::Damaged`]: there is none, and there was one.
/// - [`StoreError::Full`], [`StoreError::ReadOnly`], [`StoreError::Database`],
///   [`Error::Io`](crate::Error::Io).
pub(super) fn make_if_missing(folder: &Folder) -> Result<()> {
    let path = folder.database();
    if path.try_exists().map_err(reading("read", &path))? {
        return Ok(());
    }
    // SQLite would begin an empty one, and all of these would be nobody's.
    if archive_files::are_there(folder) {
        return Err(damaged(
            &path,
            "it is missing, and there are archives that belong to it",
        ));
    }
    if fs::metadata(folder.log()).is_ok_and(|log| log.len() > 0) {
        return Err(damaged(
            &path,
            "it is missing, and there is a -wal file that belongs to it",
        ));
    }
    make(folder).inspect_err(|_| {
        if let Err(error) = folder.remove_unfinished() {
            log::warn!("cannot remove {}: {error}", folder.unfinished().display());
        }
    })
}

/// Makes it under another name first: what has the right one is always whole.
fn make(folder: &Folder) -> Result<()> {
    let path = folder.database();
    let unfinished = folder.unfinished();
    let make = system("make", &path);
    folder.remove_unfinished().map_err(&make)?;
    let file = new_file(&unfinished).map_err(&make)?;
    let fill = || {
        let mut connection = Connection::open_with_flags(&unfinished, writing())?;
        connection.pragma_update(None, "journal_mode", "MEMORY")?;
        connection.pragma_update(None, "application_id", APPLICATION)?;
        schema::migrate(&mut connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.close().map_err(|(_, error)| error)
    };
    fill().map_err(database("make", &path))?;
    file.sync_all().map_err(&make)?;
    fs::rename(&unfinished, &path).map_err(&make)?;
    sync(folder.path()).map_err(make)
}

/// Makes sure that the database is ours and sound. Only for the owner of the folder, before it opens
/// it. Changes nothing, so that what is wrong can still be looked into.
///
/// # Errors
/// [`StoreError::Foreign`], [`StoreError::Damaged`], [`StoreError::NewerSchema`],
/// [`StoreError::Busy`], [`StoreError::Database`], [`Error::Io`](crate::Error::Io).
pub(super) fn inspect(folder: &Folder, settings: &SqliteSettings) -> Result<()> {
    let path = folder.database();
    let unsound = {
        let _alone = PAST_SQLITE.write();
        sound::check(folder).map_err(reading("read", &path))?
    };
    match unsound {
        Some(Unsound::Foreign) => return Err(StoreError::Foreign { path }.into()),
        Some(Unsound::Damaged(problem)) => return Err(damaged(&path, problem)),
        None => {}
    }
    let connection = open_to_read(folder, settings).map_err(database("open", &path))?;
    expect_known(&connection, &path)?;
    expect_sound(&connection, &path)
}

/// Opens a database that is sound, and brings it up to date. Only for the owner of the folder.
///
/// # Errors
/// [`StoreError::Full`], [`StoreError::ReadOnly`], [`StoreError::Busy`], [`StoreError::Database`],
/// [`Error::Io`](crate::Error::Io).
pub(super) fn open_to_write(folder: &Folder, settings: &SqliteSettings) -> Result<Connection> {
    let path = folder.database();
    // Before SQLite makes the other files, which get the mode of this one.
    folder
        .make_database_private()
        .map_err(system("set the permissions of", &path))?;
    let open = || {
        let mut connection = Connection::open_with_flags(&path, writing())?;
        connection.busy_timeout(settings.busy_timeout)?;
        harden(&connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // What was a token is overwritten.
        connection.pragma_update(None, "secure_delete", true)?;
        schema::migrate(&mut connection)?;
        Ok(connection)
    };
    open().map_err(database("open", &path))
}

/// Opens the database without changing it.
///
/// # Errors
/// What the database says.
pub(super) fn open_to_read(
    folder: &Folder,
    settings: &SqliteSettings,
) -> rusqlite::Result<Connection> {
    let mut uri = "file:".to_owned();
    for &byte in folder.database().as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.extend(['%', hexadecimal(byte >> 4), hexadecimal(byte & 15)]);
        }
    }
    // With nothing in the log the file alone is all there is, and reading it needs neither locks nor
    // the files that SQLite keeps them in, which it would make. Without its log it may be anything.
    uri.push_str(if log_is_empty(folder) {
        "?mode=ro&immutable=1"
    } else {
        "?mode=ro"
    });
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.busy_timeout(settings.busy_timeout)?;
    harden(&connection)?;
    Ok(connection)
}

/// Whether all that was committed is in the database itself.
pub(super) fn log_is_empty(folder: &Folder) -> bool {
    match fs::metadata(folder.log()) {
        Ok(log) => log.len() == 0,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Gives the schema, which must be one that is known.
///
/// # Errors
/// [`StoreError::Foreign`], [`StoreError::NewerSchema`], [`StoreError::Damaged`], or what else the
/// database says.
pub(super) fn expect_known(connection: &Connection, path: &Path) -> Result<u32> {
    let said = database("read", path);
    let application: u32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(&said)?;
    if application != APPLICATION {
        let path = path.to_owned();
        return Err(StoreError::Foreign { path }.into());
    }
    let found = schema::version(connection).map_err(said)?;
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

/// Has SQLite look at all of it, but for whether indices hold what they should.
///
/// # Errors
/// [`StoreError::Damaged`], or what else the database says.
pub(super) fn expect_sound(connection: &Connection, path: &Path) -> Result<()> {
    expect_ok(connection, "quick_check", path)
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

fn hexadecimal(digit: u8) -> char {
    char::from_digit(digit.into(), 16).unwrap_or_default()
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
