//! `Durability`: how what is unpacked gets to the disk before it is moved into place.
//!
//! Only the move needs the disk to have everything, so it does not matter in which order, or when, the
//! files get there before it.

use std::fs::File;
use std::path::Path;

use super::folder::{io, sync};
use crate::error::PackageError;

/// With more than so many files and folders the whole file system is synced once. Each file by itself costs a
/// commit of the file system's journal; the whole may have to wait for what others have written, which
/// for a few files is the worse bargain.
const FEW: usize = 4;

pub(super) enum Durability {
    /// Each file and folder by itself.
    Each,
    /// All at once, with the file system that this folder is on.
    Whole(File),
}

impl Durability {
    /// For so many files and folders below a folder, which must be there. Before any of them is made:
    /// failures to write are told to those who had the folder open then.
    pub(super) fn of(folder: &Path, count: usize) -> Result<Self, PackageError> {
        if count <= FEW || !tells_failures() {
            return Ok(Self::Each);
        }
        let folder = File::open(folder).map_err(io("open folder", folder))?;
        Ok(Self::Whole(folder))
    }

    /// A file has been written.
    pub(super) fn file(&self, file: &File, path: &Path) -> Result<(), PackageError> {
        match self {
            Self::Each => file.sync_all().map_err(io("sync", path)),
            Self::Whole(_) => Ok(()),
        }
    }

    /// All that goes into a folder has been written.
    pub(super) fn folder(&self, folder: &Path) -> Result<(), PackageError> {
        match self {
            Self::Each => sync(folder),
            Self::Whole(_) => Ok(()),
        }
    }

    /// Everything has been written: from now on it survives a power failure.
    pub(super) fn finish(self, path: &Path) -> Result<(), PackageError> {
        match self {
            Self::Each => Ok(()),
            Self::Whole(folder) => sync_file_system(&folder).map_err(io("sync", path)),
        }
    }
}

#[cfg(target_os = "linux")]
fn sync_file_system(folder: &File) -> std::io::Result<()> {
    Ok(rustix::fs::syncfs(folder)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(folder: &File) -> std::io::Result<()> {
    folder.sync_all()
}

/// Whether syncing a file system says so when something could not be written; Linux does since 5.8.
fn tells_failures() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    cfg!(target_os = "linux") && release.is_ok_and(|release| is_since_5_8(&release))
}

fn is_since_5_8(release: &str) -> bool {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    matches!((next(), next()), (Some(major), Some(minor)) if (major, minor) >= (5, 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_their_release() {
        for release in ["5.8.0", "5.10.0-30-amd64\n", "6.1", "10.0.1+"] {
            assert!(is_since_5_8(release), "{release}");
        }
        for release in ["5.7.19", "4.18.0-553.el8", "3.10", "6", "", "unknown"] {
            assert!(!is_since_5_8(release), "{release}");
        }
    }
}
