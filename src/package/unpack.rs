//! `unpack`: puts an archive on disk, wholly or not at all.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::archive::{Archive, POLL_BYTES, poll, read_entry};
use super::entry::Entry;
use super::folder::{io, make_all, make_new, release_folder, releases, sync};
use super::limits::PackageLimits;
use super::listing::{ListedFile, Listing};
use super::path::command_path;
use super::releases::make_usable;
use super::staging::Staging;
use crate::error::PackageError;

/// How often a release that others leave unfinished is moved out of the way.
const PUBLISH_ATTEMPTS: usize = 10;

/// Unpacks an archive into `<root>/releases/<sha256>` and gives that folder. `root` is the folder
/// of one installation.
///
/// If the release is there and complete, that is all; nothing is compared or hashed again, since
/// plugins may change their own files. Otherwise everything is written to a staging folder, to the
/// disk, the listing last, and then moved into place at once: at no time is there a half release,
/// whatever crashes. Leftovers of earlier crashes are removed. Several threads and processes may
/// unpack the same archive at once.
///
/// Files get the archive's permissions without setuid, setgid and sticky bits, or 0644 where it
/// says none; folders get 0755. The file that `command` names (with a slash, relative, inside) is
/// made executable for all who may read it, because archives from Windows say nothing of that.
///
/// Blocks for as long as the disk needs. `cancel` is asked between entries and after each MiB; once
/// it gives true, unpacking ends with [`PackageError::Cancelled`].
///
/// # Errors
/// Nothing of the archive is left behind by any of them.
/// - [`PackageError::Cancelled`].
/// - [`PackageError::Io`]: the system refused, with the path.
/// - [`PackageError::Content`], [`PackageError::SizeMismatch`]: the archive's headers lie.
/// - [`PackageError::Collision`]: two names that are one on this file system.
/// - [`PackageError::FileTooLarge`], [`PackageError::TotalTooLarge`]: over these limits, which may
///   be other ones than the archive was opened with.
pub fn unpack(
    archive: &Archive,
    root: &Path,
    command: &str,
    limits: &PackageLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<PathBuf, PackageError> {
    if let Some(release) = find_release(root, archive.sha256(), command)? {
        return Ok(release);
    }
    let staging = stage(archive, root, command, limits, cancel)?;
    publish(&staging, root, archive)
}

/// As [`unpack`], but a release that is already there is replaced by a fresh one, with everything that
/// the plugin wrote into it. The plugin must not be running.
///
/// The new release is wholly on the disk before the old one is moved away, and the old one is removed
/// last. A crash leaves one of them, or neither, and never a half one.
///
/// Blocks as [`unpack`] does.
///
/// # Errors
/// Those of [`unpack`]. The old release stays, unless the system refuses to put the new one in its place.
pub fn unpack_afresh(
    archive: &Archive,
    root: &Path,
    command: &str,
    limits: &PackageLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<PathBuf, PackageError> {
    make_usable(root)?;
    Staging::sweep(root);
    let staging = stage(archive, root, command, limits, cancel)?;
    let aside = Staging::create(root)?;
    aside.take(&release_folder(root, archive.sha256()))?;
    // Dropped, and so removed, after the new one is in place.
    publish(&staging, root, archive)
}

/// Unpacks an archive into a staging folder, to the disk.
fn stage(
    archive: &Archive,
    root: &Path,
    command: &str,
    limits: &PackageLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<Staging, PackageError> {
    let command = command_path(command);
    make_all(&releases(root))?;
    let staging = Staging::create(root)?;
    let mut writer = Writer {
        folder: staging.path(),
        command: command.as_deref(),
        limits,
        cancel,
        total: 0,
        since_poll: 0,
    };
    let files = writer.write(archive)?;
    let listing = Listing {
        sha256: archive.sha256().to_owned(),
        files,
    };
    listing.write(staging.path())?;
    sync(staging.path())?;
    writer.poll()?;
    Ok(staging)
}

/// The release of the archive with this SHA-256, if it has been unpacked below `root`, as
/// [`unpack`] would give it: leftovers are removed and `command` is made executable.
///
/// # Errors
/// [`PackageError::Io`].
pub(crate) fn find_release(
    root: &Path,
    sha256: &str,
    command: &str,
) -> Result<Option<PathBuf>, PackageError> {
    Staging::sweep(root);
    let release = release_folder(root, sha256);
    if !is_complete(&release, sha256)? {
        return Ok(None);
    }
    if let Some(command) = command_path(command) {
        make_executable(&release.join(command))?;
    }
    Ok(Some(release))
}

fn is_complete(release: &Path, sha256: &str) -> Result<bool, PackageError> {
    let listing = Listing::read(release)?;
    Ok(listing.is_some_and(|listing| listing.sha256() == sha256))
}

/// Moves the staging folder to its place, unless somebody else has put the same release there. Gives
/// that place.
fn publish(staging: &Staging, root: &Path, archive: &Archive) -> Result<PathBuf, PackageError> {
    let release = release_folder(root, archive.sha256());
    for _ in 0..PUBLISH_ATTEMPTS {
        match fs::rename(staging.path(), &release) {
            Ok(()) => {
                sync(&releases(root))?;
                sync(root)?;
                return Ok(release);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty
                        | ErrorKind::AlreadyExists
                        | ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(io("move into place", &release)(error)),
        }
        if is_complete(&release, archive.sha256())? {
            return Ok(release);
        }
        // Moved, not removed in place: a release that is being removed would look like one.
        Staging::create(root)?.take(&release)?;
    }
    let error = std::io::Error::from(ErrorKind::AlreadyExists);
    Err(io("move into place", &release)(error))
}

/// Writes the content of an archive below one folder.
struct Writer<'a> {
    folder: &'a Path,
    command: Option<&'a str>,
    limits: &'a PackageLimits,
    cancel: &'a dyn Fn() -> bool,
    total: u64,
    since_poll: u64,
}

impl Writer<'_> {
    fn write(&mut self, archive: &Archive) -> Result<Vec<ListedFile>, PackageError> {
        for folder in archive.folders() {
            self.poll()?;
            make_new(&self.folder.join(folder)).map_err(collision(folder))?;
        }
        let mut zip = archive.reader();
        let mut files = Vec::new();
        for entry in archive.entries().iter().filter(|entry| !entry.is_folder()) {
            self.poll()?;
            let path = self.folder.join(entry.path());
            // New, so that two names which only this file system takes for one are an error.
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(io("make", &path))
                .map_err(collision(entry.path()))?;
            let mut size = 0;
            read_entry(&mut zip, entry, |chunk| {
                size += chunk.len() as u64;
                self.count(entry, chunk.len() as u64, size)?;
                file.write_all(chunk).map_err(io("write", &path))
            })?;
            let mode = fs::Permissions::from_mode(self.mode(entry));
            file.set_permissions(mode)
                .map_err(io("set permissions of", &path))?;
            file.sync_all().map_err(io("sync", &path))?;
            files.push(ListedFile {
                path: entry.path().to_owned(),
                size,
            });
        }
        for folder in archive.folders() {
            self.poll()?;
            sync(&self.folder.join(folder))?;
        }
        Ok(files)
    }

    /// Counts what really comes out, whatever the headers say.
    fn count(&mut self, entry: &Entry, bytes: u64, size: u64) -> Result<(), PackageError> {
        let limit = self.limits.file_size;
        if size > limit {
            return Err(PackageError::FileTooLarge {
                entry: entry.path().to_owned(),
                size,
                limit,
            });
        }
        self.total += bytes;
        let limit = self.limits.total_size;
        if self.total > limit {
            return Err(PackageError::TotalTooLarge {
                entry: entry.path().to_owned(),
                size: self.total,
                limit,
            });
        }
        self.since_poll += bytes;
        if self.since_poll >= POLL_BYTES as u64 {
            self.poll()?;
        }
        Ok(())
    }

    fn mode(&self, entry: &Entry) -> u32 {
        if self.command == Some(entry.path()) {
            executable(entry.mode())
        } else {
            entry.mode()
        }
    }

    fn poll(&mut self) -> Result<(), PackageError> {
        self.since_poll = 0;
        poll(self.cancel)
    }
}

/// In a staging folder nothing is there but what the archive brought.
fn collision(entry: &str) -> impl Fn(PackageError) -> PackageError + '_ {
    move |error| match error {
        PackageError::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
            PackageError::Collision {
                entry: entry.to_owned(),
            }
        }
        other => other,
    }
}

/// The mode with the right to execute for all who may read.
const fn executable(mode: u32) -> u32 {
    mode | (mode & 0o444) >> 2
}

/// Makes a file of an unpacked release executable, if it is there.
fn make_executable(path: &Path) -> Result<(), PackageError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_file() || executable(mode) == mode {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(executable(mode)))
        .map_err(io("set permissions of", path))
}

#[cfg(test)]
mod tests;
