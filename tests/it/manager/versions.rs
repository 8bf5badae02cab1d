//! Which versions of a plugin are kept, and going back to one by hand; and updates that are pinned to a digest.

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use plugin_runner::ReportedState::{Active, Inactive};
use plugin_runner::error::Disconnect;
use plugin_runner::manager::{PackageSource, UpdateReport, Version};
use plugin_runner::{ActiveState, Error, ErrorKind, InstallationId, Manager, fault};
use serde_json::json;

use super::store::{FailingStore, Step};
use super::{Managed, settings, sha256, source};
use crate::support::plugin::{call, manifest};
use crate::support::{LONG, assert_matches, failed};

impl Managed {
    /// Runs version 2, to which it was updated from 1; each has an `own.txt` that says so.
    #[track_caller]
    fn running_second(&self) -> InstallationId {
        let id = self.running(self.package("1", &["alone"]));
        self.write_own_file(id, "own.txt", "from 1");
        self.step_to(id, "2");
        id
    }

    /// Updates it to a version, which writes its `own.txt`.
    #[track_caller]
    fn step_to(&self, id: InstallationId, version: &str) {
        self.update(id, self.package(version, &["alone"])).unwrap();
        self.write_own_file(id, "own.txt", &format!("from {version}"));
    }

    /// The versions that are kept, by what their manifests say.
    #[track_caller]
    fn kept(&self, id: InstallationId) -> Vec<String> {
        let versions = self.versions(id).unwrap();
        let current: Vec<bool> = versions.iter().map(|version| version.is_current).collect();
        assert!(current[0] && !current[1..].contains(&true), "{versions:?}");
        versions
            .into_iter()
            .map(|version| version.version)
            .collect()
    }

    #[track_caller]
    fn sha256_of(&self, id: InstallationId, version: &str) -> String {
        let mut versions = self.versions(id).unwrap().into_iter();
        let found = versions.find(|kept| kept.version == version);
        found.expect("it is kept").sha256
    }

    #[track_caller]
    fn answering_process(&self, id: InstallationId) -> i64 {
        let described = call(&self.session(id), "describe", &json!({})).unwrap();
        described["pid"].as_i64().unwrap()
    }

    #[track_caller]
    fn back(&self, id: InstallationId) -> UpdateReport {
        self.rollback(id, None).unwrap()
    }

    /// This version runs, with its files; and the disk has what is kept and nothing else.
    #[track_caller]
    fn expect_running(&self, id: InstallationId, version: &str) {
        let shown = self.get(id).unwrap();
        assert_eq!(shown.manifest().version, version);
        assert_eq!(shown.reported_state(), Active);
        assert_eq!(self.answering_version(id), version);
        let own = self.own_file(id, "own.txt");
        assert_eq!(own, Some(format!("from {version}")));
        self.lock(id).expect_one_at_a_time();
        self.expect_kept_alone(id);
    }

    #[track_caller]
    fn expect_kept_alone(&self, id: InstallationId) {
        let kept: BTreeSet<_> = (self.versions(id).unwrap().into_iter())
            .map(|version| version.sha256)
            .collect();
        assert_eq!(BTreeSet::from_iter(self.releases(id)), kept);
        self.expect_nothing_left_over();
    }
}

