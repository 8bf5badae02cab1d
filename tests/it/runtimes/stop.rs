//! Stopping works in every state, and gives way to whoever asks last.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use plugin_runner::ReportedState::{
    Active, Connecting, Errored, Inactive, Restarting, Starting, Stopping,
};
use plugin_runner::protocol::Manifest;
use plugin_runner::report::{ExitReason, StopReport};
use plugin_runner::store::{Record, Source};
use plugin_runner::{ActiveState, Error, Session};
use serde_json::json;

use super::place::Place;
use crate::support::events::Details as _;
use crate::support::host::{STOP_GRACE, Setup, TestHost, active, supervised};
use crate::support::peer::Peer;
use crate::support::plugin::{
    call, command, manifest, over_stdio, package, printed_url, python, shell, target, url_printer,
};
use crate::support::{LONG, assert_matches, refusing_state};

const INTERRUPT: i32 = 2;
const KILL: i32 = 9;

/// Stops it; nothing of it must be left to see.
#[track_caller]
pub(crate) fn stop(session: &Session) -> StopReport {
    let report = supervised(session).stop(LONG).unwrap();
    assert_eq!(session.reported_state(), Inactive);
    assert_eq!(session.error_message(), None);
    report
}

pub(super) fn stopping_what_is_not_running_is_fine(place: &Place) {
    let host = place.host();
    let session = host.install(url_printer(&host, "idle"));
    for _ in 0..2 {
        let report = stop(&session);
        assert_eq!(report.exit, None);
        assert!(!report.killed);
    }
    supervised(&session).start().unwrap();
    printed_url(&host, &session, 0);
    assert_eq!(stop(&session).exit, Some(ExitReason::Signal(INTERRUPT)));
    assert_eq!(stop(&session).exit, None);
    session.set_active_state(ActiveState::Inactive).unwrap();
}

pub(super) fn a_stop_while_connecting_ends_the_process(place: &Place) {
    let host = place.host();
    let session = host.start(url_printer(&host, "slow"));
    printed_url(&host, &session, 0);
    let mut events = host.events();
    let report = stop(&session);
    assert_eq!(report.exit, Some(ExitReason::Signal(INTERRUPT)));
    assert!(!report.killed, "{report:?}");
    events.expect(session.id(), &[Stopping, Inactive]);
    let error = session.wait_for(Active, LONG).unwrap_err();
    assert_eq!(error.to_string(), "the plugin is inactive");
}

pub(super) fn a_stop_while_active_ends_calls_in_flight(place: &Place) {
    let host = place.host();
    let session = host.start(url_printer(&host, "busy"));
    let mut peer = Peer::connect(host.address(), &target(&printed_url(&host, &session, 0)));
    active(&session);
    let waiting = session.start_call_raw("echo", &json!({}), LONG).unwrap();
    peer.receive();
    stop(&session);
    let error = waiting.wait().unwrap_err();
    assert!(error.is_disconnected(), "{error}");
    assert_eq!(peer.read_to_close(), None);
    let error = session.call_raw("echo", &json!({}), LONG).unwrap_err();
    assert_eq!(refusing_state(&error), Inactive);
}

pub(super) fn a_stop_while_unpacking_leaves_nothing_behind(place: &Place) {
    let host = place.host();
    let manifest = Manifest {
        command: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), "exec sleep 1000".to_owned()],
        ..manifest("large")
    };
    let names: Vec<String> = (0..300).map(|number| format!("folder/{number}")).collect();
    let mut files: Vec<(&str, &[u8], u32)> = names
        .iter()
        .map(|name| (name.as_str(), [7; 4096].as_slice(), 0o644))
        .collect();
    // And one that takes a while by itself.
    let large = vec![7; 4 * 1024 * 1024];
    files.push(("large", &large, 0o644));
    let archive = package(host.folder(), "large.zip", &manifest, &files);
    let mut events = host.events();
    let session = host.start(Record::supervised(manifest, Source::Archive(archive)));
    events.expect(session.id(), &[Starting]);
    // Unpacking that many files takes longer than coming here, on any disk that is known; where it
    // does not, this is one more stop of a process.
    let report = stop(&session);
    let limit = STOP_GRACE + Duration::from_millis(250);
    assert!(report.took <= limit, "{report:?}");
    events.until(session.id(), Inactive);
    // It unpacks from the beginning and runs; that no staging folder is left is asserted at the end.
    supervised(&session).start().unwrap();
    session.wait_for(Connecting, LONG).unwrap();
}

