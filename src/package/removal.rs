//! `remove`: removes whatever is at a path, however a plugin left it: directories without permissions,
//! directories nested beyond counting, links to anywhere.
//!
//! The standard library uses a descriptor and a stack frame for each level, so that a plugin could create a
//! tree whose removal brings the host down. Here a directory that is found deep down is moved up beside the
//! topmost ones and emptied from there, which takes a bounded number of descriptors for any tree.

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
use crate::error::{PackageError, Result};
use crate::id::Xid;

/// The time limit on one removal. Another process may fill a directory as fast as it is emptied; removing a
/// million files takes seconds.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
/// How many new names are tried.
const ATTEMPTS: usize = 100;
/// How often a directory is listed that turns out not to be empty: file systems may skip an entry when others
/// are removed.
const ROUNDS: usize = 10;
/// How many levels of directories are emptied where they are. Each takes two descriptors.
const DEPTH: usize = 16;

/// Removes what [`unpack`](super::unpack) made and a plugin has used since: a file, a link, or a directory with
/// its content, whatever the permissions are in it and however deep it is. A relative `path` begins at the open
/// directory `above`. Links are not followed, except for those above the path. Succeeds if nothing is there.
///
/// # Blocking
/// For as long as the disk needs, at most about `timeout`. Removing a million files takes seconds.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io): the system refused, or the time was over. A part is left then, in
/// which directories may have moved.
pub fn remove_tree(above: impl AsFd, path: &Path, timeout: Duration) -> Result<()> {
    let removed = remove_until(above, path, Deadline::after(timeout));
    let failed = |source| PackageError::Io {
        action: "remove",
        path: path.to_owned(),
        source,
    };
    Ok(removed.map_err(failed)?)
}

/// Removes a file, a link, or a directory with its content. Succeeds if nothing is there. Links are not
/// followed, except for those above the path. Directories that their owner may not change get the
/// permission.
///
/// A crash or an error leaves a part, which may have moved within the tree.
///
/// # Errors
/// The first error of the system; [`ErrorKind::TimedOut`] if it takes more than two minutes.
pub(super) fn remove(above: impl AsFd, path: &Path) -> io::Result<()> {
    remove_until(above, path, Deadline::after(LIMIT))
}

/// Removes as [`remove`] does, until another deadline.
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

/// Moves something to a name that nothing has. Succeeds if there is nothing to move.
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
        // Moving a directory changes its entry for the parent.
        allow(from, name).map_err(from.failed("set permissions of", name))?;
        moved = rustix::fs::renameat(from, name, to, new);
    }
    ignore_missing(moved).map_err(from.failed("move out of the way", name))
}

/// Removes a directory with its content, except for the directories that are more than `depth` levels further
/// down: those it moves up into `top`, or into itself if it is the topmost one, which then removes them too.
/// Returns whether any were moved.
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

/// Calls `entry` for everything in a directory, until the deadline. What is added or removed meanwhile may be
/// missing.
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

/// Removes what is not a directory. Succeeds if nothing is there.
///
/// # Errors
/// The error of the system.
pub(super) fn unlink(dir: impl AsFd, name: impl Arg) -> io::Result<()> {
    ignore_missing(rustix::fs::unlinkat(dir, name, AtFlags::empty()))
}

fn ignore_missing(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// Moves a directory into the topmost one, under a new name.
fn move_up(dir: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>) -> io::Result<()> {
    // Moving a directory changes its entry for the parent.
    allow(dir, name)?;
    for _ in 0..ATTEMPTS {
        let new = Xid::generate().to_string();
        // What has the name already may be an empty directory, which is replaced.
        match rustix::fs::renameat(dir, name, top, &new) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(Errno::NOENT) => return Ok(()),
            other => return Ok(other?),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Opens a directory that is not a link, and lets its owner list and change it.
///
/// # Errors
/// The error of the system.
pub(super) fn open_usable(above: impl AsFd, path: impl Arg + Copy) -> Result<OwnedFd, Errno> {
    allow(above.as_fd(), path)?;
    rustix::fs::openat(above, path, DIRECTORY, Mode::empty())
}

/// Lets the owner of a directory list and change it.
fn allow(above: impl AsFd, path: impl Arg + Copy) -> Result<(), Errno> {
    change_mode(above, path, FileType::Directory, |mode| mode | Mode::RWXU)
}

#[cfg(test)]
mod tests;
