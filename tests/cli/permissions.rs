//! Programs that may not be executed: what is said, and where archives are unpacked then. Mounts and
//! users are those of namespaces of the program's own, so nothing of them is left.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::program::{ANSWERING, Program, Scratch, apart, manifest, text};

/// Mounts a file system that executes nothing, and runs the rest of its arguments.
const NOEXEC: &str = r#"mount -t tmpfs -o noexec tmpfs "$TMPDIR" && exec "$@""#;
/// The same, with a copy of a plugin's folder there.
const NOEXEC_WITH_PLUGIN: &str =
    r#"mount -t tmpfs -o noexec tmpfs "$TMPDIR" && cp -r plugin "$TMPDIR" && exec "$@""#;

/// A plugin's archive.
fn archive(scratch: &Scratch, name: &str, command: &str) {
    let mut manifest = manifest("hello");
    manifest["command"] = command.into();
    scratch.zipped(name, &manifest, ANSWERING);
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn archives_are_unpacked_to_the_cache_when_nothing_is_executed_in_the_temporary_folder() {
    const TEST: &str =
        "archives_are_unpacked_to_the_cache_when_nothing_is_executed_in_the_temporary_folder";
    for given in [false, true] {
        let scratch = Scratch::new();
        archive(&scratch, "hello.zip", "./main");
        let rest = ["run", "hello.zip", "--json"];
        let Some(mut command) = apart(TEST, &scratch, "-rm", NOEXEC, &rest) else {
            return;
        };
        let cache = if given {
            let cache = scratch.path("given/cache");
            command.env("XDG_CACHE_HOME", &cache);
            cache
        } else {
            scratch.path("home/.cache")
        };
        let mut program = Program::start(command);
        program.active("hello");
        let made = fs::read_dir(&cache).unwrap().next().unwrap().unwrap();
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let said = program.stop();
        let expected = format!(
            "plugin-runner: nothing is executed in {}, which is mounted noexec; unpacking below {} \
             instead\n",
            scratch.temporary().display(),
            cache.display()
        );
        assert!(said.starts_with(&expected), "{said}");
        assert!(is_empty(&cache), "{cache:?}");
    }
}

#[test]
fn a_cache_that_cannot_be_written_to_is_no_reason_to_run_nothing() {
    let test = "a_cache_that_cannot_be_written_to_is_no_reason_to_run_nothing";
    let scratch = Scratch::new();
    archive(&scratch, "hello.zip", "./main");
    let script = format!(
        r#"mkdir -p "$HOME/.cache" && mount -t tmpfs -o ro tmpfs "$HOME/.cache" && {NOEXEC}"#
    );
    let rest = ["run", "hello.zip"];
    let Some(command) = apart(test, &scratch, "-rm", &script, &rest) else {
        return;
    };
    let output = Program::start(command).end();
    assert_eq!(output.status.code(), Some(1));
    let said = format!("{}{}", text(&output.stderr), text(&output.stdout));
    assert!(said.contains("its file system is mounted noexec"), "{said}");
}

#[test]
fn a_system_program_needs_no_other_folder() {
    let test = "a_system_program_needs_no_other_folder";
    let scratch = Scratch::new();
    let mut manifest = manifest("hello");
    manifest["command"] = "python3".into();
    manifest["args"] = serde_json::json!(["main"]);
    let json = manifest.to_string();
    let files = [("manifest.json", &*json, 0o644), ("main", ANSWERING, 0o644)];
    scratch.zip("hello.zip", &files);
    let rest = ["run", "hello.zip", "--json"];
    let Some(command) = apart(test, &scratch, "-rm", NOEXEC, &rest) else {
        return;
    };
    let mut program = Program::start(command);
    program.active("hello");
    let said = program.stop();
    assert!(!said.contains("noexec"), "{said}");
    assert!(!scratch.path("home").exists());
}

/// What is done to a plugin's folder.
type Change<'a> = &'a dyn Fn(&Path);

#[test]
fn why_a_program_is_not_executed_is_told_apart() {
    let test = "why_a_program_is_not_executed_is_told_apart";
    let nowhere = |_: &Path| {};
    let mode = |mode: u32| {
        move |folder: &Path| {
            fs::set_permissions(folder.join("main"), Permissions::from_mode(mode)).unwrap();
        }
    };
    let shut = |folder: &Path| {
        fs::create_dir(folder.join("shut")).unwrap();
        fs::rename(folder.join("main"), folder.join("shut/main")).unwrap();
        fs::set_permissions(folder.join("shut"), Permissions::from_mode(0o600)).unwrap();
    };
    let cases: [(&str, &str, &str, &str, Change<'_>, &str, &str); 4] = [
        (
            "-rm",
            NOEXEC_WITH_PLUGIN,
            "tmp/plugin",
            "./main",
            &nowhere,
            "noexec",
            "its file system is mounted noexec, so nothing on it is executed",
        ),
        (
            "-U",
            r#"exec "$@""#,
            "plugin",
            "./main",
            &mode(0o644),
            "not_executable",
            "not executable; chmod +x makes it so",
        ),
        (
            "-U",
            r#"exec "$@""#,
            "plugin",
            "./main",
            &mode(0o654),
            "not_for_this_user",
            "executable, but not by this user; its owner, group and mode say by whom",
        ),
        (
            "-U",
            r#"exec "$@""#,
            "plugin",
            "./shut/main",
            &shut,
            "not_searchable",
            "this user may not search a directory above it",
        ),
    ];
    for (flags, script, path, command, change, word, words) in cases {
        println!("{word}");
        let scratch = Scratch::new();
        let mut manifest = manifest("hello");
        manifest["command"] = command.into();
        change(&scratch.plugin("plugin", &manifest, ANSWERING));
        let rest = ["run", path, "--json"];
        let Some(command) = apart(test, &scratch, flags, script, &rest) else {
            return;
        };
        let mut program = Program::start(command);
        let errored = program.state("hello", "errored");
        let message = errored["message"].as_str().unwrap();
        assert!(message.ends_with(&format!("main: {words}")), "{message}");
        assert_eq!(errored["details"]["spawn_error"], word);
        assert_eq!(errored["details"]["attempts"], 1);
        assert_eq!(program.end().status.code(), Some(1));
        let shut = scratch.path("plugin/shut");
        if shut.exists() {
            fs::set_permissions(shut, Permissions::from_mode(0o700)).unwrap();
        }
    }
}
