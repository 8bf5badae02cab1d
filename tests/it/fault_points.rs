//! Races of child processes, brought about on purpose: the host is held at a point where two things could meet, the
//! other thing happens, and it is let go. Those that every runtime has are in `runtimes::races`.

use std::time::{Duration, Instant};

use plugin_runner::ReportedState::{Active, Connecting, Inactive, Restarting, Starting, Stopping};
use plugin_runner::Session;
use plugin_runner::error::Phase;
use plugin_runner::fault::{self};
use plugin_runner::protocol::Transport;
use plugin_runner::report::EndCause;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::runtimes::place::Place;
use crate::runtimes::races::{
    ASKED, Held, expect_refused, expect_well, last_request_wins_at, told_target,
};
use crate::support::host::{TestHost, active, supervised};
use crate::support::http::Request;
use crate::support::lifeline::Lifeline;
use crate::support::lock::Lock;
use crate::support::plugin::{TRANSPORTS, call, fixture};
use crate::support::{LONG, timed_out};

#[test]
fn the_last_request_wins_between_a_spawn_and_its_telling() {
    last_request_wins_at(&Place::local("last-wins"), fault::SPAWNED);
}

#[test]
fn the_last_request_wins_between_a_reaping_and_what_follows() {
    last_request_wins_at(&Place::local("last-wins"), fault::REAPED);
}

#[test]
fn a_token_dies_with_the_process_that_did_not_use_it() {
    for point in [fault::REAPED, fault::PREPARING] {
        let host = TestHost::new("unused-token");
        let record = fixture(
            &host,
            Transport::WebSocket,
            &["alone", "echo-env", "hang-at", "start"],
        );
        let session = host.start(record);
        let first = host.lifelines.next();
        let target = told_target(&host, &session, 0);
        let hold = fault::hold(point, session.id());
        first.signal(Signal::KILL);
        assert!(hold.reached(LONG), "{point} was not reached");
        if point == fault::PREPARING {
            // Its end has been acted upon, and there is no other token yet.
            expect_refused(&host, &target);
        }
        hold.release();
        let _second = host.lifelines.next();
        let next = told_target(&host, &session, 1);
        expect_refused(&host, &target);
        assert_ne!(target, next);
        // What refuses the old one takes the new one.
        assert_eq!(Request::upgrade(&next).send(host.address()).status, 101);
    }
}

#[test]
fn a_plugin_may_connect_before_the_host_says_that_it_was_spawned() {
    let place = Place::local("early-connection");
    let host = place.host();
    let mut held = Held::at(&place, &host, Transport::WebSocket, fault::SPAWNED);
    active(&held.session);
    call(&held.session, "echo", &json!({})).unwrap();
    held.hold.release();
    expect_well(&held.session, &held.lock);
    supervised(&held.session).stop(LONG).unwrap();
    held.events.expect(
        held.session.id(),
        &[Starting, Connecting, Active, Stopping, Inactive],
    );
}

#[test]
fn descendants_live_until_the_end_of_their_leader_is_acted_upon_and_no_longer() {
    let (host, session) = TestHost::running("zombie-leader", Transport::WebSocket, &["grandchild"]);
    let (one, other) = (host.lifelines.next(), host.lifelines.next());
    let pid = call(&session, "describe", &json!({})).unwrap()["pid"].clone();
    let (leader, grandchild) = if json!(one.pid) == pid {
        (one, other)
    } else {
        (other, one)
    };
    let exited = fault::hold(fault::EXITED, session.id());
    leader.signal(Signal::KILL);
    assert!(exited.reached(LONG), "its end was not noticed");
    leader.expect_end();
    assert!(grandchild.is_alive(), "killed by whom?");
    let reaped = fault::hold(fault::REAPED, session.id());
    exited.release();
    assert!(reaped.reached(LONG), "it was not reaped");
    // Before anything follows.
    grandchild.expect_end();
    reaped.release();
    active(&session);
}

/// A host whose plugin no signal reaches, as if it were in uninterruptible sleep.
fn with_unkillable() -> (TestHost, Session, Lock, Lifeline, fault::Loss) {
    let host = TestHost::with("unkillable", |setup| {
        setup.timeouts(|timeouts| {
            timeouts
                .stop(Duration::from_millis(300))
                .stop_grace(Duration::from_millis(50))
        });
    });
    let session = host.run(fixture(&host, Transport::WebSocket, &["alone", "linger"]));
    let lock = Lock::of(&host, &session);
    let process = host.lifelines.next();
    let loss = fault::lose(fault::SIGNALLING, session.id());
    (host, session, lock, process, loss)
}

