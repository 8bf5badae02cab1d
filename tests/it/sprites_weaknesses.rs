//! What is easily got wrong with plugins on sprites, as far as no other test shows it: a stop that finds no program
//! yet, a start that takes long, and a connection that keeps a sprite awake for nothing.

use std::time::{Duration, Instant};

use plugin_runner::ReportedState;
use plugin_runner::protocol::Transport;

use crate::runtimes::place::{Place, packed};
use crate::sprites::Fault;
use crate::support::host::{active, supervised};
use crate::support::plugin::TRANSPORTS;
use crate::support::{LONG, wait_until};

/// How many programs were started.
fn started(place: &Place) -> usize {
    let calls = place.fake().calls();
    let starts = calls.of("GET */exec").filter(|call| !call.query.is_empty());
    starts.count()
}

/// A stop that comes before there is a program neither waits for one nor lets one start later.
#[test]
fn a_stop_during_a_deployment_is_not_lost() {
    for pattern in ["POST /v1/sprites", "PUT */fs/write", "GET */fs/read"] {
        println!("{pattern}");
        let place = Place::sprites("stop-deploying");
        place
            .fake()
            .set(|switches| switches.next(1, pattern, Fault::Hang));
        let host = place.host();
        let session = host.start(packed(&host, Transport::Stdio, &["behave"]));
        wait_until("the request", || place.fake().calls().count(pattern) > 0);
        let began = Instant::now();
        supervised(&session).stop(LONG).unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(session.reported_state(), ReportedState::Inactive);
        assert_eq!(started(&place), 0);

        supervised(&session).start().unwrap();
        active(&session);
        drop(host);
        place.finish();
    }
}

/// How long a plugin was well is counted from when it was active, so one that crashes at once is given up however
/// long its sprite took.
#[test]
fn the_time_that_a_start_takes_is_no_uptime() {
    let threshold = Duration::from_millis(500);
    for transport in TRANSPORTS {
        println!("{transport}");
        let place = Place::sprites("slow-start");
        place.fake().set(|switches| {
            switches.next(100, "GET */fs/read", Fault::Delay(threshold * 2));
        });
        let host = place.host_with(|setup| {
            setup.policy(|policy| policy.max_restart_attempts(1).crash_threshold(threshold));
        });
        let session = host.start(packed(&host, transport, &["exit-at", "active", "7"]));
        session.wait_for(ReportedState::Errored, LONG).unwrap();
        let history = session.restart_history();
        assert_eq!(history.len(), 2, "{history:#?}");
        for end in history {
            let active_for = end.problem.active_for().unwrap_or_default();
            assert!(active_for < threshold, "{end:#?}");
        }
        drop(host);
        place.finish();
    }
}

/// An exec socket keeps a sprite awake, which costs: a plugin that is not wanted has none, and no thread.
#[test]
fn a_stopped_plugin_lets_its_sprite_sleep() {
    for transport in TRANSPORTS {
        println!("{transport}");
        let place = Place::sprites("asleep");
        let host = place.host();
        let session = host.run(packed(&host, transport, &["behave"]));
        let sprite = place.sprite(session.id()).unwrap();
        assert_eq!(place.fake().attached(&sprite), 1);
        supervised(&session).stop(LONG).unwrap();
        wait_until("its socket to be gone", || {
            place.fake().attached(&sprite) == 0
        });
        assert!(place.fake().sessions(&sprite).is_empty());
        place.fake().forget_calls();
        host.unload(session.id()).unwrap();
        assert_eq!(place.fake().calls().0.len(), 0, "it was woken");
        host.expect_threads(place.idle_threads(&host));
        drop(host);
        place.finish();
    }
}