pub(super) fn a_stop_while_backing_off_ends_the_waiting(place: &Place) {
    let host = place.host_with(Setup::stay_down_after_a_crash);
    let session = host.run(python(&host, "crasher"));
    let mut events = host.events();
    let error = call(&session, "exit", &json!({"code": 3})).unwrap_err();
    assert!(error.is_disconnected(), "{error}");
    let change = events.until(session.id(), Restarting);
    assert_eq!(change.message(), Some("exit status 3"));
    assert_eq!(change.details()["restarting_after_seconds"], 3600.0);
    let report = stop(&session);
    assert_eq!(report.exit, None);
    // By way of stopping, if what the run left is still being looked for.
    events.until(session.id(), Inactive);
}

pub(super) fn a_start_while_backing_off_does_not_wait(place: &Place) {
    let host = place.host_with(Setup::stay_down_after_a_crash);
    let session = host.run(python(&host, "crasher"));
    let mut events = host.events();
    call(&session, "exit", &json!({"code": 3})).unwrap_err();
    events.until(session.id(), Restarting);
    supervised(&session).start().unwrap();
    events.expect(session.id(), &[Starting, Connecting, Active]);
}

pub(super) fn a_stop_of_what_has_errored_clears_the_error(place: &Place) {
    let host = place.host_with(|setup| {
        setup.policy(|policy| policy.max_restart_attempts(0));
    });
    let session = host.start(shell(&host, "crasher", "exit 1"));
    let mut events = host.events();
    events.until(session.id(), Errored);
    assert_eq!(session.error_message().as_deref(), Some("exit status 1"));
    assert_eq!(stop(&session).exit, None);
    assert!(session.error_details().is_empty());
}

/// Starts a plugin that ignores these signals.
#[track_caller]
pub(crate) fn ignoring(host: &TestHost, signals: &str) -> Session {
    let script = format!(r#"trap "" {signals}; echo "url -"; exec sleep 1000"#);
    let session = host.start(shell(host, "deaf", &script));
    printed_url(host, &session, 0);
    session
}

pub(super) fn a_plugin_that_ignores_every_request_is_killed(place: &Place) {
    let grace = Duration::from_millis(600);
    let host = place.host_with(|setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(grace));
    });
    let report = stop(&ignoring(&host, "INT TERM"));
    assert_eq!(report.exit, Some(ExitReason::Signal(KILL)));
    assert!(report.killed, "{report:?}");
    assert!(report.took >= grace, "{report:?}");
    assert!(report.took < LONG, "{report:?}");
}

pub(super) fn a_frozen_plugin_is_killed(place: &Place) {
    let host = place.host_with(|setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(Duration::from_millis(200)));
    });
    let session = host.run(python(&host, "frozen"));
    let lifeline = host.lifelines.next();
    let waiting = session.start_call_raw("freeze", &json!({}), LONG).unwrap();
    let report = stop(&session);
    lifeline.expect_end();
    // Frozen in time or not, the call has failed and the process is gone.
    assert!(waiting.wait().unwrap_err().is_disconnected());
    assert!(report.exit.is_some(), "{report:?}");
}

pub(super) fn a_short_stop_timeout_shortens_the_grace(place: &Place) {
    let host = place.host_with(|setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(LONG * 9 / 10));
    });
    for timeout in [Duration::from_secs(1), Duration::ZERO] {
        let session = ignoring(&host, "INT TERM");
        let mut events = host.events();
        let began = Instant::now();
        // Whether it hears of the kill in time depends on how busy the machine is; without any
        // time it most likely does not.
        match supervised(&session).stop(timeout) {
            Ok(report) => assert!(report.killed, "{report:?}"),
            Err(error) => assert!(error.is_timeout(), "{error}"),
        }
        events.expect(session.id(), &[Stopping, Inactive]);
        let took = began.elapsed();
        assert!(took < LONG / 2, "as if the grace were still 27 s: {took:?}");
        host.unload(session.id()).unwrap();
    }
}

