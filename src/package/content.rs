//! `ArchiveContent`: the bytes of an archive, in memory or in a file, and readers of them. What they mean is
//! the business of `central_directory`, `check` and `archive`.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::PackageError;

/// Bytes that one read of a file asks for: the zip library wants a few at a time.
const BUFFER: usize = 64 * 1024;
/// Bytes per read of a pass over a whole file.
const FILE_CHUNK: usize = 256 * 1024;

/// How far apart two changes of a file have to be so that their times differ: the clock of file systems ticks
/// at least a hundred times per second. Where a file system keeps whole seconds, nothing is cached.
const TICK: Duration = Duration::from_millis(50);

/// The bytes of an archive. Cloning shares them.
///
/// **A file must be private**: nothing may change it from the moment it is checked until it has been
/// unpacked, since every step reads it again; removing it does no harm. Read a file that others may change
/// into memory instead, as [`Archive::open`](super::Archive::open) does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ArchiveContent {
    /// In memory.
    Memory(Arc<[u8]>),
    /// In a file that is open for reading, from its beginning to its end. The file's own position is
    /// neither used nor moved.
    File(Arc<File>),
}

impl ArchiveContent {
    /// Returns the number of bytes.
    ///
    /// # Blocking
    /// For asking the file system, if they are in a file.
    ///
    /// # Errors
    /// The system's error, if the file cannot be asked.
    pub fn size(&self) -> io::Result<u64> {
        match self {
            Self::Memory(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => Ok(file.metadata()?.len()),
        }
    }

    /// Returns a reader at the beginning. Each reader has a position of its own.
    pub fn reader(&self) -> impl Read + Seek + Send + use<> {
        self.open()
    }

    pub(super) fn open(&self) -> ArchiveReader {
        ArchiveReader {
            content: self.clone(),
            position: 0,
            buffer: Vec::new(),
            buffer_start: 0,
        }
    }
}

impl From<Vec<u8>> for ArchiveContent {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Memory(bytes.into())
    }
}

impl From<Arc<[u8]>> for ArchiveContent {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Memory(bytes)
    }
}

impl From<File> for ArchiveContent {
    fn from(file: File) -> Self {
        Self::File(Arc::new(file))
    }
}

