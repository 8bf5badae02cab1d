//! What must not be removed and what must not stay, where operations meet each other, a damaged record,
//! or what an earlier one has left.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use plugin_runner::manager::PackageSource;
use plugin_runner::store::{PluginKind, Record, Source, Store as _};
use plugin_runner::{ActiveState, Error, ErrorKind, Manager, ReportedState, fault};

use super::store::{Done, FailingStore, Step};
use super::{Managed, names, settings, sha256};
use crate::support::plugin::{With as _, manifest};
use crate::support::{LONG, assert_matches, failed};

fn over(store: &Arc<FailingStore>, test: &'static str) -> Managed {
    Managed::over(store.clone(), test, settings())
}

#[test]
fn archives_stay_while_a_damaged_record_may_name_any() {
    let store = Arc::new(FailingStore::default());
    let managed = over(&store, "unclear");
    let id = managed.installed(managed.package("1", &[]));
    let sound = managed.store.get(id).unwrap().unwrap();
    let mut damaged = sound.clone();
    damaged.kind = PluginKind::Supervised(Source::Directory(PathBuf::new()));
    store.damage(damaged, "its source cannot be read");
    let remove_another = || {
        let other = managed.installed(managed.package("2", &[]));
        managed.remove(other).unwrap();
    };
    remove_another();
    assert_eq!(store.list_archives().unwrap().len(), 2);
    // Mended.
    managed.store.put(sound).unwrap();
    remove_another();
    managed.expect_nothing_left_over();
}

#[test]
fn an_archive_that_cannot_be_removed_keeps_no_manager_from_being_made() {
    let store = Arc::new(FailingStore::default());
    let managed = over(&store, "kept-archive");
    let id = managed.installed(managed.package("1", &[]));
    store.fail(Step::DeleteArchive, 0);
    managed.remove(id).unwrap();
    let Managed { manager, host, .. } = managed;
    drop(manager);
    drop(Manager::new((*host).clone()).unwrap());
    assert_eq!(store.list_archives().unwrap().len(), 1);
    store.mend();
    Managed::of(host, settings()).expect_nothing_at_all();
}

#[test]
fn an_archive_goes_while_another_one_is_stored() {
    let store = Arc::new(FailingStore::default());
    let managed = over(&store, "come-and-go");
    let (one, other) = (managed.package("1", &[]), managed.package("2", &[]));
    let going = managed.installed(one);
    let held = store.hold(Done::PutArchive);
    thread::scope(|scope| {
        let coming = scope.spawn(|| managed.installed(other));
        held.expect(LONG);
        managed.remove(going).unwrap();
        // No record names the one that is left yet.
        assert_eq!(store.list_archives().unwrap().len(), 1);
        drop(held);
        coming.join().unwrap();
    });
    managed.expect_nothing_left_over();
}

#[test]
fn an_archive_that_is_stored_again_stays_until_that_has_failed() {
    let store = Arc::new(FailingStore::default());
    let managed = over(&store, "stored-again");
    let package = managed.package("1", &[]);
    let going = managed.installed(package.clone());
    let held = store.hold(Done::PutArchive);
    thread::scope(|scope| {
        let coming = scope.spawn(|| managed.install(PackageSource::bytes(package)));
        held.expect(LONG);
        managed.remove(going).unwrap();
        assert_eq!(store.list_archives().unwrap().len(), 1);
        store.fail(Step::Put, 0);
        drop(held);
        coming.join().unwrap().unwrap_err();
    });
    managed.expect_nothing_at_all();
}

#[test]
fn what_was_not_installed_from_a_package_runs_on_after_a_failed_update() {
    let managed = Managed::new("not-stored");
    let archive = managed.host.folder().join("own.zip");
    fs::write(&archive, managed.package("1", &[])).unwrap();
    let id = managed.installed(managed.package("1", &[]));
    let installed = managed.store.get(id).unwrap().unwrap();
    managed.remove(id).unwrap();
    let record = Record::supervised(installed.manifest, Source::Archive(archive));
    let id = record.id;
    managed.store.put(record).unwrap();
    managed.activate(id, LONG).unwrap();
    let releases = managed.releases(id);
    let failing = managed.package("2", &["exit-at", "start", "3"]);
    failed(ErrorKind::RolledBack, managed.update(id, failing));
    assert_eq!(managed.answering_version(id), "1");
    let left = managed.releases(id);
    assert!(
        releases.iter().all(|release| left.contains(release)),
        "{left:?}"
    );
}

