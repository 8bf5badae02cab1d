//! Ending a host: in order, reported, and with nothing left.

use std::time::Duration;

use plugin_runner::ReportedState::{Connecting, Inactive, Restarting};
use plugin_runner::store::Record;
use plugin_runner::{ActiveState, Error};
use serde_json::json;

use super::place::Place;
use crate::support::host::{Setup, active};
use crate::support::plugin::{call, manifest, printed_url, python, shell};
use crate::support::{LONG, assert_matches};

pub(super) fn shutdown_says_which_plugins_had_to_be_killed(place: &Place) {
    let host = place.host_with(|setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(Duration::from_secs(3)));
    });
    let deaf = host.install(shell(
        &host,
        "deaf",
        r#"trap "" INT TERM; echo "url -"; exec sleep 1000"#,
    ));
    deaf.supervised().unwrap().start().unwrap();
    printed_url(&host, &deaf, 0);
    let behaved = host.run(python(&host, "behaved"));
    let report = host.shutdown(LONG);
    assert_eq!(report.killed, [deaf.id()]);
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(host.thread_count(), 0);
    assert_eq!(host.shutdown(LONG), report, "once is enough");

    for session in [&deaf, &behaved] {
        assert_eq!(session.reported_state(), Inactive);
        let error = session.call_raw("echo", &json!({}), LONG).unwrap_err();
        assert_matches!(error, Error::NotLoaded(_) | Error::ShutDown);
        let error = session.supervised().unwrap().start().unwrap_err();
        assert_matches!(error, Error::ShutDown);
    }
    assert_matches!(host.load(deaf.id()), Err(Error::ShutDown));
    assert_matches!(host.listen("127.0.0.1:0"), Err(Error::ShutDown));
}

pub(super) fn shutdown_ends_plugins_in_every_state(place: &Place) {
    let host = place.host_with(Setup::stay_down_after_a_crash);
    let install = |record: Record| {
        let session = host.install(record);
        session.set_active_state(ActiveState::Active).unwrap();
        session
    };
    let connecting = install(shell(&host, "connecting", "exec sleep 1000"));
    connecting.wait_for(Connecting, LONG).unwrap();
    let backing_off = host.run(python(&host, "backing-off"));
    let mut events = host.events();
    call(&backing_off, "exit", &json!({"code": 1})).unwrap_err();
    events.until(backing_off.id(), Restarting);
    let errored = install(shell(&host, "errored", ""));
    host.unload(errored.id()).unwrap();
    let inactive = host.install(shell(&host, "inactive", ""));
    let outside = host.install(Record::external(manifest("outside")).unwrap());
    let starting = install(shell(&host, "starting", "exec sleep 1000"));
    let report = host.shutdown(LONG);
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.killed, []);
    for session in [connecting, backing_off, inactive, outside, starting] {
        assert_eq!(session.reported_state(), Inactive, "{session:?}");
    }
}

pub(super) fn dropping_the_last_handle_ends_everything(place: &Place) {
    let mut host = place.host();
    let session = host.run(python(&host, "child"));
    let lifeline = host.lifelines.next();
    let first = host.take();
    let second = first.clone();
    drop(first);
    // Another handle is left.
    call(&session, "echo", &json!({})).unwrap();
    assert!(lifeline.is_alive());
    drop(second);
    lifeline.expect_end();
    assert_eq!(host.thread_count(), 0);
    assert_eq!(session.reported_state(), Inactive);
}

pub(super) fn two_hosts_live_side_by_side(place: &Place) {
    let one = place.host();
    let other = place.host();
    let first = one.run(python(&one, "child"));
    let second = other.run(python(&other, "child"));
    assert_ne!(one.address(), other.address());
    drop(one);
    assert_eq!(first.reported_state(), Inactive);
    active(&second);
    call(&second, "echo", &json!({})).unwrap();
}
