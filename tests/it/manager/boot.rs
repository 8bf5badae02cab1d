//! Starting all that are wanted: a few at once, and none kept from it by another.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use plugin_runner::store::MemoryStore;
use plugin_runner::{ActiveState, ErrorKind, Host, InstallationId, Manager, ReportedState, fault};

use super::store::FailingStore;
use super::{Managed, settings, sha256};
use crate::support::host::{Setup, TestHost};
use crate::support::plugin::{With as _, manifest};
use crate::support::{LONG, failed};

impl Managed {
    /// Installed and wanted active, and not started.
    #[track_caller]
    fn wanted(&self, package: Vec<u8>) -> InstallationId {
        let id = self.installed(package);
        let record = self.store.get(id).unwrap().unwrap();
        self.store
            .put(record.with(|record| record.set_active_state(ActiveState::Active)))
            .unwrap();
        id
    }
}

#[test]
fn never_more_than_so_many_are_starting_at_once() {
    const PARALLEL: usize = 3;
    let settings = settings().boot_parallel(PARALLEL);
    let managed = Managed::with("boot", settings);
    let mut wanted: Vec<_> = (0..10)
        .map(|_| managed.wanted(managed.package("1", &[])))
        .collect();
    wanted.sort_unstable();
    let unwanted = managed.installed(managed.package("1", &[]));
    let changes = managed.host.subscribe();
    let report = managed.boot(LONG).unwrap();
    assert_eq!(report.active, wanted);
    assert!(report.starting.is_empty() && report.awaited.is_empty());
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    let mut starting = HashSet::new();
    let mut most = 0;
    for change in changes.try_iter() {
        assert_ne!(change.plugin, unwanted);
        match change.to {
            ReportedState::Starting => drop(starting.insert(change.plugin)),
            ReportedState::Active => drop(starting.remove(&change.plugin)),
            _ => {}
        }
        most = most.max(starting.len());
    }
    assert_eq!(most, PARALLEL);
    // Once more changes nothing.
    let changes = managed.host.subscribe();
    let report = managed.boot(LONG).unwrap();
    assert_eq!(report.active, wanted);
    assert!(changes.try_recv().is_err(), "something was started again");
}

#[test]
fn a_broken_plugin_is_reported_and_holds_up_no_other() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "broken-boot", settings().boot_parallel(2));
    let good = [(); 3].map(|()| managed.wanted(managed.package("1", &[])));
    let damaged = managed.wanted(managed.package("damaged", &[]));
    let missing = managed.wanted(managed.package("missing", &[]));
    let crashing = managed.wanted(managed.package("1", &["exit-at", "start", "7"]));
    let (external, _) = managed.install_external(manifest("outside")).unwrap();
    let awaited = external.id();
    managed.host.unload(awaited).unwrap();
    store.damage(
        managed.store.get(damaged).unwrap().unwrap(),
        "its manifest is gone",
    );
    let record = managed.get(missing).unwrap();
    managed.store.delete_archive(sha256(&record)).unwrap();
    fs::remove_dir_all(managed.folder(missing)).unwrap();

    let shown = managed.get(damaged).unwrap();
    assert_eq!(shown.reported_state(), ReportedState::Errored);
    let report = managed.boot(LONG).unwrap();
    let mut expected = good.to_vec();
    expected.sort_unstable();
    assert_eq!(report.active, expected);
    assert_eq!(report.awaited, [awaited]);
    assert!(report.starting.is_empty());
    let failed: HashSet<_> = report.failed.iter().map(|(id, _)| *id).collect();
    assert_eq!(failed, HashSet::from([damaged, missing, crashing]));
    for (id, error) in &report.failed {
        println!("{id}: {error}");
        let reason = match *id {
            id if id == damaged => "its manifest is gone",
            id if id == missing => "missing",
            _ => "7",
        };
        assert!(error.to_string().contains(reason), "{error}");
        let listed = managed.list().unwrap();
        let listed = listed.iter().find(|shown| shown.id() == *id).unwrap();
        for shown in [&managed.get(*id).unwrap(), listed] {
            assert_eq!(shown.reported_state(), ReportedState::Errored);
            let message = shown.message().unwrap();
            assert!(message.contains(reason), "{message}");
        }
    }
    assert_eq!(managed.list().unwrap().len(), 7);
    // A package mends the one, and the other.
    for (id, version) in [(damaged, "damaged"), (missing, "missing")] {
        let source = managed.package(version, &[]);
        managed.update(id, source).unwrap();
        managed.activate(id, LONG).unwrap();
    }
    // One that is errored is started again with the others.
    let mut events = managed.host.events();
    let report = managed.boot(LONG).unwrap();
    assert_eq!(report.active.len(), 5);
    assert_eq!(report.failed.len(), 1);
    let tried = events.next(crashing);
    assert_eq!(tried.to, ReportedState::Starting);
}

