//! Runtimes that panic.

use plugin_runner::ReportedState::{Active, Errored, Restarting, Starting};
use plugin_runner::Session;
use plugin_runner::report::ExitReason;
use plugin_runner::runtime::{RunExit, StopSignal};

use super::own::{Behaviour, Own, plugin};
use crate::support::LONG;
use crate::support::events::Details as _;
use crate::support::host::{TestHost, active, supervised};

fn panicking(methods: &'static [&'static str]) -> Own {
    // The first plugin's runs panic, and the others' do not.
    Own::new().on_start(move |own, launch| {
        let is_first = launch.record().manifest.id == "panicking";
        Ok(own.begin(Behaviour {
            panics_in: if is_first { methods } else { &[] },
            ..Behaviour::default()
        }))
    })
}

/// Another plugin is well.
#[track_caller]
fn expect_other(host: &TestHost, other: &Session) {
    assert_eq!(other.reported_state(), Active);
    supervised(other).stop(LONG).unwrap();
    supervised(other).start().unwrap();
    active(other);
    drop(host.events());
}

#[test]
fn a_start_that_panics_is_a_crash() {
    let own = Own::new().on_start(|_, _| panic!("on purpose"));
    let host = own.host("panicking-start");
    let mut events = host.events();
    let session = host.start(plugin(&host, "panicking"));
    let change = events.expect(session.id(), &[Starting, Restarting]);
    let message = change.message().unwrap();
    assert!(message.contains("panicked: on purpose"), "{message}");
    let change = events.until(session.id(), Errored);
    assert_eq!(change.details()["attempts"], 4);
}

/// The supervision gives the plugin up, and can be asked to start it again.
#[track_caller]
fn given_up(methods: &'static [&'static str], provoke: impl Fn(&Own, &Session)) {
    let own = panicking(methods);
    let host = own.host("panicking-handle");
    let other = host.start(plugin(&host, "other"));
    active(&other);
    let mut events = host.events();
    let session = host.start(plugin(&host, "panicking"));
    for round in 1..3 {
        provoke(&own, &session);
        let change = events.until(session.id(), Errored);
        let message = change.message().unwrap();
        assert_eq!(
            message, "the supervision panicked: on purpose",
            "{methods:?}"
        );
        assert_eq!(change.details()["cause"], "internal_error");
        assert!(own.run(round).is_dropped(), "{methods:?}");
        supervised(&session).start().unwrap();
    }
    // It may be active, or have errored again.
    supervised(&session).stop(LONG).unwrap();
    expect_other(&host, &other);
}

#[test]
fn a_handle_that_panics_while_it_is_asked_what_it_is_costs_its_run_alone() {
    given_up(&["describe"], |_, _| {});
    given_up(&["pid"], |_, _| {});
}

#[test]
fn a_handle_that_panics_while_it_is_watched_costs_its_run_alone() {
    given_up(&["ended"], |_, _| {});
}

fn end_it(own: &Own, session: &Session) {
    active(session);
    own.run(own.count() - 1)
        .end(RunExit::new(ExitReason::Code(3)));
}

#[test]
fn a_handle_that_panics_at_the_end_costs_its_run_alone() {
    given_up(&["finish"], end_it);
    given_up(&["examine"], end_it);
}

#[test]
fn a_stop_of_a_run_whose_signals_panic_returns() {
    let own = Own::new().on_start(|own, _| {
        Ok(own.begin(Behaviour {
            panics_in: &["signal"],
            ignores: &[StopSignal::Interrupt],
            ..Behaviour::default()
        }))
    });
    let host = own.host("panicking-signal");
    let session = host.start(plugin(&host, "panicking"));
    active(&session);
    supervised(&session).stop(LONG).unwrap();
    assert!(own.run(0).is_dropped());
    let last = session.restart_history().pop().unwrap();
    assert_eq!(
        last.problem.message(),
        "the supervision panicked: on purpose"
    );
}

#[test]
fn a_stop_of_a_run_that_panics_at_every_turn_returns() {
    let own = Own::new().on_start(|own, _| {
        Ok(own.begin(Behaviour {
            panics_in: &["signal", "finish"],
            ignores: &[StopSignal::Interrupt],
            ..Behaviour::default()
        }))
    });
    let host = own.host("panicking-finish");
    let session = host.start(plugin(&host, "panicking"));
    active(&session);
    supervised(&session).stop(LONG).unwrap();
    supervised(&session).start().unwrap();
    active(&session);
}

fn panic_at_once() {
    panic!("on purpose");
}

#[test]
fn an_examination_that_panics_finds_nothing_out() {
    let own = Own::behaving(Behaviour {
        examine: Some(panic_at_once),
        ..Behaviour::default()
    });
    let host = own.host("panicking-examination");
    own.ends_once(&host);
}
