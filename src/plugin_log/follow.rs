//! `Follower`: reads a log from its oldest line or one of its last, and waits for more.
//!
//! No line is lost across rotation because a follower never lets go of a file before it has read it to an end
//! that it saw *after* it knew that nothing more comes. It knows the next file not by its time but by the
//! writer's sequence numbers.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::file::{self, LogFile};
use super::handle::PluginLog;
use super::line::without_end;
use super::rotate::FilePosition;
use super::timestamp::Timestamp;
use crate::deadline::Deadline;
use crate::error::{Error, Phase, Result};
use crate::line_splitter::LineSplitter;

/// Bytes that are read at once. All lines in them are held until they are returned.
const READ_SIZE: usize = 16 * 1024;

/// Our writer cuts lines far below this; a file that came from elsewhere may hold anything.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// Bytes that are searched for the last lines in any case: files from before the settings were changed may be
/// larger than these say.
const LEAST_SEARCHED: u64 = 64 * 1024 * 1024;

/// Follows the log of one installation, across rotation, unloading and loading, without losing a line.
///
/// Returned by [`Manager::follow_log`] and [`Session::follow_log`]. It begins with the oldest line that is kept,
/// or where [`last`](Self::last) or [`from_end`](Self::from_end) says. It ends when [`Manager::remove`]
/// removes the installation, and in no other way: after a shutdown of the host nothing more comes. It
/// holds at most two files open, also ones that were deleted meanwhile, and starts no thread.
///
/// ```no_run
/// use std::time::Duration;
///
/// use plugin_runner::plugin_log::Followed;
///
/// # fn main() -> plugin_runner::Result<()> {
/// # let manager = plugin_runner::Manager::new(plugin_runner::Host::builder().build()?)?;
/// # let id = manager.list()?.remove(0).id();
/// let mut follower = manager.follow_log(id)?.last(100)?;
/// loop {
///     match follower.next(Duration::from_secs(60)) {
///         Ok(Followed::Line(line)) => println!("{line}"),
///         Ok(other) => println!("… {other} here"),
///         Err(error) if error.is_timeout() => break,
///         Err(error) => return Err(error),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// [`Manager::follow_log`]: crate::Manager::follow_log
/// [`Manager::remove`]: crate::Manager::remove
/// [`Session::follow_log`]: crate::Session::follow_log
pub struct Follower {
    log: Arc<PluginLog>,
    /// That of the file that is being read, or before the first.
    place: FilePosition,
    reading: Option<OpenFile>,
    /// The generation at the last look.
    generation: u64,
    buffer: Vec<u8>,
    splitter: LineSplitter,
    /// What was read already.
    lines: VecDeque<String>,
    gap: Option<Followed>,
}

/// What a follower found next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Followed {
    /// A whole line, without its end. Bytes that are not UTF-8 are replaced by `U+FFFD`. Lines
    /// over 16 MiB, which the host never writes, come in pieces that end in [`CONTINUES`](super::CONTINUES).
    Line(String),
    /// Lines were deleted before they could be read: the follower is slower than what is kept.
    Gap {
        /// How many whole files are missing. `None` when that cannot be known, because a file was made shorter.
        files: Option<u64>,
        /// How many bytes are missing. `None` when `files` is.
        bytes: Option<u64>,
    },
}

/// A line as it is; what is missing, in words.
impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => f.write_str(line),
            Self::Gap { bytes: Some(1), .. } => f.write_str("1 byte is missing"),
            Self::Gap {
                bytes: Some(bytes), ..
            } => write!(f, "{bytes} bytes are missing"),
            Self::Gap { bytes: None, .. } => f.write_str("something may be missing"),
        }
    }
}

struct OpenFile {
    file: Arc<LogFile>,
    position: u64,
}

impl Follower {
    pub(super) fn new(log: Arc<PluginLog>) -> Self {
        Self {
            place: log.view(|view| view.files.before_first()),
            log,
            reading: None,
            generation: 0,
            buffer: vec![0; READ_SIZE],
            splitter: LineSplitter::new(MAX_LINE),
            lines: VecDeque::new(),
            gap: None,
        }
    }

