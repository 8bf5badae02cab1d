//! Finding plugins, and their sessions, without starting anything.

use std::sync::Arc;

use plugin_runner::ReportedState::{Active, Connecting, Errored, Inactive};
use plugin_runner::manager::{Installation, InstallationFilter, PackageSource};
use plugin_runner::{ActiveState, Error, InstallationId, PluginMode};

use super::store::FailingStore;
use super::{Managed, settings};
use crate::support::plugin::manifest;
use crate::support::{LONG, assert_matches};

#[test]
fn a_session_is_found_and_never_made() {
    let managed = Managed::new("session");
    let id = managed.installed(managed.package("1", &[]));
    let error = managed.manager.session(id).unwrap_err();
    assert_matches!(error, Error::NotLoaded(missing) if missing == id);
    assert!(managed.host.sessions().is_empty(), "something was loaded");
    managed.activate(id, LONG).unwrap();
    let session = managed.manager.session(id).unwrap();
    assert_eq!((session.id(), session.reported_state()), (id, Active));
    managed.deactivate(id, LONG).unwrap();
    let session = managed.manager.session(id).unwrap();
    assert_eq!(session.reported_state(), Inactive, "it was started");
    let unknown = InstallationId::generate();
    let error = managed.manager.session(unknown).unwrap_err();
    assert_matches!(error, Error::NotInstalled(missing) if missing == unknown);
}

#[test]
fn plugins_are_found_by_what_they_are() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "find", settings());
    let source = |version: &str, team: &str| {
        PackageSource::bytes(managed.package(version, &[])).labels([("team", team), ("x", "y")])
    };
    let one = managed.install(source("1", "red")).unwrap().id();
    let two = managed.install(source("2", "blue")).unwrap().id();
    managed.activate(two, LONG).unwrap();
    let (outside, _) = managed.install_external(manifest("outside")).unwrap();
    let outside = outside.id();
    let three = managed.installed(managed.package("3", &[]));
    store.damage(managed.store.get(three).unwrap().unwrap(), "half");
    let ids = |filter: InstallationFilter| -> Vec<InstallationId> {
        let found = managed.list_matching(&filter).unwrap();
        found.iter().map(Installation::id).collect()
    };
    let any = InstallationFilter::default;
    let found = |id: &str| -> Vec<InstallationId> {
        let found = managed.find(id).unwrap();
        found.iter().map(Installation::id).collect()
    };
    assert_eq!(found("scripted"), [one, two, three]);
    assert_eq!(found("outside"), [outside]);
    assert_eq!((found("script"), found("")), (vec![], vec![]));
    assert_eq!(ids(any()), [one, two, outside, three]);
    assert_eq!(ids(any().manifest_id("scripted")), [one, two, three]);
    assert_eq!(ids(any().mode(PluginMode::External)), [outside]);
    assert_eq!(ids(any().reported_state(Active)), [two]);
    assert_eq!(ids(any().reported_state(Errored)), [three]);
    assert_eq!(ids(any().reported_state(Connecting)), [outside]);
    assert_eq!(ids(any().active_state(ActiveState::Active)), [two, outside]);
    assert_eq!(ids(any().label("team", "red")), [one]);
    assert_eq!(ids(any().label("x", "y").label("team", "blue")), [two]);
    assert_eq!(ids(any().label("team", "y")), []);
    // All of it has to be so.
    assert_eq!(
        ids(any().reported_state(Active).mode(PluginMode::External)),
        []
    );
    assert!(managed.host.session(one).is_none(), "it was loaded");
}
