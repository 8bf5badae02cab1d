//! When a connection ends, every call in flight fails at once and with the true cause; none is
//! sent again.

use plugin_runner::call::PendingCall;
use plugin_runner::error::Disconnect;
use plugin_runner::{ActiveState, Error, Limits, ReportedState};
use serde_json::json;

use crate::support::session::{Bench, Plugin, start_raw};
use crate::support::{LONG, assert_matches};

fn three_calls(bench: &Bench) -> [PendingCall; 3] {
    [1, 2, 3].map(|number| start_raw(&bench.session, "work", json!({"number": number})))
}

/// All calls fail long before their own time is over, with a cause that is as expected.
#[track_caller]
fn assert_all_end(calls: [PendingCall; 3], expected: &str, is_it: fn(&Disconnect) -> bool) {
    for call in calls {
        match call.wait() {
            Err(Error::Disconnected(cause)) => {
                assert!(is_it(&cause), "{cause:?}");
                assert_eq!(cause.to_string(), expected);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a call says right after an end and from then on.
#[track_caller]
fn assert_not_callable(bench: &Bench, state: ReportedState) {
    match bench.session.call_raw("work", &json!({}), LONG) {
        Err(Error::Disconnected(_) | Error::State { .. }) => {}
        other => panic!("{other:?}"),
    }
    bench.wait_for(state);
    match bench.session.call_raw("work", &json!({}), LONG) {
        Err(Error::State { state: found, .. }) => assert_eq!(found, state),
        other => panic!("{other:?}"),
    }
    let counters = bench.session.counters();
    assert_eq!((counters.calls_in_flight, counters.disconnects), (0, 5));
}

/// A plugin that is connected in memory, and one that is over a socket.
fn both_transports() -> impl Iterator<Item = (Bench, Plugin)> {
    [Bench::connect, Bench::connect_socket]
        .into_iter()
        .map(|connect| {
            let bench = Bench::new();
            let plugin = connect(&bench);
            (bench, plugin)
        })
}

#[test]
fn calls_in_flight_fail_when_the_plugin_closes() {
    for (bench, plugin) in both_transports() {
        let calls = three_calls(&bench);
        for _ in 0..3 {
            plugin.expect("work");
        }
        plugin.close(1001, "going away");
        let expected = "closed by the plugin (code 1001, going away)";
        assert_all_end(
            calls,
            expected,
            |cause| matches!(cause, Disconnect::ByPeer { code, .. } if *code == Some(1001)),
        );
        assert_not_callable(&bench, ReportedState::Connecting);
    }
}

#[test]
fn calls_in_flight_fail_when_the_connection_is_lost() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let calls = three_calls(&bench);
    drop(plugin);
    assert_all_end(calls, "connection lost", |cause| {
        matches!(cause, Disconnect::Lost)
    });
    assert_not_callable(&bench, ReportedState::Connecting);

    let bench = Bench::new();
    let socket = bench.connect_silent();
    let calls = three_calls(&bench);
    drop(socket);
    assert_all_end(calls, "connection lost", |cause| {
        matches!(cause, Disconnect::Lost)
    });
    assert_not_callable(&bench, ReportedState::Connecting);
}

#[test]
fn calls_in_flight_fail_when_the_plugin_is_stopped() {
    for (bench, _plugin) in both_transports() {
        let calls = three_calls(&bench);
        bench.set(ActiveState::Inactive);
        assert_all_end(calls, "closed by the host: closed", |cause| {
            matches!(cause, Disconnect::ByHost { code: 1000, .. })
        });
        assert_not_callable(&bench, ReportedState::Inactive);
    }
}

#[test]
fn calls_in_flight_fail_when_the_host_shuts_down() {
    for (bench, _plugin) in both_transports() {
        let calls = three_calls(&bench);
        let report = bench.host.shutdown(LONG);
        assert!(report.is_complete(), "{report:?}");
        assert_all_end(
            calls,
            "closed by the host: host is shutting down",
            |cause| matches!(cause, Disconnect::ByHost { code: 1012, .. }),
        );
        let refused = bench.session.call_raw("work", &json!({}), LONG);
        assert_matches!(refused, Err(Error::ShutDown));
    }
}

#[test]
fn calls_in_flight_fail_when_the_plugin_is_unloaded() {
    let bench = Bench::new();
    let _plugin = bench.connect();
    let calls = three_calls(&bench);
    bench.host.unload(bench.session.id()).unwrap();
    assert_all_end(calls, "closed by the host: closed", |cause| {
        matches!(cause, Disconnect::ByHost { code: 1000, .. })
    });
    let refused = bench.session.call_raw("work", &json!({}), LONG);
    assert_matches!(refused, Err(Error::NotLoaded(_)));
}

#[test]
fn calls_in_flight_fail_when_the_plugin_sends_too_much() {
    let bench = Bench::with_host(|builder| builder.limits(Limits::default().inbound_message(1000)));
    let plugin = bench.connect_socket();
    let calls = three_calls(&bench);
    for _ in 0..3 {
        plugin.expect("work");
    }
    plugin.send(&"x".repeat(1001));
    assert_all_end(
        calls,
        "the plugin sent a message over the limit of 1000 bytes",
        |cause| matches!(cause, Disconnect::TooLarge { limit: 1000 }),
    );
    assert_eq!(plugin.expect_close().0, 1009);
    assert_not_callable(&bench, ReportedState::Connecting);
}

#[test]
fn nothing_is_sent_again_on_the_next_connection() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let calls = three_calls(&bench);
    plugin.expect("work");
    drop(plugin);
    for call in calls {
        assert!(call.wait().unwrap_err().is_disconnected());
    }
    bench.wait_for(ReportedState::Connecting);
    let plugin = bench.connect();
    bench.ping(&plugin);
    assert!(plugin.has_nothing_more());
}
