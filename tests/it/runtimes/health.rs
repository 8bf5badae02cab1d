//! Plugins that show no sign of life.

use std::time::Instant;

use plugin_runner::ReportedState::{Active, Connecting, Errored, Restarting};
use rustix::process::Signal;
use serde_json::json;

use super::place::{Place, packed};
use crate::health::{FOUND, quick};
use crate::support::LONG;
use crate::support::events::Details as _;
use crate::support::plugin::{TRANSPORTS, call, python};

pub(super) fn a_frozen_plugin_is_found_killed_and_started_again(place: &Place) {
    for transport in TRANSPORTS {
        let host = place.host_with(|setup| {
            setup.configure(|builder| builder.health(quick()));
        });
        let session = host.run(packed(&host, transport, &["behave"]));
        let process = host.lifelines.next();
        let mut events = host.events();
        process.signal(Signal::STOP);

        let lost = events.expect(session.id(), &[Connecting]);
        assert_eq!(lost.message(), Some(FOUND), "{transport}");
        let began = Instant::now();
        let change = events.expect(session.id(), &[Restarting]);
        // Not after the grace for processes whose connection ended, which is as long as this.
        assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
        assert_eq!(change.message(), Some(FOUND));
        assert_eq!(change.details()["cause"], "unresponsive");
        assert_eq!(change.details()["error"], FOUND);
        assert_eq!(change.details()["stage"], "exit");
        assert_eq!(change.details()["exit_status"], "signal: killed");
        let pid = change.details().get("pid").cloned();
        assert_eq!(pid, place.pid(&process).map(Into::into));
        process.expect_end();

        events.until(session.id(), Active);
        assert_ne!(host.lifelines.next().pid, process.pid);
        place.expect_one_at_a_time(&host);
        call(&session, "echo", &json!({})).unwrap();
        assert!(session.counters().pings_missed >= 3);
    }
}

pub(super) fn a_plugin_that_freezes_again_and_again_is_given_up(place: &Place) {
    let host = place.host_with(|setup| {
        setup.configure(|builder| builder.health(quick().misses_allowed(1)));
        setup.policy(|policy| policy.max_restart_attempts(1));
    });
    let session = host.run(python(&host, "freezes"));
    let mut events = host.events();
    host.lifelines.next().signal(Signal::STOP);
    events.until(session.id(), Active);
    host.lifelines.next().signal(Signal::STOP);
    let change = events.until(session.id(), Errored);
    let found = "unresponsive: no sign of life for 1.4s";
    assert_eq!(change.message(), Some(found));
    assert_eq!(session.error_message().as_deref(), Some(found));
    assert_eq!(session.error_details()["cause"], "unresponsive");
    assert_eq!(session.error_details()["restarts"], 1);
}
