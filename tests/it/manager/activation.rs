//! Starting and stopping, and operations that meet each other.

use std::thread;
use std::time::Duration;

use plugin_runner::error::Phase;
use plugin_runner::manager::PackageSource;
use plugin_runner::report::ExitReason;
use plugin_runner::store::Overrides;

use plugin_runner::{ActiveState, Error, ErrorKind, InstallationId, ReportedState, fault};

use super::{Managed, settings};
use crate::support::host::TestHost;
use crate::support::plugin::manifest;
use crate::support::{LONG, assert_matches, failed, refusing_state, timed_out};

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn activating_waits_until_the_plugin_is_active() {
    let managed = Managed::new("activate");
    let id = managed.installed(managed.package("1", &[]));
    let before = managed.get(id).unwrap().record().active_state_changed_at;
    let active = managed.activate(id, LONG).unwrap();
    assert_eq!(active.reported_state(), ReportedState::Active);
    assert_eq!(active.record().active_state, ActiveState::Active);
    assert!(active.record().active_state_changed_at >= before);
    assert_eq!(managed.answering_version(id), "1");
    let first = managed.host.lifelines.next();
    // Once more changes nothing.
    let again = managed.activate(id, LONG).unwrap();
    assert_eq!(again.record(), active.record());
    assert_eq!(again.since(), active.since());
    assert!(first.is_alive());
    let stopped = managed.deactivate(id, LONG).unwrap();
    assert_eq!(stopped.reported_state(), ReportedState::Inactive);
    assert_eq!(stopped.record().active_state, ActiveState::Inactive);
    assert_eq!(stopped.since(), stopped.record().active_state_changed_at);
    assert!(!first.is_alive());
    // And so does this.
    let again = managed.deactivate(id, LONG).unwrap();
    assert_eq!(again.record(), stopped.record());
}

#[test]
fn a_plugin_that_cannot_start_says_why_at_once_and_an_old_error_does_not_count() {
    let managed = Managed::new("errored");
    let id = managed.installed(managed.package("1", &[]));
    // What it needs goes, by hand.
    let release = managed.folder(id).join("releases");
    let release = release.join(super::sha256(&managed.get(id).unwrap()));
    std::fs::rename(release.join("run"), release.join("moved")).unwrap();
    let error = managed.activate(id, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginFailed);
    let shown = managed.get(id).unwrap();
    assert_eq!(shown.reported_state(), ReportedState::Errored);
    assert_eq!(shown.record().active_state, ActiveState::Active);
    assert_eq!(shown.message(), Some(&*error.to_string()));
    std::fs::rename(release.join("moved"), release.join("run")).unwrap();
    let active = managed.activate(id, LONG).unwrap();
    assert_eq!(active.reported_state(), ReportedState::Active);
    assert_eq!(active.message(), None);
}

#[test]
fn a_plugin_that_crashes_at_every_start_is_errored_with_its_exit() {
    let managed = Managed::new("crashes");
    let id = managed.installed(managed.package("1", &["exit-at", "start", "7"]));
    let error = managed.activate(id, LONG).unwrap_err();
    assert_eq!(refusing_state(&error), ReportedState::Errored);
    assert!(error.to_string().contains('7'), "{error}");
    let shown = managed.get(id).unwrap();
    let problem = shown.problem().unwrap();
    assert_eq!(problem.exit(), Some(ExitReason::Code(7)));
    assert_eq!(shown.message(), Some(problem.message()));
    let stopped = managed.deactivate(id, LONG).unwrap();
    assert_eq!(stopped.reported_state(), ReportedState::Inactive);
    assert_eq!(stopped.message(), None);
}

#[test]
fn activating_may_return_at_once_or_be_given_up_and_it_goes_on() {
    let managed = Managed::new("at-once");
    let gated = ["hang-at", "start", "gated"];
    let id = managed.installed(managed.package("1", &gated));
    let mut events = managed.host.events();
    let requested = managed.request_activation(id).unwrap();
    assert_eq!(requested.record().active_state, ActiveState::Active);
    assert_ne!(requested.reported_state(), ReportedState::Active);
    let error = managed.activate(id, SHORT).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    managed.host.lifelines.next().open_gate();
    events.until(id, ReportedState::Active);
    assert_eq!(
        managed.get(id).unwrap().reported_state(),
        ReportedState::Active
    );
}

#[test]
fn a_stop_ends_the_wait_of_an_activation() {
    let managed = Managed::new("stop-while-starting");
    let id = managed.installed(managed.package("1", &["hang-at", "start"]));
    for removes in [false, true] {
        thread::scope(|scope| {
            let activating = scope.spawn(|| managed.activate(id, LONG * 10));
            let process = managed.host.lifelines.next();
            if removes {
                managed.remove(id).unwrap();
            } else {
                managed.deactivate(id, LONG).unwrap();
            }
            let error = activating.join().unwrap().unwrap_err();
            let expected = match error {
                Error::State { state, .. } => state == ReportedState::Inactive,
                Error::NotLoaded(_) => removes,
                _ => false,
            };
            assert!(expected, "{error}");
            process.expect_end();
        });
    }
    managed.expect_nothing_at_all();
}

