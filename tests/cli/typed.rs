//! Talking with plugins as a person does: commands that are typed on a terminal.

use std::process::Command;

use serde_json::json;

use crate::program::{Scratch, manifest};
use crate::talk::{TALKING, talking};
use crate::terminal::Terminal;

/// A terminal with this program on it, whose output has no colours.
fn terminal(mut command: Command) -> Terminal {
    command.env("NO_COLOR", "1");
    Terminal::start(&command, 120, 30)
}

#[test]
fn a_session_is_typed_from_the_configuration_to_the_end() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    let mut terminal = terminal(scratch.command("run ./hello"));
    // Typed before the plugin is up: it waits.
    terminal.type_line("configure {\"volume\": 3}");
    terminal.wait_for("called configure {\"volume\": 3}");
    terminal.wait_for("> configure: accepted");
    terminal.type_line("event EventThreadPublished {\"id\": \"1\"}");
    terminal.wait_for("called event ");
    terminal.wait_for("> event EventThreadPublished: {\"hello\":\"delivered\"}");
    terminal.type_line("cal greet");
    terminal.wait_for("did you mean call?");
    terminal.type_line("call greet {\"to\": 1}");
    terminal.wait_for("called greet {\"to\": 1}");
    terminal.wait_for("> call greet: {\"ok\":true,\"status\":\"ok\"}");
    terminal.type_line("restart");
    terminal.wait_for("> restart: started again");
    terminal.type_line("call again");
    terminal.wait_for("> call again: ");
    // Ctrl-D: nothing more is typed, and the plugin goes on.
    terminal.send(b"\x04");
    terminal.wait_for("no more commands; Ctrl-C ends the run");
    terminal.interrupt();
    let (status, text) = terminal.end();
    // What failed on the way was told to who typed it.
    assert_eq!(status.code(), Some(0), "{text}");
    scratch.assert_nothing_left();
}

#[test]
fn quit_ends_a_session_in_order() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    let mut terminal = terminal(scratch.command("run ./hello"));
    terminal.wait_for("* active");
    terminal.type_line("quit");
    let (status, text) = terminal.end();
    assert_eq!(status.code(), Some(0), "{text}");
    scratch.assert_nothing_left();
}

#[test]
fn ctrl_c_does_not_wait_for_a_call() {
    const SILENT: &str = r#"#!/usr/bin/env python3
import json, sys
for line in sys.stdin:
    call = json.loads(line)
    if call["method"] == "silence":
        print("silent now", flush=True)
    else:
        print(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": {}}), flush=True)
"#;
    let scratch = Scratch::new();
    scratch.plugin("hello", &manifest("hello"), SILENT);
    let mut terminal = terminal(scratch.command("run ./hello"));
    terminal.type_line("call silence");
    terminal.wait_for("silent now");
    let began = std::time::Instant::now();
    terminal.interrupt();
    let (status, text) = terminal.end();
    // The call itself has 30 seconds.
    assert!(began.elapsed().as_secs() < 20, "{text}");
    assert_eq!(status.code(), Some(0), "{text}");
}

#[test]
fn in_the_background_of_a_shell_it_runs_and_leaves_what_is_typed_alone() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    let program = scratch.command("run ./hello");
    let mut shell = Command::new("bash");
    shell
        .args(["--norc", "--noprofile", "--noediting", "-i"])
        .env("PROGRAM", program.get_program())
        .env("PS1", "ready> ")
        .current_dir(scratch.path(""));
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    let mut terminal = terminal(shell);
    terminal.type_line("\"$PROGRAM\" run ./hello &");
    terminal.wait_for("* active");
    // The shell's, though it may look like a command of the run.
    terminal.type_line("echo $((20 + 22)) lines");
    terminal.wait_for("42 lines");
    terminal.type_line("jobs");
    terminal.wait_for("Running");
    terminal.type_line("fg");
    terminal.type_line("call greet");
    terminal.wait_for("> call greet: {\"ok\":true");
    terminal.interrupt();
    // The shell asks once at the beginning and once after each of its lines.
    terminal.wait_for_times("ready> ", 5);
    terminal.type_line("exit 7");
    let (status, text) = terminal.end();
    assert!(!text.contains("Stopped"), "{text}");
    assert_eq!(status.code(), Some(7), "{text}");
    scratch.assert_nothing_left();
}

#[test]
fn several_plugins_are_named_in_front() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &talking("hello"), TALKING);
    scratch.plugin("other", &talking("other"), TALKING);
    scratch.write("config.json", json!({"volume": 5}).to_string());
    let command = scratch.command("run hello other --config other=config.json");
    let mut terminal = terminal(command);
    terminal.wait_for("> configure: accepted");
    terminal.type_line("state");
    terminal.wait_for("which one? begin with hello, other");
    terminal.type_line("other call greet");
    terminal.wait_for("> call greet: ");
    terminal.interrupt();
    let (status, text) = terminal.end();
    assert_eq!(text.matches("called greet").count(), 1, "{text}");
    assert_eq!(text.matches("called configure").count(), 1, "{text}");
    assert_eq!(status.code(), Some(0), "{text}");
}
