//! `Spool`: a private copy of an archive that is being received, so that it can be checked, hashed and
//! unpacked without being in memory and without any other process changing it.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use super::archive::poll;
use super::content::{ArchiveContent, unreadable};
use super::layout::failed;
use super::lock::{Leftover, has_extension, new_locked};
use super::open_dir::{OpenDir, PRIVATE};
use super::staging::sweep;
use crate::error::PackageError;

const EXTENSION: &str = "part";
/// Bytes that are copied between two checks for cancellation.
const CHUNK: usize = 64 * 1024;

/// A private copy of an archive in a locked file, which is removed when this is dropped. Clones of its
/// content stay readable after that.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: OpenDir,
    name: String,
    file: Arc<File>,
}

impl Spool {
    /// Copies everything from `source` to a new file in the directory `name` below `data`, and syncs it to
    /// disk. The directory is created for the host alone if it is missing. A link in its place is removed.
    ///
    /// Blocks for as long as the source and the disk need. `cancel` is called before each 64 KiB.
    ///
    /// # Errors
    /// None of them leaves anything in the directory.
    /// - [`PackageError::ArchiveTooLarge`]: there is more than `limit`; no more is read then.
    /// - [`PackageError::Unreadable`]: the source failed.
    /// - [`PackageError::Io`]: the system refused, with the path.
    /// - [`PackageError::Cancelled`].
    pub(crate) fn receive(
        data: &Path,
        name: &str,
        source: &mut dyn Read,
        limit: u64,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Self, PackageError> {
        let dir = DirBuilder::new()
            .mode(PRIVATE)
            .recursive(true)
            .create(data)
            .and_then(|()| OpenDir::follow(data)?.ensure_dir(name, PRIVATE))
            .map_err(failed("create directory", &data.join(name)))?;
        let (unique, file) = new_locked(&dir, EXTENSION)?;
        let spool = Self {
            dir,
            name: format!("{unique}.{EXTENSION}"),
            file: Arc::new(file),
        };
        spool.copy(source, limit, cancel)?;
        Ok(spool)
    }

    /// Returns the copy, for [`Archive::from_content`](super::Archive::from_content).
    pub(crate) fn content(&self) -> ArchiveContent {
        ArchiveContent::File(self.file.clone())
    }

    /// Removes the copies that crashes have left in the directory `name` below `data`, and whatever else
    /// has such a name, but nothing that is in use. What cannot be removed within ten seconds is logged and
    /// left.
    pub(crate) fn sweep(data: &Path, name: &str) {
        let found = OpenDir::follow(data).and_then(|data| data.find_dir(name));
        sweep(&data.join(name), found, |dir, name, deadline| {
            if !has_extension(name, EXTENSION) {
                return Ok(());
            }
            match Leftover::lock(dir, name)? {
                Leftover::InUse => Ok(()),
                Leftover::Locked(_) | Leftover::Odd => dir.remove_until(name, deadline),
            }
        });
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
            file.write_all(chunk)
                .map_err(self.dir.failed("write", &self.name))?;
        }
        file.sync_all().map_err(self.dir.failed("sync", &self.name))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // It may have been moved elsewhere.
        if let Err(error) = self.dir.remove(&self.name) {
            let path = self.dir.at(&self.name);
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests;
