//! The life of plugins, from the first state to the end of the run.

use std::fs::OpenOptions;
use std::io::Write as _;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::program::{ANSWERING, FAILING, Scratch, is_alive, make_pipe, manifest, text};

/// What is said at a first signal.
const STOPPING: &str = "plugin-runner: stopping; once more to kill\n";

/// A plugin over stdio that, at the end of its input, says so and ends when somebody has written to a named pipe.
const SAVING: &str = r#"#!/usr/bin/env python3
import json, os, signal, sys
def save():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("saving", flush=True)
    open("gate").readline()
    print("saved", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("pid", os.getpid(), flush=True)
while line := sys.stdin.readline():
    call = json.loads(line)
    print(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": {}}), flush=True)
save()
"#;

/// `from` and `to` of the state changes among these objects.
fn states(objects: &[Value]) -> Vec<(&str, &str)> {
    objects
        .iter()
        .filter(|object| object["type"] == "state")
        .map(|object| {
            (
                object["from"].as_str().unwrap(),
                object["to"].as_str().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_plugin_becomes_active_and_a_signal_ends_it_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let scratch = Scratch::new();
        scratch.plugin("hello", &manifest("hello"), ANSWERING);
        let mut program = scratch.start("run hello --json");
        let (pid, active) = program.active("hello");
        assert_eq!(active["from"], "connecting");
        assert_eq!(active["message"], Value::Null);
        assert_eq!(active["details"], json!({}));
        assert_eq!(active["installation"].as_str().unwrap().len(), 20);
        assert!(is_alive(pid));

        program.signal(signal);
        let last = program.objects();
        assert_eq!(
            states(&last),
            [("active", "stopping"), ("stopping", "inactive")]
        );
        let output = program.end();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), STOPPING);
        assert!(!is_alive(pid));
        scratch.assert_nothing_left();
    }
}

#[test]
fn the_way_to_active_is_told_step_by_step() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &manifest("hello"), ANSWERING);
    let mut program = scratch.start("run hello --json");
    let mut seen = Vec::new();
    while states(&seen).last().is_none_or(|(_, to)| *to != "active") {
        seen.push(program.object().unwrap());
    }
    assert_eq!(
        states(&seen),
        [
            ("inactive", "starting"),
            ("starting", "connecting"),
            ("connecting", "active")
        ]
    );
    program.stop();
}

#[test]
fn a_plugin_that_exits_at_once_errs_after_the_configured_attempts() {
    let scratch = Scratch::new();
    scratch.plugin("bad", &manifest("bad"), FAILING);
    let mut program = scratch.start("run bad --json --max-restart-attempts 2 --max-backoff 10ms");
    let objects = program.objects();
    let output = program.end();

    let ends: Vec<_> = objects
        .iter()
        .filter(|object| object["to"] == "restarting" || object["to"] == "errored")
        .collect();
    assert_eq!(ends.len(), 3, "{objects:#?}");
    for (attempt, end) in ends.iter().enumerate() {
        let details = &end["details"];
        assert_eq!(end["message"], "exit status 42");
        assert_eq!(details["exit_code"], 42);
        assert_eq!(details["exit_status"], "exit status 42");
        assert_eq!(details["attempts"], attempt + 1);
        // Two streams, so in either order.
        let mut lines: Vec<_> = details["output"].as_array().unwrap().clone();
        lines.sort_by_key(ToString::to_string);
        assert_eq!(lines, ["and failed", "tried"]);
    }
    assert_eq!(ends[2]["to"], "errored");
    for (stream, line) in [("stdout", "tried"), ("stderr", "and failed")] {
        let is_it = |object: &&Value| {
            let log = [
                ("type", "log"),
                ("plugin", "bad"),
                ("stream", stream),
                ("line", line),
            ];
            log.iter().all(|(name, value)| object[*name] == *value)
        };
        let found: Vec<_> = objects.iter().filter(is_it).collect();
        assert_eq!(found.len(), 3, "{line}");
        for line in found {
            assert_eq!(line["installation"], ends[0]["installation"]);
            assert!(line["at"].as_str().unwrap().ends_with('Z'), "{line}");
        }
    }
    // Nothing was left to run, so the program ended by itself.
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "plugin-runner: plugin bad has errored, so nothing runs any more\n"
    );
    scratch.assert_nothing_left();
}

