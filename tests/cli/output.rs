//! What is printed for people, and standard output that nobody reads.

use std::process::Stdio;

use plugin_runner::text::needs_escape;
use rustix::process::{Pid, Signal, kill_process};

use crate::program::{
    ANSWERING, FAILING, Scratch, is_alive, make_pipe, manifest, pid, read_pipe, text, wait_for_end,
};

/// Prints more than any pipe or queue holds, says so in a file, and waits to be ended.
const FLOODING: &str = r#"#!/usr/bin/env python3
import os, signal, sys
signal.signal(signal.SIGINT, lambda *_: os._exit(0))
print("pid", os.getpid(), flush=True)
line = "x" * 1000 + "\n"
for _ in range(40_000):
    sys.stderr.write(line)
sys.stderr.flush()
open("flooded", "w").write(str(os.getpid()))
signal.pause()
"#;

#[test]
fn lines_begin_with_names_that_tell_plugins_apart() {
    let scratch = Scratch::new();
    let plugin = "#!/bin/sh\nprintf '\\033[31mred\\033[0m \\007\\n'\nexec cat >/dev/null\n";
    scratch.plugin("one", &manifest("twin"), plugin);
    scratch.plugin("two", &manifest("twin"), FAILING);
    scratch.plugin("three", &manifest("longer-name"), ANSWERING);
    let mut program =
        scratch.start("run one two three --max-restart-attempts 1 --max-backoff 10ms");
    let mut text = String::new();
    let wanted = [
        "twin#1       * starting\n",
        "twin#1       * connecting\n",
        // Colours of plugins are dropped, and what would ring the bell is shown.
        "twin#1       | red \\u{7}\n",
        "twin#2       ! and failed\n",
        "twin#2       * restarting in 10ms: exit status 42\n",
        "twin#2       * errored: exit status 42\n               ended with   exit status 42\n               \
         attempts     2\n               last output  ",
        "longer-name  * active\n",
    ];
    while !wanted.iter().all(|part| text.contains(part)) {
        let line = program
            .line()
            .unwrap_or_else(|| panic!("ended after:\n{text}"));
        text += &line;
        text.push('\n');
    }
    assert!(!text.contains('\u{1b}'), "{text}");
    program.stop();
}

#[test]
fn a_reader_that_leaves_ends_the_run_in_order() {
    let scratch = Scratch::new();
    let chatty = "#!/bin/sh\ntrap 'exit 0' INT\necho pid $$\nwhile :; do echo chatter; done\n";
    scratch.plugin("chatty", &manifest("chatty"), chatty);
    let mut program = scratch.start("run chatty");
    let pid = pid(&program.line_with("pid "));
    program.stop_reading();
    let output = program.end();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("panicked"));
    assert!(!is_alive(pid));
    scratch.assert_nothing_left();
}

#[test]
fn a_reader_that_is_stuck_holds_up_neither_plugins_nor_signals() {
    let scratch = Scratch::new();
    let folder = scratch.plugin("flooding", &manifest("flooding"), FLOODING);
    let pipe = folder.join("flooded");
    make_pipe(&pipe);
    let mut child = scratch
        .command("run flooding")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Open, and never read.
    let stdout = child.stdout.take().unwrap();
    let flooded = pid(&read_pipe("the plugin to get rid of its output", &pipe));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = wait_for_end(&mut child);
    assert_eq!(status.code(), Some(0));
    assert!(!is_alive(flooded));
    scratch.assert_nothing_left();
    drop(stdout);
}

/// Asks and answers in a way that would steer a terminal and forge lines, and fails.
const HOSTILE: &str = r#"#!/usr/bin/env python3
import json, os, sys
evil = "evil\r\u001b[2J\u009b31m\u202e\u2028\u007f\n[ERROR] forged"
print(evil, flush=True)
print(evil, file=sys.stderr, flush=True)
call = json.loads(sys.stdin.readline())
print(json.dumps({"id": call["id"], "result": {"method": call["method"]}}))
# Without the version it is output, and with it a call, which is answered at once.
print(json.dumps({"id": "x", "method": evil}))
print(json.dumps({"jsonrpc": "2.0", "id": "x", "method": evil}), flush=True)
sys.stdin.readline()
os._exit(3)
"#;

#[test]
fn nothing_that_a_plugin_says_steers_the_terminal_or_forges_a_line() {
    for form in ["--verbose", "--json"] {
        let scratch = Scratch::new();
        scratch.plugin("hostile", &manifest("hostile"), HOSTILE);
        let mut bad = manifest("bad");
        bad["command"] = "./evil\u{1b}[2J\u{9b}\u{202e}\nforged".into();
        scratch.plugin("bad", &bad, "");
        let arguments = format!("run hostile bad -vv {form} --max-restart-attempts 0");
        let output = scratch.output(&arguments);
        assert_eq!(output.status.code(), Some(1));
        for shown in [text(&output.stdout), text(&output.stderr)] {
            let disturbing = shown.lines().find(|line| line.contains(needs_escape));
            assert_eq!(disturbing, None, "{shown:?}");
            assert!(shown.contains("evil"), "{shown}");
            assert!(
                !shown.lines().any(|line| line.starts_with("forged")),
                "{shown}"
            );
        }
    }
    let scratch = Scratch::new();
    let mut bad = manifest("evil\u{9b}\u{202e}\nforged");
    bad["version"] = "1\n\u{1b}[2J\u{202e}".into();
    scratch.plugin("bad", &bad, "");
    for id in [None, Some("good")] {
        if let Some(id) = id {
            bad["id"] = id.into();
            scratch.plugin("bad", &bad, "#!/bin/sh\n");
        }
        let output = scratch.output("validate bad");
        let shown = text(&output.stdout);
        assert!(!shown.trim_end().contains(needs_escape), "{shown:?}");
    }
}
