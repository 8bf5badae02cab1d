//! Finding the files that a plugin wrote next to its program, without following any link.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::archive::poll;
use super::folder::{find_release_folder, io as failed};
use super::listing::Listing;
use super::path::MARKER;
use crate::error::PackageError;

/// Where counting ends for who only wants to know how much it is.
const MOST: usize = 1_000_000;
/// How many of those that are left behind are named.
const NAMED: usize = 100;
/// How deep folders are gone into.
const DEPTH: usize = 256;
/// What the names of folders may take that are not gone into yet.
const WAITING: usize = 16 * 1024 * 1024;

/// How much a plugin has written next to its program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnFiles {
    /// Number of files, links and folders. A folder counts if nothing of the package is in it.
    pub files: usize,
    /// Bytes of the files.
    pub bytes: u64,
}

/// One file that was not carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftFile {
    /// Its path below the release folder.
    pub path: PathBuf,
    /// Why.
    pub reason: LeftReason,
}

/// Why a file was not carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftReason {
    /// The new package has something with this path, or with that of a folder above.
    InPackage,
    /// It is a socket, a named pipe or a device.
    Special,
    /// Its permissions say that not even its owner may read it.
    Unreadable,
    /// It is a folder with 256 folders above it in the release.
    TooDeep,
}

/// How much the plugin has written next to its program: what is in the release folder and not in its
/// listing. Nothing if there is no such folder. Links are not followed. Counting ends at a million, and
/// where so many folders wait to be gone into that remembering their names takes more than 16 MiB. The
/// plugin may be running: what goes meanwhile is not counted.
///
/// Blocks for as long as the disk needs.
///
/// # Errors
/// [`PackageError::Io`]: the system refused, with the path.
pub fn own_files(release: &Path) -> Result<OwnFiles, PackageError> {
    let bounds = Bounds {
        files: MOST,
        bytes: u64::MAX,
        memory: usize::MAX,
    };
    let found = survey(release, &bounds, &mut |_| {}, &|| false)?;
    Ok(found.map(|found| found.own).unwrap_or_default())
}

/// Where going through a release ends.
pub(super) struct Bounds {
    /// Files, links and folders, and what is neither.
    pub(super) files: usize,
    /// Bytes of the files.
    pub(super) bytes: u64,
    /// Bytes that all items take.
    pub(super) memory: usize,
}

/// What is in a release folder besides the files of its package.
#[derive(Default)]
pub(super) struct Found {
    pub(super) own: OwnFiles,
    pub(super) left: Left,
    /// Why it is not all.
    pub(super) over: Option<Over>,
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Files, or bytes of them.
    Files,
    /// Bytes that the items take, or the folders that wait to be gone into.
    Memory(usize),
}

pub(super) struct Item {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    /// Not so for folders with files of the package.
    pub(super) own: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Folder { mode: u32 },
    File { size: u64 },
    Link,
}

/// What cannot be carried over: the first ones, and how many.
#[derive(Default)]
pub(super) struct Left {
    pub(super) list: Vec<LeftFile>,
    pub(super) count: usize,
}

impl Left {
    pub(super) fn add(&mut self, path: &Path, reason: LeftReason) {
        self.count += 1;
        if self.list.len() < NAMED {
            let path = path.to_owned();
            self.list.push(LeftFile { path, reason });
        }
    }
}

/// The paths of the files of a package, sorted.
struct Package<'a>(Vec<&'a [u8]>);

impl<'a> Package<'a> {
    fn new(listing: Option<&'a Listing>) -> Self {
        let listed = listing.into_iter().flat_map(Listing::files);
        let mut paths: Vec<&[u8]> = listed.map(|file| file.path.as_bytes()).collect();
        paths.sort_unstable();
        Self(paths)
    }

    fn has(&self, path: &Path) -> bool {
        let path = path.as_os_str().as_bytes();
        self.0.binary_search(&path).is_ok()
    }

    /// Whether something of it is in this folder.
    fn has_in(&self, folder: &Path) -> bool {
        let inside = [folder.as_os_str().as_bytes(), b"/"].concat();
        let first = self.0.partition_point(|path| *path < &*inside);
        self.0
            .get(first)
            .is_some_and(|path| path.starts_with(&inside))
    }
}

