//! From the start to the end.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{FREE, Server, command, install};
use crate::program::{ANSWERING, FAILING, Program, Scratch, is_alive, make_pipe, manifest, text};
use crate::support::alone::Watched;
use crate::support::wait_until;

#[test]
fn what_is_installed_runs_until_the_end_is_asked_for() {
    for signal in [Signal::TERM, Signal::INT] {
        let scratch = Scratch::new();
        let id = install(&scratch, "data", "hello", ANSWERING);
        let server = Server::start(&scratch, "");
        let plugin = server.active(id);
        for private in ["admin.json", "admin-token"] {
            let mode = fs::metadata(server.data.join(private))
                .unwrap()
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{private}");
        }
        assert_eq!(server.get("/api/plugins", &[]).0, 401);
        let place = server.data.join("admin-token").display().to_string();
        let line = server.program.error_with("the HTTP API is at ");
        assert!(
            line.contains(&server.url) && line.contains(&place),
            "{line}"
        );
        server.program.error_with(&format!("running: hello ({id})"));
        server.program.error_with("up; plugins: 1 running");

        server.program.signal(signal);
        let output = server.program.end();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("stopping; once more to kill"), "{said}");
        assert!(said.lines().last().unwrap().ends_with("stopped"), "{said}");
        assert!(!said.contains(server.token.trim()), "{said}");
        assert!(!is_alive(plugin));
        assert!(!server.data.join("admin.json").exists());
        assert!(server.data.join("admin-token").exists());
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let scratch = Scratch::new();
    let stubborn = ANSWERING.replace("\"stubborn\" in sys.argv", "True");
    let id = install(&scratch, "data", "hello", &stubborn);
    let server = Server::start(&scratch, "--stop-grace 1h");
    let plugin = Watched::new(server.active(id));
    server.program.signal(Signal::TERM);
    server.program.error_with("stopping");
    // Those that come soon after the first belong to it.
    wait_until("the end of the plugin", || {
        server.program.signal(Signal::TERM);
        !is_alive(plugin.pid)
    });
    plugin.expect_end("the plugin");
    let output = server.program.end();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ended at once on a second signal"), "{said}");
    assert!(!server.data.join("admin.json").exists());
}

#[test]
fn the_end_may_be_asked_for_while_plugins_start() {
    let scratch = Scratch::new();
    let silent = "#!/bin/sh\necho pid $$\nexec cat >/dev/null\n";
    let id = install(&scratch, "data", "silent", silent);
    let server = Server::start(&scratch, "");
    wait_until("a start", || !server.log(id).is_empty());
    let said = server.program.stop();
    assert!(!said.contains("up; plugins"), "{said}");
}

#[test]
fn after_a_kill_everything_is_back() {
    let scratch = Scratch::new();
    let first = Server::start(&scratch, "");
    let id = first.install(&scratch.zipped("hello.zip", &manifest("hello"), ANSWERING));
    first.activate(id);
    let plugin = Watched::new(first.active(id));
    first.program.signal(Signal::KILL);
    plugin.expect_end("the plugin of the killed server");
    let killed = first.program.end();
    assert_eq!(killed.status.code(), None);
    let stale: Value =
        serde_json::from_slice(&fs::read(first.data.join("admin.json")).unwrap()).unwrap();

    let second = Server::start(&scratch, "");
    assert_eq!(second.token, first.token);
    assert_ne!(second.url, stale["url"]);
    let again = second.active_after(id, 1);
    assert_ne!(again, plugin.pid);
    assert_eq!(second.plugins()[0]["name"], "hello");
    second.program.stop();
}

#[test]
fn plugins_that_fail_keep_nothing_else_from_running() {
    let scratch = Scratch::new();
    let failing = install(&scratch, "data", "failing", FAILING);
    let id = install(&scratch, "data", "hello", ANSWERING);
    let server = Server::start(&scratch, "--max-restart-attempts 0");
    server.active(id);
    let failed = server.program.error_with("did not come up");
    assert!(
        failed.contains(&format!("plugin failing ({failing})")),
        "{failed}"
    );
    server
        .program
        .error_with("up; plugins: 1 running, 1 failed");
    server.program.stop();
}

