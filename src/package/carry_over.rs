//! `carry_over`: at an update, copies the files that a plugin wrote next to its program into the release
//! that it will run from. Which ones those are is found out in `own_files`.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::archive::{POLL_BYTES, poll};
use super::folder::{find_release_folder, io as failed};
use super::open_dir::OpenDir;
use super::own_files::{Bounds, Found, Item, Kind, Left, LeftFile, LeftReason, Over, survey};
use super::permissions::MOST;
use crate::error::PackageError;
use crate::settings::settings;

const MIB: u64 = 1024 * 1024;

/// What the paths of what is carried over may take in memory, for each thing that may be, and at least
/// for so many.
const MEMORY_PER_FILE: usize = 1_024;
const MEMORY_FOR_FILES: usize = 1_024;

settings! {
    /// Bounds on what is carried over at an update. Over them the update fails.
    pub struct CarryOverLimits {
        /// Bytes of all files together. Default 256 MiB.
        bytes, with_bytes: u64 = 256 * MIB;
        /// Number of files, links and folders, and of sockets and the like. Default 10,000.
        ///
        /// For each of them, their paths may take 1 KiB of memory: 10 MiB by default, and never less than
        /// 1 MiB. The names of folders that are not gone into yet may take 16 MiB.
        files, with_files: usize = 10_000;
    }
}

impl CarryOverLimits {
    fn bounds(&self) -> Bounds {
        Bounds {
            files: self.files,
            bytes: self.bytes,
            memory: self
                .files
                .max(MEMORY_FOR_FILES)
                .saturating_mul(MEMORY_PER_FILE),
        }
    }

    /// Whether all of this, found in a release folder, may be carried over.
    fn check(&self, folder: &Path, found: &Found) -> Result<(), PackageError> {
        let folder = folder.to_owned();
        match found.over {
            None => Ok(()),
            Some(Over::Files) => Err(PackageError::CarryOverTooLarge {
                folder,
                files: found.own.files.saturating_add(found.left.count),
                bytes: found.own.bytes,
                file_limit: self.files,
                byte_limit: self.bytes,
            }),
            Some(Over::Memory(limit)) => {
                let limit = limit as u64;
                Err(PackageError::CarryOverPathsTooLarge { folder, limit })
            }
        }
    }
}

/// Whether the plugin's own files are within the limits on what is carried over. Nothing of them is kept.
///
/// # Errors
/// Those of [`carry_over`] that concern the old release.
pub(crate) fn check_own_files(
    release: &Path,
    limits: &CarryOverLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<(), PackageError> {
    match survey(release, &limits.bounds(), &mut |_| {}, cancel)? {
        Some(found) => limits.check(release, &found),
        None => Ok(()),
    }
}

/// What was carried over, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CarryOver {
    /// Number of files and links that were copied.
    pub files: usize,
    /// Bytes of these files.
    pub bytes: u64,
    /// What was left behind, the first 100 of it.
    pub left: Vec<LeftFile>,
    /// How much was left behind in all.
    pub left_count: usize,
}

