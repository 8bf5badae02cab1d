//! The embedding example, run as somebody would who tries it: what it was given once is there when it
//! runs again.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::support::TestDir;

/// The example's program, which every `cargo test` builds that is not told to build less.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.ancestors().nth(2).unwrap().join("examples/embed");
    assert!(
        program.is_file(),
        "{} is not built; `cargo build --example embed` does",
        program.display()
    );
    program
}

#[track_caller]
fn run(arguments: &[&Path]) -> String {
    let output = Command::new(program()).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{errors}", output.status);
    text
}

#[test]
fn what_the_example_was_given_is_there_when_it_runs_again() {
    let folder = TestDir::new("example");
    let (data, package) = (folder.path().join("data"), folder.path().join("plugin.zip"));
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("manifest.json", SimpleFileOptions::default())
        .unwrap();
    let manifest = json!({
        "id": "kept", "author": "test", "name": "Kept", "args": ["behave"],
        "command": env!("CARGO_BIN_EXE_plugin-runner-fixture"),
    });
    zip.write_all(manifest.to_string().as_bytes()).unwrap();
    fs::write(&package, zip.finish().unwrap().into_inner()).unwrap();

    let said = "Kept is active\nand says Some(\"healthy\")\neverything has ended: true\n";
    assert_eq!(
        run(&[&data, &package]),
        format!("up again: 0, failed: 0\n{said}")
    );
    // The package itself is not needed any more.
    fs::remove_file(&package).unwrap();
    for _ in 0..2 {
        assert_eq!(run(&[&data]), format!("up again: 1, failed: 0\n{said}"));
    }
}
