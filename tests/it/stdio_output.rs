//! What a plugin over stdio prints between its messages goes to the log and delays none of them.

use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use plugin_runner::{InstallationId, ReportedState};
use serde_json::json;

use crate::support::LONG;
use crate::support::host::TestHost;
use crate::support::output::Output;
use crate::support::plugin::{call, python};

/// A host whose output tap waits until the sender is dropped, and then hears what there was.
fn with_stuck_tap(test: &'static str) -> (TestHost, Sender<()>, Output) {
    let (open, gate) = bounded::<()>(0);
    let output = Output::default();
    let tap = output.tap();
    let host = TestHost::with(test, |setup| {
        setup.stay_down_after_a_crash();
        setup.configure(move |builder| {
            builder.on_output(move |plugin, name, line| {
                let _ = gate.recv();
                tap(plugin, name, line);
            })
        });
    });
    (host, open, output)
}

/// Waits until the file accounts for so many lines; gives how many of them it has and how many are
/// missing by its own account.
#[track_caller]
fn kept_and_missing(host: &TestHost, plugin: InstallationId, lines: u64) -> (u64, u64) {
    let path = host.folder().join(format!("data/{plugin}/logs/output.log"));
    let deadline = Instant::now() + LONG;
    loop {
        let text = std::fs::read_to_string(&path).unwrap();
        // Without what is being written.
        let text = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let (mut kept, mut missing) = (0, 0);
        for line in text.lines() {
            if let Ok(number) = line.parse::<u64>() {
                assert_eq!(number, kept + missing, "each hole is told where it is");
                kept += 1;
            } else if let Some(note) = line.strip_prefix("[plugin-runner] ") {
                assert!(note.contains(" missing here, "), "{note}");
                let count = note.split(' ').next().unwrap();
                missing += count.parse::<u64>().unwrap();
            }
        }
        if kept + missing == lines {
            return (kept, missing);
        }
        assert!(
            Instant::now() < deadline,
            "{kept} lines and {missing} missing are not {lines}"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_tap_that_is_stuck_delays_no_call_and_what_finds_no_room_is_counted() {
    const LINES: u64 = 50_000;
    let (host, open, output) = with_stuck_tap("stdio-stuck-tap");
    let session = host.run(python(&host, "noisy"));
    // The tap hears of the first line, and the log's thread waits for it.
    call(&session, "print", &json!({"lines": LINES})).unwrap();
    call(&session, "echo", &json!({})).unwrap();
    assert_eq!(session.reported_state(), ReportedState::Active);
    assert!(output.texts(session.id()).is_empty(), "it was stuck");
    drop(open);
    let (kept, missing) = kept_and_missing(&host, session.id(), LINES);
    assert!(missing > 0 && kept > 0, "{kept} kept, {missing} missing");
    assert_eq!(session.counters().log_lines_lost, missing);
}

#[test]
fn a_flood_of_output_beside_calls_harms_neither() {
    const LINES: u64 = 20_000;
    let host = TestHost::new("stdio-flood");
    let session = host.run(python(&host, "noisy"));
    std::thread::scope(|scope| {
        let flood = || call(&session, "print", &json!({"lines": LINES, "width": 200}));
        let flood = scope.spawn(flood);
        for number in 0..100 {
            let answer = call(&session, "echo", &json!({"number": number})).unwrap();
            assert_eq!(answer["echo"]["number"], number);
        }
        flood.join().unwrap().unwrap();
    });
    let (_, missing) = kept_and_missing(&host, session.id(), LINES);
    assert_eq!(session.counters().log_lines_lost, missing);
}
