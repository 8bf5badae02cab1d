//! Plugins that end by themselves, or are ended for their own good, and come back.

use std::time::{Duration, Instant};

use plugin_runner::ReportedState::{Active, Connecting, Errored, Restarting, Starting};
use plugin_runner::Session;
use plugin_runner::protocol::Transport;
use rustix::process::Signal;
use serde_json::json;

use super::place::{Place, packed};
use crate::support::LONG;
use crate::support::events::Details as _;
use crate::support::host::{TestHost, active};
use crate::support::plugin::{TRANSPORTS, call, python};

fn stop(session: &Session) {
    session.supervised().unwrap().stop(LONG).unwrap();
}

pub(super) fn a_killed_plugin_comes_back_and_its_callers_hear_at_once(place: &Place) {
    for transport in TRANSPORTS {
        let (host, session) = place.running(transport, &["behave"]);
        let first = host.lifelines.next();
        let mut events = host.events();
        let waiting = session
            .start_call_raw("sleep", &json!({"ms": 600_000}), LONG * 10)
            .unwrap();
        let began = Instant::now();
        first.signal(Signal::KILL);
        let error = waiting.wait().unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        assert!(began.elapsed() < LONG, "{:?}", began.elapsed());

        let change = events.until(session.id(), Restarting);
        assert_eq!(change.message(), Some("signal: killed"));
        let details = &change.details();
        assert_eq!(details["runtime_provider"], place.provider().as_str());
        assert_eq!(details["stage"], "exit");
        assert_eq!(details["exit_code"], -1);
        assert_eq!(details["exit_status"], "signal: killed");
        let pid = details.get("pid").cloned();
        assert_eq!(pid, place.pid(&first).map(Into::into));
        assert_eq!(details["attempts"], 1);
        assert!(details["uptime_seconds"].as_f64().unwrap() > 0.0);
        // The old process is gone before the new one comes.
        let second = host.lifelines.next();
        first.expect_end();
        assert_ne!(first.pid, second.pid);
        events.until(session.id(), Active);
        assert_eq!(session.error_message(), None);
        assert!(session.error_details().is_empty());
        assert_eq!(
            call(&session, "echo", &json!({"a": 1})).unwrap()["echo"]["a"],
            1
        );
        // Its token is new: the connection is.
        assert_eq!(session.counters().connections, 2);
        place.expect_one_at_a_time(&host);
    }
}

pub(super) fn an_exit_at_any_point_is_told_with_its_status(place: &Place) {
    let host = place.host_with(|setup| {
        setup.policy(|policy| policy.max_restart_attempts(0));
    });
    for transport in TRANSPORTS {
        for (point, code) in [("start", "3"), ("connect", "4"), ("active", "5")] {
            let mut events = host.events();
            let session = host.start(packed(&host, transport, &["exit-at", point, code]));
            let change = events.until(session.id(), Errored);
            let expected = format!("exit status {code}");
            assert_eq!(change.message(), Some(expected.as_str()), "{point}");
            assert_eq!(change.details()["exit_code"], code.parse::<i32>().unwrap());
            host.unload(session.id()).unwrap();
        }
        let session = host.run(packed(&host, transport, &["exit-at", "first-call", "6"]));
        let mut events = host.events();
        let error = call(&session, "echo", &json!({})).unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        let change = events.until(session.id(), Errored);
        assert_eq!(change.message(), Some("exit status 6"));
        let output = change.details()["output"].to_string();
        assert!(output.contains("started"), "{output}");
        host.unload(session.id()).unwrap();
    }
}

pub(super) fn exits_with_0_after_good_runs_do_not_count(place: &Place) {
    let host = place.host_with(|setup| {
        setup.policy(|policy| {
            policy
                .crash_threshold(Duration::ZERO)
                .max_restart_attempts(1)
        });
    });
    for transport in TRANSPORTS {
        let session = host.run(packed(&host, transport, &["behave"]));
        let mut events = host.events();
        for _ in 0..4 {
            call(&session, "exit", &json!({"code": 0})).unwrap_err();
            let change = events.until(session.id(), Restarting);
            assert_eq!(change.message(), Some("process exited cleanly"));
            assert_eq!(change.details()["restarts"], 0);
            assert_eq!(change.details()["restarting_after_seconds"], 0.02);
            assert_eq!(change.details().get("exit_code"), None);
            events.until(session.id(), Active);
        }
        stop(&session);
    }
}

