//! Lock files: an operation that creates something which a crash must not leave behind holds one while it
//! runs, and a sweep removes nothing whose lock file is held.
//!
//! The lock belongs to the open file, so it ends with the process however that ends, and it also works
//! between two threads or two hosts of one process.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::open_dir::OpenDir;
use crate::error::PackageError;
use crate::id::Xid;
use crate::owner_lock::try_lock;

/// How many new names are tried; each can only be lost to a sweep at that moment.
const ATTEMPTS: usize = 100;
/// The mode of lock files, which only the host may read.
const PRIVATE_FILE: u32 = 0o600;

/// Creates a file `<unique>.<extension>` that only the host may read, and locks it. Returns `<unique>` and the
/// file.
///
/// # Errors
/// [`PackageError::Io`].
pub(super) fn new_locked(dir: &OpenDir, extension: &str) -> Result<(String, File), PackageError> {
    for _ in 0..ATTEMPTS {
        let unique = Xid::generate().to_string();
        if let Some(file) = try_new(dir, &format!("{unique}.{extension}"))? {
            return Ok((unique, file));
        }
    }
    Err(dir.failed("lock a file in", "")(io::Error::from(
        ErrorKind::WouldBlock,
    )))
}

/// What is found under the name of a lock file.
#[derive(Debug)]
pub(super) enum Leftover {
    /// A file that was not held, and is locked now.
    Locked(File),
    /// It is held, or gone.
    InUse,
    /// Something that never was a lock file of ours.
    Odd,
}

impl Leftover {
    /// Opens and locks what is there.
    ///
    /// # Errors
    /// The error of the system.
    pub(super) fn lock(dir: &OpenDir, name: &OsStr) -> io::Result<Self> {
        let Some((file, _)) = dir.open_file(name)? else {
            let gone = dir.kind(name)?.is_none();
            return Ok(if gone { Self::InUse } else { Self::Odd });
        };
        if try_lock(&file)? && dir.has(name, &file)? {
            Ok(Self::Locked(file))
        } else {
            Ok(Self::InUse)
        }
    }
}

/// Checks whether a lock file has this extension.
pub(super) fn has_extension(name: &OsStr, extension: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|found| found == extension)
}

/// Creates and locks a file; `None` if a sweep locked it first.
fn try_new(dir: &OpenDir, name: &str) -> Result<Option<File>, PackageError> {
    let file = match dir.create_file(name, PRIVATE_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(dir.failed("create", name)(error)),
    };
    let locked = try_lock(&file).and_then(|locked| Ok(locked && dir.has(name, &file)?));
    match locked {
        Ok(locked) => Ok(locked.then_some(file)),
        Err(error) => {
            // Where files cannot be locked, no sweep removes it either.
            let _ = dir.remove(name);
            Err(dir.failed("lock", name)(error))
        }
    }
}
