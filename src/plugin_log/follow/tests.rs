//! Followers against real files, and against a writer that rotates under them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

use super::super::CONTINUES;
use super::super::file::CURRENT;
use super::super::line::LogStream;
use super::super::scratch::{Scratch, names};
use super::super::timestamp::Timestamp;
use super::super::{LogSettings, PluginLog};
use super::*;
use crate::id::InstallationId;
use crate::testing::{LONG, assert_matches};

// Where a follower begins.
mod beginning;
// Many at once.
mod crowd;
// Where it goes on.
mod places;
// When it was printed.
mod times;

fn open(directory: impl Into<PathBuf>, settings: LogSettings) -> Arc<PluginLog> {
    Arc::new(PluginLog::open(directory, settings, None).unwrap())
}

fn settings(max_file_size: u64, keep: usize) -> LogSettings {
    LogSettings::default()
        .max_file_size(max_file_size)
        .keep(keep)
        .max_age(Duration::MAX)
}

fn write(log: &PluginLog, line: impl ToString) {
    log.write_line(LogStream::Stdout, line.to_string().as_bytes());
}

#[track_caller]
fn line(follower: &mut Follower) -> String {
    match follower.next(LONG).unwrap() {
        Followed::Line(line) => line,
        other @ Followed::Gap { .. } => panic!("expected a line, got {other:?}"),
    }
}

#[track_caller]
fn gap(follower: &mut Follower) -> (Option<u64>, Option<u64>) {
    match follower.next(LONG).unwrap() {
        Followed::Gap { files, bytes } => (files, bytes),
        other @ Followed::Line(_) => panic!("expected a gap, got {other:?}"),
    }
}

#[track_caller]
fn nothing(follower: &mut Follower) {
    let error = follower.next(Duration::ZERO).unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[test]
fn it_can_be_handed_to_a_thread() {
    fn check<T: Send + 'static>() {}
    check::<Follower>();
}

#[test]
fn old_files_come_first_and_then_the_current_one() {
    let scratch = Scratch::new("order");
    let log = open(scratch.logs(), settings(4, 10));
    for number in 1..=7 {
        write(&log, number);
    }
    assert_eq!(names(&scratch.logs()).len(), 4);
    let mut follower = log.follow();
    let lines: Vec<String> = (1..=7).map(|_| line(&mut follower)).collect();
    assert_eq!(lines, ["1", "2", "3", "4", "5", "6", "7"]);
    nothing(&mut follower);
}

#[test]
fn the_timeout_names_its_phase() {
    let scratch = Scratch::new("timeout");
    let mut follower = open(scratch.logs(), LogSettings::default()).follow();
    let error = follower.next(Duration::from_millis(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "waiting for a log line timed out after 1ms"
    );
}

#[test]
fn a_waiting_follower_gets_lines_as_they_are_written() {
    let scratch = Scratch::new("waiting");
    let log = open(scratch.logs(), settings(4, 10));
    let mut follower = log.follow();
    // Answered line by line, so that each wait begins at the end of the log.
    let (answer, answers) = crossbeam_channel::unbounded();
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
    assert!(names(&scratch.logs()).len() > 1);
}

#[test]
fn a_rotation_right_after_looking_loses_nothing() {
    let scratch = Scratch::new("between");
    let log = open(scratch.logs(), settings(4, 10));
    let mut follower = log.follow();
    write(&log, 1);
    assert_eq!(line(&mut follower), "1");
    nothing(&mut follower);
    // Before reading: the line is found at once, and the rotation at the next look.
    assert!(!follower.look());
    write(&log, 2);
    write(&log, 3);
    assert!(follower.read(false).unwrap());
    // After reading: the end that was read is not the end.
    assert_eq!(line(&mut follower), "2");
    assert_eq!(line(&mut follower), "3");
    assert!(!follower.look());
    assert!(!follower.read(false).unwrap());
    write(&log, 4);
    write(&log, 5);
    assert_eq!(line(&mut follower), "4");
    assert_eq!(line(&mut follower), "5");
    nothing(&mut follower);
}

/// Two threads write while it is followed; lines of each come all and in order.
#[test]
fn nothing_is_lost_while_it_rotates() {
    const EACH: u32 = 50_000;
    let scratch = Scratch::new("live");
    let log = open(scratch.logs(), settings(512, 10_000));
    let mut follower = log.follow();
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
fn who_is_slower_than_what_is_kept_is_told_what_is_missing() {
    let scratch = Scratch::new("slow");
    // Two lines to a file.
    let log = open(scratch.logs(), settings(20, 2));
    let mut follower = log.follow();
    write(&log, 100_000_001);
    assert_eq!(line(&mut follower), "100000001");
    for number in 100_000_002..=100_000_019 {
        write(&log, number);
    }
    // The file it holds is read to its end: 1 and 2. Kept are 15 to 18, and 19.
    assert_eq!(line(&mut follower), "100000002");
    assert_eq!(gap(&mut follower), (Some(6), Some(6 * 20)));
    for number in 100_000_015..=100_000_019 {
        assert_eq!(line(&mut follower), number.to_string());
    }
    nothing(&mut follower);
}

/// A follower in a hurry and a log that keeps little: what is not seen must lie in a gap.
#[test]
fn never_silent_about_what_is_missing() {
    const LINES: u64 = 20_000;
    let scratch = Scratch::new("silent");
    let log = open(scratch.logs(), settings(100, 1));
    write(&log, 0);
    let mut follower = log.follow();
    assert_eq!(line(&mut follower), "0");
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut expected, mut missing) = (1, Vec::new());
            while expected < LINES {
                match follower.next(LONG).unwrap() {
                    Followed::Gap { bytes, .. } => missing.push(bytes),
                    Followed::Line(line) => {
                        let number: u64 = line.parse().unwrap();
                        if number != expected {
                            assert!(!missing.is_empty(), "{number}: {expected}");
                        }
                        // Of its size too.
                        let bytes = missing.drain(..).sum::<Option<u64>>();
                        let lost = (expected..number).map(|line| line.to_string().len() + 1);
                        let lost = lost.sum::<usize>() as u64;
                        assert_eq!(bytes, Some(lost), "{number}: {expected}");
                        expected = number + 1;
                    }
                }
            }
        });
        for number in 1..LINES {
            write(&log, number);
        }
    });
}

