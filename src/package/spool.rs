//! `Spool`: a private copy of an archive on its way in, so that it can be checked, hashed and unpacked
//! without being in memory and without anybody changing it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::poll;
use super::content::{ArchiveContent, unreadable};
use super::folder::io as failed;
use super::lock::{lock_leftover, new_locked};
use crate::error::PackageError;

const EXTENSION: &str = "part";
/// How much is copied between two looks at whether to stop.
const CHUNK: usize = 64 * 1024;

/// A private copy of an archive in a file, which is locked, and removed when this is dropped. Its
/// content stays readable for as long as a clone of that is there.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    file: Arc<File>,
}

impl Spool {
    /// Copies everything that `source` gives to a new file in the folder, which is made if it is not
    /// there, for us alone; to the disk.
    ///
    /// Blocks for as long as the source and the disk need. `cancel` is asked before each 64 KiB.
    ///
    /// # Errors
    /// Nothing is left in the folder by any of them.
    /// - [`PackageError::ArchiveTooLarge`]: there is more than `limit`; no more is read then.
    /// - [`PackageError::Unreadable`]: the source failed.
    /// - [`PackageError::Io`]: the system refused, with the path.
    /// - [`PackageError::Cancelled`].
    pub(crate) fn receive(
        folder: &Path,
        source: &mut dyn Read,
        limit: u64,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Self, PackageError> {
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(folder)
            .map_err(failed("make folder", folder))?;
        let (path, file) = new_locked(folder, EXTENSION)?;
        let spool = Self {
            path,
            file: Arc::new(file),
        };
        spool.copy(source, limit, cancel)?;
        Ok(spool)
    }

    /// The copy, for [`Archive::from_content`](super::Archive::from_content).
    pub(crate) fn content(&self) -> ArchiveContent {
        ArchiveContent::File(self.file.clone())
    }

    /// Removes the copies that crashes have left in the folder, and none that is in use. What cannot
    /// be removed is logged and left.
    pub(crate) fn sweep(folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        let paths = entries.flatten().map(|entry| entry.path());
        for path in paths.filter(|path| path.extension().is_some_and(|found| found == EXTENSION)) {
            let removed = lock_leftover(&path).and_then(|file| match file {
                Some(_file) => remove_file(&path),
                None => Ok(()),
            });
            if let Err(error) = removed {
                log::warn!("cannot remove the leftover {}: {error}", path.display());
            }
        }
    }

    fn copy(
        &self,
        source: &mut dyn Read,
        limit: u64,
        cancel: &dyn Fn() -> bool,
    ) -> Result<(), PackageError> {
        let mut file = &*self.file;
        let mut buffer = vec![0; CHUNK];
        let mut size = 0_u64;
        loop {
            poll(cancel)?;
            let count = match source.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            if count == 0 {
                break;
            }
            let chunk = buffer.get(..count).ok_or_else(|| {
                unreadable(io::Error::other(
                    "it says that it read more than it was asked for",
                ))
            })?;
            size += count as u64;
            if size > limit {
                return Err(PackageError::ArchiveTooLarge { limit });
            }
            file.write_all(chunk).map_err(failed("write", &self.path))?;
        }
        file.sync_all().map_err(failed("sync", &self.path))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Removes a file, which may have been moved on.
fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
