//! Every example in every `--help` runs in the prepared directory and ends with 0. Streams are interrupted after
//! their first output.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::Place;
use crate::program::{Program, text};

/// How an example begins.
const PROGRAM: &str = "plugin-runner ";

/// Every command that has no commands below it, with its help.
fn commands(place: &Place, path: &str) -> Vec<(String, String)> {
    let output = place.output(&format!("{path} --help"));
    assert_eq!(output.status.code(), Some(0), "{path}");
    let help = text(&output.stdout).to_owned();
    let below: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Lines that go on are indented further.
        .filter_map(|line| {
            line.strip_prefix("  ")
                .filter(|line| !line.starts_with(' '))
        })
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .flat_map(|name| commands(place, format!("{path} {name}").trim()))
        .collect();
    if below.is_empty() {
        vec![(path.to_owned(), help)]
    } else {
        below
    }
}

fn examples(help: &str) -> Vec<&str> {
    help.lines()
        .skip_while(|line| *line != "Examples:")
        .skip(1)
        .map_while(|line| line.strip_prefix("  "))
        .collect()
}

/// Returns whether an example goes on until it is interrupted.
fn is_stream(command: &str, example: &str) -> bool {
    let words: Vec<_> = example.split_whitespace().collect();
    let has = |flag| words.contains(&flag);
    match command {
        // Commands from a pipe end it.
        "run" => !has("--stdin"),
        "serve" => !has("--check"),
        "events" | "top" => !has("--once"),
        _ => has("--follow") || has("-f"),
    }
}

#[test]
fn every_example_of_every_help_runs() {
    let commands = commands(&Place::new(), "");
    assert!(commands.len() > 20, "{commands:#?}");
    let mut wrong = Vec::new();
    for (command, help) in &commands {
        // The same commands by another name, which is not the one in the examples.
        let command = match command.as_str() {
            "dev run" => "run",
            "dev validate" => "validate",
            other => other,
        };
        let examples = examples(help);
        if examples.is_empty() {
            wrong.push(format!("{command}: its help has no `Examples:`"));
        }
        for example in examples {
            if !example.contains(&format!("{PROGRAM}{command}")) {
                wrong.push(format!("{command}: {example} is of another command"));
                continue;
            }
            if let Err(problem) = try_out(command, example) {
                wrong.push(format!("{example}: {problem}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs an example in a directory of its own, for it may change everything there.
fn try_out(command: &str, example: &str) -> Result<(), String> {
    let place = prepare(command, example);
    let is_stream = is_stream(command, example);
    let directory = Path::new(env!("CARGO_BIN_EXE_plugin-runner"))
        .parent()
        .unwrap();
    let mut shell = Command::new("sh");
    // A stream is the shell's own process then, which a signal reaches.
    let script = if is_stream {
        format!("exec {example}")
    } else {
        example.to_owned()
    };
    let path = std::env::var("PATH").unwrap_or_default();
    shell
        .args(["-c", &script])
        .env("PATH", format!("{}:{path}", directory.display()))
        .stdin(Stdio::null());
    let like = place.command("");
    for (name, value) in like.get_envs() {
        match value {
            _ if name == "PATH" => continue,
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.current_dir(like.get_current_dir().unwrap());
    let mut program = Program::start(shell);
    let mut said = String::new();
    if is_stream {
        if command == "serve" {
            said = program.error_with("plugins connect to");
        } else {
            said = program.line().unwrap_or_default();
        }
        program.signal(Signal::INT);
    }
    let output = program.end();
    said += text(&output.stderr);
    let interrupted = is_stream && output.status.signal() == Some(Signal::INT.as_raw());
    if output.status.success() || interrupted {
        Ok(())
    } else {
        Err(format!("{}: {said}", output.status))
    }
}

/// The directory in which examples hold: `hello` is installed and active, and has settings; `chat` is installed.
fn prepare(command: &str, example: &str) -> Place {
    let mut place = Place::prepared();
    match command {
        "rollback" => {
            place.ok("update hello hello-2.zip");
        }
        // One server at a time uses a directory.
        "serve" => place.server.take().unwrap().program.stop().clear(),
        "env unset" => {
            place.ok("env set hello LEVEL=debug");
        }
        // The archive is not replaced unasked, and the external plugin is not installed twice.
        "dev package" if !example.contains("--force") => {
            fs::remove_file(place.scratch.path("hello.zip")).unwrap();
        }
        "install" if example.contains("--external") => {
            place.ok("remove chat --yes");
        }
        _ => {}
    }
    place
}