/// Copies the plugin's own files from one release folder into another: whatever is in `from` that its
/// listing does not name. `to` is a fresh release that nothing runs from; `from` stays as it is, so that
/// going back to it finds everything as it was.
///
/// - Regular files keep their permissions, but that of others to write and setuid, setgid and sticky bits,
///   and the time of their last change. Where the file system can, they share their blocks.
/// - Folders keep their permissions in the same way; those that both packages bring are the new
///   package's. An empty folder that only the old package brought is carried over too.
/// - Symbolic links are copied as they are and never followed, in neither release.
/// - What the new package brings itself stays the new package's, also where one has a file and the other
///   a folder. That is reported, as are sockets, pipes and devices, and what cannot be read.
///
/// That `from` is not there is fine. If its listing is damaged, everything in it counts as the plugin's.
/// All of it is on the disk when this returns. Nothing is copied if it is over the limits; after any
/// other error a part may be, and `to` has to be unpacked afresh.
///
/// Blocks for as long as the disk needs. `cancel` is asked for each file and after each MiB.
///
/// # Errors
/// - [`PackageError::CarryOverTooLarge`], [`PackageError::CarryOverPathsTooLarge`].
/// - [`PackageError::Cancelled`].
/// - [`PackageError::Io`]: the system refused, with the path; or something changed meanwhile.
pub fn carry_over(
    from: &Path,
    to: &Path,
    limits: &CarryOverLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<CarryOver, PackageError> {
    let mut items = Vec::new();
    let found = survey(from, &limits.bounds(), &mut |item| items.push(item), cancel)?;
    let Some(found) = found else {
        return Ok(CarryOver::default());
    };
    limits.check(from, &found)?;
    let mut copier = Copier {
        from: Tree::open(from)?,
        to: Tree::open(to)?,
        made: Vec::new(),
        touched: BTreeSet::new(),
        parent: None,
        report: CarryOver::default(),
        left: found.left,
        cancel,
    };
    copier.copy(&items)?;
    copier.finish()?;
    let Left { list, count } = copier.left;
    Ok(CarryOver {
        left: list,
        left_count: count,
        ..copier.report
    })
}

/// A release folder that is open.
struct Tree<'a> {
    path: &'a Path,
    folder: OpenDir,
}

impl<'a> Tree<'a> {
    fn open(path: &'a Path) -> Result<Self, PackageError> {
        match find_release_folder(path)? {
            Some(folder) => Ok(Self { path, folder }),
            None => Err(failed("open folder", path)(io::ErrorKind::NotFound.into())),
        }
    }

    /// An error about a path in it, for `map_err`.
    fn failed<E: Into<io::Error>>(
        &self,
        action: &'static str,
        path: &Path,
    ) -> impl Fn(E) -> PackageError {
        let path = self.path.join(path);
        move |error| failed(action, &path)(error.into())
    }
}

struct Copier<'a> {
    from: Tree<'a>,
    to: Tree<'a>,
    /// Folders that were made, each before what is in it, with the mode that they are to have.
    made: Vec<(&'a Path, u32)>,
    /// Folders that were there, and in which something was made.
    touched: BTreeSet<&'a Path>,
    /// The folder that was worked in last: many files are in the same one.
    parent: Option<Parent<'a>>,
    report: CarryOver,
    left: Left,
    cancel: &'a dyn Fn() -> bool,
}

/// A folder, open in both releases.
struct Parent<'a> {
    path: &'a Path,
    from: OpenDir,
    /// `None` where the new package has something else.
    to: Option<OpenDir>,
}

impl<'a> Copier<'a> {
    fn copy(&mut self, items: &'a [Item]) -> Result<(), PackageError> {
        // The old package's folders are needed for what the plugin put into them.
        let mut needed = HashSet::new();
        for item in items.iter().filter(|item| item.own) {
            for above in item.path.ancestors() {
                if !needed.insert(above) {
                    break;
                }
            }
        }
        for item in items.iter().filter(|item| needed.contains(&*item.path)) {
            poll(self.cancel)?;
            let Some(name) = item.path.file_name() else {
                continue;
            };
            let parent = self.parent(item.path.parent().unwrap_or(Path::new("")))?;
            let done = match &parent.to {
                None => false,
                Some(to) => match item.kind {
                    Kind::Folder { mode } => self.folder(to, name, &item.path, mode)?,
                    Kind::Link => self.link(&parent.from, to, name, &item.path)?,
                    Kind::File { size } => self.file(&parent.from, to, name, item, size)?,
                },
            };
            if done {
                self.touched.insert(parent.path);
            } else if item.own {
                self.left.add(&item.path, LeftReason::InPackage);
            }
            self.parent = Some(parent);
        }
        Ok(())
    }

