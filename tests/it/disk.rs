//! Disks that are full, and folders that cannot be written: what is said, that the plugins that run
//! go on, that nothing half done stays behind, and that all is well once there is room.
//!
//! A disk that is really full takes a mount, which takes a namespace of one's own, which is not
//! allowed everywhere. So the same test also runs with a limit on the size of files, which always
//! can be had; both in a process of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plugin_runner::plugin_log::{Followed, LogSettings, LogStream};
use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::store::{Record, Source};
use plugin_runner::{ReportedState, Session, StateChange};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::support::alone::run_under;
use crate::support::disk::{self, run_on_a_disk};
use crate::support::events::Details as _;
use crate::support::host::{TestHost, active};
use crate::support::output::OutputLine;
use crate::support::plugin::{call, fixture, manifest, package};
use crate::support::{LONG, TestDir};

/// Left free where something small should still fit.
const ROOM: u64 = 128 * 1024;
/// Bytes of a line or file that does not fit any more.
const LARGE: usize = 2 * 1024 * 1024;

#[test]
fn a_full_disk_is_told_counted_and_got_over() {
    let script = "trap '' XFSZ; exec \"$@\"";
    run_under(
        Command::new("sh").args(["-c", script, "sh"]),
        "disk::alone::a_disk_fills_and_empties",
    );

    run_on_a_disk(
        4,
        &[
            "disk::alone::a_disk_fills_and_empties",
            "disk::alone::a_log_cannot_be_rotated_for_a_while",
            "disk::alone::a_disk_cannot_be_written_for_a_while",
        ],
    );
}

#[test]
fn what_is_in_the_way_of_a_folder_is_named_and_may_go() {
    let host = TestHost::new("in-the-way");
    for name in ["releases", "staging", "data", "logs"] {
        let session = host.install(packaged(&host, b""));
        let folder = host.installation_folder(&session);
        let path = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, "in the way").unwrap();
        let message = start_fails(&host, &session).problem.unwrap().to_string();
        assert!(message.contains(&*path.to_string_lossy()), "{message}");
        assert_nothing_half_done(&folder);
        fs::remove_file(&path).unwrap();
        starts(&session);
    }
}

/// Run by others, in processes of their own.
mod alone {
    use super::*;

    #[test]
    #[ignore = "limits what the process may write; run by another test, in a process of its own"]
    fn a_disk_fills_and_empties() {
        let disk = Disk::new();
        let data = disk.folder.join("data");
        let host = TestHost::with("full-disk", |setup| {
            setup.configure(move |builder| builder.data_dir(data));
        });
        a_running_plugin_goes_on(&host, &disk);
        a_new_plugin_waits_for_room(&host, &disk);
    }

    /// Its lines are lost, and not without a word.
    fn a_running_plugin_goes_on(host: &TestHost, disk: &Disk) {
        let session = host.run(fixture(host, Transport::WebSocket, &["behave"]));
        let mut follower = session.follow_log().unwrap();
        let say = |name: &str| {
            let line = format!("{name} {}", "x".repeat(8 * 1024));
            call(&session, "log", &json!({ "line": line })).unwrap();
            host.output.wait_for(name, |said| {
                (said.stream == LogStream::Stdout && said.text == line).then_some(())
            });
        };
        say("before");
        assert_eq!(session.counters().log_lines_lost, 0);
        disk.fill(0);
        for name in ["lost 1", "lost 2", "lost 3"] {
            say(name);
        }
        assert_eq!(session.counters().log_lines_lost, 3);
        active(&session);
        disk.empty();
        say("after");
        assert_eq!(session.counters().log_lines_lost, 3);
        let notice = "[plugin-runner] 3 lines are missing here, the log could not be written: ";
        let mut told = false;
        loop {
            match follower.next(LONG).unwrap() {
                Followed::Line(line) if line.starts_with("after ") => break,
                Followed::Line(line) => told |= line.starts_with(notice),
                other => panic!("{other:?}"),
            }
        }
        assert!(told, "nothing was said about what is missing");
        host.unload(session.id()).unwrap();
        assert_eq!(session.counters().log_lines_lost, 3);
    }

    fn a_new_plugin_waits_for_room(host: &TestHost, disk: &Disk) {
        let session = host.install(packaged(host, &vec![0; LARGE]));
        let folder = disk.folder.join("data").join(session.id().to_string());
        for room in [ROOM, 0] {
            disk.fill(room);
            let change = start_fails(host, &session);
            let message = change.message().unwrap();
            let expected = format!(
                "could not unpack: cannot write {}/staging/",
                folder.display()
            );
            assert!(message.starts_with(&expected), "{message}");
            assert_eq!(change.details()["cause"], "could_not_unpack");
            assert_eq!(
                change.details()["attempts"],
                4,
                "a full disk may be emptied"
            );
            assert_nothing_half_done(&folder);
            disk.empty();
        }
        starts(&session);
        assert!(folder.join("releases").read_dir().unwrap().count() == 1);
    }

