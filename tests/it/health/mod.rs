//! Signs of life: who shows none is found, and who cannot show any just now is left alone.

// Plugins that are silent because they are busy.
mod busy;

use std::io::Write as _;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;
use plugin_runner::call::{InboundCall, PendingCall};
use plugin_runner::error::RpcError;
use plugin_runner::store::Record;
use plugin_runner::{Error, Health, InstallationId, ReportedState, Services, Session};
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use tungstenite::{Bytes, Message};

use crate::support::events::Events;
use crate::support::frames::RawPeer;
use crate::support::host::{Setup, TestHost, active};
use crate::support::http::Request;
use crate::support::lifeline::Lifeline;
use crate::support::peer::Peer;
use crate::support::plugin::{With as _, call, command, connectable, manifest, python};
use crate::support::{LONG, assert_matches, wait_until};

/// Found after two seconds, which nobody who lives stays silent for, on however busy a machine.
pub(super) fn quick() -> Health {
    Health::default()
        .interval(Duration::from_millis(100))
        .timeout(Duration::from_millis(700))
        .misses_allowed(2)
}

pub(super) const FOUND: &str = "unresponsive: no sign of life for 2.1s";

/// For tests that want to see many pings and answer them: nobody is given up for being slow.
fn frequent() -> Health {
    Health::default()
        .interval(Duration::from_millis(20))
        .timeout(LONG)
}

fn watched(test: &'static str, health: Health) -> TestHost {
    watched_with(test, health, |_| ())
}

fn watched_with(test: &'static str, health: Health, change: impl FnOnce(&mut Setup)) -> TestHost {
    TestHost::with(test, |setup| {
        setup.configure(|builder| builder.health(health));
        change(setup);
    })
}

/// A loaded external plugin, with the path and query it connects to.
fn external(host: &TestHost, change: impl FnOnce(Record) -> Record) -> (Session, String) {
    connectable(host, change(Record::external(manifest("outside")).unwrap()))
}

/// Connects a peer that says nothing by itself, not even pongs.
fn connect(host: &TestHost, target: &str) -> RawPeer {
    RawPeer::connect(host.address(), target)
}

/// [`connect`] for a peer that says it is a plugin on Python's `websockets`.
fn connect_as_python(host: &TestHost, target: &str) -> RawPeer {
    let request = Request::upgrade(target).without("User-Agent");
    let request = request.with("User-Agent", "Python/3.12 websockets/15.0.1");
    let answer = request.send(host.address());
    assert_eq!(answer.status, 101);
    RawPeer(answer.stream)
}

/// Waits until it is in this state because it showed no sign of life.
#[track_caller]
fn until_found(events: &mut Events, plugin: InstallationId, state: ReportedState) {
    let change = events.until(plugin, state);
    assert_eq!(change.message(), Some(FOUND));
}

/// Waits until a plugin that shows no sign of life was given up: by then all others that are watched
/// as [`quick`] says were due several times.
#[track_caller]
fn several_intervals(host: &TestHost) {
    let (session, target) = external(host, |record| record.overrides(|own| own.health(quick())));
    let _silent = connect(host, &target);
    active(&session);
    session.wait_for(ReportedState::Connecting, LONG).unwrap();
    assert_eq!(session.error_message().as_deref(), Some(FOUND));
    host.unload(session.id()).unwrap();
}

#[test]
fn a_silent_external_plugin_sees_close_1012_and_may_come_back_at_once() {
    let host = watched("silent-external", quick());
    let (session, target) = external(&host, |record| record);
    let mut silent = connect(&host, &target);
    active(&session);
    let mut events = host.events();
    let params = json!({});
    let waiting = session.start_call_raw("echo", &params, LONG).unwrap();
    let change = events.expect(session.id(), &[ReportedState::Connecting]);
    assert_eq!(change.message(), Some(FOUND));
    assert_eq!(session.error_message().as_deref(), Some(FOUND));
    let error = waiting.wait().unwrap_err();
    assert!(error.is_disconnected(), "{error}");
    assert!(error.to_string().contains(FOUND), "{error}");

    let mut back = Peer::connect(host.address(), &target);
    events.expect(session.id(), &[ReportedState::Active]);
    let again = session.start_call_raw("echo", &params, LONG).unwrap();
    back.answer_one();
    again.wait().unwrap();
    assert_eq!(silent.expect_close(), (1012, FOUND.to_owned()));
    let counters = session.counters();
    assert_eq!(counters.pings_missed, 3, "{counters:?}");
}

