//! `Follower`: reads a log from its oldest line, and waits for more. Which file comes next is
//! `trail`'s business.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::file::LogFile;
use super::handle::Shared;
use super::line::without_end;
use super::trail::{DirectoryTrail, LiveTrail, Missing, Next};
use crate::deadline::Deadline;
use crate::error::{Error, Phase, Result};

/// Bytes that are read at once.
const READ_SIZE: usize = 64 * 1024;

/// Our writer cuts lines far below this; a file that came from elsewhere may hold anything.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// Follows one log, across rotation and without losing a line.
///
/// Made by [`PluginLog::follow`](super::PluginLog::follow), or by [`open`](Self::open) for a folder that
/// another process writes to. It never ends by itself. It holds at most one or two files open, also
/// ones that were deleted meanwhile, and starts no thread.
pub struct Follower {
    directory: PathBuf,
    trail: Trail,
    reading: Option<Reading>,
    lines: LineBuffer,
    gap: Option<Gap>,
}

/// What a follower found next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Followed {
    /// A whole line, without its end. Bytes that are not UTF-8 are replaced by `U+FFFD`. Lines
    /// over 16 MiB, which no [`PluginLog`](super::PluginLog) writes, come in pieces.
    Line(String),
    /// Lines were deleted before they could be read: the follower is slower than what is kept.
    Gap(Gap),
}

/// What is missing between the lines before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// How many whole files. `None` when that cannot be told: the folder is followed without its
    /// writer, and the very file that was being read is gone (then possibly nothing is missing), or
    /// a file was made shorter.
    pub files: Option<u64>,
    /// How many bytes. `None` when [`files`](Self::files) is, or when a file was deleted before
    /// anybody saw how long it was.
    pub bytes: Option<u64>,
}

impl Gap {
    const UNKNOWN: Self = Self {
        files: None,
        bytes: None,
    };
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.files, self.bytes) {
            (_, Some(1)) => f.write_str("1 byte is missing"),
            (_, Some(bytes)) => write!(f, "{bytes} bytes are missing"),
            (Some(1), None) => f.write_str("1 file is missing"),
            (Some(files), None) => write!(f, "{files} files are missing"),
            (None, None) => f.write_str("something may be missing"),
        }
    }
}

enum Trail {
    Live(LiveTrail),
    Directory(DirectoryTrail),
}

struct Reading {
    file: Arc<LogFile>,
    position: u64,
}

impl Follower {
    /// Follows the log in a folder that another process writes to, from the oldest line that is
    /// there at the first call of [`next`](Self::next). The folder need not exist yet. New lines are
    /// looked for ten times a second.
    ///
    /// A link counts as nothing, in the place of the folder, of the one above, or of a file, and so does
    /// a named pipe: the plugin may have put it there.
    pub fn open(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let trail = Trail::Directory(DirectoryTrail::new(directory.clone()));
        Self::new(directory, trail)
    }

    pub(super) fn live(shared: Arc<Shared>, directory: PathBuf) -> Self {
        let trail = Trail::Live(LiveTrail::new(shared, directory.clone()));
        Self::new(directory, trail)
    }

    fn new(directory: PathBuf, trail: Trail) -> Self {
        Self {
            directory,
            trail,
            reading: None,
            lines: LineBuffer::default(),
            gap: None,
        }
    }

    /// The next line, or what is missing before it. Lines come in the order of the log: old files
    /// from the oldest on, the current file from its start, then new lines as they are written. A
    /// half-written line is waited for.
    ///
    /// Blocks until then, and at most for `timeout`; zero only looks. Nothing else wakes it.
    ///
    /// # Errors
    /// - [`Error::Timeout`] with [`Phase::Log`]: nothing came. Call again to go on.
    /// - [`Error::Io`]: a file or the folder cannot be read. Nothing was skipped; calling again
    ///   tries again.
    pub fn next(&mut self, timeout: Duration) -> Result<Followed> {
        let deadline = Deadline::after(timeout);
        loop {
            if let Some(line) = self.lines.take() {
                return Ok(Followed::Line(line));
            }
            if let Some(gap) = self.gap.take() {
                return Ok(Followed::Gap(gap));
            }
            let more = self.read_more().map_err(|error| {
                Error::io(format!("read log in {}", self.directory.display()), error)
            })?;
            if !more && !self.trail.wait(deadline) {
                return Err(Error::timeout(Phase::Log, timeout));
            }
        }
    }

