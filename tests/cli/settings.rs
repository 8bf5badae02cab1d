//! Arguments that set things.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::program::{Program, Scratch, manifest, text};
use crate::support::LONG;

/// Prints one line and waits for the end.
fn saying(what: &str) -> String {
    format!("#!/bin/sh\ntrap 'exit 0' INT\n{what}\ncat >/dev/null\n")
}

fn first_log(program: &mut Program) -> String {
    let object = program.object_with("a line", |object| object["type"] == "log");
    object["line"].as_str().unwrap().to_owned()
}

#[test]
fn a_data_folder_is_kept_and_found_again() {
    let scratch = Scratch::new();
    let count = saying(
        "echo x >>\"$PLUGIN_DATA_DIR/runs\"\necho \"run $(wc -l <\"$PLUGIN_DATA_DIR/runs\" | tr -d ' ')\"",
    );
    scratch.zipped("counting.zip", &manifest("counting"), &count);
    for run in ["run 1", "run 2"] {
        let mut program = scratch.start("run counting.zip --json --data kept");
        assert_eq!(first_log(&mut program), run);

        let second = scratch.output("run counting.zip --data kept");
        assert_eq!(second.status.code(), Some(1));
        assert_eq!(
            text(&second.stderr),
            "plugin-runner: another plugin-runner is using the data directory kept; name another \
             with --data\n"
        );

        program.stop();
    }
    assert!(scratch.path("kept").is_dir());
    scratch.assert_nothing_left();
}

#[test]
fn variables_are_given_and_passed_on_and_nothing_else_is() {
    let scratch = Scratch::new();
    let plugin = saying("echo \"$GIVEN,$PASSED,${SECRET-unset}\"");
    scratch.plugin("hello", &manifest("hello"), &plugin);
    let mut command = scratch.command("run hello --json --env GIVEN=a=b --env PASSED");
    command.env("PASSED", "on").env("SECRET", "s");
    let mut program = Program::start(command);
    assert_eq!(first_log(&mut program), "a=b,on,unset");
    program.stop();
}

#[test]
fn an_external_plugin_connects_with_the_printed_url() {
    let scratch = Scratch::new();
    scratch.write("outside.json", manifest("outside").to_string());
    let mut program = scratch.start("run --external outside.json --json");
    let external = program.object_with("a URL", |object| object["type"] == "external");
    assert_eq!(external["plugin"], "outside");
    program.state("outside", "connecting");

    let url = external["url"].as_str().unwrap();
    let (authority, target) = url
        .strip_prefix("ws://")
        .and_then(|rest| rest.split_once('/'))
        .unwrap();
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    write!(
        stream,
        "GET /{target} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(text(&status), "HTTP/1.1 101");
    program.state("outside", "active");

    program.signal(Signal::TERM);
    let inactive = program.state("outside", "inactive");
    assert_eq!(
        (&inactive["message"], &inactive["details"]),
        (&Value::Null, &json!({}))
    );
    assert_eq!(program.end().status.code(), Some(0));
}

#[test]
fn an_external_plugin_may_come_back_to_a_later_run_with_the_same_data() {
    let scratch = Scratch::new();
    scratch.write("outside.json", manifest("outside").to_string());
    let token = |data: &str| {
        let mut program = scratch.start(&format!("run --external outside.json --json {data}"));
        let external = program.object_with("a URL", |object| object["type"] == "external");
        let url = external["url"].as_str().unwrap();
        let token = url.split_once("?token=").unwrap().1.to_owned();
        program.stop();
        token
    };
    let first = token("--data kept");
    assert_eq!(token("--data kept"), first);
    assert_ne!(token("--data other"), first);
    assert_ne!(token(""), token(""));
    let holding: Vec<_> = std::fs::read_dir(scratch.path("kept"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(&first)))
        .collect();
    let [path] = &*holding else {
        panic!("{holding:?}");
    };
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Without the file there is a new one.
    std::fs::remove_file(path).unwrap();
    assert_ne!(token("--data kept"), first);
}

#[test]
fn people_get_the_url_too() {
    let scratch = Scratch::new();
    scratch.write("outside.json", manifest("outside").to_string());
    let mut program = scratch.start("run --external outside.json");
    let line = program.line().unwrap();
    assert!(
        line.starts_with("outside  > connects to ws://127.0.0.1:")
            && line.contains("/rpc?token=sdprt_"),
        "{line}"
    );
    program.stop();
}
