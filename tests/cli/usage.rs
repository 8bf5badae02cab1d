//! Invalid arguments: one sentence, and the exit status that the help documents.

use std::net::TcpListener;

use crate::program::{ANSWERING, Program, Scratch, manifest, text};

/// What is typed, the exit code, and what the sentence has in it.
const MISTAKES: &str = "
run nowhere | 1 | nowhere: cannot open it: No such file
run empty | 1 | empty: no manifest.json or manifest.yaml in this directory
run yml | 1 | rename its manifest.yml to manifest.yaml
run both | 1 | both: both manifest.json and manifest.yaml are in this directory
run yaml | 1 | yaml: manifest.yaml: line 2: field `name` must be a string, found a number; put it in quotes
run yaml/manifest.yaml | 1 | give the directory that it is in
run laughing | 1 | laughing: manifest.yaml: an alias (*name) is used; write out what it stands for at line 2
run torn | 1 | torn: manifest.yaml: 
run text.zip | 1 | text.zip: not a zip archive
run fine/manifest.json | 1 | give the directory that it is in
run broken | 1 | field `author` is missing or empty; field `name` is missing
run silent | 1 | the manifest names no command
run fine nowhere | 1 | nowhere: cannot open it
run --external nowhere.json | 1 | nowhere.json: cannot read it
run fine --stop-grace 3 | 2 | write 3ms, 3s or 3m
run fine --max-backoff soon | 2 | such as 500ms, 3s or 1m30s
run fine --connect-timeout 0s | 2 | longer than zero
run fine --max-backoff 25h | 2 | setting max_backoff: is longer than a day
run fine --max-restart-attempts -1 | 2 | write a whole number from 0
run fine --stop-grace -1s | 2 | such as 500ms, 3s or 1m30s
run fine --listen here | 2 | such as 127.0.0.1:8000
run fine --env =x | 2 | write NAME or NAME=VALUE
run fine --data empty/readme | 1 | empty/readme: this is not a directory
run --external fine | 1 | takes the manifest itself, such as fine/manifest.json
run --external plugin.sdx | 1 | plugin.sdx: this is an archive
run --jsn | 2 | '--jsn' found; did you mean --json?
walk | 2 | unrecognized subcommand 'walk'; see --help
valid | 2 | did you mean validate?
uninstall x | 2 | did you mean remove?
stop x | 2 | did you mean deactivate?
ps | 2 | did you mean list?
fine | 2 | write plugin-runner run fine
typo.ZIP | 2 | write plugin-runner run typo.ZIP
./typo | 2 | write plugin-runner run ./typo
validate fine/manifest.json | 1 | give the directory that it is in
validate | 2 | <PATH>
validate nowhere | 1 | nowhere: cannot open it
serve -v --log-level warn | 2 | -v and --log-level both set the level
";

#[test]
fn mistakes_are_told_in_one_sentence() {
    let scratch = Scratch::new();
    scratch.plugin("fine", &manifest("fine"), "#!/bin/sh\n");
    scratch.write("empty/readme", "");
    scratch.write("yaml/manifest.yaml", "id: x\nname: 1.10\nauthor: me\n");
    scratch.write("yml/manifest.yml", "id: x");
    scratch.write("both/manifest.yaml", "id: x");
    scratch.write("both/manifest.json", "{}");
    scratch.write("laughing/manifest.yaml", "id: &id x\nname: *id\n");
    scratch.write("torn/manifest.yaml", "id: x\nargs: [\u{1b}");
    scratch.write("text.zip", "this is no archive");
    scratch.write("broken/manifest.json", "{\"id\": \"a b\"}");
    scratch.zip("plugin.sdx", &[("manifest.json", "{}", 0o644)]);
    let mut silent = manifest("silent");
    silent["command"] = "".into();
    scratch.plugin("silent", &silent, "");
    for line in MISTAKES.trim().lines() {
        let [arguments, code, part] = line.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let output = scratch.output(arguments);
        let said = text(&output.stderr);
        let status = output.status.code().map(|status| status.to_string());
        assert_eq!(status.as_deref(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
        assert!(said.starts_with("plugin-runner: "), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
    scratch.assert_nothing_left();
}

#[test]
fn an_address_that_is_taken_is_named() {
    let scratch = Scratch::new();
    scratch.plugin("fine", &manifest("fine"), "#!/bin/sh\n");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = scratch.output(&format!("run fine --listen {address}"));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with(&format!("plugin-runner: --listen {address}: ")),
        "{said}"
    );
    assert!(said.contains("in use"), "{said}");
    scratch.assert_nothing_left();
}

#[test]
fn help_tells_the_exit_statuses_and_hides_the_sample() {
    let scratch = Scratch::new();
    for arguments in ["--help", "run --help"] {
        let output = scratch.output(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("Exit statuses:"));
        assert!(!text(&output.stdout).contains("sample-plugin"));
    }
    let output = scratch.output("");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("Usage: plugin-runner [OPTIONS] <COMMAND>"));
}

#[test]
fn verbosity_may_stand_before_and_after_the_command() {
    let scratch = Scratch::new();
    for arguments in ["-v serve --check", "serve -v --check", "serve --check -v"] {
        let output = scratch.output(arguments);
        let said = text(&output.stdout);
        let level = said.lines().find(|line| line.contains("log_level"));
        let level = level.unwrap_or_else(|| panic!("{arguments}: {said}"));
        assert!(
            level.contains("info") && level.contains("--log-level"),
            "{level}"
        );
    }
    let output = scratch.output("-vv serve --check");
    assert!(
        text(&output.stdout).contains("log_level = \"debug\""),
        "{output:?}"
    );
    scratch.plugin("fine", &manifest("fine"), ANSWERING);
    for arguments in ["-v run fine", "run -v fine", "run fine -v"] {
        let mut program = scratch.start(arguments);
        program.line_with("active");
        let said = program.stop();
        assert!(said.contains("[INFO]"), "{arguments}: {said}");
    }
}

#[test]
fn help_is_wrapped_to_the_terminal() {
    let scratch = Scratch::new();
    // Of a pipe the width is what the environment says.
    for width in [80, 120, 200] {
        for arguments in [
            "--help",
            "run --help",
            "serve --help",
            "install --help",
            "dev package --help",
        ] {
            let mut command = scratch.command(arguments);
            command.env("COLUMNS", width.to_string());
            let output = Program::start(command).end();
            let widest = text(&output.stdout)
                .lines()
                .map(|line| line.chars().count())
                .max();
            assert!(
                widest <= Some(width.min(120)),
                "{arguments} at {width}: {widest:?}"
            );
            assert!(
                widest > Some(width.min(120) - 20),
                "{arguments} at {width}: {widest:?}"
            );
        }
    }
}
