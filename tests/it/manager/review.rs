//! What is said of a package that is whole and yet not what its author means: refused by name where it
//! could never be started, and else warned of.

use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use plugin_runner::ErrorKind;
use plugin_runner::manager::PackageSource;
use plugin_runner::package::{self, Archive, PackageLimits};
use plugin_runner::protocol::Manifest;
use plugin_runner::store::{Record, Source};
use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::{Managed, sha256};
use crate::support::{LONG, TestDir, failed};

const FIXTURE: &str = env!("CARGO_BIN_EXE_plugin-runner-fixture");

fn zip(files: &[(&str, &str, u32)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, mode) in files {
        let options = SimpleFileOptions::default().unix_permissions(*mode);
        zip.start_file(*name, options).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn manifest(more: Value) -> String {
    let mut manifest = json!({
        "id": "scripted", "author": "tests", "name": "x", "description": "x", "version": "9",
    });
    let members = manifest.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    manifest.to_string()
}

/// Packages that could never be started, each with what is said of it.
fn hopeless() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let one = |command: &str, files: &[(&str, &str, u32)]| {
        let manifest = manifest(json!({"command": command}));
        let mut all = vec![("manifest.json", &*manifest, 0o644)];
        all.extend_from_slice(files);
        zip(&all)
    };
    let python = manifest(json!({"command": "/bin/sh", "args": ["main.sh"]}));
    let main = ("main", "#!/bin/sh\n", 0o755);
    vec![
        (
            "no command",
            one("", &[main]),
            "field `command` is missing or empty",
        ),
        (
            "not there",
            one("./mian", &[main]),
            "\"./mian\" is not in the archive",
        ),
        (
            "a directory",
            one("./bin", &[("bin/main", "", 0o755)]),
            "\"./bin\" is not a file",
        ),
        (
            "unreadable",
            one("./main", &[("main", "", 0o200)]),
            "is not made so when unpacked",
        ),
        (
            "a carriage return",
            one("./main", &[("main", "#!/bin/sh\r\necho\r\n", 0o755)]),
            "carriage return, as on Windows; save it with line feeds",
        ),
        (
            "a carriage return after an option",
            one("./main", &[("main", "#!/usr/bin/env python3\r", 0o755)]),
            "carriage return",
        ),
        (
            "a byte order mark",
            one("./main", &[("main", "\u{feff}#!/bin/sh\n", 0o755)]),
            "byte order mark",
        ),
        (
            "a command line",
            one("python3 main.py", &[("main.py", "", 0o644)]),
            "put the program in `command`, \"python3\", and the rest in `args`: \"main.py\"",
        ),
        (
            "a command line of the own file",
            one("./main --fast", &[main]),
            "put the program in `command`, \"./main\", and the rest in `args`: \"--fast\"",
        ),
        (
            "a command line with a path",
            one("/usr/bin/env python3 ./main.py", &[main]),
            "put the program in `command`, \"/usr/bin/env\"",
        ),
        (
            "a directory on top",
            zip(&[
                ("my plugin/manifest.json", &python, 0o644),
                ("my plugin/main.sh", "", 0o644),
            ]),
            "cd \"my plugin\" && zip -r ../plugin.zip .",
        ),
        (
            "a directory on top, called as the command",
            zip(&[
                (
                    "main.sh/manifest.json",
                    &manifest(json!({"command": "./main.sh"})),
                    0o644,
                ),
                ("main.sh/main.sh", "", 0o755),
            ]),
            "zip from inside the directory: cd \"main.sh\"",
        ),
        (
            "a directory on top, by macOS",
            zip(&[
                ("x/manifest.json", &python, 0o644),
                ("x/main.sh", "", 0o644),
                ("__MACOSX/x/._main.sh", "", 0o644),
            ]),
            "zip from inside the directory",
        ),
    ]
}

#[test]
fn a_package_that_could_never_start_is_neither_installed_nor_an_update() {
    let managed = Managed::new("hopeless");
    for (name, bytes, words) in hopeless() {
        let Err(error) = managed.install(PackageSource::bytes(bytes)) else {
            panic!("{name} was installed");
        };
        let told = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidPackage, "{name}: {told}");
        assert!(told.contains(words), "{name}: {told}");
        managed.expect_nothing_at_all();
    }
    let id = managed.running(managed.package("1", &["alone"]));
    for (name, bytes, words) in hopeless() {
        let source = PackageSource::bytes(bytes);
        let Err(error) = managed.update_package(id, source) else {
            panic!("{name} was taken");
        };
        assert!(error.to_string().contains(words), "{name}: {error}");
        assert_eq!(managed.answering_version(id), "1");
        managed.expect_nothing_left_over();
    }
}

