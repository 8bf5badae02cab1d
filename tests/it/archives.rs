//! Hostile archives, as an embedder meets them. What each of the many ways to be hostile gets is
//! tested beside the code, with archives that lie in every header.

use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use plugin_runner::ErrorKind;
use plugin_runner::ReportedState::{Connecting, Errored, Starting};
use plugin_runner::fuzzing::migrate_files;
use plugin_runner::package::{Archive, PackageLimits, unpack};
use plugin_runner::protocol::Manifest;
use plugin_runner::store::{Record, Source};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::support::alone::run_under;
use crate::support::events::Details as _;
use crate::support::host::TestHost;
use crate::support::plugin::manifest;
use crate::support::{LONG, TestDir};

type Writer = ZipWriter<Cursor<Vec<u8>>>;

fn plugin_manifest() -> Manifest {
    Manifest {
        command: "./tool".to_owned(),
        ..manifest("hostile")
    }
}

/// An archive of a manifest and what `add` adds.
fn archive(add: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let manifest = serde_json::to_vec(&plugin_manifest()).unwrap();
    file("manifest.json", &manifest)(&mut writer);
    add(&mut writer);
    writer.finish().unwrap().into_inner()
}

fn file(name: &str, content: &[u8]) -> impl FnOnce(&mut Writer) {
    move |writer| {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        writer.start_file(name, options).unwrap();
        writer.write_all(content).unwrap();
    }
}

/// The same bytes, with each occurrence of some of them replaced by as many others.
fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = (0..bytes.len())
        .filter(|place| bytes[*place..].starts_with(from))
        .collect();
    assert!(!places.is_empty(), "there is no {from:x?}");
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to);
    }
    bytes
}

#[test]
fn hostile_archives_are_errored_at_once_and_leave_nothing() {
    let zeros = |writer: &mut Writer| {
        let options = SimpleFileOptions::default();
        writer.start_file("bomb", options).unwrap();
        writer.write_all(&vec![0; 5_000_000]).unwrap();
    };
    let link = |writer: &mut Writer| {
        let options = SimpleFileOptions::default();
        writer.add_symlink("link", "/etc/passwd", options).unwrap();
    };
    let small = 1_000_u32.to_le_bytes();
    let large = 5_000_000_u32.to_le_bytes();
    let good = archive(file("tool", b"#!/bin/sh\n"));
    let rows: [(&str, Vec<u8>, &str); 12] = [
        (
            "goes up",
            archive(file("../../../escaped", b"")),
            "\"../../../escaped\" goes to a parent directory",
        ),
        (
            "absolute",
            replaced(archive(file("xtmp/escaped", b"")), b"xtmp", b"/tmp"),
            "\"/tmp/escaped\" is an absolute path",
        ),
        ("link", archive(link), "\"link\" is a link"),
        (
            "encrypted",
            replaced(
                replaced(
                    good.clone(),
                    b"PK\x03\x04\x0a\0\0\0",
                    b"PK\x03\x04\x0a\0\x01\0",
                ),
                b"\x0a\0\0\0",
                b"\x0a\0\x01\0",
            ),
            "is encrypted",
        ),
        (
            "twice",
            replaced(
                archive(|writer| {
                    file("one1", b"")(writer);
                    file("one2", b"")(writer);
                }),
                b"one2",
                b"one1",
            ),
            "\"one1\" is there twice",
        ),
        (
            "case",
            archive(|writer| {
                file("Tool", b"")(writer);
                file("tool", b"")(writer);
            }),
            "\"tool\" and \"Tool\" differ only in case",
        ),
        // These two only unpacking can find out.
        (
            "lying size",
            replaced(archive(zeros), &large, &small),
            "\"bomb\" cannot be unpacked",
        ),
        (
            "damaged",
            replaced(
                archive(file("tool", b"as it was")),
                b"as it was",
                b"as it is!",
            ),
            "\"tool\" cannot be unpacked",
        ),
        ("cut off", good[..good.len() - 30].to_vec(), "cut off"),
        (
            "garbage after it",
            [&good[..], b"garbage"].concat(),
            "something comes after its end",
        ),
        (
            "no entries",
            ZipWriter::new(Cursor::new(Vec::new()))
                .finish()
                .unwrap()
                .into_inner(),
            "the archive is empty",
        ),
        (
            "no manifest",
            replaced(good.clone(), b"manifest.json", b"manifest.jsno"),
            "no manifest.json",
        ),
    ];

    let host = TestHost::new("hostile-archives");
    let mut events = host.events();
    for (name, bytes, words) in rows {
        let path = host.folder().join(format!("{name}.zip"));
        fs::write(&path, bytes).unwrap();
        let session = host.start(Record::supervised(plugin_manifest(), Source::Archive(path)));
        let change = events.expect(session.id(), &[Starting, Errored]);
        assert_eq!(change.details()["cause"], "could_not_unpack", "{name}");
        assert_eq!(change.details()["attempts"], 1, "{name}");
        let message = change.message().unwrap();
        assert!(
            message.starts_with("could not unpack: "),
            "{name}: {message}"
        );
        assert!(message.contains(words), "{name}: {message}");
        let folder = host.installation_folder(&session);
        for folder in ["staging", "releases"] {
            let left = fs::read_dir(host.installation_folder(&session).join(folder));
            assert_eq!(left.into_iter().flatten().count(), 0, "{name}: {folder}");
        }
        assert!(!host.folder().join("escaped").exists(), "{name}");
        assert!(!folder.join("escaped").exists(), "{name}");
        host.unload(session.id()).unwrap();
    }
    // And the same host runs the good one.
    let path = host.folder().join("good.zip");
    let script = b"#!/bin/sh\nexec sleep 1000\n";
    fs::write(&path, archive(file("tool", script))).unwrap();
    let session = host.start(Record::supervised(plugin_manifest(), Source::Archive(path)));
    session.wait_for(Connecting, LONG).unwrap();
}

