//! The output of plugins: in the file, at the followers, at the tap.

use std::fs;
use std::time::Duration;

use plugin_runner::plugin_log::{CONTINUES, Followed, Follower, LogSettings, LogStream};
use plugin_runner::store::Record;
use plugin_runner::{Error, ReportedState};

use crate::support::host::TestHost;
use crate::support::plugin::{manifest, shell};
use crate::support::{LONG, assert_matches};

#[track_caller]
fn next(follower: &mut Follower) -> String {
    match follower.next(LONG).unwrap() {
        Followed::Line(line) => line,
        other => panic!("not a line: {other:?}"),
    }
}

#[test]
fn both_streams_are_in_the_file_at_the_follower_and_at_the_tap() {
    let host = TestHost::new("logs");
    // One stream at a time: the order between two pipes is not known.
    // What has no end is written before the last line that is waited for.
    let script = "echo one; echo two; printf 'no end'; echo three >&2; exec sleep 1000";
    let session = host.start(shell(&host, "talker", script));
    for (stream, text) in [
        (LogStream::Stdout, "one"),
        (LogStream::Stdout, "two"),
        (LogStream::Stderr, "three"),
    ] {
        host.output.wait_for(text, |line| {
            (line.name == "talker" && line.stream == stream && line.text == text).then_some(())
        });
    }
    let mut follower = session.follow_log().unwrap();
    let mut lines = [
        next(&mut follower),
        next(&mut follower),
        next(&mut follower),
    ];
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
    // What had no end is a line once the process has ended.
    session.supervised().unwrap().stop(LONG).unwrap();
    assert_eq!(next(&mut follower), "no end");

    let log = host.installation_folder(&session).join("logs/output.log");
    let text = fs::read_to_string(&log).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["no end", "one", "three", "two"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&log).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

#[test]
fn a_follower_hears_every_run_in_order() {
    let host = TestHost::with("logs-runs", |setup| {
        setup.policy(|policy| policy.max_restart_attempts(3));
    });
    let script = r#"
        echo x >> "$PLUGIN_DATA_DIR/runs"
        echo "run $(wc -l < "$PLUGIN_DATA_DIR/runs")"
        echo bye
        exit 1"#;
    let session = host.start(shell(&host, "repeater", script));
    let mut events = host.events();
    let mut follower = session.follow_log().unwrap();
    events.until(session.id(), ReportedState::Errored);
    for run in 1..=4 {
        assert_eq!(next(&mut follower).trim(), format!("run {run}"));
        assert_eq!(next(&mut follower), "bye");
    }
    let details = session.error_details();
    assert_eq!(details["output"], serde_json::json!(["run 4", "bye"]));
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
fn no_line_of_a_flood_is_lost() {
    let host = TestHost::new("logs-flood");
    let session = host.install(shell(
        &host,
        "flooder",
        "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; exec sleep 1000",
    ));
    session.supervised().unwrap().start().unwrap();
    let mut follower = session.follow_log().unwrap();
    for number in 0..20_000 {
        assert_eq!(next(&mut follower), number.to_string());
    }
}

#[test]
fn bytes_that_are_no_text_and_lines_without_end_are_kept_and_cut_with_a_mark() {
    let host = TestHost::new("logs-bytes");
    let script = r"
        printf 'a\000b\377c\n'
        head -c 200000 /dev/zero | tr '\000' x
        printf '\nend\n'
        exec sleep 1000";
    let session = host.start(shell(&host, "noisy", script));
    host.output
        .wait_for("end", |line| (line.text == "end").then_some(()));
    let path = host.installation_folder(&session).join("logs/output.log");
    let bytes = fs::read(path).unwrap();
    let mut lines = bytes.split(|byte| *byte == b'\n');
    assert_eq!(lines.next(), Some(&b"a\0b\xffc"[..]));
    let (mut whole, mut pieces) = (0, 0);
    for line in lines.by_ref() {
        pieces += 1;
        assert!(line.len() <= 64 * 1024, "a piece of {} bytes", line.len());
        let piece = line.strip_suffix(CONTINUES.as_bytes());
        whole += piece.unwrap_or(line).len();
        if piece.is_none() {
            break;
        }
    }
    assert_eq!((whole, pieces), (200_000, 4));
    assert_eq!(lines.next(), Some(&b"end"[..]));
    // The tap and the tail get the same as text.
    let texts = host.output.texts(session.id());
    assert_eq!(texts[0], "a\0b\u{fffd}c");
    assert_eq!(texts.len(), 6);
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
