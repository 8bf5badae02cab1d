//! What a plugin may put in the place of its log's directory and of the files in it: links, pipes, sockets
//! and directories. Nothing is made, renamed or removed where a link leads, nothing waits, and the log
//! goes on in a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::scratch::{Scratch, names};
use super::*;
use crate::testing::{LONG, assert_matches};

const OLD: [&str; 3] = [
    "output-2026-02-21T11-50-22.965.log",
    "output-2026-02-21T11-50-22.966.log",
    "output-2026-02-21T11-50-22.967.log",
];

/// An installation's directory, and one elsewhere that has what a log would use, rename or remove.
struct Fixture {
    scratch: Scratch,
    outside: PathBuf,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let outside = scratch.path().join("outside");
        fs::create_dir_all(outside.join("logs")).unwrap();
        fs::create_dir(scratch.path().join("installation")).unwrap();
        for dir in [&outside, &outside.join("logs")] {
            for file in OLD.into_iter().chain(["output.log"]) {
                fs::write(dir.join(file), "kept\n").unwrap();
            }
        }
        Self { scratch, outside }
    }

    fn installation(&self) -> PathBuf {
        self.scratch.path().join("installation")
    }

    fn logs(&self) -> PathBuf {
        self.installation().join("logs")
    }

    fn open(&self) -> crate::Result<Arc<PluginLog>> {
        self.open_keeping(1)
    }

    fn open_keeping(&self, keep: usize) -> crate::Result<Arc<PluginLog>> {
        let settings = LogSettings::default()
            .max_file_size(10)
            .keep(keep)
            .max_age(Duration::MAX);
        PluginLog::open(self.logs(), settings, None).map(Arc::new)
    }

    /// What is elsewhere, by name.
    fn elsewhere(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for dir in [self.outside.clone(), self.outside.join("logs")] {
            for name in names(&dir) {
                let path = dir.join(name);
                let content = fs::read(&path).unwrap_or_default();
                files.insert(path, content);
            }
        }
        files
    }

    #[track_caller]
    fn expect_own_directory(&self) {
        let found = fs::symlink_metadata(self.logs()).unwrap();
        assert!(found.is_dir(), "{found:?}");
        assert_eq!(found.permissions().mode() & 0o7777, 0o700);
    }
}

fn write(log: &PluginLog, line: &str) {
    log.write_line(LogStream::Stdout, line.as_bytes());
}

fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

/// Puts something odd there, which may lead to a directory elsewhere.
fn put(kind: &str, path: &Path, outside: &Path) {
    match kind {
        "link" => symlink(outside, path).unwrap(),
        "dangling link" => symlink(outside.join("nowhere"), path).unwrap(),
        "pipe" => make_pipe(path),
        "socket" => {
            drop(UnixListener::bind(outside.join("s")).unwrap());
            fs::rename(outside.join("s"), path).unwrap();
        }
        other => panic!("{other}"),
    }
}

const KINDS: [&str; 4] = ["link", "dangling link", "pipe", "socket"];

#[test]
fn what_is_no_directory_gives_way_to_one_when_a_log_is_opened() {
    for kind in KINDS {
        let place = Fixture::new("t-open");
        put(kind, &place.logs(), &place.outside);
        let before = place.elsewhere();
        let log = place
            .open()
            .unwrap_or_else(|error| panic!("{kind}: {error}"));
        for line in ["one line", "another", "a third"] {
            write(&log, line);
        }
        assert_eq!(place.elsewhere(), before, "{kind}");
        assert_eq!(log.lost_lines(), 0, "{kind}");
        place.expect_own_directory();
        let current = fs::read_to_string(place.logs().join("output.log"));
        assert_eq!(current.unwrap(), "a third\n", "{kind}");
    }
}

#[test]
fn what_takes_the_place_of_the_directory_of_an_open_log_leads_nowhere() {
    for kind in KINDS {
        let place = Fixture::new("t-swap");
        let log = place.open().unwrap();
        write(&log, "before");
        fs::rename(place.logs(), place.installation().join("moved")).unwrap();
        put(kind, &place.logs(), &place.outside);
        let before = place.elsewhere();
        for line in ["one line", "another", "a third"] {
            write(&log, line);
        }
        assert_eq!(place.elsewhere(), before, "{kind}");
        assert_eq!(log.lost_lines(), 0, "{kind}");
        place.expect_own_directory();
        assert_eq!(names(&place.logs()).len(), 2, "{kind}");
    }
}