#[test]
fn a_plugin_that_errs_leaves_the_others_running() {
    let scratch = Scratch::new();
    scratch.plugin("bad", &manifest("bad"), FAILING);
    scratch.plugin("good", &manifest("good"), ANSWERING);
    let mut program = scratch.start("run bad good --json --max-restart-attempts 0");
    let (mut errored, mut active) = (false, false);
    while !(errored && active) {
        let object = program.object().unwrap();
        errored |= object["plugin"] == "bad" && object["to"] == "errored";
        active |= object["plugin"] == "good" && object["to"] == "active";
    }
    program.signal(Signal::TERM);
    program.state("good", "inactive");
    assert_eq!(program.end().status.code(), Some(0));
}

#[test]
fn a_killed_process_is_restarted() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &manifest("hello"), ANSWERING);
    let mut program = scratch.start("run hello --json --max-backoff 10ms");
    let (first, _) = program.active("hello");
    kill_process(first, Signal::KILL).unwrap();

    let restarting = program.state("hello", "restarting");
    assert_eq!(restarting["message"], "signal: killed");
    assert_eq!(restarting["details"]["exit_code"], -1);
    let (second, _) = program.active("hello");
    assert_ne!(first, second);
    program.stop();
    assert!(!is_alive(second));
}

#[test]
fn a_zip_and_a_folder_run_side_by_side() {
    let scratch = Scratch::new();
    scratch.plugin("folder", &manifest("from-folder"), ANSWERING);
    let json = manifest("from-zip").to_string();
    // As zips made on Windows are: nothing says that the program can be executed.
    let files = [
        ("manifest.json", json.as_str(), 0o644),
        ("main", ANSWERING, 0o644),
    ];
    scratch.zip("plugin.zip", &files);
    let mut program = scratch.start("run folder plugin.zip --json");
    let mut active = std::collections::BTreeSet::new();
    while active.len() < 2 {
        let object = program.object().unwrap();
        if object["to"] == "active" {
            active.insert(object["plugin"].as_str().unwrap().to_owned());
        }
    }
    assert!(active.contains("from-folder") && active.contains("from-zip"));
    program.stop();
    scratch.assert_nothing_left();
}

#[test]
fn a_plugin_that_does_not_end_is_killed_after_the_grace() {
    let scratch = Scratch::new();
    let mut stubborn = manifest("stubborn");
    stubborn["args"] = json!(["stubborn"]);
    scratch.plugin("stubborn", &stubborn, ANSWERING);
    let mut program = scratch.start("run stubborn --json --stop-grace 100ms");
    let (pid, _) = program.active("stubborn");
    program.signal(Signal::TERM);
    program.state("stubborn", "inactive");
    let output = program.end();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stderr),
        format!("{STOPPING}plugin-runner: killed, because it had not ended in 100ms: stubborn\n")
    );
    assert!(!is_alive(pid));
}

#[test]
fn a_second_signal_kills_at_once() {
    let scratch = Scratch::new();
    let mut stubborn = manifest("stubborn");
    stubborn["args"] = json!(["stubborn"]);
    scratch.plugin("stubborn", &stubborn, ANSWERING);
    // Far beyond the test's own deadline.
    let mut program = scratch.start("run stubborn --json --stop-grace 1h");
    let (pid, _) = program.active("stubborn");
    program.signal(Signal::INT);
    program.state("stubborn", "stopping");
    let inactive = program.signal_until(Signal::INT, "\"to\":\"inactive\"");
    assert!(inactive.contains("stubborn"), "{inactive}");
    let output = program.end();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        format!("{STOPPING}plugin-runner: ended at once on a second signal\n")
    );
    assert!(!is_alive(pid));
    scratch.assert_nothing_left();
}

#[test]
fn the_two_signals_of_a_wrapper_are_one() {
    let scratch = Scratch::new();
    let folder = scratch.plugin("saving", &manifest("saving"), SAVING);
    let gate = folder.join("gate");
    make_pipe(&gate);
    // Far beyond the test's own deadline.
    let mut program = scratch.start("run saving --json --stop-grace 1h");
    program.active("saving");
    // As `timeout` does; of one number the system may make one.
    program.signal(Signal::INT);
    program.signal(Signal::TERM);
    program.line_with("\"saving\"}");
    // For both, so that this waits for nobody, should the plugin be gone.
    let gate = OpenOptions::new().read(true).write(true).open(gate);
    writeln!(gate.unwrap(), "go on").unwrap();
    program.line_with("\"saved\"}");
    let output = program.end();
    assert_eq!(text(&output.stderr), STOPPING);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_signal_ends_a_run_that_waits_for_a_restart() {
    let scratch = Scratch::new();
    scratch.plugin("bad", &manifest("bad"), FAILING);
    let mut program = scratch.start("run bad --json");
    program.state("bad", "restarting");
    program.signal(Signal::TERM);
    program.state("bad", "inactive");
    assert_eq!(program.end().status.code(), Some(0));
}
