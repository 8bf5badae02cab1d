//! The files of a log and the directory that they are in: opening them safely, telling them apart, listing
//! the old ones. Writing and rotating is in `rotate`, reading in `follow`.
//!
//! The plugin may write to the directory: what it puts there must neither lead elsewhere (links) nor block
//! the host (named pipes).

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::FileType;

use super::timestamp::Timestamp;
use crate::package::{OpenDir, PRIVATE, PUBLIC, open_or_create_dir};

/// The file that is being written.
pub(super) const CURRENT: &str = "output.log";
pub(super) const FILE_MODE: u32 = 0o600;
/// How many entries of the directory are read, since the plugin may add to it without end.
const MOST_ENTRIES: usize = 100_000;

/// Identifies a file, whatever its name. No other file has the same while this one is held open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    identity: FileId,
}

impl LogFile {
    /// Opens the current file for appending and reading, and creates it if need be.
    pub(super) fn append_to(directory: &OpenDir) -> io::Result<Self> {
        Self::of(directory.append_to(CURRENT, FILE_MODE)?)
    }

    /// Takes a file that was opened. Refuses something else than a file.
    pub(super) fn of(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(Self::new(file, &metadata))
    }

    /// Opens a file for reading. Returns `None` if there is nothing, or something else than a file.
    pub(super) fn read_from(directory: &OpenDir, name: &str) -> io::Result<Option<Self>> {
        let opened = directory.open_file(name)?;
        Ok(opened.map(|(file, metadata)| Self::new(file, &metadata)))
    }

    fn new(file: File, metadata: &Metadata) -> Self {
        Self {
            file,
            identity: FileId::of(metadata),
        }
    }

    pub(super) fn identity(&self) -> FileId {
        self.identity
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Returns its length in bytes.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads at a position, and returns how many bytes; 0 at the end. Readers share the descriptor, and
    /// this does not move its position.
    pub(super) fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Returns whether its last line has no end.
    pub(super) fn is_torn(&self) -> io::Result<bool> {
        let length = self.length()?;
        let mut last = [0];
        Ok(length > 0 && self.read_at(&mut last, length - 1)? == 1 && last != *b"\n")
    }
}

/// Opens the directory of a log, and creates it if need be. A link, a pipe or a socket in its place is removed;
/// the directory above must not be a link itself.
pub(super) fn make_directory(path: &Path) -> io::Result<OpenDir> {
    match split(path) {
        Some((above, name)) => open_or_create_dir(above, PUBLIC)?.ensure_dir(name, PRIVATE),
        None => open_or_create_dir(path, PRIVATE),
    }
}

/// Opens the directory of a log, to read in it. Returns `None` if there is none, or if it or its parent is a
/// link.
pub(super) fn find_directory(path: &Path) -> io::Result<Option<OpenDir>> {
    let Some((above, name)) = split(path) else {
        return OpenDir::find_as_is(path);
    };
    match OpenDir::find_as_is(above)? {
        Some(above) => above.find_in(name),
        None => Ok(None),
    }
}

/// Returns the parent directory, and the name in it.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let (above, name) = (path.parent()?, path.file_name()?);
    if above.as_os_str().is_empty() {
        return Some((Path::new("."), name));
    }
    Some((above, name))
}

/// Returns the old logs in a directory, oldest first. Those that are created meanwhile may be missing. Something
/// else than a file is left out, whatever its name, and so is what comes after 100,000 other entries.
pub(super) fn old_logs(directory: &OpenDir) -> io::Result<Vec<Timestamp>> {
    let mut stamps = Vec::new();
    for entry in directory.list()?.take(MOST_ENTRIES) {
        let entry = entry?;
        let name = entry.file_name();
        let Some(stamp) = name.to_str().ok().and_then(Timestamp::from_file_name) else {
            continue;
        };
        let kind = match entry.file_type() {
            FileType::Unknown => directory.kind(name)?,
            kind => Some(kind),
        };
        if kind == Some(FileType::RegularFile) {
            stamps.push(stamp);
        }
    }
    stamps.sort_unstable();
    Ok(stamps)
}

/// Returns the length of an old log in bytes; `None` if it is not there.
pub(super) fn old_length(directory: &OpenDir, stamp: Timestamp) -> Option<u64> {
    let opened = directory.open_file(stamp.file_name()).ok()?;
    opened.map(|(_, metadata)| metadata.len())
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn links_and_pipes_are_refused_without_waiting() {
        let scratch = Scratch::new("refused");
        let directory = make_directory(&scratch.logs()).unwrap();
        let target = scratch.path().join("target");
        std::fs::write(&target, "kept").unwrap();
        let current = scratch.logs().join(CURRENT);
        std::os::unix::fs::symlink(&target, &current).unwrap();
        assert!(LogFile::append_to(&directory).is_err());
        assert!(LogFile::read_from(&directory, CURRENT).unwrap().is_none());

        std::fs::remove_file(&current).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&current).status();
        assert!(made.unwrap().success());
        assert!(LogFile::append_to(&directory).is_err());
        assert!(LogFile::read_from(&directory, CURRENT).unwrap().is_none());
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
    }

    #[test]
    fn only_old_logs_are_listed() {
        let scratch = Scratch::new("listed");
        for name in [
            "output.log",
            "output-2026-02-21T11-50-22.965.log",
            "output-2025-12-31T23-59-59.000.log",
            "output-2026-02-21T11-50-22.965.log.gz",
            "notes",
        ] {
            std::fs::write(scratch.path().join(name), "").unwrap();
        }
        let directory = find_directory(scratch.path()).unwrap().unwrap();
        let names: Vec<String> = old_logs(&directory)
            .unwrap()
            .into_iter()
            .map(Timestamp::file_name)
            .collect();
        assert_eq!(
            names,
            [
                "output-2025-12-31T23-59-59.000.log",
                "output-2026-02-21T11-50-22.965.log"
            ]
        );
        let missing = find_directory(&scratch.path().join("missing"));
        assert!(missing.unwrap().is_none());
    }
}
