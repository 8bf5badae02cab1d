//! `migrate_files`: at an update, copies the files that a plugin wrote beside its program into the release
//! that it will run from. `untracked` finds those files.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::archive::{POLL_BYTES, poll};
use super::layout::{failed, find_release_dir};
use super::limits::MigrationLimits;
use super::open_dir::{DirCache, OpenDir};
use super::permissions::MAX_MODE;
use super::untracked::{LeftFile, LeftReason, UntrackedFile, UntrackedKind, list_untracked};
use crate::error::PackageError;

/// How many of the files that are left behind are named.
const NAMED: usize = 100;

/// Checks whether the untracked files of a release are within the limits on what is migrated.
///
/// # Errors
/// Those of [`migrate_files`] that concern the old release.
pub(crate) fn check_untracked_files(
    release: &Path,
    limits: &MigrationLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<(), PackageError> {
    match find_release_dir(release)? {
        Some(release) => list_untracked(
            &release,
            limits,
            &mut MigratedFiles::default(),
            &mut |_| {},
            cancel,
        ),
        None => Ok(()),
    }
}

/// What was migrated at an update, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MigratedFiles {
    /// Number of files and links that were copied.
    pub(crate) files: usize,
    /// Bytes of these files.
    pub(crate) bytes: u64,
    /// What was left behind; the first 100.
    pub(crate) left: Vec<LeftFile>,
    /// How many were left behind in all.
    pub(crate) left_count: usize,
}

impl MigratedFiles {
    /// Records a file that is left behind.
    pub(super) fn leave(&mut self, path: &Path, reason: LeftReason) {
        self.left_count += 1;
        if self.left.len() < NAMED {
            let path = path.to_owned();
            self.left.push(LeftFile { path, reason });
        }
    }
}