#[test]
fn loading_a_plugin_while_it_is_removed_does_not_bring_it_back() {
    let store = Arc::new(FailingStore::default());
    let managed = over(&store, "load-and-remove");
    let id = managed.running(managed.package("1", &[]));
    managed.host.unload(id).unwrap();
    let held = store.hold(Done::Get);
    thread::scope(|scope| {
        let loading = scope.spawn(|| managed.host.load(id).map(drop));
        held.expect(LONG);
        managed.remove(id).unwrap();
        drop(held);
        let loaded = loading.join().unwrap();
        assert_matches!(loaded, Err(Error::NotInstalled(_)));
    });
    assert!(managed.host.session(id).is_none());
    managed.expect_nothing_at_all();
}

#[test]
fn a_stop_that_does_not_begin_does_not_end_an_update() {
    let settings = settings().busy_timeout(Duration::ZERO);
    let managed = Managed::with("busy-stop", settings);
    let id = managed.running(managed.package("1", &[]));
    let new = managed.package("2", &[]);
    let held = fault::hold(fault::RECEIVED, id);
    thread::scope(|scope| {
        let updating = scope.spawn(|| managed.update(id, new));
        assert!(held.reached(LONG), "the update did not come so far");
        failed(ErrorKind::Busy, managed.deactivate(id, LONG));
        failed(ErrorKind::Busy, managed.remove(id));
        held.release();
        updating.join().unwrap().unwrap();
    });
    let shown = managed.get(id).unwrap();
    assert_eq!(shown.record().active_state, ActiveState::Active);
    assert_eq!(shown.reported_state(), ReportedState::Active);
    assert_eq!(managed.answering_version(id), "2");
}

#[test]
fn an_operation_that_waited_for_another_does_nothing_after_a_shutdown() {
    let managed = Managed::new("late");
    let id = managed.installed(managed.package("1", &[]));
    let new = managed.package("2", &[]);
    let held = fault::hold(fault::RECEIVED, id);
    thread::scope(|scope| {
        let updating = scope.spawn(|| managed.update(id, new));
        assert!(held.reached(LONG), "the update did not come so far");
        let removing = scope.spawn(|| managed.remove(id));
        managed.host.shutdown(LONG);
        held.release();
        let updated = updating.join().unwrap();
        assert_matches!(updated, Err(Error::ShutDown));
        let removed = removing.join().unwrap();
        assert_matches!(removed, Err(Error::ShutDown));
    });
    let record = managed.store.get(id).unwrap().unwrap();
    assert_eq!(record.manifest.version, "1");
}

#[test]
fn what_an_earlier_update_could_not_tidy_up_is_not_forgotten() {
    let settings = settings().migrated_files(0);
    let managed = Managed::with("earlier", settings);
    let id = managed.running(managed.package("1", &[]));
    let current = sha256(&managed.get(id).unwrap()).to_owned();
    let stray = "ab".repeat(32);
    fs::create_dir(managed.folder(id).join("releases").join(&stray)).unwrap();
    let operations = managed.data().join("operations");
    let intent_file = format!("{id}.update.{stray}.{current}");
    fs::write(operations.join(intent_file), "").unwrap();
    // Fails before it has put anything in place.
    managed.write_own_file(id, "own.txt", "too much");
    let new = managed.package("2", &[]);
    failed(ErrorKind::MigrationTooLarge, managed.update(id, new));
    assert_eq!(managed.releases(id), [current]);
    assert_eq!(names(&operations), [""; 0]);
}

