//! `top`: on a terminal, and where there is none.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::{Place, done, expect, refused};
use crate::program::{Program, Scratch};
use crate::serve::{Server, bare};
use crate::terminal::Terminal;

const QUICK: &str = "--interval 100ms";

/// A server with the plugin that obeys.
fn served() -> (Scratch, Server) {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    server.obedient(&scratch);
    (scratch, server)
}

fn top(scratch: &Scratch, arguments: &str) -> Command {
    bare(scratch, &format!("top {QUICK} --data data {arguments}"))
}

/// The lines of the last whole picture.
fn picture(text: &str) -> Vec<String> {
    let mut pictures = text.rsplit("\u{1b}[H").skip(1);
    let last = pictures.next().expect("a picture");
    let plain = last.replace("\u{1b}[K", "").replace("\u{1b}[J", "");
    let lines = plain.split('\n');
    lines.map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn without_a_terminal_there_is_one_table() {
    let place = Place::served();
    place.ok("install hello.zip --activate");
    place.ok("install --external chat.json");
    for arguments in ["top", "top --once --sort cpu"] {
        let shown = place.ok(&format!("{arguments} {QUICK}"));
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 4, "{shown}");
        expect(
            lines[0],
            &["2 plugins, 1 active; 0.0 calls/s; http://127.0.0.1:"],
        );
        let head: Vec<_> = lines[1].split_whitespace().collect();
        assert_eq!(
            head,
            [
                "PLUGIN", "STATE", "UPTIME", "RESTARTS", "CALLS/S", "CPU", "MEMORY"
            ]
        );
        let row = |name: &str| -> Vec<&str> {
            let row = lines.iter().find(|line| line.starts_with(name)).unwrap();
            row.split_whitespace().collect()
        };
        let hello = row("hello");
        assert_eq!([hello[1], hello[3], hello[4]], ["active", "0", "0.0"]);
        assert!(hello[5].ends_with('%'), "{shown}");
        assert!(["MiB", "KiB"].contains(&hello[7]), "{shown}");
        assert_eq!(row("chat")[1..], ["connecting", "-", "0", "0.0", "-", "-"]);
    }
}

#[test]
fn in_json_there_are_rounds_until_their_reader_leaves_and_over_a_restart_of_the_host() {
    let (scratch, server) = served();
    let mut program = Program::start(top(&scratch, "--json"));
    let rounds: Vec<Value> = (0..2).map(|_| program.object().expect("a round")).collect();
    assert_ne!(rounds[0]["at"], rounds[1]["at"]);
    for round in &rounds {
        assert_eq!(round["plugin"], "obedient", "{round}");
        assert_eq!(round["state"], "active", "{round}");
        assert_eq!(round["calls_per_second"], 0.0, "{round}");
        assert_eq!(round["installation"].as_str().unwrap().len(), 20);
        let at = round["at"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(at).is_ok(), "{round}");
    }
    server.program.signal(Signal::KILL);
    server.program.end();
    program.error_with("has gone; waiting for it");
    let server = Server::start(&scratch, "");
    program.error_with("the host is back");
    program.object_with("a round after that", |round| round["state"] == "active");
    program.stop_reading();
    let output = program.end();
    assert_eq!(output.status.code(), Some(0));

    let one = done(&scratch, "top --once --json --interval 100ms");
    assert_eq!(one.lines().count(), 1, "{one}");
    server.program.stop();
}

#[test]
fn without_a_host_or_with_wrong_arguments_it_says_so() {
    let scratch = Scratch::new();
    let said = refused(&scratch, "top", 4);
    expect(&said, &["no host is running on", "plugin-runner serve"]);
    let said = refused(&scratch, "top --interval 1ms", 2);
    expect(&said, &["from 100ms to 1h"]);
    let said = refused(&scratch, "top --sort size", 2);
    expect(&said, &["'size'"]);
    // Nor does it touch the terminal.
    let terminal = Terminal::start(&top(&scratch, ""), 80, 24);
    let (status, text) = terminal.end();
    assert_eq!(status.code(), Some(4));
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn a_table_fits_its_terminal_and_follows_its_size() {
    let (scratch, server) = served();
    let mut terminal = Terminal::start(&top(&scratch, ""), 200, 24);
    terminal.wait_for("RESTARTS");
    // Once rates are known.
    terminal.wait_for_times("0.0%", 2);
    let wide = picture(&terminal.text());
    assert_eq!(wide.len(), 3, "{wide:?}");
    expect(&wide[0], &["1 plugin, 1 active; ", "; http://127.0.0.1:"]);
    expect(&wide[2], &["obedient", "active", "iB"]);
    terminal.resize(40, 2);
    terminal.wait_for_times("… and 1 more", 2);
    let narrow = picture(&terminal.text());
    assert_eq!(narrow.len(), 2, "{narrow:?}");
    assert!(
        narrow.iter().all(|line| line.chars().count() <= 40),
        "{narrow:?}"
    );
    terminal.send(b"xq");
    let (status, text) = terminal.end();
    assert_eq!(status.code(), Some(0));
    assert!(text.ends_with("\u{1b}[?25h\u{1b}[?1049l"), "{text:?}");
    server.program.stop();
}

#[test]
fn a_new_size_is_drawn_at_once() {
    let (scratch, server) = served();
    let command = bare(&scratch, "top --interval 1h --data data");
    let mut terminal = Terminal::start(&command, 40, 24);
    terminal.wait_for("obedient");
    assert!(!terminal.text().contains("RESTARTS"));
    terminal.resize(200, 24);
    terminal.wait_for("RESTARTS");
    terminal.interrupt();
    assert_eq!(terminal.end().0.code(), Some(0));
    server.program.stop();
}

#[test]
fn a_host_that_goes_away_is_waited_for_and_it_can_be_ended_meanwhile() {
    let (scratch, server) = served();
    let mut terminal = Terminal::start(&top(&scratch, ""), 100, 24);
    terminal.wait_for("1 plugin, 1 active");
    server.program.signal(Signal::KILL);
    server.program.end();
    terminal.wait_for("waiting for the host: ");
    let server = Server::start(&scratch, "");
    // What is drawn then has another address in it.
    terminal.wait_for(&server.admin_address().to_string());
    // One that is there and says nothing.
    server.program.signal(Signal::STOP);
    terminal.interrupt();
    assert_eq!(terminal.end().0.code(), Some(0));
    server.program.signal(Signal::CONT);
    server.program.signal(Signal::KILL);
    server.program.end();
    let other = Terminal::start(&top(&scratch, ""), 100, 24);
    assert_eq!(other.end().0.code(), Some(4));
}

#[test]
fn a_signal_ends_it_and_leaves_the_terminal_as_it_was() {
    let (scratch, server) = served();
    let terminal = Terminal::start(&top(&scratch, ""), 100, 24);
    terminal.wait_for("obedient");
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.end().0.code(), Some(0));
    server.program.stop();
}