/// Copies the untracked files of one release directory into another: whatever is in `from` that its listing
/// does not name. `to` is a fresh release that nothing runs from; `from` is not changed, so that going back
/// to it finds everything as it was.
///
/// - Regular files keep the time of their last change, and their permissions except for others to write and
///   the setuid, setgid and sticky bits. Where the file system can, they share their blocks.
/// - Directories keep their permissions in the same way; those that both packages bring are the new
///   package's. An empty directory that only the old package brought is migrated too.
/// - Symbolic links are copied as they are and never followed, in neither release.
/// - What the new package brings is kept, also where one has a file and the other a directory. That is
///   reported, as are sockets, pipes and devices, and what cannot be read.
///
/// `from` need not exist. If its listing is damaged, everything in it counts as untracked. All copies are
/// synced to disk when this returns. Nothing is copied if it exceeds the limits; after any other error a
/// part may have been copied, and `to` has to be unpacked afresh.
///
/// # Blocking
/// For as long as the disk needs. `cancel` is called for each file and after each MiB.
///
/// # Errors
/// - [`PackageError::MigrationTooLarge`], [`PackageError::MigrationPathsTooLarge`].
/// - [`PackageError::Cancelled`].
/// - [`PackageError::Io`]: the system refused, with the path; or something changed during the copy.
pub(crate) fn migrate_files(
    from: &Path,
    to: &Path,
    limits: &MigrationLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<MigratedFiles, PackageError> {
    let Some(from) = find_release_dir(from)? else {
        return Ok(MigratedFiles::default());
    };
    let mut report = MigratedFiles::default();
    let mut items = Vec::new();
    list_untracked(
        &from,
        limits,
        &mut report,
        &mut |item| items.push(item),
        cancel,
    )?;
    let missing = || failed("open directory", to)(io::ErrorKind::NotFound.into());
    let to = find_release_dir(to)?.ok_or_else(missing)?;
    let mut copier = Copier {
        to: &to,
        made: Vec::new(),
        touched: BTreeSet::new(),
        report,
        cancel,
    };
    copier.copy(&from, &items)?;
    copier.finish()?;
    Ok(copier.report)
}

struct Copier<'a> {
    to: &'a OpenDir,
    /// Directories that were created, each before what is in it, with the mode that they are to have.
    made: Vec<(&'a Path, u32)>,
    /// Directories that existed, and in which something was created.
    touched: BTreeSet<&'a Path>,
    report: MigratedFiles,
    cancel: &'a dyn Fn() -> bool,
}

impl<'a> Copier<'a> {
    fn copy(&mut self, from: &OpenDir, items: &'a [UntrackedFile]) -> Result<(), PackageError> {
        // The old package's directories are needed for what the plugin put into them.
        let mut needed = HashSet::new();
        for item in items.iter().filter(|item| item.untracked) {
            for above in item.path.ancestors() {
                if !needed.insert(above) {
                    break;
                }
            }
        }
        let (mut old, mut new) = (DirCache::new(from), DirCache::new(self.to));
        for item in items.iter().filter(|item| needed.contains(&*item.path)) {
            poll(self.cancel)?;
            let path = &*item.path;
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            let from = old
                .open(above)
                .map_err(from.failed("open directory", above))?;
            let done = match new.open(above) {
                // A file of the new package, or a directory that could not be created because of one.
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => false,
                Err(error) => return Err(self.to.failed("open directory", above)(error)),
                Ok(to) => match item.kind {
                    UntrackedKind::Dir { mode } => self.make_dir(to, name, path, mode)?,
                    UntrackedKind::Link => self.copy_link(from, to, name)?,
                    UntrackedKind::File { size } => self.copy_file(from, to, name, path, size)?,
                },
            };
            if done {
                self.touched.insert(above);
            } else if item.untracked {
                self.report.leave(path, LeftReason::InPackage);
            }
        }
        Ok(())
    }

    // Each returns whether it is there now; if not, the new package has something else there.

    fn make_dir(
        &mut self,
        to: &OpenDir,
        name: &OsStr,
        path: &'a Path,
        mode: u32,
    ) -> Result<bool, PackageError> {
        match rustix::fs::mkdirat(to, name, Mode::RWXU) {
            Ok(()) => {
                self.made.push((path, mode));
                Ok(true)
            }
            Err(Errno::EXIST) => {
                let kind = to.kind(name).map_err(to.failed("look at", name))?;
                Ok(kind == Some(FileType::Directory))
            }
            Err(error) => Err(to.failed("create directory", name)(error)),
        }
    }

    fn copy_link(
        &mut self,
        from: &OpenDir,
        to: &OpenDir,
        name: &OsStr,
    ) -> Result<bool, PackageError> {
        let target = rustix::fs::readlinkat(from, name, Vec::new())
            .map_err(from.failed("read link", name))?;
        match rustix::fs::symlinkat(&target, to, name) {
            Ok(()) => {
                self.report.files += 1;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(to.failed("create link", name)(error)),
        }
    }

    fn copy_file(
        &mut self,
        from: &OpenDir,
        to: &OpenDir,
        name: &OsStr,
        path: &Path,
        size: u64,
    ) -> Result<bool, PackageError> {
        let changed = || from.failed("migrate", name)(io::Error::other("it changed meanwhile"));
        let (source, metadata) = match from.open_file(name) {
            Ok(found) => found.ok_or_else(changed)?,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.report.leave(path, LeftReason::Unreadable);
                return Ok(true);
            }
            Err(error) => return Err(from.failed("open", name)(error)),
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = match rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(target) => File::from(target),
            Err(Errno::EXIST) => return Ok(false),
            Err(error) => return Err(to.failed("create", name)(error)),
        };
        let mut copied = 0;
        loop {
            let mut chunk = (&source).take(POLL_BYTES as u64);
            // Stays within the kernel, where it can.
            let count = io::copy(&mut chunk, &mut &target).map_err(to.failed("write", name))?;
            copied += count;
            if count == 0 || copied > size {
                break;
            }
            poll(self.cancel)?;
        }
        if copied != size {
            return Err(changed());
        }
        let mode = metadata.permissions().mode() & MAX_MODE;
        target
            .set_permissions(Permissions::from_mode(mode))
            .map_err(to.failed("set permissions of", name))?;
        metadata
            .modified()
            .and_then(|modified| target.set_modified(modified))
            .map_err(to.failed("set time of", name))?;
        target.sync_all().map_err(to.failed("sync", name))?;
        self.report.files += 1;
        self.report.bytes += copied;
        Ok(true)
    }

    /// Sets the permissions of the new directories, and syncs all directories to disk.
    fn finish(&mut self) -> Result<(), PackageError> {
        // A directory's content comes first: the directory may become unwritable.
        for (path, mode) in self.made.iter().rev() {
            self.finish_dir(path, Some(*mode))?;
            self.touched.remove(path);
        }
        for path in &self.touched {
            self.finish_dir(path, None)?;
        }
        Ok(())
    }

    fn finish_dir(&self, path: &Path, mode: Option<u32>) -> Result<(), PackageError> {
        poll(self.cancel)?;
        let opened = self.to.below(path);
        let dir = opened.map_err(self.to.failed("open directory", path))?;
        if let Some(mode) = mode {
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode & MAX_MODE))
                .map_err(self.to.failed("set permissions of", path))?;
        }
        dir.sync_dir()
    }
}

#[cfg(test)]
mod tests;
