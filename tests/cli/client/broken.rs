//! Hosts that are slow or die while something is under way, two clients at once, and terminals of several widths.

use std::io::{self, Read as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use rustix::process::Signal;
use unicode_width::UnicodeWidthStr as _;

use super::{Place, expect};
use crate::program::{Program, manifest, text};
use crate::support::{LONG, names, wait_until};
use crate::terminal::Terminal;

/// A plugin that never comes up.
const SILENT: &str = "#!/bin/sh\necho begun >&2\nexec sleep 600\n";

/// Between a client and a host: lets so many bytes of a connection through to the host, and then no more.
struct Narrow {
    address: SocketAddr,
    /// Told of when the bytes are through.
    full: Receiver<()>,
    /// Ends the connection.
    end: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Narrow {
    /// Takes one connection.
    fn before(host: SocketAddr, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, full) = channel();
        let (end, ended) = channel();
        let gone = end.clone();
        let thread = thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            let host = TcpStream::connect(host).unwrap();
            let (mut back, mut answers) = (client.try_clone().unwrap(), host.try_clone().unwrap());
            let answers = thread::spawn(move || {
                let _ = io::copy(&mut answers, &mut back);
                // The host has gone, or the test wants no more.
                let _ = gone.send(());
            });
            let _ = io::copy(&mut (&client).take(bytes), &mut &host);
            let _ = sender.send(());
            let _ = ended.recv();
            let _ = host.shutdown(Shutdown::Both);
            answers.join().unwrap();
            // With the last copy of its connection closed the client is told, although it has more to send.
        });
        Self {
            address,
            full,
            end,
            thread: Some(thread),
        }
    }

    /// The arguments that lead a command through it.
    fn arguments(&self) -> String {
        format!(
            "--admin http://{} --token-file data/admin-token",
            self.address
        )
    }

    fn wait_until_full(&self) {
        self.full
            .recv_timeout(LONG)
            .expect("the upload to be under way");
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        let _ = self.end.send(());
        // A command that never came holds it up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Bytes of the upload that get through: more than any other request has.
const THROUGH: u64 = 64 * 1024;

/// A server and the package `large.zip`, which is more than connections hold.
fn with_large() -> Place {
    let place = Place::served();
    let program = format!("{SILENT}# {}\n", "x".repeat(24 * 1024 * 1024));
    place
        .scratch
        .zipped("large.zip", &manifest("large"), &program);
    place
}

fn admin(place: &Place) -> SocketAddr {
    place.server.as_ref().unwrap().admin_address()
}

/// Asserts how a command ends whose host died: with one sentence.
#[track_caller]
fn expect_gone(command: Program) {
    let output = command.end();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("plugin-runner: "), "{said}");
}

#[test]
fn an_upload_that_is_interrupted_leaves_nothing() {
    let place = with_large();
    let narrow = Narrow::before(admin(&place), THROUGH);
    let command = place.command(&format!("install large.zip {}", narrow.arguments()));
    let mut terminal = Terminal::start(&command, 80, 24);
    narrow.wait_until_full();
    terminal.interrupt();
    let (status, shown) = terminal.end();
    let signal = status.signal();
    assert_eq!(signal, Some(Signal::INT.as_raw()), "{status}: {shown}");
    drop(narrow);
    wait_until("the server to delete what it has received", || {
        names(&place.scratch.path("data/incoming")).is_empty()
    });
    assert!(place.lines("list").is_empty());
    place.ok("install large.zip");
}

#[test]
fn a_host_that_dies_ends_what_waits_for_it() {
    let mut place = with_large();
    let narrow = Narrow::before(admin(&place), THROUGH);
    let command = format!("install large.zip {}", narrow.arguments());
    let upload = Program::start(place.command(&command));
    narrow.wait_until_full();
    place
        .scratch
        .zipped("silent.zip", &manifest("silent"), SILENT);
    place.ok("install silent.zip");
    place.ok("install hello.zip --activate");
    let activation = Program::start(place.command("activate silent"));
    wait_until("the plugin to be started", || {
        place.ok("logs silent").contains("begun")
    });
    let call = Program::start(place.command("call hello wait"));
    wait_until("the call to be under way", || {
        place.ok("logs hello").contains("waiting")
    });
    let mut follower = Terminal::start(&place.command("logs hello --follow"), 80, 24);
    follower.wait_for("waiting");

    let server = place.server.take().unwrap();
    server.program.signal(Signal::KILL);
    server.program.end();
    expect_gone(upload);
    expect_gone(activation);
    expect_gone(call);
    follower.wait_for("waiting for it");
    follower.interrupt();
    let (status, shown) = follower.end();
    let signal = status.signal();
    assert_eq!(signal, Some(Signal::INT.as_raw()), "{status}: {shown}");
    // What a killed host leaves names no host any more.
    expect(
        &place.fails(4, "activate hello"),
        &["no host is running on"],
    );
    assert_eq!(place.lines("list").len(), 2);
}

