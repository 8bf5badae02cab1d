//! `Follower`: reads a log from somewhere on, and waits for more. Where it begins is in `beginning`.
//!
//! No line is lost across rotation because a follower never lets go of a file before it has read it to an end
//! that it saw *after* it knew that nothing more comes. It knows the next file not by its time but by the
//! writer's sequence numbers.
//!
//! The place behind a line is the number of bytes of the log before it, with a checksum of the line, by which it is
//! noticed if the files are not what they were. That costs nothing where lines are written.

mod beginning;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::file::{self, LogFile};
use super::handle::PluginLog;
use super::line::without_end;
use super::place::{Place, checksum};
use super::rotate::{FilePosition, KnownFile};
use super::times;
use crate::deadline::Deadline;
use crate::error::{Error, Phase, Result};
use crate::line_splitter::LineSplitter;

/// Bytes that are read at once, and held until they are returned.
const READ_SIZE: usize = 16 * 1024;

/// Lines that are longer than this are cut, unless the log may have longer ones. Our writer has cut them already;
/// what the plugin wrote into the file itself may hold anything.
const MAX_LINE: usize = 64 * 1024;

/// Follows the log of one installation, across rotation, unloading and loading, without losing a line.
///
/// Returned by [`Manager::follow_log`] and [`Session::follow_log`]. It begins with the oldest line that is kept,
/// or where [`last`](Self::last), [`from_end`](Self::from_end) or [`after`](Self::after) says. It ends when
/// [`Manager::remove`] removes the installation, and in no other way: after a shutdown of the host nothing more
/// comes. It starts no thread. While it is not asked for lines it holds up nothing: it keeps at most two files
/// open, also ones that were deleted meanwhile, and in memory the 16 KiB that were read last and a line that is
/// longer than these.
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
    at: FilePosition,
    reading: Option<OpenFile>,
    /// The generation at the last look.
    generation: u64,
    buffer: Box<[u8]>,
    /// Where in the buffer the bytes are that were read and not split into lines yet. They are the last that
    /// were read.
    unsplit: Range<usize>,
    splitter: LineSplitter,
    /// The line that has been begun has been split off in part.
    is_cut: bool,
    /// What was split already: the pieces of one line.
    lines: VecDeque<SplitLine>,
    gap: Option<Followed>,
    /// Behind what was returned last.
    place: Place,
    /// When the bytes between these positions were written, found out last.
    time: Box<(Range<u64>, Option<SystemTime>)>,
}

/// A line, or a piece of one, as it is in the file, without its `\n`.
struct SplitLine {
    bytes: Vec<u8>,
    /// The position behind the whole line; `None` after another piece of it.
    end: Option<u64>,
    /// Another piece of the line is before it.
    is_cut: bool,
}

