//! `RotatingFile`: appends whole lines to the current file, and begins a new one before it grows too large.
//! It has no locks; `PluginLog` holds it under the writer's.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;

use super::file::{self, CURRENT, FileId, LogFile};
use super::settings::LogSettings;
use super::timestamp::Timestamp;
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
    /// The highest sequence number given so far.
    last_sequence: u64,
}

/// The position of a file among all files of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FilePosition {
    pub(super) sequence: u64,
    /// Bytes in the files before it, since the log was opened and counting what it found there.
    pub(super) start: u64,
}

impl Files {
    /// Returns the position before that of the oldest file, as if an empty one had been there.
    pub(super) fn before_first(&self) -> FilePosition {
        let oldest = self.old.front().map(|(place, _)| *place);
        let current = self.current.as_ref().map(|(place, _)| *place);
        let first = oldest.or(current);
        FilePosition {
            sequence: first.map_or(self.last_sequence, |place| place.sequence - 1),
            start: first.map_or(0, |place| place.start),
        }
    }
}

#[derive(Debug)]
pub(super) struct RotatingFile {
    directory: PathBuf,
    path: PathBuf,
    max_size: u64,
    keep: usize,
    files: Files,
    files_changed: bool,
    last_stamp: Option<Timestamp>,
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
    /// Opens the log in a directory, creates both if need be, and removes old logs over the number kept.
    pub(super) fn open(directory: &Path, settings: &LogSettings) -> io::Result<Self> {
        let open = file::make_directory(directory)?;
        let mut old = VecDeque::new();
        let mut start = 0;
        for (sequence, stamp) in (1..).zip(file::old_logs(&open)?) {
            old.push_back((FilePosition { sequence, start }, stamp));
            start += file::old_length(&open, stamp).unwrap_or_default();
        }
        let last = old.back().copied();
        let mut this = Self {
            directory: directory.to_owned(),
            path: directory.join(CURRENT),
            max_size: settings.max_file_size,
            keep: settings.keep,
            files: Files {
                old,
                current: None,
                last_sequence: last.map_or(0, |(place, _)| place.sequence),
            },
            files_changed: true,
            last_stamp: last.map(|(_, stamp)| stamp),
            start,
            size: 0,
            torn: false,
            outage: None,
        };
        this.open_current_in(&open)?;
        this.remove_oldest(&open);
        Ok(this)
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
        let directory = file::make_directory(&self.directory)?;
        self.open_current_in(&directory)
    }