#[test]
fn a_plugin_goes_back_to_its_files_and_forward_again() {
    let managed = Managed::new("back-and-forward");
    let began = SystemTime::now();
    let id = managed.running_second();
    managed.write_own_file(id, "new.txt", "of 2");
    let data = managed.folder(id).join("data").join("in-data");
    fs::write(&data, "untouched").unwrap();
    let [second, first] = &managed.versions(id).unwrap()[..] else {
        panic!("{:?}", managed.versions(id));
    };
    let archives = managed.store.list_archives().unwrap();
    for version in [first, second] {
        assert_eq!(archives[&version.sha256], version.size);
        assert!(version.used_from.unwrap() >= began);
    }
    assert_eq!((&*second.version, &*first.version), ("2", "1"));
    assert!(second.is_current && !first.is_current);
    assert_eq!(first.used_until, second.used_from);
    assert_eq!(second.used_until, None);

    let call = managed
        .session(id)
        .start_call_raw("sleep", &json!({"ms": 3_600_000}), LONG)
        .unwrap();
    let report = managed.back(id);
    assert!(!report.unchanged && !report.newly_installed);
    assert!(report.gap.unwrap() > Duration::ZERO);
    assert_eq!((report.migrated_files, report.left_count), (0, 0));
    assert_eq!(report.installation.manifest().version, "1");
    let left = managed.folder(id).join("releases").join(&second.sha256);
    assert_eq!(report.previous, Some(left));
    let error = call.wait().unwrap_err();
    let cause = assert_matches!(&error, Error::Disconnected(cause) => cause);
    assert_matches!(
        &**cause,
        Disconnect::ByHost { code: 1012, reason } if &**reason == "package rolled back"
    );
    managed.expect_running(id, "1");
    assert_eq!(managed.own_file(id, "new.txt"), None);
    assert_eq!(fs::read_to_string(data).unwrap(), "untouched");
    assert_eq!(managed.kept(id), ["1", "2"]);
    let [now, before] = &managed.versions(id).unwrap()[..] else {
        panic!("{:?}", managed.versions(id));
    };
    assert_eq!(before.used_from, second.used_from);
    assert_eq!(before.used_until, now.used_from);
    assert!(now.used_from > first.used_until && now.used_until.is_none());
    let mut package = Vec::new();
    let mut reader = managed.manager.package(id).unwrap().reader();
    std::io::Read::read_to_end(&mut reader, &mut package).unwrap();
    assert_eq!(package.len() as u64, now.size);

    managed.back(id);
    managed.expect_running(id, "2");
    assert_eq!(managed.own_file(id, "new.txt").as_deref(), Some("of 2"));
    assert_eq!(managed.kept(id), ["2", "1"]);
    // It is stored: stopped and started, it is that one.
    managed.back(id);
    managed.restart(id, LONG).unwrap();
    managed.expect_running(id, "1");
    // And the files are migrated from there.
    let update = managed
        .update(id, managed.package("3", &["alone"]))
        .unwrap();
    assert_eq!(update.migrated_files, 1);
    assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("from 1"));
    assert_eq!(managed.kept(id), ["3", "1"]);
}

#[test]
fn as_many_are_kept_as_the_setting_says_and_any_can_be_named() {
    let managed = Managed::with("three", settings().releases(3));
    let id = managed.running_second();
    for version in ["3", "4"] {
        managed.step_to(id, version);
    }
    assert_eq!(managed.kept(id), ["4", "3", "2"]);
    managed.expect_running(id, "4");
    let wanted = managed.sha256_of(id, "2");
    let shouted = format!(" {} ", wanted.to_uppercase());
    managed.rollback(id, Some(&shouted)).unwrap();
    managed.expect_running(id, "2");
    assert_eq!(managed.kept(id), ["2", "4", "3"]);
    // What was used longest ago goes first.
    managed.step_to(id, "5");
    assert_eq!(managed.kept(id), ["5", "2", "4"]);
    managed.expect_running(id, "5");
    // With fewer from now on, what there is can be gone back to, and goes at the next update.
    let Managed { manager, host, .. } = managed;
    drop(manager);
    let managed = Managed::of(host, settings().releases(1));
    assert_eq!(managed.kept(id), ["5", "2", "4"]);
    let last = managed.sha256_of(id, "4");
    managed.rollback(id, Some(&last)).unwrap();
    managed.expect_running(id, "4");
    assert_eq!(managed.kept(id), ["4", "5", "2"]);
    let same = managed
        .update(id, managed.package("4", &["alone"]))
        .unwrap();
    assert!(same.unchanged);
    assert_eq!(managed.kept(id), ["4", "5", "2"]);
    let update = managed
        .update(id, managed.package("6", &["alone"]))
        .unwrap();
    assert_eq!(update.previous, None);
    assert_eq!(managed.kept(id), ["6"]);
    managed.expect_kept_alone(id);
    let error = failed(ErrorKind::UnknownVersion, managed.rollback(id, None));
    assert!(error.to_string().contains("`releases`"), "{error}");
    for releases in [0, 17] {
        let result = Manager::with_settings((*managed.host).clone(), settings().releases(releases));
        let error = failed(ErrorKind::InvalidSetting, result);
        assert!(error.to_string().contains("1 to 16"), "{error}");
    }
}

