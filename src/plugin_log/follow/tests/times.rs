//! When lines were printed, and beginning at a time.

use std::time::UNIX_EPOCH;

use super::super::super::index::Index;
use super::super::super::times::{TIMES, Times};
use super::*;

fn second(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(second)
}

/// A log of six lines, two in each file, of which the first is of unknown age.
fn aged(scratch: &Scratch) -> Arc<PluginLog> {
    let log = open(scratch.logs(), settings(4, 10));
    (1..=6).for_each(|number| write(&log, number));
    drop(log);
    let directory = file::find_directory(&scratch.logs()).unwrap().unwrap();
    let name = Index::read_from(&directory).unwrap().unwrap().log;
    fs::remove_file(scratch.logs().join(TIMES)).unwrap();
    let mut times = Times::begin(&directory, name, 0..12).unwrap();
    for (position, at) in [(2, 1000), (4, 2000), (8, 3000)] {
        times.note(position, second(at)).unwrap();
    }
    open(scratch.logs(), settings(4, 10))
}

#[test]
fn it_says_when_lines_were_printed_also_across_rotation() {
    let scratch = Scratch::new("printed-at");
    let begun = SystemTime::now();
    let log = aged(&scratch);
    let mut follower = log.follow();
    assert_eq!(follower.printed_at(), None);
    for (number, at) in (1..=6).zip([0, 1000, 2000, 2000, 3000, 3000]) {
        assert_eq!(line(&mut follower), number.to_string());
        let known = (at > 0).then(|| second(at));
        assert_eq!(follower.printed_at(), known, "{number}");
    }
    for number in 7..=9 {
        write(&log, number);
        assert_eq!(line(&mut follower), number.to_string());
        let at = follower.printed_at().unwrap();
        // Times are of milliseconds.
        assert!(at + Duration::from_millis(1) >= begun && at <= SystemTime::now());
    }
    let place = follower.place();
    assert_eq!(
        follower
            .after("d5k1vvc5o2dtjn9ct4bg-4")
            .unwrap()
            .printed_at(),
        None
    );
    assert!(log.follow().after(&place).unwrap().printed_at() > Some(begun - LONG));
}

#[test]
fn it_begins_at_a_time() {
    let scratch = Scratch::new("since");
    let log = aged(&scratch);
    for (time, first) in [
        (0, "1"),
        (1000, "1"),
        (1001, "3"),
        (2000, "3"),
        (2001, "5"),
        (3000, "5"),
    ] {
        let mut follower = log.follow().since(second(time)).unwrap();
        assert_eq!(line(&mut follower), first, "{time}");
    }
    let mut follower = log.follow().since(SystemTime::now() - LONG).unwrap();
    nothing(&mut follower);
    write(&log, 7);
    assert_eq!(line(&mut follower), "7");
    let mut follower = log.follow().since(SystemTime::now() - LONG).unwrap();
    assert_eq!(line(&mut follower), "7");
}

#[test]
fn without_times_it_begins_with_the_oldest_line_and_nothing_fails() {
    let scratch = Scratch::new("no-times");
    drop(aged(&scratch));
    let path = scratch.logs().join(TIMES);
    fs::remove_file(&path).unwrap();
    // In its place is what cannot be replaced.
    fs::create_dir(&path).unwrap();
    let log = open(scratch.logs(), settings(4, 10));
    write(&log, 7);
    let mut follower = log.follow().since(SystemTime::now() + LONG).unwrap();
    for number in 1..=7 {
        assert_eq!(line(&mut follower), number.to_string());
        assert_eq!(follower.printed_at(), None);
    }
    nothing(&mut follower);
}
