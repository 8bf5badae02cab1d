//! Updating: another version in the place of one, with what the plugin wrote; and back again when the
//! new one does not come up.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use plugin_runner::ReportedState::{Active, Connecting, Errored, Inactive, Starting, Stopping};
use plugin_runner::error::Disconnect;
use plugin_runner::manager::{PackageSource, UpdateReport};
use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::{ActiveState, Error, ErrorKind, InstallationId, fault};
use serde_json::json;

use super::store::{FailingStore, Step};
use super::{Managed, settings, sha256, source};
use crate::support::host::TestHost;
use crate::support::plugin::{TRANSPORTS, manifest};
use crate::support::{LONG, assert_matches, failed};

/// Longer than any test may take: whoever waits for it waits in vain.
const FOREVER: Duration = Duration::from_secs(3600);

impl Managed {
    #[track_caller]
    fn updated(&self, id: InstallationId, package: Vec<u8>) -> UpdateReport {
        self.try_update(id, package).unwrap()
    }

    fn try_update(&self, id: InstallationId, package: Vec<u8>) -> Result<UpdateReport, Error> {
        self.update_package(id, PackageSource::bytes(package))
    }

    /// The version before is installed, and runs with its files.
    #[track_caller]
    fn expect_as_before(&self, id: InstallationId, text: &str) {
        let shown = self.get(id).unwrap();
        assert_eq!(shown.manifest().version, "1");
        assert_eq!(shown.reported_state(), Active);
        assert_eq!(self.answering_version(id), "1");
        assert_eq!(self.own_file(id, "own.txt").as_deref(), Some(text));
        self.lock(id).expect_one_at_a_time();
        self.expect_nothing_left_over();
    }
}

#[test]
fn a_running_plugin_is_replaced_with_its_files() {
    for transport in TRANSPORTS {
        println!("{transport}");
        let managed = Managed::new("update");
        let package = |version| managed.package_of("scripted", version, transport, &["alone"]);
        let id = managed.running(package("1"));
        managed.write_own_file(id, "own.txt", "kept");
        let data = managed.folder(id).join("data").join("in-data");
        fs::write(&data, "untouched").unwrap();
        let mut events = managed.host.events();
        let session = managed.session(id);
        let call = session
            .start_call_raw("sleep", &json!({"ms": 3_600_000}), FOREVER)
            .unwrap();
        let began = Instant::now();
        let update = managed.updated(id, package("2"));
        let gap = update.gap.unwrap();
        assert!(!update.unchanged && gap <= began.elapsed() && !gap.is_zero());
        assert_eq!(update.installation.reported_state(), Active);
        assert_eq!(update.installation.manifest().version, "2");
        assert_eq!(update.migrated_files, 1);
        assert_eq!(update.left_count, 0);
        let error = call.wait().unwrap_err();
        let cause = assert_matches!(&error, Error::Disconnected(cause) => cause);
        assert_matches!(
            &**cause,
            Disconnect::ByHost { code: 1012, reason } if &**reason == "package updated"
        );
        assert_eq!(managed.answering_version(id), "2");
        assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("kept"));
        assert_eq!(fs::read_to_string(data).unwrap(), "untouched");
        events.expect(id, &[Stopping, Inactive, Starting, Connecting, Active]);
        managed.lock(id).expect_one_at_a_time();
        assert_eq!(managed.host.lifelines.most_at_once(), 1);
        assert_eq!(managed.releases(id).len(), 2);
        managed.expect_nothing_left_over();
        // Stopped and started it is the new one as well.
        managed.deactivate(id, LONG).unwrap();
        managed.activate(id, LONG).unwrap();
        assert_eq!(managed.answering_version(id), "2");
    }
}

#[test]
fn an_inactive_plugin_is_replaced_and_not_started() {
    let managed = Managed::new("update-inactive");
    let id = managed.running(managed.package("1", &[]));
    managed.write_own_file(id, "own.txt", "kept");
    managed.deactivate(id, LONG).unwrap();
    let events = managed.host.subscribe();
    let update = managed.updated(id, managed.package("2", &[]));
    assert_eq!(update.gap, None);
    assert_eq!(update.migrated_files, 1);
    assert_eq!(update.installation.reported_state(), Inactive);
    assert!(events.try_recv().is_err(), "something was started");
    managed.activate(id, LONG).unwrap();
    assert_eq!(managed.answering_version(id), "2");
    assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("kept"));
    managed.expect_nothing_left_over();
}