pub(super) fn a_start_right_after_a_stop_wins(place: &Place) {
    let host = place.host_with(|setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(Duration::from_millis(400)));
    });
    let script = r#"trap "" INT; echo "url $STORYDEN_RPC_URL"; exec sleep 1000"#;
    let session = host.start(shell(&host, "eager", script));
    printed_url(&host, &session, 0);
    let mut events = host.events();
    let report = std::thread::scope(|scope| {
        let stopping = scope.spawn(|| supervised(&session).stop(LONG).unwrap());
        events.expect(session.id(), &[Stopping]);
        supervised(&session).start().unwrap();
        stopping.join().unwrap()
    });
    // The stop is done to its end first: never two processes at once.
    assert!(report.exit.is_some(), "{report:?}");
    events.expect(session.id(), &[Inactive, Starting, Connecting]);
    let _peer = Peer::connect(host.address(), &target(&printed_url(&host, &session, 1)));
    active(&session);
}

pub(super) fn starts_and_stops_from_all_sides_end_with_the_last(place: &Place) {
    let host = place.host();
    let session = host.install(python(&host, "tossed"));
    for last in [ActiveState::Active, ActiveState::Inactive] {
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for side in 0..4 {
                let (session, barrier) = (&session, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for turn in 0..10 {
                        if (side + turn) % 2 == 0 {
                            supervised(session).start().unwrap();
                        } else {
                            supervised(session).stop(LONG).unwrap();
                        }
                    }
                });
            }
        });
        session.set_active_state(last).unwrap();
        match last {
            ActiveState::Active => {
                active(&session);
                call(&session, "echo", &json!({})).unwrap();
            }
            ActiveState::Inactive => {
                assert_eq!(session.reported_state(), Inactive);
            }
        }
    }
    host.lifelines.expect_all_dead();
    // None, if each had ended by the time it was counted.
    place.expect_one_at_a_time(&host);
}

pub(super) fn everybody_who_asks_for_a_stop_gets_its_report(place: &Place) {
    let host = place.host();
    let session = host.run(python(&host, "popular"));
    let reports: Vec<_> = std::thread::scope(|scope| {
        let stops: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| supervised(&session).stop(LONG).unwrap()))
            .collect();
        stops.into_iter().map(|stop| stop.join().unwrap()).collect()
    });
    let ended = |report: &&StopReport| report.exit == Some(ExitReason::Code(0));
    assert!(reports.iter().filter(ended).count() >= 1, "{reports:?}");
    assert!(reports.iter().all(|report| !report.killed), "{reports:?}");
}

/// A plugin over stdio that says what happens to it at its end.
fn saving(host: &TestHost, at_the_end: &str) -> Session {
    let script = format!(
        r#"
import json, os, signal, sys, time
def caught(number, _):
    print("caught", signal.Signals(number).name, flush=True)
signal.signal(signal.SIGINT, caught)
signal.signal(signal.SIGTERM, caught)
slow = None
while line := sys.stdin.readline():
    request = json.loads(line)
    answer = json.dumps({{"jsonrpc": "2.0", "id": request["id"], "result": {{}}}})
    if request["method"] == "slow":
        slow = answer
    else:
        print(answer, flush=True)
if slow:
    print(slow, flush=True)
{at_the_end}
print("saved", flush=True)
"#
    );
    host.run(over_stdio(command(
        host,
        "saving",
        "python3",
        &["-c", &script],
    )))
}

pub(super) fn a_stdio_plugin_that_reads_to_the_end_of_its_input_stops_by_itself(place: &Place) {
    let host = place.host();
    for _ in 0..10 {
        let session = saving(&host, "");
        // An answer that comes at the end still counts.
        let slow = session.start_call_raw("slow", &json!({}), LONG).unwrap();
        call(&session, "quick", &json!({})).unwrap();
        let report = stop(&session);
        assert_eq!(report.exit, Some(ExitReason::Code(0)));
        assert!(report.took < Duration::from_secs(1), "{report:?}");
        slow.wait().unwrap();
        assert_eq!(host.output.texts(session.id()), ["saved"]);
        host.unload(session.id()).unwrap();
    }
}

