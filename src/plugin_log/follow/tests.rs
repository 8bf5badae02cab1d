//! Followers against real files, and against a writer that rotates under them.

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
fn gap(follower: &mut Follower) -> (Option<u64>, Option<u64>) {
    match follower.next(LONG).unwrap() {
        Followed::Gap(gap) => (gap.files, gap.bytes),
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
    assert_eq!(gap(&mut live), (Some(6), Some(6 * 20)));
    assert_eq!(gap(&mut directory), (None, None));
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
                let (mut expected, mut missing) = (1, Vec::new());
                while expected < LINES {
                    match follower.next(LONG).unwrap() {
                        Followed::Gap(gap) => missing.push(gap.bytes),
                        Followed::Line(line) => {
                            let number: u64 = line.parse().unwrap();
                            if number != expected {
                                assert!(!missing.is_empty(), "{number}: {expected}");
                            }
                            // Of its size too, where it is known.
                            if let Some(bytes) = missing.drain(..).sum::<Option<u64>>() {
                                let lost =
                                    (expected..number).map(|line| line.to_string().len() + 1);
                                assert_eq!(
                                    bytes,
                                    lost.sum::<usize>() as u64,
                                    "{number}: {expected}"
                                );
                            }
                            expected = number + 1;
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
fn a_gap_says_how_large_it_is() {
    let text = |files, bytes| Gap { files, bytes }.to_string();
    assert_eq!(text(Some(2), Some(300)), "300 bytes are missing");
    assert_eq!(text(Some(1), Some(1)), "1 byte is missing");
    assert_eq!(text(Some(2), None), "2 files are missing");
    assert_eq!(text(Some(1), None), "1 file is missing");
    assert_eq!(text(None, None), "something may be missing");
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
        assert_eq!(gap(follower), (Some(1), Some(2)));
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
    assert_eq!(gap(&mut directory), (None, None));
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
        assert_eq!(gap(follower), (None, None));
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
