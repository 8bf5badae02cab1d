//! `Staging`: a folder in which something is put together before it is moved into place, and
//! removing what crashes left of such folders.
//!
//! Each has a lock file beside it, locked while it is in use (see `lock`). It is made before the folder
//! and removed after it, so a folder without one is nobody's.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::folder::{io as failed, make_all, make_new};
use super::lock::{lock_leftover, new_locked};
use super::removal::{move_at_once, remove};
use crate::error::PackageError;
use crate::id::Xid;

const LOCK: &str = "lock";

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
        let (lock, file) = new_locked(&above, LOCK)?;
        let staging = Self {
            folder: lock.with_extension(""),
            lock,
            _file: file,
        };
        make_new(&staging.folder)?;
        Ok(staging)
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Moves what stands at a path into this folder, at once, so that it goes with it; that nothing is
    /// there is fine. Folders that their owner may not change are made so that he may.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn take(&self, path: &Path) -> Result<(), PackageError> {
        move_at_once(path, &self.folder.join(Xid::generate().to_string()))
    }

    /// Removes the folder with all that is in it.
    ///
    /// # Errors
    /// [`PackageError::Io`]: a part of it stays, until somebody sweeps.
    pub(super) fn discard(self) -> Result<(), PackageError> {
        remove(&self.folder).map_err(failed("remove", &self.folder))
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
        let removed = remove(&self.folder).and_then(|()| remove(&self.lock));
        if let Err(error) = removed {
            log::warn!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

pub(super) fn staging(root: &Path) -> PathBuf {
    root.join("staging")
}

fn sweep_locked(lock: &Path) -> io::Result<()> {
    if let Some(_file) = lock_leftover(lock)? {
        remove(&lock.with_extension(""))?;
        remove(lock)?;
    }
    Ok(())
}

fn sweep_unlocked(folder: &Path) -> io::Result<()> {
    // Looked for after the folder was seen: an owner makes the lock file first.
    if folder.with_extension(LOCK).try_exists()? || !folder.is_dir() {
        return Ok(());
    }
    remove(folder)
}