/// What a follower found next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Followed {
    /// A whole line, without its end. Bytes that are not UTF-8 are replaced by `U+FFFD`. Lines
    /// over [`LogSettings::max_line`](super::LogSettings::max_line) and 64 KiB, which the host does not write,
    /// come in pieces, all but the last of which end in [`CONTINUES`](super::CONTINUES).
    Line(String),
    /// Lines were deleted before they could be read: the follower is slower than what is kept, or the place that
    /// [`Follower::after`] was given is gone.
    Gap {
        /// How many whole files are missing. `None` when that is not known: after a place that is gone, or
        /// because a file was made shorter.
        files: Option<u64>,
        /// How many bytes are missing. `None` when that is not known: a file was made shorter, or the place is
        /// not in this log.
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

fn splitter(log: &PluginLog) -> LineSplitter {
    LineSplitter::new(log.settings().max_line.max(MAX_LINE))
}

struct OpenFile {
    file: Arc<LogFile>,
    position: u64,
}

impl Follower {
    pub(super) fn new(log: Arc<PluginLog>) -> Self {
        let at = log.view(|view| view.files.before_first());
        Self {
            place: Place {
                log: log.name(),
                position: at.start,
                check: None,
            },
            at,
            splitter: splitter(&log),
            log,
            reading: None,
            generation: 0,
            buffer: vec![0; READ_SIZE].into_boxed_slice(),
            unsplit: 0..0,
            is_cut: false,
            lines: VecDeque::new(),
            gap: None,
            time: Box::new((0..0, None)),
        }
    }

    /// Returns the place behind what [`next`](Self::next) returned last, or where it begins, for
    /// [`after`](Self::after): `d5k1vvc5o2dtjn9ct4bg-4096-00a1b2c3d4e5f607`, at most 58 letters, digits and
    /// hyphens. It is meant to be kept, for example as the id of an event in a stream that a client takes up
    /// again.
    ///
    /// It names the same place after rotations and restarts of the host, and in a copy of the data directory,
    /// such as one from a backup. Nothing else should be read in it; only the log can tell which of two places
    /// comes first. Behind a piece of a [line that is cut](Followed::Line) it is where that line begins.
    ///
    /// With [`enabled`](super::LogSettings::enabled) off there are no places to come back to.
    pub fn place(&self) -> String {
        self.place.to_string()
    }

    /// Returns when the line before [`place`](Self::place) was printed, or up to a second earlier; `None` if that is
    /// not known. The log itself has no times. The host notes them in a file beside it, for the lines that are kept,
    /// by the system's clock at that moment; of a plugin that prints every second for days, only those of the last
    /// day and a half. They are unknown for a log of an earlier version, where the disk was full, and where
    /// that file is damaged or missing. The plugin can change it, as it can its log.
    ///
    /// # Blocking
    /// For reading a few records of that file, once for many lines.
    pub fn printed_at(&mut self) -> Option<SystemTime> {
        let position = self.place.position.checked_sub(1)?;
        if self.place.log != self.log.name() {
            return None;
        }
        if !self.time.0.contains(&position) {
            let times = self.log.view(|view| view.files.times.clone())?;
            let (mut range, at) = times::find(&times, position).ok()?;
            // A record is there before the bytes are that it is for. So there is none to come for what was read.
            range.end = range.end.min(self.place_here().position);
            *self.time = (range, at);
            return at;
        }
        self.time.1
    }

    /// Opens a file for reading; returns `None` if it is gone.
    fn open(&self, file: KnownFile) -> io::Result<Option<Arc<LogFile>>> {
        let stamp = match file {
            KnownFile::Old(stamp) => stamp,
            KnownFile::Current(file) => return Ok(Some(file)),
        };
        let Some(directory) = file::find_directory(self.log.directory())? else {
            return Ok(None);
        };
        let file = LogFile::read_from(&directory, &stamp.file_name())?;
        Ok(file.map(Arc::new))
    }

    fn failed(&self, error: io::Error) -> Error {
        let directory = self.log.directory().display();
        Error::io(format!("read log in {directory}"), error)
    }

    /// Returns the next line, or what is missing before it. Lines come in the order of the log: old files from
    /// the oldest on, the current file from its start, then new lines as they are written. A half-written line
    /// is waited for.
    ///
    /// # Blocking
    /// Until there is one, at most for `timeout`; zero does not wait. A write to the log and a removal of the
    /// installation wake it. Beyond that it only reads what is there already: one line, or a piece of it.
    ///
    /// # Errors
    /// - [`Error::Timeout`] with [`Phase::Log`]: nothing came. Call again to go on.
    /// - [`Error::NotInstalled`]: the installation has been removed and everything has been read.
    /// - [`Error::Io`]: a file or the directory cannot be read. Nothing was skipped; calling again
    ///   tries again.
    pub fn next(&mut self, timeout: Duration) -> Result<Followed> {
        let deadline = Deadline::after(timeout);
        loop {
            if let Some(line) = self.next_line() {
                return Ok(Followed::Line(line));
            }
            if let Some(gap) = self.gap.take() {
                self.place = self.place_here();
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
        current != Some(self.at.sequence)
    }

    /// Reads on in the file, or goes on to the next. Returns false when there is nothing more yet.
    ///
    /// `ended` was found out before: an end that is read now is the end for good if it is set.
    fn read(&mut self, ended: bool) -> io::Result<bool> {
        if let Some(reading) = &mut self.reading {
            let count = reading.file.read_at(&mut self.buffer, reading.position)?;
            reading.position += count as u64;
            if count > 0 {
                self.unsplit = 0..count;
                return Ok(true);
            }
            if reading.file.length()? < reading.position {
                // The file was made shorter instead of being rotated.
                reading.position = 0;
                self.end_line(None);
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
        let mut known = self.at.sequence;
        let (at, file) = loop {
            let next = self
                .log
                .view(|view| view.files.all().find(|(at, _)| at.sequence > known));
            let Some((at, file)) = next else {
                return Ok(false);
            };
            match self.open(file)? {
                Some(file) => break (at, file),
                None => known = at.sequence,
            }
        };
        // The last line of the file before may have no end, if its writer died while writing it.
        let end = self.place_here().position;
        self.end_line(Some(end));
        let missing = at.sequence - self.at.sequence - 1;
        self.gap = (missing > 0).then(|| Followed::Gap {
            files: Some(missing),
            bytes: Some(at.start.saturating_sub(end)),
        });
        self.at = at;
        self.reading = Some(OpenFile { file, position: 0 });
        Ok(true)
    }

    /// Returns the next line of what was read.
    fn next_line(&mut self) -> Option<String> {
        while self.lines.is_empty() && !self.unsplit.is_empty() {
            self.split();
        }
        let line = self.lines.pop_front()?;
        if let Some(position) = line.end {
            // Of a piece it would not be that of the line.
            let check = (!line.is_cut).then(|| checksum(&line.bytes));
            self.place = self.place_at(position, check);
        }
        Some(text(line.bytes))
    }

    /// Splits the next line off what was read, or takes all of it as the beginning of one.
    fn split(&mut self) {
        let unsplit = &self.buffer[self.unsplit.clone()];
        let end = memchr::memchr(b'\n', unsplit).map(|end| end + 1);
        let length = end.unwrap_or(unsplit.len());
        let (lines, is_cut) = (&mut self.lines, &mut self.is_cut);
        self.splitter.push(&unsplit[..length], |bytes| {
            lines.push_back(SplitLine {
                bytes: bytes.to_vec(),
                end: None,
                // All but the first of a line.
                is_cut: std::mem::replace(is_cut, true),
            });
        });
        self.unsplit.start += length;
        if end.is_some() {
            self.is_cut = false;
            let behind = self.place_here().position - self.unsplit.len() as u64;
            if let Some(line) = self.lines.back_mut() {
                line.end = Some(behind);
            }
        }
    }

    /// Ends the line that has been begun, if any. Behind it is this position.
    fn end_line(&mut self, end: Option<u64>) {
        let lines = &mut self.lines;
        let is_cut = std::mem::take(&mut self.is_cut);
        self.splitter.finish(|bytes| {
            let bytes = bytes.to_vec();
            lines.push_back(SplitLine { bytes, end, is_cut });
        });
    }

    /// Returns the place up to which was read.
    fn place_here(&self) -> Place {
        let position = self.reading.as_ref().map_or(0, |reading| reading.position);
        self.place_at(self.at.start.saturating_add(position), None)
    }

    fn place_at(&self, position: u64, check: Option<u64>) -> Place {
        let log = self.log.name();
        Place {
            log,
            position,
            check,
        }
    }
}

fn text(mut line: Vec<u8>) -> String {
    line.truncate(without_end(&line).len());
    String::from_utf8(line)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
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
