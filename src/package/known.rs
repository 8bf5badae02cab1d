//! `KnownArchives`: which archives have been read before, so that a warm start need not read and hash
//! one again to know which release is its.
//!
//! An archive is known by its file, as `make` and version control know files: device, inode, size and
//! the times of the last change of content and inode. The last of these nobody can set, so a file that
//! was changed, replaced or moved over is another one. What is known is never written to disk: images
//! that are made to be reproducible have the same numbers for other content after a restart.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::archive::Archive;

/// So many archives are known at once. Over it, all are forgotten and read once more.
const MOST: usize = 4_096;

/// How far apart two changes of a file must be to be sure to have different times: the system's clock
/// for files ticks a hundred times in a second at least. Where whole seconds are kept nothing is
/// remembered.
const TICK: Duration = Duration::from_millis(50);

/// The archives that this host has read, by their paths. For every thread.
#[derive(Debug, Default)]
pub(crate) struct KnownArchives(Mutex<HashMap<PathBuf, (FileIdentity, String)>>);

impl KnownArchives {
    /// The SHA-256 of the archive in this file, if it was read before and has not changed since.
    ///
    /// Blocks for asking the file system about the file.
    pub(crate) fn sha256(&self, path: &Path) -> Option<String> {
        let metadata = std::fs::metadata(path).ok()?;
        let known = self.0.lock();
        let (identity, sha256) = known.get(path)?;
        (*identity == FileIdentity::of(&metadata)).then(|| sha256.clone())
    }

    /// Remembers what was read from this file, if it is sure that a change would be seen.
    pub(crate) fn remember(&self, path: &Path, archive: &Archive) {
        let Some(identity) = archive.identity() else {
            return;
        };
        let mut known = self.0.lock();
        if known.len() >= MOST && !known.contains_key(path) {
            known.clear();
        }
        known.insert(path.to_owned(), (*identity, archive.sha256().to_owned()));
    }
}

/// What tells a file, as it is, from every other and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    content_changed: (i64, i64),
    inode_changed: (i64, i64),
}

impl FileIdentity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            content_changed: (metadata.mtime(), metadata.mtime_nsec()),
            inode_changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change after `now` is sure to show: its last change is long enough ago to get another
    /// time than the next.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.inode_changed;
        if seconds <= 0 || nanoseconds == 0 {
            // No clock gave it, most likely: images made to be the same each time, and file systems
            // that know no such time.
            return false;
        }
        let since_epoch = u64::try_from(seconds)
            .ok()
            .zip(u32::try_from(nanoseconds).ok())
            .map(|(seconds, nanoseconds)| Duration::new(seconds, nanoseconds));
        let ago = since_epoch
            .and_then(|changed| SystemTime::UNIX_EPOCH.checked_add(changed))
            .and_then(|changed| now.duration_since(changed).ok());
        ago.is_some_and(|ago| ago > TICK)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::super::limits::PackageLimits;
    use super::super::testing::{Builder, Folder, Item};
    use super::*;

    fn open(path: &Path) -> Archive {
        Archive::open(path, &PackageLimits::default()).unwrap()
    }

    /// Reads the archive until it is old enough to be remembered.
    fn open_settled(path: &Path) -> Archive {
        let began = Instant::now();
        loop {
            let archive = open(path);
            if archive.identity().is_some() {
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
        let folder = Folder::new();
        let path = folder.path().join("plugin.zip");
        let known = KnownArchives::default();
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
        let other = folder.path().join("other.zip");
        fs::copy(&path, &other).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(known.sha256(&path), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(known.sha256(&path), None);
    }

    #[test]
    fn a_file_that_was_changed_just_now_is_not_known() {
        let at = |seconds, nanoseconds| FileIdentity {
            device: 1,
            inode: 2,
            size: 3,
            content_changed: (0, 0),
            inode_changed: (seconds, nanoseconds),
        };
        let now = |milliseconds| SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        assert!(!at(10, 1_000_000).is_settled(now(10_001)));
        assert!(!at(10, 1_000_000).is_settled(now(10_051)));
        assert!(at(10, 1_000_000).is_settled(now(10_052)));
        // Whole seconds: perhaps a file system that knows no others.
        assert!(!at(10, 0).is_settled(now(11_900)));
        assert!(!at(10, 0).is_settled(now(100_000)), "no clock gave it");
        // Clocks that disagree, and nonsense.
        assert!(!at(10, 1).is_settled(now(9_000)));
        assert!(!at(-10, 1).is_settled(now(9_000)));
    }

    #[test]
    fn too_many_are_forgotten() {
        let folder = Folder::new();
        let path = folder.path().join("plugin.zip");
        fs::write(&path, Builder::plugin([]).bytes()).unwrap();
        let archive = open_settled(&path);
        let known = KnownArchives::default();
        for number in 0..=MOST {
            known.remember(&folder.path().join(number.to_string()), &archive);
            assert!(known.0.lock().len() <= MOST);
        }
        known.remember(&path, &archive);
        assert!(known.sha256(&path).is_some());
    }
}
