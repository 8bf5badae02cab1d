//! Permissions of a release: others may not write to its files, and its command is executable.

use std::path::Path;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::archive::poll;
use super::listing::Listing;
use super::open_dir::{DirCache, OpenDir, change_mode};
use super::path::ancestors;
use crate::error::PackageError;

/// The most that a file of a package, or a copy of an untracked file, may have: others must not write to
/// what a plugin runs from, and no program of a package may change its user.
pub(super) const MAX_MODE: u32 = 0o755;
const OTHERS_WRITE: Mode = Mode::WGRP.union(Mode::WOTH);
/// Files that are checked between two checks for cancellation.
const POLL_FILES: usize = 1_000;

/// Adds the permission to execute for all who may read.
pub(super) const fn executable(mode: u32) -> u32 {
    mode | (mode & 0o444) >> 2
}

/// Takes the permission to write away from others, for the files in the listing and the directories above
/// them, and makes the command executable. Links, and what the plugin has put in the place of its files,
/// are not changed. Failures are logged: the disk may be read-only.
///
/// # Errors
/// [`PackageError::Cancelled`], checked every 1,000 files.
pub(super) fn restrict(
    above: &[&OpenDir],
    release: &OpenDir,
    listing: &Listing,
    command: Option<&str>,
    cancel: &dyn Fn() -> bool,
) -> Result<(), PackageError> {
    let mut problem = None;
    let mut note = |path: &Path, result: Result<(), Errno>| match result {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => {}
        Err(error) => drop(problem.get_or_insert_with(|| (path.to_owned(), error))),
    };
    for dir in above.iter().copied().chain([release]) {
        note(dir.path(), restrict_dir(dir));
    }
    let mut dirs = DirCache::new(release);
    let mut last = "";
    let files = listing.files.iter().map(|file| &*file.path);
    for (number, path) in files.chain(command).enumerate() {
        if number % POLL_FILES == POLL_FILES - 1 {
            poll(cancel)?;
        }
        let change = |mode: Mode| {
            let restricted = mode.difference(OTHERS_WRITE);
            if command == Some(path) {
                restricted | Mode::from_raw_mode(executable(restricted.as_raw_mode()))
            } else {
                restricted
            }
        };
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut restrict = || {
            if last != parent {
                last = parent;
                for above in ancestors(path) {
                    restrict_dir(dirs.open(Path::new(above))?)?;
                }
            }
            let parent = dirs.open(Path::new(parent))?;
            change_mode(parent, name, FileType::RegularFile, change)
        };
        note(Path::new(path), restrict());
    }
    if let Some((path, error)) = problem {
        let path = release.at(path);
        log::warn!("cannot set the permissions of {}: {error}", path.display());
    }
    Ok(())
}

fn restrict_dir(dir: &OpenDir) -> Result<(), Errno> {
    change_mode(dir, c".", FileType::Directory, |mode| {
        mode.difference(OTHERS_WRITE)
    })
}
