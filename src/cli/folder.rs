//! The data folder of one run: a temporary one that is removed at its end, or one that was named
//! and is kept, which one run at a time may use.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use plugin_runner::Xid;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::failure::Failure;

const LOCK: &str = ".plugin-runner.lock";

/// A folder for packages, logs and plugin data.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// Locked for as long as it is open; `None` for a temporary folder.
    lock: Option<File>,
}

impl DataFolder {
    /// A new folder for this process alone, removed when dropped.
    pub(crate) fn temporary() -> Result<Self, Failure> {
        let above = std::env::temp_dir();
        let name = format!("plugin-runner-{}-{}", std::process::id(), Xid::generate());
        let path = above.join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| {
                Failure::failed(format!(
                    "cannot make a temporary folder in {}: {error}; TMPDIR can name another place",
                    above.display()
                ))
            })?;
        Ok(Self { path, lock: None })
    }

    /// The named folder, made if need be.
    pub(crate) fn named(path: &Path) -> Result<Self, Failure> {
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(Failure::failed(format!(
                "--data {}: this is not a folder; name one, or what is to become one",
                path.display()
            )));
        }
        fs::create_dir_all(path).map_err(|error| cannot("make the data folder", path, &error))?;
        let lock = open_lock(&path.join(LOCK))?;
        // Two hosts would write into the same logs and run two processes of one plugin.
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Failure::failed(format!(
                    "another plugin-runner is using the data folder {}; name another with --data",
                    path.display()
                )));
            }
            // Some network file systems have no locks; better to run than not.
            Err(error) => log::warn!("cannot lock {}: {error}", path.display()),
        }
        Ok(Self {
            path: path.to_owned(),
            lock: Some(lock),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it outlives the run, and what plugins keep in it with it.
    pub(crate) const fn is_kept(&self) -> bool {
        self.lock.is_some()
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if self.lock.is_none()
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            log::warn!(
                "cannot remove the temporary folder {}: {error}",
                self.path.display()
            );
        }
    }
}

/// Opens the lock file, made if need be. Plugins may write to the folder too: a link that one has put there
/// is not followed, and a named pipe not waited for.
fn open_lock(path: &Path) -> Result<File, Failure> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let failed = |error| cannot("lock the data folder with", path, &error);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        Ok(file)
    } else {
        Err(failed(io::Error::other("not a regular file")))
    }
}

fn cannot(action: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    #[test]
    fn a_temporary_folder_is_removed_with_all_that_is_in_it() {
        let folder = DataFolder::temporary().unwrap();
        let path = folder.path().to_owned();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/c"), "x").unwrap();
        assert!(!folder.is_kept());
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn what_plugins_put_in_the_place_of_the_lock_is_neither_followed_nor_waited_for() {
        let parent = DataFolder::temporary().unwrap();
        let path = parent.path().join("data");
        drop(DataFolder::named(&path).unwrap());
        let target = parent.path().join("target");
        fs::write(&target, "kept").unwrap();
        fs::remove_file(path.join(LOCK)).unwrap();
        std::os::unix::fs::symlink(&target, path.join(LOCK)).unwrap();
        let refused = DataFolder::named(&path).unwrap_err().to_string();
        assert!(refused.contains(LOCK), "{refused}");
        assert_eq!(fs::read(&target).unwrap(), b"kept");
        fs::remove_file(path.join(LOCK)).unwrap();
        // No child makes it, which would hold the locks of other tests until it runs.
        let pipe = FileType::Fifo;
        rustix::fs::mknodat(CWD, path.join(LOCK), pipe, Mode::RWXU, 0).unwrap();
        let refused = DataFolder::named(&path).unwrap_err().to_string();
        assert!(refused.contains(LOCK), "{refused}");
    }

    #[test]
    fn a_named_folder_is_kept_and_used_by_one_at_a_time() {
        let parent = DataFolder::temporary().unwrap();
        let path = parent.path().join("data");
        let first = DataFolder::named(&path).unwrap();
        let refused = DataFolder::named(&path).unwrap_err().to_string();
        assert!(refused.contains("another plugin-runner"), "{refused}");
        drop(first);
        assert!(path.exists());
        assert!(DataFolder::named(&path).unwrap().is_kept());
    }
}
