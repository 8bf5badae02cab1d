//! Followers that begin with one of the last lines, or at the end.

use std::os::unix::fs::FileExt as _;

use super::*;

fn lines(follower: &mut Follower) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        match follower.next(Duration::ZERO) {
            Ok(Followed::Line(line)) => lines.push(line),
            Ok(other @ Followed::Gap { .. }) => panic!("expected a line, got {other:?}"),
            Err(error) if error.is_timeout() => return lines,
            Err(error) => panic!("{error}"),
        }
    }
}

fn append(path: &Path, bytes: &[u8]) {
    let file = File::options().append(true).create(true).open(path);
    file.unwrap().write_all(bytes).unwrap();
}

#[test]
fn the_last_lines_are_those_at_the_end_of_all_files() {
    for size in [1, 7, 40, 1000] {
        let scratch = Scratch::new("last");
        let log = open(scratch.logs(), settings(size, 1000));
        for number in 0..30 {
            // Of several lengths, and some of none.
            write(&log, "x".repeat(number % 4));
        }
        write(&log, "the end");
        let all = lines(&mut log.follow());
        assert_eq!(all.len(), 31);
        for count in (0..=32).chain([usize::MAX]) {
            let mut follower = log.follow().last(count).unwrap();
            let expected = &all[all.len().saturating_sub(count)..];
            assert_eq!(lines(&mut follower), expected, "{count} of files of {size}");
        }
    }
}

#[test]
fn lines_longer_than_a_block_are_found_where_they_begin() {
    let scratch = Scratch::new("blocks");
    let texts = [
        READ_SIZE - 1,
        1,
        READ_SIZE,
        3 * READ_SIZE + 5,
        0,
        READ_SIZE - 2,
    ];
    let texts = texts.map(|length| "x".repeat(length));
    append(
        &scratch.path().join(CURRENT),
        (texts.join("\n") + "\n").as_bytes(),
    );
    let log = open(scratch.path(), LogSettings::default());
    for count in 0..=texts.len() {
        let mut follower = log.follow().last(count).unwrap();
        assert_eq!(lines(&mut follower), &texts[texts.len() - count..]);
    }
}

#[test]
fn from_the_end_only_new_lines_come() {
    let scratch = Scratch::new("end");
    let log = open(scratch.logs(), settings(4, 10));
    let mut empty = log.follow().from_end().unwrap();
    for number in 1..=3 {
        write(&log, number);
    }
    let mut follower = log.follow().from_end().unwrap();
    nothing(&mut follower);
    for number in 4..=9 {
        write(&log, number);
    }
    assert_eq!(lines(&mut follower), ["4", "5", "6", "7", "8", "9"]);
    assert_eq!(lines(&mut empty).len(), 9);
    // What was read before does not matter.
    let mut again = follower.last(2).unwrap();
    assert_eq!(lines(&mut again), ["8", "9"]);
    write(&log, 10);
    let mut again = again.from_end().unwrap();
    nothing(&mut again);
}

#[test]
fn a_half_written_line_does_not_count_and_comes_once_it_is_whole() {
    let scratch = Scratch::new("last-half");
    let current = scratch.path().join(CURRENT);
    append(&current, b"one\ntwo\nha");
    let log = open(scratch.path(), LogSettings::default());
    let mut followers = [0, 1].map(|count| log.follow().last(count).unwrap());
    assert_eq!(lines(&mut followers[0]), [""; 0]);
    assert_eq!(lines(&mut followers[1]), ["two"]);
    append(&current, b"lf\n");
    for follower in &mut followers {
        assert_eq!(lines(follower), ["half"]);
    }
}

#[test]
fn a_line_without_end_in_an_old_file_counts() {
    let scratch = Scratch::new("last-torn");
    let old = scratch.path().join("output-2026-02-21T11-50-22.965.log");
    append(&old, b"one\ntorn");
    append(&scratch.path().join(CURRENT), b"new\n");
    let log = open(scratch.path(), settings(1000, 3));
    let all = ["one", "torn", "new"];
    for count in 0..=3 {
        let mut follower = log.follow().last(count).unwrap();
        assert_eq!(lines(&mut follower), &all[3 - count..]);
    }
}

