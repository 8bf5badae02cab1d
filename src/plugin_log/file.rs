//! The files of a log: opening them safely, telling them apart, listing the old ones. Writing and
//! rotating is in `rotate`, the order to read them in is in `trail`.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::stamp::Stamp;

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
    pub(super) fn append_to(path: &Path) -> io::Result<Self> {
        Self::open(
            path,
            OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600),
        )
    }

    /// Opens a file for reading; none if there is none.
    pub(super) fn read_from(path: &Path) -> io::Result<Option<Self>> {
        match Self::open(path, OpenOptions::new().read(true)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        }
    }

    /// The plugin may write to the folder too: what it puts there must neither lead us elsewhere
    /// (links) nor hold us up (named pipes).
    fn open(path: &Path, options: &mut OpenOptions) -> io::Result<Self> {
        use rustix::fs::OFlags;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = options
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
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

/// The old logs in a folder, oldest first; none if there is no such folder. Of those that come to be
/// meanwhile it may have any.
pub(super) fn old_logs(directory: &Path) -> io::Result<Vec<Stamp>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut stamps = Vec::new();
    for entry in entries {
        if let Some(stamp) = entry?.file_name().to_str().and_then(Stamp::from_file_name) {
            stamps.push(stamp);
        }
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
        assert!(LogFile::append_to(&link).is_err());
        assert!(LogFile::read_from(&link).is_err());

        let pipe = scratch.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(LogFile::append_to(&pipe).is_err());
        assert!(LogFile::read_from(&pipe).is_err());
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