pub(super) fn exits_with_0_after_short_runs_count(place: &Place) {
    let host = place.host_with(|setup| {
        setup.policy(|policy| {
            policy
                .crash_threshold(Duration::from_secs(3600))
                .max_restart_attempts(2)
        });
    });
    let session = host.run(packed(&host, Transport::WebSocket, &["behave"]));
    let mut events = host.events();
    for restarts in 0..2 {
        call(&session, "exit", &json!({"code": 0})).unwrap_err();
        let change = events.until(session.id(), Restarting);
        assert_eq!(change.details()["restarts"], restarts);
        events.until(session.id(), Active);
    }
    call(&session, "exit", &json!({"code": 0})).unwrap_err();
    let change = events.until(session.id(), Errored);
    assert_eq!(
        change.message(),
        Some("asked to be started again 3 times, each within 3600s (exit status 0)")
    );
    assert_eq!(change.details()["cause"], "exited");
    assert_eq!(change.details()["exit_status"], "process exited cleanly");
    assert_eq!(change.details()["attempts"], 3);
}

pub(super) fn a_plugin_that_closes_its_connection_and_exits_is_started_again_soon(place: &Place) {
    for transport in TRANSPORTS {
        let (host, session) = place.running(transport, &["behave"]);
        let first = host.lifelines.next();
        let mut events = host.events();
        // It may or may not answer before it closes.
        let _ = call(&session, "close", &json!({}));
        first.expect_end();
        let change = events.until(session.id(), Restarting);
        assert_eq!(change.message(), Some("process exited cleanly"));
        events.until(session.id(), Active);
    }
}

pub(super) fn a_plugin_that_lives_on_without_its_connection_is_killed_after_the_grace(
    place: &Place,
) {
    let host = impatient(place);
    let session = host.run(packed(&host, Transport::WebSocket, &["linger"]));
    expect_kill_after(&host, &session, "close");
}

/// A host on which a plugin that has lost its connection is killed soon.
pub(crate) fn impatient(place: &Place) -> TestHost {
    place.host_with(|setup| {
        setup.timeouts(|timeouts| timeouts.disconnect_grace(Duration::from_millis(200)));
        setup.policy(|policy| policy.max_restart_attempts(0));
    })
}

/// The plugin ends its connection, lives on, and is killed for that.
pub(crate) fn expect_kill_after(host: &TestHost, session: &Session, hang_up: &str) {
    let lifeline = host.lifelines.next();
    let mut events = host.events();
    // It may or may not answer before it closes.
    let _ = call(session, hang_up, &json!({}));
    events.expect(session.id(), &[Connecting]);
    let change = events.expect(session.id(), &[Errored]);
    let message = change.message().unwrap();
    let expected = "but the process did not end within 200ms and was killed";
    assert!(message.ends_with(expected), "{message}");
    assert_eq!(change.details()["cause"], "connection_lost");
    lifeline.expect_end();
}

pub(super) fn a_plugin_that_hangs_before_it_is_active_is_killed_for_that(place: &Place) {
    // Over WebSocket it hangs before it connects; over stdio it does not answer the first ping.
    for (transport, point) in [
        (Transport::WebSocket, "start"),
        (Transport::Stdio, "connect"),
    ] {
        let host = place.host_with(|setup| {
            setup.timeouts(|timeouts| timeouts.connect(Duration::from_millis(700)));
            setup.policy(|policy| policy.max_restart_attempts(0));
        });
        let missing = match transport {
            Transport::Stdio => "answer the first ping on its standard output",
            _ => "connect",
        };
        let mut events = host.events();
        let session = host.start(packed(&host, transport, &["hang-at", point]));
        let change = events.expect(session.id(), &[Starting, Connecting, Errored]);
        assert_eq!(
            change.message(),
            Some(format!("did not {missing} within 700ms and was killed").as_str())
        );
        assert_eq!(change.details()["cause"], "never_connected");
    }
}

