//! Races, brought about on purpose: the host is held at a point where two things could meet, the other thing
//! happens, and it is let go. Whatever was asked for last must win, with one process at most, and with nothing left
//! of what was asked for before.

use std::time::{Duration, Instant};

use plugin_runner::ReportedState::Inactive;
use plugin_runner::error::Phase;
use plugin_runner::fault::{self, Hold};
use plugin_runner::protocol::Transport;
use plugin_runner::{Error, Keeper, Session};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::place::{Place, packed};
use crate::support::events::Events;
use crate::support::host::{TestHost, active, supervised};
use crate::support::http::Request;
use crate::support::lifeline::Lifeline;
use crate::support::lock::Lock;
use crate::support::plugin::{TRANSPORTS, call, target};
use crate::support::{LONG, assert_matches, timed_out};

/// Long enough to ask for something, and no more.
pub(crate) const ASKED: Duration = Duration::from_millis(1);

/// Those that every run passes.
const POINTS: [&str; 4] = [
    fault::PREPARING,
    fault::EXITED,
    fault::RESERVED,
    fault::ATTACHED,
];

/// And those of a child process.
const POINTS_OF_A_CHILD: [&str; 2] = [fault::SPAWNED, fault::REAPED];

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
pub(crate) struct Held {
    pub(crate) session: Session,
    pub(crate) lock: Lock,
    pub(crate) events: Events,
    pub(crate) hold: Hold,
}

impl Held {
    /// Brings a plugin to the point.
    #[track_caller]
    pub(crate) fn at(
        place: &Place,
        host: &TestHost,
        transport: Transport,
        point: &'static str,
    ) -> Self {
        let session = host.install(packed(host, transport, &["alone", "echo-env"]));
        let lock = place.lock(host, session.id());
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
pub(crate) fn expect_well(session: &Session, lock: &Lock) {
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

pub(crate) fn last_request_wins_at(place: &Place, point: &'static str) {
    for transport in TRANSPORTS {
        let host = place.host();
        for requests in REQUESTS {
            println!("{point}, {transport}: {requests:?}");
            let mut held = Held::at(place, &host, transport, point);
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

pub(super) fn the_last_request_wins_while_a_run_is_prepared(place: &Place) {
    last_request_wins_at(place, fault::PREPARING);
}

pub(super) fn the_last_request_wins_between_an_exit_and_its_reaping(place: &Place) {
    last_request_wins_at(place, fault::EXITED);
}

pub(super) fn the_last_request_wins_while_a_newcomer_is_let_in(place: &Place) {
    last_request_wins_at(place, fault::RESERVED);
}

pub(super) fn the_last_request_wins_before_a_handshake_is_answered(place: &Place) {
    last_request_wins_at(place, fault::ATTACHED);
}

pub(super) fn an_unload_at_any_point_leaves_nothing(place: &Place) {
    for (point, transport) in everywhere(place) {
        println!("{point}, {transport}");
        let host = place.host_with(|setup| {
            setup.timeouts(|timeouts| {
                timeouts
                    .stop(Duration::from_millis(50))
                    .stop_grace(Duration::from_millis(5))
            });
            // It has a thread of its own from the first process on, which not every point comes to.
            setup.configure(|builder| builder.keeper(Keeper::None));
        });
        let idle = host.thread_count();
        let held = Held::at(place, &host, transport, point);
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

pub(super) fn a_shutdown_at_any_point_leaves_nothing(place: &Place) {
    for (point, transport) in everywhere(place) {
        println!("{point}, {transport}");
        let host = place.host();
        let held = Held::at(place, &host, transport, point);
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

fn everywhere(place: &Place) -> impl Iterator<Item = (&'static str, Transport)> {
    let of_a_child = POINTS_OF_A_CHILD.into_iter();
    let of_a_child = of_a_child.filter(|_| place.has_children());
    let points = POINTS.into_iter().chain(of_a_child);
    points.flat_map(|point| TRANSPORTS.map(|transport| (point, transport)))
}

/// What the plugin's run number `run`, counted from 0, was told to connect to.
pub(crate) fn told_target(host: &TestHost, session: &Session, run: usize) -> String {
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
pub(crate) fn expect_refused(host: &TestHost, target: &str) {
    assert_eq!(Request::upgrade(target).send(host.address()).status, 401);
}

pub(super) fn a_token_is_spent_from_the_moment_in_which_its_bearer_is_let_in(place: &Place) {
    for point in [fault::RESERVED, fault::ATTACHED] {
        let host = place.host();
        let held = Held::at(place, &host, Transport::WebSocket, point);
        let target = told_target(&host, &held.session, 0);
        expect_refused(&host, &target);
        held.hold.release();
        expect_well(&held.session, &held.lock);
        expect_refused(&host, &target);
        assert_eq!(held.session.counters().connections, 1);
    }
}

pub(super) fn a_connection_that_was_let_in_by_an_earlier_run_never_becomes_the_next_ones(
    place: &Place,
) {
    let host = place.host();
    let held = Held::at(place, &host, Transport::WebSocket, fault::RESERVED);
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
