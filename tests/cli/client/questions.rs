//! What the commands ask, show and refuse on a terminal.

use std::fs::File;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;

use rustix::process::Signal;

use super::packages::answering_until;
use super::{Place, expect};
use crate::program::manifest;
use crate::support::names;
use crate::terminal::Terminal;

/// What stands for no: also a line of its own, the end of the input, and more than there is to answer.
const NO: [&[u8]; 5] = [b"n\r", b"\r", b"\x04", b"yesterday\r", b" no \r"];
const YES: [&[u8]; 3] = [b"y\r", b"yes\r", b" YES \r"];

/// Runs a command that asks this, and answers it. Returns its status and what was shown.
#[track_caller]
fn answered(place: &Place, arguments: &str, question: &str, answer: &[u8]) -> (i32, String) {
    let mut terminal = Terminal::start(&place.command(arguments), 120, 30);
    terminal.wait_for(&format!("{question} [y/N] "));
    terminal.send(answer);
    let (status, shown) = terminal.end();
    assert_eq!(shown.matches("[y/N]").count(), 1, "{shown}");
    (status.code().expect(&shown), shown)
}

#[test]
fn what_is_installed_is_updated_if_the_user_says_so() {
    let place = Place::served();
    place.ok("install hello.zip");
    let question = "is installed already, version 1.0.0; update it?";
    for answer in NO {
        let (status, shown) = answered(&place, "install hello-2.zip", question, answer);
        assert_eq!(status, 1, "{answer:?}: {shown}");
        expect(&shown, &["plugin-runner: nothing was installed"]);
        assert_eq!(place.json("get hello")["version"], "1.0.0");
    }
    for answer in YES {
        let (status, shown) = answered(&place, "install hello-2.zip", question, answer);
        assert_eq!(status, 0, "{answer:?}: {shown}");
        assert_eq!(place.json("get hello")["version"], "2.0.0");
        place.ok("update hello hello.zip");
    }
    // Nobody is asked who has said it.
    let terminal = Terminal::start(&place.command("install hello-2.zip --update"), 120, 30);
    let (status, shown) = terminal.end();
    assert_eq!(status.code(), Some(0), "{shown}");
    assert!(!shown.contains("[y/N]"), "{shown}");
}

#[test]
fn what_is_removed_is_asked_about_with_all_that_goes() {
    let place = Place::served();
    place.ok("install hello.zip");
    let purge = ", its data and its log?";
    for answer in NO {
        let (status, shown) = answered(&place, "remove hello --purge", purge, answer);
        assert_eq!(status, 1, "{answer:?}: {shown}");
        expect(
            &shown,
            &["remove hello (", "plugin-runner: nothing was removed"],
        );
        assert_eq!(place.lines("list").len(), 1);
    }
    let mut terminal = Terminal::start(&place.command("remove hello"), 120, 30);
    terminal.wait_for("[y/N] ");
    terminal.interrupt();
    let (status, shown) = terminal.end();
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{shown}");
    assert_eq!(place.lines("list").len(), 1);

    let (status, shown) = answered(&place, "remove hello", ")?", b"y\r");
    assert_eq!(status, 0, "{shown}");
    expect(&shown, &[") is removed"]);
    assert_eq!(place.lines("list").len(), 0);
}

#[test]
fn a_package_is_not_written_to_a_terminal() {
    let place = Place::served();
    place.ok("install hello.zip");
    let terminal = Terminal::start(&place.command("download hello --output -"), 120, 30);
    let (status, shown) = terminal.end();
    assert_eq!(status.code(), Some(2), "{shown}");
    expect(&shown, &["redirect standard output", "--output"]);
    assert!(!shown.contains("PK"), "{shown}");
}

#[test]
fn an_upload_to_a_slow_host_is_shown_and_ends_with_ctrl_c() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // More than the system takes for a host that does not read.
    let large = "x".repeat(40 << 20);
    let files = [
        ("manifest.json", &*manifest("large").to_string(), 0o644),
        ("main", "#!/bin/sh\n", 0o755),
        ("large", &*large, 0o644),
    ];
    place.scratch.zip("large.zip", &files);
    place
        .scratch
        .plugin("large", &manifest("large"), "#!/bin/sh\n");
    // Nothing that can be packed to less.
    let mut noise = Vec::new();
    let random = File::open("/dev/urandom").unwrap();
    random.take(32 << 20).read_to_end(&mut noise).unwrap();
    place.scratch.write("large/noise", noise);
    let before = names(&place.scratch.path(""));
    for package in ["large.zip", "./large"] {
        let mut command = place.command(&format!("install {package} --admin {url}"));
        command
            .env("PLUGIN_RUNNER_TOKEN", "0123456789abcdef0123456789abcdef")
            .env_remove("PLUGIN_DATA_PATH");
        let mut terminal = Terminal::start(&command, 120, 30);
        let stream = answering_until(&listener, b"POST ");
        terminal.wait_for("uploading");
        terminal.interrupt();
        let (status, shown) = terminal.end();
        assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{shown}");
        drop(stream);
        place.scratch.assert_nothing_left();
        assert_eq!(names(&place.scratch.path("")), before);
    }
}