pub(super) fn a_stdio_plugin_is_active_when_it_has_answered_a_ping(place: &Place) {
    let host = place.host();
    let record = packed(&host, Transport::Stdio, &["hang-at", "connect", "gated"]);
    let session = host.start(record);
    let lifeline = host.lifelines.next();
    host.output.wait_for("'connected'", |line| {
        (line.text == "connected").then_some(())
    });
    assert_eq!(session.reported_state(), Connecting);
    let error = call(&session, "echo", &json!({})).unwrap_err();
    assert_eq!(error.to_string(), "the plugin is connecting");
    lifeline.open_gate();
    active(&session);
    call(&session, "echo", &json!({})).unwrap();
}

pub(super) fn a_call_to_a_plugin_that_hangs_times_out_and_a_stop_gets_through(place: &Place) {
    for transport in TRANSPORTS {
        let (host, session) = place.running(transport, &["hang-at", "first-call"]);
        let lifeline = host.lifelines.next();
        let limit = Duration::from_millis(100);
        let error = session.call_raw("echo", &json!({}), limit).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(
            error.to_string(),
            "waiting for the reply timed out after 100ms"
        );
        assert_eq!(session.reported_state(), Active);
        stop(&session);
        lifeline.expect_end();
    }
}

pub(super) fn a_second_connection_of_the_same_process_is_refused(place: &Place) {
    let (host, session) = place.running(Transport::WebSocket, &["connect-twice"]);
    let said = host.output.wait_for("of the second connection", |line| {
        line.text
            .strip_prefix("second connection: ")
            .map(str::to_owned)
    });
    assert!(said.contains("401"), "{said}");
    call(&session, "echo", &json!({})).unwrap();
    assert_eq!(session.counters().connections, 1);
}

pub(super) fn a_grandchild_dies_with_a_stop_and_with_a_crash(place: &Place) {
    for transport in TRANSPORTS {
        let (host, session) = place.running(transport, &["grandchild"]);
        let mut generation = [host.lifelines.next(), host.lifelines.next()];
        let pid = call(&session, "describe", &json!({})).unwrap()["pid"].clone();
        generation.sort_by_key(|lifeline| pid != lifeline.pid);
        let [child, grandchild] = generation;
        assert_eq!(pid, child.pid);
        assert!(grandchild.is_alive());

        let mut events = host.events();
        child.signal(Signal::KILL);
        child.expect_end();
        grandchild.expect_end();
        events.until(session.id(), Active);
        let next = [host.lifelines.next(), host.lifelines.next()];
        stop(&session);
        for lifeline in next {
            lifeline.expect_end();
        }
    }
}

pub(super) fn a_plugin_that_ignores_signals_is_killed_and_the_report_says_so(place: &Place) {
    for transport in TRANSPORTS {
        let host = place.host_with(|setup| {
            setup.timeouts(|timeouts| timeouts.stop_grace(Duration::from_secs(3)));
        });
        // Over stdio the end of its input would be enough.
        let script = ["ignore-signals", "linger", "grandchild"];
        let session = host.run(packed(&host, transport, &script));
        let lifelines = [host.lifelines.next(), host.lifelines.next()];
        let report = session.supervised().unwrap().stop(LONG).unwrap();
        assert!(report.killed, "{report:?}");
        for (_, signal) in place.signals() {
            let caught = format!("caught signal {signal}");
            host.output
                .wait_for(&caught, |line| (line.text == caught).then_some(()));
        }
        for lifeline in lifelines {
            lifeline.expect_end();
        }
    }
}

pub(super) fn python_that_is_killed_comes_back(place: &Place) {
    let host = place.host();
    let session = host.run(python(&host, "python"));
    let first = host.lifelines.next();
    let mut events = host.events();
    first.signal(Signal::KILL);
    first.expect_end();
    let change = events.until(session.id(), Restarting);
    assert_eq!(change.message(), Some("signal: killed"));
    assert_eq!(change.details()["exit_code"], -1);
    let second = host.lifelines.next();
    assert_ne!(first.pid, second.pid);
    active(&session);
    call(&session, "echo", &json!({})).unwrap();
    let report = session.supervised().unwrap().stop(LONG).unwrap();
    assert!(!report.killed, "{report:?}");
    second.expect_end();
}