#[test]
fn a_foreign_intent_file_takes_nothing_that_a_plugin_needs() {
    let managed = Managed::new("forged");
    let stored = managed.running(managed.package("1", &[]));
    let current = sha256(&managed.get(stored).unwrap()).to_owned();
    // One whose record does not say in which release it runs.
    let archive = managed.host.folder().join("own.zip");
    fs::write(&archive, managed.package("3", &[])).unwrap();
    let manifest = managed.store.get(stored).unwrap().unwrap().manifest;
    let record = Record::supervised(manifest, Source::Archive(archive));
    let unnamed = record.id;
    managed.store.put(record).unwrap();
    managed.activate(unnamed, LONG).unwrap();
    let releases = managed.releases(unnamed);
    for id in [stored, unnamed] {
        managed.write_own_file(id, "own.txt", "precious");
    }
    let operations = managed.data().join("operations");
    let forge = || {
        fs::create_dir_all(&operations).unwrap();
        for id in [stored, unnamed] {
            for digest in [&*current, &*releases[0], "..", "/", &"ab".repeat(32)] {
                for old in ["none", "..", &"cd".repeat(32)] {
                    let name = format!("{id}.update.{digest}.{old}").replace('/', "");
                    fs::write(operations.join(name), "").unwrap();
                }
                let name = format!("{id}.update.{digest}").replace('/', "");
                fs::write(operations.join(name), "").unwrap();
            }
            for what in ["install", "remove.all", "remove.keep-data", "odd", "update"] {
                fs::write(operations.join(format!("{id}.{what}")), "").unwrap();
            }
        }
    };
    forge();
    // A file that is not understood does not prevent an update.
    let new = managed.package("2", &[]);
    managed.update(stored, new).unwrap();
    forge();
    let Managed { manager, host, .. } = managed;
    drop(manager);
    let managed = Managed::of(host, settings());
    for id in [stored, unnamed] {
        assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("precious"));
    }
    assert_eq!(managed.answering_version(stored), "2");
    // What its record says, whatever the archive does.
    assert_eq!(managed.answering_version(unnamed), "1");
    assert_eq!(managed.releases(unnamed), releases);
    let new = managed.package("4", &[]);
    managed.update(unnamed, new).unwrap();
}

#[test]
fn an_update_that_a_shutdown_ends_says_so_and_leaves_the_version_before() {
    let managed = Managed::new("shutdown-in-trial");
    let id = managed.running(managed.package("1", &[]));
    let new = managed.package("2", &["hang-at", "start"]);
    let changes = managed.host.subscribe();
    thread::scope(|scope| {
        let updating = scope.spawn(|| managed.update(id, new));
        loop {
            let change = changes.recv_timeout(LONG);
            let change = change.expect("the new version is not being connected to");
            if change.to == ReportedState::Connecting {
                break;
            }
        }
        managed.host.shutdown(LONG);
        let updated = updating.join().unwrap();
        assert_matches!(updated, Err(Error::ShutDown));
    });
    let record = managed.store.get(id).unwrap().unwrap();
    assert_eq!(record.manifest.version, "1");
}

#[test]
fn a_new_manifest_lets_an_external_plugin_with_a_damaged_record_connect_again() {
    let store = Arc::new(FailingStore::default());
    let managed = over(&store, "mended");
    let (installed, _) = managed.install_external(manifest("outside")).unwrap();
    let id = installed.id();
    let damaged = installed
        .record()
        .clone()
        .with(|record| record.set_active_state(ActiveState::Inactive));
    store.damage(damaged, "its wanted state cannot be read");
    let hidden = managed.get(id).unwrap();
    assert_eq!(
        hidden.reported_state(),
        ReportedState::Errored,
        "{hidden:?}"
    );
    assert!(hidden.message().unwrap().contains("cannot be read"));
    managed.host.unload(id).unwrap();
    let shown = managed.update_manifest(id, manifest("outside")).unwrap();
    assert_eq!(shown.record().damage, None);
    assert_eq!(shown.reported_state(), ReportedState::Connecting);
}
