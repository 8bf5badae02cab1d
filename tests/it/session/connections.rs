//! One connection at a time: who is refused, and who comes next. Close codes are those that the
//! plugin sees.

use std::time::SystemTime;

use plugin_runner::duplex::memory;
use plugin_runner::{ActiveState, Error, InstallationId, ReportedState};

use crate::support::session::{Bench, GO, Plugin, connect};
use crate::support::{LONG, assert_matches};

#[test]
fn a_second_connection_is_refused_and_the_first_stays() {
    let bench = Bench::new();
    let first = bench.connect();
    let (ours, theirs) = memory::pair(1);
    let refused = bench.session.connect(ours, GO).unwrap_err();
    let id = bench.session.id();
    assert_matches!(refused, Error::AlreadyConnected(found) if found == id);
    assert!(refused.is_retryable());
    // The newcomer's end is closed, and the incumbent has noticed nothing.
    Plugin::over(theirs).expect_end();
    bench.ping(&first);
    assert!(first.has_nothing_more());
    assert_eq!(bench.session.reported_state(), ReportedState::Active);
    assert_eq!(bench.session.counters().connections, 1);
}

#[test]
fn of_many_that_connect_at_once_one_gets_in() {
    let bench = Bench::new();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let (ours, theirs) = memory::pair(16);
                    (bench.session.connect(ours, ""), theirs)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut accepted = Vec::new();
    for (outcome, theirs) in outcomes {
        match outcome {
            Ok(()) => accepted.push(Plugin::over(theirs)),
            Err(error) => assert_matches!(error, Error::AlreadyConnected(_)),
        }
    }
    assert_eq!(accepted.len(), 1);
    bench.ping(&accepted[0]);
}

#[test]
fn after_a_lost_connection_the_plugin_connects_again() {
    let bench = Bench::new();
    let mut started_at = None;
    for round in 1..=3 {
        let before = SystemTime::now();
        let plugin = bench.connect();
        assert_eq!(bench.session.reported_state(), ReportedState::Active);
        assert_eq!(bench.session.error_message(), None);
        bench.ping(&plugin);
        let now = bench.session.started_at().unwrap();
        assert!(now >= before && started_at.is_none_or(|then| now >= then));
        started_at = Some(now);
        drop(plugin);
        bench.wait_for(ReportedState::Connecting);
        assert_eq!(bench.session.error_message().unwrap(), "connection lost");
        assert_eq!(bench.session.counters().connections, round);
    }
}

#[test]
fn the_next_connection_may_be_of_another_kind() {
    let bench = Bench::new();
    bench.ping(&bench.connect());
    bench.wait_for(ReportedState::Connecting);
    let socket = bench.connect_socket();
    bench.ping(&socket);
    socket.close(1001, "");
    bench.wait_for(ReportedState::Connecting);
    assert_eq!(
        bench.session.error_message().unwrap(),
        "closed by the plugin (code 1001)"
    );
    bench.ping(&bench.connect());
}

#[test]
fn a_deactivated_plugin_sees_close_1000_and_may_not_connect() {
    let bench = Bench::new();
    for over_socket in [false, true] {
        let plugin = if over_socket {
            bench.connect_socket()
        } else {
            bench.connect()
        };
        bench.set(ActiveState::Inactive);
        assert_eq!(plugin.expect_close(), (1000, "closed".to_owned()));
        assert_eq!(bench.session.reported_state(), ReportedState::Inactive);
        assert_eq!(bench.session.error_message(), None);

        let (ours, _theirs) = memory::pair(1);
        let refused = bench.session.connect(ours, "").unwrap_err();
        assert_eq!(refused.to_string(), "the plugin is inactive");

        bench.set(ActiveState::Active);
        assert_eq!(bench.session.reported_state(), ReportedState::Connecting);
    }
    bench.ping(&bench.connect());
}

#[test]
fn stopping_and_starting_twice_changes_nothing() {
    let bench = Bench::new();
    let plugin = bench.connect();
    bench.set(ActiveState::Active);
    bench.ping(&plugin);
    for _ in 0..2 {
        bench.set(ActiveState::Inactive);
    }
    for _ in 0..2 {
        bench.set(ActiveState::Active);
    }
    bench.ping(&bench.connect());
}

#[test]
fn an_unloaded_plugin_sees_close_1000() {
    let bench = Bench::new();
    let plugin = bench.connect_socket();
    bench.host.unload(bench.session.id()).unwrap();
    assert_eq!(plugin.expect_close(), (1000, "closed".to_owned()));
}

#[test]
fn at_shutdown_plugins_see_close_1012_so_that_they_come_back() {
    let bench = Bench::new();
    let others = [(); 3].map(|()| bench.load(|record| record));
    let mut plugins: Vec<_> = others.iter().map(|session| connect(session, GO)).collect();
    plugins.push(bench.connect_socket());
    assert!(bench.host.shutdown(LONG).is_complete());
    for plugin in plugins {
        assert_eq!(
            plugin.expect_close(),
            (1012, "host is shutting down".to_owned())
        );
    }
}

#[test]
fn a_plugin_that_never_reads_does_not_hold_up_the_shutdown() {
    let bench = Bench::new();
    let _never_read = bench.connect_silent();
    let other = bench.load(|record| record);
    let plugin = connect(&other, "");
    let report = bench.host.shutdown(LONG);
    assert!(report.is_complete(), "{report:?}");
    assert!(report.took < LONG / 3, "{report:?}");
    assert_eq!(plugin.expect_close().0, 1012);
}

#[test]
fn a_connection_is_made_through_the_host_by_id() {
    let bench = Bench::new();
    let (ours, theirs) = memory::pair(16);
    bench.host.connect(bench.session.id(), ours, GO).unwrap();
    bench.ping(&Plugin::over(theirs));

    let unknown = InstallationId::generate();
    let (ours, _theirs) = memory::pair(1);
    let refused = bench.host.connect(unknown, ours, GO).unwrap_err();
    assert_matches!(refused, Error::NotLoaded(found) if found == unknown);
}