#[test]
fn what_cannot_be_gone_back_to_changes_nothing() {
    let managed = Managed::new("no-way-back");
    let id = managed.running_second();
    let before = managed.get(id).unwrap();
    let is_running = managed.answering_process(id);
    let unknown = "ab".repeat(32);
    let error = failed(
        ErrorKind::UnknownVersion,
        managed.rollback(id, Some(&unknown)),
    );
    let text = error.to_string();
    for (version, part) in [("2", "version \"2\""), ("1", "version \"1\"")] {
        let named = format!("{} ({part})", managed.sha256_of(id, version));
        assert!(text.contains(&named), "{text}");
    }
    assert!(text.contains(&unknown), "{text}");
    for odd in ["", "1", "../..", &"g".repeat(64), &unknown[1..]] {
        failed(ErrorKind::InvalidSetting, managed.rollback(id, Some(odd)));
    }
    // The one that runs already.
    let current = managed.sha256_of(id, "2");
    let same = managed.rollback(id, Some(&current)).unwrap();
    assert!(same.unchanged && same.gap.is_none() && same.previous.is_none());
    // Its archive is gone.
    let older = managed.sha256_of(id, "1");
    managed.store.delete_archive(&older).unwrap();
    let error = failed(ErrorKind::RecordDamaged, managed.rollback(id, None));
    assert!(error.to_string().contains(&older), "{error}");
    assert_eq!(managed.answering_process(id), is_running);
    assert_eq!(managed.get(id).unwrap().record(), before.record());

    let alone = managed.installed(managed.package("1", &[]));
    failed(ErrorKind::UnknownVersion, managed.rollback(alone, None));
    let (outside, _) = managed.install_external(manifest("outside")).unwrap();
    assert_matches!(managed.versions(outside.id()), Err(Error::Unsupported(_)));
    assert_matches!(
        managed.rollback(outside.id(), None),
        Err(Error::Unsupported(_))
    );
    let stranger = InstallationId::generate();
    assert_matches!(managed.versions(stranger), Err(Error::NotInstalled(_)));
    assert_matches!(
        managed.rollback(stranger, None),
        Err(Error::NotInstalled(_))
    );
}

#[test]
fn an_inactive_plugin_goes_back_and_is_not_started() {
    let managed = Managed::new("back-inactive");
    let id = managed.running_second();
    managed.deactivate(id, LONG).unwrap();
    let events = managed.host.subscribe();
    let report = managed.back(id);
    assert_eq!(report.gap, None);
    assert_eq!(report.installation.reported_state(), Inactive);
    assert!(events.try_recv().is_err(), "something was started");
    managed.activate(id, LONG).unwrap();
    managed.expect_running(id, "1");
}

/// Installed in a version that does what it is told, and runs in version 2.
#[track_caller]
fn running_after(managed: &Managed, arguments: &[&str]) -> InstallationId {
    let id = managed.installed(managed.package("1", arguments));
    managed
        .update(id, managed.package("2", &["alone"]))
        .unwrap();
    managed.activate(id, LONG).unwrap();
    managed.write_own_file(id, "own.txt", "from 2");
    id
}

#[test]
fn a_version_that_does_not_come_up_any_more_gives_way_again() {
    let managed = Managed::new("back-fails");
    let id = running_after(&managed, &["alone", "exit-at", "start", "1"]);
    let before = managed.get(id).unwrap();
    for _ in 0..2 {
        let error = failed(ErrorKind::RolledBack, managed.rollback(id, None));
        assert!(error.to_string().contains("exit status 1"), "{error}");
        assert_eq!(source(&error).kind(), ErrorKind::PluginFailed);
        managed.expect_running(id, "2");
        assert_eq!(managed.get(id).unwrap().record(), before.record());
        assert_eq!(managed.kept(id), ["2", "1"]);
    }
}

#[test]
fn a_stop_or_a_removal_ends_the_start_of_the_version_before() {
    for point in [Some(fault::UNPACKED), None] {
        for removes in [false, true] {
            println!("{point:?}, removes: {removes}");
            // Longer than any test may take: waiting for the trial's end finds nothing but Busy.
            let settings = settings().activate_timeout(Duration::from_secs(3600));
            let managed = Managed::with("end-back", settings);
            let id = running_after(&managed, &["alone", "hang-at", "start"]);
            drop(managed.host.lifelines.next());
            let back = managed.ended_during(id, point, removes, || managed.rollback(id, None));
            failed(ErrorKind::RolledBack, back);
            if removes {
                managed.expect_nothing_at_all();
                continue;
            }
            let shown = managed.get(id).unwrap();
            assert_eq!(shown.record().active_state, ActiveState::Inactive);
            assert_eq!(managed.kept(id), ["2", "1"]);
            managed.activate(id, LONG).unwrap();
            managed.expect_running(id, "2");
        }
    }
}