    #[test]
    #[ignore = "mounts; run by another test, in a namespace of its own"]
    fn a_log_cannot_be_rotated_for_a_while() {
        let data = disk::mounted().unwrap().join("data");
        let folder = data.clone();
        let host = TestHost::with("rotation", |setup| {
            setup.configure(move |builder| {
                let settings = LogSettings::default().max_file_size(1_000);
                builder.data_dir(folder).log_settings(settings)
            });
        });
        let session = host.run(fixture(&host, Transport::WebSocket, &["behave"]));
        let logs = data.join(session.id().to_string()).join("logs");
        let say = |line: &str| {
            call(&session, "log", &json!({ "line": line })).unwrap();
            let heard = |said: &OutputLine| (said.text == line).then_some(());
            host.output.wait_for(line, heard);
        };
        disk::make_read_only(&logs);
        // Each is most of a file.
        let line = |name: &str| name.to_owned() + &" x".repeat(400);
        let before = line("before");
        say(&before);
        assert_eq!(session.counters().log_lines_lost, 0);
        for name in ["lost 1", "lost 2"] {
            say(&line(name));
        }
        assert_eq!(session.counters().log_lines_lost, 2);
        active(&session);
        disk::mount("umount", &[], &logs);
        say("after");
        assert_eq!(session.counters().log_lines_lost, 2);
        let text: String = fs::read_dir(&logs)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            // Those beside them are no text.
            .filter(|path| path.extension().is_some_and(|it| it == "log"))
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        for line in [&before, "[plugin-runner] 2 lines are missing here", "after"] {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
        assert!(!text.contains("lost 1"), "{text}");
    }

    #[test]
    #[ignore = "mounts; run by another test, in a namespace of its own"]
    fn a_disk_cannot_be_written_for_a_while() {
        let disk = disk::mounted().unwrap();
        let remount = |how: &str| {
            let options = format!("remount,{how}");
            disk::mount("mount", &["-o", &options], &disk);
        };
        let data = disk.join("data");
        let host = TestHost::with("read-only", |setup| {
            setup.configure(move |builder| builder.data_dir(data));
        });
        let fresh = host.install(packaged(&host, b""));
        let known = host.install(packaged(&host, b""));
        starts(&known);
        known.supervised().unwrap().stop(LONG).unwrap();
        // Its log is held open for writing.
        host.unload(known.id()).unwrap();
        let known = host.load(known.id()).unwrap();
        remount("ro");
        for session in [&fresh, &known] {
            let message = start_fails(&host, session).problem.unwrap().to_string();
            assert!(message.contains("Read-only file system"), "{message}");
            let folder = disk.join("data").join(session.id().to_string());
            assert!(message.contains(&*folder.to_string_lossy()), "{message}");
        }
        remount("rw");
        for session in [&fresh, &known] {
            starts(session);
            let folder = disk.join("data").join(session.id().to_string());
            assert_nothing_half_done(&folder);
        }
    }
}

/// A disk that can be filled and emptied.
struct Disk {
    kind: Kind,
    folder: PathBuf,
    /// Removed at the end, if it is the test's own.
    _own: Option<TestDir>,
}

enum Kind {
    /// Of 4 MiB.
    Mounted,
    /// Any disk, and no file may be larger than so much.
    Limited,
}

impl Disk {
    fn new() -> Self {
        if let Some(folder) = disk::mounted() {
            return Self {
                kind: Kind::Mounted,
                folder,
                _own: None,
            };
        }
        let own = TestDir::new("limited");
        Self {
            kind: Kind::Limited,
            folder: own.path().to_owned(),
            _own: Some(own),
        }
    }

    /// Leaves room for so many bytes.
    fn fill(&self, room: u64) {
        match self.kind {
            Kind::Mounted => drop(disk::fill(&self.folder, room)),
            // What is longer cannot grow, and there is nothing that is shorter.
            Kind::Limited => limit(Some(room.max(4096))),
        }
    }

    fn empty(&self) {
        match self.kind {
            Kind::Mounted => disk::empty(self.folder.join("ballast")),
            Kind::Limited => limit(None),
        }
    }
}

fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let current = bytes.or(maximum);
    setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
}

/// A plugin in an archive, with a file of this content besides its program.
fn packaged(host: &TestHost, content: &[u8]) -> Record {
    let manifest = Manifest {
        command: "./tool".to_owned(),
        ..manifest("packaged")
    };
    let script = b"#!/bin/sh\nexec sleep 1000\n";
    let files: [(&str, &[u8], u32); 2] = [("tool", script, 0o755), ("content", content, 0o644)];
    let path = package(host.folder(), "packaged.zip", &manifest, &files);
    Record::supervised(manifest, Source::Archive(path))
}

/// Starts it; it must give up in the end.
#[track_caller]
fn start_fails(host: &TestHost, session: &Session) -> StateChange {
    let mut events = host.events();
    session.supervised().unwrap().start().unwrap();
    events.until(session.id(), ReportedState::Errored)
}

#[track_caller]
fn starts(session: &Session) {
    session.supervised().unwrap().start().unwrap();
    session.wait_for(ReportedState::Connecting, LONG).unwrap();
}

/// Neither in staging nor among the releases is anything that is not whole.
#[track_caller]
fn assert_nothing_half_done(installation: &Path) {
    let staged = fs::read_dir(installation.join("staging"));
    let staged: Vec<_> = staged.into_iter().flatten().flatten().collect();
    assert!(staged.is_empty(), "{staged:?}");
    let releases = fs::read_dir(installation.join("releases"));
    for release in releases.into_iter().flatten().flatten() {
        assert!(release.path().join(".complete").is_file(), "{release:?}");
    }
}
