//! Finding the files that a plugin wrote next to its program, without following any link.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::archive::poll;
use super::folder::io as failed;
use super::listing::Listing;
use super::path::MARKER;
use crate::error::PackageError;

/// Where counting ends for who only wants to know how much it is.
const MOST: usize = 1_000_000;
/// How many of those that are left behind are named.
const NAMED: usize = 100;
/// How deep folders are gone into.
const DEPTH: usize = 256;

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
/// listing. Nothing if there is no such folder. Links are not followed. Counting ends at a million. The
/// plugin may be running: what goes meanwhile is not counted.
///
/// Blocks for as long as the disk needs.
///
/// # Errors
/// [`PackageError::Io`]: the system refused, with the path.
pub fn own_files(release: &Path) -> Result<OwnFiles, PackageError> {
    let found = survey(release, MOST, &|| false)?;
    Ok(found.map(|found| found.own).unwrap_or_default())
}

/// What is in a release folder besides the files of its package.
#[derive(Default)]
pub(super) struct Found {
    pub(super) own: OwnFiles,
    /// Folders before what is in them, and all that is in one folder together.
    pub(super) items: Vec<Item>,
    pub(super) left: Left,
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

/// Goes through a release folder; `None` if it is not there. Ends with the first file over so many.
///
/// # Errors
/// [`PackageError::Io`] and [`PackageError::Cancelled`].
pub(super) fn survey(
    release: &Path,
    most: usize,
    cancel: &dyn Fn() -> bool,
) -> Result<Option<Found>, PackageError> {
    let root = match open_folder(release) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed("open folder", release)(error.into())),
    };
    let listing = Listing::read(release)?;
    let listed = listing.iter().flat_map(Listing::files);
    let package: HashSet<&Path> = listed.map(|file| Path::new(&file.path)).collect();
    let mut package_folders = HashSet::new();
    for file in &package {
        for above in file.ancestors().skip(1) {
            if !package_folders.insert(above) {
                break;
            }
        }
    }

    let mut found = Found::default();
    let mut waiting = vec![PathBuf::new()];
    while let Some(folder) = waiting.pop() {
        poll(cancel)?;
        let here = match open_below(&root, &folder) {
            // A plugin that runs takes its own away.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(Errno::ACCESS) => {
                found.left.add(&folder, LeftReason::Unreadable);
                continue;
            }
            other => other
                .map_err(|error| failed("open folder", &release.join(&folder))(error.into()))?,
        };
        let listed = |error: Errno| failed("list", &release.join(&folder))(error.into());
        for entry in Dir::read_from(&here).map_err(listed)? {
            let entry = entry.map_err(listed)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let path = folder.join(OsStr::from_bytes(name.to_bytes()));
            let stat = match rustix::fs::statat(&here, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => {
                    other.map_err(|error| failed("look at", &release.join(&path))(error.into()))?
                }
            };
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Kind::Folder { mode: stat.st_mode },
                // A file that the plugin has put in the place of the package's still has its name.
                _ if package.contains(&*path) || path == Path::new(MARKER) => continue,
                FileType::RegularFile => Kind::File {
                    size: u64::try_from(stat.st_size).unwrap_or(u64::MAX),
                },
                FileType::Symlink => Kind::Link,
                _ => {
                    found.left.add(&path, LeftReason::Special);
                    continue;
                }
            };
            let mut own = true;
            if let Kind::Folder { .. } = kind {
                if path.components().count() > DEPTH {
                    found.left.add(&path, LeftReason::TooDeep);
                    continue;
                }
                own = !package_folders.contains(&*path);
                waiting.push(path.clone());
            }
            if own {
                found.own.files += 1;
            }
            if let Kind::File { size } = kind {
                found.own.bytes = found.own.bytes.saturating_add(size);
            }
            found.items.push(Item { path, kind, own });
            if found.own.files > most {
                return Ok(Some(found));
            }
        }
    }
    Ok(Some(found))
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a folder that is no link itself.
pub(super) fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, FOLDER, Mode::empty())
}

/// Opens a folder below another one, part by part, through no link.
pub(super) fn open_below(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let mut here = rustix::fs::openat(root, c".", FOLDER, Mode::empty())?;
    for part in path.components() {
        let Component::Normal(name) = part else {
            return Err(Errno::INVAL);
        };
        here = rustix::fs::openat(&here, name, FOLDER, Mode::empty())?;
    }
    Ok(here)
}
