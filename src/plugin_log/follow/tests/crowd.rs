//! Many followers of one log, of which half have stopped reading, as the clients of a server do.

use super::super::super::line::LineBatch;
use super::*;

const EACH: usize = 100;
const LINES: u64 = 20_000;

/// The number in each line, and its length in the file.
fn length(number: u64) -> u64 {
    number.to_string().len() as u64 + 1
}

/// Reads up to the last line, and sees to it that whatever is not among the lines is in a gap.
fn read_all(follower: &mut Follower, mut expected: u64) {
    let mut missing = 0;
    while expected < LINES {
        match follower.next(LONG).unwrap() {
            Followed::Gap { bytes, .. } => missing += bytes.unwrap(),
            Followed::Line(line) => {
                let number = line.parse().unwrap();
                let lost: u64 = (expected..number).map(length).sum();
                assert_eq!(missing, lost, "{number}: {expected}");
                (expected, missing) = (number + 1, 0);
            }
        }
    }
}

#[test]
fn followers_that_do_not_read_hold_up_neither_the_log_nor_the_others() {
    let scratch = Scratch::new("crowd");
    let log = open(scratch.logs(), settings(4096, 3));
    write(&log, 0);
    let followers = || (0..EACH).map(|_| log.follow()).collect::<Vec<_>>();
    let (mut stuck, mut readers) = (followers(), followers());
    for follower in stuck.iter_mut().chain(&mut readers) {
        assert_eq!(line(follower), "0");
    }
    thread::scope(|scope| {
        for follower in &mut readers {
            scope.spawn(|| read_all(follower, 1));
        }
        let mut batch = LineBatch::default();
        for number in 1..LINES {
            batch.push(LogStream::Stdout, number.to_string().as_bytes());
            if number % 100 == 0 || number == LINES - 1 {
                log.write(&mut batch);
            }
        }
    });
    // One file each, and what was read last.
    #[cfg(target_os = "linux")]
    assert!(open_logs(scratch.path()).len() <= 2 * EACH + 1);
    for follower in &mut stuck {
        assert!(follower.lines.is_empty() && follower.buffer.len() == READ_SIZE);
        read_all(follower, 1);
    }
}

#[test]
fn of_many_lines_that_were_read_at_once_one_is_held() {
    let scratch = Scratch::new("held");
    fs::write(scratch.path().join(CURRENT), "\n".repeat(4 * READ_SIZE)).unwrap();
    let log = open(scratch.path(), LogSettings::default());
    let mut follower = log.follow();
    for _ in 0..4 * READ_SIZE {
        assert_eq!(line(&mut follower), "");
        assert!(follower.lines.is_empty() && follower.buffer.len() == READ_SIZE);
    }
    nothing(&mut follower);
}