#[test]
fn without_an_address_nothing_is_started() {
    let managed = Managed::of(TestHost::with("no-address", Setup::deaf), settings());
    managed.wanted(managed.package("1", &[]));
    let over_stdio = managed.wanted(managed.package_of(
        "stdio",
        "1",
        plugin_runner::protocol::Transport::Stdio,
        &[],
    ));
    let changes = managed.host.subscribe();
    let error = failed(ErrorKind::InvalidSetting, managed.boot(LONG));
    assert!(
        error.to_string().starts_with("setting rpc_base_url:"),
        "{error}"
    );
    assert!(changes.try_recv().is_err(), "something was started");
    assert!(managed.host.sessions().is_empty());
    let _listener = managed.host.listen("127.0.0.1:0").unwrap();
    let report = managed.boot(LONG).unwrap();
    assert_eq!(report.active.len(), 2);
    assert!(report.active.contains(&over_stdio));
}

#[test]
fn a_plugin_that_starts_slowly_makes_room_and_goes_on() {
    let managed = Managed::with("patience", settings().boot_parallel(1));
    let slow =
        [(); 2].map(|()| managed.wanted(managed.package("1", &["hang-at", "start", "gated"])));
    // Also with no time at all.
    for timeout in [Duration::from_millis(20), Duration::ZERO] {
        let report = managed.boot(timeout).unwrap();
        assert_eq!(report.starting.len(), 2, "{report:?}");
    }
    for _ in slow {
        managed.host.lifelines.next().open_gate();
    }
    for id in slow {
        let session = managed.session(id);
        session.wait_for(ReportedState::Active, LONG).unwrap();
    }
}

#[test]
fn what_is_deactivated_or_removed_during_a_boot_has_not_failed() {
    let managed = Managed::with("withdrawn", settings().boot_parallel(2));
    let [deactivated, removed] =
        [(); 2].map(|()| managed.wanted(managed.package("1", &["hang-at", "start", "gated"])));
    // So that the boot hears that it is gone while its record is still there.
    let hold = fault::hold(fault::UNLOADED, removed);
    let report = thread::scope(|scope| {
        let boot = scope.spawn(|| managed.boot(LONG));
        let _both = [(); 2].map(|()| managed.host.lifelines.next());
        managed.deactivate(deactivated, LONG).unwrap();
        let removal = scope.spawn(|| managed.remove(removed));
        assert!(hold.reached(LONG), "it was not unloaded");
        hold.release();
        removal.join().unwrap().unwrap();
        boot.join().unwrap().unwrap()
    });
    assert!(report.failed.is_empty(), "{report:?}");
    assert!(report.starting.is_empty(), "{report:?}");
    assert!(report.active.is_empty(), "{report:?}");
}

#[test]
fn a_boot_does_not_start_what_an_update_is_about_to_replace() {
    let settings = settings().busy_timeout(Duration::from_millis(20));
    let managed = Managed::with("boot-meets", settings);
    let id = managed.wanted(managed.package("1", &["alone"]));
    let hold = fault::hold(fault::MIGRATED, id);
    thread::scope(|scope| {
        let update = scope.spawn(|| {
            let source = managed.package("2", &["alone"]);
            managed.update(id, source)
        });
        assert!(hold.reached(LONG), "it did not come so far");
        let report = managed.boot(LONG).unwrap();
        let [(failed, error)] = &report.failed[..] else {
            panic!("{report:?}");
        };
        assert_eq!((*failed, error.kind()), (id, ErrorKind::Busy));
        assert!(managed.host.session(id).is_none());
        hold.release();
        update.join().unwrap().unwrap();
    });
    let report = managed.boot(LONG).unwrap();
    assert_eq!(report.active, [id]);
    assert_eq!(managed.answering_version(id), "2");
}

#[test]
fn a_plugin_is_back_with_the_next_host_on_the_same_directory_and_store() {
    let store = Arc::new(MemoryStore::default());
    let managed = Managed::over(store.clone(), "next-host", settings());
    let wanted = managed.running(managed.package("1", &[]));
    managed.write_own_file(wanted, "own.txt", "kept");
    let stopped = managed.running(managed.package("1", &[]));
    managed.deactivate(stopped, LONG).unwrap();
    let data = managed.data();
    let Managed {
        manager,
        host: before,
        ..
    } = managed;
    before.shutdown(LONG);
    // It has the folder for as long as it is there.
    drop(manager);
    let host = Host::builder().data_dir(data).store(store).build().unwrap();
    let _listener = host.listen("127.0.0.1:0").unwrap();
    let next = Manager::new(host.clone()).unwrap();
    let report = next.boot(LONG).unwrap();
    assert_eq!(report.active, [wanted]);
    let text = crate::support::plugin::call(
        &host.session(wanted).unwrap(),
        "read",
        &serde_json::json!({"path": "own.txt"}),
    );
    assert_eq!(text.unwrap()["text"], "kept");
    assert!(host.session(stopped).is_none());
    let report = host.shutdown(LONG);
    assert!(report.is_complete(), "{report:?}");
}
