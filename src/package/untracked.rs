//! Finding the files that a plugin wrote beside its program, without following links.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::archive::poll;
use super::layout::failed;
use super::limits::MigrationLimits;
use super::listing::Listing;
use super::migration::MigratedFiles;
use super::open_dir::OpenDir;
use super::path::MARKER;
use crate::error::PackageError;

/// How many levels of directories are listed.
const DEPTH: usize = 256;
/// Bytes that the names of directories may take that have not been listed yet.
const WAITING: usize = 16 * 1024 * 1024;

/// One file that was not migrated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftFile {
    /// Its path below the release directory.
    pub(crate) path: PathBuf,
    pub(crate) reason: LeftReason,
}

/// Why a file was not migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeftReason {
    #[error("the new package has something else with this path, or with that of a directory above")]
    InPackage,
    #[error("it is a socket, a named pipe or a device")]
    Special,
    #[error("its permissions do not let its owner read it")]
    Unreadable,
    #[error("it is a directory with 256 directories above it")]
    TooDeep,
}

/// Something in a release directory that may have to be migrated.
pub(super) struct UntrackedFile {
    pub(super) path: PathBuf,
    pub(super) kind: UntrackedKind,
    /// False for directories with files of the package.
    pub(super) untracked: bool,
}

#[derive(Clone, Copy)]
pub(super) enum UntrackedKind {
    Dir { mode: u32 },
    File { size: u64 },
    Link,
}

/// The paths of the files of a package, sorted.
struct PackagePaths<'a>(Vec<&'a [u8]>);

impl<'a> PackagePaths<'a> {
    fn new(listing: Option<&'a Listing>) -> Self {
        let listed = listing.into_iter().flat_map(|listing| &listing.files);
        let mut paths: Vec<&[u8]> = listed.map(|file| file.path.as_bytes()).collect();
        paths.sort_unstable();
        Self(paths)
    }

    fn has(&self, path: &Path) -> bool {
        let path = path.as_os_str().as_bytes();
        self.0.binary_search(&path).is_ok()
    }

    /// Checks whether something of it is in this directory.
    fn has_in(&self, dir: &Path) -> bool {
        let inside = [dir.as_os_str().as_bytes(), b"/"].concat();
        let first = self.0.partition_point(|path| *path < &*inside);
        self.0
            .get(first)
            .is_some_and(|path| path.starts_with(&inside))
    }
}

/// Lists a release directory, except for the files of its package. Calls `found` for each thing that can be
/// migrated: for directories before what is in them, and for all that is in one directory in a row. What
/// cannot be migrated is recorded in `report`.
///
/// Keeps only the names of directories that it has not listed yet, and a bounded number of those: the plugin
/// decides how many there are, and how deep.
///
/// # Errors
/// - [`PackageError::MigrationTooLarge`], [`PackageError::MigrationPathsTooLarge`]: as soon as a limit is
///   exceeded.
/// - [`PackageError::Io`] and [`PackageError::Cancelled`].
pub(super) fn list_untracked(
    release: &OpenDir,
    limits: &MigrationLimits,
    report: &mut MigratedFiles,
    found: &mut dyn FnMut(UntrackedFile),
    cancel: &dyn Fn() -> bool,
) -> Result<(), PackageError> {
    let listing = Listing::read(release)?;
    let package = PackagePaths::new(listing.as_ref());
    let (mut files, mut bytes, mut memory) = (0_usize, 0_u64, 0_usize);
    // Names, each with how many directories are above it: the last one with fewer is its parent.
    let mut waiting: Vec<(usize, OsString)> = Vec::new();
    let mut waiting_memory = 0_usize;
    let mut dir = PathBuf::new();
    let mut depth = 0;
    loop {
        poll(cancel)?;
        match release.below(&dir) {
            // A plugin that runs may remove it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(Errno::ACCESS) => report.leave(&dir, LeftReason::Unreadable),
            Err(error) => return Err(release.failed("open directory", &dir)(error)),
            Ok(here) => {
                for entry in here.list().map_err(failed("list", here.path()))? {
                    let entry = entry.map_err(failed("list", here.path()))?;
                    let name = OsStr::from_bytes(entry.file_name().to_bytes());
                    let path = dir.join(name);
                    let stat = match rustix::fs::statat(&here, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Err(Errno::NOENT) => continue,
                        other => other.map_err(here.failed("look at", name))?,
                    };
                    match kind(&stat, &path, &package) {
                        None => continue,
                        Some(Err(reason)) => report.leave(&path, reason),
                        Some(Ok(UntrackedKind::Dir { .. })) if depth >= DEPTH => {
                            report.leave(&path, LeftReason::TooDeep);
                        }
                        Some(Ok(kind)) => {
                            let mut untracked = true;
                            if let UntrackedKind::Dir { .. } = kind {
                                untracked = !package.has_in(&path);
                                waiting_memory += name.len() + size_of::<(usize, OsString)>();
                                waiting.push((depth, name.to_owned()));
                            } else if let UntrackedKind::File { size } = kind {
                                bytes = bytes.saturating_add(size);
                            }
                            files += usize::from(untracked);
                            memory += path.as_os_str().len() + size_of::<UntrackedFile>();
                            found(UntrackedFile {
                                path,
                                kind,
                                untracked,
                            });
                        }
                    }
                    let files = files.saturating_add(report.left_count);
                    if files > limits.files || bytes > limits.bytes {
                        return Err(PackageError::MigrationTooLarge {
                            dir: release.path().to_owned(),
                            files,
                            bytes,
                            file_limit: limits.files,
                            byte_limit: limits.bytes,
                        });
                    }
                    for (memory, limit) in [(memory, limits.memory()), (waiting_memory, WAITING)] {
                        if memory > limit {
                            return Err(PackageError::MigrationPathsTooLarge {
                                dir: release.path().to_owned(),
                                limit: limit as u64,
                            });
                        }
                    }
                }
            }
        }
        let Some((above, name)) = waiting.pop() else {
            return Ok(());
        };
        waiting_memory -= name.len() + size_of::<(usize, OsString)>();
        for _ in above..depth {
            dir.pop();
        }
        dir.push(name);
        depth = above + 1;
    }
}

/// Returns how something is migrated, or why it is not; `None` if it is the package's.
fn kind(
    stat: &Stat,
    path: &Path,
    package: &PackagePaths<'_>,
) -> Option<Result<UntrackedKind, LeftReason>> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    // A file that the plugin has put in the place of the package's still has its name.
    if kind != FileType::Directory && (package.has(path) || path == Path::new(MARKER)) {
        return None;
    }
    Some(match kind {
        FileType::Directory => Ok(UntrackedKind::Dir { mode: stat.st_mode }),
        FileType::RegularFile => Ok(UntrackedKind::File {
            size: u64::try_from(stat.st_size).unwrap_or(u64::MAX),
        }),
        FileType::Symlink => Ok(UntrackedKind::Link),
        _ => Err(LeftReason::Special),
    })
}
