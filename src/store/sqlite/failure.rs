//! Turns errors of SQLite and of the system into the crate's errors.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY;
use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::error::{Error, StoreError};

/// The problem of a file that is something else than a database.
pub(super) const NO_DATABASE: &str = "it is no database";

/// Converts an error of the database at `path`, for `map_err`.
pub(super) fn database<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(rusqlite::Error) -> Error + 'a {
    move |error| explain(action, path, error).into()
}

/// Converts an I/O error of something that was to be written, for `map_err`.
pub(super) fn system<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            full(path).into()
        }
        io::ErrorKind::ReadOnlyFilesystem => read_only(path).into(),
        _ => reading(action, path)(error),
    }
}

/// Converts an I/O error of something that was to be read, for `map_err`.
pub(super) fn reading<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> Error + 'a {
    move |error| Error::io(format!("{action} {}", path.display()), error)
}

pub(super) fn damaged(path: &Path, problem: impl Into<Arc<str>>) -> Error {
    damage(path, problem).into()
}

pub(super) fn read_only(path: &Path) -> StoreError {
    StoreError::ReadOnly {
        path: path.to_owned(),
    }
}

/// Whether a foreign key kept the statement from being executed.
pub(super) fn is_reference(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == SQLITE_CONSTRAINT_FOREIGNKEY)
}

fn damage(path: &Path, problem: impl Into<Arc<str>>) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

fn full(path: &Path) -> StoreError {
    StoreError::Full {
        path: path.to_owned(),
    }
}

fn explain(action: &'static str, path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => return full(path),
        Some(ErrorCode::ReadOnly) => return read_only(path),
        Some(ErrorCode::DatabaseCorrupt) => return damage(path, error.to_string()),
        Some(ErrorCode::NotADatabase) => return damage(path, NO_DATABASE),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            return StoreError::Busy {
                path: path.to_owned(),
            };
        }
        // SQLite does not report the system's error here, so the likely reasons are looked up.
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
            if let Some(Ok(disk)) = path.parent().map(statvfs) {
                if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
                    return read_only(path);
                }
                if disk.f_bavail == 0 {
                    return full(path);
                }
            }
        }
        _ => {}
    }
    StoreError::Database {
        action,
        path: path.to_owned(),
        source: Arc::new(error),
    }
}
