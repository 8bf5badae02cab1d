//! `RotatingFile`: appends whole lines to the current file, and begins a new one before it grows too large.
//! It has no locks; `PluginLog` holds it under the writer's.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FileType;

use super::file::{self, CURRENT, FileId, LogFile};
use super::index::{INDEX, Index};
use super::settings::LogSettings;
use super::times::{STEP, TIMES, Times};
use super::timestamp::{Clock, Timestamp};
use crate::id::Xid;
use crate::package::OpenDir;

/// How often a new file is begun for a line before it counts as lost: the plugin may replace the new ones
/// with full ones.
const ROTATIONS: usize = 10;

/// The files of a log at one moment. Each has a sequence number, one higher than that of the file
/// before it, so that a reader knows what it missed.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    /// Oldest first.
    pub(super) old: VecDeque<(FilePosition, Timestamp)>,
    /// `None` while it cannot be opened.
    pub(super) current: Option<(FilePosition, Arc<LogFile>)>,
    /// When it was written, if that is known.
    pub(super) times: Option<Arc<LogFile>>,
    /// The highest sequence number given so far.
    last_sequence: u64,
}

/// The position of a file among all files of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FilePosition {
    pub(super) sequence: u64,
    /// Bytes in all files before it, also in those that are gone. The same whenever the log is opened.
    pub(super) start: u64,
}

impl FilePosition {
    /// Returns the position of an empty file before this one.
    pub(super) fn before(self) -> Self {
        Self {
            sequence: self.sequence - 1,
            start: self.start,
        }
    }
}

/// What is known of a file.
#[derive(Clone, Debug)]
pub(super) enum KnownFile {
    Old(Timestamp),
    Current(Arc<LogFile>),
}

impl KnownFile {
    /// Returns whether nothing more is written to it.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Old(_))
    }
}

impl Files {
    /// Returns all files, oldest first.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = (FilePosition, KnownFile)> + '_ {
        let old = self.old.iter();
        let old = old.map(|(place, stamp)| (*place, KnownFile::Old(*stamp)));
        let current = self.current.iter();
        old.chain(current.map(|(place, file)| (*place, KnownFile::Current(Arc::clone(file)))))
    }

    /// Returns the position before that of the oldest file, as if an empty one had been there.
    pub(super) fn before_first(&self) -> FilePosition {
        let oldest = self.old.front().map(|(place, _)| *place);
        let first = oldest.or(self.current.as_ref().map(|(place, _)| *place));
        let none = FilePosition {
            sequence: self.last_sequence,
            start: 0,
        };
        first.map_or(none, FilePosition::before)
    }
}

#[derive(Debug)]
pub(super) struct RotatingFile {
    directory: PathBuf,
    path: PathBuf,
    max_size: u64,
    keep: usize,
    max_age: Duration,
    clock: Clock,
    files: Files,
    files_changed: bool,
    last_stamp: Option<Timestamp>,
    /// Names the log, whichever host writes it.
    log: Xid,
    /// The index as it is in the directory, as far as that is known.
    indexed: Option<Index>,
    /// The index could not be read or written, and that has been said.
    index_failing: bool,
    times: Option<Times>,
    /// When that was noted last.
    noted: Option<Instant>,
    /// Bytes in the files before the current one.
    start: u64,
    /// Bytes in the current file.
    size: u64,
    /// Whether the current file ends within a line.
    torn: bool,
    outage: Option<Outage>,
}

/// A time in which lines could not be written.
#[derive(Debug)]
struct Outage {
    lost: u64,
    error: io::Error,
}