/// Reads an archive's bytes, from its own position. A clone starts at the same position.
#[derive(Debug)]
pub(super) struct ArchiveReader {
    content: ArchiveContent,
    position: u64,
    /// A part of the file, read ahead; empty until it is needed.
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl ArchiveReader {
    /// Returns the buffered bytes from the position on.
    fn buffered(&self) -> &[u8] {
        self.position
            .checked_sub(self.buffer_start)
            .and_then(|start| self.buffer.get(usize::try_from(start).ok()?..))
            .unwrap_or_default()
    }

    fn read_file(&mut self, file: &File, target: &mut [u8]) -> io::Result<usize> {
        if self.buffered().is_empty() {
            if target.len() >= BUFFER {
                return file.read_at(target, self.position);
            }
            self.buffer.resize(BUFFER, 0);
            // Nothing is buffered if the reading fails.
            self.buffer_start = self.position;
            let count = file.read_at(&mut self.buffer, self.position);
            self.buffer.truncate(*count.as_ref().unwrap_or(&0));
            count?;
        }
        Ok(copy_start(self.buffered(), target))
    }
}

impl Clone for ArchiveReader {
    fn clone(&self) -> Self {
        Self {
            position: self.position,
            ..self.content.open()
        }
    }
}

impl Read for ArchiveReader {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = match &self.content {
            ArchiveContent::Memory(bytes) => {
                let start = usize::try_from(self.position).unwrap_or(usize::MAX);
                copy_start(bytes.get(start..).unwrap_or_default(), target)
            }
            ArchiveContent::File(file) => {
                let file = file.clone();
                self.read_file(&file, target)?
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for ArchiveReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.content.size()?.checked_add_signed(by),
        };
        self.position = position.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

fn copy_start(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}

/// The bytes of an archive by offset: borrowed from memory, or read from a file.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    content: &'a ArchiveContent,
    size: u64,
}

impl<'a> Bytes<'a> {
    /// # Errors
    /// [`PackageError::Unreadable`].
    pub(super) fn of(content: &'a ArchiveContent) -> Result<Self, PackageError> {
        let size = content.size().map_err(unreadable)?;
        Ok(Self { content, size })
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Returns `length` bytes from `start` on; `None` if the archive ends before. They may be allocated, so
    /// the caller has to bound the length.
    ///
    /// # Errors
    /// [`PackageError::Unreadable`].
    pub(super) fn range(
        &self,
        start: u64,
        length: usize,
    ) -> Result<Option<Cow<'a, [u8]>>, PackageError> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        match self.content {
            ArchiveContent::Memory(bytes) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                let rest = bytes.get(start..).unwrap_or_default();
                Ok(rest.get(..length).map(Cow::Borrowed))
            }
            ArchiveContent::File(file) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, start).map_err(unreadable)?;
                Ok(Some(Cow::Owned(bytes)))
            }
        }
    }

    /// Calls `chunk` with all bytes, at most so many at a time.
    ///
    /// # Errors
    /// [`PackageError::Unreadable`], and those of `chunk`.
    pub(super) fn chunks(
        &self,
        most: usize,
        mut chunk: impl FnMut(&[u8]) -> Result<(), PackageError>,
    ) -> Result<(), PackageError> {
        match self.content {
            ArchiveContent::Memory(bytes) => bytes.chunks(most).try_for_each(chunk),
            ArchiveContent::File(file) => {
                let mut buffer = vec![0; most.min(FILE_CHUNK)];
                let mut start = 0;
                while start < self.size {
                    let left = usize::try_from(self.size - start).unwrap_or(usize::MAX);
                    let count = left.min(buffer.len());
                    let part = &mut buffer[..count];
                    file.read_exact_at(part, start).map_err(unreadable)?;
                    chunk(part)?;
                    start += count as u64;
                }
                Ok(())
            }
        }
    }

    /// Checks whether the archive contains these few bytes anywhere.
    ///
    /// # Errors
    /// [`PackageError::Unreadable`].
    pub(super) fn contain(&self, few: &[u8]) -> Result<bool, PackageError> {
        let finder = memchr::memmem::Finder::new(few);
        // The end of the last chunk, since they may stand across two.
        let mut seam = Vec::new();
        let mut found = false;
        self.chunks(FILE_CHUNK, |chunk| {
            let overlap = few.len().saturating_sub(1);
            seam.extend_from_slice(&chunk[..overlap.min(chunk.len())]);
            found |= finder.find(&seam).is_some() || finder.find(chunk).is_some();
            seam.clear();
            seam.extend_from_slice(&chunk[chunk.len().saturating_sub(overlap)..]);
            Ok(())
        })?;
        Ok(found)
    }
}

/// Distinguishes a file from every other, and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    content_changed: (i64, i64),
    inode_changed: (i64, i64),
}

impl FileIdentity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            content_changed: (metadata.mtime(), metadata.mtime_nsec()),
            inode_changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Checks whether a change after `now` is sure to be noticed: the last change is long enough ago for the
    /// next one to get another time.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.inode_changed;
        if seconds <= 0 || nanoseconds == 0 {
            // Most likely no clock set it: images that are built to be reproducible, and file systems
            // that keep no such time.
            return false;
        }
        let since_epoch = u64::try_from(seconds)
            .ok()
            .zip(u32::try_from(nanoseconds).ok())
            .map(|(seconds, nanoseconds)| Duration::new(seconds, nanoseconds));
        let ago = since_epoch
            .and_then(|changed| SystemTime::UNIX_EPOCH.checked_add(changed))
            .and_then(|changed| now.duration_since(changed).ok());
        ago.is_some_and(|ago| ago > TICK)
    }
}

/// Converts an error of reading an archive's file, for `map_err`.
pub(super) fn unreadable(source: io::Error) -> PackageError {
    PackageError::Unreadable { source }
}

#[cfg(test)]
mod tests;
