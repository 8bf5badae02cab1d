//! `remove`: takes away whatever stands at a path, however a plugin left it: folders without rights,
//! folders in folders beyond counting, links to anywhere.
//!
//! The standard library's own way goes down a folder with a descriptor and a frame of the stack for
//! each level, so that a plugin could make a tree whose removal takes the whole host down. Here a
//! folder that is found deep down is moved up beside the topmost ones and emptied from there: a bounded
//! number of descriptors, whatever the tree.

use std::ffi::CStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::folder::io as failed;
use crate::error::PackageError;
use crate::id::Xid;

const OWNER_ALL: Mode = Mode::RWXU;
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
/// What the system says to the first thing that cannot be removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.is_dir() {
        return ignore_missing(fs::remove_file(path));
    }
    let top = open_folder(CWD, path)?;
    for _ in 1..ROUNDS {
        while lower(top.as_fd())? {}
        match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            other => return ignore_missing(other),
        }
    }
    ignore_missing(fs::remove_dir(path))
}

/// Moves what stands at a path to where nothing is; that nothing is there is fine.
///
/// # Errors
/// [`PackageError::Io`].
pub(super) fn move_at_once(from: &Path, to: &Path) -> Result<(), PackageError> {
    let mut moved = fs::rename(from, to);
    if matches!(&moved, Err(error) if error.kind() == ErrorKind::PermissionDenied) {
        // Moving a folder changes what it says is above it.
        allow_owner(from).map_err(failed("set permissions of", from))?;
        moved = fs::rename(from, to);
    }
    ignore_missing(moved).map_err(failed("move out of the way", from))
}

/// Lets the owner of a folder list and change it, if he may not; links are not followed. That there is
/// no folder is fine.
///
/// # Errors
/// What the system says.
pub(super) fn allow_owner(folder: &Path) -> io::Result<()> {
    match allow(CWD, folder) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        other => Ok(other?),
    }
}

/// Removes all that is in the topmost folder, but for folders deep down: those it moves up. Gives
/// whether there were any.
fn lower(top: BorrowedFd<'_>) -> io::Result<bool> {
    let mut moved = false;
    each(top, |name, kind| {
        if is_folder(top, name, kind)? {
            moved |= remove_folder(top, name, top, DEPTH)?;
            Ok(())
        } else {
            unlink(top, name)
        }
    })?;
    Ok(moved)
}

/// Removes a folder with what is in it, but for the folders that are so far down: those it moves up.
/// Gives whether there were any.
fn remove_folder(
    above: BorrowedFd<'_>,
    name: &CStr,
    top: BorrowedFd<'_>,
    depth: usize,
) -> io::Result<bool> {
    let folder = match open_folder(above, name) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let folder = folder.as_fd();
    let mut moved = false;
    for _ in 0..ROUNDS {
        each(folder, |inner, kind| {
            if !is_folder(folder, inner, kind)? {
                return unlink(folder, inner);
            }
            if depth > 0 {
                moved |= remove_folder(folder, inner, top, depth - 1)?;
                return Ok(());
            }
            moved = true;
            move_up(folder, inner, top)
        })?;
        match rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(moved),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ErrorKind::DirectoryNotEmpty.into())
}

/// Calls for everything in a folder but the folder itself and the one above. What is added or taken away
/// meanwhile may or may not be seen.
fn each(
    folder: BorrowedFd<'_>,
    mut entry: impl FnMut(&CStr, FileType) -> io::Result<()>,
) -> io::Result<()> {
    for found in Dir::read_from(folder)? {
        let found = found?;
        let name = found.file_name();
        if name != c"." && name != c".." {
            entry(name, found.file_type())?;
        }
    }
    Ok(())
}

fn is_folder(folder: BorrowedFd<'_>, name: &CStr, kind: FileType) -> io::Result<bool> {
    if kind != FileType::Unknown {
        return Ok(kind == FileType::Directory);
    }
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn unlink(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    ignore_missing(rustix::fs::unlinkat(folder, name, AtFlags::empty()).map_err(Into::into))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Moves a folder below a new name into the topmost one.
fn move_up(folder: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>) -> io::Result<()> {
    // Moving a folder changes what it says is above it.
    allow(folder, name)?;
    for _ in 0..ATTEMPTS {
        let new = Xid::generate().to_string();
        // What has the name already may be an empty folder, which goes with it.
        match rustix::fs::renameat(folder, name, top, &new) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(Errno::NOENT) => return Ok(()),
            other => return Ok(other?),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Opens a folder, no link, and lets its owner list and change it.
fn open_folder<P: rustix::path::Arg + Copy>(above: impl AsFd, path: P) -> io::Result<OwnedFd> {
    allow(above.as_fd(), path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(above, path, flags, Mode::empty())?)
}

fn allow<P: rustix::path::Arg + Copy>(above: impl AsFd, path: P) -> Result<(), Errno> {
    let stat = rustix::fs::statat(above.as_fd(), path, AtFlags::SYMLINK_NOFOLLOW)?;
    // Looked at before, because without following links a mode cannot be set everywhere.
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    if mode.contains(OWNER_ALL) {
        return Ok(());
    }
    rustix::fs::chmodat(above, path, mode | OWNER_ALL, AtFlags::empty())
}

#[cfg(test)]
mod tests;