impl RotatingFile {
    /// Opens the log in a directory, creates both if need be, and removes old logs over the number or the age kept.
    pub(super) fn open(directory: &Path, settings: &LogSettings) -> io::Result<Self> {
        let open = file::make_directory(directory)?;
        let lengths: Vec<_> = file::old_logs(&open)?
            .into_iter()
            .map(|stamp| (stamp, file::old_length(&open, stamp).unwrap_or_default()))
            .collect();
        let (indexed, index_failing) = match Index::read_from(&open) {
            Ok(index) => (index, false),
            Err(error) => {
                let path = open.at(INDEX);
                log::warn!(
                    "cannot read {}: {error}; places in this log from before are gone",
                    path.display()
                );
                (None, true)
            }
        };
        let index = indexed.clone().unwrap_or_else(Index::new);
        let (starts, start) = index.starts(&lengths);
        let old: VecDeque<_> = (1..)
            .zip(lengths.iter().zip(starts))
            .map(|(sequence, ((stamp, _), start))| (FilePosition { sequence, start }, *stamp))
            .collect();
        let last = old.back().copied();
        let mut this = Self {
            directory: directory.to_owned(),
            path: directory.join(CURRENT),
            max_size: settings.max_file_size,
            keep: settings.keep,
            max_age: settings.max_age,
            clock: Clock::start(),
            files: Files {
                old,
                current: None,
                times: None,
                last_sequence: last.map_or(0, |(place, _)| place.sequence),
            },
            files_changed: true,
            last_stamp: last.map(|(_, stamp)| stamp),
            log: index.log,
            indexed,
            index_failing,
            times: None,
            noted: None,
            start,
            size: 0,
            torn: false,
            outage: None,
        };
        this.open_current_in(&open)?;
        this.remove_surplus(&open);
        Ok(this)
    }

    /// Removes old logs over the age kept. Touches the disk only if there are any.
    pub(super) fn remove_aged(&mut self) {
        if !self.has_surplus(self.clock.now()) {
            return;
        }
        match file::find_directory(&self.directory) {
            Ok(Some(directory)) => self.remove_surplus(&directory),
            // It is made, and looked into, with the next line.
            Ok(None) => {}
            Err(error) => {
                let directory = self.directory.display();
                log::warn!("cannot look for old logs in {directory}: {error}");
            }
        }
    }

    /// Returns the name of the log.
    pub(super) fn log(&self) -> Xid {
        self.log
    }

    /// Returns the files, if they have changed since the last call.
    pub(super) fn changed_files(&mut self) -> Option<Files> {
        std::mem::take(&mut self.files_changed).then(|| self.files.clone())
    }

    /// Appends lines, each with its `\n`, in one write as long as they fit. Returns how many were
    /// lost: those that could not be written are not tried again, but noted in the log as soon as
    /// it can be written again.
    pub(super) fn write(&mut self, lines: &[u8]) -> u64 {
        let mut done = 0;
        let Err(error) = self.try_write(lines, &mut done) else {
            return 0;
        };
        let lost = count_lines(&lines[done..]);
        if let Some(outage) = &mut self.outage {
            outage.lost += lost;
            outage.error = error;
        } else {
            log::warn!(
                "cannot write {}: {error}; lines are dropped until it works again",
                self.path.display()
            );
            self.outage = Some(Outage { lost, error });
        }
        lost
    }

    /// `done` counts the bytes of whole lines that are in the file.
    fn try_write(&mut self, lines: &[u8], done: &mut usize) -> io::Result<()> {
        self.find_current()?;
        let first_line = lines.iter().position(|byte| *byte == b'\n');
        self.mend(first_line.map_or(lines.len(), |end| end + 1))?;
        self.note_time();
        let mut rotations = 0;
        while *done < lines.len() {
            let rest = &lines[*done..];
            let length = fitting(
                rest,
                self.max_size.saturating_sub(self.size),
                self.size == 0,
            );
            if length == 0 {
                rotations += 1;
                if rotations > ROTATIONS {
                    return Err(io::Error::other("it is replaced again and again"));
                }
                self.rotate()?;
                continue;
            }
            rotations = 0;
            let (written, result) = self.append(&rest[..length]);
            *done += end_of_last_line(&rest[..written]);
            result?;
        }
        Ok(())
    }

