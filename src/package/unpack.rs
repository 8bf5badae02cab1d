//! `unpack`: writes an archive to disk, wholly or not at all.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::archive::{Archive, POLL_BYTES, poll, read_entry};
use super::central_directory::Zip;
use super::entry::Entry;
use super::layout::{RELEASES, create_installation_dir, find_installation_dir, release_dir};
use super::limits::PackageLimits;
use super::listing::{ListedFile, Listing};
use super::open_dir::{DirCache, OpenDir, PUBLIC};
use super::path::command_path;
use super::permissions::{executable, restrict};
use super::staging::Staging;
use crate::error::{PackageError, Result};

/// How often a release that others leave unfinished is moved out of the way.
const PUBLISH_ATTEMPTS: usize = 10;

/// Unpacks an archive into `<root>/releases/<sha256>` and returns that directory. `root` is the directory
/// of one installation.
///
/// If the release is there and complete, nothing is written, compared or hashed again, since plugins may
/// change their own files. Otherwise everything is written to a staging directory and synced to disk, the
/// listing last, and is then moved into place atomically: there is never an incomplete release, whatever
/// crashes. Leftovers of earlier crashes are removed. Several threads and processes may unpack the same
/// archive at once.
///
/// Files get the archive's permissions, but at most 0755, or 0644 where it says none; directories get 0755.
/// The umask applies to all of them. The file that `command` names (with a slash, relative, inside) is made
/// executable for all who may read it, because archives from Windows do not say that. If the release is
/// there, others lose the permission to write to the package's files and the directories above them.
///
/// Links in the place of the directories of the installation are never followed. Those in the place of
/// `releases`, `staging` and the release itself are removed, as are pipes, sockets and devices. `root` must
/// not be a link.
///
/// # Blocking
/// For as long as the disk needs. `cancel` is called between entries and after each MiB; once it returns
/// true, unpacking ends with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
///
/// # Errors
/// None of them leaves anything of the archive behind.
/// - [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
/// - [`ErrorKind::Io`](crate::ErrorKind::Io), [`StorageFull`](crate::ErrorKind::StorageFull) or
///   [`ReadOnly`](crate::ErrorKind::ReadOnly): the system refused; the text names the path.
/// - [`ErrorKind::InvalidPackage`](crate::ErrorKind::InvalidPackage): the archive's headers are wrong, or two
///   names are one on this file system.
/// - [`ErrorKind::PackageTooLarge`](crate::ErrorKind::PackageTooLarge): over these limits, which may differ
///   from those that the archive was opened with.
pub fn unpack(
    archive: &Archive,
    root: &Path,
    command: &str,
    limits: &PackageLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<PathBuf> {
    Ok(unpack_once(archive, root, command, limits, cancel)?)
}

/// Unpacks as [`unpack`] does, for those who match the error.
///
/// # Errors
/// Those of [`unpack`].
pub(crate) fn unpack_once(
    archive: &Archive,
    root: &Path,
    command: &str,
    limits: &PackageLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<PathBuf, PackageError> {
    if let Some(release) = find_release(root, archive.sha256(), command, cancel)? {
        return Ok(release);
    }
    let home = create_installation_dir(root)?;
    let staging = stage(archive, &home, command, limits, cancel)?;
    publish(&staging, &home, archive)
}

/// Unpacks as [`unpack`] does, but replaces a release that is there, with everything that the plugin wrote
/// into it. The plugin must not be running.
///
/// The new release is synced to disk before the old one is moved away, and the old one is removed last. A
/// crash leaves one of them, or neither, but never an incomplete one.
///
/// # Blocking
/// As [`unpack`] does.
///
/// # Errors
/// Those of [`unpack`]. The old release stays, unless the system refuses to put the new one in its place.
pub(crate) fn unpack_afresh(
    archive: &Archive,
    root: &Path,
    command: &str,
    limits: &PackageLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<PathBuf, PackageError> {
    let home = create_installation_dir(root)?;
    Staging::sweep(&home);
    let staging = stage(archive, &home, command, limits, cancel)?;
    let aside = Staging::create(&home)?;
    let releases = home.ensure_subdir(RELEASES)?;
    aside.take(&releases, OsStr::new(archive.sha256()))?;
    // Dropped, and so removed, after the new one is in place.
    publish(&staging, &home, archive)
}

/// Unpacks an archive into a staging directory and syncs it to disk.
fn stage(
    archive: &Archive,
    home: &OpenDir,
    command: &str,
    limits: &PackageLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<Staging, PackageError> {
    let command = command_path(command);
    home.ensure_subdir(RELEASES)?;
    let staging = Staging::create(home)?;
    let files = ReleaseWriter {
        dir: staging.dir(),
        dirs: DirCache::new(staging.dir()),
        command: command.as_deref(),
        limits,
        cancel,
    }
    .write(archive)?;
    let listing = Listing {
        sha256: archive.sha256().to_owned(),
        files,
    };
    listing.write(staging.dir())?;
    staging.dir().sync_dir()?;
    poll(cancel)?;
    Ok(staging)
}

/// Finds the release of the archive with this SHA-256, if it has been unpacked below `root`, and prepares
/// it as [`unpack`] does: leftovers are removed, others may not write to the package's files, and `command`
/// is executable.
///
/// # Errors
/// [`PackageError::Io`]; [`PackageError::Cancelled`], checked every 1,000 files.
pub(crate) fn find_release(
    root: &Path,
    sha256: &str,
    command: &str,
    cancel: &dyn Fn() -> bool,
) -> Result<Option<PathBuf>, PackageError> {
    let Some(home) = find_installation_dir(root)? else {
        return Ok(None);
    };
    Staging::sweep(&home);
    let Some(releases) = home.find_subdir(RELEASES)? else {
        return Ok(None);
    };
    let Some((release, listing)) = complete(&releases, sha256)? else {
        return Ok(None);
    };
    let command = command_path(command);
    restrict(
        &[&home, &releases],
        &release,
        &listing,
        command.as_deref(),
        cancel,
    )?;
    Ok(Some(release_dir(root, sha256)))
}

/// Opens the release of this archive, if it is complete.
fn complete(releases: &OpenDir, sha256: &str) -> Result<Option<(OpenDir, Listing)>, PackageError> {
    let found = releases.find_usable(sha256);
    let Some(release) = found.map_err(releases.failed("open directory", sha256))? else {
        return Ok(None);
    };
    let listing = Listing::read(&release)?.filter(|listing| listing.sha256 == sha256);
    Ok(listing.map(|listing| (release, listing)))
}

/// Moves the staging directory to its place, unless another thread or process has put the same release there.
/// Returns that place.
fn publish(staging: &Staging, home: &OpenDir, archive: &Archive) -> Result<PathBuf, PackageError> {
    let sha256 = archive.sha256();
    let release = release_dir(home.path(), sha256);
    let releases = home.ensure_subdir(RELEASES)?;
    let failed = |error: io::Error| releases.failed("move into place", sha256)(error);
    for _ in 0..PUBLISH_ATTEMPTS {
        match staging.move_to(&releases, sha256) {
            Ok(()) => {
                let placed = releases.has(sha256, staging.dir());
                if !placed.map_err(releases.failed("look at", sha256))? {
                    Staging::create(home)?.take(&releases, OsStr::new(sha256))?;
                    return Err(failed(io::Error::other("it was replaced meanwhile")));
                }
                releases.sync_dir()?;
                home.sync_dir()?;
                return Ok(release);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty
                        | ErrorKind::AlreadyExists
                        | ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(failed(error)),
        }
        if complete(&releases, sha256)?.is_some() {
            return Ok(release);
        }
        // Moved, not removed in place: a release that is being removed would look like one.
        Staging::create(home)?.take(&releases, OsStr::new(sha256))?;
    }
    Err(failed(ErrorKind::AlreadyExists.into()))
}

/// Writes the content of an archive into a directory.
struct ReleaseWriter<'a> {
    dir: &'a OpenDir,
    dirs: DirCache<'a>,
    command: Option<&'a str>,
    limits: &'a PackageLimits,
    cancel: &'a dyn Fn() -> bool,
}

impl ReleaseWriter<'_> {
    fn write(&mut self, archive: &Archive) -> Result<Vec<ListedFile>, PackageError> {
        for dir in &archive.dirs {
            poll(self.cancel)?;
            let (parent, name) = self.parent(dir)?;
            parent
                .create_dir(name, PUBLIC)
                .map_err(parent.failed("create directory", name))
                .map_err(collision(dir))?;
        }
        let mut zip = archive.zip.clone();
        let mut total = 0;
        let mut files = Vec::new();
        for entry in archive.entries().iter().filter(|entry| !entry.is_dir()) {
            poll(self.cancel)?;
            // read_entry never returns more than this, whatever the headers say.
            self.limits
                .check_file(entry.path(), entry.size(), &mut total)?;
            self.file(entry, &mut zip)?;
            files.push(ListedFile {
                path: entry.path().to_owned(),
                size: entry.size(),
            });
        }
        for dir in &archive.dirs {
            poll(self.cancel)?;
            self.open(dir)?.sync_dir()?;
        }
        Ok(files)
    }

    fn file(&mut self, entry: &Entry, zip: &mut Zip) -> Result<(), PackageError> {
        let mode = if self.command == Some(entry.path()) {
            executable(entry.mode())
        } else {
            entry.mode()
        };
        let cancel = self.cancel;
        let (parent, name) = self.parent(entry.path())?;
        // It must be new, so that two names which only this file system treats as one are an error.
        let mut file = parent
            .create_file(name, mode)
            .map_err(parent.failed("create", name))
            .map_err(collision(entry.path()))?;
        let mut since_poll = 0;
        read_entry(zip, entry, |chunk| {
            file.write_all(chunk)
                .map_err(parent.failed("write", name))?;
            since_poll += chunk.len();
            if since_poll >= POLL_BYTES {
                since_poll = 0;
                poll(cancel)?;
            }
            Ok(())
        })?;
        file.sync_all().map_err(parent.failed("sync", name))
    }

    /// Returns the directory that something is in, and its name there.
    fn parent<'p>(&mut self, path: &'p str) -> Result<(&OpenDir, &'p str), PackageError> {
        match path.rsplit_once('/') {
            Some((above, name)) => Ok((self.open(above)?, name)),
            None => Ok((self.dir, path)),
        }
    }

    fn open(&mut self, path: &str) -> Result<&OpenDir, PackageError> {
        let opened = self.dirs.open(Path::new(path));
        opened.map_err(self.dir.failed("open directory", path))
    }
}

/// A staging directory contains only what the archive brought, so what exists already is a collision.
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

#[cfg(test)]
mod tests;
