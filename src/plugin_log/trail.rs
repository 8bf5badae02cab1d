//! The order in which a follower reads the files of a log, and how it learns that one is at its
//! end. Two ways: told by the writer in the same process, or by looking at the folder. What is in
//! the files is `follow`'s business.
//!
//! No line is lost across rotation because a follower never lets go of a file before it has read
//! it to an end that it saw *after* it knew that nothing more comes. It knows the next file not by
//! its time but by its place: the writer's sequence numbers, or the names right after the one that
//! the file read so far turned out to have.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::file::{self, CURRENT, LogFile};
use super::handle::Shared;
use super::rotate::Place;
use super::stamp::Stamp;
use crate::deadline::Deadline;
use crate::package::OpenDir;

/// How often the folder is looked at when there is no writer to wake us.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A file to read next, and whether any are missing before it.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) file: Arc<LogFile>,
    pub(super) missing: Missing,
}

/// Files that were deleted before they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    None,
    Files {
        count: u64,
        /// Together, as far as it is known.
        bytes: Option<u64>,
    },
    /// Perhaps some; it cannot be told how many.
    Unknown,
}

/// Told by the writer.
pub(super) struct LiveTrail {
    shared: Arc<Shared>,
    directory: PathBuf,
    /// That of the file that is being read, or before the first.
    place: Place,
    /// Files found deleted since.
    missing: u64,
    /// The generation at the last look.
    generation: u64,
}

impl LiveTrail {
    pub(super) fn new(shared: Arc<Shared>, directory: PathBuf) -> Self {
        let place = shared.view(|view| view.files.before_first());
        Self {
            shared,
            directory,
            place,
            missing: 0,
            generation: 0,
        }
    }

    /// Whether nothing more is appended to the file that is being read. Ask before reading: then
    /// the end that is read is the end.
    pub(super) fn look(&mut self) -> bool {
        self.shared.view(|view| {
            self.generation = view.generation;
            let current = view.files.current.as_ref();
            current.is_none_or(|(place, _)| place.sequence != self.place.sequence)
        })
    }

    /// Goes on to the next file, if there is one already, from this position in the one before.
    pub(super) fn advance(&mut self, position: u64) -> io::Result<Option<Next>> {
        loop {
            let known = self.place.sequence + self.missing;
            let next = self.shared.view(|view| {
                let files = &view.files;
                let old = files.old.iter().find(|(place, _)| place.sequence > known);
                match (old, &files.current) {
                    (Some((place, stamp)), _) => Some((*place, Ok(*stamp))),
                    (None, Some((place, file))) if place.sequence > known => {
                        Some((*place, Err(Arc::clone(file))))
                    }
                    _ => None,
                }
            });
            let (place, file) = match next {
                None => return Ok(None),
                Some((place, Err(current))) => (place, Some(current)),
                Some((place, Ok(stamp))) => {
                    let file = read_from(&self.directory, &stamp.file_name())?;
                    (place, file.map(Arc::new))
                }
            };
            let missing = place.sequence - self.place.sequence - 1;
            let Some(file) = file else {
                self.missing = missing + 1;
                continue;
            };
            let missing = match missing {
                0 => Missing::None,
                count => Missing::Files {
                    count,
                    bytes: Some(place.start.saturating_sub(self.place.start + position)),
                },
            };
            self.place = place;
            self.missing = 0;
            return Ok(Some(Next { file, missing }));
        }
    }

    /// Waits until there may be more than at the last look; gives false at the deadline.
    pub(super) fn wait(&self, deadline: Deadline) -> bool {
        self.shared.wait_for_change(self.generation, deadline)
    }

    /// Once the writer is gone and all it wrote has been looked at: how to go on without it.
    pub(super) fn without_writer(&self) -> Option<DirectoryTrail> {
        self.shared.view(|view| {
            if !view.closed || view.generation != self.generation {
                return None;
            }
            let old = &view.files.old;
            let own = old
                .iter()
                .find(|(place, _)| place.sequence == self.place.sequence)
                .map(|(_, stamp)| *stamp);
            Some(DirectoryTrail {
                name: own,
                after: own.or_else(|| old.back().map(|(_, stamp)| *stamp)),
                ..DirectoryTrail::new(self.directory.clone())
            })
        })
    }
}