#[test]
fn the_log_can_be_objects() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "--log-format json --log-level debug");
    server.program.error_with("up; no plugin is wanted active");
    let said = server.program.stop();
    for line in said.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let members: Vec<_> = object
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(members, ["level", "message", "target", "time"], "{line}");
    }
    let at = |part: &str| said.lines().any(|line| line.contains(part));
    assert!(at(&format!("the HTTP API is at {}", server.url)), "{said}");

    // So are the words of a failure.
    let arguments = format!("--data data/plugins.sqlite {FREE} --log-format json");
    let output = Program::start(command(&scratch, &arguments)).end();
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(said["level"], "error");
    assert!(
        said["message"]
            .as_str()
            .unwrap()
            .contains("is not a directory"),
        "{said}"
    );
}

/// A plugin over stdio that answers once the named pipe in a call's params has been written to.
const PENSIVE: &str = r#"#!/usr/bin/env python3
import json, os, sys
print("pid", os.getpid(), flush=True)
for line in sys.stdin:
    call = json.loads(line)
    if "gate" in call.get("params", {}):
        print("thinking", flush=True)
        open(call["params"]["gate"]).readline()
    print(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": {"ok": True}}), flush=True)
"#;

#[test]
fn a_request_that_waits_for_a_plugin_is_answered_before_the_end() {
    let scratch = Scratch::new();
    let id = install(&scratch, "data", "pensive", PENSIVE);
    let server = Server::start(&scratch, "");
    let plugin = server.active(id);
    let gate = scratch.path("gate");
    make_pipe(&gate);
    let body = json!({"method": "think", "params": {"gate": gate}});
    let path = format!("/api/plugins/{id}/rpc");
    let answer = thread::scope(|scope| {
        let asking = scope.spawn(|| server.json("POST", &path, &body));
        wait_until("the call to the plugin", || {
            server.log(id).iter().any(|line| line.contains("thinking"))
        });
        server.program.signal(Signal::TERM);
        server.program.error_with("stopping");
        assert!(is_alive(plugin));
        // Opened both ways, which waits for no reader; what was written is there while it is held.
        let mut gate = File::options().read(true).write(true).open(&gate).unwrap();
        gate.write_all(b"go\n").unwrap();
        asking.join().unwrap()
    });
    assert_eq!(answer, json!({"ok": true}));
    assert_eq!(server.program.end().status.code(), Some(0));
}

#[test]
fn a_log_that_is_not_read_keeps_nothing_waiting() {
    let scratch = Scratch::new();
    let stuck = scratch.path("stuck");
    make_pipe(&stuck);
    // Open for reading, so that it can be opened for writing, but never read.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&stuck);
    let inner = command(&scratch, &format!("--data data {FREE} --log-level debug"));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec \"$@\" 2>stuck", "sh"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(scratch.path(""));
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let server = Server::of(&scratch, shell);
    // Far more lines than a pipe holds.
    let path = format!("/{}", "x".repeat(1000));
    for _ in 0..300 {
        assert_eq!(server.get(&path, &[]).0, 401);
    }
    server.program.stop();
    drop(reader);
}

#[cfg(all(target_os = "linux", feature = "sprites"))]
#[test]
fn plugins_can_run_on_sprites() {
    let (scratch, fake) = (Scratch::new(), crate::fake::Fake::start());
    let id = install(&scratch, "data", "hello", ANSWERING);
    let arguments = "--runtime sprites --public-url ws://127.0.0.1:1";
    let start = || {
        let mut command = command(&scratch, &format!("--data data {FREE} {arguments}"));
        command
            .env("SPRITES_API_URL", fake.url())
            .env("SPRITES_API_KEY", fake.token());
        Server::of(&scratch, command)
    };
    let server = start();
    server.active(id);
    let sprites = fake.sprites();
    assert_eq!(sprites.len(), 1);
    let said = server.program.stop();
    assert!(!said.contains(fake.token()), "{said}");
    // They are found again.
    let server = start();
    server.active_after(id, 1);
    server.program.stop();
    assert_eq!(fake.sprites(), sprites);
    fake.finish();
}