#[test]
fn what_was_found_shows_a_line_or_how_much_is_missing() {
    assert_eq!(Followed::Line("a line".to_owned()).to_string(), "a line");
    let text = |files, bytes| Followed::Gap { files, bytes }.to_string();
    assert_eq!(text(Some(2), Some(300)), "300 bytes are missing");
    assert_eq!(text(Some(1), Some(1)), "1 byte is missing");
    assert_eq!(text(None, None), "something may be missing");
}

#[test]
fn an_old_file_deleted_by_hand_is_a_gap() {
    let scratch = Scratch::new("by-hand");
    let log = open(scratch.logs(), settings(2, 10));
    for number in 1..=4 {
        write(&log, number);
    }
    let mut follower = log.follow();
    assert_eq!(line(&mut follower), "1");
    fs::remove_file(scratch.logs().join(&names(&scratch.logs())[1])).unwrap();
    assert_eq!(gap(&mut follower), (Some(1), Some(2)));
    assert_eq!(line(&mut follower), "3");
    assert_eq!(line(&mut follower), "4");
}

#[test]
fn the_current_file_deleted_by_hand_does_not_bring_old_lines_back() {
    let scratch = Scratch::new("deleted");
    let log = open(scratch.logs(), settings(2, 10));
    write(&log, 1);
    write(&log, 2);
    let mut follower = log.follow();
    assert_eq!(line(&mut follower), "1");
    assert_eq!(line(&mut follower), "2");
    fs::remove_file(scratch.logs().join(CURRENT)).unwrap();
    write(&log, 3);
    assert_eq!(line(&mut follower), "3");
}

#[test]
fn a_half_written_line_is_waited_for() {
    let scratch = Scratch::new("half");
    let mut follower = open(scratch.path(), LogSettings::default()).follow();
    let file = File::options()
        .append(true)
        .open(scratch.path().join(CURRENT));
    let mut file = file.unwrap();
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
    let log = open(scratch.path(), LogSettings::default().max_line(1024 * 1024));
    log.write_line(LogStream::Stdout, b"a\xffb");
    let mut follower = log.follow();
    assert_eq!(line(&mut follower), long);
    assert_eq!(line(&mut follower), "a\u{fffd}b");
}

