//! `OwnerLock`: a file whose lock makes one process at a time the owner of a directory, and that names
//! the owner.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::error::{Error, Result, StoreError};

/// How long the lock of a dead process may still be held: a child that it was just starting has the
/// descriptor until it executes another program.
const DYING: Duration = Duration::from_secs(1);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(2);
/// Only its owner may read it.
const PRIVATE: u32 = 0o600;
/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o777;
/// Digits of the greatest possible process id.
const DIGITS: usize = 10;

/// The lock on a directory. It belongs to the open file: it also excludes a second owner in the same
/// process, and ends with the process however that ends. The file stays, since removing it would let
/// another process lock a file that no longer has a name.
#[derive(Debug)]
pub(crate) struct OwnerLock {
    file: File,
}

impl OwnerLock {
    /// Locks this file, for the directory that it is in. Waits for a dying owner only, at most a second.
    /// `failed` makes an error of the failed action and what the system reports.
    ///
    /// # Errors
    /// [`StoreError::InUse`]: the directory has an owner; and what `failed` returns.
    pub(crate) fn take(
        path: &Path,
        failed: &dyn Fn(&'static str, io::Error) -> Error,
    ) -> Result<Self> {
        let file = shared_file(path).map_err(|error| failed("open", error))?;
        let begun = Instant::now();
        while !try_lock(&file).map_err(|error| failed("lock", error))? {
            let owner = owner(&file);
            let dying = owner.is_some_and(|owner| !is_alive(owner));
            if !dying || begun.elapsed() > DYING {
                return Err(in_use(path.parent().unwrap_or(path), owner).into());
            }
            // The system reports no event when such a lock ends.
            std::thread::sleep(BETWEEN_ATTEMPTS);
        }
        // Always of the same length, so that an existing file needs no more room. If it cannot be written,
        // only the owner's name is missing from the next one's error.
        let line = format!("{:0width$}\n", std::process::id(), width = DIGITS);
        if let Err(error) = file.write_all_at(line.as_bytes(), 0) {
            log::debug!("cannot write to {}: {error}", path.display());
            let _ = file.set_len(0);
        }
        Ok(Self { file })
    }
}

impl Drop for OwnerLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that is just being started has the descriptor as well.
        if let Err(error) = self.file.unlock() {
            log::warn!("cannot unlock a data directory: {error}");
        }
    }
}

/// Opens a file for reading and writing, created if it is missing, that only its owner may use. It must
/// not be a link.
///
/// # Errors
/// What the system reports.
fn shared_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        // There might be a named pipe or a link in its place.
        .custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.permissions().mode() & PERMISSIONS != PRIVATE {
        file.set_permissions(Permissions::from_mode(PRIVATE))?;
    }
    Ok(file)
}

fn in_use(dir: &Path, owner: Option<u32>) -> StoreError {
    StoreError::InUse {
        dir: dir.to_owned(),
        owner,
    }
}

/// Locks a file without waiting; returns false if it is locked already.
///
/// # Errors
/// What the system reports.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Returns the process id in the file. Always reads from the start, since it is called repeatedly while
/// a lock is waited for.
fn owner(file: &File) -> Option<u32> {
    let mut line = [0; DIGITS];
    file.read_exact_at(&mut line, 0).ok()?;
    std::str::from_utf8(&line).ok()?.parse().ok()
}

fn is_alive(process: u32) -> bool {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    // A process that must not be signalled is alive as well.
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}
