//! The output of plugins: in the file, at the followers, at the tap.

use std::fs;
use std::time::Duration;

use plugin_runner::Error;
use plugin_runner::plugin_log::{Followed, Follower, LogSettings};
use plugin_runner::store::Record;

use crate::support::host::TestHost;
use crate::support::plugin::{manifest, shell};
use crate::support::{LONG, assert_matches};

// Where they go on after a restart.
mod places;

#[track_caller]
pub(super) fn next(follower: &mut Follower) -> String {
    match follower.next(LONG).unwrap() {
        Followed::Line(line) => line,
        other => panic!("not a line: {other:?}"),
    }
}

#[test]
fn a_follower_goes_on_through_unload_load_and_rotation() {
    const LINES: u32 = 200;
    let settings = LogSettings::default().max_file_size(300).keep(1000);
    let host = TestHost::with("logs-unload", |setup| {
        setup.configure(|builder| builder.log_settings(settings));
    });
    let script = format!(
        r#"echo x >> "$PLUGIN_DATA_DIR/runs"
        seq -f "run $(($(wc -l < "$PLUGIN_DATA_DIR/runs"))) line %g" 1 {LINES}
        exec sleep 1000"#
    );
    let mut session = host.install(shell(&host, "unloaded", &script));
    let id = session.id();
    let mut follower = session.follow_log().unwrap();
    // Reads run by run, and has read nothing of the second when that is over.
    let mut read_later = session.follow_log().unwrap();
    let last = |run| format!("run {run} line {LINES}");
    for run in 1..=3 {
        session.supervised().unwrap().start().unwrap();
        let wanted = last(run);
        host.output
            .wait_for(&wanted, |line| (line.text == wanted).then_some(()));
        for line in 1..=LINES {
            assert_eq!(next(&mut follower), format!("run {run} line {line}"));
        }
        let nothing = follower.next(Duration::ZERO);
        assert!(nothing.is_err_and(|error| error.is_timeout()));
        host.unload(id).unwrap();
        session = host.load(id).unwrap();
    }
    for run in 1..=3 {
        for line in 1..=LINES {
            assert_eq!(next(&mut read_later), format!("run {run} line {line}"));
        }
    }
    let logs = host.installation_folder(&session).join("logs");
    assert!(fs::read_dir(logs).unwrap().count() > 10);
}

#[test]
fn who_follows_more_slowly_than_is_kept_is_told_how_much_is_missing() {
    let host = TestHost::with("logs-slow", |setup| {
        setup.configure(|builder| {
            let settings = LogSettings::default().max_file_size(10_000).keep(2);
            builder.log_settings(settings)
        });
    });
    // Lines of ten bytes with their ends.
    let script =
        r"echo 000000000; read -r go; seq -f %09g 1 50000; echo 999999999; exec sleep 1000";
    let fifo = host.folder().join("go");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let script = format!("exec 0<>{}; {script}", fifo.display());
    let session = host.start(shell(&host, "fast", &script));
    let mut follower = session.follow_log().unwrap();
    assert_eq!(next(&mut follower), "000000000");
    fs::write(&fifo, "go\n").unwrap();
    host.output
        .wait_for("the last", |line| (line.text == "999999999").then_some(()));
    // It holds the file it was at, and then there is a hole of just as many bytes as are missing.
    let mut expected = 1;
    let missing = loop {
        match follower.next(LONG).unwrap() {
            Followed::Line(line) => {
                assert_eq!(line, format!("{expected:09}"));
                expected += 1;
            }
            Followed::Gap { bytes, .. } => break bytes,
            other => panic!("{other:?}"),
        }
    };
    let after: u64 = next(&mut follower).parse().unwrap();
    assert_eq!(missing, Some((after - expected) * 10));
    for number in after + 1..=50_000 {
        assert_eq!(next(&mut follower), format!("{number:09}"));
    }
    assert_eq!(next(&mut follower), "999999999");
}

#[test]
fn an_external_plugin_has_no_log() {
    let host = TestHost::new("logs-external");
    let session = host.install(Record::external(manifest("outside")).unwrap());
    let error = session.follow_log().unwrap_err();
    assert_matches!(error, Error::Unsupported(_));
}

#[test]
fn a_follower_does_not_keep_the_tap_of_a_host_that_is_gone() {
    let (tapped, lines) = crossbeam_channel::unbounded::<()>();
    let mut host = TestHost::with("logs-tap", |setup| {
        setup.configure(|builder| {
            builder.on_output(move |_, _, _| {
                let _ = tapped.send(());
            })
        });
    });
    let session = host.install(shell(&host, "quiet", "exec sleep 1000"));
    let mut follower = session.follow_log().unwrap();
    drop(session);
    drop(host.take());
    let tap = lines.recv_timeout(LONG);
    assert_eq!(tap, Err(crossbeam_channel::RecvTimeoutError::Disconnected));
    let nothing = follower.next(Duration::ZERO);
    assert!(nothing.is_err_and(|error| error.is_timeout()));
}