/// Goes through a release folder, and gives what is in it: folders before what is in them, and all that is
/// in one folder together. `None` if it is not there. Ends with the first thing that is over a bound.
///
/// Keeps nothing itself but the names of folders that it has not gone into yet, and of those a bounded
/// number: the plugin decides how many there are, and how deep.
///
/// # Errors
/// [`PackageError::Io`] and [`PackageError::Cancelled`].
pub(super) fn survey(
    release: &Path,
    bounds: &Bounds,
    give: &mut dyn FnMut(Item),
    cancel: &dyn Fn() -> bool,
) -> Result<Option<Found>, PackageError> {
    let Some(root) = find_release_folder(release)? else {
        return Ok(None);
    };
    let listing = Listing::read_in(&root)?;
    let package = Package::new(listing.as_ref());
    let mut found = Found::default();
    let mut memory = 0_usize;
    // Names, each with how many folders are above it: the last one with fewer is what it is in.
    let mut waiting: Vec<(usize, OsString)> = Vec::new();
    let mut waiting_memory = 0_usize;
    let mut folder = PathBuf::new();
    let mut depth = 0;
    loop {
        poll(cancel)?;
        let failed = |action, path: &Path, error| failed(action, &release.join(path))(error);
        match root.below(&folder) {
            // A plugin that runs takes its own away.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(Errno::ACCESS) => found.left.add(&folder, LeftReason::Unreadable),
            Err(error) => return Err(failed("open folder", &folder, error.into())),
            Ok(here) => {
                let listed = |error| failed("list", &folder, error);
                for entry in here.list().map_err(listed)? {
                    let entry = entry.map_err(|error| listed(error.into()))?;
                    let name = entry.file_name();
                    if name == c"." || name == c".." {
                        continue;
                    }
                    let path = folder.join(OsStr::from_bytes(name.to_bytes()));
                    let stat = match rustix::fs::statat(&here, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Err(Errno::NOENT) => continue,
                        other => other.map_err(|error| failed("look at", &path, error.into()))?,
                    };
                    let Some(kind) = kind(&stat, &path, &package) else {
                        continue;
                    };
                    let item = match kind {
                        Ok(Kind::Folder { .. }) if depth >= DEPTH => Err(LeftReason::TooDeep),
                        other => other,
                    };
                    match item {
                        Err(reason) => found.left.add(&path, reason),
                        Ok(kind) => {
                            let mut own = true;
                            if let Kind::Folder { .. } = kind {
                                own = !package.has_in(&path);
                                let name = OsStr::from_bytes(name.to_bytes()).to_owned();
                                waiting_memory += name.len() + size_of::<(usize, OsString)>();
                                waiting.push((depth, name));
                            }
                            found.own.files += usize::from(own);
                            if let Kind::File { size } = kind {
                                found.own.bytes = found.own.bytes.saturating_add(size);
                            }
                            memory += path.as_os_str().len() + size_of::<Item>();
                            give(Item { path, kind, own });
                        }
                    }
                    let files = found.own.files.saturating_add(found.left.count);
                    found.over = if files > bounds.files || found.own.bytes > bounds.bytes {
                        Some(Over::Files)
                    } else if memory > bounds.memory {
                        Some(Over::Memory(bounds.memory))
                    } else if waiting_memory > WAITING {
                        Some(Over::Memory(WAITING))
                    } else {
                        continue;
                    };
                    return Ok(Some(found));
                }
            }
        }
        let Some((above, name)) = waiting.pop() else {
            return Ok(Some(found));
        };
        waiting_memory -= name.len() + size_of::<(usize, OsString)>();
        for _ in above..depth {
            folder.pop();
        }
        folder.push(name);
        depth = above + 1;
    }
}

/// What something is to who carries it over, or why that is not to be; `None` if it is the package's.
fn kind(stat: &Stat, path: &Path, package: &Package<'_>) -> Option<Result<Kind, LeftReason>> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    // A file that the plugin has put in the place of the package's still has its name.
    if kind != FileType::Directory && (package.has(path) || path == Path::new(MARKER)) {
        return None;
    }
    Some(match kind {
        FileType::Directory => Ok(Kind::Folder { mode: stat.st_mode }),
        FileType::RegularFile => Ok(Kind::File {
            size: u64::try_from(stat.st_size).unwrap_or(u64::MAX),
        }),
        FileType::Symlink => Ok(Kind::Link),
        _ => Err(LeftReason::Special),
    })
}
