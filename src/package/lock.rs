//! Lock files: whoever makes something that a crash must not leave behind for good holds one while it
//! works, and whoever tidies up leaves alone what is held.
//!
//! The lock belongs to the open file, so it ends with the process however that ends, and it also holds
//! between two threads or two hosts of one process.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::open_dir::OpenDir;
use crate::error::PackageError;
use crate::id::Xid;
use crate::owner_lock::try_lock;

/// How often a new name is tried; each can only be lost to somebody who sweeps at that moment.
const ATTEMPTS: usize = 100;
/// For nobody else's eyes.
const PRIVATE_FILE: u32 = 0o600;

/// Makes a new file `<unique>.<extension>` that only we may read, and locks it; gives `<unique>` and the
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

/// What a name leads to that a lock file may have.
#[derive(Debug)]
pub(super) enum Leftover {
    /// A file that nobody held, locked now.
    Locked(File),
    /// Somebody holds it, or it is gone.
    InUse,
    /// Nothing that was ever a lock of ours.
    Odd,
}

impl Leftover {
    /// Opens and locks what is there.
    ///
    /// # Errors
    /// What the system says.
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

/// Whether a lock file has this extension.
pub(super) fn has_extension(name: &OsStr, extension: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|found| found == extension)
}

/// Makes and locks a file; `None` when a sweep got hold of it in between.
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
            // Where files cannot be locked nobody sweeps it up either.
            let _ = dir.remove(name);
            Err(dir.failed("lock", name)(error))
        }
    }
}