#[test]
fn two_releases_are_kept_and_one_may_come_back() {
    let managed = Managed::new("there-and-back");
    let [a, b, c] = ["1", "2", "3"].map(|version| managed.package(version, &[]));
    let id = managed.running(a.clone());
    let mut versions = vec![sha256(&managed.get(id).unwrap()).to_owned()];
    managed.write_own_file(id, "own.txt", "from 1");
    for (number, package) in [b, a.clone(), c, a].into_iter().enumerate() {
        let update = managed.updated(id, package);
        assert!(!update.unchanged);
        versions.push(sha256(&update.installation).to_owned());
        let [.., before, now] = &versions[..] else {
            panic!("{versions:?}");
        };
        let mut expected = vec![before.clone(), now.clone()];
        expected.sort_unstable();
        assert_eq!(managed.releases(id), expected);
        assert_eq!(
            update.previous,
            Some(managed.folder(id).join("releases").join(before))
        );
        // What it wrote last, not what the version that comes back had then.
        let text = format!("from {}", number + 1);
        assert_eq!(managed.own_file(id, "own.txt"), Some(text));
        managed.write_own_file(id, "own.txt", &format!("from {}", number + 2));
        managed.expect_nothing_left_over();
    }
    assert_eq!(managed.answering_version(id), "1");
}

#[test]
fn the_same_package_changes_nothing_and_mends_what_is_missing() {
    let managed = Managed::new("same");
    let package = managed.package("1", &[]);
    let id = managed.running(package.clone());
    let process = managed.host.lifelines.next();
    let before = managed.get(id).unwrap();
    let update = managed.updated(id, package.clone());
    assert!(update.unchanged && update.gap.is_none());
    assert_eq!(update.installation.record(), before.record());
    assert!(process.is_alive());
    managed.deactivate(id, LONG).unwrap();
    let archive = sha256(&before).to_owned();
    fs::remove_dir_all(managed.folder(id)).unwrap();
    managed.store.delete_archive(&archive).unwrap();
    let error = managed.manager.package(id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordDamaged);
    assert!(managed.activate(id, LONG).is_err());
    let update = managed.updated(id, package);
    assert!(update.unchanged && update.previous.is_none());
    assert_eq!(managed.releases(id), [archive]);
    managed.expect_nothing_left_over();
    // It had errored for lack of that, and is tried again.
    let session = managed.session(id);
    session.wait_for(Active, LONG).unwrap();
}

#[test]
fn what_cannot_be_an_update_leaves_the_plugin_running() {
    let managed = Managed::with("refused-update", settings().migrated_files(2));
    let id = managed.running(managed.package("1", &["alone"]));
    managed.updated(id, managed.package("0", &["alone"]));
    managed.updated(id, managed.package("1", &["alone"]));
    managed.write_own_file(id, "own.txt", "kept");
    let process = loop {
        let next = managed.host.lifelines.next();
        if next.is_alive() {
            break next;
        }
    };
    let releases = managed.releases(id);
    assert_eq!(releases.len(), 2);
    let other = managed.package_of("other", "2", Transport::WebSocket, &[]);
    let error = failed(ErrorKind::OtherPlugin, managed.try_update(id, other));
    let text = error.to_string();
    assert!(
        text.contains("plugin \"other\", installed is \"scripted\""),
        "{text}"
    );
    let error = managed.try_update(id, b"no archive".to_vec()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidPackage);
    managed.write_own_file(id, "second", "");
    managed.write_own_file(id, "third", "");
    // Also where the new one has been there before.
    for version in ["0", "2"] {
        let error = managed
            .try_update(id, managed.package(version, &["alone"]))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MigrationTooLarge);
        assert!(
            error.to_string().contains("over the limit of 2 files"),
            "{error}"
        );
        assert_eq!(managed.releases(id), releases);
    }
    assert!(process.is_alive());
    managed.expect_as_before(id, "kept");
}

