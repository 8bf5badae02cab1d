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
                self.gap = Some(Gap { files: None });
                return Ok(true);
            }
            if !ended {
                return Ok(false);
            }
        }
        let Some(Next { file, missing }) = self.trail.advance()? else {
            return Ok(false);
        };
        // The last line of the file before may have no end, if its writer died while writing it.
        self.lines.end();
        self.gap = match missing {
            Missing::None => None,
            Missing::Files(count) => Some(Gap { files: Some(count) }),
            Missing::Unknown => Some(Gap { files: None }),
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

    fn advance(&mut self) -> io::Result<Option<Next>> {
        match self {
            Self::Live(trail) => trail.advance(),
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
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{self, File};
    use std::io::Write;
    use std::path::Path;
    use std::thread;

    use super::super::file::CURRENT;
    use super::super::line::LogStream;
    use super::super::scratch::{Scratch, names};
    use super::super::{LogSettings, PluginLog};
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn settings(max_file_size: u64, keep: usize) -> LogSettings {
        LogSettings::default()
            .with_max_file_size(max_file_size)
            .with_keep(keep)
    }

    fn write(log: &PluginLog, line: impl ToString) {
        log.write_line(LogStream::Stdout, line.to_string().as_bytes());
    }

    #[track_caller]
    fn line(follower: &mut Follower) -> String {
        match follower.next(LONG).unwrap() {
            Followed::Line(line) => line,
            other @ Followed::Gap(_) => panic!("expected a line, got {other:?}"),
        }
    }

    #[track_caller]
    fn gap(follower: &mut Follower) -> Option<u64> {
        match follower.next(LONG).unwrap() {
            Followed::Gap(gap) => gap.files,
            other @ Followed::Line(_) => panic!("expected a gap, got {other:?}"),
        }
    }

    #[track_caller]
    fn nothing(follower: &mut Follower) {
        let error = follower.next(Duration::ZERO).unwrap_err();
        assert!(error.is_timeout(), "{error}");
    }

    fn both(log: &PluginLog) -> [Follower; 2] {
        [log.follow(), Follower::open(log.directory())]
    }

    #[test]
    fn it_can_be_handed_to_a_thread() {
        fn check<T: Send + 'static>() {}
        check::<Follower>();
    }

    #[test]
    fn old_files_come_first_and_then_the_current_one() {
        let scratch = Scratch::new("order");
        let log = PluginLog::open(scratch.logs(), settings(4, 10), None).unwrap();
        for number in 1..=7 {
            write(&log, number);
        }
        assert_eq!(names(&scratch.logs()).len(), 4);
        for mut follower in both(&log) {
            let lines: Vec<String> = (1..=7).map(|_| line(&mut follower)).collect();
            assert_eq!(lines, ["1", "2", "3", "4", "5", "6", "7"]);
            nothing(&mut follower);
        }
    }

    #[test]
    fn the_timeout_names_its_phase() {
        let scratch = Scratch::new("timeout");
        let mut follower = Follower::open(scratch.logs());
        let error = follower.next(Duration::from_millis(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "waiting for a log line timed out after 1ms"
        );
    }

    #[test]
    fn a_waiting_follower_gets_lines_as_they_are_written() {
        let scratch = Scratch::new("waiting");
        let log = PluginLog::open(scratch.logs(), settings(4, 10), None).unwrap();
        for mut follower in both(&log) {
            // Answered line by line, so that each wait begins at the end of the log.
            let (answer, answers) = crossbeam_channel::unbounded();
            let start = names(&scratch.logs()).len();
            thread::scope(|scope| {
                scope.spawn(move || {
                    while let Ok(Followed::Line(line)) = follower.next(LONG) {
                        answer.send(line.clone()).unwrap();
                        if line == "end" {
                            break;
                        }
                    }
                });
                for text in ["a", "b", "c", "d", "e", "end"] {
                    write(&log, text);
                    while answers.recv_timeout(LONG).unwrap() != text {}
                }
            });
            assert!(names(&scratch.logs()).len() > start);
        }
    }

    #[test]
    fn a_rotation_right_after_looking_loses_nothing() {
        let scratch = Scratch::new("between");
        for of_process in [true, false] {
            let log = PluginLog::open(scratch.logs(), settings(4, 10), None).unwrap();
            let mut follower = if of_process {
                log.follow()
            } else {
                Follower::open(log.directory())
            };
            write(&log, 1);
            while line(&mut follower) != "1" {}
            nothing(&mut follower);
            let look = |follower: &mut Follower| {
                let ended = follower.trail.look(follower.reading.as_ref()).unwrap();
                assert!(!ended);
            };
            // Before reading: the line is found at once, and the rotation at the next look.
            look(&mut follower);
            write(&log, 2);
            write(&log, 3);
            assert!(follower.read(false).unwrap());
            // After reading: the end that was read is not the end.
            assert_eq!(line(&mut follower), "2");
            assert_eq!(line(&mut follower), "3");
            look(&mut follower);
            assert!(!follower.read(false).unwrap());
            write(&log, 4);
            write(&log, 5);
            assert_eq!(line(&mut follower), "4");
            assert_eq!(line(&mut follower), "5");
            nothing(&mut follower);
            drop(log);
            fs::remove_dir_all(scratch.logs()).unwrap();
        }
    }

    /// Two threads write while it is followed; lines of each come all and in order.
    fn nothing_is_lost(name: &str, follow: impl FnOnce(&PluginLog) -> Follower) {
        const EACH: u32 = 50_000;
        let scratch = Scratch::new(name);
        let log = PluginLog::open(scratch.logs(), settings(512, 10_000), None).unwrap();
        let mut follower = follow(&log);
        thread::scope(|scope| {
            for stream in [LogStream::Stdout, LogStream::Stderr] {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..EACH {
                        log.write_line(stream, format!("{stream:?} {number}").as_bytes());
                    }
                });
            }
            let mut next = [0, 0];
            while next != [EACH, EACH] {
                let line = line(&mut follower);
                let (stream, number) = line.split_once(' ').unwrap();
                let next = &mut next[usize::from(stream == "Stderr")];
                assert_eq!(number, next.to_string());
                *next += 1;
            }
        });
        nothing(&mut follower);
        assert!(names(&scratch.logs()).len() > 50);
    }

    #[test]
    fn nothing_is_lost_while_it_rotates() {
        nothing_is_lost("live", PluginLog::follow);
    }

    #[test]
    fn nothing_is_lost_while_another_process_rotates() {
        nothing_is_lost("directory", |log| Follower::open(log.directory()));
    }

    #[test]
    fn who_is_slower_than_what_is_kept_is_told_what_is_missing() {
        let scratch = Scratch::new("slow");
        // Two lines to a file.
        let log = PluginLog::open(scratch.logs(), settings(20, 2), None).unwrap();
        let [mut live, mut directory] = both(&log);
        write(&log, 100_000_001);
        for follower in [&mut live, &mut directory] {
            assert_eq!(line(follower), "100000001");
        }
        for number in 100_000_002..=100_000_019 {
            write(&log, number);
        }
        // The file they hold is read to its end: 1 and 2. Kept are 15 to 18, and 19.
        for follower in [&mut live, &mut directory] {
            assert_eq!(line(follower), "100000002");
        }
        assert_eq!(gap(&mut live), Some(6));
        assert_eq!(gap(&mut directory), None);
        for follower in [&mut live, &mut directory] {
            for number in 100_000_015..=100_000_019 {
                assert_eq!(line(follower), number.to_string());
            }
            nothing(follower);
        }
    }

    /// A follower in a hurry and a log that keeps little: what is not seen must lie in a gap.
    #[test]
    fn never_silent_about_what_is_missing() {
        const LINES: u64 = 20_000;
        let scratch = Scratch::new("silent");
        let log = PluginLog::open(scratch.logs(), settings(100, 1), None).unwrap();
        write(&log, 0);
        let mut followers = both(&log);
        for follower in &mut followers {
            assert_eq!(line(follower), "0");
        }
        thread::scope(|scope| {
            for mut follower in followers {
                scope.spawn(move || {
                    let (mut expected, mut missing) = (1, false);
                    while expected < LINES {
                        match follower.next(LONG).unwrap() {
                            Followed::Gap(_) => missing = true,
                            Followed::Line(line) => {
                                let number: u64 = line.parse().unwrap();
                                if number != expected {
                                    assert!(missing && number > expected, "{number}: {expected}");
                                }
                                (expected, missing) = (number + 1, false);
                            }
                        }
                    }
                });
            }
            for number in 1..LINES {
                write(&log, number);
            }
        });
    }

    #[test]
    fn an_old_file_deleted_by_hand_is_a_gap() {
        let scratch = Scratch::new("by-hand");
        let log = PluginLog::open(scratch.logs(), settings(2, 10), None).unwrap();
        for number in 1..=4 {
            write(&log, number);
        }
        let mut followers = both(&log);
        for follower in &mut followers {
            assert_eq!(line(follower), "1");
        }
        fs::remove_file(scratch.logs().join(&names(&scratch.logs())[1])).unwrap();
        for follower in &mut followers {
            assert_eq!(gap(follower), Some(1));
            assert_eq!(line(follower), "3");
            assert_eq!(line(follower), "4");
        }
    }

    #[test]
    fn the_current_file_deleted_by_hand_does_not_bring_old_lines_back() {
        let scratch = Scratch::new("deleted");
        let log = PluginLog::open(scratch.logs(), settings(2, 10), None).unwrap();
        write(&log, 1);
        write(&log, 2);
        let mut followers = both(&log);
        for follower in &mut followers {
            assert_eq!(line(follower), "1");
            assert_eq!(line(follower), "2");
        }
        fs::remove_file(scratch.logs().join(CURRENT)).unwrap();
        write(&log, 3);
        let [mut live, mut directory] = followers;
        assert_eq!(line(&mut live), "3");
        assert_eq!(gap(&mut directory), None);
        assert_eq!(line(&mut directory), "3");
    }

    #[test]
    fn what_does_not_exist_yet_is_waited_for() {
        let scratch = Scratch::new("missing");
        let mut follower = Follower::open(scratch.logs());
        nothing(&mut follower);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| line(&mut follower));
            let log = PluginLog::open(scratch.logs(), settings(100, 3), None).unwrap();
            write(&log, "first");
            assert_eq!(waiting.join().unwrap(), "first");
        });
    }

    #[test]
    fn a_half_written_line_is_waited_for() {
        let scratch = Scratch::new("half");
        let mut follower = Follower::open(scratch.path());
        let mut file = File::create(scratch.path().join(CURRENT)).unwrap();
        file.write_all(b"whole\r\nha").unwrap();
        assert_eq!(line(&mut follower), "whole");
        nothing(&mut follower);
        file.write_all(b"lf\n").unwrap();
        assert_eq!(line(&mut follower), "half");
    }

    #[test]
    fn long_lines_and_bytes_that_are_not_text_come_whole() {
        let scratch = Scratch::new("odd");
        let long = "x".repeat(1024 * 1024);
        fs::write(scratch.path().join(CURRENT), format!("{long}\n")).unwrap();
        let log = PluginLog::open(scratch.path(), LogSettings::default(), None).unwrap();
        log.write_line(LogStream::Stdout, b"a\xffb");
        for mut follower in both(&log) {
            assert_eq!(line(&mut follower), long);
            assert_eq!(line(&mut follower), "a\u{fffd}b");
        }
    }

    #[test]
    fn a_file_made_shorter_is_read_from_its_start() {
        let scratch = Scratch::new("shorter");
        let log = PluginLog::open(scratch.logs(), settings(1000, 3), None).unwrap();
        write(&log, "a line");
        let mut followers = both(&log);
        for follower in &mut followers {
            assert_eq!(line(follower), "a line");
        }
        let file = File::options()
            .write(true)
            .open(scratch.logs().join(CURRENT))
            .unwrap();
        file.set_len(0).unwrap();
        for follower in &mut followers {
            assert_eq!(gap(follower), None);
        }
        write(&log, "new");
        for follower in &mut followers {
            assert_eq!(line(follower), "new");
        }
    }

    #[test]
    fn a_follower_outlives_the_log_it_came_from() {
        for rotated in [false, true] {
            let scratch = Scratch::new("outlives");
            let first = PluginLog::open(scratch.logs(), settings(4, 10), None).unwrap();
            let mut follower = first.follow();
            let mut behind = first.follow();
            let mut unused = first.follow();
            for number in 1..=3 {
                write(&first, number);
            }
            for number in 1..=3 {
                assert_eq!(line(&mut follower), number.to_string());
            }
            assert_eq!(line(&mut behind), "1");
            drop(first);
            if !rotated {
                // It has noticed before the next one rotates.
                nothing(&mut follower);
            }
            let second = PluginLog::open(scratch.logs(), settings(4, 10), None).unwrap();
            for number in 4..=9 {
                write(&second, number);
            }
            for (follower, first) in [(&mut follower, 4), (&mut behind, 2), (&mut unused, 1)] {
                for number in first..=9 {
                    assert_eq!(line(follower), number.to_string());
                }
                nothing(follower);
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_follower_leaves_no_descriptor_behind() {
        fn open_logs(directory: &Path) -> BTreeSet<String> {
            fs::read_dir("/proc/self/fd")
                .unwrap()
                .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
                .filter(|target| target.starts_with(directory))
                .map(|target| target.display().to_string())
                .collect()
        }
        let scratch = Scratch::new("descriptors");
        let log = PluginLog::open(scratch.logs(), settings(2, 3), None).unwrap();
        for mut follower in both(&log) {
            for number in 0..20 {
                write(&log, number);
                while line(&mut follower) != number.to_string() {}
            }
            // The writer's and at most one more.
            assert!(open_logs(scratch.path()).len() <= 2);
        }
        drop(log);
        assert_eq!(open_logs(scratch.path()), BTreeSet::new());
    }
}
