//! States of an external plugin, waiting for them, and hearing of them.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use plugin_runner::error::Phase;
use plugin_runner::{ActiveState, Error, PluginMode, ReportedState, StateChange};

use crate::support::plugin::With as _;
use crate::support::session::{Bench, SHORT, connect};
use crate::support::{LONG, assert_matches, refusing_state, timed_out};

use ReportedState::{Active, Connecting, Inactive};

#[test]
fn an_external_plugin_wanted_active_is_connecting_from_the_start() {
    let bench = Bench::new();
    let session = &bench.session;
    assert_eq!(session.reported_state(), Connecting);
    assert_eq!(session.mode(), PluginMode::External);
    assert!(session.supervised().is_none());
    assert_eq!(session.started_at(), None);
    assert_eq!(session.error_message(), None);
    assert!(session.error_details().is_empty());
    assert_eq!(session.manifest().id, "tested");
    let error = session.follow_log().unwrap_err();
    assert_eq!(error.to_string(), "an external plugin has no log here");
}

#[test]
fn an_external_plugin_wanted_inactive_stays_so_until_it_is_started() {
    let bench = Bench::with_record(|record| {
        record.with(|record| record.set_active_state(ActiveState::Inactive))
    });
    let session = &bench.session;
    assert_eq!(session.reported_state(), Inactive);
    let error = session.wait_for(Active, LONG).unwrap_err();
    assert_eq!(refusing_state(&error), Inactive);
    session.set_active_state(ActiveState::Active).unwrap();
    session.wait_for(Connecting, LONG).unwrap();
    bench.ping(&bench.connect());
}

#[test]
fn started_at_is_when_the_current_connection_became_active() {
    let bench = Bench::new();
    let before = SystemTime::now();
    let _plugin = bench.connect();
    let started_at = bench.session.started_at().unwrap();
    assert!(before <= started_at && started_at <= SystemTime::now());
    bench.set(ActiveState::Inactive);
    assert_eq!(bench.session.started_at(), Some(started_at));
}

#[test]
fn waiting_ends_when_the_state_comes() {
    let bench = Bench::new();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| bench.session.wait_for(Active, LONG));
        let _plugin = bench.connect();
        waiter.join().unwrap().unwrap();
    });
    // The plugin is gone; being in the state already is enough, however short the time.
    bench.wait_for(Connecting);
    bench.session.wait_for(Connecting, Duration::ZERO).unwrap();
}

#[test]
fn waiting_is_judged_from_the_call_on() {
    let bench = Bench::new();
    drop(bench.connect());
    bench.wait_for(Connecting);
    // It has been active, but not since.
    let error = bench.session.wait_for(Active, SHORT).unwrap_err();
    assert_eq!(timed_out(&error), (Phase::Connect, SHORT));
}

#[test]
fn a_state_that_has_passed_already_ends_the_wait_too() {
    let bench = Bench::new();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| bench.session.wait_for(Active, LONG));
        // Active for a moment, again and again: the waiter may begin at any time.
        let begun = Instant::now();
        while !waiter.is_finished() && begun.elapsed() < LONG {
            drop(bench.connect());
            bench.wait_for(Connecting);
        }
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn waiting_fails_at_once_when_the_plugin_is_stopped() {
    let bench = Bench::new();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| bench.session.wait_for(Active, LONG).unwrap_err());
        bench.set(ActiveState::Inactive);
        let error = waiter.join().unwrap();
        assert_eq!(refusing_state(&error), Inactive);
    });
}

#[test]
fn waiting_fails_at_once_when_the_plugin_is_unloaded() {
    let bench = Bench::new();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| bench.session.wait_for(Active, LONG).unwrap_err());
        bench.host.unload(bench.session.id()).unwrap();
        let error = waiter.join().unwrap();
        // It hears of the stop that comes before the unloading, or of that.
        assert_matches!(error, Error::State { .. } | Error::NotLoaded(_));
    });
    let error = bench.session.wait_for(Active, LONG).unwrap_err();
    assert_matches!(error, Error::NotLoaded(_));
}

#[test]
fn subscribers_hear_of_every_change_of_every_plugin_without_gaps() {
    let bench = Bench::new();
    let changes = bench.host.subscribe();
    let first = &bench.session;
    let second = bench.load(|record| record);
    drop(connect(first, ""));
    first.wait_for(Connecting, LONG).unwrap();
    let plugin = connect(&second, "");
    first.set_active_state(ActiveState::Inactive).unwrap();
    plugin.close(1001, "bye");
    second.wait_for(Connecting, LONG).unwrap();

    let changes: Vec<StateChange> = changes.try_iter().collect();
    let heard: Vec<_> = changes
        .iter()
        .map(|change| (change.plugin, change.from, change.to))
        .collect();
    let (first, second) = (first.id(), second.id());
    assert_eq!(
        heard,
        [
            (second, Inactive, Connecting),
            (first, Connecting, Active),
            (first, Active, Connecting),
            (second, Connecting, Active),
            (first, Connecting, Inactive),
            (second, Active, Connecting),
        ]
    );
    // Number 1 was before the subscription.
    let numbers: Vec<_> = changes.iter().map(|change| change.sequence).collect();
    assert_eq!(numbers, [2, 3, 4, 5, 6, 7]);
    assert!(
        changes
            .iter()
            .all(|change| change.missed == 0 && &*change.manifest_id == "tested")
    );
    let messages: Vec<_> = changes.iter().map(|change| change.message()).collect();
    assert_eq!(
        messages,
        [
            None,
            None,
            Some("connection lost"),
            None,
            None,
            Some("closed by the plugin (code 1001, bye)"),
        ]
    );
}

#[test]
fn a_subscriber_that_is_full_hears_how_many_it_missed() {
    let bench = Bench::new();
    let changes = bench.host.subscribe();
    for _ in 0..514 {
        bench.set(ActiveState::Inactive);
        bench.set(ActiveState::Active);
    }
    let heard = |change: StateChange| (change.sequence, change.missed);
    let kept: Vec<_> = changes.try_iter().map(heard).collect();
    let expected: Vec<_> = (2..=1025).map(|sequence| (sequence, 0)).collect();
    assert_eq!(kept, expected);
    bench.set(ActiveState::Inactive);
    assert_eq!(
        changes.try_iter().map(heard).collect::<Vec<_>>(),
        [(1030, 4)]
    );
}

#[test]
fn a_subscriber_hears_when_the_host_is_gone() {
    let bench = Bench::new();
    let changes = bench.host.subscribe();
    bench.host.shutdown(LONG);
    let change = changes.recv_timeout(LONG).expect("the stop");
    assert_eq!((change.from, change.to), (Connecting, Inactive));
    assert!(changes.is_empty());
}
