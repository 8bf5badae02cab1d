//! `Archive`: a zip archive that was read and found good. Putting it on disk is in `unpack`.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::check::Checker;
use super::directory::{Directory, Zip};
use super::entry::Entry;
use super::folder::io;
use super::limits::PackageLimits;
use crate::error::PackageError;

const MANIFEST: &str = "manifest.json";

/// A package: a zip archive that has been checked, with its manifest at hand.
///
/// **Which manifest counts.** Of several files called `manifest.json`, the one with the fewest
/// folders above it; of several of those, the first in the archive's central directory. A folder
/// of that name never counts. (The seed takes the first in the directory at any depth, which lets
/// a file inside a bundled dependency win.) Paths are kept as they are: with a nested manifest,
/// `command` names the nested path (protocol file, section 4).
///
/// The archive is held in memory. Cloning is cheap in that it shares those bytes.
#[derive(Clone)]
pub struct Archive {
    bytes: Arc<[u8]>,
    zip: Zip,
    entries: Vec<Entry>,
    folders: Vec<String>,
    sha256: String,
    manifest_path: String,
    manifest_bytes: Arc<[u8]>,
}

impl Archive {
    /// Reads an archive from a file and checks everything that can be seen without unpacking it.
    ///
    /// Blocks for reading the file, up to the limit.
    ///
    /// # Errors
    /// - [`PackageError::Io`]: the file cannot be read.
    /// - Any other but [`PackageError::Cancelled`]: the first thing that is wrong with the archive.
    pub fn open(path: &Path, limits: &PackageLimits) -> Result<Self, PackageError> {
        Self::from_bytes(read(path, limits)?, limits)
    }

    /// Checks an archive that is in memory, as [`open`](Self::open) does.
    ///
    /// # Errors
    /// The first thing that is wrong with the archive.
    pub fn from_bytes(
        bytes: impl Into<Arc<[u8]>>,
        limits: &PackageLimits,
    ) -> Result<Self, PackageError> {
        check(bytes.into(), limits).map_err(|mut problems| problems.swap_remove(0))
    }

    /// Everything that is wrong with the archive in a file, in the order of its entries; empty
    /// when it is good. What makes the archive unreadable hides what else there may be.
    ///
    /// Blocks for reading the file, up to the limit.
    pub fn problems(path: &Path, limits: &PackageLimits) -> Vec<PackageError> {
        let checked = read(path, limits)
            .map_err(|error| vec![error])
            .and_then(|bytes| check(bytes.into(), limits));
        checked.err().unwrap_or_default()
    }

    /// The archive, byte for byte, for storing it.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// SHA-256 of the archive, in lower-case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The manifest's content, which has not been looked at.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// Where the manifest stands in the archive.
    pub fn manifest_path(&self) -> &str {
        &self.manifest_path
    }

    /// The files and folders of the archive, in the order of its directory.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Every folder that unpacking makes, each before what is in it.
    pub(super) fn folders(&self) -> &[String] {
        &self.folders
    }

    /// A reader of entries, for [`read_entry`].
    pub(super) fn reader(&self) -> Zip {
        self.zip.clone()
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive")
            .field("sha256", &self.sha256)
            .field("size", &self.bytes.len())
            .field("entries", &self.entries.len())
            .field("manifest_path", &self.manifest_path)
            .finish_non_exhaustive()
    }
}

/// Unpacks one file, chunk by chunk, and makes sure that it is as long as its header says.
///
/// # Errors
/// - [`PackageError::Content`]: damaged, or longer than its header says.
/// - [`PackageError::SizeMismatch`]: shorter than its header says.
/// - What `chunk` gives.
pub(super) fn read_entry(
    zip: &mut Zip,
    entry: &Entry,
    mut chunk: impl FnMut(&[u8]) -> Result<(), PackageError>,
) -> Result<(), PackageError> {
    let damaged = |source| PackageError::Content {
        entry: entry.path.clone(),
        source,
    };
    let mut file = zip
        .by_index(entry.index)
        .map_err(|error| damaged(error.into()))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut found = 0_u64;
    loop {
        // The library's reader fails on the first byte past the declared size.
        let length = file.read(&mut buffer).map_err(damaged)?;
        found += length as u64;
        if length == 0 || found > entry.size {
            break;
        }
        chunk(&buffer[..length])?;
    }
    if found == entry.size {
        Ok(())
    } else {
        Err(PackageError::SizeMismatch {
            entry: entry.path.clone(),
            declared: entry.size,
            found,
        })
    }
}

fn read(path: &Path, limits: &PackageLimits) -> Result<Vec<u8>, PackageError> {
    let file = File::open(path).map_err(io("open", path))?;
    let metadata = file.metadata().map_err(io("read", path))?;
    if !metadata.is_file() {
        let error = std::io::Error::other("not a regular file");
        return Err(io("read", path)(error));
    }
    let limit = limits.archive_size;
    if metadata.len() > limit {
        return Err(PackageError::ArchiveTooLarge { limit });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    // One more than the limit, in case it grows meanwhile.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(io("read", path))?;
    Ok(bytes)
}

/// Everything that is wrong, or the archive. Never an empty list of problems.
fn check(bytes: Arc<[u8]>, limits: &PackageLimits) -> Result<Archive, Vec<PackageError>> {
    let limit = limits.archive_size;
    if bytes.len() as u64 > limit {
        return Err(vec![PackageError::ArchiveTooLarge { limit }]);
    }
    let fatal = |error| vec![error];
    let directory = Directory::read(&bytes, limits.entries()).map_err(fatal)?;
    let mut zip = directory.open(bytes.clone()).map_err(fatal)?;

    let mut checker = Checker::new(&bytes, &directory, &zip, limits);
    for record in &directory.records {
        checker.entry(record);
    }
    checker.totals();
    checker.overlaps();
    let Checker {
        mut problems,
        entries,
        tree,
        ..
    } = checker;

    let manifest = match find_manifest(&entries) {
        Some(entry) => {
            read_manifest(&mut zip, entry, limits).map(|bytes| (entry.path.clone(), bytes))
        }
        None => Err(PackageError::NoManifest),
    };
    match manifest {
        Ok((manifest_path, manifest_bytes)) if problems.is_empty() => Ok(Archive {
            sha256: HEXLOWER.encode(&Sha256::digest(&bytes)),
            bytes,
            zip,
            entries,
            folders: tree.into_folders(),
            manifest_path,
            manifest_bytes: manifest_bytes.into(),
        }),
        Ok(_) => Err(problems),
        Err(error) => {
            problems.push(error);
            Err(problems)
        }
    }
}

fn find_manifest(entries: &[Entry]) -> Option<&Entry> {
    entries
        .iter()
        .filter(|entry| !entry.folder && entry.path.split('/').next_back() == Some(MANIFEST))
        // The first of several smallest.
        .min_by_key(|entry| entry.path.matches('/').count())
}

fn read_manifest(
    zip: &mut Zip,
    entry: &Entry,
    limits: &PackageLimits,
) -> Result<Vec<u8>, PackageError> {
    let limit = limits.manifest_size;
    let too_large = |size| PackageError::ManifestTooLarge {
        entry: entry.path.clone(),
        size,
        limit,
    };
    if entry.size > limit {
        return Err(too_large(entry.size));
    }
    let mut content = Vec::new();
    read_entry(zip, entry, |chunk| {
        content.extend_from_slice(chunk);
        let size = content.len() as u64;
        if size > limit {
            Err(too_large(size))
        } else {
            Ok(())
        }
    })?;
    Ok(content)
}

#[cfg(test)]
mod tests;
