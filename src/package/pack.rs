//! `pack`: makes the archive of a plugin's directory, the same bytes each time, and refuses what would not be
//! installed. What is left out of it is decided here; by patterns: `ignored`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Cursor, ErrorKind, Read as _, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::archive::Archive;
use super::ignored::IgnoreRules;
use super::layout::failed;
use super::limits::PackageLimits;
use super::open_dir::OpenDir;
use super::path::{EntryPath, shown};
use super::review::review;
use crate::error::{PackageError, Result};
use crate::protocol::manifest::Manifest;

const MANIFEST: &str = "manifest.json";
const IGNORE: &str = ".pluginignore";
const IGNORE_LIMIT: u64 = 64 * 1024;
/// What may be in a directory, besides what is in directories that are left out.
const LOOKED_AT: usize = 100_000;
/// How many of the largest directories are named.
const NAMED: usize = 5;

/// Paths, and why.
type LeftOut = Vec<(String, &'static str)>;

/// A plugin's directory, packed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Packed {
    /// The archive, in memory. It has been checked and reviewed as if it were to be installed.
    pub archive: Archive,
    /// What its author may have overlooked: see [`Review::warnings`](super::Review::warnings).
    pub warnings: Vec<String>,
    /// The paths of what was left out, sorted, and why. Of a directory that was left out, only itself.
    pub left_out: Vec<(String, &'static str)>,
}

/// Makes the archive of a plugin's directory, with this JSON as its manifest: the first entry, then the files
/// sorted by path. Files that anyone may execute have the mode 0755, others 0644, and all the same time; so the same
/// files become the same bytes.
///
/// Left out are `.git`, `.next` and `.DS_Store` wherever they are, links, empty directories, and at the top
/// `.pluginignore`, and `manifest.json`, `manifest.yaml` and `manifest.yml`, in whose place the manifest is; besides,
/// `output`, where the archive is to be written, if it is in the directory; and what `.pluginignore` says in the
/// syntax of `.gitignore`, of which at most 64 KiB and 1,000 patterns are read. `node_modules` is packed, since nothing
/// installs it later.
///
/// # Blocking
/// For reading all files and compressing them, within the limits. At most 100,000 files and directories are looked
/// at.
///
/// # Errors
/// - [`ErrorKind::InvalidManifest`](crate::ErrorKind::InvalidManifest): see [`Manifest::parse`].
/// - [`ErrorKind::PackageTooLarge`](crate::ErrorKind::PackageTooLarge): it is over a limit; the error names the
///   largest directories.
/// - [`ErrorKind::InvalidPackage`](crate::ErrorKind::InvalidPackage): a name that is not UTF-8 or that an archive
///   cannot have, a pipe, socket or device, or the first problem of [`review`](super::review()).
/// - [`ErrorKind::Io`](crate::ErrorKind::Io): something cannot be read.
pub fn pack(
    directory: &Path,
    manifest: &[u8],
    output: Option<&Path>,
    limits: &PackageLimits,
) -> Result<Packed> {
    let parsed = Manifest::parse(manifest)?;
    let (bytes, left_out) = zipped(directory, manifest, output, limits)?;
    let archive = Archive::from_bytes(bytes, limits)?;
    let mut found = review(&archive, &parsed);
    if !found.problems.is_empty() {
        return Err(found.problems.swap_remove(0));
    }
    Ok(Packed {
        archive,
        warnings: found.warnings,
        left_out,
    })
}

/// Returns the paths of the files that [`pack`] would pack, the manifest aside, relative to the directory and sorted.
///
/// # Blocking
/// For listing the directory. At most 100,000 files and directories are looked at.
///
/// # Errors
/// Those of [`pack`] that concern names, pipes, sockets, devices and what cannot be read.
pub fn packed_files(directory: &Path) -> Result<Vec<String>> {
    let top = OpenDir::follow(directory).map_err(failed("open directory", directory))?;
    let found = Found::below(&top, None)?;
    Ok(found.files.into_keys().collect())
}

impl Packed {
    /// Writes the archive to a file, which is there whole or not at all. `replace` lets it take the place of
    /// another.
    ///
    /// # Blocking
    /// For writing it to the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): it cannot be written, or the file exists and is not to be replaced.
    pub fn write(&self, output: &Path, replace: bool) -> Result<()> {
        let unfinished = Unfinished(unfinished(output));
        let written = || {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&unfinished.0)?;
            io::copy(&mut self.archive.content().reader(), &mut file)?;
            file.sync_all()?;
            if replace {
                fs::rename(&unfinished.0, output)
            } else {
                // Unlike renaming, this fails if the file exists.
                fs::hard_link(&unfinished.0, output)
            }
        };
        Ok(written().map_err(failed("write", output))?)
    }
}

/// Removed at the end, if it is still there.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                log::warn!("cannot remove {}: {error}", self.0.display());
            }
            _ => {}
        }
    }
}

/// Returns where a file is written before it has its name.
fn unfinished(output: &Path) -> PathBuf {
    let mut path = output.as_os_str().to_owned();
    path.push(format!(".{}{UNFINISHED}", std::process::id()));
    path.into()
}

