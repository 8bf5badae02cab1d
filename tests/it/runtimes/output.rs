//! What plugins print: in the file, at the followers, at the tap, in the details of their end.

use std::fs;

use plugin_runner::ReportedState;
use plugin_runner::plugin_log::{CONTINUES, LogStream};
use serde_json::json;

use super::place::{Place, packed};
use crate::logs::next;
use crate::support::LONG;
use crate::support::events::Details as _;
use crate::support::host::Setup;
use crate::support::plugin::{TRANSPORTS, call, python, shell};

pub(super) fn both_streams_are_in_the_file_at_the_follower_and_at_the_tap(place: &Place) {
    let host = place.host();
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

pub(super) fn a_follower_hears_every_run_in_order(place: &Place) {
    let host = place.host_with(|setup| {
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

pub(super) fn no_line_of_a_flood_is_lost(place: &Place) {
    let host = place.host();
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

pub(super) fn bytes_that_are_no_text_and_lines_without_end_are_kept_and_cut_with_a_mark(
    place: &Place,
) {
    let host = place.host();
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

pub(super) fn a_plugin_that_floods_its_output_still_answers_and_stops(place: &Place) {
    for transport in TRANSPORTS {
        let host = place.host_with(|setup| {
            setup.configure(|builder| {
                let settings = plugin_runner::plugin_log::LogSettings::default();
                builder.log_settings(settings.max_file_size(256 * 1024).keep(1))
            });
        });
        let session = host.run(packed(&host, transport, &["flood-output"]));
        for _ in 0..20 {
            call(&session, "echo", &json!({})).unwrap();
        }
        host.output.wait_for("of the flood", |line| {
            line.text.starts_with("flood 5000 ").then_some(())
        });
        session.supervised().unwrap().stop(LONG).unwrap();
        let logs = host.installation_folder(&session).join("logs");
        let bytes: u64 = fs::read_dir(logs)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes <= 3 * 256 * 1024, "{bytes} bytes of logs");
    }
}

pub(super) fn the_last_words_of_a_plugin_are_in_its_error_details(place: &Place) {
    let host = place.host_with(Setup::stay_down_after_a_crash);
    for _ in 0..10 {
        let session = host.run(python(&host, "dying"));
        let mut events = host.events();
        call(&session, "print", &json!({"lines": 1000})).unwrap();
        let _ = call(&session, "exit", &json!({"code": 3}));
        let change = events.until(session.id(), ReportedState::Restarting);
        let words: Vec<String> = (980..1000).map(|number| number.to_string()).collect();
        assert_eq!(change.details()["output"], json!(words), "{change:?}");
        host.unload(session.id()).unwrap();
    }
}

pub(super) fn what_is_no_json_rpc_on_stdout_is_logged_and_harms_nothing(place: &Place) {
    let host = place.host();
    let session = host.run(python(&host, "python"));
    call(&session, "noise", &json!({})).unwrap();
    let find = |stream, text: &'static str| {
        host.output.wait_for(text, |line| {
            (line.stream == stream && line.text == text).then_some(())
        });
    };
    find(LogStream::Stdout, "this is no JSON");
    find(LogStream::Stdout, r#"{"neither": "is this JSON-RPC"}"#);
    find(LogStream::Stderr, "nor this");
    call(&session, "echo", &json!({})).unwrap();
    let log = host.installation_folder(&session).join("logs/output.log");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("this is no JSON\n"), "{log}");
    // Messages are no output.
    assert!(!log.contains("pong"), "{log}");
}