#[test]
fn a_peer_that_only_answers_pings_stays() {
    let host = watched("only-pongs", frequent());
    let (session, target) = external(&host, |record| record);
    let mut silent = connect(&host, &target);
    for _ in 0..8 {
        let ping = silent.expect_ping();
        silent.pong(&ping);
    }
    assert_eq!(session.reported_state(), ReportedState::Active);
    let counters = session.counters();
    assert!(counters.pings_sent >= 8, "{counters:?}");
    assert_eq!(counters.pings_missed, 0, "{counters:?}");
    assert_eq!(counters.connections, 1);
}

#[test]
fn any_frame_is_as_good_as_a_pong() {
    let host = watched("any-frame", frequent());
    let (session, target) = external(&host, |record| record);
    let mut silent = connect(&host, &target);
    for _ in 0..8 {
        silent.expect_ping();
        // A message of two bytes that is no JSON-RPC.
        silent.0.write_all(b"\x81\x82\0\0\0\0{}").unwrap();
    }
    assert_eq!(session.reported_state(), ReportedState::Active);
    assert_eq!(session.counters().pings_missed, 0);
}

#[test]
fn as_many_misses_as_are_allowed_are_forgiven() {
    let health = quick().timeout(Duration::from_secs(2)).misses_allowed(1);
    let host = watched("forgiven", health);
    let (session, target) = external(&host, |record| record);
    let mut silent = connect(&host, &target);
    for round in 1..=2 {
        silent.expect_ping();
        let last = silent.expect_ping();
        silent.pong(&last);
        assert_eq!(session.counters().pings_missed, round);
    }
    let next = silent.expect_ping();
    silent.pong(&next);
    assert_eq!(session.reported_state(), ReportedState::Active);
    assert_eq!(session.counters().connections, 1);
}

#[test]
fn pings_of_the_hosts_own_are_no_calls() {
    let host = watched_with("own-pings", frequent().rpc_ping(true), |setup| {
        setup.limits(|limits| limits.pending_calls(1));
    });
    let (session, target) = external(&host, |record| record);
    let mut peer = Peer::connect(host.address(), &target);
    for round in 1..=4 {
        let ping = peer.receive();
        assert_eq!(
            (&ping["method"], &ping["params"]),
            (&json!("ping"), &json!({}))
        );
        // It does not take the only place for calls.
        let waiting = session.start_call_raw("echo", &json!({}), LONG).unwrap();
        peer.answer_one();
        waiting.wait().unwrap();
        // That it knows no such method is an answer too.
        let refusal = json!({"code": -32601, "message": "unknown method"});
        let answer = json!({"jsonrpc": "2.0", "id": ping["id"], "error": refusal});
        peer.send(answer.to_string());
        assert_eq!(session.counters().calls, round);
    }
    let ping = peer.receive();
    assert_eq!(ping["method"], "ping");
    let counters = session.counters();
    assert_eq!(counters.pings_missed, 0, "{counters:?}");
    assert_eq!((counters.stray_replies, counters.refusals), (0, 0));
    assert!(counters.pings_sent >= 5, "{counters:?}");
}

#[test]
fn with_pings_to_the_plugin_itself_those_of_its_library_do_not_count() {
    let host = watched("hangs-above", quick().rpc_ping(true));
    let (session, target) = external(&host, |record| record);
    let mut peer = Peer::connect(host.address(), &target);
    let mut events = host.events();
    for _ in 0..2 {
        assert_eq!(peer.receive()["method"], "ping");
        peer.socket.send(Message::Ping(Bytes::new())).unwrap();
    }
    // After the last one nothing is on its way: the host may be closing, and what it does not read any
    // more resets the connection.
    assert_eq!(peer.receive()["method"], "ping");
    assert_eq!(peer.read_to_close(), Some(1012));
    until_found(&mut events, session.id(), ReportedState::Connecting);
}

#[test]
fn an_interval_of_zero_switches_health_checks_off() {
    let host = watched("off", Health::default().interval(Duration::ZERO));
    let before = host.thread_count();
    let (session, target) = external(&host, |record| record);
    let mut peer = Peer::connect(host.address(), &target);
    active(&session);
    // Its own thread, and no other.
    wait_until("end of the handshake", || host.thread_count() == before + 1);
    several_intervals(&host);
    let waiting = session.start_call_raw("echo", &json!({}), LONG).unwrap();
    let first = peer.socket.read().unwrap();
    assert!(first.is_text(), "{first:?}");
    assert_eq!(session.counters().pings_sent, 0);
    drop(waiting);
}

