//! `Archive`: a zip archive that was read and passed all checks. `unpack` writes it to disk.

use std::fmt;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::central_directory::{CentralDirectory, Zip};
use super::check::Checker;
use super::content::{ArchiveContent, Bytes, FileIdentity, unreadable};
use super::end_record::EndRecord;
use super::entry::Entry;
use super::layout::failed;
use super::limits::{MANIFEST_SIZE, PackageLimits};
use super::open_dir::open_file;
use crate::error::{Error, PackageError, Result};

const MANIFEST: &str = "manifest.json";

/// Bytes that are read, hashed or written between two checks for cancellation.
pub(super) const POLL_BYTES: usize = 1024 * 1024;

/// For operations that cannot be cancelled.
const NEVER: &dyn Fn() -> bool = &|| false;

/// A package: a zip archive that has been checked, with its manifest at hand.
///
/// **Which manifest counts.** Of several files called `manifest.json`, the one with the fewest
/// directories above it; of several of those, the first in the archive's central directory. A directory
/// of that name never counts. (Storyden's Go host takes the first one at any depth, which lets a file inside
/// a bundled dependency win.) Paths are kept as they are: with a nested manifest, `command` names the nested
/// path ([Archive](crate::protocol#archive)).
///
/// Its [content](ArchiveContent) is in memory or in a file. Cloning shares it.
#[derive(Clone)]
pub struct Archive {
    content: ArchiveContent,
    size: u64,
    /// Cloned for each reader of entries; see [`read_entry`].
    pub(super) zip: Zip,
    entries: Vec<Entry>,
    /// Every directory that unpacking creates, each before what is in it.
    pub(super) dirs: Vec<String>,
    sha256: String,
    manifest_path: String,
    manifest_bytes: Arc<[u8]>,
    /// The identity of the file that it was read from; `None` if it came from bytes, and if a change of the
    /// file might go unnoticed.
    pub(super) identity: Option<FileIdentity>,
}

impl Archive {
    /// Reads an archive from a file and checks everything that can be seen without unpacking it.
    ///
    /// # Blocking
    /// For reading the file, up to the limit.
    ///
    /// # Errors
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io): the file cannot be read.
    /// - [`ErrorKind::PackageTooLarge`](crate::ErrorKind::PackageTooLarge): it is over a limit.
    /// - [`ErrorKind::InvalidPackage`](crate::ErrorKind::InvalidPackage): the first problem of the archive.
    pub fn open(path: &Path, limits: &PackageLimits) -> Result<Self> {
        Ok(Self::open_unless(path, limits, NEVER)?)
    }

    /// Reads and checks an archive as [`open`](Self::open) does, until `cancel` returns true: it is called
    /// before each MiB that is read or hashed and before each entry that is checked.
    ///
    /// # Blocking
    /// For reading the file, up to the limit. Ends soon after `cancel` returns true, unless the disk does not
    /// respond.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`PackageError::Cancelled`].
    pub(crate) fn open_unless(
        path: &Path,
        limits: &PackageLimits,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Self, PackageError> {
        let (bytes, identity) = read(path, limits, cancel)?;
        let mut archive = check(bytes.into(), limits, cancel).map_err(first)?;
        archive.identity = identity;
        Ok(archive)
    }

    /// Checks an archive that is in memory, as [`open`](Self::open) does.
    ///
    /// # Blocking
    /// Only for the work itself, which the limits bound.
    ///
    /// # Errors
    /// The first problem of the archive, as in [`open`](Self::open).
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>, limits: &PackageLimits) -> Result<Self> {
        Ok(Self::check(bytes.into().into(), limits, NEVER)?)
    }

    /// Checks an archive where it is: if it is in a file, only its central directory is read into memory,
    /// and the file is not changed. **Nothing else may change that file** until the archive has been
    /// unpacked; see [`ArchiveContent`].
    ///
    /// `cancel` is called before each MiB that is read or hashed and before each entry that is checked; checking
    /// ends once it returns true.
    ///
    /// # Blocking
    /// For reading the file once, up to the limit. Ends soon after `cancel` returns true.
    ///
    /// # Errors
    /// - [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io): the file cannot be read.
    /// - Otherwise the first problem of the archive, as in [`open`](Self::open).
    pub fn from_content(
        content: ArchiveContent,
        limits: &PackageLimits,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Self> {
        Ok(Self::check(content, limits, cancel)?)
    }

    /// Checks an archive as [`from_content`](Self::from_content) does, for those who match the error.
    ///
    /// # Errors
    /// Any but [`PackageError::Io`].
    pub(crate) fn check(
        content: ArchiveContent,
        limits: &PackageLimits,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Self, PackageError> {
        check(content, limits, cancel).map_err(first)
    }

    /// Returns all problems of the archive in a file, in the order of its entries; none if it is good. A
    /// problem that makes the archive unreadable hides the others.
    ///
    /// # Blocking
    /// For reading the file, up to the limit.
    pub fn problems(path: &Path, limits: &PackageLimits) -> Vec<Error> {
        let checked = read(path, limits, NEVER)
            .map_err(|error| vec![error])
            .and_then(|(bytes, _)| check(bytes.into(), limits, NEVER));
        let problems = checked.err().unwrap_or_default();
        problems.into_iter().map(Error::from).collect()
    }

    /// Returns the archive, byte for byte, for storing it.
    pub fn content(&self) -> &ArchiveContent {
        &self.content
    }

    /// Returns the size of the archive itself, in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the SHA-256 of the archive, in lower-case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns the content of the manifest, which has not been parsed.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// Returns the path of the manifest in the archive.
    pub fn manifest_path(&self) -> &str {
        &self.manifest_path
    }

    /// Returns the files of the archive in the order of its central directory: the path below the release
    /// directory, in parts separated by `/` and never leading upward, and the unpacked size in bytes.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        let files = self.entries.iter().filter(|entry| !entry.is_dir);
        files.map(|entry| (&*entry.path, entry.size))
    }

    /// Returns the files and directories of the archive, in the order of its central directory.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the beginning of a file, as far as it can be unpacked.
    pub(super) fn beginning(&self, entry: &Entry, most: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Ok(file) = self.zip.clone().by_index(entry.index) {
            // Unpacking reports the damage.
            let _ = file.take(most).read_to_end(&mut bytes);
        }
        bytes
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive")
            .field("sha256", &self.sha256)
            .field("size", &self.size)
            .field("entries", &self.entries.len())
            .field("manifest_path", &self.manifest_path)
            .finish_non_exhaustive()
    }
}

