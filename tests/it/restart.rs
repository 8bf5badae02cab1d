//! Plugins that end, fall silent or lose their connection are started again, as the policy says.

use std::time::Duration;

use plugin_runner::ReportedState::{Active, Restarting, Starting};
use plugin_runner::{RestartPolicy, Session};
use serde_json::json;

use crate::runtimes::place::Place;
use crate::runtimes::restart::{expect_kill_after, impatient};
use crate::support::LONG;
use crate::support::host::{TestHost, active};
use crate::support::plugin::{TRANSPORTS, call, fixture, python};

fn stop(session: &Session) {
    session.supervised().unwrap().stop(LONG).unwrap();
}

/// Where a plugin runs elsewhere, it cannot be seen that it has closed its output.
#[test]
fn a_stdio_plugin_that_closes_its_output_and_lives_on_is_killed_after_the_grace() {
    let place = Place::local("lingers");
    let host = impatient(&place);
    let session = host.run(python(&host, "lingering"));
    expect_kill_after(&host, &session, "hang_up");
}

#[test]
fn who_left_the_process_group_is_found_and_killed() {
    for transport in TRANSPORTS {
        let (host, session) =
            TestHost::running("detached-found", transport, &["grandchild-detached"]);
        let lifelines = [host.lifelines.next(), host.lifelines.next()];
        let mut events = host.events();
        let _ = call(&session, "exit", &json!({"code": 1}));
        events.until(session.id(), Starting);
        // Already before the next run begins.
        let alive = lifelines.iter().filter(|lifeline| lifeline.is_alive());
        assert_eq!(alive.count(), 0);
        active(&session);
        stop(&session);
        host.lifelines.expect_all_dead();
    }
}

#[test]
fn who_left_the_process_group_is_killed_beside_the_next_run_where_nothing_is_waited_for() {
    for transport in TRANSPORTS {
        let host = TestHost::with("detached-beside", |setup| {
            setup.configure(|builder| {
                let policy = RestartPolicy::default()
                    .max_restart_attempts(u32::MAX)
                    .max_backoff(Duration::ZERO);
                builder.restart_policy(policy)
            });
        });
        let session = host.run(fixture(&host, transport, &["grandchild-detached"]));
        for _ in 0..5 {
            let lifelines = [host.lifelines.next(), host.lifelines.next()];
            let mut events = host.events();
            let _ = call(&session, "exit", &json!({"code": 1}));
            events.until(session.id(), Active);
            for lifeline in lifelines {
                lifeline.expect_end();
            }
        }
        // While what the last run left is looked for, or not yet.
        let _ = call(&session, "exit", &json!({"code": 1}));
        stop(&session);
        host.lifelines.expect_all_dead();
    }
}

#[test]
fn who_left_the_process_group_holds_up_nothing_where_it_is_not_looked_for() {
    for transport in TRANSPORTS {
        let host = TestHost::with("detached", |setup| {
            setup.configure(|builder| builder.find_descendants(false));
        });
        assert!(!host.guarantees().descendants_are_found);
        let session = host.run(fixture(&host, transport, &["grandchild-detached"]));
        let mut lifelines = vec![host.lifelines.next(), host.lifelines.next()];
        let mut events = host.events();
        // It still holds the pipes of the process that has gone.
        let _ = call(&session, "exit", &json!({"code": 1}));
        events.until(session.id(), Restarting);
        active(&session);
        lifelines.extend([host.lifelines.next(), host.lifelines.next()]);
        call(&session, "echo", &json!({})).unwrap();
        stop(&session);
        let alive: Vec<_> = lifelines
            .iter()
            .filter(|lifeline| lifeline.is_alive())
            .collect();
        assert_eq!(alive.len(), 2, "the two that detached themselves");
        for lifeline in alive {
            lifeline.cut();
        }
    }
}