#[test]
fn an_archive_that_does_not_unpack_stops_nothing_and_leaves_nothing() {
    let managed = Managed::new("does-not-unpack");
    let id = managed.running(managed.package("1", &["alone"]));
    managed.write_own_file(id, "own.txt", "kept");
    let process = managed.host.lifelines.next();
    let of = Manifest {
        version: "2".to_owned(),
        ..manifest("scripted")
    };
    // Hardly to be compressed, so that most of the archive is this.
    let noise: Vec<u8> = (0_u32..100_000)
        .map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[1])
        .collect();
    let mut damaged = managed.package_with(&of, &[("noise", &noise, 0o644)]);
    let middle = damaged.len() / 2;
    for byte in &mut damaged[middle..middle + 16] {
        *byte ^= 0x55;
    }
    for _ in 0..2 {
        let error = managed.update(id, damaged.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidPackage);
        let error = managed
            .install(PackageSource::bytes(damaged.clone()))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidPackage);
        assert_eq!(managed.releases(id).len(), 1);
        assert_eq!(managed.list().unwrap().len(), 1);
    }
    assert!(process.is_alive());
    managed.expect_as_before(id, "kept");
}

/// How a new version may fail, and what it is told to do for that.
const FAILING: [(&str, &[&str]); 4] = [
    ("exits", &["alone", "exit-at", "start", "1"]),
    ("exits cleanly", &["alone", "exit-at", "start", "0"]),
    ("is killed", &["alone", "kill-self-at", "start", "9"]),
    ("is none", &["alone", "no such argument"]),
];

#[test]
fn a_version_that_does_not_come_up_is_rolled_back() {
    let managed = Managed::new("roll-back");
    let id = managed.running(managed.package("1", &["alone"]));
    managed.write_own_file(id, "own.txt", "kept");
    for (what, arguments) in FAILING {
        println!("{what}");
        let package = managed.package("2", arguments);
        let error = failed(ErrorKind::RolledBack, managed.update(id, package));
        assert!(error.to_string().contains("its last output: "), "{error}");
        managed.expect_as_before(id, "kept");
    }
    // What failed may be tried again, and is unpacked afresh.
    let good = managed.package("2", &["alone"]);
    let update = managed.updated(id, good);
    assert_eq!(update.migrated_files, 1);
    assert_eq!(managed.answering_version(id), "2");
    assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("kept"));
}

#[test]
fn a_version_that_is_not_there_in_time_is_rolled_back() {
    let settings = settings().activate_timeout(Duration::from_millis(200));
    let managed = Managed::with("late", settings);
    let id = managed.running(managed.package("1", &["alone"]));
    managed.write_own_file(id, "own.txt", "kept");
    let package = managed.package("2", &["alone", "hang-at", "start"]);
    let error = failed(ErrorKind::RolledBack, managed.update(id, package));
    assert!(source(&error).is_timeout(), "{error}");
    // The version before may need longer than that on a busy machine.
    managed.activate(id, LONG).unwrap();
    managed.expect_as_before(id, "kept");
}

#[test]
fn a_version_that_runs_out_of_time_is_reported_with_what_went_wrong_last() {
    let host = TestHost::with("update-problem", |setup| {
        setup.policy(|policy| policy.max_backoff(Duration::from_secs(3600)));
    });
    let settings = settings().activate_timeout(Duration::from_secs(3));
    let managed = Managed::of(host, settings);
    let id = managed.running(managed.package("1", &["alone"]));
    let package = managed.package("2", &["alone", "exit-at", "start", "1"]);
    let error = failed(ErrorKind::RolledBack, managed.try_update(id, package));
    let cause = source(&error);
    assert!(cause.is_timeout(), "{error}");
    let text = cause.to_string();
    assert!(
        text.ends_with("; it ended with exit status 1 and is being restarted"),
        "{text}"
    );
    // Said once, and with the last line.
    let text = error.to_string();
    assert_eq!(text.matches("exit status 1").count(), 1, "{text}");
    assert!(text.contains("(its last output: "), "{text}");
    managed.activate(id, LONG).unwrap();
}

