//! A service that is away, limits requests, lies or goes to sleep: the plugin is not to blame. Each failure uses up
//! none of its restarts, of which these hosts allow none, and it is active again afterwards; it never runs twice,
//! and nothing that is on its sprite already is uploaded again.

// A server that means harm.
mod malice;

use std::time::{Duration, Instant};

use plugin_runner::ReportedState::{Active, Inactive, Restarting, Stopping};
use plugin_runner::protocol::Transport;
use plugin_runner::report::EndCause;
use plugin_runner::{Error, Session};
use serde_json::{Value, json};

use super::place::{Place, packed};
use crate::sprites::{Answer, Fault, SocketFault, Status};
use crate::support::events::Details as _;
use crate::support::host::{Setup, TestHost, active, supervised};
use crate::support::lifeline::Lifeline;
use crate::support::plugin::{TRANSPORTS, call};
use crate::support::{LONG, assert_matches, wait_for, wait_until, wait_within};

/// For what waits for several steps of a ladder.
const LADDER: Duration = Duration::from_secs(90);

/// A plugin on a sprite, whose first crash would be its last.
struct Stage<'a> {
    place: &'a Place,
    host: TestHost,
    session: Session,
    process: Lifeline,
}

/// Settings with which a plugin is `errored` by the first failure that counts.
fn strict(setup: &mut Setup) {
    setup.policy(|policy| {
        policy
            .max_restart_attempts(0)
            .crash_threshold(Duration::from_secs(3600))
    });
}

impl<'a> Stage<'a> {
    /// With a plugin that is active.
    #[track_caller]
    fn new(place: &'a Place, transport: Transport) -> Self {
        Self::with(place, transport, |_| {})
    }

    #[track_caller]
    fn with(place: &'a Place, transport: Transport, change: impl FnOnce(&mut Setup)) -> Self {
        let host = place.host_with(|setup| {
            strict(setup);
            change(setup);
        });
        let session = host.run(packed(&host, transport, &["alone", "write-file", "starts"]));
        let process = host.lifelines.next();
        Self {
            place,
            host,
            session,
            process,
        }
    }

    fn sprite(&self) -> String {
        self.place.sprite(self.session.id()).unwrap()
    }

    fn fault(&self, times: usize, pattern: &str, fault: Fault) {
        self.place
            .fake()
            .set(|switches| switches.next(times, pattern, fault));
    }

    fn away(&self, is_away: bool) {
        self.place.fake().set(|switches| switches.away = is_away);
    }

    #[track_caller]
    fn stop(&self) {
        supervised(&self.session).stop(LONG).unwrap();
    }

    fn start(&self) {
        supervised(&self.session).start().unwrap();
    }

    /// The next process has come up, and is the only one.
    #[track_caller]
    fn next(&mut self) {
        self.process = self.host.lifelines.next();
        self.expect_well();
    }

    /// The plugin is well, and the same process as before.
    #[track_caller]
    fn expect_well(&self) {
        active(&self.session);
        let answer = call(&self.session, "describe", &json!({})).unwrap();
        assert_eq!(answer["pid"], self.process.pid);
        self.place.expect_one_at_a_time(&self.host);
        let lock = self.place.lock(&self.host, self.session.id());
        lock.expect_one_at_a_time();
    }

    /// How often a socket was opened to the program that runs.
    fn attaches(&self) -> usize {
        let calls = self.place.fake().calls();
        let attaches = calls.of("GET */exec/*");
        attaches.filter(|call| call.status == Some(101)).count()
    }

    /// The socket of its program is open again, after so many times before.
    #[track_caller]
    fn expect_attached(&self, before: usize) {
        let (fake, sprite) = (self.place.fake(), self.sprite());
        let is_there = || self.attaches() > before && fake.attached(&sprite) == 1;
        wait_within("the socket to be there", LADDER, is_there);
    }

    /// Whichever process is there once the plugin answers: it is well, and the only one.
    #[track_caller]
    fn settle(&mut self) {
        let mut pid = Value::Null;
        wait_within("an answer", LADDER, || {
            let answer = call(&self.session, "describe", &json!({}));
            answer.is_ok_and(|answer| {
                pid = answer["pid"].clone();
                true
            })
        });
        self.process = wait_for("its lifeline", || {
            let mut living = self.host.lifelines.living().into_iter();
            living.find(|process| pid == process.pid)
        });
        self.expect_well();
    }

