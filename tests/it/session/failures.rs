//! Calls to plugins that fail although the connection goes on: each failure has its own error,
//! and none harms the calls after it.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use plugin_runner::duplex::memory;
use plugin_runner::error::{Disconnect, Phase};
use plugin_runner::protocol::method::{Configure, Ping};
use plugin_runner::{ActiveState, Error, Limits, ReportedState, Timeouts};
use rustix::net::RecvFlags;
use serde_json::json;

use crate::support::session::{Bench, Plugin, SHORT, start_ping, start_raw};
use crate::support::{LONG, assert_matches, object, refusing_state, timed_out};

#[test]
fn a_plugin_that_does_not_answer_times_out_in_the_phase_of_the_reply() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let error = bench.session.call(&Ping {}, SHORT).unwrap_err();
    assert_eq!(timed_out(&error), (Phase::Reply, SHORT));
    assert_eq!(
        error.to_string(),
        "waiting for the reply timed out after 30ms"
    );
    assert_eq!(bench.session.counters().timeouts, 1);
    assert_eq!(bench.session.counters().calls_in_flight, 0);
    plugin.expect("ping");
    bench.ping(&plugin);
}

#[test]
fn a_plugin_that_reads_nothing_times_out_in_the_phase_of_the_write() {
    let bench = Bench::new();
    let (ours, theirs) = memory::pair(1);
    bench.session.connect(ours, "").unwrap();
    let first = start_raw(&bench.session, "fills_the_channel", json!({}));
    let error = bench.session.call(&Ping {}, SHORT).unwrap_err();
    assert_eq!(timed_out(&error), (Phase::Write, SHORT));
    // It was withdrawn whole, and the connection is none the worse.
    let plugin = Plugin::over(theirs);
    let request = plugin.expect("fills_the_channel");
    plugin.reply(&request, json!({}));
    first.wait().unwrap();
    bench.ping(&plugin);
}

fn small_buffers() -> Limits {
    Limits::default().outbound_bytes(64 * 1024)
}

#[test]
fn a_write_that_times_out_half_way_does_not_harm_the_connection() {
    let bench = Bench::with_host(|builder| builder.limits(small_buffers()));
    let socket = bench.connect_silent();
    // More than the socket's buffers take. On a slow machine the time may be over before the
    // first byte; then nothing was sent, and it is tried again with more.
    let large = Configure(object(json!({"text": "x".repeat(1024 * 1024)})));
    let mut limit = SHORT;
    while !has_bytes(&socket) {
        limit *= 2;
        let error = bench.session.call(&large, limit).unwrap_err();
        // Once begun it will arrive, so it is the answer that did not come in time.
        let begun = has_bytes(&socket);
        let phase = if begun { Phase::Reply } else { Phase::Write };
        assert_eq!(timed_out(&error), (phase, limit));
    }
    // One more message is queued behind it, and then there is no room.
    let fills_the_queue = json!({"text": "x".repeat(70 * 1024)});
    let queued = start_raw(&bench.session, "queued", fills_the_queue);
    let error = bench.session.call(&Ping {}, SHORT).unwrap_err();
    assert_eq!(timed_out(&error), (Phase::Write, SHORT));
    // What was begun arrives whole once the plugin reads, and all goes on; what was not is gone.
    let plugin = Plugin::over_socket(socket);
    let begun = plugin.expect("configure");
    assert_eq!(begun.params["text"].as_str().unwrap().len(), 1024 * 1024);
    let request = plugin.expect("queued");
    plugin.reply(&request, json!({}));
    queued.wait().unwrap();
    bench.ping(&plugin);
}

/// Whether something has arrived that nobody has read.
fn has_bytes(socket: &UnixStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(rustix::net::recv(socket, &mut [0; 1], flags), Ok((1, _)))
}