#[test]
fn what_the_failed_version_wrote_stays_with_it() {
    let managed = Managed::new("failed-files");
    let id = managed.running(managed.package("1", &["alone"]));
    managed.write_own_file(id, "own.txt", "kept");
    let hold = fault::hold(fault::MIGRATED, id);
    thread::scope(|scope| {
        let update = scope.spawn(|| {
            let package = managed.package("2", &["alone", "exit-at", "start", "1"]);
            managed.update(id, package)
        });
        assert!(hold.reached(LONG), "it did not come so far");
        for release in managed.releases(id) {
            let path = managed.folder(id).join("releases").join(release);
            if fs::read_to_string(path.join("own.txt")).unwrap() == "kept"
                && path
                    != managed
                        .folder(id)
                        .join("releases")
                        .join(sha256(&managed.get(id).unwrap()))
            {
                fs::write(path.join("own.txt"), "spoilt").unwrap();
            }
        }
        hold.release();
        failed(ErrorKind::RolledBack, update.join().unwrap());
    });
    managed.expect_as_before(id, "kept");
}

#[test]
fn a_store_that_fails_rolls_back() {
    for step in [Step::PutArchive, Step::Put] {
        println!("{step:?}");
        let store = Arc::new(FailingStore::default());
        let managed = Managed::over(store.clone(), "update-store", settings());
        let id = managed.running(managed.package("1", &["alone"]));
        managed.write_own_file(id, "own.txt", "kept");
        store.fail(step, 0);
        let error = managed.update(id, managed.package("2", &["alone"]));
        println!("{}", error.unwrap_err());
        store.mend();
        // Only what was tried is left.
        let was_tried = step == Step::Put;
        assert_eq!(managed.releases(id).len(), 1 + usize::from(was_tried));
        managed.expect_as_before(id, "kept");
    }
}

#[test]
fn one_that_has_errored_is_replaced_as_a_running_one_is() {
    let managed = Managed::new("update-errored");
    let id = managed.installed(managed.package("1", &["exit-at", "start", "1"]));
    managed.activate(id, LONG).unwrap_err();
    assert_eq!(managed.get(id).unwrap().reported_state(), Errored);
    let releases = managed.folder(id).join("releases");
    let [release] = &managed.releases(id)[..] else {
        panic!("more than one release");
    };
    fs::write(releases.join(release).join("own.txt"), "kept").unwrap();
    let update = managed.updated(id, managed.package("2", &[]));
    assert!(update.gap.is_some());
    assert_eq!(managed.answering_version(id), "2");
    assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("kept"));
    managed.expect_nothing_left_over();
}

#[test]
fn a_stop_or_a_removal_ends_the_start_of_a_new_version() {
    // Before its wait and in it.
    for point in [Some(fault::UNPACKED), Some(fault::MIGRATED), None] {
        for removes in [false, true] {
            println!("{point:?}, removes: {removes}");
            // Who waits for the trial's end finds nothing but Busy.
            let settings = settings().activate_timeout(FOREVER);
            let managed = Managed::with("end-trial", settings);
            let id = managed.running(managed.package("1", &["alone"]));
            drop(managed.host.lifelines.next());
            let mut events = managed.host.events();
            let package = managed.package("2", &["alone", "hang-at", "start"]);
            let updated = managed.ended_during(id, point, removes, || managed.update(id, package));
            failed(ErrorKind::RolledBack, updated);
            if removes {
                managed.expect_nothing_at_all();
            } else {
                let shown = managed.get(id).unwrap();
                assert_eq!(shown.manifest().version, "1");
                assert_eq!(shown.record().active_state, ActiveState::Inactive);
                assert_eq!(shown.reported_state(), Inactive);
                managed.lock(id).expect_one_at_a_time();
                let changes = events.heard(&managed.session(id));
                let came_up = |change: &&plugin_runner::StateChange| change.to == Active;
                assert!(
                    !changes.iter().any(|change| came_up(&change)),
                    "the old one was started"
                );
                managed.activate(id, LONG).unwrap();
                assert_eq!(managed.answering_version(id), "1");
            }
            managed.expect_nothing_left_over();
        }
    }
}
