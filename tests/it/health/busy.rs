//! Plugins that are silent because they are busy: a call excuses that, for a time.

use super::*;
use crate::support::events::Details as _;
use crate::support::plugin::With as _;

#[test]
fn a_plugin_that_is_busy_with_a_call_is_left_alone() {
    let host = watched("busy", quick());
    let session = host.run(python(&host, "busy"));
    let process = host.lifelines.next();
    // Its only thread waits there, and answers nothing meanwhile.
    let busy = session
        .start_call_raw("gate", &json!({}), LONG * 10)
        .unwrap();
    expect_left_alone(&host, &session, busy, &process);
}

/// The plugin is inside a call until its gate is opened, and is not blamed for its silence.
#[track_caller]
fn expect_left_alone(host: &TestHost, session: &Session, busy: PendingCall, process: &Lifeline) {
    let missed = session.counters().pings_missed;
    several_intervals(host);
    assert_eq!(session.reported_state(), ReportedState::Active);
    process.open_gate();
    busy.wait().unwrap();
    let counters = session.counters();
    assert_eq!(counters.pings_missed, missed, "{counters:?}");
    assert_eq!(counters.connections, 1);
}

#[test]
fn a_python_plugin_whose_loop_is_busy_with_a_call_is_left_alone() {
    let host = watched("busy-loop", quick());
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/websocket_plugin.py"
    );
    let record = command(&host, "busy-loop", "python3", &["-u", script])
        .variable("FIXTURE_LIFELINE", host.lifelines.address());
    let session = host.run(record);
    let process = host.lifelines.next();
    let gate = json!({
        "provider_id": "p", "tool_id": "gate", "call_id": "c", "session_id": "s",
        "account_id": "a", "arguments": {},
    });
    let busy = session
        .start_call_raw("robot_tool_call", &gate, LONG * 10)
        .unwrap();
    expect_left_alone(&host, &session, busy, &process);
}

#[test]
fn a_python_plugin_without_a_call_within_its_time_is_no_exception() {
    let host = watched("idle-python", quick());
    let mut events = host.events();
    let (idle, target) = external(&host, |record| record);
    let _half_open = connect_as_python(&host, &target);
    let change = events.until(idle.id(), ReportedState::Active);
    assert_eq!(change.message(), None);
    until_found(&mut events, idle.id(), ReportedState::Connecting);

    let (late, target) = external(&host, |record| record);
    let _half_open = connect_as_python(&host, &target);
    active(&late);
    let soon = Duration::from_millis(100);
    let given_up = late.call_raw("echo", &json!({}), soon);
    assert!(given_up.is_err_and(|error| error.is_timeout()));
    let change = events.until(late.id(), ReportedState::Active);
    assert_eq!(change.message(), None);
    until_found(&mut events, late.id(), ReportedState::Connecting);
    assert_eq!(late.counters().pings_missed, 3);
}

#[test]
fn a_call_excuses_silence_for_the_busy_limit_and_no_longer() {
    let limit = Duration::from_secs(3);
    let host = watched("busy-limit", quick().busy_limit(limit));
    let mut events = host.events();
    let (outside, target) = external(&host, |record| record);
    let mut silent = connect_as_python(&host, &target);
    active(&outside);
    let began = Instant::now();
    let call = outside.start_call_raw("echo", &json!({}), LONG * 10);
    events.until(outside.id(), ReportedState::Active);
    let change = events.until(outside.id(), ReportedState::Connecting);
    assert!(began.elapsed() > limit, "{:?}", began.elapsed());
    assert_eq!(change.message(), Some(FOUND));
    assert!(call.unwrap().wait().unwrap_err().is_disconnected());
    assert_eq!(silent.expect_close(), (1012, FOUND.to_owned()));

    let inside = host.run(python(&host, "hangs-in-call"));
    let process = host.lifelines.next();
    process.signal(Signal::STOP);
    let began = Instant::now();
    let call = inside.start_call_raw("echo", &json!({}), LONG * 10);
    let change = events.until(inside.id(), ReportedState::Restarting);
    assert!(began.elapsed() > limit, "{:?}", began.elapsed());
    assert_eq!(change.message(), Some(FOUND));
    assert!(call.unwrap().wait().unwrap_err().is_disconnected());
    process.expect_end();
}

