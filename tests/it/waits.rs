//! Descendants that no look can end, as of a host that may not signal them: who waits for them, for how long,
//! and what is said of them.

use std::time::{Duration, Instant};

use plugin_runner::report::EndCause;
use plugin_runner::{ReportedState, Session, fault};

use crate::support::attack::{Attack, Said, Told, said};
use crate::support::host::TestHost;
use crate::support::{LONG, assert_matches, wait_until, wait_within};

/// What a stop has here.
const SHORT: Duration = Duration::from_secs(2);
/// What anything may take beyond its time.
const NOISE: Duration = Duration::from_secs(5);
/// How long a start waits for what the last run left.
const START_WAITS: Duration = Duration::from_secs(30);

const DESCENDANTS: usize = 5;

fn host(test: &'static str) -> TestHost {
    TestHost::with(test, |setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(Duration::from_secs(1)).stop(SHORT));
    })
}

/// A plugin with descendants.
#[track_caller]
fn run(host: &TestHost) -> (Session, Attack) {
    let attack = Attack::of(host, "left");
    let session = attack.run(host, "left", &["escape", &DESCENDANTS.to_string()]);
    (session, attack)
}

#[track_caller]
fn expect_all(told: Told) {
    assert_eq!((told.left, told.escaped), (DESCENDANTS, 0), "{told:?}");
    assert!(told.finished, "{told:?}");
}

#[track_caller]
fn expect_within(began: Instant, time: Duration) {
    let took = began.elapsed();
    assert!(took < time + NOISE, "it took {took:?}");
}

#[test]
fn a_stop_that_leaves_descendants_says_how_many_and_goes_on() {
    let host = host("stop-left");
    let (session, attack) = run(&host);
    let supervised = session.supervised().unwrap();
    let loss = fault::lose(fault::LOOKING, session.id());
    // The second waits for them again.
    for _ in 0..2 {
        let began = Instant::now();
        match said(&supervised.stop(SHORT)) {
            Said::Left(told) => expect_all(told),
            other => panic!("{other:?}"),
        }
        expect_within(began, SHORT);
        assert_eq!(session.reported_state(), ReportedState::Stopping);
        assert_eq!(attack.living().len(), DESCENDANTS);
    }
    drop(loss);
    wait_until("the plugin to be inactive", || {
        session.reported_state() == ReportedState::Inactive
    });
    attack.expect_all_dead(Duration::ZERO);
    assert_eq!(said(&supervised.stop(SHORT)), Said::Complete);
}

#[test]
fn a_start_waits_for_descendants_that_a_stop_left() {
    let host = host("start-left");
    let (session, attack) = run(&host);
    let supervised = session.supervised().unwrap();
    let loss = fault::lose(fault::LOOKING, session.id());
    assert_matches!(said(&supervised.stop(SHORT)), Said::Left(_));
    std::fs::remove_file(attack.folder().join("ready")).unwrap();
    supervised.start().unwrap();
    // Nothing tells that something does not happen: so long it does not.
    let connecting = session.wait_for(ReportedState::Connecting, Duration::from_millis(500));
    assert!(connecting.is_err(), "it was started beside them");
    assert_eq!(attack.living().len(), DESCENDANTS);
    drop(loss);
    attack.wait_until_ready();
    attack.expect_one_run_at_a_time();
    assert_eq!(said(&supervised.stop(LONG)), Said::Complete);
    attack.expect_all_dead(Duration::ZERO);
}

#[test]
fn a_restart_waits_for_descendants_and_gives_them_up_by_name() {
    let host = host("restart-left");
    let (session, attack) = run(&host);
    let loss = fault::lose(fault::LOOKING, session.id());
    let began = Instant::now();
    attack.crash();
    wait_within("the cause to be told", START_WAITS + LONG, || {
        let history = session.restart_history();
        history
            .iter()
            .any(|end| end.problem.cause() == Some(EndCause::DescendantsLeft))
    });
    let took = began.elapsed();
    assert!(took >= START_WAITS, "after {took:?} alone");
    expect_within(began, START_WAITS);
    assert_eq!(session.error_details()["cause"], "descendants_left");
    attack.expect_one_run_at_a_time();
    drop(loss);
    let stopped = session.supervised().unwrap().stop(LONG);
    assert_eq!(said(&stopped), Said::Complete);
    attack.expect_all_dead(Duration::ZERO);
}

#[test]
fn an_unload_returns_in_time_and_says_how_many_descendants_it_leaves() {
    let host = host("unload-left");
    let (session, attack) = run(&host);
    let loss = fault::lose(fault::LOOKING, session.id());
    let began = Instant::now();
    let unloaded = host.unload(session.id());
    expect_within(began, SHORT);
    match unloaded {
        Err(error) => expect_all(Told::read(&error.to_string())),
        Ok(()) => panic!("all is gone"),
    }
    assert!(host.session(session.id()).is_none(), "it is loaded still");
    assert_eq!(attack.living().len(), DESCENDANTS);
    drop(loss);
    attack.expect_all_dead(LONG);
}

#[test]
fn what_an_unloaded_plugin_left_is_waited_for_when_it_is_loaded_again() {
    let host = host("inherited-left");
    let (session, attack) = run(&host);
    let loss = fault::lose(fault::LOOKING, session.id());
    host.unload(session.id()).expect_err("they live");
    let again = host.load(session.id()).unwrap();
    let supervised = again.supervised().unwrap();
    // Never started, and not all gone.
    match said(&supervised.stop(SHORT)) {
        Said::Left(told) => expect_all(told),
        other => panic!("{other:?}"),
    }
    supervised.start().unwrap();
    match again.wait_for(ReportedState::Active, SHORT) {
        Err(error) => expect_all(Told::read(&error.to_string())),
        Ok(()) => panic!("it is active"),
    }
    attack.expect_one_run_at_a_time();
    drop(loss);
    again.wait_for(ReportedState::Connecting, LONG).unwrap();
    attack.expect_one_run_at_a_time();
    assert_eq!(said(&supervised.stop(LONG)), Said::Complete);
    attack.expect_all_dead(Duration::ZERO);
}

#[test]
fn a_shutdown_returns_in_time_and_says_how_many_descendants_it_leaves() {
    let mut host = host("shutdown-left");
    let (session, attack) = run(&host);
    let loss = fault::lose(fault::LOOKING, session.id());
    let began = Instant::now();
    let report = host.take().shutdown(SHORT);
    expect_within(began, SHORT);
    assert!(!report.is_complete(), "{report:?}");
    match &*report.descendants {
        [(id, told)] if *id == session.id() => expect_all(Told::read(told)),
        _ => panic!("{report:?}"),
    }
    assert_eq!(attack.living().len(), DESCENDANTS);
    // They are looked for on and on.
    drop(loss);
    attack.expect_all_dead(LONG);
    host.expect_no_threads();
}
