//! The operators' commands, met as people and scripts meet them: against a server, and on a directory on which none
//! runs.
//!
//! The shared parts are here: a directory with packages, the commands on it, and what they answer.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::program::{FAILING, Program, Scratch, manifest};
use crate::serve::{OBEDIENT, Server, bare};

// Questions on a terminal, and what is shown while something takes long.
#[cfg(target_os = "linux")]
mod questions;
// The program on a terminal.
#[cfg(target_os = "linux")]
mod terminals;
// The examples in the help.
#[cfg(target_os = "linux")]
mod examples;
// `install`, `update`, `download`.
mod packages;
// What holds for every command.
mod every;
// Hosts that die or are slow, and two clients at once.
#[cfg(target_os = "linux")]
mod broken;
// `activate`, `deactivate`, `restart`, `remove`.
mod life;
// `logs`.
mod logs;
// `versions`, `rollback`, `history`, `token`.
mod past;
// `call`, `publish`, `config`, `env` and `limits`.
mod talking;
// `top`.
#[cfg(target_os = "linux")]
mod top;

/// A directory with packages, and perhaps a server on its `data`.
struct Place {
    server: Option<Server>,
    scratch: Scratch,
}

impl Place {
    /// With `hello.zip` and `hello-2.zip`, version 2.0.0 of it, the directory `hello`, `bad.zip`, which does not come
    /// up, and the manifest `chat.json` of an external plugin.
    fn new() -> Self {
        let scratch = Scratch::new();
        let mut hello = manifest("hello");
        scratch.plugin("hello", &hello, OBEDIENT);
        scratch.zipped("hello.zip", &hello, OBEDIENT);
        hello["version"] = json!("2.0.0");
        scratch.zipped("hello-2.zip", &hello, OBEDIENT);
        scratch.zipped("bad.zip", &manifest("bad"), FAILING);
        let mut chat = manifest("chat");
        for member in ["command", "transport"] {
            chat.as_object_mut().unwrap().remove(member);
        }
        scratch.write("chat.json", chat.to_string());
        Self {
            server: None,
            scratch,
        }
    }

    fn served() -> Self {
        Self::served_with("")
    }

    /// With a server that has these arguments too.
    fn served_with(arguments: &str) -> Self {
        let mut place = Self::new();
        place.server = Some(Server::start(
            &place.scratch,
            &format!("--max-restart-attempts 0 {arguments}"),
        ));
        place
    }

    /// With a server on which `hello` is installed and active, and has settings, and `chat` is installed.
    fn prepared() -> Self {
        let place = Self::served();
        let file = place.scratch.path("hello/manifest.json");
        let mut hello: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        hello["configuration_schema"] = json!({"fields": [
            {"type": "string", "id": "greeting", "label": "", "description": ""},
            {"type": "number", "id": "volume", "label": "", "description": ""},
        ]});
        for (version, package) in [("2.0.0", "hello-2.zip"), ("1.0.0", "hello.zip")] {
            hello["version"] = version.into();
            fs::write(&file, hello.to_string()).unwrap();
            place.ok(&format!("dev package hello --force --output {package}"));
        }
        place.scratch.write("settings.json", r#"{"greeting":"hi"}"#);
        place.ok("install hello.zip --activate");
        place.ok("install --external chat.json");
        place
    }

    /// A command on the directory.
    fn command(&self, arguments: &str) -> Command {
        let mut command = bare(&self.scratch, arguments);
        command.env("PLUGIN_DATA_PATH", self.scratch.path("data"));
        command
    }

    /// Runs a command on the directory.
    fn output(&self, arguments: &str) -> Output {
        Program::start(self.command(arguments)).end()
    }

    /// Runs a command that goes well, and returns what it prints.
    #[track_caller]
    fn ok(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that goes well, and returns the one object that it prints.
    #[track_caller]
    fn json(&self, arguments: &str) -> Value {
        let printed = self.ok(&format!("{arguments} --json"));
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    }

    /// Runs a command that fails with this status, and returns its one sentence.
    #[track_caller]
    fn fails(&self, status: i32, arguments: &str) -> String {
        let output = self.output(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments}: {said}");
        said.trim_end()
            .strip_prefix("plugin-runner: ")
            .expect(&said)
            .to_owned()
    }

    /// The objects that a command prints, which goes well.
    #[track_caller]
    fn lines(&self, arguments: &str) -> Vec<Value> {
        let printed = self.ok(&format!("{arguments} --json"));
        let lines = printed.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The state of a plugin.
    #[track_caller]
    fn state(&self, plugin: &str) -> String {
        let shown = self.json(&format!("get {plugin}"));
        shown["status"]["active_state"].as_str().unwrap().to_owned()
    }
}

/// Asserts that a text has all of these parts.
#[track_caller]
fn expect(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
}

/// Runs a command for the directory `data` to its end.
fn run(scratch: &Scratch, arguments: &str) -> Output {
    let command = bare(scratch, &format!("{arguments} --data data"));
    Program::start(command).end()
}

/// What a command prints that must succeed.
#[track_caller]
fn done(scratch: &Scratch, arguments: &str) -> String {
    let output = run(scratch, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command says that must end with this status.
#[track_caller]
fn refused(scratch: &Scratch, arguments: &str, status: i32) -> String {
    let output = run(scratch, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{arguments}: {said}");
    said
}
