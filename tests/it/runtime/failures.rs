//! Starts that fail, and what is tried again.

use std::time::Duration;

use plugin_runner::ReportedState::{Active, Connecting, Errored, Inactive, Restarting, Starting};
use plugin_runner::report::ExitReason;
use plugin_runner::runtime::{Launch, RunExit, StopSignal};
use plugin_runner::{Error, ErrorKind, Session};
use rustix::event::{PollFd, PollFlags, poll};

use super::own::{Behaviour, NAME, Own, plugin};
use crate::support::events::Details as _;
use crate::support::host::{active, supervised};
use crate::support::plugin::external;
use crate::support::{LONG, failed, wait_until};

const PASSING: [ErrorKind; 3] = [
    ErrorKind::RuntimeUnavailable,
    ErrorKind::RateLimited,
    ErrorKind::Timeout,
];

/// Five of them, more than there are restarts.
fn five() -> Vec<ErrorKind> {
    PASSING.into_iter().cycle().take(5).collect()
}

#[track_caller]
fn expect_restarts(session: &Session, waits: &[u64]) {
    let history = session.restart_history();
    let found: Vec<_> = history
        .iter()
        .map(|end| end.problem.restart_after())
        .collect();
    let expected: Vec<_> = waits
        .iter()
        .map(|wait| Some(Duration::from_secs(*wait)))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn passing_failures_are_tried_again_and_use_up_no_restarts() {
    let own = Own::new().failing_with(five());
    let host = own.host("passing-failures");
    let mut events = host.events();
    let session = host.start(plugin(&host, "unlucky"));
    let id = session.id();
    for kind in five() {
        let change = events.expect(id, &[Starting, Restarting]);
        let details = change.details();
        let message = format!("could not prepare: {kind}: on purpose");
        assert_eq!(change.message(), Some(&*message));
        assert_eq!(details["cause"], "could_not_prepare");
        assert_eq!(details["runtime_provider"], NAME);
        assert_eq!(details["stage"], "start");
        assert_eq!(
            (&details["restarts"], &details["attempts"]),
            (&0.into(), &1.into())
        );
        assert_eq!(details.get("pid"), None);
    }
    events.expect(id, &[Starting, Connecting, Active]);
    let history = session.restart_history();
    assert_eq!(history.len(), 5);
    assert!(history.iter().all(|end| !end.given_up));

    // All of its restarts are still there.
    for number in 0..4 {
        own.run(number).end(RunExit::new(ExitReason::Code(3)));
        let state = if number < 3 { Restarting } else { Errored };
        let change = events.until(id, state);
        assert_eq!(change.details()["attempts"], number + 1);
        if number < 3 {
            events.until(id, Active);
        }
    }
    assert_eq!(own.count(), 4);
}

#[test]
fn passing_failures_wait_longer_each_time() {
    let own = Own::new().failing_with(five());
    let host = own.host_with("ladder", |setup| {
        setup.policy(|policy| policy.max_backoff(Duration::from_secs(10)));
    });
    let mut events = host.events();
    let session = host.start(plugin(&host, "unlucky"));
    for _ in 0..5 {
        events.until(session.id(), Restarting);
        // A start cuts the wait short, and the counting goes on.
        supervised(&session).start().unwrap();
    }
    events.until(session.id(), Active);
    expect_restarts(&session, &[1, 2, 4, 8, 10]);
}

#[test]
fn a_stop_ends_the_waiting_for_a_runtime_that_fails() {
    let own = Own::new().failing_with(vec![ErrorKind::RuntimeUnavailable; 3]);
    let host = own.host_with("stop-meanwhile", |setup| {
        setup.policy(|policy| policy.max_backoff(Duration::from_secs(3600)));
    });
    let mut events = host.events();
    let session = host.start(plugin(&host, "unlucky"));
    events.until(session.id(), Restarting);
    let report = supervised(&session).stop(LONG).unwrap();
    assert_eq!((report.exit, report.killed), (None, false));
    assert_eq!(session.reported_state(), Inactive);
    // The next start begins the ladder anew.
    supervised(&session).start().unwrap();
    events.until(session.id(), Restarting);
    expect_restarts(&session, &[1, 1]);
}

/// Waits until the start is cancelled, and says so.
fn hang(launch: &Launch<'_>) -> Error {
    let cancelled = launch.cancelled();
    let mut watched = [PollFd::from_borrowed_fd(cancelled, PollFlags::IN)];
    let limit = LONG.try_into().unwrap();
    assert_eq!(poll(&mut watched, Some(&limit)), Ok(1), "not cancelled");
    assert!(launch.is_cancelled());
    Error::new(ErrorKind::Cancelled, "the start was cancelled")
}

#[test]
fn a_start_that_hangs_is_cancelled_by_a_stop_and_by_a_shutdown() {
    let own = Own::new().on_start(|_, launch| Err(hang(launch)));
    let host = own.host("hanging-start");
    let mut events = host.events();
    let session = host.start(plugin(&host, "hanging"));
    events.until(session.id(), Starting);
    let report = supervised(&session).stop(LONG).unwrap();
    assert_eq!((report.exit, report.killed), (None, false));
    supervised(&session).start().unwrap();
    events.until(session.id(), Starting);
    // Its shutdown is complete, which its end checks.
    drop(host);
}

#[test]
fn a_run_that_is_started_all_the_same_is_killed_on_arrival() {
    let own = Own::new().on_start(|own, launch| {
        hang(launch);
        Ok(own.begin(Behaviour::default()))
    });
    let host = own.host("started-all-the-same");
    let session = host.start(plugin(&host, "late"));
    wait_until("the start", || own.calls() == ["start"]);
    let report = supervised(&session).stop(LONG).unwrap();
    assert_eq!(report.exit, Some(ExitReason::Signal(9)));
    assert_eq!(session.reported_state(), Inactive);
    assert_eq!(own.run(0).signals(), [StopSignal::Kill]);
    assert!(own.run(0).is_dropped());
}

#[test]
fn what_cannot_get_better_is_errored_at_once() {
    for kind in [ErrorKind::RuntimeRefused, ErrorKind::Unsupported] {
        let own = Own::new().failing_with(vec![kind; 2]);
        let host = own.host("refused");
        let mut events = host.events();
        let session = host.start(plugin(&host, "refused"));
        let change = events.expect(session.id(), &[Starting, Errored]);
        let message = format!("could not prepare: {kind}: on purpose");
        assert_eq!(change.message(), Some(&*message));
        assert_eq!(change.details()["attempts"], 1);
        assert_eq!(change.details()["runtime_provider"], NAME);
        let error = failed(
            ErrorKind::PluginFailed,
            session.wait_for(Active, Duration::ZERO),
        );
        assert_eq!(error.to_string(), message);
        assert_eq!(own.calls(), ["start"]);
    }
}

#[test]
fn any_other_failure_counts_as_a_crash() {
    let own = Own::new().failing_with(vec![ErrorKind::Overloaded; 4]);
    let host = own.host("other-failures");
    let mut events = host.events();
    let session = host.start(plugin(&host, "unlucky"));
    for attempt in 1..=4 {
        let state = if attempt < 4 { Restarting } else { Errored };
        let change = events.expect(session.id(), &[Starting, state]);
        assert_eq!(change.details()["attempts"], attempt);
    }
}

#[test]
fn a_stdio_plugin_is_refused_by_a_runtime_without_pipes_by_its_name() {
    let own = Own::behaving(Behaviour {
        is_mute: true,
        ..Behaviour::default()
    });
    let host = own.host("mute");
    let mut events = host.events();
    let session = host.start(plugin(&host, "mute"));
    let change = events.expect(session.id(), &[Starting, Connecting, Errored]);
    let expected =
        "could not prepare: the runtime own has no standard input and output for a stdio plugin";
    assert_eq!(change.message(), Some(expected));
    assert_eq!(own.count(), 1);
    assert!(own.run(0).is_dropped());
}

#[test]
fn what_the_runtime_does_not_accept_is_not_loaded() {
    let own = Own::new().on_accept(|record| {
        let name = &record.manifest.id;
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("{name} is too large for this place"),
        ))
    });
    let host = own.host("accept");
    let record = plugin(&host, "giant");
    let id = record.id;
    host.store().put(record).unwrap();
    let error = failed(ErrorKind::Unsupported, host.load(id));
    assert_eq!(error.to_string(), "giant is too large for this place");
    assert!(host.session(id).is_none());
    // Plugins that run elsewhere are no concern of the runtime's.
    let (outside, _) = external(&host, "outside");
    assert_eq!(outside.reported_state(), Connecting);
}

#[test]
fn a_plugin_in_a_place_of_the_embedders_own_lives_as_any_other() {
    let own = Own::new();
    let host = own.host("own-life");
    assert_eq!(host.runtime_name(), NAME);
    let session = host.start(plugin(&host, "elsewhere"));
    active(&session);
    own.run(0).print("hello from elsewhere");
    host.output.wait_for("what it printed", |line| {
        (line.text == "hello from elsewhere").then_some(())
    });
    let report = supervised(&session).stop(LONG).unwrap();
    // The end of its standard input is enough.
    assert_eq!(report.exit, Some(ExitReason::Code(0)));
    assert!(!report.killed && own.run(0).signals().is_empty());
    assert_eq!(own.calls(), ["start"]);
    drop(host);
    assert_eq!(own.calls(), ["start", "shut_down"]);
}
