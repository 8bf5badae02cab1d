//! `ArchiveCache`: the SHA-256 of archives that have been read before, so that a warm start finds its release
//! without reading and hashing the archive again.
//!
//! An archive is recognized by its file, as `make` and version control recognize files: by device, inode,
//! size and the times of the last change of content and inode. No program can set the last of these, so a
//! file that was changed, replaced or moved over is a different one. The cache is never written to disk:
//! images that are built to be reproducible have the same numbers for other content after a restart.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::archive::Archive;
use super::content::FileIdentity;

/// Archives in the cache at most. When it is full, it is emptied.
const MAX_ARCHIVES: usize = 4_096;

/// The archives that this host has read, by their paths. Used from all threads.
#[derive(Debug, Default)]
pub(crate) struct ArchiveCache(Mutex<HashMap<PathBuf, (FileIdentity, String)>>);

impl ArchiveCache {
    /// Returns the SHA-256 of the archive in this file, if it was read before and has not changed since.
    ///
    /// Blocks for asking the file system about the file.
    pub(crate) fn sha256(&self, path: &Path) -> Option<String> {
        let metadata = std::fs::metadata(path).ok()?;
        let known = self.0.lock();
        let (identity, sha256) = known.get(path)?;
        (*identity == FileIdentity::of(&metadata)).then(|| sha256.clone())
    }

    /// Adds an archive that was read from this file, if any later change is sure to be noticed.
    pub(crate) fn remember(&self, path: &Path, archive: &Archive) {
        let Some(identity) = archive.identity else {
            return;
        };
        let mut known = self.0.lock();
        if known.len() >= MAX_ARCHIVES && !known.contains_key(path) {
            known.clear();
        }
        known.insert(path.to_owned(), (identity, archive.sha256().to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::super::limits::PackageLimits;
    use super::super::testing::{Builder, Item};
    use super::*;
    use crate::testing::TestDir;

    fn open(path: &Path) -> Archive {
        Archive::open(path, &PackageLimits::default()).unwrap()
    }

    /// Reads the archive until it is old enough to be remembered.
    fn open_settled(path: &Path) -> Archive {
        let began = Instant::now();
        loop {
            let archive = open(path);
            if archive.identity.is_some() {
                return archive;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "the archive never settled"
            );
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_archive_is_known_until_its_file_is_another() {
        let dir = TestDir::new("package");
        let path = dir.path().join("plugin.zip");
        let known = ArchiveCache::default();
        let bytes = |name| Builder::plugin([Item::stored(name, b"x")]).bytes();
        fs::write(&path, bytes("one")).unwrap();
        assert_eq!(known.sha256(&path), None);
        let archive = open_settled(&path);
        known.remember(&path, &archive);
        assert_eq!(known.sha256(&path).as_deref(), Some(archive.sha256()));

        // The same size and time of change; the inode's own time tells.
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, bytes("two")).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(changed).unwrap();
        assert_eq!(known.sha256(&path), None);

        let archive = open_settled(&path);
        known.remember(&path, &archive);
        assert_eq!(known.sha256(&path).as_deref(), Some(archive.sha256()));
        // Another file in its place.
        let other = dir.path().join("other.zip");
        fs::copy(&path, &other).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(known.sha256(&path), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(known.sha256(&path), None);
    }

    #[test]
    fn too_many_are_forgotten() {
        let dir = TestDir::new("package");
        let path = dir.path().join("plugin.zip");
        fs::write(&path, Builder::plugin([]).bytes()).unwrap();
        let archive = open_settled(&path);
        let known = ArchiveCache::default();
        for number in 0..=MAX_ARCHIVES {
            known.remember(&dir.path().join(number.to_string()), &archive);
            assert!(known.0.lock().len() <= MAX_ARCHIVES);
        }
        known.remember(&path, &archive);
        assert!(known.sha256(&path).is_some());
    }
}
