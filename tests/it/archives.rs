//! Hostile archives, as an embedder meets them. What each of the many ways to be hostile gets is
//! tested beside the code, with archives that lie in every header.

use std::fs;
use std::io::{Cursor, Write as _};

use plugin_runner::ReportedState;
use plugin_runner::protocol::Manifest;
use plugin_runner::store::{Record, Source};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::support::PATIENCE;
use crate::support::host::TestHost;
use crate::support::plugin::manifest;

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
            "\"../../../escaped\" goes to a parent folder",
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
        let session = host.install(Record::supervised(plugin_manifest(), Source::Archive(path)));
        session.supervised().unwrap().start().unwrap();
        let change = events.expect(
            session.id(),
            &[ReportedState::Starting, ReportedState::Errored],
        );
        assert_eq!(change.details["cause"], "could_not_unpack", "{name}");
        assert_eq!(change.details["attempts"], 1, "{name}");
        let message = change.message.unwrap();
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
    let session = host.install(Record::supervised(plugin_manifest(), Source::Archive(path)));
    session.supervised().unwrap().start().unwrap();
    session
        .wait_for(ReportedState::Connecting, PATIENCE)
        .unwrap();
}