/// Unpacks one file, chunk by chunk, and checks that it is as long as its header says.
///
/// # Errors
/// - [`PackageError::Content`]: damaged, or longer than its header says.
/// - [`PackageError::SizeMismatch`]: shorter than its header says.
/// - [`PackageError::Unreadable`]: the archive is in a file that cannot be read.
/// - Those of `chunk`.
pub(super) fn read_entry(
    zip: &mut Zip,
    entry: &Entry,
    mut chunk: impl FnMut(&[u8]) -> Result<(), PackageError>,
) -> Result<(), PackageError> {
    let damaged = |source: io::Error| {
        // Errors of the decoder have no number of the operating system's.
        if source.raw_os_error().is_some() {
            return unreadable(source);
        }
        PackageError::Content {
            entry: entry.path.clone(),
            source,
        }
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

/// Fails with [`PackageError::Cancelled`] once `cancel` returns true.
pub(super) fn poll(cancel: &dyn Fn() -> bool) -> Result<(), PackageError> {
    if cancel() {
        Err(PackageError::Cancelled)
    } else {
        Ok(())
    }
}

fn first(mut problems: Vec<PackageError>) -> PackageError {
    problems.swap_remove(0)
}

/// Returns the content of a file, and the file's identity if any later change is sure to be noticed.
fn read(
    path: &Path,
    limits: &PackageLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<(Vec<u8>, Option<FileIdentity>), PackageError> {
    let now = SystemTime::now();
    let (file, metadata) = open_file(path).map_err(failed("open", path))?;
    let limit = limits.archive_size;
    if metadata.len() > limit {
        return Err(PackageError::ArchiveTooLarge { limit });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    // One more than the limit, in case it grows meanwhile.
    let mut limited = (&file).take(limit.saturating_add(1));
    loop {
        poll(cancel)?;
        let mut chunk = limited.by_ref().take(POLL_BYTES as u64);
        let count = chunk
            .read_to_end(&mut bytes)
            .map_err(failed("read", path))?;
        if count == 0 {
            break;
        }
    }
    let before = FileIdentity::of(&metadata);
    let after = FileIdentity::of(&file.metadata().map_err(failed("read", path))?);
    let identity = (before == after && before.is_settled(now)).then_some(before);
    Ok((bytes, identity))
}

fn hash(bytes: Bytes<'_>, cancel: &dyn Fn() -> bool) -> Result<String, PackageError> {
    let mut digest = Sha256::new();
    bytes.chunks(POLL_BYTES, |chunk| {
        poll(cancel)?;
        digest.update(chunk);
        Ok(())
    })?;
    Ok(HEXLOWER.encode(&digest.finalize()))
}

/// Returns the archive, or all its problems, of which there is at least one.
fn check(
    content: ArchiveContent,
    limits: &PackageLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<Archive, Vec<PackageError>> {
    let fatal = |error| vec![error];
    let bytes = Bytes::of(&content).map_err(fatal)?;
    let size = bytes.size();
    let limit = limits.archive_size;
    if size > limit {
        return Err(fatal(PackageError::ArchiveTooLarge { limit }));
    }
    let end = EndRecord::find(bytes, limits.entries()).map_err(fatal)?;
    let records = bytes.range(end.start, end.length).map_err(fatal)?;
    let records = records.unwrap_or_default();
    let directory = CentralDirectory::parse(&end, &records).map_err(fatal)?;
    let mut zip = directory.open(content.open()).map_err(fatal)?;

    let mut checker = Checker::new(bytes, &directory, &zip, limits);
    for record in &directory.records {
        poll(cancel).map_err(fatal)?;
        if let Err(error) = checker.entry(record) {
            checker.problems.push(error);
        }
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
        Some(entry) => read_manifest(&mut zip, entry).map(|bytes| (entry.path.clone(), bytes)),
        None => Err(PackageError::NoManifest),
    };
    match manifest {
        Ok((manifest_path, manifest_bytes)) if problems.is_empty() => Ok(Archive {
            sha256: hash(bytes, cancel).map_err(fatal)?,
            size,
            zip,
            entries,
            dirs: tree.into_dirs(),
            manifest_path,
            manifest_bytes: manifest_bytes.into(),
            identity: None,
            content,
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
        .filter(|entry| !entry.is_dir && entry.path.split('/').next_back() == Some(MANIFEST))
        // The first of several smallest.
        .min_by_key(|entry| entry.path.matches('/').count())
}

fn read_manifest(zip: &mut Zip, entry: &Entry) -> Result<Vec<u8>, PackageError> {
    if entry.size > MANIFEST_SIZE {
        return Err(PackageError::ManifestTooLarge {
            entry: entry.path.clone(),
            size: entry.size,
            limit: MANIFEST_SIZE,
        });
    }
    let mut content = Vec::new();
    read_entry(zip, entry, |chunk| {
        content.extend_from_slice(chunk);
        Ok(())
    })?;
    Ok(content)
}

#[cfg(test)]
mod tests;