#[test]
fn settings_of_one_plugins_own_that_cannot_work_do_not_count() {
    let host = watched("own-settings", frequent());
    let broken = quick().timeout(Duration::ZERO);
    let (session, target) = external(&host, |record| record.overrides(|own| own.health(broken)));
    let mut silent = connect(&host, &target);
    silent.expect_ping();
    several_intervals(&host);
    assert_eq!(session.reported_state(), ReportedState::Active);
}

#[test]
fn a_newcomer_gets_in_while_the_one_before_is_being_pinged() {
    let host = watched("newcomer", frequent());
    let (session, target) = external(&host, |record| record);
    let mut dead = connect(&host, &target);
    dead.expect_ping();
    let mut events = host.events();
    assert_eq!(Request::upgrade(&target).send(host.address()).status, 503);
    let change = events.expect(session.id(), &[ReportedState::Connecting]);
    assert_eq!(
        change.message(),
        Some("unresponsive: no sign of life for 5s")
    );
    let mut newcomer = connect(&host, &target);
    events.expect(session.id(), &[ReportedState::Active]);
    newcomer.expect_ping();
}

#[test]
fn two_who_look_at_one_connection_do_not_get_in_each_others_way() {
    let host = watched("two-looks", frequent());
    let (session, target) = external(&host, |record| record);
    let mut incumbent = connect(&host, &target);
    let mut pings = 0;
    while session.counters().pings_sent < 20 {
        assert_eq!(Request::upgrade(&target).send(host.address()).status, 503);
        let ping = incumbent.expect_ping();
        incumbent.pong(&ping);
        pings += 1;
    }
    assert!(pings > 0);
    assert_eq!(session.reported_state(), ReportedState::Active);
    assert_eq!(session.counters().pings_missed, 0);
    assert_eq!(session.counters().connections, 1);
}

#[test]
fn a_shutdown_does_not_wait_for_pings() {
    let host = watched_with("shutdown-pings", frequent(), |setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(Duration::from_millis(100)));
    });
    let session = host.run(python(&host, "frozen"));
    let process = host.lifelines.next();
    process.signal(Signal::STOP);
    let (outside, target) = external(&host, |record| record);
    let mut silent = connect(&host, &target);
    active(&outside);
    silent.expect_ping();
    wait_until("ping to the frozen one", || {
        session.counters().pings_sent > 0
    });
    let report = host.shutdown(LONG);
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.killed, [session.id()]);
    assert!(report.took < LONG / 3, "{report:?}");
}

#[test]
fn one_thread_watches_all_and_goes_with_the_last() {
    let host = watched("threads", frequent());
    let settle = |count: usize| {
        wait_until("right number of threads", || host.thread_count() == count);
    };
    let idle = host.thread_count();
    let plugins: Vec<_> = (0..4).map(|_| external(&host, |record| record)).collect();
    settle(idle + 4);
    for _ in 0..2 {
        let mut peers: Vec<_> = plugins
            .iter()
            .map(|(_, target)| connect(&host, target))
            .collect();
        for peer in &mut peers {
            peer.expect_ping();
        }
        settle(idle + 4 + 1);
        drop(peers);
        settle(idle + 4);
    }
}

#[test]
fn without_a_thread_to_be_had_plugins_still_connect() {
    // The reaper, the listener, a handshake and the session.
    let host = TestHost::with("no-thread", |setup| {
        setup.configure(|builder| builder.health(frequent()).thread_limit(4));
    });
    let (session, target) = external(&host, |record| record);
    let mut peer = Peer::connect(host.address(), &target);
    active(&session);
    let waiting = session.start_call_raw("echo", &json!({}), LONG).unwrap();
    peer.answer_one();
    waiting.wait().unwrap();
}

#[test]
fn health_settings_that_cannot_work_are_refused() {
    let health = Health::default().timeout(Duration::ZERO);
    let refused = plugin_runner::Host::builder().health(health).build();
    assert_matches!(&refused, Err(Error::Setting { name, .. }) if *name == "health.timeout");
}
