//! `Staging`: a folder in which something is put together before it is moved into place, and
//! removing what crashes left of such folders.
//!
//! Each has a lock file beside it, locked while it is in use. The lock belongs to the open file,
//! so it ends with the process however that ends, and it also holds between two threads or two
//! hosts of one process. It is made before the folder and removed after it, so a folder without
//! one is nobody's.

use std::fs::{self, File, OpenOptions};
use std::io::{self as std_io, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::folder::{io, make_all, make_new};
use crate::error::PackageError;
use crate::id::Xid;

const LOCK: &str = "lock";
/// How often a new name is tried; each can only be lost to somebody who sweeps at that moment.
const ATTEMPTS: usize = 100;

/// A staging folder in use. Dropping it removes what is left of it.
#[derive(Debug)]
pub(super) struct Staging {
    folder: PathBuf,
    lock: PathBuf,
    /// Held for its lock.
    _file: File,
}

impl Staging {
    /// Makes an empty folder `<root>/staging/<unique>`.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn create(root: &Path) -> Result<Self, PackageError> {
        let above = staging(root);
        make_all(&above)?;
        for _ in 0..ATTEMPTS {
            let folder = above.join(Xid::generate().to_string());
            let lock = folder.with_extension(LOCK);
            if let Some(file) = new_lock(&lock)? {
                let staging = Self {
                    folder,
                    lock,
                    _file: file,
                };
                make_new(&staging.folder)?;
                return Ok(staging);
            }
        }
        Err(io("lock a folder in", &above)(ErrorKind::WouldBlock.into()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Removes the folders that crashes have left below `<root>/staging`, and nothing that is in
    /// use. What cannot be removed is logged and left: it is in nobody's way.
    pub(super) fn sweep(root: &Path) {
        let Ok(entries) = fs::read_dir(staging(root)) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let result = if path.extension().is_some_and(|extension| extension == LOCK) {
                sweep_locked(&path)
            } else {
                sweep_unlocked(&path)
            };
            if let Err(error) = result {
                log::warn!("cannot remove the leftover {}: {error}", path.display());
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let removed = remove_folder(&self.folder).and_then(|()| remove_file(&self.lock));
        if let Err(error) = removed {
            log::warn!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

fn staging(root: &Path) -> PathBuf {
    root.join("staging")
}

/// Makes and locks a lock file; `None` when a sweep got hold of it in between.
fn new_lock(path: &Path) -> Result<Option<File>, PackageError> {
    let file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(io("make", path)(error)),
    };
    let locked = try_lock(&file).and_then(|locked| Ok(locked && is_at(&file, path)?));
    match locked {
        Ok(locked) => Ok(locked.then_some(file)),
        Err(error) => {
            // Where files cannot be locked nobody sweeps it up either.
            let _ = remove_file(path);
            Err(io("lock", path)(error))
        }
    }
}

fn sweep_locked(lock: &Path) -> std_io::Result<()> {
    let file = match OpenOptions::new().write(true).open(lock) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if try_lock(&file)? {
        remove_folder(&lock.with_extension(""))?;
        remove_file(lock)?;
    }
    Ok(())
}

fn sweep_unlocked(folder: &Path) -> std_io::Result<()> {
    // Looked for after the folder was seen: an owner makes the lock file first.
    if folder.with_extension(LOCK).try_exists()? || !folder.is_dir() {
        return Ok(());
    }
    remove_folder(folder)
}

fn try_lock(file: &File) -> std_io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> std_io::Result<bool> {
    let here = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_folder(folder: &Path) -> std_io::Result<()> {
    ignore_missing(fs::remove_dir_all(folder))
}

fn remove_file(file: &Path) -> std_io::Result<()> {
    ignore_missing(fs::remove_file(file))
}

fn ignore_missing(result: std_io::Result<()>) -> std_io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
