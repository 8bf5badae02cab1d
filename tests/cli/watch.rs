//! `run --watch`: a plugin is started again when its files have changed.

use std::fs;

use serde_json::{Value, json};

use crate::program::{ANSWERING, Program, Scratch, manifest};

/// Waits until a change of this file was noticed, and gives what came of it.
fn noticed(program: &mut Program, file: &str) -> Value {
    let command = format!("{file} has changed");
    program.object_with(&command, |object| object["command"] == command)
}

#[test]
fn a_change_of_a_file_starts_the_plugin_again_as_it_is_then() {
    let scratch = Scratch::new();
    let folder = scratch.plugin("hello", &manifest("hello"), ANSWERING);
    scratch.write("hello/.pluginignore", "*.tmp\n");
    let mut program = scratch.start("run hello --watch --json");
    let (first, _) = program.active("hello");
    // As editors save: another file takes the name.
    fs::copy(folder.join("main"), folder.join("main.new")).unwrap();
    fs::rename(folder.join("main.new"), folder.join("main")).unwrap();
    assert_eq!(noticed(&mut program, "main")["result"], "started again");
    let (second, _) = program.active("hello");
    assert_ne!(first, second);
    // A directory that is made and filled at once.
    scratch.write("hello/deep/er/file", "x");
    assert_eq!(noticed(&mut program, "file")["result"], "started again");
    program.active("hello");
    // What is not packed is no change; the next one is the manifest's.
    scratch.write("hello/noise.tmp", "x");
    let mut changed = manifest("hello");
    changed["args"] = json!(["stubborn"]);
    fs::write(folder.join("manifest.json"), changed.to_string()).unwrap();
    assert_eq!(
        noticed(&mut program, "manifest.json")["result"],
        "started again"
    );
    program.active("hello");
    program.signal(rustix::process::Signal::INT);
    let output = program.end();
    assert_eq!(output.status.code(), Some(0));
    scratch.assert_nothing_left();
}

#[test]
fn a_manifest_that_is_broken_leaves_what_runs_and_one_that_is_mended_counts() {
    let scratch = Scratch::new();
    let folder = scratch.plugin("hello", &manifest("hello"), ANSWERING);
    let mut program = scratch.start("run hello --watch --json");
    program.active("hello");
    fs::write(folder.join("manifest.json"), "{").unwrap();
    let reply = noticed(&mut program, "manifest.json");
    let error = reply["error"].as_str().unwrap();
    assert!(error.contains("not valid JSON"), "{reply}");
    fs::write(folder.join("manifest.json"), manifest("hello").to_string()).unwrap();
    assert_eq!(
        noticed(&mut program, "manifest.json")["result"],
        "started again"
    );
    program.active("hello");
    program.signal(rustix::process::Signal::INT);
    assert_eq!(program.end().status.code(), Some(0));
}

#[test]
fn a_plugin_that_was_given_up_is_started_again_once_it_is_mended() {
    let scratch = Scratch::new();
    let folder = scratch.plugin("hello", &manifest("hello"), crate::program::FAILING);
    let mut program = scratch.start("run hello --watch --json --max-restart-attempts 0");
    program.state("hello", "errored");
    let mended = folder.join("main.new");
    fs::copy(folder.join("main"), &mended).unwrap();
    fs::write(&mended, ANSWERING).unwrap();
    fs::rename(&mended, folder.join("main")).unwrap();
    noticed(&mut program, "main");
    program.active("hello");
    program.signal(rustix::process::Signal::INT);
    assert_eq!(program.end().status.code(), Some(0));
}

#[test]
fn an_archive_that_is_replaced_is_unpacked_anew() {
    let scratch = Scratch::new();
    let archive = scratch.zipped("hello.zip", &manifest("hello"), ANSWERING);
    let mut program = scratch.start("run hello.zip --watch --json");
    let (first, _) = program.active("hello");
    let changed = ANSWERING.replace("print(\"pid\"", "print(\"again\")\nprint(\"pid\"");
    let new = scratch.zipped("new.zip", &manifest("hello"), &changed);
    fs::rename(new, archive).unwrap();
    let line = program.object_with("the new program", |object| object["line"] == "again");
    assert_eq!(line["plugin"], "hello");
    let line = program.object_with("its process", |object| {
        let line = object["line"].as_str().unwrap_or_default();
        line.starts_with("pid ")
    });
    assert_ne!(line["line"], format!("pid {}", first.as_raw_nonzero()));
    program.signal(rustix::process::Signal::INT);
    assert_eq!(program.end().status.code(), Some(0));
    scratch.assert_nothing_left();
}

#[test]
fn a_plugin_that_writes_into_its_own_directory_is_told_of() {
    let scratch = Scratch::new();
    let writing = ANSWERING.replace(
        "print(\"pid\"",
        "open(\"cache.txt\", \"a\").write(\"x\")\nprint(\"pid\"",
    );
    scratch.plugin("hello", &manifest("hello"), &writing);
    let program = scratch.start("run hello --watch --json");
    let said = program.error_with(".pluginignore");
    assert!(said.contains("changes cache.txt itself"), "{said}");
    scratch.write("hello/.pluginignore", "cache.txt\n");
    program.stop();
    scratch.assert_nothing_left();
}

#[test]
fn files_that_cannot_be_listed_are_told_of_and_the_known_ones_are_watched() {
    let scratch = Scratch::new();
    let folder = scratch.plugin("hello", &manifest("hello"), ANSWERING);
    // A pipe can be in no package.
    crate::program::make_pipe(&folder.join("pipe"));
    let mut program = scratch.start("run hello --watch --json");
    program.active("hello");
    let said = program.error_with("new files are not noticed");
    assert!(said.contains("pipe"), "{said}");
    let mut changed = manifest("hello");
    changed["args"] = json!(["more"]);
    fs::write(folder.join("manifest.json"), changed.to_string()).unwrap();
    assert_eq!(
        noticed(&mut program, "manifest.json")["result"],
        "started again"
    );
    program.stop();
}
