//! `OpenDir`: an open directory, through which what is in it is reached: a link that is put in the place of
//! a directory above it then leads nowhere else. What is in it is opened without following links and
//! without waiting, and is checked after that.

use std::ffi::{CStr, OsStr};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, DirEntry, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::removal;
use crate::deadline::Deadline;
use crate::error::PackageError;

pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// What is opened may be a pipe, a terminal, or any other device.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
/// The mode of directories that others may read.
pub(crate) const PUBLIC: u32 = 0o755;
/// The mode of directories that only the host may use.
pub(crate) const PRIVATE: u32 = 0o700;
/// How often creating a directory is tried if another process keeps removing it.
const ATTEMPTS: usize = 100;

/// An open directory.
#[derive(Debug)]
pub(crate) struct OpenDir {
    descriptor: OwnedFd,
    /// Where it was when it was opened, for messages.
    path: PathBuf,
}

impl AsFd for OpenDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl OpenDir {
    /// Opens a directory that the embedder has chosen: it may be a link, and have links above it.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn follow(path: &Path) -> io::Result<Self> {
        // The parent of a relative path may be empty.
        let shown = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        Ok(Self {
            descriptor: rustix::fs::openat(CWD, shown, flags, Mode::empty())?,
            path: path.to_owned(),
        })
    }

    /// Opens the directory at a path, unless that is a link; `None` if there is no directory. Lets its
    /// owner list and change it.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn find(path: &Path) -> io::Result<Option<Self>> {
        Self::found(removal::open_usable(CWD, path), path.to_owned())
    }

    /// Opens a directory as [`find`](Self::find) does, but does not change its permissions: for reading only.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn find_as_is(path: &Path) -> io::Result<Option<Self>> {
        let opened = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty());
        Self::found(opened, path.to_owned())
    }

    /// Opens a directory in this one, if it exists, without changing its permissions.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn find_in(&self, name: impl AsRef<Path>) -> io::Result<Option<Self>> {
        let name = name.as_ref();
        let opened = rustix::fs::openat(self, name, DIRECTORY, Mode::empty());
        Self::found(opened, self.path.join(name))
    }

    /// Opens a directory as [`find_in`](Self::find_in) does, and lets its owner list and change it.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn find_usable(&self, name: impl AsRef<Path>) -> io::Result<Option<Self>> {
        let name = name.as_ref();
        Self::found(removal::open_usable(self, name), self.path.join(name))
    }

    /// Opens a directory of the host's in this one, if it exists. A link, a pipe, a socket or a device in its
    /// place is removed. Otherwise works as [`find_usable`](Self::find_usable).
    ///
    /// # Errors
    /// The error of the system; [`ErrorKind::NotADirectory`] if there is a file.
    pub(crate) fn find_dir(&self, name: impl AsRef<Path>) -> io::Result<Option<Self>> {
        let name = name.as_ref();
        if let Some(found) = self.find_usable(name)? {
            return Ok(Some(found));
        }
        match self.kind(name)? {
            None | Some(FileType::Directory) => Ok(None),
            Some(FileType::RegularFile) => Err(ErrorKind::NotADirectory.into()),
            Some(kind) => {
                log::warn!(
                    "removing {}: {kind:?} in the place of a directory",
                    self.at(name).display()
                );
                removal::unlink(self, name)?;
                Ok(None)
            }
        }
    }

    /// Opens a directory as [`find_dir`](Self::find_dir) does, and creates it if it is missing.
    ///
    /// # Errors
    /// Those of [`find_dir`](Self::find_dir).
    pub(crate) fn ensure_dir(&self, name: impl AsRef<Path>, mode: u32) -> io::Result<Self> {
        let name = name.as_ref();
        for _ in 0..ATTEMPTS {
            if let Some(found) = self.find_dir(name)? {
                return Ok(found);
            }
            match self.create_dir(name, mode) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Opens a directory anywhere below this one, without following links.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn below(&self, path: &Path) -> Result<Self, Errno> {
        let mut here = rustix::fs::openat(self, c".", DIRECTORY, Mode::empty())?;
        for part in path.components() {
            let Component::Normal(name) = part else {
                return Err(Errno::INVAL);
            };
            here = rustix::fs::openat(&here, name, DIRECTORY, Mode::empty())?;
        }
        Ok(Self {
            descriptor: here,
            path: self.path.join(path),
        })
    }

    /// Creates a directory in this one, where nothing may exist. The umask applies.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn create_dir(&self, name: impl Arg, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(self, name, Mode::from_raw_mode(mode))?)
    }

    /// Creates a file in this directory, where nothing may exist, and opens it for reading and writing. The
    /// umask applies.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn create_file(&self, name: impl Arg, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self, name, flags, Mode::from_raw_mode(mode))?;
        Ok(file.into())
    }

    /// Opens what has this name for appending and reading, without following links or waiting, and creates a
    /// file if nothing has it. The umask applies. What it opens need not be a file.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn append_to(&self, name: impl Arg, mode: u32) -> io::Result<File> {
        let flags = FILE | OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
        let file = rustix::fs::openat(self, name, flags, Mode::from_raw_mode(mode))?;
        Ok(file.into())
    }

    /// Opens a file in this directory for reading; `None` if no regular file has this name.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn open_file(&self, name: impl Arg) -> io::Result<Option<(File, Metadata)>> {
        let file = match rustix::fs::openat(self, name, FILE, Mode::empty()) {
            Ok(file) => File::from(file),
            // Links, sockets, and devices without a driver.
            Err(Errno::NOENT | Errno::LOOP | Errno::MLINK | Errno::NXIO | Errno::NODEV) => {
                return Ok(None);
            }
            // What some systems return for sockets.
            Err(Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        Ok(metadata.is_file().then_some((file, metadata)))
    }

    /// Returns the type of what has this name, if anything has. Links are not followed.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn kind(&self, name: impl Arg) -> io::Result<Option<FileType>> {
        match rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks whether this name leads to that open file or directory.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn has(&self, name: impl Arg, open: impl AsFd) -> io::Result<bool> {
        let open = rustix::fs::fstat(open)?;
        match rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (open.st_dev, open.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames something in this directory atomically, also into another directory.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn rename(&self, name: impl Arg, to: &Self, new: impl Arg) -> io::Result<()> {
        Ok(rustix::fs::renameat(self, name, to, new)?)
    }

    /// Removes what has this name, unless it is a directory. Succeeds if nothing has it.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn unlink(&self, name: impl Arg) -> io::Result<()> {
        removal::unlink(self, name)
    }

    /// Removes what has this name, a directory with its content. Succeeds if nothing has it.
    ///
    /// # Errors
    /// The error of the system; [`ErrorKind::TimedOut`] if that takes more than two minutes.
    pub(crate) fn remove(&self, name: impl AsRef<Path>) -> io::Result<()> {
        removal::remove(self, name.as_ref())
    }

    /// Removes as [`remove`](Self::remove) does, until a deadline.
    ///
    /// # Errors
    /// The error of the system; [`ErrorKind::TimedOut`].
    pub(crate) fn remove_until(
        &self,
        name: impl AsRef<Path>,
        deadline: Deadline,
    ) -> io::Result<()> {
        removal::remove_until(self, name.as_ref(), deadline)
    }

    /// Syncs the directory, so that changes in it survive a power failure.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self)?)
    }

    /// Returns its entries in no order, except for itself and its parent. Those that are added or removed
    /// meanwhile may be missing.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn list(&self) -> io::Result<impl Iterator<Item = io::Result<DirEntry>> + use<>> {
        list(self.as_fd())
    }

    /// Returns the path of something in it, for messages.
    pub(crate) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Converts an error about something in it, for `map_err`.
    pub(super) fn failed<'a, E: Into<io::Error>>(
        &'a self,
        action: &'static str,
        name: impl AsRef<Path> + 'a,
    ) -> impl FnOnce(E) -> PackageError + 'a {
        move |source| PackageError::Io {
            action,
            path: self.path.join(name),
            source: source.into(),
        }
    }

    fn found(opened: Result<OwnedFd, Errno>, path: PathBuf) -> io::Result<Option<Self>> {
        match opened {
            Ok(descriptor) => Ok(Some(Self { descriptor, path })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens directories below another one, and keeps the last of them open: many files are in the same one.
pub(super) struct DirCache<'a> {
    top: &'a OpenDir,
    last: Option<(PathBuf, OpenDir)>,
}

impl<'a> DirCache<'a> {
    pub(super) const fn new(top: &'a OpenDir) -> Self {
        Self { top, last: None }
    }

    /// Opens a directory without following links: the plugin may be running, and create some.
    ///
    /// # Errors
    /// The error of the system.
    pub(super) fn open(&mut self, path: &Path) -> Result<&OpenDir, Errno> {
        let opened = match self.last.take() {
            Some((last, dir)) if last.as_os_str() == path.as_os_str() => (last, dir),
            last => {
                // Relative to the last one if that is above, so that a deep path is not walked again and
                // again.
                let near = last.as_ref().and_then(|(above, dir)| {
                    let path = path.as_os_str().as_bytes();
                    let rest = path.strip_prefix(above.as_os_str().as_bytes())?;
                    Some((dir, Path::new(OsStr::from_bytes(rest.strip_prefix(b"/")?))))
                });
                let (from, rest) = near.unwrap_or((self.top, path));
                (path.to_owned(), from.below(rest)?)
            }
        };
        Ok(&self.last.insert(opened).1)
    }
}

/// Lists an open directory, as [`OpenDir::list`] does.
///
/// # Errors
/// The error of the system.
pub(super) fn list(
    dir: BorrowedFd<'_>,
) -> io::Result<impl Iterator<Item = io::Result<DirEntry>> + use<>> {
    let entries = Dir::read_from(dir)?.map(|entry| Ok(entry?));
    Ok(entries.filter(|entry: &io::Result<DirEntry>| {
        let name = entry.as_ref().map(DirEntry::file_name);
        !matches!(name.map(CStr::to_bytes), Ok(b"." | b".."))
    }))
}

/// Creates a directory and its parents where they are missing, and opens it. It must not be a link itself.
/// The umask applies.
///
/// # Errors
/// The error of the system.
pub(crate) fn open_or_create_dir(path: &Path, mode: u32) -> io::Result<OpenDir> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)?;
    OpenDir::find(path)?.ok_or_else(|| ErrorKind::NotADirectory.into())
}