    /// The folder with this path, open in both releases.
    fn parent(&mut self, path: &'a Path) -> Result<Parent<'a>, PackageError> {
        if let Some(parent) = self.parent.take()
            && parent.path == path
        {
            return Ok(parent);
        }
        let from = self.from.folder.below(path);
        let to = match self.to.folder.below(path) {
            // A file of the new package, or one that could not be made for such a one.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => None,
            other => Some(other.map_err(self.to.failed("open folder", path))?),
        };
        Ok(Parent {
            path,
            from: from.map_err(self.from.failed("open folder", path))?,
            to,
        })
    }

    // Each gives whether it is there now; if not, the new package has something else there.

    fn folder(
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
                let stat = rustix::fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(self.to.failed("look at", path))?;
                Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            }
            Err(error) => Err(self.to.failed("make folder", path)(error)),
        }
    }

    fn link(
        &mut self,
        from: &OpenDir,
        to: &OpenDir,
        name: &OsStr,
        path: &Path,
    ) -> Result<bool, PackageError> {
        let target = rustix::fs::readlinkat(from, name, Vec::new())
            .map_err(self.from.failed("read link", path))?;
        match rustix::fs::symlinkat(&target, to, name) {
            Ok(()) => {
                self.report.files += 1;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(self.to.failed("make link", path)(error)),
        }
    }

    fn file(
        &mut self,
        from: &OpenDir,
        to: &OpenDir,
        name: &OsStr,
        item: &Item,
        size: u64,
    ) -> Result<bool, PackageError> {
        let path = &*item.path;
        // What stands there now might be a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = match rustix::fs::openat(from, name, flags, Mode::empty()) {
            Ok(source) => File::from(source),
            Err(Errno::ACCESS) => {
                self.left.add(path, LeftReason::Unreadable);
                return Ok(true);
            }
            Err(error) => return Err(self.from.failed("open", path)(error)),
        };
        let metadata = source
            .metadata()
            .map_err(self.from.failed("look at", path))?;
        let changed = || {
            let error = io::Error::other("it changed meanwhile");
            self.from.failed("carry over", path)(error)
        };
        if !metadata.is_file() {
            return Err(changed());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = match rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(target) => File::from(target),
            Err(Errno::EXIST) => return Ok(false),
            Err(error) => return Err(self.to.failed("make", path)(error)),
        };
        let mut copied = 0;
        loop {
            let mut chunk = (&source).take(POLL_BYTES as u64);
            // Within the system, where it can.
            let count =
                io::copy(&mut chunk, &mut &target).map_err(self.to.failed("write", path))?;
            copied += count;
            if copied > size {
                return Err(changed());
            }
            if count == 0 {
                break;
            }
            poll(self.cancel)?;
        }
        if copied < size {
            return Err(changed());
        }
        let mode = metadata.permissions().mode() & MOST;
        target
            .set_permissions(Permissions::from_mode(mode))
            .map_err(self.to.failed("set permissions of", path))?;
        metadata
            .modified()
            .and_then(|modified| target.set_modified(modified))
            .map_err(self.to.failed("set time of", path))?;
        target.sync_all().map_err(self.to.failed("sync", path))?;
        self.report.files += 1;
        self.report.bytes += copied;
        Ok(true)
    }

    /// Gives the new folders their permissions, and brings all folders to the disk.
    fn finish(&mut self) -> Result<(), PackageError> {
        let made = std::mem::take(&mut self.made);
        // What is in a folder before it may become unwritable.
        for (path, mode) in made.iter().rev() {
            self.finish_folder(path, Some(*mode))?;
        }
        for (path, _) in &made {
            self.touched.remove(path);
        }
        for path in std::mem::take(&mut self.touched) {
            self.finish_folder(path, None)?;
        }
        Ok(())
    }

    fn finish_folder(&self, path: &Path, mode: Option<u32>) -> Result<(), PackageError> {
        poll(self.cancel)?;
        let folder = self
            .to
            .folder
            .below(path)
            .map_err(self.to.failed("open folder", path))?;
        if let Some(mode) = mode {
            rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode & MOST))
                .map_err(self.to.failed("set permissions of", path))?;
        }
        folder.sync().map_err(self.to.failed("sync folder", path))
    }
}

#[cfg(test)]
mod tests;
