use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::super::entry::Entry;
use super::*;
use crate::error::ErrorKind;
use crate::testing::TestDir;

const JSON: &[u8] =
    br#"{"id":"x","author":"me","name":"X","description":"d","version":"1","command":"./main"}"#;

/// A directory with a program and these files besides.
fn plugin(files: &[(&str, &str)]) -> TestDir {
    let dir = TestDir::new("pack");
    write(&dir, "main", "#!/bin/sh\n");
    fs::set_permissions(dir.path().join("main"), Permissions::from_mode(0o700)).unwrap();
    for (path, content) in files {
        write(&dir, path, content);
    }
    dir
}

fn write(dir: &TestDir, path: &str, content: &str) {
    let path = dir.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn packed(dir: &TestDir) -> Packed {
    pack(dir.path(), JSON, None, &PackageLimits::default()).unwrap()
}

fn refused(dir: &TestDir, limits: &PackageLimits) -> (ErrorKind, String) {
    let error = pack(dir.path(), JSON, None, limits).unwrap_err();
    (error.kind(), error.to_string())
}

fn paths(packed: &Packed) -> Vec<&str> {
    packed.archive.files().map(|(path, _)| path).collect()
}

fn bytes(packed: &Packed) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = packed.archive.content().reader();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_same_files_are_the_same_bytes_in_whatever_order_they_came() {
    let files: Vec<_> = (0..40).map(|n| format!("d{}/f{n}", n % 3)).collect();
    let in_order: Vec<_> = files.iter().map(|path| (&**path, "content")).collect();
    let reversed: Vec<_> = in_order.iter().rev().copied().collect();
    let (one, other) = (plugin(&in_order), plugin(&reversed));
    // What does not count: other times, and other permissions than to execute.
    let touched = other.path().join("d0/f0");
    fs::set_permissions(&touched, Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::open(&touched).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(bytes(&packed(&one)), bytes(&packed(&one)));
    assert_eq!(bytes(&packed(&one)), bytes(&packed(&other)));
    // What counts.
    fs::set_permissions(&touched, Permissions::from_mode(0o755)).unwrap();
    assert_ne!(bytes(&packed(&one)), bytes(&packed(&other)));
}

#[test]
fn the_manifest_is_first_and_files_are_sorted_with_their_modes() {
    let dir = plugin(&[
        ("b", "1"),
        ("a/z", "2"),
        ("a/b", ""),
        ("node_modules/x/y", "3"),
    ]);
    let packed = packed(&dir);
    let expected = [
        "manifest.json",
        "a/b",
        "a/z",
        "b",
        "main",
        "node_modules/x/y",
    ];
    assert_eq!(paths(&packed), expected);
    assert_eq!(packed.archive.manifest_bytes(), JSON);
    let modes = packed.archive.entries().iter().map(Entry::mode);
    assert_eq!(
        modes.collect::<Vec<_>>(),
        [0o644, 0o644, 0o644, 0o644, 0o755, 0o644]
    );
    assert_eq!((&packed.left_out, &packed.warnings), (&vec![], &vec![]));
}

#[test]
fn what_is_no_part_of_a_plugin_is_left_out_and_said() {
    let dir = plugin(&[
        (".git/config", ""),
        ("lib/.git", "gitdir: elsewhere"),
        (".next/cache", ""),
        ("lib/.DS_Store", ""),
        ("manifest.yaml", "id: x"),
        ("manifest.json", "no JSON"),
        ("lib/manifest.json", "kept"),
        (".pluginignore", "*.log\n!keep.log\n/build/\n"),
        ("a.log", ""),
        ("lib/keep.log", ""),
        ("build/out", ""),
        ("lib/build/out", ""),
        ("out.zip", "earlier"),
        ("out.zip.77.unfinished", "earlier"),
    ]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    symlink("/etc", dir.path().join("link")).unwrap();
    // A loop.
    symlink(".", dir.path().join("lib/loop")).unwrap();
    let output = dir.path().join("out.zip");
    let packed = pack(dir.path(), JSON, Some(&output), &PackageLimits::default()).unwrap();
    let expected = [
        "manifest.json",
        "lib/build/out",
        "lib/keep.log",
        "lib/manifest.json",
        "main",
    ];
    assert_eq!(paths(&packed), expected);
    assert_eq!(packed.archive.manifest_path(), "manifest.json");
    let left_out: Vec<_> = packed
        .left_out
        .iter()
        .map(|(path, why)| format!("{path}: {why}"))
        .collect();
    assert_eq!(
        left_out,
        [
            ".git: version control",
            ".next: a cache",
            ".pluginignore: it says what is left out",
            "a.log: .pluginignore says so",
            "build: .pluginignore says so",
            "empty: an empty directory",
            "lib/.DS_Store: written by macOS",
            "lib/.git: version control",
            "lib/loop: a link",
            "link: a link",
            "manifest.json: the manifest is packed as manifest.json",
            "manifest.yaml: the manifest is packed as manifest.json",
            "out.zip: the archive itself",
            "out.zip.77.unfinished: the archive itself",
        ]
    );
}

#[test]
fn what_would_not_be_installed_is_not_packed() {
    let dir = plugin(&[]);
    fs::remove_file(dir.path().join("main")).unwrap();
    let (kind, text) = refused(&dir, &PackageLimits::default());
    assert_eq!(kind, ErrorKind::InvalidPackage);
    assert_eq!(text, "the command \"./main\" is not in the archive");
    let error = pack(dir.path(), b"{}", None, &PackageLimits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidManifest);
    // Warnings are passed on.
    write(&dir, "main", "");
    let text = "the command \"./main\" is not executable; it is made so when unpacked";
    assert_eq!(packed(&dir).warnings, [text]);
}

#[test]
fn limits_name_the_largest_directories() {
    let big = "x".repeat(1_000);
    let dir = plugin(&[
        ("small/f", "y"),
        ("node_modules/a/f", &big),
        ("node_modules/a/g", &big),
        ("node_modules/b/f", "z"),
    ]);
    let default = PackageLimits::default;
    let most = "the largest directories are \"node_modules\" with 2001 bytes in 3 files, \"node_modules/a\" with 2000 \
                bytes in 2 files";
    for (limits, part) in [
        (default().total_size(1_500), "the files have"),
        (
            default().files(3),
            "the archive has 6 files, over the limit of 3",
        ),
        (default().archive_size(300), "over the limit of 300 bytes"),
    ] {
        let (kind, text) = refused(&dir, &limits);
        assert_eq!(kind, ErrorKind::PackageTooLarge, "{text}");
        assert!(text.contains(part) && text.contains(most), "{text}");
        assert!(text.contains(".pluginignore"), "{text}");
    }
    let (kind, text) = refused(&dir, &default().file_size(999));
    assert_eq!(kind, ErrorKind::PackageTooLarge);
    assert!(
        text.contains("\"node_modules/a/f\" has 1000 bytes"),
        "{text}"
    );
    // What is left out does not count.
    write(&dir, ".pluginignore", "node_modules");
    let packed = pack(
        dir.path(),
        JSON,
        None,
        &default().total_size(1_500).files(3),
    )
    .unwrap();
    assert_eq!(paths(&packed), ["manifest.json", "main", "small/f"]);
}

#[test]
fn hostile_trees_are_refused_by_name() {
    let default = PackageLimits::default();
    for (name, part) in [
        (&b"caf\xe9"[..], "not UTF-8"),
        (b"a\nb", "control character"),
        (b"a\\b", "backslash"),
        (b".complete", "reserved name"),
        (b"C:x", "drive letter"),
    ] {
        let dir = plugin(&[]);
        fs::write(dir.path().join(OsStr::from_bytes(name)), "").unwrap();
        let (kind, text) = refused(&dir, &default);
        assert_eq!(kind, ErrorKind::InvalidPackage);
        assert!(text.contains(part), "{text}");
    }
    let dir = plugin(&[("d/A", ""), ("d/a", "")]);
    assert!(refused(&dir, &default).1.contains("differ only in case"));

    let dir = plugin(&[]);
    let socket = UnixListener::bind(dir.path().join("s")).unwrap();
    assert!(refused(&dir, &default).1.contains("\"s\" is a socket"));
    drop(socket);
    // It is left out like anything else.
    write(&dir, ".pluginignore", "s");
    assert_eq!(paths(&packed(&dir)), ["manifest.json", "main"]);

    let dir = plugin(&[]);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("p"), mode).unwrap();
    assert!(refused(&dir, &default).1.contains("\"p\" is a pipe"));

    // Paths end somewhere.
    let dir = plugin(&[(&format!("{}f", "deep/".repeat(300)), "")]);
    assert!(refused(&dir, &default).1.contains("name over 1024 bytes"));
}

#[test]
fn it_is_written_whole_and_never_over_another_file_unasked() {
    let dir = plugin(&[("a", "b")]);
    let output = TestDir::new("packed");
    let file = output.path().join("x.zip");
    let packed = packed(&dir);
    packed.write(&file, false).unwrap();
    let read = Archive::open(&file, &PackageLimits::default()).unwrap();
    assert_eq!(read.sha256(), packed.archive.sha256());

    fs::write(&file, "other").unwrap();
    let error = packed.write(&file, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(fs::read(&file).unwrap(), b"other");
    packed.write(&file, true).unwrap();
    assert_eq!(fs::read(&file).unwrap(), bytes(&packed));

    let nowhere = output.path().join("none/x.zip");
    let error = packed.write(&nowhere, false).unwrap_err().to_string();
    assert!(error.contains("none/x.zip"), "{error}");
    let names = fs::read_dir(output.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["x.zip"]);
}
