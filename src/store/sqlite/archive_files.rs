//! The files in which archives are. Which there are to be is the database's business.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::failure::{reading, system};
use super::folder::{Folder, new_file, remove, sync};
use crate::error::{Result, StoreError};
use crate::id::Xid;
use crate::package::ArchiveContent;

/// How much of an archive is in memory at once.
const CHUNK: usize = 64 * 1024;
const FINISHED: &str = "zip";
const UNFINISHED: &str = "tmp";

/// A new file that has not got its name yet. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    placed: bool,
}

impl Unfinished {
    /// Copies what `content` gives, which must have this digest; gives how many bytes there were. They
    /// are on the disk then.
    ///
    /// # Errors
    /// - [`StoreError::Archive`]: the content has another digest.
    /// - [`StoreError::Full`], [`StoreError::ReadOnly`], [`Error::Io`](crate::Error::Io).
    pub(super) fn copy(
        folder: &Folder,
        sha256: &str,
        content: &mut dyn Read,
    ) -> Result<(Self, u64)> {
        let path = folder
            .archives()
            .join(Xid::generate().to_string())
            .with_extension(UNFINISHED);
        let mut file = new_file(&path).map_err(system("make", &path))?;
        let unfinished = Self {
            path,
            placed: false,
        };
        let path = &unfinished.path;
        let mut digest = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(crate::Error::io(
                        format!("cannot read the archive {sha256}"),
                        error,
                    ));
                }
            };
            digest.update(&buffer[..length]);
            file.write_all(&buffer[..length])
                .map_err(system("write", path))?;
            size += length as u64;
        }
        if HEXLOWER.encode(&digest.finalize()) != sha256 {
            return Err(archive_error(sha256, "damaged"));
        }
        file.sync_all().map_err(system("write", path))?;
        Ok((unfinished, size))
    }

    /// Gives it its name, in place of a file that has it. That is on the disk then, too.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::ReadOnly`], [`Error::Io`](crate::Error::Io).
    pub(super) fn place(mut self, folder: &Folder, sha256: &str) -> Result<()> {
        let path = path(folder, sha256);
        fs::rename(&self.path, &path).map_err(system("write", &path))?;
        self.placed = true;
        let archives = folder.archives();
        sync(&archives).map_err(system("write", &archives))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.placed {
            remove_or_tell(&self.path);
        }
    }
}

/// The archive with this digest, which must be as long.
///
/// # Errors
/// [`StoreError::Archive`]: there is none, or it is of another size.
/// [`Error::Io`](crate::Error::Io): it cannot be opened.
pub(super) fn open(folder: &Folder, sha256: &str, size: u64) -> Result<ArchiveContent> {
    let path = path(folder, sha256);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(archive_error(sha256, "missing"));
        }
        Err(error) => return Err(reading("open", &path)(error)),
    };
    let found = file.metadata().map_err(reading("read", &path))?;
    if !found.is_file() || found.len() != size {
        return Err(archive_error(sha256, "damaged"));
    }
    Ok(ArchiveContent::File(Arc::new(file)))
}

/// Whether there is a file of this size for the archive.
pub(super) fn is_there(folder: &Folder, sha256: &str, size: u64) -> bool {
    fs::metadata(path(folder, sha256)).is_ok_and(|file| file.is_file() && file.len() == size)
}

/// Whether the file of the archive can be read and has its digest.
pub(super) fn is_whole(folder: &Folder, sha256: &str) -> bool {
    let read = || -> std::io::Result<bool> {
        let mut file = File::open(path(folder, sha256))?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(HEXLOWER.encode(&digest.finalize()) == sha256),
                Ok(length) => digest.update(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    read().unwrap_or(false)
}

/// Removes the file of an archive. Where that cannot be done it is told, and done when the store is
/// opened next.
pub(super) fn remove_file(folder: &Folder, sha256: &str) {
    remove_or_tell(&path(folder, sha256));
}

/// Removes what crashes have left: unfinished files, and archives that are not `known`.
pub(super) fn sweep(folder: &Folder, known: impl Fn(&str) -> bool) {
    for (path, name) in files(folder) {
        if name.is_none_or(|sha256| !known(&sha256)) {
            log::info!("removing {}, which a crash has left", path.display());
            remove_or_tell(&path);
        }
    }
}

/// Whether there is an archive.
pub(super) fn are_there(folder: &Folder) -> bool {
    files(folder).iter().any(|(_, name)| name.is_some())
}

/// An error about this archive.
pub(super) fn archive_error(sha256: &str, problem: &'static str) -> crate::Error {
    StoreError::Archive {
        sha256: sha256.into(),
        problem,
    }
    .into()
}

fn path(folder: &Folder, sha256: &str) -> PathBuf {
    folder.archives().join(format!("{sha256}.{FINISHED}"))
}

/// The files of ours, and for those that are finished the digest that they are named after. What has
/// another kind of name is somebody else's.
fn files(folder: &Folder) -> Vec<(PathBuf, Option<String>)> {
    let entries = fs::read_dir(folder.archives());
    let paths = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    paths
        .filter_map(|path| {
            let stem = path.file_stem()?.to_str()?.to_owned();
            match path.extension()?.to_str()? {
                FINISHED if is_digest(&stem) => Some((path, Some(stem))),
                UNFINISHED if stem.parse::<Xid>().is_ok() => Some((path, None)),
                _ => None,
            }
        })
        .collect()
}

/// Whether it is a SHA-256, so that it can be part of a path.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && HEXLOWER.decode(text.as_bytes()).is_ok()
}

fn remove_or_tell(path: &Path) {
    if let Err(error) = remove(path) {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}
