//! Never two processes of one plugin at once, whatever is asked for and from how many sides.

use std::time::Duration;

use plugin_runner::{ActiveState, Error, ErrorKind, ReportedState, Session};
use rustix::process::Signal;
use serde_json::json;

use super::place::{Place, packed};
use crate::interleavings::answering;
use crate::support::LONG;
use crate::support::host::{TestHost, active, supervised};
use crate::support::lifeline::Lifeline;
use crate::support::plugin::{TRANSPORTS, With as _, call, over_stdio, shell};

/// Ends the process and sees to it that another comes.
type End = fn(&TestHost, &mut Session, &Lifeline);

pub(super) fn one_process_lives_at_a_time_through_every_kind_of_end(place: &Place) {
    let ends: [(&str, End); 6] = [
        ("a crash", |_, session, _| {
            call(session, "exit", &json!({"code": 3})).unwrap_err();
        }),
        ("a wish to be started again", |_, session, _| {
            call(session, "exit", &json!({"code": 0})).unwrap_err();
        }),
        ("a signal from elsewhere", |_, _, process| {
            process.signal(Signal::KILL);
        }),
        ("the end of the connection", |_, session, _| {
            // Answered or not: the connection may be gone first.
            let _ = call(session, "close", &json!({}));
        }),
        ("a stop and a start", |_, session, _| {
            supervised(session).stop(LONG).unwrap();
            supervised(session).start().unwrap();
        }),
        ("an unload and a load", |host, session, _| {
            host.unload(session.id()).unwrap();
            *session = host.load(session.id()).unwrap();
            supervised(session).start().unwrap();
        }),
    ];
    for transport in TRANSPORTS {
        let host = place.host_with(|setup| {
            setup.policy(|policy| policy.crash_threshold(Duration::ZERO));
        });
        let mut session = host.run(packed(&host, transport, &["behave"]));
        let mut process = host.lifelines.next();
        for (what, end) in ends {
            end(&host, &mut session, &process);
            let next = host.lifelines.next();
            process.expect_end();
            assert_ne!(process.pid, next.pid, "after {what}");
            active(&session);
            process = next;
        }
        place.expect_one_at_a_time(&host);
    }
}

pub(super) fn a_plugin_that_is_unloaded_and_loaded_at_once_starts_anew(place: &Place) {
    let host = place.host();
    let record = answering(&host, "again", "");
    let id = record.id;
    active(&host.install(record));
    for _ in 0..40 {
        host.unload(id).unwrap();
        active(&host.load(id).unwrap());
    }
}

pub(super) fn a_load_meets_an_unload_and_one_of_them_wins(place: &Place) {
    let host = place.host();
    for round in 0..40 {
        let record = answering(&host, &format!("met-{round}"), "");
        let id = record.id;
        host.store().put(record).unwrap();
        let loaded = host.load(id).unwrap();
        active(&loaded);
        let session = std::thread::scope(|scope| {
            scope.spawn(|| host.unload(id).unwrap());
            loop {
                let session = host.load(id).unwrap();
                match session.supervised().unwrap().start() {
                    Ok(()) => break session,
                    // It was on its way out when it was found.
                    Err(Error::NotLoaded(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        // Whichever it was: what was found is told the truth, and the plugin can be had again.
        match session.wait_for(ReportedState::Active, LONG) {
            Ok(()) | Err(Error::NotLoaded(_) | Error::State { .. }) => {}
            Err(error) if error.kind() == ErrorKind::PluginFailed => {}
            Err(error) => panic!("round {round}: {error}"),
        }
        active(&host.load(id).unwrap());
        host.unload(id).unwrap();
    }
}

pub(super) fn many_loads_at_once_are_one_and_its_stop_is_real(place: &Place) {
    let host = place.host_with(|setup| {
        setup.policy(|policy| policy.max_restart_attempts(0));
    });
    for round in 0..20 {
        let record = over_stdio(shell(&host, &format!("failing-{round}"), "exit 3"))
            .with(|record| record.set_active_state(ActiveState::Active));
        let id = record.id;
        host.store().put(record).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| host.load(id).unwrap());
            }
        });
        let session = host.session(id).unwrap();
        while session.reported_state() != ReportedState::Errored {
            // Waiting fails at once when it has errored already.
            let _ = session.wait_for(ReportedState::Errored, LONG);
        }
        session.supervised().unwrap().stop(LONG).unwrap();
        assert_eq!(session.reported_state(), ReportedState::Inactive);
    }
}

pub(super) fn a_start_is_never_answered_with_the_error_before_it(place: &Place) {
    let host = place.host_with(|setup| {
        setup.policy(|policy| policy.max_restart_attempts(0));
    });
    let flag = host.folder().join("ok");
    let before = format!("[ -e '{}' ] || exit 3", flag.display());
    let session = host.install(answering(&host, "flaky", &before));
    let supervised = session.supervised().unwrap();
    let mut events = host.events();
    for _ in 0..40 {
        let _ = std::fs::remove_file(&flag);
        supervised.start().unwrap();
        // In the moment in which it errs: the reaper is not done with it yet.
        events.until(session.id(), ReportedState::Errored);
        std::fs::write(&flag, "").unwrap();
        supervised.start().unwrap();
        session
            .wait_for(ReportedState::Active, LONG)
            .unwrap_or_else(|error| panic!("{error}; {:?}", session.error_details()));
        supervised.stop(LONG).unwrap();
    }
}