    /// Ends a torn line, and says what was lost meanwhile. In the file that has room for what comes
    /// `next` too: where no new one can be begun, each line would be lost with a notice of its own.
    fn mend(&mut self, next: usize) -> io::Result<()> {
        let notice = match &self.outage {
            Some(Outage { lost: 1, error }) => format!(
                "[plugin-runner] 1 line is missing here, the log could not be written: {error}\n"
            ),
            Some(Outage { lost, error }) => format!(
                "[plugin-runner] {lost} lines are missing here, the log could not be written: {error}\n"
            ),
            None if self.torn => String::new(),
            None => return Ok(()),
        };
        let full = self.size + (notice.len() + next) as u64 >= self.max_size;
        if full && self.size > 0 {
            self.rotate()?;
        }
        let text = if self.torn {
            format!("\n{notice}")
        } else {
            notice
        };
        self.append(text.as_bytes()).1?;
        self.outage = None;
        Ok(())
    }

    /// Appends bytes to the current file, and returns how many were written.
    fn append(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let Some((_, current)) = &self.files.current else {
            return (0, Err(io::ErrorKind::NotFound.into()));
        };
        let (written, result) = write_counted(current.file(), bytes);
        self.size += written as u64;
        if let Some(last) = bytes[..written].last() {
            self.torn = *last != b'\n';
        }
        (written, result)
    }

    /// Makes sure that the current file is the one with the name: if it was deleted or moved, lines would
    /// go where they are not found.
    fn find_current(&mut self) -> io::Result<()> {
        if let Some((_, current)) = &self.files.current
            && fs::symlink_metadata(&self.path)
                .is_ok_and(|metadata| FileId::of(&metadata) == current.identity())
        {
            return Ok(());
        }
        self.open_current()
    }

    fn open_current(&mut self) -> io::Result<()> {
        self.forget_current();
        // It may be another directory than before.
        self.indexed = None;
        let directory = file::make_directory(&self.directory)?;
        self.open_current_in(&directory)
    }

    fn forget_current(&mut self) {
        self.files_changed = true;
        let size = std::mem::take(&mut self.size);
        if let Some((_, current)) = self.files.current.take() {
            // Longer than what was written here if the plugin has written to it too.
            let length = current.length().unwrap_or_default();
            self.start = self.start.saturating_add(size.max(length));
        }
    }

    fn open_current_in(&mut self, directory: &OpenDir) -> io::Result<()> {
        self.forget_current();
        let current = LogFile::append_to(directory)?;
        self.size = current.length()?;
        self.torn = current.is_torn()?;
        self.files.last_sequence += 1;
        let place = FilePosition {
            sequence: self.files.last_sequence,
            start: self.start,
        };
        self.files.current = Some((place, Arc::new(current)));
        self.write_index(directory);
        self.begin_times(directory);
        Ok(())
    }

    /// Notes when what comes next is written. Touches the disk once a second at most.
    fn note_time(&mut self) {
        // Not by the system's clock, which may be set.
        let now = Instant::now();
        if self.noted.is_some_and(|noted| now - noted < STEP) {
            return;
        }
        self.noted = Some(now);
        if self.times.as_ref().is_some_and(Times::is_full)
            && let Ok(directory) = file::make_directory(&self.directory)
        {
            self.begin_times(&directory);
        }
        if let (Some(times), Some((place, current))) = (&mut self.times, &self.files.current) {
            // The plugin may have written to it too.
            let noted = current.length().and_then(|length| {
                times.note(place.start.saturating_add(length), SystemTime::now())
            });
            if let Err(error) = noted {
                times.clear();
                let path = self.directory.join(TIMES);
                log::warn!(
                    "cannot write {}: {error}; when lines were printed is unknown until a file is begun",
                    path.display()
                );
                self.times = None;
                self.files.times = None;
                self.files_changed = true;
            }
        }
    }

