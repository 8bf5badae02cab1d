//! Which releases an installation keeps, and removing an installation's folder.

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
/// How often that is done: somebody may be adding to them.
const ROUNDS: usize = 100;

/// Removes all releases of an installation but those of these archives, by their SHA-256, and what
/// crashes have left unfinished. `root` is the folder of the installation; that it, or a release to
/// keep, is not there is fine. No plugin may be running from what is removed.
///
/// What goes is first moved to where nobody looks for releases, all of it before any of it is removed.
/// Files and folders that the plugin made read-only go too, and links are not followed, `root` included:
/// one in the place of a folder is removed itself. After a crash, or an error, it can be done again.
///
/// Blocks for as long as the disk needs, and at most two minutes for a thousand releases.
///
/// # Errors
/// [`PackageError::Io`]: the system refused, with the path; or, with [`ErrorKind::TimedOut`], they were not
/// removed within two minutes: they are huge, or some process goes on filling them.
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
        // Again, because there may be any number, and because file systems may pass over an entry when
        // others are taken away.
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
            // Before a file is removed, so that after a power failure too nothing half is a release.
            dir.sync_dir()?;
            aside.discard()?;
        }
    }
    Staging::sweep(&home);
    Ok(())
}

/// Removes the folder of an installation: the releases and what is unfinished first; then, unless
/// `keep_data`, the plugin's data and logs, and whatever else is there. With `keep_data` the folder
/// itself goes only if nothing is left in it. That it is not there is fine. The plugin must not be
/// running, and nobody may be unpacking.
///
/// Files and folders that the plugin made read-only go too, and links are not followed: if `root` itself
/// is one, the link is removed, or kept with the data. Nothing needs room on the disk. After a crash, or
/// an error, it can be done again.
///
/// Blocks for as long as the disk needs, and at most two minutes for each directory in it.
///
/// # Errors
/// [`PackageError::Io`]: the system refused, with the path; or, with [`ErrorKind::TimedOut`], a directory was
/// not empty after two minutes: it is huge, or some process goes on filling it.
pub(crate) fn remove_installation(root: &Path, keep_data: bool) -> Result<(), PackageError> {
    let home = find_installation_dir(root)?;
    if let Some(home) = &home {
        let remove = |name| home.remove(name).map_err(home.failed("remove", name));
        // Another name first, so that nothing half is a release.
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
    } else if home.is_some() {
        match fs::remove_dir(root) {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound
                ) =>
            {
                return Err(failed("remove", root)(error));
            }
            _ => {}
        }
    }
    match root.parent().filter(|above| !above.as_os_str().is_empty()) {
        Some(above) => match OpenDir::follow(above).and_then(|above| above.sync()) {
            Err(error) if !is_nothing(&error) => Err(failed("sync folder", above)(error)),
            _ => Ok(()),
        },
        None => Ok(()),
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
