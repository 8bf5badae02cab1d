//! `dev install`: from a plugin's directory to a plugin that runs, and again after a change.

use std::fs;

use serde_json::{Value, json};

use crate::program::{ANSWERING, Program, Scratch, manifest, text};
use crate::support::wait_until;

/// The server, once clients find it.
fn served(scratch: &Scratch) -> Program {
    let host = scratch.start("serve --data data --listen 127.0.0.1:0 --admin 127.0.0.1:0");
    wait_until("admin.json", || scratch.path("data/admin.json").exists());
    host
}

#[test]
fn a_directory_is_installed_and_then_updated() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &manifest("hello"), ANSWERING);
    scratch.write("hello/.DS_Store", "");
    let output = scratch.output("dev install hello --data data");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(!scratch.path("data").exists());

    let host = served(&scratch);
    let output = scratch.output("dev install hello --data data");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for part in [
        "left out: .DS_Store: ",
        ") is installed, version 1.0.0",
        ") is active",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let mut second = manifest("hello");
    second["version"] = "2.0.0".into();
    scratch.write("hello/manifest.json", second.to_string());
    let output = scratch.output("dev install hello --data data");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for part in ["updated from version 1.0.0 to 2.0.0", ") is active"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let output = scratch.output("dev install hello --data data --json");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["version"], "2.0.0", "{said}");

    // What could not be installed is refused here.
    scratch.write("hello/manifest.json", json!({"id": "hello"}).to_string());
    let output = scratch.output("dev install hello --data data");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text(&output.stderr).starts_with("plugin-runner: hello: "),
        "{output:?}"
    );
    host.stop();
    scratch.assert_nothing_left();
}

#[test]
fn without_a_host_it_is_installed_if_it_need_not_be_started() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &manifest("hello"), ANSWERING);
    let output = scratch.output("dev install hello --no-activate --data data");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stdout).contains(") is installed"),
        "{output:?}"
    );
    assert!(fs::exists(scratch.path("data/plugins.sqlite")).unwrap());
    scratch.assert_nothing_left();
}
