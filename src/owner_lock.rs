//! `OwnerLock`: that one owner at a time has a folder, and who. What they own it for is theirs.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::error::{Error, Result, StoreError};

/// How long the lock of a process that is gone can still be held: a child that it was just starting
/// has the descriptor for the moment until it becomes another program.
const DYING: Duration = Duration::from_secs(1);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(2);
/// For nobody else's eyes.
const PRIVATE: u32 = 0o600;
/// All of a mode that says who may do what.
const PERMISSIONS: u32 = 0o777;
/// Digits of the greatest process id there may be.
const DIGITS: usize = 10;

/// The lock on a folder. It belongs to the open file: it holds between two owners in one process as
/// well, and ends with the process however that ends. The file stays; removing it would let somebody
/// lock a file that is not there any more.
#[derive(Debug)]
pub(crate) struct OwnerLock {
    file: File,
}

impl OwnerLock {
    /// Takes the lock that this file is, in the folder that it is in. Does not wait for another owner,
    /// except a dying one, and that for a second at most. `failed` makes an error of what the system
    /// says, and of what was being done.
    ///
    /// # Errors
    /// [`StoreError::InUse`]: another one has it; and what `failed` makes.
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
            // There is nothing to wait on: nobody tells when such a lock ends.
            std::thread::sleep(BETWEEN_ATTEMPTS);
        }
        // Always as long, so that a file that is there needs no more room. Without it nothing is lost
        // but a name.
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
        // Not left to closing: a child that is just being started has the descriptor as well.
        if let Err(error) = self.file.unlock() {
            log::warn!("cannot unlock a data folder: {error}");
        }
    }
}

/// A file for reading and writing, made if it is not there, that only its owner may use. It must not be a
/// link.
///
/// # Errors
/// What the system says.
fn shared_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        // What is there might be a named pipe, or lead elsewhere.
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

/// Locks a file, without waiting; false when it is locked already.
///
/// # Errors
/// What the system says.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Who has written itself into the file. Asked again and again while a lock is waited for, so it always
/// reads from the start.
fn owner(file: &File) -> Option<u32> {
    let mut line = [0; DIGITS];
    file.read_exact_at(&mut line, 0).ok()?;
    std::str::from_utf8(&line).ok()?.parse().ok()
}

fn is_alive(process: u32) -> bool {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    // One that may not be signalled lives as well.
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}
