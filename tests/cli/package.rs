//! `dev package`: what is in the archive, what is said, and what is refused before anything is written.

use std::fs;
use std::os::unix::fs::symlink;

use plugin_runner::package::{Archive, PackageLimits};
use plugin_runner::protocol::Manifest;
use serde_json::Value;

use crate::program::{ANSWERING, Scratch, manifest, text};
use crate::support::names;

fn package(scratch: &Scratch, arguments: &str, code: i32) -> (String, String) {
    let output = scratch.output(&format!("dev package {arguments}"));
    scratch.assert_nothing_left();
    let said = text(&output.stderr).to_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
    (text(&output.stdout).to_owned(), said)
}

#[test]
fn a_directory_is_packed_and_the_archive_is_a_plugin() {
    let scratch = Scratch::new();
    let folder = scratch.plugin("fine", &manifest("fine"), ANSWERING);
    // JSON is YAML.
    fs::rename(folder.join("manifest.json"), folder.join("manifest.yaml")).unwrap();
    scratch.write("fine/notes.txt", "");
    scratch.write("fine/.pluginignore", "*.txt\n");
    symlink("main", folder.join("link")).unwrap();
    let (printed, said) = package(&scratch, "fine", 0);
    assert_eq!(said, "");
    let file = scratch.path("fine.zip");
    let archive = Archive::open(&file, &PackageLimits::default()).unwrap();
    let size = fs::metadata(&file).unwrap().len();
    let expected = format!(
        "left out: .pluginignore: it says what is left out\n\
         left out: link: a link\n\
         left out: manifest.yaml: the manifest is packed as manifest.json\n\
         left out: notes.txt: .pluginignore says so\n\
         ok: fine.zip has 2 files in {size} bytes, SHA-256 {}\n",
        archive.sha256()
    );
    assert_eq!(printed, expected);
    let json = Manifest::parse(archive.manifest_bytes()).unwrap();
    assert_eq!(serde_json::to_value(json).unwrap(), manifest("fine"));
    let output = scratch.output("validate fine.zip");
    assert!(output.status.success());

    // Nothing is replaced unasked, and the same files are the same bytes, also with the archive among them.
    let before = fs::read(&file).unwrap();
    let (_, said) = package(&scratch, "fine", 1);
    let exists =
        "plugin-runner: fine.zip exists; --force replaces it, and --output names another\n";
    assert_eq!(said, exists);
    package(&scratch, "fine --force", 0);
    assert_eq!(fs::read(&file).unwrap(), before);
    for _ in 0..2 {
        package(&scratch, "fine -o fine/own.zip --force", 0);
        assert_eq!(fs::read(folder.join("own.zip")).unwrap(), before);
    }
}

#[test]
fn what_could_not_be_installed_is_not_packed() {
    let scratch = Scratch::new();
    let folder = scratch.plugin("bad", &manifest("bad"), "");
    fs::remove_file(folder.join("main")).unwrap();
    for (arguments, part) in [
        ("bad", "bad: the command \"./main\" is not in the archive"),
        ("nowhere", "nowhere: cannot open it: No such file"),
        ("tmp", "tmp: no manifest.json or manifest.yaml"),
        (
            "bad/manifest.json",
            "bad/manifest.json: this is a file; give the plugin's directory",
        ),
    ] {
        let (printed, said) = package(&scratch, arguments, 1);
        assert_eq!(printed, "");
        assert!(
            said.starts_with("plugin-runner: ") && said.contains(part),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    scratch.plugin("fine", &manifest("fine"), ANSWERING);
    let (_, said) = package(&scratch, "fine --output none/x.zip", 1);
    assert!(said.contains("none/x.zip"), "{said}");
    assert_eq!(names(&scratch.path("")), ["bad", "fine", "tmp"]);
}

#[test]
fn for_programs_it_is_one_object() {
    let scratch = Scratch::new();
    scratch.plugin("fine", &manifest("fine"), ANSWERING);
    scratch.write("fine/.DS_Store", "");
    let output = scratch.output("dev package fine --json");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert_eq!(said.lines().count(), 1, "{said}");
    let said: Value = serde_json::from_str(said).unwrap();
    assert_eq!(said["path"], "fine.zip");
    assert_eq!(said["id"], "fine");
    assert_eq!(said["files"], 2);
    assert_eq!(said["left_out"][0]["path"], ".DS_Store");
    assert_eq!(
        said["bytes"],
        fs::metadata(scratch.path("fine.zip")).unwrap().len()
    );
}
