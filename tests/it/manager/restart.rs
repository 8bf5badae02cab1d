//! Restarting: the same plugin once more, and still wanted as it was.

use std::thread;
use std::time::Duration;

use plugin_runner::ReportedState::{Active, Connecting, Errored, Inactive, Starting, Stopping};
use plugin_runner::error::Disconnect;
use plugin_runner::{ActiveState, Error, InstallationId};
use serde_json::json;

use super::{Managed, settings};
use crate::support::peer::Peer;
use crate::support::plugin::{TRANSPORTS, manifest};
use crate::support::{LONG, assert_matches, refusing_state};

/// Longer than any test may take: whoever waits for it waits in vain.
const FOREVER: Duration = Duration::from_secs(3600);

#[test]
fn a_restart_ends_one_process_and_starts_the_next() {
    for transport in TRANSPORTS {
        let managed = Managed::new("restart");
        let id = managed.running(managed.package_of("scripted", "1", transport, &["alone"]));
        let first = managed.host.lifelines.next();
        let before = managed.get(id).unwrap();
        let session = managed.session(id);
        let sleep = json!({"ms": 3_600_000});
        let call = session.start_call_raw("sleep", &sleep, FOREVER).unwrap();
        let mut events = managed.host.events();
        let after = managed.restart(id, LONG).unwrap();
        assert_eq!(after.reported_state(), Active);
        assert_eq!(
            after.record(),
            before.record(),
            "the wanted state is the same"
        );
        assert!(after.since() > before.since());
        events.expect(id, &[Stopping, Inactive, Starting, Connecting, Active]);
        first.expect_end();
        let error = call.wait().unwrap_err();
        let cause = assert_matches!(&error, Error::Disconnected(cause) => cause);
        assert_matches!(
            &**cause,
            Disconnect::ByHost { code: 1012, reason } if &**reason == "restarted"
        );
        managed.lock(id).expect_one_at_a_time();
        assert_eq!(managed.answering_version(id), "1");
    }
}

#[test]
fn one_that_is_down_or_was_never_loaded_is_started() {
    let managed = Managed::new("restart-down");
    let failing = managed.installed(managed.package("1", &["exit-at", "start", "7"]));
    managed.activate(failing, LONG).unwrap_err();
    let error = managed.restart(failing, LONG).unwrap_err();
    assert_eq!(refusing_state(&error), Errored);
    managed.deactivate(failing, LONG).unwrap();
    // Wanted active, and another part of the program has unloaded it.
    let id = managed.running(managed.package("2", &[]));
    managed.host.unload(id).unwrap();
    assert_eq!(managed.restart(id, LONG).unwrap().reported_state(), Active);
    assert_eq!(managed.answering_version(id), "2");
}

#[test]
fn an_inactive_plugin_is_not_restarted() {
    let managed = Managed::new("restart-inactive");
    let id = managed.installed(managed.package("1", &[]));
    let events = managed.host.subscribe();
    for _ in 0..2 {
        let error = managed.restart(id, LONG).unwrap_err();
        assert_eq!(refusing_state(&error), Inactive);
        assert!(error.to_string().contains("not wanted active"), "{error}");
        assert_eq!(managed.get(id).unwrap().reported_state(), Inactive);
        assert!(events.try_recv().is_err(), "something was started");
        // The same once it is loaded.
        drop(managed.host.load(id).unwrap());
    }
    let missing = InstallationId::generate();
    let error = managed.restart(missing, LONG).unwrap_err();
    assert_matches!(error, Error::NotInstalled(id) if id == missing);
}

#[test]
fn an_external_plugin_is_told_to_come_back_and_waited_for() {
    let managed = Managed::new("restart-external");
    let (installed, token) = managed.install_external(manifest("outside")).unwrap();
    let id = installed.id();
    let target = format!("/rpc?token={}", token.expose());
    let connect = || Peer::connect(managed.host.address(), &target);
    let mut peer = connect();
    managed.session(id).wait_for(Active, LONG).unwrap();
    thread::scope(|scope| {
        let restarting = scope.spawn(|| managed.restart(id, LONG));
        assert_eq!(peer.read_to_close(), Some(1012));
        let _back = connect();
        let back = restarting.join().unwrap().unwrap();
        assert_eq!(back.reported_state(), Active);
        assert_eq!(back.record().active_state, ActiveState::Active);
    });
    // One that does not come back.
    managed.session(id).wait_for(Connecting, LONG).unwrap();
    let limit = Duration::from_millis(50);
    let error = managed.restart(id, limit).unwrap_err();
    assert_matches!(error, Error::Timeout { limit: told, .. } if told == limit);
    assert_eq!(managed.get(id).unwrap().reported_state(), Connecting);
}

#[test]
fn a_stop_ends_a_restarts_wait_and_stays() {
    let managed = Managed::with("restart-stopped", settings());
    // Each start waits for the test.
    let package = managed.package("1", &["alone", "hang-at", "start", "gated"]);
    let id = managed.installed(package);
    managed.request_activation(id).unwrap();
    managed.host.lifelines.next().open_gate();
    managed.activate(id, LONG).unwrap();
    thread::scope(|scope| {
        let restarting = scope.spawn(|| managed.restart(id, FOREVER));
        let _second = managed.host.lifelines.next();
        managed.deactivate(id, LONG).unwrap();
        let error = restarting.join().unwrap().unwrap_err();
        assert_eq!(refusing_state(&error), Inactive);
    });
    assert_eq!(managed.get(id).unwrap().reported_state(), Inactive);
    managed.host.lifelines.expect_all_dead();
    managed.lock(id).expect_one_at_a_time();
}
