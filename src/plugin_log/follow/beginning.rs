//! Where a `Follower` begins: at one of the last lines, at the end, or at a place from before.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Followed, Follower, OpenFile, splitter};
use crate::error::Result;
use crate::plugin_log::file::LogFile;
use crate::plugin_log::place::{CHECKED, Place, checksum};
use crate::plugin_log::rotate::FilePosition;
use crate::plugin_log::times;

/// Bytes that are searched for the last lines in any case: files from before the settings were changed may be
/// larger than these say.
const LEAST_SEARCHED: u64 = 64 * 1024 * 1024;

impl Follower {
    /// Goes to the last `lines` lines that are there now, however many files they are in, or to the oldest if
    /// there are not that many. What has been read before does not matter. A half-written line does not count,
    /// and comes as well once it is whole.
    ///
    /// The files are read backward, in blocks of 16 KiB, as far as the lines reach, but no further than through
    /// as many bytes as [`LogSettings`](crate::LogSettings) keep, or 64 MiB if that is more: the plugin may have
    /// made its files larger. No line is held in memory for this, so any number may be asked for.
    ///
    /// # Blocking
    /// For reading these files.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io): a file or the directory cannot be read.
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
    /// [`Error::Io`](crate::Error::Io): the file cannot be read.
    pub fn from_end(self) -> Result<Self> {
        self.last(0)
    }

    /// Goes to a place that [`place`](Self::place) returned, here or in another follower of this log: the first
    /// that comes is what is behind it. What has been read before does not matter.
    ///
    /// If the place is gone, the first that comes is a [`Gap`](Followed::Gap), once, and then the oldest line
    /// that is kept. A place is gone
    /// - when it was in a file that has been removed: the gap says how many bytes are missing. If older files are
    ///   still there, because that one was removed by hand, it goes on behind the hole, and no line comes twice;
    /// - when it was never in this log, such as that of a plugin that was installed anew, or when what stands
    ///   before it is not what stood there: files were changed or made shorter by hand, lost their ends in a power
    ///   failure, or are from a backup that is older. How much is missing is not known then, and lines may come
    ///   that came before.
    ///
    /// # Blocking
    /// For opening a file and reading a few hundred bytes.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the text is not a place.
    /// - [`Error::Io`](crate::Error::Io): a file or the directory cannot be read.
    pub fn after(mut self, place: &str) -> Result<Self> {
        let place = place.parse()?;
        match self.go_behind(place) {
            Ok(()) => Ok(self),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Goes to the first line that was printed at this time or later, or up to a second earlier, as far as that is
    /// known ([`printed_at`](Self::printed_at)); to the end if all lines are from before it; and to the oldest line
    /// that is kept if that may be from after it. Lines from after it that were deleted are told of by a
    /// [`Gap`](Followed::Gap). What has been read before does not matter.
    ///
    /// # Blocking
    /// For reading the times that are kept, 4 MiB at most, and for opening a file.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io): a file or the directory cannot be read. Times that cannot be read are
    /// unknown.
    pub fn since(mut self, time: SystemTime) -> Result<Self> {
        match self.go_to(time) {
            Ok(()) => Ok(self),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn go_to(&mut self, time: SystemTime) -> io::Result<()> {
        // Before the times are read: what is written after that is not earlier.
        self.go_back(0)?;
        let times = self.log.view(|view| view.files.times.clone());
        let log = self.log.name();
        match times.and_then(|times| times::since(&times, log, time)) {
            Some(u64::MAX) => Ok(()),
            Some(position) => self.go_behind(Place {
                log,
                position,
                check: None,
            }),
            None => {
                self.begin_at(self.log.view(|view| view.files.before_first()));
                self.place = self.place_here();
                Ok(())
            }
        }
    }

    fn go_back(&mut self, lines: usize) -> io::Result<()> {
        let files: Vec<_> = self.log.view(|view| view.files.all().collect());
        // Whatever else can be read, nothing is missing before what comes after these.
        let newest = files.last().map(|(at, _)| *at);
        self.begin_at(newest.unwrap_or(self.at));
        let mut search = Search {
            wanted: lines,
            bytes: self.log.settings().kept_bytes().max(LEAST_SEARCHED),
        };
        for (at, file) in files.into_iter().rev() {
            let ended = file.has_ended();
            if ended && (search.wanted == 0 || search.bytes == 0) {
                break;
            }
            if let Some(file) = self.open(file)? {
                let (position, count) = search.last_lines(&file, ended, &mut self.buffer)?;
                search.wanted -= count;
                self.read_from(at, file, position);
            }
        }
        self.place = self.place_here();
        Ok(())
    }

    fn go_behind(&mut self, place: Place) -> io::Result<()> {
        let (first, files) = self.log.view(|view| {
            let files: Vec<_> = view.files.all().collect();
            (view.files.before_first(), files)
        });
        self.begin_at(first);
        self.place = place;
        if place.log != self.log.name() {
            self.expect_gap(None);
            return Ok(());
        }
        let next = files.partition_point(|(at, _)| at.start <= place.position);
        let Some((at, known)) = next.checked_sub(1).map(|holder| files[holder].clone()) else {
            let missing = first.start.saturating_sub(place.position);
            if missing > 0 || !files.is_empty() {
                self.expect_gap(Some(missing));
            }
            return Ok(());
        };
        let position = place.position - at.start;
        let ended = known.has_ended();
        if let Some(file) = self.open(known)?
            && position <= file.length()?
        {
            if position == 0 || is_behind_line(&file, position, ended, place.check)? {
                self.read_from(at, file, position);
            } else {
                self.expect_gap(None);
            }
            return Ok(());
        }
        // The file that it was in is gone, and was not the oldest.
        for (at, known) in files.into_iter().skip(next) {
            if let Some(file) = self.open(known)? {
                self.read_from(at, file, 0);
                self.expect_gap(Some(at.start.saturating_sub(place.position)));
                return Ok(());
            }
        }
        self.expect_gap(None);
        Ok(())
    }

    /// Forgets what was read, and goes to the file behind this one.
    fn begin_at(&mut self, at: FilePosition) {
        self.at = at;
        self.reading = None;
        self.unsplit = 0..0;
        self.splitter = splitter(&self.log);
        self.is_cut = false;
        self.lines.clear();
        self.gap = None;
    }

    fn read_from(&mut self, at: FilePosition, file: Arc<LogFile>, position: u64) {
        self.at = at;
        self.reading = Some(OpenFile { file, position });
    }

    fn expect_gap(&mut self, bytes: Option<u64>) {
        self.gap = Some(Followed::Gap { files: None, bytes });
    }
}

/// Returns whether a line ends at this position, which is not the first, and is the one with this checksum. Of a
/// file that has `ended`, the last line may have no end.
fn is_behind_line(
    file: &LogFile,
    position: u64,
    ended: bool,
    check: Option<u64>,
) -> io::Result<bool> {
    let mut buffer = [0; CHECKED + 1];
    let length = usize::try_from(position).map_or(buffer.len(), |it| it.min(buffer.len()));
    let before = &mut buffer[..length];
    if file.read_at(before, position - length as u64)? < length {
        return Ok(false);
    }
    let line = match before.strip_suffix(b"\n") {
        Some(line) => line,
        None if ended && position == file.length()? => before,
        None => return Ok(false),
    };
    let start = memchr::memrchr(b'\n', line).map_or(0, |end| end + 1);
    Ok(check.is_none_or(|check| check == checksum(&line[start..])))
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