#[test]
fn a_store_that_fails_leaves_the_version_that_ran() {
    for step in [Step::PutArchive, Step::Put] {
        println!("{step:?}");
        let store = Arc::new(FailingStore::default());
        let managed = Managed::over(store.clone(), "back-store", settings());
        let id = managed.running_second();
        store.fail(step, 0);
        println!("{}", managed.rollback(id, None).unwrap_err());
        store.mend();
        managed.expect_running(id, "2");
        assert_eq!(managed.kept(id), ["2", "1"]);
        managed.back(id);
        managed.expect_running(id, "1");
    }
}

#[test]
fn a_damaged_record_is_not_gone_back_with() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "back-damaged", settings());
    let id = managed.running_second();
    let sound = managed.store.get(id).unwrap().unwrap();
    let mut damaged = sound.clone();
    damaged.releases.clear();
    store.damage(damaged, "its releases cannot be read");
    failed(ErrorKind::RecordDamaged, managed.rollback(id, None));
    // Nothing that it may name is removed meanwhile.
    let other = managed.installed(managed.package("7", &[]));
    managed.remove(other).unwrap();
    assert!(managed.store.list_archives().unwrap().len() >= 2);
    managed.store.put(sound).unwrap();
    managed.back(id);
    managed.expect_running(id, "1");
}

#[test]
fn archives_that_are_kept_outlive_what_others_do() {
    let managed = Managed::new("kept-archives");
    let id = managed.running_second();
    let first = managed.sha256_of(id, "1");
    // The same packages, installed a second time and removed.
    let other = managed.installed(managed.package("1", &["alone"]));
    managed
        .update(other, managed.package("2", &["alone"]))
        .unwrap();
    managed.remove(other).unwrap();
    let other = managed.installed(managed.package("9", &[]));
    managed.remove(other).unwrap();
    assert!(managed.store.list_archives().unwrap().contains_key(&first));
    let Managed { manager, host, .. } = managed;
    drop(manager);
    let managed = Managed::of(host, settings());
    managed.expect_running(id, "2");
    // Its directory is gone; the archive has all but what the plugin wrote.
    fs::remove_dir_all(managed.folder(id).join("releases").join(first)).unwrap();
    managed.back(id);
    assert_eq!(managed.answering_version(id), "1");
    assert_eq!(managed.own_file(id, "own.txt"), None);
    managed.expect_kept_alone(id);
    managed.remove(id).unwrap();
    managed.expect_nothing_at_all();
}

/// As a kill leaves it, before and after the record has changed.
#[test]
fn what_a_crash_interrupts_leaves_the_versions_that_are_kept() {
    let managed = Managed::new("back-crash");
    let id = managed.running_second();
    let stray = "ab".repeat(32);
    let mut managed = managed;
    for (current, other) in [("2", "1"), ("1", "2")] {
        for which in [current, other] {
            let digest = managed.sha256_of(id, which);
            let releases = managed.folder(id).join("releases");
            fs::create_dir(releases.join(&stray)).unwrap();
            let name = format!("{id}.update.{digest}");
            fs::write(managed.data().join("operations").join(name), "").unwrap();
            let Managed { manager, host, .. } = managed;
            drop(manager);
            managed = Managed::of(host, settings());
            assert_eq!(managed.kept(id), [current, other]);
            managed.expect_running(id, current);
        }
        managed.back(id);
        managed.expect_running(id, other);
    }
}

#[test]
fn an_update_that_fails_costs_no_version() {
    let managed = Managed::new("failed-between");
    let id = managed.running_second();
    let failing = managed.package("3", &["alone", "exit-at", "start", "1"]);
    failed(ErrorKind::RolledBack, managed.update(id, failing));
    assert_eq!(managed.kept(id), ["2", "1"]);
    assert_eq!(managed.releases(id).len(), 3, "one that failed is kept");
    managed.back(id);
    managed.expect_running(id, "1");
    assert_eq!(managed.releases(id).len(), 2);
}

