//! The files that hold the archives. The database says which of them there should be.

use std::fs::Permissions;
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::dir::{PRIVATE_FILE, StoreDir};
use super::failure::{reading, system};
use crate::error::{Result, StoreError};
use crate::id::Xid;
use crate::package::{ArchiveContent, OpenDir};
use crate::store::release::is_digest;

/// How much of an archive is in memory at once, in bytes.
const CHUNK: usize = 64 * 1024;
const FINISHED: &str = "zip";
const UNFINISHED: &str = "tmp";

/// A new file that does not have its final name yet. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct UnfinishedArchive {
    archives: OpenDir,
    name: String,
    placed: bool,
}

impl UnfinishedArchive {
    /// Copies `content`, which must have this digest, to the disk; returns its size in bytes as well.
    ///
    /// # Errors
    /// - [`StoreError::Archive`]: the content has another digest.
    /// - [`StoreError::Full`], [`StoreError::ReadOnly`], [`Error::Io`](crate::Error::Io).
    pub(super) fn copy(
        dir: &StoreDir,
        sha256: &str,
        content: &mut dyn Read,
    ) -> Result<(Self, u64)> {
        let opened = dir.open_archives();
        let archives = opened.map_err(system("open", &dir.archives()))?;
        let name = format!("{}.{UNFINISHED}", Xid::generate());
        let path = &archives.at(&name);
        let mut file = archives
            .create_file(&*name, PRIVATE_FILE)
            .map_err(system("create", path))?;
        let unfinished = Self {
            archives,
            name,
            placed: false,
        };
        // The umask may have taken away even the owner's access.
        file.set_permissions(Permissions::from_mode(PRIVATE_FILE))
            .map_err(system("create", path))?;
        let (digest, size) = digest(sha256, content, &mut |chunk| {
            file.write_all(chunk).map_err(system("write", path))
        })?;
        if digest != sha256 {
            return Err(archive_error(sha256, "damaged"));
        }
        file.sync_all().map_err(system("write", path))?;
        Ok((unfinished, size))
    }

    /// Renames the file to its final name, replacing whatever has it, and syncs the directory.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::ReadOnly`], [`Error::Io`](crate::Error::Io).
    pub(super) fn place(mut self, sha256: &str) -> Result<()> {
        let archives = &self.archives;
        let (name, path) = (name(sha256), &archives.at(name(sha256)));
        let rename = || archives.rename(&*self.name, archives, &*name);
        match rename() {
            // A directory was not created by this store.
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                archives.remove(&name).and_then(|()| rename())
            }
            other => other,
        }
        .map_err(system("write", path))?;
        self.placed = true;
        archives.sync().map_err(system("write", archives.path()))
    }
}

impl Drop for UnfinishedArchive {
    fn drop(&mut self) {
        if !self.placed {
            remove_or_warn(&self.archives, &self.name);
        }
    }
}

/// Opens the archive with this digest, which must have this size.
///
/// # Errors
/// [`StoreError::Archive`]: it is missing, has another size, or something else is in its place.
/// [`Error::Io`](crate::Error::Io): it cannot be opened.
pub(super) fn open(dir: &StoreDir, sha256: &str, size: u64) -> Result<ArchiveContent> {
    let name = name(sha256);
    let path = &dir.archives().join(&name);
    let archives = match dir.open_archives() {
        Ok(archives) => archives,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(archive_error(sha256, "missing"));
        }
        Err(error) => return Err(reading("open", &dir.archives())(error)),
    };
    match archives.open_file(&*name).map_err(reading("open", path))? {
        Some((file, found)) if found.len() == size => Ok(ArchiveContent::File(Arc::new(file))),
        None if archives
            .kind(&*name)
            .map_err(reading("open", path))?
            .is_none() =>
        {
            Err(archive_error(sha256, "missing"))
        }
        _ => Err(archive_error(sha256, "damaged")),
    }
}

/// Whether the archive has a file of this size.
pub(super) fn exists(dir: &StoreDir, sha256: &str, size: u64) -> bool {
    open(dir, sha256, size).is_ok()
}

/// Whether the file of the archive can be read and has its digest.
pub(super) fn is_whole(dir: &StoreDir, sha256: &str) -> bool {
    let opened = dir.open_archives();
    match opened.and_then(|archives| archives.open_file(&*name(sha256))) {
        Ok(Some((mut file, _))) => {
            digest(sha256, &mut file, &mut |_| Ok(())).is_ok_and(|(found, _)| found == sha256)
        }
        _ => false,
    }
}

/// Reads `content` in chunks, and passes them to `write`; returns its digest and size. `sha256` names the
/// archive in an error.
fn digest(
    sha256: &str,
    content: &mut dyn Read,
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<(String, u64)> {
    let mut digest = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok((HEXLOWER.encode(&digest.finalize()), size)),
            Ok(length) => {
                digest.update(&buffer[..length]);
                write(&buffer[..length])?;
                size += length as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let action = format!("cannot read the archive {sha256}");
                return Err(crate::Error::io(action, error));
            }
        }
    }
}

/// Removes the file of an archive. A failure is logged, and the next opening tries again.
pub(super) fn remove_file(dir: &StoreDir, sha256: &str) {
    match dir.open_archives() {
        Ok(archives) => remove_or_warn(&archives, &name(sha256)),
        Err(error) => warn_left(&dir.archives().join(name(sha256)), &error),
    }
}

/// Removes what crashes have left behind: unfinished files, and archives that are not `known`.
pub(super) fn sweep(dir: &StoreDir, known: impl Fn(&str) -> bool) {
    let swept = each(dir, &mut |archives, name, sha256| {
        if sha256.is_none_or(|sha256| !known(sha256)) {
            log::info!(
                "removing {}, which a crash has left",
                archives.at(name).display()
            );
            remove_or_warn(archives, name);
        }
    });
    if let Err(error) = swept {
        warn_left(&dir.archives(), &error);
    }
}

/// Whether there are archives.
pub(super) fn exist(dir: &StoreDir) -> bool {
    let mut found = false;
    // Where nothing can be listed, there is nothing that could be lost.
    let _ = each(dir, &mut |_, _, sha256| found |= sha256.is_some());
    found
}

/// Makes an error about this archive.
pub(super) fn archive_error(sha256: &str, problem: &'static str) -> crate::Error {
    StoreError::Archive {
        sha256: sha256.into(),
        problem,
    }
    .into()
}

fn name(sha256: &str) -> String {
    format!("{sha256}.{FINISHED}")
}

/// Calls `call` for each file of the store's with its name, and with its digest if it is finished. Files
/// with other kinds of names are not the store's.
fn each(dir: &StoreDir, call: &mut dyn FnMut(&OpenDir, &str, Option<&str>)) -> std::io::Result<()> {
    let archives = dir.open_archives()?;
    for entry in archives.list()? {
        let entry = entry?;
        let name = entry.file_name().to_str().ok();
        match name.and_then(|name| Some((name, name.rsplit_once('.')?))) {
            Some((name, (stem, FINISHED))) if is_digest(stem) => call(&archives, name, Some(stem)),
            Some((name, (stem, UNFINISHED))) if stem.parse::<Xid>().is_ok() => {
                call(&archives, name, None);
            }
            _ => {}
        }
    }
    Ok(())
}

fn remove_or_warn(archives: &OpenDir, name: &str) {
    if let Err(error) = archives.remove(name) {
        warn_left(&archives.at(name), &error);
    }
}

fn warn_left(path: &Path, error: &std::io::Error) {
    log::warn!("cannot remove {}: {error}", path.display());
}