/// The statuses of two commands that run at the same time, and what they said.
fn both(place: &Place, commands: [&str; 2]) -> [(i32, String); 2] {
    commands
        .map(|command| Program::start(place.command(command)))
        .map(|program| {
            let output = program.end();
            let said = text(&output.stderr).to_owned();
            (output.status.code().unwrap(), said)
        })
}

#[test]
fn of_two_installations_at_once_in_a_directory_one_is_made() {
    let place = Place::new();
    let install = "install hello.zip --data data";
    let mut ended = both(&place, [install, install]);
    ended.sort();
    let statuses = ended.each_ref().map(|(status, _)| *status);
    assert_eq!(statuses, [0, 1], "{ended:?}");
    expect(
        &ended[1].1,
        &["is installed already", "--update updates it"],
    );
    assert_eq!(place.lines("list").len(), 1);
}

#[test]
fn of_two_installations_at_once_no_success_is_lost() {
    let place = Place::served();
    let ended = both(&place, ["install hello.zip", "install hello.zip"]);
    let done = ended.iter().filter(|(status, _)| *status == 0).count();
    assert!(done > 0, "{ended:?}");
    assert_eq!(place.lines("list").len(), done, "{ended:?}");
    for (status, said) in &ended {
        if *status != 0 {
            expect(said, &["is installed already"]);
        }
    }
    if done > 1 {
        // To the host two are no fault; every command says so.
        expect(&place.fails(3, "activate hello"), &["may be any of"]);
    }
}

#[test]
fn a_plugin_that_is_started_and_removed_at_once_is_gone_or_is_not() {
    let place = Place::served();
    for _ in 0..5 {
        place.ok("install hello.zip");
        let [started, removed] = both(&place, ["activate hello", "remove hello --yes"]);
        // Refused, or not there any more.
        assert!([0, 1, 3].contains(&started.0), "{started:?}");
        assert!([0, 1].contains(&removed.0), "{removed:?}");
        assert_eq!(place.lines("list").len(), usize::from(removed.0 != 0));
        if removed.0 != 0 {
            place.ok("remove hello --yes");
        }
    }
    place.server.unwrap().program.stop();
}

/// Whether a text has a colour in it.
fn is_coloured(text: &str) -> bool {
    text.split("\x1b[").skip(1).any(|rest| {
        rest.find(|letter: char| letter.is_ascii_alphabetic())
            .is_some_and(|end| rest[end..].starts_with('m'))
    })
}

#[test]
fn tables_fit_the_terminal_and_colours_can_be_turned_off() {
    let place = Place::served();
    place.ok("install hello.zip --activate");
    place.ok("install bad.zip");
    place.fails(1, "activate bad");
    place.ok("update hello hello-2.zip");
    for command in ["list", "versions hello", "history hello"] {
        for width in [40, 200] {
            let terminal = Terminal::start(&place.command(command), width, 24);
            let (status, text) = terminal.end();
            assert!(status.success(), "{command}: {text}");
            let lines: Vec<_> = text.split_terminator("\r\n").collect();
            assert!(lines.len() >= 2, "{command}: {lines:?}");
            for line in &lines {
                let is_narrow = line.width() <= usize::from(width);
                assert!(is_narrow, "{command} at {width}: {line:?}");
            }
            let is_cut = text.contains('…');
            assert!(width == 40 || !is_cut, "{command} at {width}: {lines:?}");
        }
    }
    for command in [
        "list",
        "get bad",
        "restart hello",
        "history bad",
        "activate bad",
        "validate hello",
    ] {
        let mut command = place.command(command);
        let (_, text) = Terminal::start(command.env("NO_COLOR", "1"), 100, 24).end();
        assert!(!text.is_empty());
        assert!(!is_coloured(&text), "{text:?}");
    }
}