/// Opens a file for reading. Does not wait for a writer if it is a named pipe.
///
/// # Errors
/// The error of the system; also one if it is not a regular file.
pub(crate) fn open_file(path: &Path) -> io::Result<(File, Metadata)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// Changes the permissions of a file or of a directory, whichever `kind` says, without following links.
///
/// # Errors
/// The error of the system.
pub(super) fn change_mode(
    above: impl AsFd,
    name: impl Arg + Copy,
    kind: FileType,
    change: impl Fn(Mode) -> Mode,
) -> Result<(), Errno> {
    // Checked before and after opening, because it may be replaced in between.
    let wanted = |raw: rustix::fs::RawMode| {
        let mode = Mode::from_raw_mode(raw);
        let new = change(mode);
        (FileType::from_raw_mode(raw) == kind && new != mode).then_some(new)
    };
    let stat = rustix::fs::statat(above.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
    if wanted(stat.st_mode).is_none() {
        return Ok(());
    }
    let flags = if kind == FileType::Directory {
        DIRECTORY
    } else {
        FILE
    };
    match rustix::fs::openat(above.as_fd(), name, flags, Mode::empty()) {
        Ok(open) => match wanted(rustix::fs::fstat(&open)?.st_mode) {
            Some(new) => rustix::fs::fchmod(open, new),
            None => Ok(()),
        },
        Err(Errno::ACCESS) => change_unreadable(above.as_fd(), name, wanted),
        Err(error) => Err(error),
    }
}

/// Changes the permissions of what its owner may not open.
#[cfg(target_os = "linux")]
fn change_unreadable(
    above: BorrowedFd<'_>,
    name: impl Arg,
    wanted: impl Fn(rustix::fs::RawMode) -> Option<Mode>,
) -> Result<(), Errno> {
    use std::os::fd::AsRawFd as _;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = rustix::fs::openat(above, name, flags, Mode::empty())?;
    match wanted(rustix::fs::fstat(&open)?.st_mode) {
        // The system changes a mode through such a descriptor in no other way.
        Some(new) => rustix::fs::chmod(format!("/proc/self/fd/{}", open.as_raw_fd()), new),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn change_unreadable(
    above: BorrowedFd<'_>,
    name: impl Arg + Copy,
    wanted: impl Fn(rustix::fs::RawMode) -> Option<Mode>,
) -> Result<(), Errno> {
    let stat = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match wanted(stat.st_mode) {
        Some(new) => rustix::fs::chmodat(above, name, new, AtFlags::SYMLINK_NOFOLLOW),
        None => Ok(()),
    }
}