#[test]
fn an_activation_that_fails_says_what_went_wrong_last() {
    let host = TestHost::with("activate-problem", |setup| {
        setup.policy(|policy| policy.max_backoff(Duration::from_secs(3600)));
    });
    let managed = Managed::of(host, settings());
    let id = managed.installed(managed.package("1", &["exit-at", "start", "1"]));
    let mut events = managed.host.events();
    managed.request_activation(id).unwrap();
    for _ in 0..2 {
        events.until(id, ReportedState::Restarting);
    }
    // Asking once more ends the wait for the restart; the next one is longer.
    let error = managed.activate(id, Duration::from_secs(2)).unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    let text = error.to_string();
    assert!(
        text.ends_with("; it ended with exit status 1 and is being restarted"),
        "{text}"
    );
}

#[test]
fn a_stop_that_takes_too_long_goes_on() {
    let managed = Managed::new("stubborn");
    let id = managed.running(managed.package("1", &[]));
    let mut events = managed.host.events();
    let loss = fault::lose(fault::SIGNALLING, id);
    let error = managed.deactivate(id, SHORT).unwrap_err();
    assert_eq!(timed_out(&error).0, Phase::Stop);
    let shown = managed.get(id).unwrap();
    assert_eq!(shown.record().active_state, ActiveState::Inactive);
    assert_eq!(shown.reported_state(), ReportedState::Stopping);
    drop(loss);
    // As what no signal reaches may end by itself some day.
    managed.host.lifelines.next().cut();
    managed.deactivate(id, LONG).unwrap();
    events.until(id, ReportedState::Inactive);
}

#[test]
fn operations_on_one_installation_come_one_after_the_other() {
    let busy = settings().busy_timeout(SHORT);
    let managed = Managed::with("busy", busy);
    let id = managed.installed(managed.package("1", &[]));
    let other = managed.installed(managed.package("1", &[]));
    let hold = fault::hold(fault::UNPACKED, id);
    thread::scope(|scope| {
        let update = scope.spawn(|| {
            let source = PackageSource::bytes(managed.package_of(
                "scripted",
                "2",
                plugin_runner::protocol::Transport::WebSocket,
                &[],
            ));
            managed.update_package(id, source)
        });
        assert!(hold.reached(LONG), "it did not come so far");
        let results = [
            managed.activate(id, LONG).map(drop),
            managed.request_activation(id).map(drop),
            managed.remove(id).map(drop),
            managed.restart(id, LONG).map(drop),
            managed.set_overrides(id, Overrides::default()).map(drop),
            managed
                .merge_configuration(id, serde_json::Map::new())
                .map(drop),
        ];
        for result in results {
            let error = failed(ErrorKind::Busy, result).to_string();
            assert!(
                error.starts_with("update_package is in progress"),
                "{error}"
            );
            assert!(error.contains(&format!("within {SHORT:?}")), "{error}");
        }
        // Reading is not an operation, and operations on other plugins do not wait.
        assert_eq!(managed.get(id).unwrap().manifest().version, "1");
        managed.activate(other, LONG).unwrap();
        managed.remove(other).unwrap();
        hold.release();
        let update = update.join().unwrap().unwrap();
        assert_eq!(update.installation.manifest().version, "2");
    });
    managed.expect_nothing_left_over();
    managed.activate(id, LONG).unwrap();
}

#[test]
fn what_is_not_there_or_not_ours_to_run_is_said() {
    let managed = Managed::new("unknown");
    let id = InstallationId::generate();
    let package = || PackageSource::bytes(managed.package("1", &[]));
    let results = [
        managed.activate(id, LONG).map(drop),
        managed.request_activation(id).map(drop),
        managed.deactivate(id, LONG).map(drop),
        managed.get(id).map(drop),
        managed.remove(id).map(drop),
        managed.update_package(id, package()).map(drop),
        managed.update_manifest(id, manifest("x")).map(drop),
        managed.restart(id, LONG).map(drop),
        managed.set_overrides(id, Overrides::default()).map(drop),
        managed.set_added_by(id, None).map(drop),
        managed.set_labels(id, [("team", "red")]).map(drop),
        managed.rotate_token(id).map(drop),
        managed.configuration(id).map(drop),
        managed.configuration_schema(id).map(drop),
        managed.manager.package(id).map(drop),
        managed
            .merge_configuration(id, serde_json::Map::new())
            .map(drop),
    ];
    for result in results {
        let error = result.unwrap_err();
        assert_matches!(error, Error::NotInstalled(missing) if missing == id);
    }
    let supervised = managed.installed(managed.package("1", &[]));
    let (external, _) = managed.install_external(manifest("outside")).unwrap();
    let id = external.id();
    let results = [
        managed.activate(id, LONG).map(drop),
        managed.request_activation(id).map(drop),
        managed.deactivate(id, LONG).map(drop),
        managed.update_package(id, package()).map(drop),
        managed.manager.package(id).map(drop),
        managed.update_manifest(supervised, manifest("x")).map(drop),
        managed.rotate_token(supervised).map(drop),
    ];
    for result in results {
        let error = result.unwrap_err();
        assert_matches!(error, Error::Unsupported(_));
    }
    managed.expect_nothing_left_over();
}