/// Found out by looking at the folder.
pub(super) struct DirectoryTrail {
    directory: PathBuf,
    /// The file that is being read has been rotated away, and has this name now.
    name: Option<Stamp>,
    /// Every old file up to this one was read before, or is the one that is being read.
    after: Option<Stamp>,
    /// The files right after the one that is being read, in order.
    ahead: VecDeque<Ahead>,
    /// Nothing more is appended to the file that is being read.
    ended: bool,
    /// Files found deleted since, and the bytes in them as far as they are known.
    missing: u64,
    missing_bytes: Option<u64>,
    /// The file that is being read was deleted before the next was known.
    lost_the_trail: bool,
}

enum Ahead {
    /// With its length when it was seen; none if it was gone by then.
    Old(Stamp, Option<u64>),
    Current(LogFile),
}

impl DirectoryTrail {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            name: None,
            after: None,
            ahead: VecDeque::new(),
            ended: false,
            missing: 0,
            missing_bytes: Some(0),
            lost_the_trail: false,
        }
    }

    /// Whether nothing more is appended to the file that is being read. Ask before reading: then
    /// the end that is read is the end.
    pub(super) fn look(&mut self, reading: Option<&LogFile>) -> io::Result<bool> {
        if self.ahead.is_empty() {
            self.look_ahead(reading)?;
        }
        Ok(self.ended)
    }

    fn look_ahead(&mut self, reading: Option<&LogFile>) -> io::Result<()> {
        let current = read_from(&self.directory, CURRENT)?;
        self.look_behind(reading, current)
    }

    /// Looks at the old files, after the current one was opened. The order matters: a file that was
    /// the current one then comes right after the newest name in a list that is made later, or is
    /// in that list itself.
    fn look_behind(
        &mut self,
        reading: Option<&LogFile>,
        current: Option<LogFile>,
    ) -> io::Result<()> {
        let is_read =
            |file: &LogFile| reading.is_some_and(|read| read.identity() == file.identity());
        if current.as_ref().is_some_and(is_read) {
            return Ok(());
        }
        let directory = file::find_directory(&self.directory)?;
        let old = match &directory {
            Some(directory) => old_logs(directory)?,
            None => Vec::new(),
        };
        if reading.is_some() {
            self.ended = true;
            if self.name.is_none()
                && let Some(directory) = &directory
            {
                self.name = self.find_name(directory, &old, is_read)?;
                self.after = self.name.or(self.after);
            }
            self.lost_the_trail |= self
                .name
                .is_none_or(|name| old.binary_search(&name).is_err());
        }
        let newer = old
            .into_iter()
            .filter(|stamp| self.after.is_none_or(|after| *stamp > after));
        let length = |stamp| file::old_length(directory.as_ref()?, stamp);
        let seen = newer.map(|stamp| Ahead::Old(stamp, length(stamp)));
        self.ahead.extend(seen);
        if self.ahead.is_empty() {
            self.ahead.extend(current.map(Ahead::Current));
        }
        Ok(())
    }

    fn find_name(
        &self,
        directory: &OpenDir,
        old: &[Stamp],
        is_read: impl Fn(&LogFile) -> bool,
    ) -> io::Result<Option<Stamp>> {
        for stamp in old {
            if self.after.is_none_or(|after| *stamp > after)
                && let Some(file) = LogFile::read_from(directory, &stamp.file_name())?
                && is_read(&file)
            {
                return Ok(Some(*stamp));
            }
        }
        Ok(None)
    }

    /// Goes on to the next file, if it is known and still there.
    pub(super) fn advance(&mut self) -> io::Result<Option<Next>> {
        while let Some(ahead) = self.ahead.pop_front() {
            let (name, file) = match ahead {
                Ahead::Current(file) => (None, file),
                Ahead::Old(stamp, length) => {
                    let file = match read_from(&self.directory, &stamp.file_name()) {
                        Ok(file) => file,
                        Err(error) => {
                            self.ahead.push_front(Ahead::Old(stamp, length));
                            return Err(error);
                        }
                    };
                    self.after = Some(stamp);
                    let Some(file) = file else {
                        self.missing += 1;
                        self.missing_bytes =
                            self.missing_bytes.zip(length).map(|(all, one)| all + one);
                        continue;
                    };
                    (Some(stamp), file)
                }
            };
            let missing = match (self.lost_the_trail, self.missing) {
                (true, _) => Missing::Unknown,
                (false, 0) => Missing::None,
                (false, count) => Missing::Files {
                    count,
                    bytes: self.missing_bytes,
                },
            };
            self.name = name;
            self.ended = name.is_some();
            self.missing = 0;
            self.missing_bytes = Some(0);
            self.lost_the_trail = false;
            let file = Arc::new(file);
            return Ok(Some(Next { file, missing }));
        }
        Ok(None)
    }

    /// Waits before the next look; gives false at the deadline.
    pub(super) fn wait(deadline: Deadline) -> bool {
        let remaining = deadline.remaining();
        if remaining.is_zero() {
            return false;
        }
        // There is nobody to wake us: the writer is another process.
        let _ = crossbeam_channel::never::<()>().recv_timeout(remaining.min(LOOK_EVERY));
        true
    }
}