#[test]
fn a_rotation_touches_nothing_where_a_link_leads_to_the_very_file() {
    let place = Fixture::new("t-rotate");
    let log = place.open().unwrap();
    write(&log, "before");
    // By this it is the same file, whichever way the name leads.
    fs::remove_file(place.outside.join("output.log")).unwrap();
    fs::hard_link(
        place.logs().join("output.log"),
        place.outside.join("output.log"),
    )
    .unwrap();
    fs::rename(place.logs(), place.installation().join("moved")).unwrap();
    symlink(&place.outside, place.logs()).unwrap();
    let before = place.elsewhere();
    for line in ["one line", "another", "a third"] {
        write(&log, line);
    }
    assert_eq!(place.elsewhere(), before);
    assert_eq!(log.lost_lines(), 0);
    place.expect_own_directory();
}

#[test]
fn an_installation_that_is_a_link_is_an_error() {
    let place = Fixture::new("t-above");
    let log = place.open().unwrap();
    write(&log, "before");
    fs::rename(place.installation(), place.scratch.path().join("moved")).unwrap();
    symlink(&place.outside, place.installation()).unwrap();
    let before = place.elsewhere();
    write(&log, "lost");
    write(&log, "lost as well");
    assert_eq!(place.elsewhere(), before);
    assert_eq!(log.lost_lines(), 2);
    drop(log);
    let error = place.open().unwrap_err().to_string();
    assert!(error.contains("installation/logs"), "{error}");
    assert_eq!(place.elsewhere(), before);

    fs::remove_file(place.installation()).unwrap();
    let log = place.open().unwrap();
    write(&log, "after");
    assert_eq!(log.lost_lines(), 0);
}

/// Gives the lines up to the one that says `end`.
fn lines(mut follower: Follower) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        match follower.next(LONG).unwrap() {
            Followed::Line(line) if line == "end" => return lines,
            Followed::Line(line) => lines.push(line),
            Followed::Gap { .. } => {}
        }
    }
}

#[test]
fn what_only_has_the_name_of_an_old_log_is_neither_read_nor_removed() {
    let place = Fixture::new("t-old");
    fs::create_dir(place.logs()).unwrap();
    symlink(place.outside.join("output.log"), place.logs().join(OLD[0])).unwrap();
    make_pipe(&place.logs().join(OLD[1]));
    fs::create_dir(place.logs().join(OLD[2])).unwrap();
    let regular = ["output-2027", "output-2028"].map(|year| OLD[0].replace("output-2026", year));
    for name in &regular {
        fs::write(place.logs().join(name), format!("{name}\n")).unwrap();
    }
    let before = place.elsewhere();
    let log = place.open().unwrap();
    // Of two old logs one is kept, and the odd things are none.
    let mut expected: Vec<String> = OLD.map(str::to_owned).into();
    expected.extend([regular[1].clone(), "output.log".to_owned()]);
    assert_eq!(names(&place.logs()), expected);
    write(&log, "end");
    assert_eq!(lines(log.follow()), [&*regular[1]]);
    assert_eq!(lines(log.follow().last(9).unwrap()), [&*regular[1]]);
    assert_eq!(place.elsewhere(), before);
}

#[test]
fn an_old_log_that_becomes_something_else_is_a_gap_and_holds_nobody_up() {
    for kind in KINDS {
        let place = Fixture::new("t-gap");
        let log = place.open_keeping(10).unwrap();
        write(&log, "one line");
        write(&log, "another");
        let follower = log.follow();
        let old = place.logs().join(&names(&place.logs())[0]);
        fs::remove_file(&old).unwrap();
        put(kind, &old, &place.outside);
        let before = place.elsewhere();
        write(&log, "end");
        assert_eq!(lines(follower), ["another"], "{kind}");
        let last = log.follow().last(9).unwrap();
        assert_eq!(lines(last), ["another"], "{kind}");
        assert_eq!(place.elsewhere(), before, "{kind}");
        assert_eq!(log.lost_lines(), 0, "{kind}");
    }
}

#[test]
fn a_follower_reads_nothing_through_a_link_in_the_place_of_the_directory() {
    let place = Fixture::new("t-follow");
    let log = place.open_keeping(10).unwrap();
    write(&log, "one line");
    write(&log, "another");
    let old = names(&place.logs())[0].clone();
    fs::write(place.outside.join(old), "kept\n").unwrap();
    fs::rename(place.logs(), place.installation().join("moved")).unwrap();
    symlink(&place.outside, place.logs()).unwrap();
    let mut follower = log.follow();
    // What was open already, and nothing of what is elsewhere.
    assert_matches!(follower.next(LONG), Ok(Followed::Gap { .. }));
    assert_matches!(follower.next(LONG), Ok(Followed::Line(line)) if line == "another");
    let nothing = follower.next(Duration::ZERO);
    assert!(nothing.is_err_and(|error| error.is_timeout()));
    let last = log.follow().last(2).unwrap();
    write(&log, "end");
    assert_eq!(lines(follower), [""; 0]);
    assert_eq!(lines(last), ["another"]);
}