#[test]
fn longer_lines_than_the_log_has_come_in_pieces() {
    let scratch = Scratch::new("vast");
    let current = scratch.path().join(CURRENT);
    // A plugin wrote it into the file itself. Its last piece is shorter than what the checksum of a line is of.
    let (first, second) = ("x".repeat(MAX_LINE - CONTINUES.len()), "y".repeat(20));
    fs::write(&current, format!("{first}{first}{second}\nnext\n")).unwrap();
    let log = open(scratch.path(), LogSettings::default().max_line(1000));
    let mut follower = log.follow();
    let beginning = follower.place();
    let piece = format!("{first}{CONTINUES}");
    for _ in 0..2 {
        assert!(line(&mut follower) == piece, "another piece");
        assert_eq!(follower.place(), beginning, "within the line");
    }
    assert_eq!(line(&mut follower), second);
    let behind = follower.place();
    assert_eq!(line(&mut follower), "next");
    let mut resumed = log.follow().after(&behind).unwrap();
    assert_eq!(line(&mut resumed), "next");
    assert_eq!(resumed.place(), follower.place());
    let mut resumed = log.follow().after(&resumed.place()).unwrap();
    nothing(&mut resumed);
    // One without end takes no more memory than that.
    fs::write(&current, vec![0xff; 8 * 1024 * 1024]).unwrap();
    let mut follower = log.follow();
    for _ in 0..100 {
        assert_eq!(
            line(&mut follower).len(),
            3 * (MAX_LINE - CONTINUES.len()) + CONTINUES.len()
        );
    }
}

#[test]
fn a_file_made_shorter_is_read_from_its_start() {
    let scratch = Scratch::new("shorter");
    let log = open(scratch.logs(), settings(1000, 3));
    write(&log, "a line");
    let mut follower = log.follow();
    assert_eq!(line(&mut follower), "a line");
    let file = File::options()
        .write(true)
        .open(scratch.logs().join(CURRENT))
        .unwrap();
    file.set_len(0).unwrap();
    assert_eq!(gap(&mut follower), (None, None));
    write(&log, "new");
    assert_eq!(line(&mut follower), "new");
}

#[test]
fn followers_of_a_removed_installation_end_after_the_last_line() {
    let scratch = Scratch::new("removed");
    let log = open(scratch.logs(), settings(4, 10));
    let id = InstallationId::generate();
    let [mut waiting, mut behind, mut unused] = [(); 3].map(|()| log.follow());
    write(&log, 1);
    assert_eq!(line(&mut waiting), "1");
    assert_eq!(line(&mut behind), "1");
    thread::scope(|scope| {
        let waiting = scope.spawn(move || waiting.next(LONG).unwrap_err());
        log.end(id);
        let error = waiting.join().unwrap();
        assert_matches!(error, Error::NotInstalled(removed) if removed == id);
    });
    for number in 2..=5 {
        write(&log, number);
    }
    for (follower, first) in [(&mut behind, 2), (&mut unused, 1)] {
        for number in first..=5 {
            assert_eq!(line(follower), number.to_string());
        }
        for _ in 0..2 {
            let error = follower.next(LONG).unwrap_err();
            assert_matches!(error, Error::NotInstalled(removed) if removed == id);
        }
    }
}

/// What is open in this directory, once for each descriptor.
#[cfg(target_os = "linux")]
fn open_logs(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.starts_with(directory))
        .collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_follower_leaves_no_descriptor_behind() {
    let scratch = Scratch::new("descriptors");
    let log = open(scratch.logs(), settings(2, 3));
    let mut follower = log.follow();
    for number in 0..20 {
        write(&log, number);
        while line(&mut follower) != number.to_string() {}
    }
    // The writer's and at most one more.
    assert!(open_logs(scratch.path()).len() <= 2);
    drop((log, follower));
    assert_eq!(open_logs(scratch.path()), Vec::<PathBuf>::new());
}