    /// Drops the times of what is gone. Without a file for them the log goes on.
    fn begin_times(&mut self, directory: &OpenDir) {
        let oldest = self.files.old.front().map(|(place, _)| place.start);
        let kept = oldest.unwrap_or(self.start)..self.start.saturating_add(self.size);
        self.times = match Times::begin(directory, self.log, kept) {
            Ok(times) => Some(times),
            Err(error) => {
                // Its last would be taken for the time of all that comes.
                let _ = directory.unlink(TIMES);
                log::debug!("cannot write {}: {error}", directory.at(TIMES).display());
                None
            }
        };
        self.files.times = self.times.as_ref().map(Times::file);
        self.files_changed = true;
    }

    /// Notes where the files begin, if the index does not say so yet. Without it the log goes on, and only what
    /// is remembered of places in it is gone when it is opened again.
    fn write_index(&mut self, directory: &OpenDir) {
        let old = self.files.old.iter();
        let index = Index {
            log: self.log,
            old: old.map(|(place, stamp)| (*stamp, place.start)).collect(),
            current: self.start,
        };
        if self.indexed.as_ref() == Some(&index) {
            return;
        }
        match index.write_to(directory) {
            Ok(()) => {
                self.indexed = Some(index);
                self.index_failing = false;
            }
            Err(error) if !self.index_failing => {
                self.indexed = None;
                self.index_failing = true;
                log::warn!("cannot write {}: {error}", directory.at(INDEX).display());
            }
            Err(_) => {}
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Opened for this: by its name it may be reached through a link since, even if the current file is.
        let directory = file::make_directory(&self.directory)?;
        if let Some((place, current)) = &self.files.current
            && directory.has(CURRENT, current.file())?
        {
            let (place, stamp) = (*place, Timestamp::now_after(self.last_stamp));
            directory.rename(CURRENT, &directory, stamp.file_name())?;
            self.last_stamp = Some(stamp);
            self.forget_current();
            self.files.old.push_back((place, stamp));
            // Before any is removed: what is neither there nor in the index is not counted.
            self.write_index(&directory);
        }
        // Before the new file is made, which may need the room.
        self.remove_surplus(&directory);
        self.open_current_in(&directory)
    }

    /// Returns whether there are more old logs than are kept, or one that is older.
    fn has_surplus(&self, now: Timestamp) -> bool {
        let oldest = self.files.old.front();
        self.files.old.len() > self.keep
            || oldest.is_some_and(|(_, stamp)| stamp.age(now) > self.max_age)
    }

    fn remove_surplus(&mut self, directory: &OpenDir) {
        let now = self.clock.now();
        while self.has_surplus(now)
            && let Some((_, stamp)) = self.files.old.front()
        {
            let name = stamp.file_name();
            let removed = match directory.kind(&*name) {
                Ok(Some(FileType::RegularFile)) => directory.unlink(&*name),
                // It is gone, or something else has taken its name.
                other => other.map(drop),
            };
            if let Err(error) = removed {
                // It is tried again at the next rotation, and where its age is looked at.
                let path = directory.at(name);
                log::warn!("cannot remove old log {}: {error}", path.display());
                break;
            }
            self.files.old.pop_front();
            self.files_changed = true;
        }
    }
}

/// Returns how many bytes of these lines go into a file with so much room: whole lines only, but at least
/// one if the file is empty, since no other would have more room.
fn fitting(lines: &[u8], room: u64, empty: bool) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if lines.len() <= room {
        return lines.len();
    }
    match end_of_last_line(&lines[..room]) {
        0 if empty => lines
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(lines.len(), |position| position + 1),
        end => end,
    }
}

fn end_of_last_line(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |position| position + 1)
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.split_inclusive(|byte| *byte == b'\n').count() as u64
}

/// Like `write_all`, but also returns how many bytes were written.
fn write_counted(mut file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests;