#[test]
fn the_end_of_a_vast_file_is_found_at_once() {
    let scratch = Scratch::new("last-vast");
    let file = File::create(scratch.path().join(CURRENT)).unwrap();
    // Nearly all of it a hole, which would take minutes to read.
    file.write_all_at(b"\nlast but one\nlast\n", 1 << 38)
        .unwrap();
    let log = open(scratch.path(), LogSettings::default());
    let mut follower = log.follow().last(2).unwrap();
    assert_eq!(lines(&mut follower), ["last but one", "last"]);
}

#[test]
fn a_vast_file_with_fewer_lines_than_wanted_is_not_searched_for_more() {
    let scratch = Scratch::new("last-hole");
    let log = open(scratch.path(), LogSettings::default());
    write(&log, "before");
    let file = File::options()
        .write(true)
        .open(scratch.path().join(CURRENT));
    file.unwrap()
        .write_all_at(b"\nlast but one\nlast\n", 1 << 42)
        .unwrap();
    let mut follower = log.follow().last(5).unwrap();
    assert_eq!(lines(&mut follower), ["last but one", "last"]);
}

#[test]
fn where_a_vast_line_has_no_end_it_is_begun_within_it_and_older_files_are_not_read() {
    let scratch = Scratch::new("last-endless");
    let log = open(scratch.path(), settings(7, 2));
    write(&log, "older");
    write(&log, "newer");
    let file = File::options()
        .write(true)
        .open(scratch.path().join(CURRENT));
    let file = file.unwrap();
    file.set_len(1 << 42).unwrap();
    let mut follower = log.follow().last(5).unwrap();
    file.write_all_at(b"\nnext\n", 1 << 42).unwrap();
    log.write_line(LogStream::Host, b"woken");
    let lines = lines(&mut follower);
    assert_eq!(lines.iter().map(String::len).max(), Some(MAX_LINE));
    assert!(!lines.iter().any(|line| line == "older"));
    assert!(lines.contains(&"next".to_owned()));
}

#[test]
fn old_files_that_are_gone_are_passed_over() {
    let scratch = Scratch::new("last-gone");
    let log = open(scratch.logs(), settings(2, 10));
    for number in 1..=5 {
        write(&log, number);
    }
    let old = names(&scratch.logs());
    fs::remove_file(scratch.logs().join(&old[2])).unwrap();
    let mut follower = log.follow().last(3).unwrap();
    assert_eq!(line(&mut follower), "2");
    assert_eq!(gap(&mut follower), (Some(1), Some(2)));
    assert_eq!(lines(&mut follower), ["4", "5"]);
    fs::remove_file(scratch.logs().join(&old[0])).unwrap();
    let mut follower = log.follow().last(2).unwrap();
    assert_eq!(lines(&mut follower), ["4", "5"]);
}

#[test]
fn a_log_without_files_has_no_last_lines() {
    let scratch = Scratch::new("last-disabled");
    let log = open(scratch.logs(), LogSettings::default().enabled(false));
    write(&log, "in the tail only");
    nothing(&mut log.follow().last(5).unwrap());
}

#[test]
fn where_the_directory_is_gone_the_open_file_is_what_is_left() {
    let scratch = Scratch::new("last-lost");
    let log = open(scratch.logs(), settings(2, 10));
    write(&log, 1);
    write(&log, 2);
    fs::remove_dir_all(scratch.logs()).unwrap();
    fs::write(scratch.logs(), "a file where the directory should be").unwrap();
    assert_eq!(lines(&mut log.follow().last(5).unwrap()), ["2"]);
}

/// The last lines are consecutive, and nothing is missing after them, whatever is written and rotated meanwhile.
#[test]
fn nothing_is_lost_between_the_last_lines_and_the_next() {
    const LINES: u64 = 30_000;
    let scratch = Scratch::new("last-live");
    let log = open(scratch.logs(), settings(512, 10_000));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..LINES {
                write(&log, number);
            }
        });
        let mut rounds = 0;
        while !writer.is_finished() || rounds == 0 {
            let count = rounds % 200;
            let mut follower = log.follow().last(count).unwrap();
            let mut expected = None;
            for _ in 0..=count {
                let Ok(Followed::Line(line)) = follower.next(Duration::ZERO) else {
                    break;
                };
                let number: u64 = line.parse().unwrap();
                assert!(expected.is_none_or(|expected| expected == number), "{line}");
                expected = Some(number + 1);
            }
            rounds += 1;
        }
    });
    let mut follower = log.follow().last(1).unwrap();
    assert_eq!(line(&mut follower), (LINES - 1).to_string());
}
