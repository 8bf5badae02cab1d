//! The files of a log as they are written, begun anew and removed.

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

/// Makes old logs of these ages, in days, and returns their names.
fn make_old<const COUNT: usize>(scratch: &Scratch, days: [u32; COUNT]) -> [String; COUNT] {
    fs::create_dir_all(scratch.logs()).unwrap();
    days.map(|days| {
        let name = Timestamp::ago(days * DAY).file_name();
        fs::write(scratch.logs().join(&name), "old\n").unwrap();
        name
    })
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn old_files_go_when_they_are_too_old_and_the_current_one_stays() {
    let scratch = Scratch::new("aged");
    let [_, _, young] = make_old(&scratch, [300, 29, 27]);
    // Last written long ago, and older than all the others.
    let current = File::create(scratch.logs().join(CURRENT)).unwrap();
    current.set_modified(std::time::UNIX_EPOCH).unwrap();
    let log = RotatingFile::open(&scratch.logs(), &settings(100, 10)).unwrap();
    assert_eq!(names(&scratch.logs()), [&*young, CURRENT]);
    drop(log);
    // Of those that are young enough, no more than the number kept.
    let [young] = make_old(&scratch, [1]);
    let _log = RotatingFile::open(&scratch.logs(), &settings(100, 1)).unwrap();
    assert_eq!(names(&scratch.logs()), [&*young, CURRENT]);
}

#[test]
fn files_that_are_kept_for_ever_are_removed_for_their_number_only() {
    let scratch = Scratch::new("ageless");
    let [_, first, second] = make_old(&scratch, [10_000, 9_000, 8_000]);
    let settings = settings(100, 2).max_age(Duration::MAX);
    let mut log = RotatingFile::open(&scratch.logs(), &settings).unwrap();
    log.remove_aged();
    assert_eq!(names(&scratch.logs()), [&*first, &second, CURRENT]);
}

#[test]
fn an_open_log_removes_what_has_become_too_old_at_a_rotation_and_when_it_is_looked_at() {
    let scratch = Scratch::new("aging");
    let [_, young, younger] = make_old(&scratch, [29, 27, 20]);
    let settings = settings(4, 10).max_age(Duration::MAX);
    let mut log = RotatingFile::open(&scratch.logs(), &settings).unwrap();
    log.max_age = 28 * DAY;
    log.write(b"1\n2\n3\n");
    let all = names(&scratch.logs());
    assert_eq!(all[..2], [young, younger.clone()]);
    log.max_age = 25 * DAY;
    log.changed_files();
    log.remove_aged();
    assert_eq!(names(&scratch.logs()), [&*younger, &all[2], CURRENT]);
    assert!(log.changed_files().is_some());
    log.remove_aged();
    assert!(log.changed_files().is_none());
}

#[test]
fn what_only_has_the_name_of_a_file_that_is_too_old_stays() {
    let scratch = Scratch::new("aged-traps");
    let [file, link, directory] = make_old(&scratch, [100, 90, 80]);
    let target = scratch.path().join("target");
    fs::write(&target, "kept").unwrap();
    let settings = settings(100, 10).max_age(Duration::MAX);
    let mut log = RotatingFile::open(&scratch.logs(), &settings).unwrap();
    // They were files when the log was opened.
    for name in [&link, &directory] {
        fs::remove_file(scratch.logs().join(name)).unwrap();
    }
    symlink(&target, scratch.logs().join(&link)).unwrap();
    fs::create_dir(scratch.logs().join(&directory)).unwrap();
    log.max_age = DAY;
    log.remove_aged();
    assert_eq!(names(&scratch.logs()), [&*link, &directory, CURRENT]);
    assert!(!scratch.logs().join(file).exists());
    assert_eq!(fs::read_to_string(target).unwrap(), "kept");
    assert!(log.files.old.is_empty());

    // Where the directory is gone there is nothing to remove, and none is made.
    make_old(&scratch, [70]);
    let mut log = RotatingFile::open(&scratch.logs(), &settings).unwrap();
    fs::remove_dir_all(scratch.logs()).unwrap();
    log.max_age = DAY;
    log.remove_aged();
    assert!(!scratch.logs().exists());
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
