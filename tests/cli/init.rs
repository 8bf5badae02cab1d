//! The program as the first process of a container: a namespace of process ids.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{ANSWERING, Program, Scratch, apart, manifest, text};
use crate::support::alone::children;
use crate::support::wait_until;

/// With a /proc of its own; whoever is killed takes all with it.
const FLAGS: &str = "-rpf --mount-proc --kill-child";
/// Keeps what it starts from being a child of the shell's.
const SCRIPT: &str = r#"exec "$@""#;

/// Leaves three processes to the first one, which end with a status of their own, and answers every call.
const LEAVING: &str = r#"#!/usr/bin/env python3
import json, os, sys
for _ in range(3):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            # Until its parent, which is not waited for, has ended.
            while os.getppid() != 1:
                pass
            print("left to", os.getppid(), flush=True)
            os._exit(7)
        os._exit(0)
    os.wait()
for line in sys.stdin:
    call = json.loads(line)
    answer = {"jsonrpc": "2.0", "id": call["id"], "result": {"method": call["method"]}}
    print(json.dumps(answer), flush=True)
"#;

fn contained(test: &str, scratch: &Scratch, rest: &[&str]) -> Option<Command> {
    apart(test, scratch, FLAGS, SCRIPT, rest)
}

/// The only child of a process, once it has only one.
#[track_caller]
fn only_child(parent: Pid) -> Pid {
    let mut found = Vec::new();
    wait_until("a process with one child", || {
        found = children(parent);
        found.len() == 1
    });
    found[0]
}

#[test]
fn what_plugins_leave_is_reaped_and_the_host_misses_no_status() {
    const TEST: &str = "what_plugins_leave_is_reaped_and_the_host_misses_no_status";
    let scratch = Scratch::new();
    scratch.plugin("leaving", &manifest("leaving"), LEAVING);
    let rest = ["run", "leaving", "--json", "--max-restart-attempts", "0"];
    let Some(command) = contained(TEST, &scratch, &rest) else {
        return;
    };
    let mut program = Program::start(command);
    for _ in 0..3 {
        let line = program.object_with("a process that is left", |object| {
            let line = object["line"].as_str().unwrap_or_default();
            line.starts_with("left to")
        });
        assert_eq!(line["line"], "left to 1");
    }
    let first = only_child(program.id());
    // Those that were left to it are gone; the plugin and the keeper are its child's.
    let host = only_child(first);
    wait_until("the plugin and the keeper", || children(host).len() == 2);
    let mut processes = children(host).into_iter();
    let plugin = processes
        .find(|pid| {
            // Not the command line: the keeper's may have any directory in it.
            let path = format!("/proc/{}/comm", pid.as_raw_nonzero());
            std::fs::read_to_string(path).unwrap_or_default() == "python3\n"
        })
        .expect("the plugin");
    kill_process(plugin, Signal::KILL).unwrap();
    let errored = program.state("leaving", "errored");
    assert_eq!(errored["details"]["signal"], 9, "{errored}");
    assert_eq!(program.end().status.code(), Some(1));
    scratch.assert_nothing_left();
}

#[test]
fn signals_reach_the_host_and_its_end_is_the_containers() {
    const TEST: &str = "signals_reach_the_host_and_its_end_is_the_containers";
    for (signal, expected) in [
        (Signal::TERM, 0),
        (Signal::INT, 0),
        (Signal::HUP, 0),
        (Signal::USR1, 138),
        (Signal::USR2, 140),
        (Signal::QUIT, 131),
        (Signal::ALARM, 142),
    ] {
        let scratch = Scratch::new();
        scratch.plugin("hello", &manifest("hello"), ANSWERING);
        let rest = ["run", "hello", "--json"];
        let Some(mut command) = contained(TEST, &scratch, &rest) else {
            return;
        };
        command.current_dir(scratch.path(""));
        let mut program = Program::start(command);
        program.active("hello");
        let first = only_child(program.id());
        // Neither ends anything.
        for harmless in [Signal::WINCH, Signal::CONT] {
            kill_process(first, harmless).unwrap();
        }
        kill_process(first, signal).unwrap();
        let output = program.end();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{signal:?}: {said}");
    }
}

#[test]
fn a_host_that_is_killed_ends_the_container() {
    const TEST: &str = "a_host_that_is_killed_ends_the_container";
    let scratch = Scratch::new();
    scratch.plugin("hello", &manifest("hello"), ANSWERING);
    let Some(command) = contained(TEST, &scratch, &["run", "hello", "--json"]) else {
        return;
    };
    let mut program = Program::start(command);
    program.active("hello");
    let host = only_child(only_child(program.id()));
    wait_until("the plugin and the keeper", || children(host).len() == 2);
    let below = children(host);
    kill_process(host, Signal::KILL).unwrap();
    assert_eq!(program.end().status.code(), Some(137));
    for pid in below {
        wait_until("the end of all", || !crate::program::is_alive(pid));
    }
}

#[test]
fn a_host_that_cannot_be_started_is_an_error() {
    const TEST: &str = "a_host_that_cannot_be_started_is_an_error";
    let scratch = Scratch::new();
    // Without /proc, the program knows its file by its name alone.
    let script = r#"mount -t tmpfs none /proc && exec bash -c 'exec -a ./missing "$@"' bash "$@""#;
    let flags = "-rpfm --kill-child";
    let Some(command) = apart(TEST, &scratch, flags, script, &["run"]) else {
        return;
    };
    let output = Program::start(command).end();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with(
            "plugin-runner: cannot start this program again as a child of the first process: "
        ),
        "{said}"
    );
}
