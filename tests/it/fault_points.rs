//! Races, brought about on purpose: the host is held at a point where two things could meet, the
//! other thing happens, and it is let go. Whatever was asked for last must win, with one process at
//! most, and with nothing left of what was asked for before.

use std::time::{Duration, Instant};

use plugin_runner::ReportedState::{Active, Connecting, Inactive, Restarting, Starting, Stopping};
use plugin_runner::error::Phase;
use plugin_runner::fault::{self, Hold};
use plugin_runner::protocol::Transport;
use plugin_runner::report::EndCause;
use plugin_runner::{Error, Keeper, Session};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::events::Events;
use crate::support::host::{TestHost, active, supervised};
use crate::support::http::Request;
use crate::support::lifeline::Lifeline;
use crate::support::lock::Lock;
use crate::support::plugin::{TRANSPORTS, call, fixture, target};
use crate::support::{LONG, assert_matches, timed_out};

/// Long enough to ask for something, and no more.
const ASKED: Duration = Duration::from_millis(1);

const POINTS: [&str; 6] = [
    fault::PREPARING,
    fault::SPAWNED,
    fault::EXITED,
    fault::REAPED,
    fault::RESERVED,
    fault::ATTACHED,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Start,
    Stop,
}
use Ask::{Start, Stop};

/// What is asked for while the host is held, in this order.
const REQUESTS: [&[Ask]; 7] = [
    &[Start],
    &[Stop],
    &[Stop, Start],
    &[Start, Stop],
    &[Stop, Start, Stop],
    &[Stop, Start, Start],
    &[Stop, Stop, Start],
];

/// A plugin whose host is held.
struct Held {
    session: Session,
    lock: Lock,
    events: Events,
    hold: Hold,
}

impl Held {
    /// Brings a plugin to the point.
    #[track_caller]
    fn at(host: &TestHost, transport: Transport, point: &'static str) -> Self {
        let session = host.install(fixture(host, transport, &["alone", "echo-env"]));
        let lock = Lock::of(host, &session);
        let events = host.events();
        let hold = if matches!(point, fault::EXITED | fault::REAPED) {
            supervised(&session).start().unwrap();
            active(&session);
            let hold = fault::hold(point, session.id());
            next_living(host).signal(Signal::KILL);
            hold
        } else {
            let hold = fault::hold(point, session.id());
            supervised(&session).start().unwrap();
            hold
        };
        assert!(hold.reached(LONG), "{point} was not reached");
        Self {
            session,
            lock,
            events,
            hold,
        }
    }
}

/// The process that has come up, past those of plugins before.
fn next_living(host: &TestHost) -> Lifeline {
    loop {
        let next = host.lifelines.next();
        if next.is_alive() {
            return next;
        }
    }
}