/// Opens a file for reading, if there is one.
fn read_from(directory: &Path, name: &str) -> io::Result<Option<LogFile>> {
    match file::find_directory(directory)? {
        Some(directory) => LogFile::read_from(&directory, name),
        None => Ok(None),
    }
}

/// The old logs without holes: a list that is made while the writer rotates may have a file that
/// came meanwhile and lack the one that came before it. What a second list has up to the
/// newest of the first was all there before the second was begun.
fn old_logs(directory: &OpenDir) -> io::Result<Vec<Stamp>> {
    let newest = file::old_logs(directory)?.last().copied();
    let mut old = file::old_logs(directory)?;
    old.retain(|stamp| Some(*stamp) <= newest);
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::super::line::LogStream;
    use super::super::scratch::Scratch;
    use super::super::{LogSettings, PluginLog};
    use super::*;

    /// A log with one line to a file.
    fn log(scratch: &Scratch) -> PluginLog {
        let settings = LogSettings::default().with_max_file_size(1).with_keep(10);
        PluginLog::open(scratch.logs(), settings, None).unwrap()
    }

    fn write(log: &PluginLog, numbers: std::ops::RangeInclusive<u32>) {
        for number in numbers {
            log.write_line(LogStream::Stdout, number.to_string().as_bytes());
        }
    }

    /// What is in the files from the next on, each read when it comes.
    fn rest(trail: &mut DirectoryTrail, mut reading: Option<Arc<LogFile>>) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            while let Some(next) = trail.advance().unwrap() {
                assert_eq!(next.missing, Missing::None);
                let mut buffer = [0; 100];
                let count = next.file.read_at(&mut buffer, 0).unwrap();
                let text = String::from_utf8_lossy(&buffer[..count]);
                lines.push(text.trim_end().to_owned());
                reading = Some(next.file);
            }
            trail.look(reading.as_deref()).unwrap();
            if trail.ahead.is_empty() {
                return lines;
            }
        }
    }

    #[test]
    fn rotations_between_the_steps_of_the_first_look_lose_nothing() {
        let scratch = Scratch::new("first-look");
        let log = log(&scratch);
        write(&log, 1..=2);
        let mut trail = DirectoryTrail::new(scratch.logs());
        let current = read_from(&scratch.logs(), CURRENT).unwrap();
        write(&log, 3..=4);
        trail.look_behind(None, current).unwrap();
        assert_eq!(rest(&mut trail, None), ["1", "2", "3", "4"]);
    }

    #[test]
    fn rotations_between_the_steps_of_a_later_look_lose_nothing() {
        let scratch = Scratch::new("later-look");
        let log = log(&scratch);
        write(&log, 1..=1);
        let mut trail = DirectoryTrail::new(scratch.logs());
        trail.look(None).unwrap();
        let reading = trail.advance().unwrap().unwrap().file;
        write(&log, 2..=2);
        // File 2 is what comes next; it is rotated away before the names are listed.
        let current = read_from(&scratch.logs(), CURRENT).unwrap();
        write(&log, 3..=4);
        trail.look_behind(Some(&reading), current).unwrap();
        assert!(trail.ended);
        assert_eq!(rest(&mut trail, Some(reading)), ["2", "3", "4"]);
    }

    #[test]
    fn rotations_after_the_look_lose_nothing() {
        let scratch = Scratch::new("after-look");
        let log = log(&scratch);
        write(&log, 1..=1);
        let mut trail = DirectoryTrail::new(scratch.logs());
        trail.look(None).unwrap();
        // File 1 is known as the current one, and is open; here it becomes the third last.
        write(&log, 2..=3);
        assert_eq!(rest(&mut trail, None), ["1", "2", "3"]);
    }
}
