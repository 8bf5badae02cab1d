//! Installing what is new and updating what is not, in one call: one installation for each plugin, whoever
//! else calls at the same time.

use std::sync::Arc;
use std::thread;

use plugin_runner::ReportedState::{Active, Inactive};
use plugin_runner::manager::{PackageSource, UpdateReport};
use plugin_runner::protocol::Transport;
use plugin_runner::{Error, ErrorKind, Result, fault};

use super::store::{Done, FailingStore};
use super::{Managed, settings};
use crate::support::plugin::manifest;
use crate::support::{LONG, assert_matches, failed};

impl Managed {
    fn deploy(&self, package: Vec<u8>) -> Result<UpdateReport> {
        self.install_or_update(PackageSource::bytes(package))
    }
}

#[test]
fn what_is_new_is_installed_and_what_is_not_is_updated() {
    let managed = Managed::new("deploy");
    let first = managed.deploy(managed.package("1", &["alone"])).unwrap();
    assert!(first.newly_installed && !first.unchanged && first.gap.is_none());
    assert_eq!(first.installation.reported_state(), Inactive);
    let id = first.installation.id();
    managed.activate(id, LONG).unwrap();
    managed.write_own_file(id, "own.txt", "kept");
    let second = managed.deploy(managed.package("2", &["alone"])).unwrap();
    assert!(!second.newly_installed && !second.unchanged && second.gap.is_some());
    assert_eq!(second.installation.id(), id);
    assert_eq!(second.installation.reported_state(), Active);
    assert_eq!(second.migrated_files, 1);
    assert_eq!(managed.answering_version(id), "2");
    assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("kept"));
    let again = managed.deploy(managed.package("2", &["alone"])).unwrap();
    assert!(!again.newly_installed && again.unchanged);
    // Another plugin is another installation.
    let other = managed.package_of("other", "1", Transport::default(), &[]);
    assert!(managed.deploy(other).unwrap().newly_installed);
    assert_eq!(managed.list().unwrap().len(), 2);
    managed.lock(id).expect_one_at_a_time();
    managed.expect_nothing_left_over();
}

#[test]
fn which_of_two_is_meant_is_not_guessed() {
    let managed = Managed::new("deploy-two");
    let [one, other] = ["1", "2"].map(|version| managed.installed(managed.package(version, &[])));
    let result = managed.deploy(managed.package("3", &[]));
    let text = failed(ErrorKind::Ambiguous, result).to_string();
    assert!(
        text.contains("2 plugins") && text.contains("scripted"),
        "{text}"
    );
    for (id, version) in [(one, "1"), (other, "2")] {
        assert_eq!(managed.get(id).unwrap().manifest().version, version);
    }
    managed.remove(one).unwrap();
    let update = managed.deploy(managed.package("3", &[])).unwrap();
    assert_eq!(update.installation.id(), other);
    // Nor is it installed beside an external plugin of that name.
    managed.remove(other).unwrap();
    managed.install_external(manifest("scripted")).unwrap();
    let error = managed.deploy(managed.package("3", &[])).unwrap_err();
    assert_matches!(error, Error::Unsupported(_));
    assert_eq!(managed.list().unwrap().len(), 1);
    managed.expect_nothing_left_over();
}

#[test]
fn many_at_once_install_one() {
    let managed = Managed::new("deploy-many");
    let packages: Vec<_> = (0..8)
        // Some of them the same.
        .map(|number| managed.package(&(number / 2).to_string(), &[]))
        .collect();
    let new = thread::scope(|scope| {
        let deploying = packages
            .iter()
            .map(|package| scope.spawn(|| managed.deploy(package.clone()).unwrap()));
        let deploying: Vec<_> = deploying.collect();
        let reports = deploying.into_iter().map(|one| one.join().unwrap());
        reports.filter(|report| report.newly_installed).count()
    });
    assert_eq!((new, managed.list().unwrap().len()), (1, 1));
    managed.expect_nothing_left_over();
}

#[test]
fn one_of_the_same_plugin_waits_and_then_says_what_for() {
    let store = Arc::new(FailingStore::default());
    let settings = settings().busy_timeout(std::time::Duration::from_millis(20));
    let managed = Managed::over(store.clone(), "deploy-busy", settings);
    let [one, two] = ["1", "2"].map(|version| managed.package(version, &[]));
    let held = store.hold(Done::PutArchive);
    thread::scope(|scope| {
        let first = scope.spawn(|| managed.deploy(one));
        held.expect(LONG);
        let error = failed(ErrorKind::Busy, managed.deploy(two));
        assert!(error.to_string().contains("install_or_update"), "{error}");
        // Other plugins are not kept waiting.
        let other = managed.package_of("other", "1", Transport::default(), &[]);
        managed.deploy(other).unwrap();
        drop(held);
        assert!(first.join().unwrap().unwrap().newly_installed);
    });
    managed.expect_nothing_left_over();
}

#[test]
fn one_that_is_being_removed_is_installed_anew() {
    let managed = Managed::new("deploy-removed");
    let old = managed.running(managed.package("1", &[]));
    let hold = fault::hold(fault::UNLOADED, old);
    thread::scope(|scope| {
        let removing = scope.spawn(|| managed.remove(old));
        assert!(hold.reached(LONG), "it is not being removed");
        let deploying = scope.spawn(|| managed.deploy(managed.package("2", &[])));
        thread::yield_now();
        hold.release();
        removing.join().unwrap().unwrap();
        let report = deploying.join().unwrap().unwrap();
        assert!(report.newly_installed && report.installation.id() != old);
    });
    assert_eq!(managed.list().unwrap().len(), 1);
    managed.expect_nothing_left_over();
}