/// Says the umask to the test that runs with it.
const UMASK: &str = "TEST_UMASK";

#[test]
fn unpacked_files_have_the_archives_permissions_less_the_umask() {
    for umask in ["000", "002", "022", "077"] {
        let script = format!("umask {umask}; exec \"$@\"");
        run_under(
            Command::new("sh")
                .args(["-c", &script, "sh"])
                .env(UMASK, umask),
            "archives::alone::permissions_are_the_archives_less_the_umask",
        );
    }
}

#[test]
fn own_files_deep_down_take_little_memory() {
    // A quarter of what all their paths take.
    let script = "ulimit -v 250000; exec \"$@\"";
    run_under(
        Command::new("sh").args(["-c", script, "sh"]),
        "archives::alone::links_deep_down_are_counted_and_refused",
    );
}

/// Run by others, in processes of their own.
mod alone {
    use super::*;

    fn unpacked(folder: &TestDir, bytes: Vec<u8>) -> std::path::PathBuf {
        let limits = PackageLimits::default();
        let archive = Archive::from_bytes(bytes, &limits).unwrap();
        unpack(&archive, folder.path(), "./tool", &limits, &|| false).unwrap()
    }

    #[test]
    #[ignore = "with an umask; run by another test, in a process of its own"]
    fn permissions_are_the_archives_less_the_umask() {
        let umask = u32::from_str_radix(&std::env::var(UMASK).unwrap(), 8).unwrap();
        let modes = [
            ("in/all", 0o777, 0o755),
            ("in/shared", 0o666, 0o644),
            ("in/group", 0o660, 0o640),
            ("in/setuid", 0o4755, 0o755),
            ("tool", 0o666, 0o755),
        ];
        let bytes = archive(|writer| {
            for (name, mode, _) in modes {
                let options = SimpleFileOptions::default().unix_permissions(mode);
                writer.start_file(name, options).unwrap();
            }
        });
        let folder = TestDir::new("umask");
        let release = unpacked(&folder, bytes);
        let all = [
            ("in", 0, 0o755),
            ("", 0, 0o755),
            ("..", 0, 0o755),
            ("../../staging", 0, 0o755),
            (".complete", 0, 0o644),
        ];
        for (name, _, most) in modes.into_iter().chain(all) {
            let found = fs::metadata(release.join(name)).unwrap().permissions();
            let found = found.mode() & 0o7777;
            assert_eq!(found, most & !umask, "{name}: {found:o}");
        }
    }

    #[test]
    #[ignore = "with little memory; run by another test, in a process of its own"]
    fn links_deep_down_are_counted_and_refused() {
        use rustix::fs::{Mode, OFlags, mkdirat, openat, symlinkat};
        const FOLDERS: usize = 250;
        const LINKS: usize = 15_000;
        let folder = TestDir::new("deep");
        let old = unpacked(&folder, archive(file("tool", b"old")));
        let new = unpacked(&folder, archive(file("tool", b"new")));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut here = rustix::fs::open(&old, flags, Mode::empty()).unwrap();
        let name = "n".repeat(250);
        for _ in 0..FOLDERS {
            mkdirat(&here, &*name, Mode::RWXU).unwrap();
            here = openat(&here, &*name, flags, Mode::empty()).unwrap();
        }
        for number in 0..LINKS {
            symlinkat(c"x", &here, format!("{number}")).unwrap();
        }
        let error = migrate_files(&old, &new, 2 * LINKS, &|| false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MigrationTooLarge);
        assert!(error.to_string().contains(old.to_str().unwrap()), "{error}");
        let shallow = unpacked(&folder, archive(file("tool", b"shallow")));
        for number in 0..10_001 {
            fs::write(shallow.join(format!("own{number}")), "").unwrap();
        }
        let error = migrate_files(&shallow, &new, 10_000, &|| false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MigrationTooLarge);
        assert!(error.to_string().contains("at least 10001"), "{error}");
    }
}
