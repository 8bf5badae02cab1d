//! Runs that end, are lost, or never end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use plugin_runner::Health;
use plugin_runner::ReportedState::{Active, Errored, Inactive, Restarting, Stopping};
use plugin_runner::error::Phase;
use plugin_runner::report::{EndCause, ExitReason};
use plugin_runner::runtime::{RunExit, StopSignal};

use super::own::{Behaviour, NAME, Own, plugin};
use crate::support::events::Details as _;
use crate::support::host::{TestHost, active, supervised};
use crate::support::{LONG, timed_out, wait_until};

const EVERY_SIGNAL: &[StopSignal] = &[
    StopSignal::Interrupt,
    StopSignal::Terminate,
    StopSignal::Kill,
];

fn lost(text: &str) -> RunExit {
    RunExit::new(ExitReason::Unknown).lost(text)
}

#[test]
fn a_run_that_was_lost_is_no_crash() {
    let own = Own::new();
    let host = own.host("lost");
    let mut events = host.events();
    let session = host.start(plugin(&host, "lost"));
    for number in 0..6 {
        events.until(session.id(), Active);
        own.run(number).end(lost("the machine went away"));
        let change = events.until(session.id(), Restarting);
        let details = change.details();
        assert_eq!(change.message(), Some("the machine went away"));
        assert_eq!(details["cause"], "connection_lost");
        assert_eq!(details["runtime_provider"], NAME);
        assert_eq!(
            (&details["stage"], &details["attempts"]),
            (&"exit".into(), &1.into())
        );
        assert_eq!(details.get("pid"), None);
    }
    events.until(session.id(), Active);
    let history = session.restart_history();
    let causes: Vec<_> = history.iter().map(|end| end.problem.cause()).collect();
    assert_eq!(causes, [Some(EndCause::ConnectionLost); 6]);
}

#[test]
fn a_run_that_the_host_gave_up_for_its_lost_connection_may_have_been_lost_itself() {
    let own = Own::behaving(Behaviour {
        ignores: EVERY_SIGNAL,
        ..Behaviour::default()
    });
    let host = own.host_with("given-up-and-lost", |setup| {
        setup.timeouts(|timeouts| timeouts.disconnect_grace(Duration::from_millis(1)));
        setup.policy(|policy| policy.max_restart_attempts(0));
    });
    let mut events = host.events();
    let session = host.start(plugin(&host, "lost"));
    for number in 0..3 {
        events.until(session.id(), Active);
        let run = own.run(number);
        run.close_pipes();
        wait_until("the kill of a run without a connection", || {
            run.signals() == [StopSignal::Kill]
        });
        run.end(lost("nobody knows where it is"));
        let change = events.until(session.id(), Restarting);
        assert_eq!(change.message(), Some("nobody knows where it is"));
        assert_eq!(change.details()["cause"], "connection_lost");
        assert_eq!(change.details()["restarts"], 0);
    }
    events.until(session.id(), Active);
    // One that was there is to blame.
    let run = own.run(3);
    run.close_pipes();
    wait_until("the kill", || run.signals() == [StopSignal::Kill]);
    run.end(RunExit::new(ExitReason::Signal(9)));
    let change = events.until(session.id(), Errored);
    assert_eq!(change.details()["cause"], "connection_lost");
    let message = change.message().unwrap();
    assert!(message.ends_with("within 1ms and was killed"), "{message}");
}

#[test]
fn a_run_that_seemed_not_to_respond_may_have_been_lost() {
    let own = Own::behaving(Behaviour {
        ignores: EVERY_SIGNAL,
        ..Behaviour::default()
    });
    let runtime = own.clone();
    let host = own.host_with("silent-and-lost", |setup| {
        let health = Health::default()
            .interval(Duration::from_millis(100))
            .timeout(Duration::from_millis(700))
            .misses_allowed(1);
        setup.configure(move |builder| builder.runtime(runtime).health(health));
        setup.policy(|policy| policy.max_restart_attempts(0));
    });
    let mut events = host.events();
    let session = host.start(plugin(&host, "lost"));
    for text in [Some("nobody knows where it is"), None] {
        events.until(session.id(), Active);
        let run = own.run(own.count() - 1);
        run.fall_silent();
        wait_until("the kill of a silent run", || {
            run.signals() == [StopSignal::Kill]
        });
        let exit = RunExit::new(ExitReason::Signal(9));
        if let Some(text) = text {
            run.end(exit.lost(text));
            let change = events.until(session.id(), Restarting);
            assert_eq!(change.message(), Some(text));
            assert_eq!(change.details()["cause"], "connection_lost");
        } else {
            run.end(exit);
            let change = events.until(session.id(), Errored);
            assert_eq!(change.details()["cause"], "unresponsive");
        }
    }
}