const UNFINISHED: &str = ".unfinished";

fn zipped(
    directory: &Path,
    manifest: &[u8],
    output: Option<&Path>,
    limits: &PackageLimits,
) -> Result<(Vec<u8>, LeftOut), PackageError> {
    let top = OpenDir::follow(directory).map_err(failed("open directory", directory))?;
    let output = output.and_then(|output| below(directory, output));
    let Found {
        files,
        mut left_out,
        ..
    } = Found::below(&top, output)?;
    left_out.sort_unstable();
    let too_large = |error| too_large(error, &files);
    check(&files, manifest, limits).map_err(too_large)?;
    let bytes = compressed(&top, &files, manifest, limits).map_err(too_large)?;
    Ok((bytes, left_out))
}

/// A file to be packed.
struct PackedFile {
    size: u64,
    is_executable: bool,
}

/// What was found in the directory so far.
struct Found<'a> {
    top: &'a OpenDir,
    rules: IgnoreRules,
    /// The path of the output, if it is in the directory.
    output: Option<PathBuf>,
    looked_at: usize,
    /// Sorted, in whatever order the file system has them.
    files: BTreeMap<String, PackedFile>,
    left_out: LeftOut,
}

impl<'a> Found<'a> {
    /// Looks at everything in a directory.
    fn below(top: &'a OpenDir, output: Option<PathBuf>) -> Result<Self, PackageError> {
        let mut found = Self {
            top,
            rules: rules(top)?,
            output,
            looked_at: 0,
            files: BTreeMap::new(),
            left_out: Vec::new(),
        };
        let mut waiting = vec![String::new()];
        while let Some(dir) = waiting.pop() {
            waiting.extend(found.list(&dir)?);
        }
        Ok(found)
    }

    /// Takes what is in one of the directories; returns the directories in it.
    fn list(&mut self, dir: &str) -> Result<Vec<String>, PackageError> {
        let here = self.top.below(Path::new(dir));
        let here = here.map_err(self.top.failed("open directory", dir))?;
        let mut below = Vec::new();
        let mut is_empty = true;
        for entry in here.list().map_err(failed("list", here.path()))? {
            let entry = entry.map_err(failed("list", here.path()))?;
            is_empty = false;
            self.looked_at += 1;
            if self.looked_at > LOOKED_AT {
                let (found, limit) = (self.looked_at, LOOKED_AT);
                let error = PackageError::TooManyEntries { found, limit };
                return Err(too_large(error, &self.files));
            }
            let name = entry.file_name().to_bytes();
            let path = if dir.is_empty() {
                name.to_vec()
            } else {
                [dir.as_bytes(), b"/", name].concat()
            };
            let kind = here.kind(OsStr::from_bytes(name));
            let kind = kind.map_err(here.failed("look at", OsStr::from_bytes(name)))?;
            // It was removed meanwhile.
            let Some(kind) = kind else { continue };
            let lossy = String::from_utf8_lossy(&path);
            if let Some(reason) = self.reason(&lossy, kind) {
                self.left_out.push((lossy.into_owned(), reason));
                continue;
            }
            let path = EntryPath::parse(&path)?.path;
            match kind {
                FileType::Directory => below.push(path),
                FileType::RegularFile => {
                    let opened = here.open_file(OsStr::from_bytes(name));
                    let opened = opened.map_err(here.failed("open", OsStr::from_bytes(name)))?;
                    if let Some((_, metadata)) = opened {
                        let file = PackedFile {
                            size: metadata.len(),
                            is_executable: metadata.permissions().mode() & 0o111 != 0,
                        };
                        self.files.insert(path, file);
                    }
                }
                kind => {
                    return Err(PackageError::SpecialFile {
                        entry: shown(path.as_bytes()),
                        kind: match kind {
                            FileType::Fifo => "pipe",
                            FileType::Socket => "socket",
                            _ => "device",
                        },
                    });
                }
            }
        }
        if is_empty && !dir.is_empty() {
            self.left_out.push((dir.to_owned(), "an empty directory"));
        }
        Ok(below)
    }

    /// Returns why something is left out, if it is.
    fn reason(&self, path: &str, kind: FileType) -> Option<&'static str> {
        let name = path.rsplit('/').next().unwrap_or(path);
        match name {
            ".git" => return Some("version control"),
            ".next" => return Some("a cache"),
            ".DS_Store" => return Some("written by macOS"),
            _ => {}
        }
        match path {
            MANIFEST | "manifest.yaml" | "manifest.yml" => {
                return Some("the manifest is packed as manifest.json");
            }
            IGNORE => return Some("it says what is left out"),
            _ => {}
        }
        if kind == FileType::Symlink {
            return Some("a link");
        }
        if let Some(output) = &self.output {
            let output = output.to_string_lossy();
            let rest = path.strip_prefix(&*output);
            if rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('.') && rest.ends_with(UNFINISHED)
            }) {
                return Some("the archive itself");
            }
        }
        let ignored = self.rules.leave_out(path, kind == FileType::Directory);
        ignored.then_some(".pluginignore says so")
    }
}