pub(super) fn a_stdio_plugin_that_does_not_end_is_told_louder_and_louder(place: &Place) {
    let grace = Duration::from_secs(3);
    let host = place.host_with(|setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(grace));
    });
    let session = saving(&host, "while True: time.sleep(60)");
    let report = stop(&session);
    assert!(report.killed && report.took >= grace, "{report:?}");
    let heard = host.output.texts(session.id());
    let signals = place.signals().iter();
    let expected = signals.map(|(name, _)| format!("caught {name}"));
    assert!(expected.eq(heard), "not all, or others");
}

pub(super) fn a_second_stop_in_more_of_a_hurry_signals_before_it_kills(place: &Place) {
    let host = place.host_with(|setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(LONG * 9 / 10));
    });
    let session = saving(&host, "while True: time.sleep(60)");
    let mut events = host.events();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| supervised(&session).stop(LONG));
        events.expect(session.id(), &[Stopping]);
        let report = supervised(&session).stop(Duration::from_secs(4)).unwrap();
        assert!(report.killed, "{report:?}");
        first.join().unwrap().unwrap();
    });
    let heard = host.output.texts(session.id());
    let signals = place.signals().iter();
    let expected = signals.map(|(name, _)| format!("caught {name}"));
    assert!(expected.eq(heard), "not all, or others");
}

pub(super) fn a_stop_does_not_wait_for_a_stdio_plugin_that_reads_nothing(place: &Place) {
    let host = place.host();
    let script = r#"read -r line; id=${line#*'"id":"'}; id=${id%%'"'*}
        echo "{\"id\":\"$id\",\"result\":{}}"; trap 'echo interrupted; exit 0' INT
        while :; do sleep 0.05; done"#;
    let session = host.run(over_stdio(shell(&host, "deaf", script)));
    let large = json!({ "text": "x".repeat(1_000_000) });
    // A thread waits for room in a pipe that nobody reads.
    let mut batch = session.batch().unwrap();
    let waiting = batch.start_call_raw("echo", &large, LONG).unwrap();
    batch.send();
    let report = stop(&session);
    assert_eq!(report.exit, Some(ExitReason::Code(0)));
    assert!(report.took < Duration::from_secs(4), "{report:?}");
    let error = waiting.wait().unwrap_err();
    assert!(error.is_disconnected(), "{error}");
    assert_eq!(host.output.texts(session.id()), ["interrupted"]);
}

pub(super) fn unloading_stops_and_forgets(place: &Place) {
    let host = place.host();
    let idle = place.idle_threads(&host);
    let session = host.run(python(&host, "leaver"));
    let lifeline = host.lifelines.next();
    host.unload(session.id()).unwrap();
    lifeline.expect_end();
    assert!(host.session(session.id()).is_none());
    let error = session.call_raw("echo", &json!({}), LONG).unwrap_err();
    assert_matches!(error, Error::NotLoaded(id) if id == session.id());
    let error = supervised(&session).start().unwrap_err();
    assert_matches!(error, Error::NotLoaded(_));
    host.expect_threads(idle);
    host.unload(session.id()).unwrap();
    // It may come back, as a new session.
    let again = host.load(session.id()).unwrap();
    supervised(&again).start().unwrap();
    active(&again);
}

pub(super) fn a_plugin_that_is_unloaded_and_loaded_at_once_runs_again(place: &Place) {
    let host = place.host();
    let record = url_printer(&host, "returning");
    let id = record.id;
    host.store().put(record).unwrap();
    for turn in 0..50 {
        let session = host.load(id).unwrap();
        supervised(&session).start().unwrap();
        if let Err(error) = session.wait_for(Connecting, LONG) {
            panic!("turn {turn}: {error}");
        }
        host.unload(id).unwrap();
    }
}
