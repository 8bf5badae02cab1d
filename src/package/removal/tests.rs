//! What a plugin may leave, and what must stay. Run by root, who may do everything, the tests of
//! permissions show less.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, OFlags};

use super::super::testing::{mode, set_mode};
use super::*;
use crate::testing::TestDir;

#[test]
fn files_links_and_nothing() {
    let dir = TestDir::new("package");
    let kept = dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "x").unwrap();
    let gone = dir.path().join("gone");
    remove(CWD, &gone).unwrap();
    fs::write(&gone, "x").unwrap();
    remove(CWD, &gone).unwrap();
    for target in [kept.clone(), kept.join("file"), PathBuf::from("nowhere")] {
        symlink(target, &gone).unwrap();
        remove(CWD, &gone).unwrap();
        assert!(!fs::exists(&gone).unwrap() && gone.symlink_metadata().is_err());
    }
    assert_eq!(fs::read(kept.join("file")).unwrap(), b"x");
}

#[test]
fn links_in_a_folder_are_not_followed() {
    let dir = TestDir::new("package");
    let kept = dir.path().join("kept");
    fs::create_dir_all(kept.join("below")).unwrap();
    fs::write(kept.join("below/file"), "x").unwrap();
    let gone = dir.path().join("gone");
    fs::create_dir_all(gone.join("a/b")).unwrap();
    for link in ["link", "a/link", "a/b/link"] {
        symlink(&kept, gone.join(link)).unwrap();
    }
    remove(CWD, &gone).unwrap();
    assert!(!gone.exists());
    assert_eq!(fs::read(kept.join("below/file")).unwrap(), b"x");
}

#[test]
fn folders_without_rights_go() {
    let dir = TestDir::new("package");
    let gone = dir.path().join("gone");
    let deep = gone.join("a/b/c");
    fs::create_dir_all(&deep).unwrap();
    for (path, mode) in [("a/b/c", 0), ("a/b", 0o500), ("a", 0o100), ("", 0o400)] {
        let path = gone.join(path);
        fs::write(path.join("file"), "x").unwrap();
        set_mode(path.join("file"), 0);
        set_mode(&path, mode);
    }
    remove(CWD, &gone).unwrap();
    assert!(!gone.exists());
}

#[test]
fn callers_remove_what_they_unpacked_in_the_time_that_they_have() {
    let dir = TestDir::new("package");
    let above = fs::File::open(dir.path()).unwrap();
    fs::create_dir_all(dir.path().join("unpacked/below")).unwrap();
    let error = remove_tree(&above, Path::new("unpacked"), Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Io);
    let text = error.to_string();
    assert!(text.contains("cannot remove unpacked: "), "{text}");
    for _ in 0..2 {
        remove_tree(&above, Path::new("unpacked"), LIMIT).unwrap();
        assert!(!dir.path().join("unpacked").exists());
    }
}

#[test]
fn a_tree_of_any_depth_goes() {
    // Deeper than a path can be long, a process has descriptors, and a stack has room.
    const DEPTH: usize = 4_000;
    let dir = TestDir::new("package");
    let gone = dir.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let mut here = open_usable(CWD, &gone).unwrap();
    for level in 0..DEPTH {
        if level % 1_000 == 0 {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&here, c"file", flags, Mode::RWXU).unwrap();
        }
        rustix::fs::mkdirat(&here, c"x", Mode::RWXU).unwrap();
        here = open_usable(&here, c"x").unwrap();
    }
    remove(CWD, &gone).unwrap();
    assert!(!gone.exists());
}

#[test]
fn many_files_and_folders_go() {
    let dir = TestDir::new("package");
    let gone = dir.path().join("gone");
    for outer in 0..30 {
        for inner in 0..30 {
            let path = gone.join(format!("{outer}/{inner}"));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("file"), "x").unwrap();
        }
        for number in 0..100 {
            fs::write(gone.join(format!("{outer}/file{number}")), "x").unwrap();
        }
    }
    remove(CWD, &gone).unwrap();
    assert!(!gone.exists());
}

#[test]
fn what_cannot_be_removed_is_an_error() {
    // Neither may root do that.
    let error = remove(CWD, Path::new("/proc/self/fdinfo")).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn owners_are_let_in_and_links_are_left() {
    let dir = TestDir::new("package");
    let path = dir.path().join("x");
    assert_eq!(allow(CWD, &path), Err(Errno::NOENT));
    fs::create_dir(&path).unwrap();
    set_mode(&path, 0o050);
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    allow(CWD, &link).unwrap();
    assert_eq!(mode(&path), 0o050);
    allow(CWD, &path).unwrap();
    assert_eq!(mode(&path), 0o750);
}

#[test]
fn a_folder_that_is_filled_without_end_is_given_up_in_time() {
    let dir = TestDir::new("package");
    let gone = dir.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let deep: PathBuf = std::iter::repeat_n("x", DEPTH + 4).collect();
    let (sender, receiver) = channel();
    let stop = AtomicBool::new(false);
    // Whole trees, which come at once.
    let add = &|thread: u32| {
        for number in 0_u64.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let name = format!("{thread}-{number}");
            fs::create_dir_all(dir.path().join(&name).join(&deep)).unwrap();
            let _ = fs::rename(dir.path().join(&name), gone.join(&name));
        }
    };
    let done = thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || add(thread));
        }
        scope.spawn(|| {
            sender.send(remove_until(
                CWD,
                &gone,
                Deadline::after(Duration::from_secs(1)),
            ))
        });
        let done = receiver.recv_timeout(Duration::from_secs(60));
        stop.store(true, Ordering::Relaxed);
        done
    });
    // It may have been the faster one.
    if let Err(error) = done.expect("it did not come to an end") {
        let given_up = [ErrorKind::TimedOut, ErrorKind::DirectoryNotEmpty];
        assert!(given_up.contains(&error.kind()), "{error}");
    }
}

#[test]
fn a_removal_that_takes_too_long_says_so_and_can_go_on() {
    let dir = TestDir::new("package");
    let gone = dir.path().join("gone");
    fs::create_dir_all(gone.join("a/b")).unwrap();
    let error = remove_until(CWD, &gone, Deadline::after(Duration::ZERO)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains("filling it"), "{error}");
    remove(CWD, &gone).unwrap();
    assert!(!gone.exists());
}
