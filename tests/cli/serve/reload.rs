//! Reading the configuration again.

use rustix::process::{Signal, kill_process};

use super::{Server, install};
use crate::program::Scratch;
use crate::support::{wait_for, wait_until};

const ORIGIN: &str = "https://admin.example.com";

/// A plugin over stdio that says how many files it may open, once it has been called: limits are put upon it a
/// moment after its start.
const COUNTING: &str = r#"#!/usr/bin/env python3
import json, os, resource, sys
said = False
for line in sys.stdin:
    if not said:
        said = True
        print("files", resource.getrlimit(resource.RLIMIT_NOFILE)[0], "pid", os.getpid(), flush=True)
    call = json.loads(line)
    print(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": {}}), flush=True)
"#;

fn status_for_origin(server: &Server) -> u16 {
    let bearer = server.bearer();
    let headers = [("Authorization", &*bearer), ("Origin", ORIGIN)];
    server.get("/api/plugins", &headers).0
}

#[test]
fn a_hangup_applies_what_can_change_and_names_the_rest() {
    let scratch = Scratch::new();
    scratch.write("serve.toml", "plugin_open_files = 100\n");
    let id = install(&scratch, "data", "counting", COUNTING);
    let server = Server::start(&scratch, "--config serve.toml");
    let plugin = server.active(id);
    assert!(
        server.log(id)[0].contains("files 100 "),
        "{:?}",
        server.log(id)
    );
    assert_eq!(status_for_origin(&server), 403);

    scratch.write(
        "serve.toml",
        format!(
            "plugin_open_files = 120\nallow_origin = [\"{ORIGIN}\"]\nlog_level = \"debug\"\nstop_grace = \"4s\"\n"
        ),
    );
    server.program.signal(Signal::HUP);
    server
        .program
        .error_with("stop_grace has changed to \"4s\", which counts from the next start on");
    server.program.error_with("plugin_open_files is now 120");
    server.program.error_with("read the configuration again");
    assert_eq!(status_for_origin(&server), 200);
    assert_eq!(server.active(id), plugin, "it was not touched");
    kill_process(plugin, Signal::KILL).unwrap();
    let second = wait_for("the next start", || {
        server
            .log(id)
            .into_iter()
            .filter(|line| line.contains("files "))
            .nth(1)
    });
    assert!(second.contains("files 120 "), "{second}");

    // What has changed and does not count is said each time, and only then.
    server.program.signal(Signal::HUP);
    server.program.error_with("stop_grace has changed");
    scratch.write("serve.toml", "log_level = \"error\"\n");
    server.program.signal(Signal::HUP);
    wait_until("an origin that is not allowed any more", || {
        status_for_origin(&server) == 403
    });
    let said = server.program.stop();
    assert!(!said.contains("stopping"), "only errors are logged: {said}");
}

#[test]
fn a_file_that_is_wrong_changes_nothing() {
    let scratch = Scratch::new();
    scratch.write("serve.toml", format!("allow_origin = \"{ORIGIN}\"\n"));
    let server = Server::start(&scratch, "--config serve.toml");
    assert_eq!(status_for_origin(&server), 200);
    scratch.write("serve.toml", "allow_origin = []\nlog_level = \"loud\"\n");
    server.program.signal(Signal::HUP);
    server
        .program
        .error_with("serve.toml:2: log_level: \"loud\": write off");
    server.program.error_with("so nothing of it changes");
    assert_eq!(status_for_origin(&server), 200);
    std::fs::remove_file(scratch.path("serve.toml")).unwrap();
    server.program.signal(Signal::HUP);
    server.program.error_with("cannot read the file serve.toml");
    server.program.error_with("so nothing of it changes");
    assert_eq!(status_for_origin(&server), 200);
    server.program.stop();
}
