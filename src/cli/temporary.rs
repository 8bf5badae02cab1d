//! Temporary directories: made with a lock in them that is held for as long as the process lives, and
//! removed at the next run if the process was killed.
//!
//! A directory without the lock's file is left alone: it is of an earlier version, of a file system without
//! locks, or it is being made at this moment.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plugin_runner::Xid;
use plugin_runner::package::remove_tree;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fchmod, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::process::geteuid;

use super::data_dir;
use super::private_file::{open_own, unfinished};

const PREFIX: &str = "plugin-runner-";
/// Not the lock of a directory that is kept: one that has this name by chance is none of ours.
const LOCK: &str = ".plugin-runner.temporary";
/// How many directories of others one run removes in one place.
const AT_MOST: usize = 1_000;
/// How long removing the own directory may take.
const OWN_TIME: Duration = Duration::from_secs(120);

/// Creates a directory for this process alone. The lock is `None` on a file system that has none.
///
/// # Errors
/// What the system reports; nothing is left then.
pub(super) fn create(above: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = above.join(format!(
        "{PREFIX}{}-{}",
        std::process::id(),
        Xid::generate()
    ));
    DirBuilder::new().mode(0o700).create(&path)?;
    match lock(&path) {
        Ok(lock) => Ok((path, lock)),
        Err(error) => {
            // The error that is returned counts.
            let _ = fs::remove_dir_all(&path);
            Err(error)
        }
    }
}

/// Takes the lock of a new directory. Its file gets its name once it is locked: other runs never see it free.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let (lock, new) = new_lock(path)?;
    if let Err(error) = lock.try_lock() {
        log::debug!("cannot lock {}: {error}", path.display());
        fs::remove_file(&new)?;
        return Ok(None);
    }
    fs::rename(&new, path.join(LOCK))?;
    Ok(Some(lock))
}

fn new_lock(path: &Path) -> io::Result<(File, PathBuf)> {
    let new = unfinished(&path.join(LOCK));
    let mut options = OpenOptions::new();
    let file = open_own(&new, options.write(true).create_new(true))?;
    Ok((file, new))
}

/// Removes the own directory with all that is in it.
///
/// # Errors
/// What the system reports, and that it took more than two minutes. The next run tries again.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + OWN_TIME;
    if let Ok(dir) = open_dir(CWD, path) {
        // The next step fails too then, or sets the permissions that were missing.
        let _ = empty(&dir, deadline);
    }
    remove_tree(CWD, path, left(deadline)).map_err(io::Error::other)
}

/// Removes the directories of this user's killed processes in a place, until the deadline, which is looked at
/// between files. What cannot be removed is left, and noted in the debug log.
pub(super) fn remove_leftovers(above: &Path, deadline: Instant) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |error: io::Error| {
        log::debug!(
            "cannot look for directories of killed runs in {}: {error}",
            above.display()
        );
    };
    let listed = rustix::fs::open(above, flags, Mode::empty()).and_then(|dir| {
        let entries = Dir::read_from(&dir)?;
        Ok((File::from(dir), entries))
    });
    let (dir, entries) = match listed {
        Ok(listed) => listed,
        Err(Errno::NOENT) => return,
        Err(error) => return failed(error.into()),
    };
    let mut removed = 0;
    for entry in entries {
        if removed == AT_MOST || Instant::now() >= deadline {
            return;
        }
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return failed(error.into()),
        };
        let Some(name) = entry.file_name().to_str().ok().filter(|name| is_ours(name)) else {
            continue;
        };
        let path = above.join(name);
        match remove_leftover(&dir, name, deadline) {
            Ok(true) => {
                removed += 1;
                log::debug!("removed {}, which a killed run had left", path.display());
            }
            Ok(false) => {}
            Err(error) => log::debug!("cannot remove {}: {error}", path.display()),
        }
    }
}

/// Returns whether this is exactly a name that [`create`] makes.
fn is_ours(name: &str) -> bool {
    let parts = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'));
    let parsed =
        parts.and_then(|(pid, id)| Some((pid.parse::<u32>().ok()?, id.parse::<Xid>().ok()?)));
    // Not with a sign, nor with zeros in front.
    parsed.is_some_and(|(pid, id)| format!("{PREFIX}{pid}-{id}") == name)
}

/// Removes a directory if it is this user's, has a lock, and nothing holds that. Returns whether it did.
///
/// # Errors
/// What the system reports, and that the time is over.
fn remove_leftover(above: &File, name: &str, deadline: Instant) -> io::Result<bool> {
    // From here on everything is reached through the open directory, so that it does not matter what is put in
    // the place of its name.
    let dir = match open_dir(above, name) {
        Ok(dir) => dir,
        // A file or a link; or another run has just removed it.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let own = geteuid().as_raw();
    if dir.metadata()?.uid() != own || is_used_by_name(&dir)? {
        return Ok(false);
    }
    let flags =
        OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let lock = match openat(&dir, LOCK, flags, Mode::empty()) {
        Ok(lock) => File::from(lock),
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let metadata = lock.metadata()?;
    // Where there are no locks, no directory is known to be free.
    if !metadata.is_file() || metadata.uid() != own || lock.try_lock().is_err() {
        return Ok(false);
    }
    empty(&dir, deadline)?;
    ignore_missing(unlinkat(&dir, LOCK, AtFlags::empty()))?;
    let removed = ignore_missing(unlinkat(above, name, AtFlags::REMOVEDIR));
    if removed.is_err() {
        // A process of the killed run wrote something at the last moment: the next run tries again.
        let flags = flags | OFlags::CREATE | OFlags::EXCL;
        let _ = openat(&dir, LOCK, flags, Mode::RUSR | Mode::WUSR);
    }
    removed.map(|()| true)
}

/// Returns whether the directory was named as one that is kept, since it was made.
fn is_used_by_name(dir: &File) -> io::Result<bool> {
    for name in data_dir::OF_A_SERVER.into_iter().chain([data_dir::LOCK]) {
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => return Ok(true),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Removes everything but the lock's file, by which the directory is found again if this is interrupted.
fn empty(dir: &File, deadline: Instant) -> io::Result<()> {
    fchmod(dir, Mode::RWXU)?;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if ![&b"."[..], b"..", LOCK.as_bytes()].contains(&name) {
            let name = Path::new(OsStr::from_bytes(name));
            remove_tree(dir, name, left(deadline)).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn open_dir(above: impl AsFd, name: impl Arg) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(above, name, flags, Mode::empty()).map(File::from)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn ignore_missing(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests;
