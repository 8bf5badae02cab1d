//! The files of a log: opening them safely, telling them apart, listing the old ones. Writing and
//! rotating is in `rotate`, the order to read them in is in `trail`.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::stamp::Stamp;
use crate::package::{OpenDir, PRIVATE, PUBLIC, open_made};

/// The file that is being written.
pub(super) const CURRENT: &str = "output.log";

/// What a file is, whatever its name. No other file has the same while this one is held open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
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
    identity: Identity,
}

impl LogFile {
    /// Opens a file for appending and reading, made if there is none.
    pub(super) fn append_to(directory: &OpenDir, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
        Self::open(directory, name, flags)
    }

    /// Opens a file for reading; none if there is none.
    pub(super) fn read_from(directory: &Path, name: &str) -> io::Result<Option<Self>> {
        let Some(directory) = find_directory(directory)? else {
            return Ok(None);
        };
        match Self::open(&directory, name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        }
    }

    /// The plugin may write to the directory too: what it puts there must neither lead us elsewhere
    /// (links) nor hold us up (named pipes).
    fn open(directory: &OpenDir, name: &str, flags: OFlags) -> io::Result<Self> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(rustix::fs::openat(directory, name, flags, mode)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(Self {
            file,
            identity: Identity::of(&metadata),
        })
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Its length in bytes, now.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads what there is at a position; 0 bytes at the end. Readers share the descriptor, so
    /// there is no common position that they could move.
    pub(super) fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Whether its last line has no end.
    pub(super) fn is_torn(&self) -> io::Result<bool> {
        let length = self.length()?;
        let mut last = [0];
        Ok(length > 0 && self.read_at(&mut last, length - 1)? == 1 && last != *b"\n")
    }
}

/// The directory of a log, made if it is not there. A link in its place is removed, as is any other thing
/// but a file: the plugin may have put it there. Nor may the directory above it be a link.
pub(super) fn make_directory(directory: &Path) -> io::Result<OpenDir> {
    let (above, name) = parts(directory)?;
    open_made(above, PUBLIC)?.own(name, PRIVATE)
}

/// The directory of a log; none if there is none, or something else in its place.
fn find_directory(directory: &Path) -> io::Result<Option<OpenDir>> {
    let (above, name) = parts(directory)?;
    match OpenDir::find(above)? {
        Some(above) => above.find_in(name),
        None => Ok(None),
    }
}

/// The path above a directory, and its name.
fn parts(directory: &Path) -> io::Result<(&Path, &str)> {
    let name = directory.file_name().and_then(|name| name.to_str());
    let name = name.ok_or(io::ErrorKind::InvalidInput)?;
    match directory.parent() {
        Some(above) if !above.as_os_str().is_empty() => Ok((above, name)),
        _ => Ok((Path::new("."), name)),
    }
}

/// The old logs in a folder, oldest first; none if there is no such folder. Of those that come to be
/// meanwhile it may have any.
pub(super) fn old_logs(directory: &Path) -> io::Result<Vec<Stamp>> {
    let Some(directory) = find_directory(directory)? else {
        return Ok(Vec::new());
    };
    let mut stamps = Vec::new();
    for entry in directory.list()? {
        let entry = entry?;
        let name = entry.file_name().to_str().ok();
        stamps.extend(name.and_then(Stamp::from_file_name));
    }
    stamps.sort_unstable();
    Ok(stamps)
}

/// Bytes in an old log; none if it is not there.
pub(super) fn old_length(directory: &Path, stamp: Stamp) -> Option<u64> {
    let metadata = fs::symlink_metadata(directory.join(stamp.file_name())).ok()?;
    Some(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn links_and_pipes_are_refused_without_waiting() {
        let scratch = Scratch::new("refused");
        let target = scratch.path().join("target");
        fs::write(&target, "kept").unwrap();
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let directory = make_directory(scratch.path()).unwrap();
        let refuses = |name| {
            LogFile::append_to(&directory, name).is_err()
                && LogFile::read_from(scratch.path(), name).is_err()
        };
        assert!(refuses("link"));

        let pipe = scratch.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(refuses("pipe"));
    }

    #[test]
    fn a_link_in_the_place_of_the_directory_leads_nowhere() {
        let scratch = Scratch::new("linked");
        let elsewhere = scratch.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let old = "output-2026-02-21T11-50-22.965.log";
        fs::write(elsewhere.join(CURRENT), "kept").unwrap();
        fs::write(elsewhere.join(old), "kept").unwrap();
        std::os::unix::fs::symlink(&elsewhere, scratch.logs()).unwrap();
        assert!(
            LogFile::read_from(&scratch.logs(), CURRENT)
                .unwrap()
                .is_none()
        );
        assert!(old_logs(&scratch.logs()).unwrap().is_empty());
        let directory = make_directory(&scratch.logs()).unwrap();
        LogFile::append_to(&directory, CURRENT).unwrap();
        assert!(!scratch.logs().is_symlink());
        for name in [CURRENT, old] {
            assert_eq!(fs::read_to_string(elsewhere.join(name)).unwrap(), "kept");
        }
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
            fs::write(scratch.path().join(name), "").unwrap();
        }
        let names: Vec<String> = old_logs(scratch.path())
            .unwrap()
            .into_iter()
            .map(Stamp::file_name)
            .collect();
        assert_eq!(
            names,
            [
                "output-2025-12-31T23-59-59.000.log",
                "output-2026-02-21T11-50-22.965.log"
            ]
        );
        assert!(
            old_logs(&scratch.path().join("missing"))
                .unwrap()
                .is_empty()
        );
    }
}