#[test]
fn what_is_right_in_its_own_way_is_taken_without_a_word() {
    let managed = Managed::new("right");
    let main = ("x/main", "#!/bin/sh\r\n", 0o644);
    for (name, more, files) in [
        (
            "on PATH",
            json!({"command": "sh", "args": ["main.sh"]}),
            &["main.sh"][..],
        ),
        (
            "options",
            json!({"command": "sh", "args": ["-c", "exit # no.sh", "--x=no.sh", "-"]}),
            &[],
        ),
        (
            "a script's own",
            json!({"command": "sh", "args": ["./main.sh", "out.js"]}),
            &["main.sh"],
        ),
        (
            "a URL",
            json!({"command": "sh", "args": ["https://example.org/a.js", "/no/b.js"]}),
            &[],
        ),
        (
            "for others",
            json!({"command": "sh", "$schema": "x", "x-icon": 1, "_": 2}),
            &[],
        ),
        (
            "a name with a space",
            json!({"command": "./my main"}),
            &["my main"],
        ),
    ] {
        let manifest = manifest(more);
        let mut all = vec![("manifest.json", &*manifest, 0o644)];
        all.extend(files.iter().map(|file| (*file, "#!/bin/sh\n", 0o755)));
        let installed = managed.install(PackageSource::bytes(zip(&all)));
        let installed = installed.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(installed.warnings(), [""; 0], "{name}");
    }
    // Who writes paths from the archive's root knows of the directory on top.
    let known = manifest(json!({"command": "sh", "args": ["x/main"]}));
    let known = zip(&[("x/manifest.json", &known, 0o644), main]);
    managed.install(PackageSource::bytes(known)).unwrap();
}

#[test]
fn what_may_not_be_meant_is_returned_beside_the_installation() {
    let managed = Managed::new("doubtful");
    let json = manifest(json!({
        "command": "no-such-program-anywhere", "args": ["-u", "mian.py"],
        "event_consumed": [], "homepage": "x", "version": "",
    }));
    let bytes = zip(&[("manifest.json", &json, 0o644), ("main.py", "", 0o644)]);
    let installed = managed
        .install(PackageSource::bytes(bytes.clone()))
        .unwrap();
    assert_eq!(
        installed.warnings(),
        [
            "manifest.json: there is no field `event_consumed`; did you mean `events_consumed`?",
            "manifest.json: there is no field `homepage`",
            "manifest.json: field `version` is missing or empty",
            "the command \"no-such-program-anywhere\" is not on this machine's PATH",
            "the argument \"mian.py\" looks like a file of the plugin, which is not there; paths \
             begin at the directory that the plugin runs in",
        ]
    );
    // It was told: whoever looks at it later is told how it is.
    assert_eq!(managed.get(installed.id()).unwrap().warnings(), [""; 0]);
    let id = managed.installed(managed.package("1", &[]));
    let updated = managed.update_package(id, PackageSource::bytes(bytes.clone()));
    assert_eq!(
        updated.unwrap().installation.warnings(),
        installed.warnings()
    );
    // The same once more is nothing new.
    let again = managed
        .update_package(id, PackageSource::bytes(bytes))
        .unwrap();
    assert!(again.unchanged);
    assert_eq!(again.installation.warnings(), [""; 0]);
}