    /// Reads on in the file, or goes on to the next. Gives false when there is nothing more yet.
    fn read_more(&mut self) -> io::Result<bool> {
        let ended = self.trail.look(self.reading.as_ref())?;
        self.read(ended)
    }

    /// `ended` was found out before: an end that is read now is the end for good if it is set.
    fn read(&mut self, ended: bool) -> io::Result<bool> {
        if let Some(reading) = &mut self.reading {
            let count = self.lines.read_from(&reading.file, reading.position)?;
            reading.position += count as u64;
            if count > 0 {
                return Ok(true);
            }
            if reading.file.length()? < reading.position {
                // Somebody made the file shorter instead of rotating it.
                reading.position = 0;
                self.lines.end();
                self.gap = Some(Gap::UNKNOWN);
                return Ok(true);
            }
            if !ended {
                return Ok(false);
            }
        }
        let position = self.reading.as_ref().map_or(0, |reading| reading.position);
        let Some(Next { file, missing }) = self.trail.advance(position)? else {
            return Ok(false);
        };
        // The last line of the file before may have no end, if its writer died while writing it.
        self.lines.end();
        self.gap = match missing {
            Missing::None => None,
            Missing::Files { count, bytes } => Some(Gap {
                files: Some(count),
                bytes,
            }),
            Missing::Unknown => Some(Gap::UNKNOWN),
        };
        self.reading = Some(Reading { file, position: 0 });
        Ok(true)
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("directory", &self.directory)
            .field("live", &matches!(self.trail, Trail::Live(_)))
            .finish_non_exhaustive()
    }
}

impl Trail {
    fn look(&mut self, reading: Option<&Reading>) -> io::Result<bool> {
        match self {
            Self::Live(trail) => Ok(trail.look()),
            Self::Directory(trail) => trail.look(reading.map(|reading| &*reading.file)),
        }
    }

    fn advance(&mut self, position: u64) -> io::Result<Option<Next>> {
        match self {
            Self::Live(trail) => trail.advance(position),
            Self::Directory(trail) => trail.advance(),
        }
    }

    fn wait(&mut self, deadline: Deadline) -> bool {
        match self {
            Self::Live(trail) => match trail.without_writer() {
                Some(directory) => {
                    *self = Self::Directory(directory);
                    true
                }
                None => trail.wait(deadline),
            },
            Self::Directory(_) => DirectoryTrail::wait(deadline),
        }
    }
}

/// Bytes that were read, given out as lines.
#[derive(Default)]
struct LineBuffer {
    bytes: Vec<u8>,
    /// Where the next line starts.
    start: usize,
    /// Up to where there is no line end, so that long lines are not searched again and again.
    searched: usize,
}

impl LineBuffer {
    /// Reads what comes next in a file; gives how many bytes.
    fn read_from(&mut self, file: &LogFile, position: u64) -> io::Result<usize> {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        let length = self.bytes.len();
        self.bytes.resize(length + READ_SIZE, 0);
        let result = file.read_at(&mut self.bytes[length..], position);
        let count = *result.as_ref().unwrap_or(&0);
        self.bytes.truncate(length + count);
        result
    }

    fn take(&mut self) -> Option<String> {
        let unsearched = &self.bytes[self.searched..];
        let end = match unsearched.iter().position(|byte| *byte == b'\n') {
            Some(length) => self.searched + length + 1,
            None if self.bytes.len() - self.start >= MAX_LINE => self.bytes.len(),
            None => {
                self.searched = self.bytes.len();
                return None;
            }
        };
        let line = without_end(&self.bytes[self.start..end]);
        let line = String::from_utf8_lossy(line).into_owned();
        self.start = end;
        self.searched = end;
        Some(line)
    }

    /// Ends the line that has been begun, if any.
    fn end(&mut self) {
        if self.start < self.bytes.len() {
            self.bytes.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests;