#[test]
fn a_newcomers_look_is_excused_by_no_call() {
    let host = watched("newcomer-busy", frequent());
    let (session, target) = external(&host, |record| record);
    let _dead = connect_as_python(&host, &target);
    active(&session);
    let call = session.start_call_raw("echo", &json!({}), LONG * 10);
    let mut events = host.events();
    assert_eq!(Request::upgrade(&target).send(host.address()).status, 503);
    let change = events.expect(session.id(), &[ReportedState::Connecting]);
    let found = "unresponsive: no sign of life for 5s";
    assert_eq!(change.message(), Some(found));
    assert!(call.unwrap().wait().unwrap_err().is_disconnected());
}

#[test]
fn a_hung_plugin_is_found_also_while_callers_keep_coming() {
    let host = watched("hung-and-called", quick());
    let session = host.run(python(&host, "hung"));
    let process = host.lifelines.next();
    let mut events = host.events();
    process.signal(Signal::STOP);
    let change = std::thread::scope(|scope| {
        // Two at a time, so that at every moment there is a call within its time.
        for _ in 0..2 {
            scope.spawn(|| {
                while session.reported_state() == ReportedState::Active {
                    let _ = session.call_raw("echo", &json!({}), Duration::from_millis(400));
                }
            });
        }
        events.until(session.id(), ReportedState::Restarting)
    });
    assert_eq!(change.details()["cause"], "unresponsive", "{change:?}");
    process.expect_end();
}

#[test]
fn a_large_message_on_a_slow_line_is_a_sign_of_life() {
    // Only whole frames could be answered with a pong in between.
    let health = quick().timeout(Duration::from_millis(300));
    let host = watched("slow-line", health.clone());
    let (session, target) = external(&host, |record| record);
    let mut peer = connect(&host, &target);
    active(&session);
    let other = external(&host, |record| record);
    let _silent = connect(&host, &other.1);
    active(&other.0);
    // The beginning of a text of 100,000 bytes, and then one more whenever it is asked.
    peer.0
        .write_all(&[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0x86, 0xa0, 0, 0, 0, 0])
        .unwrap();
    let deadline = Instant::now() + LONG;
    while other.0.reported_state() == ReportedState::Active {
        peer.expect_ping();
        peer.0.write_all(b" ").unwrap();
        assert!(Instant::now() < deadline, "the silent one was not found");
    }
    assert_eq!(session.reported_state(), ReportedState::Active);
    let counters = session.counters();
    assert!(counters.pings_sent >= 3, "{counters:?}");
    assert_eq!(counters.pings_missed, 0, "{counters:?}");
}

/// Services whose `get_config` waits for the test.
struct Gated(Mutex<Receiver<()>>);

impl Services for Gated {
    fn get_config(
        &self,
        _call: &InboundCall,
        _keys: &[String],
    ) -> Result<Map<String, Value>, RpcError> {
        let _ = self.0.lock().recv_timeout(LONG * 10);
        Ok(Map::new())
    }
}

#[test]
fn a_plugin_that_waits_for_the_host_is_left_alone() {
    let (open, gate) = bounded(1);
    let host = TestHost::with("waits-for-host", |setup| {
        setup.configure(|builder| builder.health(quick()).services(Gated(Mutex::new(gate))));
    });
    let session = host.run(python(&host, "waits"));
    // Nobody waits for it any more, but it waits for what it asked the host.
    let soon = Duration::from_millis(1);
    let given_up = session.call_raw("call_back", &json!({}), soon);
    assert!(given_up.is_err_and(|error| error.is_timeout()));
    wait_until("call from the plugin", || {
        session.counters().inbound_calls == 1
    });
    let missed = session.counters().pings_missed;
    several_intervals(&host);
    assert_eq!(session.counters().pings_missed, missed);
    open.send(()).unwrap();
    call(&session, "echo", &json!({})).unwrap();
    assert_eq!(session.counters().connections, 1);
}

#[test]
fn a_plugin_that_overstays_its_calls_time_is_found() {
    let host = watched("overstays", quick());
    let session = host.run(python(&host, "overstays"));
    let mut events = host.events();
    let error = session
        .call_raw("gate", &json!({}), Duration::from_millis(100))
        .unwrap_err();
    assert!(error.is_timeout(), "{error}");
    until_found(&mut events, session.id(), ReportedState::Restarting);
    events.until(session.id(), ReportedState::Active);
}