#[test]
fn a_stop_of_what_cannot_be_killed_says_so_and_nothing_comes_beside_it() {
    let (host, session, lock, process, loss) = with_unkillable();
    let mut events = host.events();
    for timeout in [Duration::from_millis(200), Duration::from_millis(20)] {
        let began = Instant::now();
        let error = supervised(&session).stop(timeout).unwrap_err();
        assert_eq!(timed_out(&error).0, Phase::Stop);
        assert!(began.elapsed() >= timeout);
        assert_eq!(session.reported_state(), Stopping);
    }
    let error = host.unload(session.id()).unwrap_err();
    assert_eq!(timed_out(&error).0, Phase::Stop);
    assert!(host.session(session.id()).is_some(), "it was let go of");
    // Accepted: it will be started when the other is gone, and not before.
    supervised(&session).start().unwrap();
    let waited = session.wait_for(Active, Duration::from_millis(100));
    assert!(waited.unwrap_err().is_timeout());
    assert_eq!(session.reported_state(), Stopping);
    assert!(process.is_alive());

    drop(loss);
    process.cut();
    process.expect_end();
    expect_well(&session, &lock);
    assert_ne!(host.lifelines.next().pid, process.pid);
    events.expect(
        session.id(),
        &[Stopping, Inactive, Starting, Connecting, Active],
    );
}

#[test]
fn a_stop_of_what_cannot_be_killed_completes_when_it_dies() {
    let (host, session, lock, process, loss) = with_unkillable();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| supervised(&session).stop(LONG).unwrap());
        let error = supervised(&session).stop(ASKED).unwrap_err();
        assert_eq!(timed_out(&error).0, Phase::Stop);
        process.cut();
        assert!(stop.join().unwrap().exit.is_some());
    });
    drop(loss);
    assert!(!lock.is_held());
    host.unload(session.id()).unwrap();
}

#[test]
fn a_shutdown_names_what_cannot_be_killed() {
    let (mut host, session, lock, process, loss) = with_unkillable();
    let report = host.shutdown(Duration::from_millis(300));
    assert!(!report.is_complete(), "{report:?}");
    assert_eq!(report.unfinished, [session.id()]);
    assert!(
        report.threads.iter().any(|name| name == "host-reaper"),
        "{report:?}"
    );
    assert!(lock.is_held());
    drop(loss);
    process.cut();
    // The reaper ends after the last child.
    drop(host.take());
    host.expect_no_threads();
    assert!(!lock.is_held());
}

/// What the system's files say of a kill is not waited for longer than for a plugin's last words, and
/// comes too late then.
#[test]
fn what_is_found_out_too_late_changes_nothing_that_was_decided() {
    for transport in TRANSPORTS {
        let (host, session) = TestHost::running("late-inquest", transport, &["behave"]);
        let mut events = host.events();
        let hold = fault::hold(fault::INQUEST, session.id());
        let pid = call(&session, "describe", &json!({})).unwrap();
        let pid = pid["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let pid = Pid::from_raw(pid.unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        assert!(hold.reached(LONG), "nothing was to be found out");
        events.until(session.id(), Restarting);
        hold.release();
        session.wait_for(Active, LONG).unwrap();
        let ends = session.restart_history();
        assert_eq!(ends.len(), 1, "{ends:?}");
        assert_eq!(ends[0].problem.cause(), Some(EndCause::KilledBySignal));
    }
}

#[test]
fn a_plugin_that_connects_before_it_is_handed_over_has_been_active() {
    let host = TestHost::new("early");
    let session = host.install(fixture(&host, Transport::WebSocket, &["behave"]));
    let hold = fault::hold(fault::SPAWNED, session.id());
    supervised(&session).start().unwrap();
    assert!(hold.reached(LONG), "it was not spawned");
    session.wait_for(Active, LONG).unwrap();
    hold.release();
    let pid = call(&session, "describe", &json!({})).unwrap()["pid"].as_i64();
    let pid = pid.and_then(|pid| i32::try_from(pid).ok());
    let mut events = host.events();
    kill_process(Pid::from_raw(pid.unwrap()).unwrap(), Signal::KILL).unwrap();
    events.until(session.id(), Restarting);
    let ends = session.restart_history();
    assert!(ends[0].problem.active_for().is_some(), "{ends:?}");
}
