//! Followers that go on at a place from before: after rotations, in another host, in a copy, and where the place is
//! gone.

use std::os::unix::fs::symlink;

use super::super::super::index::INDEX;
use super::*;
use crate::error::ErrorKind;

/// What is done to a file, with words for it.
type Trap = (&'static str, fn(&Path));

/// What a host still did before it was killed, with words for it.
type Step<'a> = (&'static str, &'a dyn Fn(&Path));

/// What comes without waiting.
fn found(mut follower: Follower) -> Vec<Followed> {
    let mut found = Vec::new();
    loop {
        match follower.next(Duration::ZERO) {
            Ok(next) => found.push(next),
            Err(error) if error.is_timeout() => return found,
            Err(error) => panic!("{error}"),
        }
    }
}

fn lines<T: ToString>(lines: impl IntoIterator<Item = T>) -> Vec<Followed> {
    let lines = lines.into_iter();
    lines.map(|line| Followed::Line(line.to_string())).collect()
}

/// A gap of whole files that are not counted, and then these lines.
fn after_gap<T: ToString>(
    bytes: impl Into<Option<u64>>,
    then: impl IntoIterator<Item = T>,
) -> Vec<Followed> {
    let gap = Followed::Gap {
        files: None,
        bytes: bytes.into(),
    };
    [gap].into_iter().chain(lines(then)).collect()
}

#[track_caller]
fn after(log: &Arc<PluginLog>, place: &str) -> Vec<Followed> {
    found(log.follow().after(place).unwrap())
}

/// The places behind all lines, and that of the beginning before them.
fn places(log: &Arc<PluginLog>) -> Vec<String> {
    let mut follower = log.follow();
    let mut places = vec![follower.place()];
    while follower.next(Duration::ZERO).is_ok() {
        places.push(follower.place());
    }
    places
}

/// A log with the lines `1` to `9` in files of two, and the places before and behind each.
fn nine(scratch: &Scratch) -> (Arc<PluginLog>, Vec<String>) {
    let log = open(scratch.logs(), settings(4, 10));
    for number in 1..=9 {
        write(&log, number);
    }
    let places = places(&log);
    assert_eq!(places.len(), 10);
    (log, places)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn behind_each_line_it_goes_on_with_the_next_whatever_has_happened_to_the_files() {
    for size in [1, 7, 40, 1000] {
        let scratch = Scratch::new("place-each");
        let settings = settings(size, 1000);
        let log = open(scratch.logs(), settings.clone());
        for number in 0..20 {
            // Of several lengths, some of none, and the same again and again.
            write(&log, "x".repeat(number % 4));
        }
        log.write_line(LogStream::Stdout, b"\xff no text \xfe\r");
        write(&log, "y".repeat(300));
        write(&log, "z".repeat(READ_SIZE * 2));
        let places = places(&log);
        let mut all = found(log.follow());
        assert_eq!(places.len(), all.len() + 1);
        let expect = |log: &Arc<PluginLog>, all: &[Followed], when: &str| {
            for (count, place) in places.iter().enumerate() {
                assert_eq!(
                    after(log, place),
                    all[count..],
                    "{when}: {count}, files of {size}"
                );
            }
        };
        expect(&log, &all, "at once");
        for number in 0..10 {
            write(&log, number);
        }
        all.extend(lines(0..10));
        expect(&log, &all, "after rotations");
        drop(log);
        let log = open(scratch.logs(), settings.clone());
        write(&log, "more");
        all.extend(lines(["more"]));
        expect(&log, &all, "opened again");
        copy(&scratch.logs(), &scratch.path().join("copy"));
        let log = open(scratch.path().join("copy"), settings.clone());
        expect(&log, &all, "in a copy");
        write(&log, "last");
        all.extend(lines(["last"]));
        expect(&log, &all, "after a line in the copy");
    }
}

#[test]
fn where_a_follower_begins_is_a_place_too() {
    let scratch = Scratch::new("place-begin");
    let empty = open(scratch.logs(), settings(4, 10)).follow().place();
    let (log, places) = nine(&scratch);
    assert_eq!(after(&log, &empty), lines(1..=9));
    let last = log.follow().last(3).unwrap();
    assert_eq!(after(&log, &last.place()), lines(7..=9));
    let end = log.follow().from_end().unwrap();
    assert_eq!(after(&log, &end.place()), []);
    write(&log, 10);
    assert_eq!(after(&log, &end.place()), lines([10]));
    // What was read before does not matter, nor what was to come.
    let mut follower = log.follow();
    assert_eq!(line(&mut follower), "1");
    let follower = follower.after(&places[7]).unwrap();
    assert_eq!(follower.place(), places[7]);
    assert_eq!(found(follower), lines(8..=10));
}

#[test]
fn where_a_place_was_rotated_away_the_gap_says_how_much_is_missing() {
    let scratch = Scratch::new("place-gone");
    let (log, places) = nine(&scratch);
    drop(log);
    // Two old files: of 5 and 6, and of 7 and 8.
    let log = open(scratch.logs(), settings(4, 2));
    for again in [false, true] {
        for (count, place) in (0..).zip(&places) {
            let found = after(&log, place);
            if count < 4 {
                assert_eq!(found, after_gap(8 - 2 * count, 5..=9), "{count}, {again}");
            } else {
                // Behind the last line of a file that is gone nothing is missing.
                assert_eq!(found, lines(count + 1..=9), "{count}, {again}");
            }
        }
    }
    // It is said once, and then there is a place again.
    let mut follower = log.follow().after(&places[1]).unwrap();
    assert_eq!(follower.place(), places[1]);
    assert_eq!(gap(&mut follower), (None, Some(6)));
    assert_eq!(after(&log, &follower.place()), lines(5..=9));
    assert_eq!(line(&mut follower), "5");
    drop((follower, log));
    let log = open(scratch.logs(), settings(4, 0));
    assert_eq!(after(&log, &places[1]), after_gap(14, [9]));
    write(&log, 10);
    write(&log, 11);
    assert_eq!(after(&log, &places[9]), after_gap(3, [11]));
    drop(log);
    // Without any old file it is known where the current one begins.
    let log = open(scratch.logs(), settings(4, 0));
    assert_eq!(after(&log, &places[9]), after_gap(3, [11]));
}

#[test]
fn where_files_were_removed_by_hand_it_goes_on_with_the_next_that_is_there() {
    let scratch = Scratch::new("place-by-hand");
    let (log, places) = nine(&scratch);
    let old = names(&scratch.logs());
    for name in &old[1..3] {
        fs::remove_file(scratch.logs().join(name)).unwrap();
    }
    let expect = |log: &Arc<PluginLog>| {
        assert_eq!(after(log, &places[3]), after_gap(6, 7..=9));
        assert_eq!(after(log, &places[5]), after_gap(2, 7..=9));
        assert_eq!(after(log, &places[6]), lines(7..=9));
    };
    expect(&log);
    drop(log);
    let log = open(scratch.logs(), settings(4, 10));
    expect(&log);
    // And what it reads before the hole is followed by one.
    let mut follower = log.follow().after(&places[1]).unwrap();
    assert_eq!(line(&mut follower), "2");
    drop(log);
    fs::remove_file(scratch.logs().join(&old[3])).unwrap();
    fs::remove_file(scratch.logs().join(CURRENT)).unwrap();
    let log = open(scratch.logs(), settings(4, 10));
    write(&log, "new");
    // What the current file had is not known any more, and that it is not there is noticed.
    assert_eq!(after(&log, &places[9]), after_gap(None, ["1", "2", "new"]));
}

#[test]
fn what_is_too_old_is_a_gap() {
    let scratch = Scratch::new("place-aged");
    fs::create_dir(scratch.logs()).unwrap();
    for (days, text) in [(29, "old\n"), (27, "younger\n")] {
        let age = Duration::from_secs(days * 24 * 60 * 60);
        let name = Timestamp::ago(age).file_name();
        fs::write(scratch.logs().join(name), text).unwrap();
    }
    let log = open(scratch.logs(), settings(100, 10));
    let places = places(&log);
    assert_eq!(places.len(), 3);
    drop(log);
    let log = open(scratch.logs(), LogSettings::default());
    assert_eq!(after(&log, &places[0]), after_gap(4, ["younger"]));
    assert_eq!(after(&log, &places[1]), lines(["younger"]));
}

#[test]
fn a_place_of_another_log_is_a_gap_of_unknown_size() {
    let scratch = Scratch::new("place-other");
    let (log, places) = nine(&scratch);
    // The same lines, of a plugin that was installed anew.
    let other = Scratch::new("place-anew");
    let (anew, _) = nine(&other);
    // And a log whose directory was emptied by hand, while nothing wrote to it.
    drop(log);
    fs::remove_dir_all(scratch.logs()).unwrap();
    let (emptied, _) = nine(&scratch);
    for log in [anew, emptied] {
        for place in &places {
            assert_eq!(after(&log, place), after_gap(None, 1..=9));
        }
    }
}

#[test]
fn places_are_known_though_the_directory_was_emptied_while_the_log_is_open() {
    let scratch = Scratch::new("place-emptied");
    let (log, places) = nine(&scratch);
    fs::remove_dir_all(scratch.logs()).unwrap();
    write(&log, 10);
    write(&log, 11);
    let expect = |log: &Arc<PluginLog>| {
        assert_eq!(after(log, &places[7]), after_gap(4, [10, 11]));
        assert_eq!(after(log, &places[9]), lines([10, 11]));
    };
    expect(&log);
    drop(log);
    expect(&open(scratch.logs(), settings(4, 10)));

    // Before there was a line in it.
    let scratch = Scratch::new("place-empty");
    let log = open(scratch.logs(), settings(4, 10));
    let place = log.follow().place();
    fs::remove_dir_all(scratch.logs()).unwrap();
    write(&log, 1);
    drop(log);
    let log = open(scratch.logs(), settings(4, 10));
    assert_eq!(after(&log, &place), lines([1]));
}

#[test]
fn lines_that_the_plugin_has_written_into_the_file_itself_have_places() {
    let scratch = Scratch::new("place-own");
    let log = open(scratch.logs(), settings(10, 10));
    write(&log, "before");
    let current = File::options()
        .append(true)
        .open(scratch.logs().join(CURRENT));
    current.unwrap().write_all(b"own\nown\nown\n").unwrap();
    let all = ["before", "own", "own", "own", "1", "22", "333", "4444"];
    for line in &all[4..] {
        write(&log, line);
    }
    let places = places(&log);
    let expect = |log: &Arc<PluginLog>| {
        for (count, place) in places.iter().enumerate() {
            assert_eq!(after(log, place), lines(&all[count..]), "{count}");
        }
    };
    expect(&log);
    drop(log);
    expect(&open(scratch.logs(), settings(10, 10)));
}

#[test]
fn a_file_that_is_not_what_it_was_is_noticed() {
    let scratch = Scratch::new("place-changed");
    let log = open(scratch.logs(), settings(1000, 3));
    for number in 1..=5 {
        write(&log, format!("line {number}"));
    }
    let places = places(&log);
    let current = scratch.logs().join(CURRENT);
    // Made shorter: less is there than was before the place.
    fs::write(&current, "line 1\n").unwrap();
    assert_eq!(after(&log, &places[1]), []);
    assert_eq!(after(&log, &places[2]), after_gap(None, ["line 1"]));
    // As much and more, but other lines: as after a power failure, or in a backup that is older.
    let others = ["line 6", "line 7", "line 3", "line 8", "line 9"];
    fs::write(&current, others.join("\n") + "\n").unwrap();
    assert_eq!(after(&log, &places[1]), after_gap(None, others));
    assert_eq!(after(&log, &places[3]), lines(&others[3..]));
    assert_eq!(after(&log, &places[5]), after_gap(None, others));
}

#[test]
fn whatever_a_place_says_nothing_comes_but_whole_lines() {
    let scratch = Scratch::new("place-any");
    let log = open(scratch.logs(), settings(40, 10));
    let all: Vec<_> = (0..10).map(|number| "x".repeat(number * 2)).collect();
    for line in &all {
        write(&log, line);
    }
    let name = log.name();
    let (mut exact, mut gaps) = (0, 0);
    for position in (0..200).chain([u64::MAX - 1, u64::MAX]) {
        for check in ["", "-0123456789abcdef"] {
            let found = after(&log, &format!("{name}-{position}{check}"));
            if found.starts_with(&after_gap(None, [""; 0])) {
                assert_eq!(found, after_gap(None, &all), "{position}");
                gaps += 1;
            } else {
                assert_eq!(found, lines(&all[all.len() - found.len()..]), "{position}");
                exact += 1;
            }
        }
    }
    // Where files begin there is nothing to check.
    assert!(
        exact > all.len() && exact < 20 && gaps > 300,
        "{exact}, {gaps}"
    );
}

#[test]
fn what_is_no_place_is_refused() {
    let scratch = Scratch::new("place-refused");
    let log = open(scratch.logs(), settings(4, 10));
    for text in [
        "",
        "x",
        "d5k1vvc5o2dtjn9ct4bg",
        &format!("{}-x", log.name()),
    ] {
        let error = log.follow().after(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(
            error.to_string().contains("not a place in a log"),
            "{error}"
        );
    }
}

#[test]
fn a_host_that_was_killed_in_the_middle_of_a_rotation_leaves_all_places_valid() {
    let current = |logs: &Path| logs.join(CURRENT);
    let rename = |logs: &Path| {
        let last = Timestamp::from_file_name(&names(logs)[3]);
        let next = Timestamp::now_after(last).file_name();
        fs::rename(current(logs), logs.join(next)).unwrap();
    };
    let steps: [Step<'_>; 4] = [
        ("renamed", &rename),
        ("renamed, the index half written", &|logs| {
            rename(logs);
            fs::write(logs.join("output.index.new"), "d5k1v").unwrap();
        }),
        ("renamed, the next begun, the index not written", &|logs| {
            rename(logs);
            fs::write(current(logs), "").unwrap();
        }),
        ("before it was renamed", &|_| {}),
    ];
    for (when, kill) in steps {
        let scratch = Scratch::new("place-killed");
        let (log, places) = nine(&scratch);
        drop(log);
        kill(&scratch.logs());
        for round in 10..13 {
            let log = open(scratch.logs(), settings(4, 10));
            write(&log, round);
            for (count, place) in (1..).zip(&places) {
                assert_eq!(after(&log, place), lines(count..=round), "{when}");
            }
        }
    }
}

#[test]
fn a_torn_line_has_a_place_once_it_has_an_end() {
    let scratch = Scratch::new("place-torn");
    let log = open(scratch.logs(), settings(12, 10));
    write(&log, "whole");
    let before = places(&log).pop().unwrap();
    drop(log);
    let current = scratch.logs().join(CURRENT);
    let append = |text: &str| {
        let file = File::options().append(true).open(&current);
        file.unwrap().write_all(text.as_bytes()).unwrap();
    };
    append("to");
    let log = open(scratch.logs(), settings(12, 10));
    assert_eq!(after(&log, &before), []);
    write(&log, "new");
    assert_eq!(after(&log, &before), lines(["to", "new"]));
    assert_eq!(after(&log, &places(&log)[2]), lines(["new"]));
    drop(log);

    // One that is rotated away without its end.
    append("torn for good");
    let log = open(scratch.logs(), settings(12, 10));
    write(&log, "next");
    let all = lines(["to", "new", "torn for good", "next"]);
    assert_eq!(after(&log, &before), all);
    let places = places(&log);
    assert_eq!(after(&log, &places[4]), lines(["next"]));
    // Where the file behind it is gone.
    write(&log, "a long line");
    let old = names(&scratch.logs());
    fs::remove_file(scratch.logs().join(&old[2])).unwrap();
    drop(log);
    let log = open(scratch.logs(), settings(12, 10));
    let mut follower = log.follow().after(&places[4]).unwrap();
    assert_eq!(follower.next(LONG).unwrap().to_string(), "a long line");
    fs::write(scratch.logs().join(&old[1]), "new\ntorn for ever").unwrap();
    let found = after(&log, &places[4]);
    assert_eq!(found[..2], after_gap(None, ["whole"]));
}

#[test]
fn behind_a_piece_of_a_vast_line_the_line_comes_again() {
    let scratch = Scratch::new("place-vast");
    let vast = "x".repeat(MAX_LINE + 1000);
    let text = format!("before\n{vast}\nbehind\n");
    fs::write(scratch.path().join(CURRENT), text).unwrap();
    let log = open(scratch.path(), LogSettings::default());
    let mut follower = log.follow();
    assert_eq!(line(&mut follower), "before");
    let before = follower.place();
    let piece = line(&mut follower);
    assert_eq!(follower.place(), before);
    assert_eq!(line(&mut log.follow().after(&before).unwrap()), piece);
    assert!(line(&mut follower).len() > 900);
    assert_eq!(after(&log, &follower.place()), lines(["behind"]));
}

#[test]
fn an_index_that_the_plugin_has_replaced_costs_places_and_nothing_else() {
    fn remove(index: &Path) {
        fs::remove_file(index).unwrap();
    }
    let traps: [Trap; 6] = [
        ("removed", remove),
        ("garbage", |index| fs::write(index, b"\xff\0").unwrap()),
        ("vast", |index| {
            let file = File::options().write(true).open(index).unwrap();
            file.set_len(1 << 42).unwrap();
        }),
        ("link", |index| {
            remove(index);
            let target = index.with_file_name("target");
            fs::write(&target, "kept").unwrap();
            symlink(target, index).unwrap();
        }),
        ("pipe", |index| {
            remove(index);
            let made = std::process::Command::new("mkfifo").arg(index).status();
            assert!(made.unwrap().success());
        }),
        ("directory", |index| {
            remove(index);
            fs::create_dir(index).unwrap();
            fs::write(index.join("file"), "").unwrap();
        }),
    ];
    for (kind, trap) in traps {
        let scratch = Scratch::new("place-index");
        let (log, before) = nine(&scratch);
        let index = scratch.logs().join(INDEX);
        trap(&index);
        // While it is open they are known.
        assert_eq!(after(&log, &before[3]), lines(4..=9), "{kind}");
        drop(log);
        let log = open(scratch.logs(), settings(4, 10));
        assert_eq!(after(&log, &before[3]), after_gap(None, 1..=9), "{kind}");
        let places = places(&log);
        write(&log, 10);
        write(&log, 11);
        assert_eq!(log.lost_lines(), 0, "{kind}");
        assert_eq!(after(&log, &places[3]), lines(4..=11), "{kind}");
        drop(log);
        let log = open(scratch.logs(), settings(4, 10));
        if kind == "directory" {
            assert_eq!(after(&log, &places[3]), after_gap(None, 1..=11));
            assert!(index.join("file").exists());
        } else {
            assert_eq!(after(&log, &places[3]), lines(4..=11), "{kind}");
            assert!(fs::symlink_metadata(&index).unwrap().is_file(), "{kind}");
        }
        let target = fs::read_to_string(scratch.logs().join("target"));
        assert_eq!(target.ok(), (kind == "link").then(|| "kept".to_owned()));
    }
}

#[test]
fn a_file_of_the_log_that_became_something_else_is_a_gap() {
    let traps: [Trap; 3] = [
        ("link", |path| symlink("output.log", path).unwrap()),
        ("pipe", |path| {
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
        }),
        ("directory", |path| fs::create_dir(path).unwrap()),
    ];
    for (kind, trap) in traps {
        let scratch = Scratch::new("place-trap");
        let (log, places) = nine(&scratch);
        let old = scratch.logs().join(&names(&scratch.logs())[1]);
        fs::remove_file(&old).unwrap();
        trap(&old);
        assert_eq!(after(&log, &places[3]), after_gap(2, 5..=9), "{kind}");
        drop(log);
        let log = open(scratch.logs(), settings(4, 10));
        assert_eq!(after(&log, &places[3]), after_gap(2, 5..=9), "{kind}");
    }
}

#[test]
fn a_log_without_files_has_no_places_to_come_back_to() {
    let scratch = Scratch::new("place-disabled");
    let disabled = || open(scratch.logs(), LogSettings::default().enabled(false));
    let log = disabled();
    write(&log, "in the tail only");
    let place = log.follow().place();
    assert_eq!(after(&log, &place), []);
    assert_eq!(after(&disabled(), &place), after_gap(None, [""; 0]));
}

/// A client that takes the stream up again after every few lines, of a log that rotates meanwhile.
#[test]
fn a_stream_that_is_taken_up_again_and_again_is_the_same_as_one_that_is_not() {
    const LINES: u64 = 10_000;
    for keep in [1, 10_000] {
        let scratch = Scratch::new("place-live");
        let log = open(scratch.logs(), settings(512, keep));
        let mut place = log.follow().place();
        let reader = Arc::clone(&log);
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut expected, mut missing) = (0, 0);
                while expected < LINES {
                    let mut follower = reader.follow().after(&place).unwrap();
                    for _ in 0..=expected % 20 {
                        if expected == LINES {
                            break;
                        }
                        match follower.next(LONG).unwrap() {
                            Followed::Gap { bytes, .. } => missing += bytes.unwrap(),
                            Followed::Line(line) => {
                                let number: u64 = line.parse().unwrap();
                                let lost = (expected..number).map(|line| line.to_string().len());
                                let lost: usize = lost.map(|length| length + 1).sum();
                                assert_eq!(lost as u64, missing, "{number}: {expected}");
                                (expected, missing) = (number + 1, 0);
                            }
                        }
                        place = follower.place();
                    }
                    assert!(keep == 1 || missing == 0);
                }
            });
            for number in 0..LINES {
                write(&log, number);
            }
        });
    }
}