    /// Goes to the last `lines` lines that are there now, however many files they are in, or to the oldest if
    /// there are not that many. What has been read before does not matter. A half-written line does not count,
    /// and comes as well once it is whole.
    ///
    /// The files are read backward, in blocks of 16 KiB, as far as the lines reach, but no further than through
    /// as many bytes as [`LogSettings`](super::LogSettings) keep, or 64 MiB if that is more: the plugin may have
    /// made its files larger. No line is held in memory for this, so any number may be asked for.
    ///
    /// # Blocking
    /// For reading these files.
    ///
    /// # Errors
    /// [`Error::Io`]: a file or the directory cannot be read.
    pub fn last(mut self, lines: usize) -> Result<Self> {
        match self.go_back(lines) {
            Ok(()) => Ok(self),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Goes to the end: only lines come that are written from now on, and one that is half-written now.
    ///
    /// # Blocking
    /// For reading the beginning of such a line.
    ///
    /// # Errors
    /// [`Error::Io`]: the file cannot be read.
    pub fn from_end(self) -> Result<Self> {
        self.last(0)
    }

    fn failed(&self, error: io::Error) -> Error {
        let directory = self.log.directory().display();
        Error::io(format!("read log in {directory}"), error)
    }

    fn go_back(&mut self, lines: usize) -> io::Result<()> {
        let (current, old) = self.log.view(|view| {
            let old: Vec<_> = view.files.old.iter().copied().collect();
            (view.files.current.clone(), old)
        });
        self.reading = None;
        self.lines.clear();
        self.splitter = LineSplitter::new(MAX_LINE);
        self.gap = None;
        let newest = current.as_ref().map(|(place, _)| *place);
        let newest = newest.or_else(|| old.last().map(|(place, _)| *place));
        // Whatever else can be read, nothing is missing before what comes after these.
        self.place = newest.unwrap_or(self.place);
        let mut search = Search {
            wanted: lines,
            bytes: self.log.settings().kept_bytes().max(LEAST_SEARCHED),
        };
        if let Some((_, file)) = current {
            self.begin_with(self.place, file, false, &mut search)?;
        }
        for (place, stamp) in old.into_iter().rev() {
            if search.wanted == 0 || search.bytes == 0 {
                break;
            }
            if let Some(file) = self.open_old(stamp)? {
                self.begin_with(place, file, true, &mut search)?;
            }
        }
        Ok(())
    }

    /// Begins in this file, so that at most the lines that are still wanted are read.
    fn begin_with(
        &mut self,
        place: FilePosition,
        file: Arc<LogFile>,
        ended: bool,
        search: &mut Search,
    ) -> io::Result<()> {
        let (position, count) = search.last_lines(&file, ended, &mut self.buffer)?;
        search.wanted -= count;
        self.place = place;
        self.reading = Some(OpenFile { file, position });
        Ok(())
    }

    /// Opens an old file; returns `None` if it is gone.
    fn open_old(&self, stamp: Timestamp) -> io::Result<Option<Arc<LogFile>>> {
        let Some(directory) = file::find_directory(self.log.directory())? else {
            return Ok(None);
        };
        let file = LogFile::read_from(&directory, &stamp.file_name())?;
        Ok(file.map(Arc::new))
    }

    /// Returns the next line, or what is missing before it. Lines come in the order of the log: old files from
    /// the oldest on, the current file from its start, then new lines as they are written. A half-written line
    /// is waited for.
    ///
    /// # Blocking
    /// Until there is one, at most for `timeout`; zero does not wait. A write to the log and a removal of the
    /// installation wake it.
    ///
    /// # Errors
    /// - [`Error::Timeout`] with [`Phase::Log`]: nothing came. Call again to go on.
    /// - [`Error::NotInstalled`]: the installation has been removed and everything has been read.
    /// - [`Error::Io`]: a file or the directory cannot be read. Nothing was skipped; calling again
    ///   tries again.
    pub fn next(&mut self, timeout: Duration) -> Result<Followed> {
        let deadline = Deadline::after(timeout);
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(Followed::Line(line));
            }
            if let Some(gap) = self.gap.take() {
                return Ok(gap);
            }
            let ended = self.look();
            let more = self.read(ended).map_err(|error| self.failed(error))?;
            if !more && !self.log.wait_for_change(self.generation, deadline)? {
                return Err(Error::timeout(Phase::Log, timeout));
            }
        }
    }