/// The plugin must be well, or come to it, and be the only one of its kind.
#[track_caller]
fn expect_well(session: &Session, lock: &Lock) {
    let deadline = Instant::now() + LONG;
    let params = json!({"are": "you well"});
    loop {
        active(session);
        // An answer of the process before, whose end has not been acted upon, is none: it may end any
        // moment.
        match call(session, "echo", &params) {
            Ok(answer) if lock.is_held() => break assert_eq!(answer["echo"], params),
            Ok(_) => assert!(Instant::now() < deadline, "it answers without a process"),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
    lock.expect_one_at_a_time();
}

/// The plugin must be stopped, or come to it, and stay so.
#[track_caller]
fn expect_stopped(session: &Session, lock: &Lock, events: &mut Events) {
    while session.reported_state() != Inactive {
        events.until(session.id(), Inactive);
    }
    // The reaper has heard everything that was asked for before this.
    let report = supervised(session).stop(LONG).unwrap();
    assert_eq!(report.exit, None, "something was running");
    assert_eq!(session.reported_state(), Inactive);
    assert!(!lock.is_held(), "its process is there");
    lock.expect_one_at_a_time();
}

fn last_request_wins_at(point: &'static str) {
    for transport in TRANSPORTS {
        let host = TestHost::new("last-wins");
        for requests in REQUESTS {
            println!("{point}, {transport}: {requests:?}");
            let mut held = Held::at(&host, transport, point);
            let mut legal = host.events();
            for request in requests {
                match request {
                    Start => supervised(&held.session).start().unwrap(),
                    Stop => match supervised(&held.session).stop(ASKED) {
                        Ok(_) | Err(Error::Timeout { .. }) => {}
                        Err(error) => panic!("{error}"),
                    },
                }
            }
            held.hold.release();
            match requests.last() {
                Some(Start) => expect_well(&held.session, &held.lock),
                _ => expect_stopped(&held.session, &held.lock, &mut held.events),
            }
            host.unload(held.session.id()).unwrap();
            assert!(
                !held.lock.is_held(),
                "it was unloaded and its process is there"
            );
            legal.heard(&held.session);
        }
    }
}

#[test]
fn the_last_request_wins_while_a_run_is_prepared() {
    last_request_wins_at(fault::PREPARING);
}

#[test]
fn the_last_request_wins_between_a_spawn_and_its_telling() {
    last_request_wins_at(fault::SPAWNED);
}

#[test]
fn the_last_request_wins_between_an_exit_and_its_reaping() {
    last_request_wins_at(fault::EXITED);
}

#[test]
fn the_last_request_wins_between_a_reaping_and_what_follows() {
    last_request_wins_at(fault::REAPED);
}

#[test]
fn the_last_request_wins_while_a_newcomer_is_let_in() {
    last_request_wins_at(fault::RESERVED);
}

#[test]
fn the_last_request_wins_before_a_handshake_is_answered() {
    last_request_wins_at(fault::ATTACHED);
}

#[test]
fn an_unload_at_any_point_leaves_nothing() {
    for (point, transport) in everywhere() {
        println!("{point}, {transport}");
        let host = TestHost::with("unload-held", |setup| {
            setup.timeouts(|timeouts| {
                timeouts
                    .stop(Duration::from_millis(50))
                    .stop_grace(Duration::from_millis(5))
            });
            // It has a thread of its own from the first process on, which not every point comes to.
            setup.configure(|builder| builder.keeper(Keeper::None));
        });
        let idle = host.thread_count();
        let held = Held::at(&host, transport, point);
        let id = held.session.id();
        match host.unload(id) {
            // The point does not hold up the reaper.
            Ok(()) => assert!(host.session(id).is_none()),
            Err(error) => {
                assert_eq!(timed_out(&error).0, Phase::Stop);
                assert!(host.session(id).is_some(), "it is not unloaded, and gone");
            }
        }
        held.hold.release();
        while let Err(error) = host.unload(id) {
            // As often as this machine needs to kill it in that time.
            assert_eq!(timed_out(&error).0, Phase::Stop);
        }
        assert!(
            !held.lock.is_held(),
            "it was unloaded and its process is there"
        );
        let error = supervised(&held.session).start().unwrap_err();
        assert_matches!(error, Error::NotLoaded(_));
        host.expect_threads(idle);
        let again = host.load(id).unwrap();
        supervised(&again).start().unwrap();
        expect_well(&again, &held.lock);
    }
}

#[test]
fn a_shutdown_at_any_point_leaves_nothing() {
    for (point, transport) in everywhere() {
        println!("{point}, {transport}");
        let host = TestHost::new("shutdown-held");
        let held = Held::at(&host, transport, point);
        let mut legal = host.events();
        std::thread::scope(|scope| {
            let shutdown = scope.spawn(|| host.shutdown(LONG));
            // From the moment in which it begins nothing is published any more.
            while host.publish("EventNone", &json!({})).is_ok() {
                std::thread::yield_now();
            }
            held.hold.release();
            let report = shutdown.join().unwrap();
            assert!(report.is_complete(), "{report:?}");
        });
        assert!(
            !held.lock.is_held(),
            "its host is gone and its process is there"
        );
        assert_eq!(held.session.reported_state(), Inactive);
        legal.heard(&held.session);
    }
}

fn everywhere() -> impl Iterator<Item = (&'static str, Transport)> {
    POINTS
        .into_iter()
        .flat_map(|point| TRANSPORTS.map(|transport| (point, transport)))
}

/// What the plugin's run number `run`, counted from 0, was told to connect to.
fn told_target(host: &TestHost, session: &Session, run: usize) -> String {
    let id = session.id();
    let url = host
        .output
        .wait_for_nth("with the environment", run, |line| {
            let said: Value = (line.plugin == id)
                .then(|| serde_json::from_str(&line.text).ok())
                .flatten()?;
            Some(said["environment"]["STORYDEN_RPC_URL"].as_str()?.to_owned())
        });
    target(&url)
}

#[track_caller]
fn expect_refused(host: &TestHost, target: &str) {
    assert_eq!(Request::upgrade(target).send(host.address()).status, 401);
}

#[test]
fn a_token_is_spent_from_the_moment_in_which_its_bearer_is_let_in() {
    for point in [fault::RESERVED, fault::ATTACHED] {
        let host = TestHost::new("spent-held");
        let held = Held::at(&host, Transport::WebSocket, point);
        let target = told_target(&host, &held.session, 0);
        expect_refused(&host, &target);
        held.hold.release();
        expect_well(&held.session, &held.lock);
        expect_refused(&host, &target);
        assert_eq!(held.session.counters().connections, 1);
    }
}

#[test]
fn a_connection_that_was_let_in_by_an_earlier_run_never_becomes_the_next_ones() {
    let host = TestHost::new("late-connection");
    let held = Held::at(&host, Transport::WebSocket, fault::RESERVED);
    let first = host.lifelines.next();
    // Its handshake has been accepted; it dies before the connection is the session's.
    first.signal(Signal::KILL);
    // The next run is not kept out by what has not come to its end.
    expect_well(&held.session, &held.lock);
    let second = host.lifelines.next();
    held.hold.release();
    expect_well(&held.session, &held.lock);
    assert!(second.is_alive());
    assert_eq!(held.session.counters().connections, 1);
    expect_refused(&host, &told_target(&host, &held.session, 0));
    expect_refused(&host, &told_target(&host, &held.session, 1));
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
    let host = TestHost::new("early-connection");
    let mut held = Held::at(&host, Transport::WebSocket, fault::SPAWNED);
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