fn rules(top: &OpenDir) -> Result<IgnoreRules, PackageError> {
    let opened = top.open_file(IGNORE).map_err(top.failed("open", IGNORE))?;
    let Some((file, _)) = opened else {
        return Ok(IgnoreRules::default());
    };
    let mut text = Vec::new();
    let read = file.take(IGNORE_LIMIT).read_to_end(&mut text);
    read.map_err(top.failed("read", IGNORE))?;
    Ok(IgnoreRules::parse(&String::from_utf8_lossy(&text)))
}

/// Returns the path of a file that need not exist, from the directory, if it is in it.
fn below(directory: &Path, file: &Path) -> Option<PathBuf> {
    let parent = match file.parent()? {
        parent if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    let parent = parent.canonicalize().ok()?;
    let directory = directory.canonicalize().ok()?;
    Some(parent.strip_prefix(directory).ok()?.join(file.file_name()?))
}

/// Checks the limits that are about what is unpacked.
fn check(
    files: &BTreeMap<String, PackedFile>,
    manifest: &[u8],
    limits: &PackageLimits,
) -> Result<(), PackageError> {
    let (found, limit) = (files.len() + 1, limits.files);
    if found > limit {
        return Err(PackageError::TooManyFiles { found, limit });
    }
    let mut total = manifest.len() as u64;
    files
        .iter()
        .try_for_each(|(path, file)| limits.check_file(path, file.size, &mut total))
}

fn compressed(
    top: &OpenDir,
    files: &BTreeMap<String, PackedFile>,
    manifest: &[u8],
    limits: &PackageLimits,
) -> Result<Vec<u8>, PackageError> {
    let mut zip = ZipWriter::new(Bounded {
        bytes: Cursor::new(Vec::new()),
        limit: limits.archive_size,
        is_over: false,
    });
    let options = |is_executable| {
        SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(if is_executable { 0o755 } else { 0o644 })
    };
    // Only what is over the limit fails: it is in memory.
    let limit = limits.archive_size;
    let over = |_| PackageError::ArchiveTooLarge { limit };
    zip.start_file(MANIFEST, options(false))
        .and_then(|()| Ok(zip.write_all(manifest)?))
        .map_err(over)?;
    let mut total = manifest.len() as u64;
    let mut buffer = vec![0; 64 * 1024];
    for (path, file) in files {
        zip.start_file(&**path, options(file.is_executable))
            .map_err(over)?;
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let above = top.below(Path::new(above));
        let above = above.map_err(top.failed("open directory", path))?;
        let opened = above.open_file(name).map_err(top.failed("open", path))?;
        let gone = || top.failed("read", path)(io::Error::from(ErrorKind::NotFound));
        let (mut content, _) = opened.ok_or_else(gone)?;
        let mut size = 0_u64;
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(top.failed("read", path)(error)),
            };
            size += count as u64;
            // It may grow meanwhile.
            if size > limits.file_size {
                break;
            }
            let chunk = buffer.get(..count).unwrap_or_default();
            zip.write_all(chunk)
                .map_err(|_| PackageError::ArchiveTooLarge { limit })?;
        }
        limits.check_file(path, size, &mut total)?;
    }
    let bounded = zip.finish().map_err(over)?;
    Ok(bounded.bytes.into_inner())
}

/// Memory that takes no more than a limit.
struct Bounded {
    bytes: Cursor<Vec<u8>>,
    limit: u64,
    /// A write has failed. Later ones do nothing: dropping the writer finishes the archive, and prints if that fails.
    is_over: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_over {
            return Ok(bytes.len());
        }
        if self.bytes.position().saturating_add(bytes.len() as u64) > self.limit {
            self.is_over = true;
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// Adds to the error of a limit where most of the files are: in which directories at the top, and in which of
/// theirs.
fn too_large(error: PackageError, files: &BTreeMap<String, PackedFile>) -> PackageError {
    if !matches!(
        error,
        PackageError::ArchiveTooLarge { .. }
            | PackageError::TooManyFiles { .. }
            | PackageError::TooManyEntries { .. }
            | PackageError::TotalTooLarge { .. }
    ) {
        return error;
    }
    let mut dirs: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
    for (path, file) in files {
        for (end, _) in path.match_indices('/').take(2) {
            let dir = dirs.entry(&path[..end]).or_default();
            dir.0 = dir.0.saturating_add(file.size);
            dir.1 += 1;
        }
    }
    let mut dirs: Vec<_> = dirs.into_iter().collect();
    let by_number = matches!(
        error,
        PackageError::TooManyFiles { .. } | PackageError::TooManyEntries { .. }
    );
    dirs.sort_by_key(|(_, (size, count))| {
        std::cmp::Reverse(if by_number { *count as u64 } else { *size })
    });
    let largest = dirs
        .into_iter()
        .take(NAMED)
        .map(|(path, (size, count))| (shown(path.as_bytes()), size, count));
    PackageError::TooLargeToPack {
        problem: Box::new(error),
        largest: largest.collect(),
    }
}

#[cfg(test)]
mod tests;
