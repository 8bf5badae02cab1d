//! What a plugin finds where it is started: its files, its data, its environment.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use plugin_runner::ReportedState;
use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::store::{Record, Source};

use super::place::Place;
use crate::environment::{PRINT_ENVIRONMENT, environment, printed};
use crate::support::plugin::{manifest, package, shell};
use crate::support::{LONG, assert_matches};

pub(super) fn a_stdio_plugin_is_told_so_and_gets_no_url(place: &Place) {
    let host = place.host();
    let mut record = shell(&host, "stdio", PRINT_ENVIRONMENT);
    record.manifest.transport = Transport::Stdio;
    let found = environment(&host, record);
    assert_eq!(found["PLUGIN_RUNNER_TRANSPORT"], "stdio");
    assert!(!found.contains_key("STORYDEN_RPC_URL"));
}

pub(super) fn an_archive_runs_in_its_release_folder_and_keeps_its_data_apart(place: &Place) {
    let host = place.host();
    let manifest = Manifest {
        command: "./bin/tool".to_owned(),
        args: vec!["an argument".to_owned()],
        ..manifest("packed")
    };
    let script = br#"#!/bin/sh
pwd
cat asset.txt
echo "$1"
echo start >> "$PLUGIN_DATA_DIR/starts"
wc -l < "$PLUGIN_DATA_DIR/starts"
echo done
exec sleep 1000
"#;
    // As archives from Python have it: not executable.
    let files: [(&str, &[u8], u32); 2] = [
        ("bin/tool", script, 0o600),
        ("asset.txt", b"asset\n", 0o644),
    ];
    let archive = package(host.folder(), "packed.zip", &manifest, &files);
    let record = Record::supervised(manifest, Source::Archive(archive));
    let (session, lines) = printed(&host, record);

    let releases: Vec<_> = fs::read_dir(place.releases(&host, session.id()))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let release = assert_matches!(releases.as_slice(), [release] => release);
    assert_eq!(
        release.file_name().unwrap().len(),
        64,
        "{}",
        release.display()
    );
    assert_eq!(lines[0], release.display().to_string());
    assert_eq!(lines[1..], ["asset", "an argument", "1"].map(String::from));
    assert!(release.join(".complete").is_file());
    assert!(release.join("manifest.json").is_file());
    let mode = fs::metadata(release.join("bin/tool"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o111, 0o100, "{mode:o}");

    // The release is kept, and so is the data.
    let unpacked_at = fs::metadata(release.join("asset.txt"))
        .unwrap()
        .modified()
        .unwrap();
    session.supervised().unwrap().stop(LONG).unwrap();
    session.supervised().unwrap().start().unwrap();
    host.output.wait_for_nth("'done' again", 1, |line| {
        (line.text == "done").then_some(())
    });
    let lines = host.output.texts(session.id());
    assert_eq!(lines[lines.len() - 2], "2", "{lines:?}");
    let modified = fs::metadata(release.join("asset.txt"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(modified, unpacked_at);
    assert_eq!(session.reported_state(), ReportedState::Connecting);
}