/// Its files are replaced before it runs, so there is nothing to go back to if it fails.
#[test]
fn a_version_that_is_kept_may_be_installed_again() {
    let managed = Managed::new("kept-again");
    let first = managed.package("1", &["alone"]);
    let id = managed.running_second();
    let hold = fault::hold(fault::UNPACKED, id);
    thread::scope(|scope| {
        let updating = scope.spawn(|| managed.update(id, first.clone()));
        assert!(hold.reached(LONG), "it did not come so far");
        assert_eq!(managed.kept(id), ["2"]);
        hold.release();
        updating.join().unwrap().unwrap();
    });
    assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("from 2"));
    assert_eq!(managed.kept(id), ["1", "2"]);

    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "kept-again-fails", settings());
    let id = managed.running_second();
    store.fail(Step::PutArchive, 0);
    managed
        .update(id, managed.package("1", &["alone"]))
        .unwrap_err();
    store.mend();
    assert_eq!(managed.kept(id), ["2"]);
    managed.expect_running(id, "2");
}

#[test]
fn a_record_without_a_list_of_releases_gets_one() {
    let managed = Managed::new("no-list");
    let id = managed.running(managed.package("1", &["alone"]));
    managed.write_own_file(id, "own.txt", "from 1");
    let mut record = managed.store.get(id).unwrap().unwrap();
    record.releases.clear();
    managed.store.put(record).unwrap();
    let [only] = &managed.versions(id).unwrap()[..] else {
        panic!("{:?}", managed.versions(id));
    };
    assert!(only.is_current && only.used_from.is_none() && only.used_until.is_none());
    managed.step_to(id, "2");
    let [_, before] = &managed.versions(id).unwrap()[..] else {
        panic!("{:?}", managed.versions(id));
    };
    assert!(before.used_from.is_none() && before.used_until.is_some());
    managed.back(id);
    managed.expect_running(id, "1");
}

#[test]
fn what_an_admin_api_shows_of_a_version() {
    let managed = Managed::new("version-json");
    let id = managed.running_second();
    let versions: Vec<Version> = managed.versions(id).unwrap();
    let seconds = |time: Option<SystemTime>| {
        time.map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap())
            .map(|since| since.as_secs_f64())
    };
    let expected: Vec<_> = versions
        .iter()
        .map(|version| {
            json!({
                "sha256": version.sha256, "size": version.size, "version": version.version,
                "is_current": version.is_current, "used_from": seconds(version.used_from),
                "used_until": seconds(version.used_until),
            })
        })
        .collect();
    assert_eq!(serde_json::to_value(&versions).unwrap(), json!(expected));
    assert_eq!(expected.len(), 2);
}

#[test]
fn an_update_with_another_digest_is_refused_before_anything_changes() {
    let managed = Managed::new("pinned");
    let id = managed.running_second();
    let before = managed.get(id).unwrap();
    let process = managed.answering_process(id);
    let package = managed.package("3", &["alone"]);
    let path = managed.host.folder().join("pinned.zip");
    fs::write(&path, &package).unwrap();
    let sources: [&dyn Fn() -> PackageSource<'static>; 3] = [
        &|| PackageSource::bytes(package.clone()),
        &|| PackageSource::reader(Cursor::new(package.clone())),
        &|| PackageSource::file(&path),
    ];
    let wrong = managed.sha256_of(id, "1");
    for source in sources {
        let pinned = || source().sha256(&wrong);
        failed(
            ErrorKind::DigestMismatch,
            managed.update_package(id, pinned()),
        );
        failed(
            ErrorKind::DigestMismatch,
            managed.install_or_update(pinned()),
        );
        let malformed = source().sha256("123");
        failed(
            ErrorKind::InvalidSetting,
            managed.update_package(id, malformed),
        );
    }
    assert_eq!(managed.answering_process(id), process);
    assert_eq!(managed.get(id).unwrap().record(), before.record());
    managed.expect_running(id, "2");
    let [file, reader] = [sources[2], sources[1]];
    let right = sha256(&managed.update_package(id, file()).unwrap().installation).to_owned();
    let again = managed.install_or_update(reader().sha256(&right)).unwrap();
    assert!(again.unchanged);
    managed.back(id);
    let pinned = sources[0]().sha256(&right);
    managed.install_or_update(pinned).unwrap();
    assert_eq!(managed.answering_version(id), "3");
}
