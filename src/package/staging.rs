//! `Staging`: a directory in which something is prepared before it is moved into place, and the removal of
//! such directories that crashes have left.
//!
//! Each has a lock file beside it, locked while it is in use (see `lock`). The lock file is created before
//! the directory and removed after it, so a directory without one is not in use.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FileType;

use super::layout::STAGING;
use super::lock::{Leftover, has_extension, new_locked};
use super::open_dir::{OpenDir, PUBLIC};
use super::removal::move_at_once;
use crate::deadline::Deadline;
use crate::error::PackageError;
use crate::id::Xid;

const LOCK: &str = "lock";
/// The time limit on removing leftovers. The next sweep goes on with the rest.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);

/// A staging directory in use. Dropping it removes what is left of it.
#[derive(Debug)]
pub(super) struct Staging {
    above: OpenDir,
    name: String,
    dir: OpenDir,
    /// Held for its lock.
    _file: File,
}

impl Staging {
    /// Creates an empty directory `staging/<unique>` in the directory of an installation.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn create(home: &OpenDir) -> Result<Self, PackageError> {
        let above = home.ensure_subdir(STAGING)?;
        let (name, file) = new_locked(&above, LOCK)?;
        let made = above.create_dir(&*name, PUBLIC).and_then(|()| {
            above
                .find_in(&name)?
                .ok_or(io::ErrorKind::NotADirectory.into())
        });
        match made {
            Ok(dir) => Ok(Self {
                above,
                name,
                dir,
                _file: file,
            }),
            Err(error) => {
                remove_or_warn(&above, &name);
                Err(above.failed("create directory", name)(error))
            }
        }
    }

    pub(super) const fn dir(&self) -> &OpenDir {
        &self.dir
    }

    /// Moves something into this directory atomically, so that it is removed with it. Succeeds if there is
    /// nothing to move. Directories that their owner may not change get the permission.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn take(&self, from: &OpenDir, name: &OsStr) -> Result<(), PackageError> {
        move_at_once(from, name, &self.dir, &Xid::generate().to_string())
    }

    /// Moves the directory itself to a name that nothing has.
    ///
    /// # Errors
    /// The error of the system.
    pub(super) fn move_to(&self, to: &OpenDir, name: &str) -> io::Result<()> {
        self.above.rename(&*self.name, to, name)
    }

    /// Removes the directory with its content.
    ///
    /// # Errors
    /// [`PackageError::Io`]: a part of it stays until the next sweep.
    pub(super) fn discard(self) -> Result<(), PackageError> {
        let removed = self.above.remove(&self.name);
        removed.map_err(self.above.failed("remove", &self.name))
    }

    /// Removes what crashes have left in the staging directory of an installation, and whatever else is
    /// there, but nothing that is in use. What cannot be removed within ten seconds is logged and left,
    /// where it does no harm.
    pub(super) fn sweep(home: &OpenDir) {
        let path = home.at(STAGING);
        sweep(&path, home.find_dir(STAGING), |above, name, deadline| {
            if has_extension(name, LOCK) {
                sweep_locked(above, name, deadline)
            } else {
                sweep_unlocked(above, name, deadline)
            }
        });
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        remove_or_warn(&self.above, &self.name);
    }
}

/// Calls `remove` for each name in a directory, if that exists, for ten seconds at most. Logs what cannot be
/// removed.
pub(super) fn sweep(
    path: &Path,
    found: io::Result<Option<OpenDir>>,
    remove: impl Fn(&OpenDir, &OsStr, Deadline) -> io::Result<()>,
) {
    let deadline = Deadline::after(SWEEP_LIMIT);
    let swept = found.and_then(|found| {
        let Some(dir) = found else {
            return Ok(());
        };
        for entry in dir.list()? {
            if deadline.has_passed() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if let Err(error) = remove(&dir, name, deadline) {
                let path = dir.at(name);
                log::warn!("cannot remove the leftover {}: {error}", path.display());
            }
        }
        Ok(())
    });
    match swept {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("cannot remove all leftovers in {}: {error}", path.display());
        }
        _ => {}
    }
}

/// Removes a staging directory, and then its lock file.
fn remove_or_warn(above: &OpenDir, name: &str) {
    let removed = above
        .remove_until(name, Deadline::after(SWEEP_LIMIT))
        .and_then(|()| above.remove(format!("{name}.{LOCK}")));
    if let Err(error) = removed {
        log::warn!("cannot remove {}: {error}", above.at(name).display());
    }
}

fn sweep_locked(above: &OpenDir, lock: &OsStr, deadline: Deadline) -> io::Result<()> {
    match Leftover::lock(above, lock)? {
        Leftover::InUse => Ok(()),
        Leftover::Odd => above.remove_until(lock, deadline),
        Leftover::Locked(_file) => {
            let dir = Path::new(lock).file_stem().unwrap_or_default();
            // These names would be the directory itself and its parent.
            if dir != "." && dir != ".." {
                above.remove_until(dir, deadline)?;
            }
            above.remove(lock)
        }
    }
}

fn sweep_unlocked(above: &OpenDir, name: &OsStr, deadline: Deadline) -> io::Result<()> {
    let mut lock = name.to_owned();
    lock.push(".");
    lock.push(LOCK);
    // Checked after the directory was seen, because an owner creates the lock file first.
    if above.kind(&*lock)? == Some(FileType::RegularFile) {
        return Ok(());
    }
    above.remove_until(name, deadline)
}
