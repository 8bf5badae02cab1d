//! `remove`: takes away whatever stands at a path, however a plugin left it: folders without rights,
//! folders in folders beyond counting, links to anywhere.
//!
//! The standard library's own way goes down a folder with a descriptor and a frame of the stack for
//! each level, so that a plugin could make a tree whose removal takes the whole host down. Here a
//! folder that is found deep down is moved up beside the topmost ones and emptied from there: a bounded
//! number of descriptors, whatever the tree.

use std::ffi::{CStr, OsStr};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use rustix::path::Arg;

use super::open_dir::{DIRECTORY, OpenDir, change_mode, list};
use crate::deadline::Deadline;
use crate::error::PackageError;
use crate::id::Xid;

/// How long one removal may take. Some process may fill a folder as fast as it is emptied; a million files
/// take seconds.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
/// How often a name is tried that may be taken.
const ATTEMPTS: usize = 100;
/// How often a folder is gone through that turns out not to be empty: file systems may pass over an
/// entry when others are removed.
const ROUNDS: usize = 10;
/// How far down folders are emptied where they are. Each level takes two descriptors.
const DEPTH: usize = 16;

/// Removes a file, a link, or a folder with all that is in it; that nothing is there is fine. Links are
/// never followed, but those above the path. Folders that their owner may not change are made so that
/// he may.
///
/// A crash, or an error, leaves a part, not necessarily where it was in the tree: for what nobody looks
/// at any more.
///
/// # Errors
/// What the system says to the first thing that cannot be removed; [`ErrorKind::TimedOut`] if it takes more
/// than two minutes.
pub(super) fn remove(above: impl AsFd, path: &Path) -> io::Result<()> {
    remove_until(above, path, Deadline::after(LIMIT))
}

/// As [`remove`], with another deadline.
///
/// # Errors
/// Those of [`remove`].
pub(super) fn remove_until(above: impl AsFd, path: &Path, deadline: Deadline) -> io::Result<()> {
    let above = above.as_fd();
    match rustix::fs::statat(above, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
        Ok(_) => return unlink(above, path),
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    remove_dir(above, path, None, DEPTH, deadline).map(drop)
}

/// Moves something to where nothing is; that nothing is there is fine.
///
/// # Errors
/// [`PackageError::Io`].
pub(super) fn move_at_once(
    from: &OpenDir,
    name: &OsStr,
    to: &OpenDir,
    new: &str,
) -> Result<(), PackageError> {
    let mut moved = rustix::fs::renameat(from, name, to, new);
    if matches!(&moved, Err(Errno::ACCESS | Errno::PERM)) {
        // Moving a folder changes what it says is above it.
        allow(from, name).map_err(from.failed("set permissions of", name))?;
        moved = rustix::fs::renameat(from, name, to, new);
    }
    ignore_missing(moved).map_err(from.failed("move out of the way", name))
}

/// Removes a directory with what is in it, except for the directories that are more than `depth` levels
/// further down: those it moves up into `top`, or into itself if it is the topmost one, which then removes
/// them too. Returns whether any were moved.
fn remove_dir(
    above: BorrowedFd<'_>,
    name: impl Arg + Copy,
    top: Option<BorrowedFd<'_>>,
    depth: usize,
    deadline: Deadline,
) -> io::Result<bool> {
    let dir = match open_usable(above, name) {
        Err(Errno::NOENT) => return Ok(false),
        other => other?,
    };
    let dir = dir.as_fd();
    let up = top.unwrap_or(dir);
    let mut moved_any = false;
    for _ in 0..ROUNDS {
        let mut moved = true;
        while moved {
            moved = false;
            each(dir, deadline, |inner, kind| {
                if !is_dir(dir, inner, kind)? {
                    return unlink(dir, inner);
                }
                if depth > 0 {
                    moved |= remove_dir(dir, inner, Some(up), depth - 1, deadline)?;
                    return Ok(());
                }
                moved = true;
                move_up(dir, inner, up)
            })?;
            moved_any |= moved;
            moved &= top.is_none();
        }
        match rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(moved_any),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ErrorKind::DirectoryNotEmpty.into())
}

/// Calls for everything in a folder but the folder itself and the one above, until the deadline. What is
/// added or taken away meanwhile may or may not be seen.
fn each(
    dir: BorrowedFd<'_>,
    deadline: Deadline,
    mut entry: impl FnMut(&CStr, FileType) -> io::Result<()>,
) -> io::Result<()> {
    for found in list(dir)? {
        let found = found?;
        if deadline.has_passed() {
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                "it is not empty in time; some process may be filling it",
            ));
        }
        entry(found.file_name(), found.file_type())?;
    }
    Ok(())
}

fn is_dir(dir: BorrowedFd<'_>, name: &CStr, kind: FileType) -> io::Result<bool> {
    if kind != FileType::Unknown {
        return Ok(kind == FileType::Directory);
    }
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Removes what is no folder; that nothing is there is fine.
///
/// # Errors
/// What the system says.
pub(super) fn unlink(dir: impl AsFd, name: impl Arg) -> io::Result<()> {
    ignore_missing(rustix::fs::unlinkat(dir, name, AtFlags::empty()))
}

fn ignore_missing(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// Moves a folder below a new name into the topmost one.
fn move_up(dir: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>) -> io::Result<()> {
    // Moving a folder changes what it says is above it.
    allow(dir, name)?;
    for _ in 0..ATTEMPTS {
        let new = Xid::generate().to_string();
        // What has the name already may be an empty folder, which goes with it.
        match rustix::fs::renameat(dir, name, top, &new) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(Errno::NOENT) => return Ok(()),
            other => return Ok(other?),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Opens a folder, no link, and lets its owner list and change it.
///
/// # Errors
/// What the system says.
pub(super) fn open_usable(above: impl AsFd, path: impl Arg + Copy) -> Result<OwnedFd, Errno> {
    allow(above.as_fd(), path)?;
    rustix::fs::openat(above, path, DIRECTORY, Mode::empty())
}

/// Lets the owner of a folder list and change it, if he may not.
fn allow(above: impl AsFd, path: impl Arg + Copy) -> Result<(), Errno> {
    change_mode(above, path, FileType::Directory, |mode| mode | Mode::RWXU)
}

#[cfg(test)]
mod tests;