    fn forget_current(&mut self) {
        self.files.current = None;
        self.files_changed = true;
        self.start += std::mem::take(&mut self.size);
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
        Ok(())
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
            self.files.current = None;
            self.files.old.push_back((place, stamp));
        }
        // Before the new file is made, which may need the room.
        self.remove_oldest(&directory);
        self.open_current_in(&directory)
    }

    fn remove_oldest(&mut self, directory: &OpenDir) {
        while self.files.old.len() > self.keep
            && let Some((_, stamp)) = self.files.old.front()
        {
            let name = stamp.file_name();
            let removed = match directory.kind(&*name) {
                Ok(Some(FileType::RegularFile)) => directory.unlink(&*name),
                // It is gone, or something else has taken its name.
                other => other.map(drop),
            };
            if let Err(error) = removed {
                // It is tried again at the next rotation.
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
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::scratch::{Scratch, names};
    use super::*;

    fn settings(max_file_size: u64, keep: usize) -> LogSettings {
        LogSettings::default()
            .max_file_size(max_file_size)
            .keep(keep)
    }

    fn contents(directory: &Path) -> Vec<String> {
        names(directory)
            .iter()
            .map(|name| fs::read_to_string(directory.join(name)).unwrap())
            .collect()
    }

    #[test]
    fn files_hold_whole_lines_and_stay_within_their_size() {
        let scratch = Scratch::new("sizes");
        let mut log = RotatingFile::open(&scratch.logs(), &settings(10, 100)).unwrap();
        assert_eq!(log.write(b"1234\n1234\n"), 0);
        assert_eq!(log.write(b"12345678901234\n"), 0);
        assert_eq!(log.write(b"a\nb\nc\nd\ne\nf\n"), 0);
        // Names sort by age, and the current file's name sorts last.
        assert_eq!(
            contents(&scratch.logs()),
            ["1234\n1234\n", "12345678901234\n", "a\nb\nc\nd\ne\n", "f\n"]
        );
    }

    #[test]
    fn exactly_the_newest_are_kept() {
        let scratch = Scratch::new("kept");
        let mut log = RotatingFile::open(&scratch.logs(), &settings(2, 3)).unwrap();
        for line in [b"1\n", b"2\n", b"3\n", b"4\n", b"5\n", b"6\n"] {
            assert_eq!(log.write(line), 0);
        }
        assert_eq!(contents(&scratch.logs()), ["3\n", "4\n", "5\n", "6\n"]);
        drop(log);

        let mut log = RotatingFile::open(&scratch.logs(), &settings(2, 0)).unwrap();
        assert_eq!(contents(&scratch.logs()), ["6\n"]);
        log.write(b"7\n");
        assert_eq!(contents(&scratch.logs()), ["7\n"]);
    }

    #[test]
    fn only_the_owner_may_read() {
        let scratch = Scratch::new("modes");
        let _log = RotatingFile::open(&scratch.logs(), &settings(100, 3)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&scratch.logs()), 0o700);
        assert_eq!(mode(&scratch.logs().join(CURRENT)), 0o600);
    }

    #[test]
    fn an_existing_log_is_continued_and_its_torn_line_ended() {
        let scratch = Scratch::new("continued");
        fs::write(scratch.path().join(CURRENT), "whole\nto").unwrap();
        let mut log = RotatingFile::open(scratch.path(), &settings(15, 3)).unwrap();
        log.write(b"new\n");
        log.write(b"more\n");
        assert_eq!(contents(scratch.path()), ["whole\nto\nnew\n", "more\n"]);
    }

    #[test]
    fn a_deleted_or_moved_file_is_made_anew() {
        let scratch = Scratch::new("deleted");
        let path = scratch.logs().join(CURRENT);
        let mut log = RotatingFile::open(&scratch.logs(), &settings(100, 3)).unwrap();
        log.write(b"1\n");
        fs::remove_file(&path).unwrap();
        log.write(b"2\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
        fs::rename(&path, scratch.path().join("elsewhere")).unwrap();
        log.write(b"3\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "3\n");
        fs::remove_dir_all(scratch.logs()).unwrap();
        log.write(b"4\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "4\n");
    }

    #[test]
    fn lines_lost_to_a_failing_file_are_counted_and_noted_when_it_works_again() {
        let scratch = Scratch::new("failing");
        let path = scratch.logs().join(CURRENT);
        let mut log = RotatingFile::open(&scratch.logs(), &settings(1000, 3)).unwrap();
        assert_eq!(log.write(b"before\n"), 0);
        // Writes to a descriptor that is open for reading fail in the system, root or not.
        let (place, _) = log.files.current.clone().unwrap();
        let directory = file::find_directory(&scratch.logs()).unwrap().unwrap();
        let unwritable = LogFile::read_from(&directory, CURRENT).unwrap().unwrap();
        log.files.current = Some((place, Arc::new(unwritable)));
        assert_eq!(log.write(b"1\n2\n"), 2);
        assert_eq!(log.write(b"3\n"), 1);
        log.open_current().unwrap();
        assert_eq!(log.write(b"after\n"), 0);
        assert_eq!(log.write(b"later\n"), 0);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "before\n[plugin-runner] 3 lines are missing here, the log could not be written: \
             Bad file descriptor (os error 9)\nafter\nlater\n"
        );
    }

    #[test]
    fn what_cannot_be_opened_is_tried_again() {
        let scratch = Scratch::new("unopened");
        let path = scratch.logs().join(CURRENT);
        let mut log = RotatingFile::open(&scratch.logs(), &settings(1000, 3)).unwrap();
        fs::remove_file(&path).unwrap();
        symlink("/dev/full", &path).unwrap();
        assert_eq!(log.write(b"1\n"), 1);
        fs::remove_dir_all(scratch.logs()).unwrap();
        fs::write(scratch.logs(), "a file where the directory should be").unwrap();
        assert_eq!(log.write(b"2\n3\n"), 2);
        fs::remove_file(scratch.logs()).unwrap();
        assert_eq!(log.write(b"4\n"), 0);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("[plugin-runner] 3 lines are missing here"));
        assert!(text.ends_with("\n4\n"));
    }

    #[test]
    fn a_full_device_is_told_with_nothing_written() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (written, result) = write_counted(&full, b"line\n");
        assert_eq!(written, 0);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_write_that_stops_half_way_is_told_how_far_it_came() {
        let (reader, writer) = io::pipe().unwrap();
        let writer = File::from(OwnedFd::from(writer));
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
        let (written, result) = write_counted(&writer, &vec![b'x'; 4 * 1024 * 1024]);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(writer);
        let mut read = Vec::new();
        io::Read::read_to_end(&mut { reader }, &mut read).unwrap();
        assert_eq!(read.len(), written);
        assert!(written > 0);
    }

    #[test]
    fn lines_are_told_apart() {
        assert_eq!(fitting(b"a\nb\n", 4, false), 4);
        assert_eq!(fitting(b"a\nb\n", 3, false), 2);
        assert_eq!(fitting(b"a\nb\n", 1, false), 0);
        assert_eq!(fitting(b"a\nb\n", 1, true), 2);
        assert_eq!(fitting(b"a\nb\n", 0, true), 2);
        assert_eq!(count_lines(b"a\n\nb\n"), 3);
        assert_eq!(count_lines(b""), 0);
        assert_eq!(end_of_last_line(b"a\nb"), 2);
        assert_eq!(end_of_last_line(b"ab"), 0);
    }
}