    /// What the plugin prints arrives in its log.
    #[track_caller]
    fn expect_heard(&self, line: &str) {
        let params = json!({"line": line, "stream": "stderr"});
        call(&self.session, "log", &params).unwrap();
        self.host
            .output
            .wait_for(line, |found| (found.text == line).then_some(()));
    }

    /// Forgets what was asked, in order to count what comes.
    fn uploads(&self) -> usize {
        self.place.fake().calls().count("PUT */fs/write")
    }
}

/// What each of these tests does, with a plugin over either transport.
fn with_each(place: &Place, act: impl Fn(&mut Stage<'_>)) {
    for transport in TRANSPORTS {
        println!("{transport}");
        let mut stage = Stage::new(place, transport);
        let uploads = stage.uploads();
        act(&mut stage);
        stage.expect_well();
        assert_eq!(stage.uploads(), uploads, "something was uploaded again");
        assert_eq!(
            place.fake().calls().count("POST /v1/sprites"),
            creates(place)
        );
        let counted = stage.session.restart_history();
        assert!(counted.iter().all(|end| !end.given_up), "{counted:?}");
        stage.stop();
    }
}

/// As many creates as there are sprites.
fn creates(place: &Place) -> usize {
    place.fake().sprites().len()
}

#[test]
fn a_start_waits_for_a_service_that_is_away() {
    let place = Place::sprites("away-at-start");
    for transport in TRANSPORTS {
        let host = place.host_with(strict);
        // Longer than one request is tried again, with all of the waits between.
        for fault in [Fault::Drop, Fault::Answer(Answer::html(503))] {
            place.fake().set(|switches| switches.next(4, "*", fault));
        }
        let session = host.start(packed(&host, transport, &["alone"]));
        session.wait_for(Active, LADDER).unwrap();
        call(&session, "echo", &json!({})).unwrap();
        assert_eq!(host.lifelines.most_at_once(), 1);
    }
    assert_eq!(
        place
            .fake()
            .calls()
            .of("POST /v1/sprites")
            .filter(|call| call.status == Some(201))
            .count(),
        2
    );
    place.finish();
}

#[test]
fn a_start_that_the_service_refuses_for_long_is_tried_again_by_the_host() {
    let place = Place::sprites("away-for-long");
    let host = place.host_with(strict);
    // The wait that is asked for is longer than a start may take.
    let limited = Answer::rate_limited("rate_limited", Some(3600), None);
    place
        .fake()
        .set(|switches| switches.next(1, "GET */exec", Fault::Answer(limited)));
    let mut events = host.events();
    let session = host.start(packed(&host, Transport::Stdio, &["alone"]));
    let change = events.until(session.id(), Restarting);
    assert!(
        change.message().unwrap().contains("limits requests"),
        "{change:?}"
    );
    assert_eq!(change.details()["cause"], "could_not_prepare");
    assert_eq!(change.details()["restarts"], 0);
    active(&session);
    drop(host);
    place.finish();
}

#[test]
fn creates_and_starts_that_are_limited_wait_as_long_as_they_are_told() {
    let place = Place::sprites("limited");
    for (pattern, code) in [
        ("POST /v1/sprites", "sprite_creation_rate_limited"),
        ("GET */exec", "rate_limited"),
    ] {
        println!("{pattern}");
        let host = place.host_with(strict);
        for (header, body) in [(Some(1), None), (None, Some(2))] {
            let limited = Answer::rate_limited(code, header, body);
            place
                .fake()
                .set(|switches| switches.next(1, pattern, Fault::Answer(limited)));
        }
        let began = Instant::now();
        let session = host.run(packed(&host, Transport::WebSocket, &["alone"]));
        assert!(
            began.elapsed() >= Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(session.restart_history(), []);
    }
    assert_eq!(place.fake().sprites().len(), 2);
    place.finish();
}

#[test]
fn a_plugin_runs_on_while_the_service_is_away() {
    let place = Place::sprites("away-while-active");
    let stage = Stage::new(&place, Transport::WebSocket);
    stage.away(true);
    // Its connection to the host does not go by way of the service.
    let sprite = stage.sprite();
    wait_until("the socket to end", || place.fake().attached(&sprite) == 0);
    stage.expect_well();
    stage.away(false);
    stage.expect_attached(0);
    stage.expect_heard("after the outage");
    stage.expect_well();
    assert_eq!(stage.session.restart_history(), []);
    drop(stage);
    place.finish();
}

#[test]
fn a_stdio_plugin_comes_back_after_an_outage_and_is_not_to_blame() {
    let place = Place::sprites("away-stdio");
    let mut stage = Stage::new(&place, Transport::Stdio);
    let uploads = stage.uploads();
    let mut events = stage.host.events();
    let params = json!({"ms": 600_000});
    let waiting = stage
        .session
        .start_call_raw("sleep", &params, LONG)
        .unwrap();
    stage.away(true);
    let error = waiting.wait().unwrap_err();
    assert!(error.is_disconnected(), "{error}");
    stage.away(false);
    let change = events.until(stage.session.id(), Restarting);
    assert_eq!(change.details()["cause"], "connection_lost", "{change:?}");
    assert_eq!(change.details()["restarts"], 0);
    stage.next();
    let [end] = &stage.session.restart_history()[..] else {
        panic!("{:?}", stage.session.restart_history());
    };
    assert_eq!(end.problem.cause(), Some(EndCause::ConnectionLost));
    assert!(!end.given_up);
    assert_eq!(stage.uploads(), uploads);
    drop(stage);
    place.finish();
}

#[test]
fn a_program_that_ends_while_the_service_is_away_is_started_again() {
    let place = Place::sprites("ends-while-away");
    let mut stage = Stage::new(&place, Transport::WebSocket);
    let uploads = stage.uploads();
    stage.away(true);
    stage.process.signal(rustix::process::Signal::KILL);
    stage.process.expect_end();
    stage.away(false);
    stage.next();
    assert_eq!(stage.uploads(), uploads);
    drop(stage);
    place.finish();
}

#[test]
fn a_stop_while_the_service_is_away_ends_in_time_and_is_done_later() {
    let place = Place::sprites("stop-while-away");
    for transport in TRANSPORTS {
        println!("{transport}");
        let mut stage = Stage::with(&place, transport, |setup| {
            setup.timeouts(|timeouts| timeouts.stop_grace(Duration::from_secs(1)));
        });
        stage.away(true);
        let (limit, began) = (Duration::from_secs(2), Instant::now());
        let stopped = supervised(&stage.session).stop(limit);
        assert!(began.elapsed() < limit + LONG / 2, "{:?}", began.elapsed());
        if let Err(error) = stopped {
            assert_matches!(error, Error::Timeout { .. });
            assert_eq!(stage.session.reported_state(), Stopping);
        }
        stage.away(false);
        let mut events = stage.host.events();
        while stage.session.reported_state() != Inactive {
            events.until(stage.session.id(), Inactive);
        }
        stage.process.expect_end();
        stage.start();
        stage.next();
        stage.stop();
    }
    place.finish();
}

#[test]
fn a_shutdown_while_the_service_is_away_ends_in_time_and_the_next_host_ends_what_is_left() {
    let place = Place::sprites("shutdown-while-away");
    for transport in TRANSPORTS {
        println!("{transport}");
        let mut stage = Stage::new(&place, transport);
        let (store, id) = (stage.host.store().clone(), stage.session.id());
        stage.away(true);
        let began = Instant::now();
        let report = stage.host.take().shutdown(Duration::from_secs(2));
        assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
        println!("{report:?}");
        stage.away(false);
        let next = place.host_with(|setup| {
            strict(setup);
            setup.configure(|builder| builder.store(store));
        });
        let session = next.load(id).unwrap();
        supervised(&session).start().unwrap();
        active(&session);
        stage.process.expect_end();
        // Its lifeline is the first host's, as its archive is.
        let answer = call(&session, "describe", &json!({})).unwrap();
        assert_ne!(answer["pid"], stage.process.pid);
        place.expect_lone_sessions();
        stage.host.expect_no_threads();
        drop(next);
    }
    place.finish();
}

#[test]
fn a_sprite_that_goes_cold_is_woken_with_all_its_files() {
    let place = Place::sprites("cold");
    with_each(&place, |stage| {
        let mut events = stage.host.events();
        place.fake().go_cold(&stage.sprite());
        stage.process.expect_end();
        let change = events.until(stage.session.id(), Restarting);
        assert_eq!(change.details()["restarts"], 0, "{change:?}");
        stage.next();
        let data = place.data(&stage.host, stage.session.id());
        let starts = std::fs::read_to_string(data.join("starts")).unwrap();
        assert_eq!(starts.lines().count(), 2);
    });
    place.finish();
}

#[test]
fn a_stopped_plugin_whose_sprite_has_gone_cold_starts_without_an_upload() {
    let place = Place::sprites("cold-stopped");
    with_each(&place, |stage| {
        stage.stop();
        place.fake().go_cold(&stage.sprite());
        stage.start();
        stage.next();
    });
    place.finish();
}

#[test]
fn a_sprite_that_goes_warm_goes_on_where_it_was() {
    let place = Place::sprites("warm");
    let stage = Stage::new(&place, Transport::WebSocket);
    place.fake().go_warm(&stage.sprite());
    stage.expect_attached(0);
    assert_eq!(place.fake().status(&stage.sprite()), Some(Status::Running));
    stage.expect_heard("awake");
    stage.expect_well();
    assert_eq!(stage.session.restart_history(), []);
    drop(stage);
    let mut stage = Stage::new(&place, Transport::Stdio);
    place.fake().go_warm(&stage.sprite());
    stage.next();
    drop(stage);
    place.finish();
}

#[test]
fn a_socket_that_is_cut_at_any_frame_costs_no_restart() {
    let place = Place::sprites("cut");
    with_each(&place, |stage| {
        for at in 0..=6 {
            for fault in [
                SocketFault::CutAfterSent(at),
                SocketFault::CutWithin(at + 1),
                SocketFault::CutAfterReceived(at),
                SocketFault::CloseAfterSent(at, 1000),
                SocketFault::CloseAfterSent(at, 1011),
            ] {
                println!("{fault:?}");
                stage.stop();
                let fake = place.fake();
                fake.set(|switches| {
                    switches.sockets.clear();
                    switches.sockets.push_back(fault);
                });
                stage.start();
                // Enough is said that the fault is met, which may take another process.
                let mut heard = 0;
                wait_within("answers", LADDER, || {
                    let line = json!({"line": heard.to_string(), "stream": "stderr"});
                    heard += usize::from(call(&stage.session, "log", &line).is_ok());
                    heard > at + 1
                });
                stage.settle();
            }
        }
    });
    place.finish();
}

#[test]
fn a_clock_that_is_an_hour_off_changes_nothing() {
    let place = Place::sprites("clock");
    for offset in [3_600, -3_600] {
        place.fake().set(|switches| switches.clock_offset = offset);
        with_each(&place, |stage| {
            stage.stop();
            stage.start();
            stage.next();
            let attaches = stage.attaches();
            place.fake().cut(&stage.sprite());
            match stage.session.manifest().transport {
                Transport::Stdio => stage.next(),
                _ => stage.expect_attached(attaches),
            }
        });
    }
    place.finish();
}

#[test]
fn answers_of_4_mib_come_whole_over_stdio() {
    let place = Place::sprites("large");
    let stage = Stage::new(&place, Transport::Stdio);
    // As much as a plugin's message may have, but for what stands around it.
    let bytes = 4 * 1024 * 1024 - 200;
    let big = json!({ "bytes": bytes });
    let start = || stage.session.start_call_raw("big", &big, LADDER).unwrap();
    for call in [start(), start(), start()] {
        let answer: Value = call.wait().unwrap().read().unwrap();
        assert_eq!(answer["text"].as_str().unwrap().len(), bytes);
    }
    let params = json!({ "text": "y".repeat(1024 * 1024) });
    let answer = stage.session.call_raw("echo", &params, LADDER).unwrap();
    assert!(
        answer.read::<Value>().unwrap()["echo"] == params,
        "another text came back"
    );
    stage.expect_well();
    drop(stage);
    place.finish();
}
