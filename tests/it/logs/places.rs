//! Going on at a place from before: in the next host, after one that was killed, and in a plugin that was installed
//! anew.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use plugin_runner::store::Source;
use plugin_runner::{ErrorKind, Host, InstallationId, Session};

use super::*;
use crate::support::TestDir;
use crate::support::alone::{Driver, command};
use crate::support::attack::trials;

/// Prints a hundred lines in each hundredth of a second, with numbers that go on in the next run.
const TALKER: &str = r#"echo x >> "$PLUGIN_DATA_DIR/runs"
    run=$(wc -l < "$PLUGIN_DATA_DIR/runs")
    while :; do
        seq -f "run $run line %.0f" $((n + 1)) $((n + 100))
        n=$((n + 100))
        sleep 0.01
    done"#;

/// A host whose plugins' logs have files of a few lines, of which it keeps all.
fn host(data: &Path) -> Host {
    let settings = LogSettings::default().max_file_size(4_000).keep(100_000);
    Host::builder()
        .data_dir(data)
        .rpc_base_url("http://127.0.0.1:1")
        .log_settings(settings)
        .build()
        .unwrap()
}

fn talker(host: &Host, id: InstallationId, folder: &Path) -> Session {
    let mut manifest = manifest("talker");
    manifest.command = "/bin/sh".into();
    manifest.args = vec!["-c".into(), TALKER.into()];
    let mut record = Record::supervised(manifest, Source::Directory(folder.to_owned()));
    record.id = id;
    host.store().put(record).unwrap();
    host.load(id).unwrap()
}

/// All lines in the files of a log, in their order.
fn all_lines(logs: &Path) -> Vec<String> {
    let entries = fs::read_dir(logs).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    let lines = |path| BufReader::new(File::open(path).unwrap()).lines();
    files
        .into_iter()
        .flat_map(lines)
        .map(Result::unwrap)
        .collect()
}

#[test]
fn a_stream_goes_on_behind_what_a_host_that_was_killed_has_shown() {
    let folder = TestDir::new("logs-killed");
    let id = InstallationId::generate();
    let data = folder.path().join("data");
    let mut seen: Vec<(String, String)> = Vec::new();
    for trial in 0..trials("PLUGIN_RUNNER_TRIALS", 4) {
        let mut command = command("logs::places::driver::shows_the_places_of_lines");
        command
            .env("DRIVER_FOLDER", folder.path())
            .env("DRIVER_ID", id.to_string());
        let mut driver = Driver::start(&mut command);
        for _ in 0..300 + 70 * trial {
            let line = driver.wait_for("driver: ");
            let (place, line) = line.split_once(' ').unwrap();
            seen.push((place.to_owned(), line.to_owned()));
        }
        driver.kill();
        // What wrote to the log was the host alone.
        let lines = all_lines(&data.join(id.to_string()).join("logs"));
        let host = host(&data);
        let session = talker(&host, id, folder.path());
        // Of all hosts so far, and always the last one.
        for (place, line) in seen.iter().rev().step_by(1 + seen.len() / 40) {
            let behind = lines.iter().position(|other| other == line).unwrap() + 1;
            let mut follower = session.follow_log().unwrap().after(place).unwrap();
            for expected in lines.iter().skip(behind).take(200) {
                assert_eq!(next(&mut follower), *expected, "trial {trial}");
            }
        }
        assert!(host.shutdown(LONG).is_complete());
    }
}

mod driver {
    use super::*;

    #[test]
    #[ignore = "a host that is killed; run by another test, in a process of its own"]
    fn shows_the_places_of_lines() {
        let folder = std::env::var_os("DRIVER_FOLDER").unwrap();
        let id = std::env::var("DRIVER_ID").unwrap().parse().unwrap();
        let folder = Path::new(&folder);
        let host = host(&folder.join("data"));
        let session = talker(&host, id, folder);
        let mut follower = session.follow_log().unwrap().from_end().unwrap();
        session.supervised().unwrap().start().unwrap();
        loop {
            let line = next(&mut follower);
            println!("driver: {} {line}", follower.place());
        }
    }
}

#[test]
fn a_place_of_a_plugin_that_was_removed_is_a_gap_in_one_that_is_installed_anew() {
    let host = TestHost::new("logs-anew");
    let script = "seq -f 'line %.0f' 1 3; exec sleep 1000";
    let [old, new] = ["old", "new"].map(|id| {
        let session = host.start(shell(&host, id, script));
        let mut follower = session.follow_log().unwrap();
        let places: Vec<_> = (1..=3)
            .map(|number| {
                assert_eq!(next(&mut follower), format!("line {number}"));
                follower.place()
            })
            .collect();
        (session, places)
    });
    for (place, other) in old.1.iter().zip(&new.1) {
        assert_ne!(place, other);
        let mut follower = new.0.follow_log().unwrap().after(place).unwrap();
        let missing = follower.next(LONG).unwrap();
        assert_matches!(missing, Followed::Gap { bytes: None, .. });
        assert_eq!(next(&mut follower), "line 1");
    }
    let mut follower = new.0.follow_log().unwrap().after(&new.1[1]).unwrap();
    assert_eq!(next(&mut follower), "line 3");
    let error = new.0.follow_log().unwrap().after("12").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