    /// Returns whether nothing more is appended to the file that is being read. Must be called before reading:
    /// only then the end that is read is the end.
    fn look(&mut self) -> bool {
        let (generation, current) = self.log.view(|view| {
            let current = view.files.current.as_ref();
            (view.generation, current.map(|(place, _)| place.sequence))
        });
        self.generation = generation;
        current != Some(self.place.sequence)
    }

    /// Reads on in the file, or goes on to the next. Returns false when there is nothing more yet.
    ///
    /// `ended` was found out before: an end that is read now is the end for good if it is set.
    fn read(&mut self, ended: bool) -> io::Result<bool> {
        if let Some(reading) = &mut self.reading {
            let count = reading.file.read_at(&mut self.buffer, reading.position)?;
            reading.position += count as u64;
            if count > 0 {
                let lines = &mut self.lines;
                self.splitter
                    .push(&self.buffer[..count], |line| lines.push_back(text(line)));
                return Ok(true);
            }
            if reading.file.length()? < reading.position {
                // The file was made shorter instead of being rotated.
                reading.position = 0;
                self.end_line();
                self.gap = Some(Followed::Gap {
                    files: None,
                    bytes: None,
                });
                return Ok(true);
            }
            if !ended {
                return Ok(false);
            }
        }
        self.advance()
    }

    /// Goes on to the next file that is still there, if there is one.
    fn advance(&mut self) -> io::Result<bool> {
        let mut known = self.place.sequence;
        let (place, file) = loop {
            let next = self.log.view(|view| {
                let files = &view.files;
                let old = files.old.iter().find(|(place, _)| place.sequence > known);
                match (old, &files.current) {
                    (Some((place, stamp)), _) => Some((*place, Err(*stamp))),
                    (None, Some((place, file))) if place.sequence > known => {
                        Some((*place, Ok(Arc::clone(file))))
                    }
                    _ => None,
                }
            });
            match next {
                None => return Ok(false),
                Some((place, Ok(current))) => break (place, current),
                Some((place, Err(stamp))) => {
                    if let Some(file) = self.open_old(stamp)? {
                        break (place, file);
                    }
                    known = place.sequence;
                }
            }
        };
        // The last line of the file before may have no end, if its writer died while writing it.
        self.end_line();
        let position = self.reading.as_ref().map_or(0, |reading| reading.position);
        let missing = place.sequence - self.place.sequence - 1;
        self.gap = (missing > 0).then(|| Followed::Gap {
            files: Some(missing),
            bytes: Some(place.start.saturating_sub(self.place.start + position)),
        });
        self.place = place;
        self.reading = Some(OpenFile { file, position: 0 });
        Ok(true)
    }

    /// Ends the line that has been begun, if any.
    fn end_line(&mut self) {
        let lines = &mut self.lines;
        self.splitter.finish(|line| lines.push_back(text(line)));
    }
}

/// What is still searched for, backward through the files.
struct Search {
    wanted: usize,
    /// How many bytes may still be read.
    bytes: u64,
}

impl Search {
    /// Returns where the last lines of a file begin that are wanted, and how many there are. If the file has
    /// `ended`, what is behind its last line end is a line, and otherwise none yet.
    fn last_lines(
        &mut self,
        file: &LogFile,
        ended: bool,
        buffer: &mut [u8],
    ) -> io::Result<(u64, usize)> {
        let mut start = file.length()?;
        let mut found = 0;
        if ended && file.is_torn()? {
            if self.wanted == 0 {
                return Ok((start, 0));
            }
            found = 1;
        }
        let mut earliest = None;
        while start > 0 {
            let length = start.min(buffer.len() as u64).min(self.bytes);
            if length == 0 {
                // The line before the earliest end may begin anywhere.
                return Ok(earliest.map_or((start, found), |end| (end + 1, found - 1)));
            }
            self.bytes -= length;
            start -= length;
            let block = &mut buffer[..usize::try_from(length).unwrap_or(usize::MAX)];
            // Less if it is made shorter meanwhile, which is noticed when it is read.
            let count = file.read_at(block, start)?;
            for end in memchr::memrchr_iter(b'\n', &block[..count]) {
                let end = start + end as u64;
                if found == self.wanted {
                    return Ok((end + 1, found));
                }
                found += 1;
                earliest = Some(end);
            }
        }
        Ok((0, found))
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(without_end(line)).into_owned()
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("directory", &self.log.directory())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