#[test]
fn a_plugin_that_never_reads_is_given_up_after_the_write_stall_timeout() {
    let stall = Duration::from_millis(100);
    let timeouts = Timeouts::default().write_stall(stall);
    let bench = Bench::with_host(|builder| builder.limits(small_buffers()).timeouts(timeouts));
    let _never_read = bench.connect_silent();
    let pending = start_ping(&bench.session);
    let large = Configure(object(json!({"text": "x".repeat(3 * 1024 * 1024)})));
    let error = bench.session.call(&large, LONG).unwrap_err();
    let stalled = |error: &Error| {
        matches!(error, Error::Disconnected(cause)
            if matches!(**cause, Disconnect::Stalled { limit } if limit == stall))
    };
    assert!(stalled(&error), "{error:?}");
    let error = pending.wait().unwrap_err();
    assert!(stalled(&error), "{error:?}");
    bench.wait_for(ReportedState::Connecting);
    let message = bench.session.error_message().unwrap();
    assert_eq!(message, "the plugin read nothing for 100ms");
}

#[test]
fn an_answer_that_cannot_be_read_is_an_error_of_its_own() {
    let bench = Bench::new();
    let plugin = bench.connect();
    for result in [
        r#"{"method":"ping"}"#,
        r#"{"method":"ping","pong":"yes"}"#,
        "true",
        "[true]",
        "null",
    ] {
        let call = start_ping(&bench.session);
        let id = plugin.expect("ping").id;
        plugin.send(&format!(
            r#"{{"jsonrpc":"2.0","id":"{id}","result":{result}}}"#
        ));
        let error = call.wait().unwrap_err();
        assert_matches!(&error, Error::InvalidReply { method, .. } if &**method == "ping");
        assert!(std::error::Error::source(&error).is_some());
    }
    // Neither a result nor an error.
    let call = start_ping(&bench.session);
    let id = plugin.expect("ping").id;
    plugin.send(&format!(r#"{{"jsonrpc":"2.0","id":"{id}"}}"#));
    assert_matches!(call.wait(), Err(Error::InvalidReply { .. }));
    assert_eq!(bench.session.counters().other_errors, 6);
    bench.ping(&plugin);
}

#[test]
fn params_that_cannot_be_sent_are_refused_and_nothing_is_written() {
    let bench = Bench::new();
    let plugin = bench.connect();
    for params in [json!(null), json!([1]), json!("text")] {
        let error = bench.session.call_raw("any", &params, LONG).unwrap_err();
        assert_matches!(error, Error::Encode { .. });
    }
    assert_eq!(bench.session.counters().bytes_sent, 0);
    bench.ping(&plugin);
    assert!(plugin.has_nothing_more());
}

#[test]
fn over_the_cap_on_pending_calls_a_call_is_refused_until_there_is_room() {
    let bench = Bench::with_host(|builder| builder.limits(Limits::default().pending_calls(2)));
    let plugin = bench.connect();
    let first = start_ping(&bench.session);
    let second = start_ping(&bench.session);
    let error = bench.session.call(&Ping {}, LONG).unwrap_err();
    assert_matches!(error, Error::TooManyPending { limit: 2 });
    assert!(error.is_retryable());
    // An answer makes room, and so does giving up.
    plugin.reply(&plugin.expect("ping"), json!({"pong": true}));
    first.wait().unwrap();
    drop(second);
    let calls = [start_ping(&bench.session), start_ping(&bench.session)];
    plugin.expect("ping");
    for call in calls {
        plugin.reply(&plugin.expect("ping"), json!({"pong": true}));
        call.wait().unwrap();
    }
}

#[test]
fn a_plugin_that_is_not_active_cannot_be_called() {
    let bench = Bench::new();
    let call = || bench.session.call(&Ping {}, LONG).unwrap_err();
    let error = call();
    assert_eq!(refusing_state(&error), ReportedState::Connecting);
    assert_eq!(error.to_string(), "the plugin is connecting");
    assert!(error.is_retryable());

    drop(bench.connect());
    bench.wait_for(ReportedState::Connecting);
    assert_eq!(
        call().to_string(),
        "the plugin is connecting: connection lost"
    );

    bench.set(ActiveState::Inactive);
    let error = call();
    assert_eq!(error.to_string(), "the plugin is inactive");
    assert!(!error.is_retryable());
    assert_eq!(bench.session.counters().disconnects, 3);
}
