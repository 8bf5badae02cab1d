//! Lock files: whoever makes something that a crash must not leave behind for good holds one while it
//! works, and whoever tidies up leaves alone what is held.
//!
//! The lock belongs to the open file, so it ends with the process however that ends, and it also holds
//! between two threads or two hosts of one process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::folder::io as failed;
use crate::error::PackageError;
use crate::id::Xid;

/// How often a new name is tried; each can only be lost to somebody who sweeps at that moment.
const ATTEMPTS: usize = 100;

/// Makes a new file `<folder>/<unique>.<extension>` that only we may read, and locks it.
///
/// # Errors
/// [`PackageError::Io`].
pub(super) fn new_locked(folder: &Path, extension: &str) -> Result<(PathBuf, File), PackageError> {
    for _ in 0..ATTEMPTS {
        let path = folder.join(format!("{}.{extension}", Xid::generate()));
        if let Some(file) = try_new(&path)? {
            return Ok((path, file));
        }
    }
    Err(failed("lock a file in", folder)(
        ErrorKind::WouldBlock.into(),
    ))
}

/// Opens and locks a file that is there; `None` if somebody holds it, or it is gone.
pub(super) fn lock_leftover(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new()
        .write(true)
        // What is there might be a named pipe, or lead elsewhere.
        .custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed())
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok((try_lock(&file)? && is_at(&file, path)?).then_some(file))
}

/// Makes and locks a file; `None` when a sweep got hold of it in between.
fn try_new(path: &Path) -> Result<Option<File>, PackageError> {
    let file = match OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(failed("make", path)(error)),
    };
    let locked = try_lock(&file).and_then(|locked| Ok(locked && is_at(&file, path)?));
    match locked {
        Ok(locked) => Ok(locked.then_some(file)),
        Err(error) => {
            // Where files cannot be locked nobody sweeps it up either.
            let _ = fs::remove_file(path);
            Err(failed("lock", path)(error))
        }
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let here = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