#[test]
fn what_is_installed_is_not_judged_again() {
    let managed = Managed::new("installed-before");
    // It runs, and would be refused now.
    let json = manifest(json!({"command": FIXTURE, "args": ["version", "9"]}));
    let bytes = zip(&[("x/manifest.json", &json, 0o644)]);
    let error = managed
        .install(PackageSource::bytes(bytes.clone()))
        .unwrap_err();
    assert!(
        error.to_string().contains("is in the directory \"x\""),
        "{error}"
    );
    let archive = Archive::from_bytes(bytes.clone(), &PackageLimits::default()).unwrap();
    let source = Source::Stored {
        sha256: archive.sha256().to_owned(),
        size: archive.size(),
    };
    let record = Record::supervised(Manifest::parse(json.as_bytes()).unwrap(), source);
    let id = record.id;
    managed.store.put_archive(&archive).unwrap();
    managed.store.put(record).unwrap();
    managed.activate(id, LONG).unwrap();
    assert_eq!(managed.answering_version(id), "9");
    managed.deactivate(id, LONG).unwrap();
    // Nor when the same package mends what is missing.
    fs::remove_dir_all(managed.folder(id).join("releases")).unwrap();
    let mended = managed
        .update_package(id, PackageSource::bytes(bytes))
        .unwrap();
    assert!(mended.unchanged);
    managed.activate(id, LONG).unwrap();
}

#[test]
fn a_refusal_names_the_command_and_its_problem() {
    let managed = Managed::new("matched");
    let json = manifest(json!({"command": "./main"}));
    let bytes = zip(&[
        ("manifest.json", &json, 0o644),
        ("main", "#!/bin/sh\r\n", 0o755),
    ]);
    let refused = managed.install(PackageSource::bytes(bytes));
    let error = failed(ErrorKind::InvalidPackage, refused).to_string();
    assert!(
        error.starts_with("the command \"./main\" is a script"),
        "{error}"
    );
    let json = manifest(json!({"command": "./main"}));
    let bytes = zip(&[("manifest.json", &json, 0o644), ("main", "", 0o644)]);
    let installed = managed.install(PackageSource::bytes(bytes)).unwrap();
    assert_eq!(
        installed.warnings(),
        ["the command \"./main\" is not executable; it is made so when unpacked"]
    );
}

#[test]
fn a_review_before_an_installation_is_shown_in_sentences() {
    let json = manifest(json!({"command": "./main", "version": ""}));
    let script = "#!/bin/sh\r\n";
    let bytes = zip(&[("manifest.json", &json, 0o644), ("main", script, 0o644)]);
    let archive = Archive::from_bytes(bytes, &PackageLimits::default()).unwrap();
    let json = Manifest::parse(archive.manifest_bytes()).unwrap();
    let found = package::review(&archive, &json);
    let ended = "the command \"./main\" is a script whose first line ends with a carriage return, as on \
                 Windows; save it with line feeds alone (dos2unix does that)";
    let empty = "manifest.json: field `version` is missing or empty";
    let made = "the command \"./main\" is not executable; it is made so when unpacked";
    let shown = serde_json::to_value(&found).unwrap();
    assert_eq!(
        shown,
        json!({"problems": [ended], "warnings": [empty, made]})
    );

    // In a directory nothing makes it executable.
    let dir = TestDir::new("reviewed");
    fs::write(dir.path().join("main"), "").unwrap();
    let found = package::review_directory(dir.path(), &json);
    assert_eq!(found.problems.len(), 1, "{found:?}");
    let problem = found.problems[0].to_string();
    assert!(problem.contains("not executable"), "{problem}");
    assert_eq!(found.warnings, [empty]);
}

#[test]
fn a_directory_that_is_packed_is_installed_and_has_its_files() {
    let managed = Managed::new("packed");
    let dir = TestDir::new("to-pack");
    let json = manifest(json!({"command": "./main"}));
    for (path, mode) in [
        ("main", 0o700),
        ("node_modules/x/index.js", 0o600),
        (".git/HEAD", 0o644),
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let limits = PackageLimits::default();
    let packed = package::pack(dir.path(), json.as_bytes(), None, &limits).unwrap();
    let file = dir.path().join("out.zip");
    packed.write(&file, false).unwrap();
    let installed = managed.install(PackageSource::file(&file)).unwrap();
    assert_eq!(sha256(&installed), packed.archive.sha256());
    let releases = managed.folder(installed.id()).join("releases");
    let release = releases.join(packed.archive.sha256());
    for (path, mode) in [("main", 0o755), ("node_modules/x/index.js", 0o644)] {
        let found = fs::metadata(release.join(path)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, mode, "{path}");
    }
    assert!(!release.join(".git").exists());
}