#[test]
fn why_a_run_ended_is_told_as_the_runtime_knows_it() {
    let own = Own::behaving(Behaviour {
        pid: Some(4711),
        ..Behaviour::default()
    });
    let host = own.host("known-ends");
    let mut events = host.events();
    let session = host.start(plugin(&host, "ending"));
    events.until(session.id(), Active);
    own.run(0)
        .end(RunExit::new(ExitReason::Signal(9)).out_of_memory());
    let change = events.until(session.id(), Restarting);
    assert_eq!(change.details()["cause"], "out_of_memory");
    assert_eq!(change.details()["signal_name"], "SIGKILL");
    assert_eq!(change.details()["pid"], 4711);

    events.until(session.id(), Active);
    own.run(1).end(RunExit::new(ExitReason::Code(7)));
    let change = events.until(session.id(), Restarting);
    assert_eq!(change.message(), Some("exit status 7"));
    assert_eq!(change.details()["cause"], "exited");
}

#[test]
fn a_kill_where_the_run_is_shows_in_the_report_of_the_stop() {
    let own = Own::behaving(Behaviour {
        ignores: EVERY_SIGNAL,
        ..Behaviour::default()
    });
    let host = own.host_with("killed-elsewhere", |setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(LONG / 2));
    });
    let session = host.start(plugin(&host, "stubborn"));
    active(&session);
    let mut events = host.events();
    let run = own.run(0);
    let stop = thread::spawn({
        let session = session.clone();
        move || supervised(&session).stop(LONG).unwrap()
    });
    events.until(session.id(), Stopping);
    run.end(RunExit::new(ExitReason::Signal(9)).killed());
    let report = stop.join().unwrap();
    assert!(report.killed, "{report:?}");
    assert_eq!(report.exit, Some(ExitReason::Signal(9)));
}

#[test]
fn a_run_that_never_ends_is_told_by_name_and_no_second_one_comes() {
    let own = Own::behaving(Behaviour {
        ignores: EVERY_SIGNAL,
        ..Behaviour::default()
    });
    let mut host: TestHost = own.host("never-ending");
    let session = host.start(plugin(&host, "endless"));
    active(&session);
    let limit = Duration::from_millis(400);
    let error = supervised(&session).stop(limit).unwrap_err();
    assert_eq!(timed_out(&error), (Phase::Stop, limit));
    assert_eq!(session.reported_state(), Stopping);
    assert_eq!(own.run(0).signals(), EVERY_SIGNAL);
    supervised(&session).start().unwrap();
    let error = supervised(&session).stop(limit).unwrap_err();
    assert_eq!(timed_out(&error), (Phase::Stop, limit));
    assert_eq!(own.count(), 1);

    let id = session.id();
    let report = host.take().shutdown(limit);
    assert!(!report.is_complete(), "{report:?}");
    assert_eq!(report.unfinished, [id]);
    assert!(
        report.threads.contains(&"host-reaper".to_owned()),
        "{report:?}"
    );
    // The host goes on waiting for it, and then ends.
    own.run(0).end(RunExit::new(ExitReason::Signal(9)));
    host.expect_no_threads();
    assert_eq!(own.calls(), ["start", "shut_down"]);
}

#[test]
fn a_run_that_ends_late_is_a_stop_that_goes_on() {
    let own = Own::behaving(Behaviour {
        ignores: EVERY_SIGNAL,
        ..Behaviour::default()
    });
    let host = own.host("late-end");
    let session = host.start(plugin(&host, "late"));
    active(&session);
    let mut events = host.events();
    supervised(&session)
        .stop(Duration::from_millis(300))
        .unwrap_err();
    own.run(0).end(RunExit::new(ExitReason::Signal(9)));
    events.until(session.id(), Inactive);
}

/// What the examination keeps on its stack, which debug builds copy more than once.
const STACK: usize = 96 * 1024;

#[allow(clippy::large_stack_arrays, reason = "that is what is being tested")]
fn examine_with_a_large_stack() {
    let buffer = std::hint::black_box([1_u8; STACK]);
    assert_eq!(
        buffer.iter().map(|byte| usize::from(*byte)).sum::<usize>(),
        STACK
    );
}

#[test]
fn an_examination_has_a_stack_to_work_with() {
    let own = Own::behaving(Behaviour {
        examine: Some(examine_with_a_large_stack),
        ..Behaviour::default()
    });
    let host = own.host("large-examination");
    own.ends_once(&host);
}

static GATE: AtomicBool = AtomicBool::new(false);

fn examine_until_let_go() {
    wait_until("the test to let go", || GATE.load(Ordering::SeqCst));
}

#[test]
fn an_examination_without_end_holds_nothing_up() {
    let own = Own::behaving(Behaviour {
        examine: Some(examine_until_let_go),
        ..Behaviour::default()
    });
    let host = own.host("endless-examination");
    let (session, mut events) = own.ends_once(&host);
    // What is left of it was killed meanwhile.
    assert_eq!(own.run(0).signals(), [StopSignal::Kill]);
    events.until(session.id(), Active);
    // A stop waits for none.
    own.run(1).end(RunExit::new(ExitReason::Code(5)));
    let report = supervised(&session).stop(LONG).unwrap();
    assert!(!report.killed);
    GATE.store(true, Ordering::SeqCst);
}
