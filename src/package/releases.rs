//! Removing releases that are no longer needed, and whole installations.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, DirEntry};

use super::layout::{DATA, LOGS, RELEASES, REMOVED, STAGING, failed, find_installation_dir};
use super::open_dir::OpenDir;
use super::removal::{move_at_once, remove};
use super::staging::Staging;
use crate::error::PackageError;

/// How many releases are moved out of the way before they are removed.
const AT_ONCE: usize = 1_000;
/// How often that is repeated: another process may be adding releases.
const ROUNDS: usize = 100;

/// Removes all releases of an installation except those of the archives with these SHA-256, and what
/// crashes have left unfinished. `root` is the directory of the installation; it need not exist, nor need
/// the releases to keep. No plugin may be running from what is removed.
///
/// Releases are first moved out of the way, all of them before any is removed. Files and directories that the
/// plugin made read-only are removed too. Links are not followed, `root` included: one in the place of a
/// directory is removed itself. After a crash or an error this can be repeated.
///
/// # Blocking
/// For as long as the disk needs, and at most two minutes for a thousand releases.
///
/// # Errors
/// [`PackageError::Io`]: the system refused, with the path; or, with [`ErrorKind::TimedOut`], removing took
/// more than two minutes: the releases are huge, or another process keeps filling them.
pub(crate) fn keep_releases(root: &Path, keep: &[&str]) -> Result<(), PackageError> {
    remove_where(root, |name| {
        !keep.iter().any(|kept| name == OsStr::new(kept))
    })
}

/// Removes the release of one archive, by its SHA-256, as [`keep_releases`] removes the others.
///
/// # Errors
/// [`PackageError::Io`]: the system refused, with the path.
pub(crate) fn remove_release(root: &Path, sha256: &str) -> Result<(), PackageError> {
    remove_where(root, |name| name == OsStr::new(sha256))
}

fn remove_where(root: &Path, goes: impl Fn(&OsStr) -> bool) -> Result<(), PackageError> {
    let Some(home) = find_installation_dir(root)? else {
        return Ok(());
    };
    if let Some(dir) = home.find_subdir(RELEASES)? {
        // Repeated, because there may be any number, and because file systems may skip an entry when others
        // are removed.
        let goes = |entry: &io::Result<DirEntry>| {
            let name = entry.as_ref().map(|entry| entry.file_name().to_bytes());
            name.map_or(true, |name| goes(OsStr::from_bytes(name)))
        };
        for round in 0.. {
            let entries = dir.list().map_err(failed("list", dir.path()))?;
            let mut going = entries.filter(goes).take(AT_ONCE).peekable();
            if going.peek().is_none() {
                break;
            }
            if round == ROUNDS {
                let error = ErrorKind::DirectoryNotEmpty.into();
                return Err(failed("empty", dir.path())(error));
            }
            let aside = Staging::create(&home)?;
            for entry in going {
                let entry = entry.map_err(failed("list", dir.path()))?;
                aside.take(&dir, OsStr::from_bytes(entry.file_name().to_bytes()))?;
            }
            // Synced before a file is removed, so that no release is incomplete after a power failure.
            dir.sync_dir()?;
            aside.discard()?;
        }
    }
    Staging::sweep(&home);
    Ok(())
}

/// Removes the directory of an installation: the releases and what is unfinished first; then, unless
/// `keep_data`, the plugin's data and logs, and whatever else is there. With `keep_data` the directory
/// itself is removed only if nothing is left in it. It need not exist. The plugin must not be running, and
/// nothing may be unpacking.
///
/// Files and directories that the plugin made read-only are removed too. Links are not followed: if `root`
/// is one, the link is removed, or kept with the data. This needs no space on the disk. After a crash or an
/// error it can be repeated.
///
/// # Blocking
/// For as long as the disk needs, and at most two minutes for each directory in it.
///
/// # Errors
/// [`PackageError::Io`]: the system refused, with the path; or, with [`ErrorKind::TimedOut`], a directory was
/// not empty after two minutes: it is huge, or another process keeps filling it.
pub(crate) fn remove_installation(root: &Path, keep_data: bool) -> Result<(), PackageError> {
    let home = find_installation_dir(root)?;
    if let Some(home) = &home {
        let remove = |name| home.remove(name).map_err(home.failed("remove", name));
        // Renamed first, so that no release is incomplete after a crash.
        remove(REMOVED)?;
        move_at_once(home, OsStr::new(RELEASES), home, REMOVED)?;
        home.sync_dir()?;
        remove(REMOVED)?;
        remove(STAGING)?;
        if !keep_data {
            remove(DATA)?;
            remove(LOGS)?;
        }
    }
    if !keep_data {
        remove(CWD, root).map_err(failed("remove", root))?;
    } else if home.is_some()
        && let Err(error) = fs::remove_dir(root)
        && !matches!(
            error.kind(),
            ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound
        )
    {
        return Err(failed("remove", root)(error));
    }
    let above = root.parent().unwrap_or(Path::new(""));
    match OpenDir::follow(above).and_then(|above| above.sync()) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(failed("sync directory", above)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
