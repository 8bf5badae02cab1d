//! Removing: a plugin goes with all that was its, or stays whole.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use plugin_runner::ReportedState::{Active, Stopping};
use plugin_runner::error::{Disconnect, Phase};
use plugin_runner::plugin_log::{Followed, Follower};
use plugin_runner::{Error, ErrorKind, Host, Manager, fault};
use serde_json::json;

use super::store::{FailingStore, Step};
use super::{Managed, names, settings};
use crate::support::host::TestHost;
use crate::support::plugin::call;
use crate::support::{LONG, assert_matches, failed, timed_out};

#[test]
fn a_running_plugin_goes_with_everything() {
    let managed = Managed::new("remove");
    let id = managed.running(managed.package("1", &["write-file", "precious"]));
    let process = managed.host.lifelines.next();
    let session = managed.session(id);
    let call = session
        .start_call_raw("sleep", &json!({"ms": 3_600_000}), LONG)
        .unwrap();
    let removed = managed.remove(id).unwrap();
    assert_eq!((removed.kept, removed.left), (None, None));
    assert!(!process.is_alive());
    let error = call.wait().unwrap_err();
    let cause = assert_matches!(&error, Error::Disconnected(cause) => cause);
    assert_matches!(
        &**cause,
        Disconnect::ByHost { code: 1008, reason } if &**reason == "removed",
        "{error}"
    );
    let error = managed.get(id).unwrap_err();
    assert_matches!(error, Error::NotInstalled(_));
    assert!(!managed.folder(id).exists());
    assert!(managed.store.list_archives().unwrap().is_empty());
    managed.expect_nothing_at_all();
    let error = managed.remove(id).unwrap_err();
    assert_matches!(error, Error::NotInstalled(_));
}

#[test]
fn data_and_logs_may_remain() {
    let managed = Managed::new("remain");
    let id = managed.running(managed.package("1", &["write-file", "precious"]));
    managed.write_own_file(id, "own.txt", "beside the program");
    let removed = managed.remove_keeping_data(id).unwrap();
    let remains = removed.kept.unwrap();
    assert_eq!(remains, managed.folder(id));
    assert_eq!(names(&remains), ["data", "logs"]);
    assert_eq!(names(&remains.join("data")), ["precious"]);
    assert!(managed.list().unwrap().is_empty());
    managed.expect_nothing_left_over();
    // Of one that never ran nothing remains.
    let id = managed.installed(managed.package("1", &[]));
    let removed = managed.remove_keeping_data(id).unwrap();
    assert_eq!(removed.kept, None);
    assert!(!managed.folder(id).exists());
}

#[test]
fn a_follower_of_its_log_ends_once_it_has_read_the_rest() {
    for keep_data in [false, true] {
        let managed = Managed::new("remove-followed");
        let id = managed.running(managed.package("1", &[]));
        let session = managed.session(id);
        let mut late = session.follow_log().unwrap();
        let mut waiting = session.follow_log().unwrap();
        let rest = |follower: &mut Follower| -> (Vec<String>, Error) {
            let mut lines = Vec::new();
            loop {
                match follower.next(LONG) {
                    Ok(Followed::Line(line)) => lines.push(line),
                    Ok(other) => panic!("not a line: {other:?}"),
                    Err(error) => return (lines, error),
                }
            }
        };
        thread::scope(|scope| {
            let waiting = scope.spawn(move || rest(&mut waiting));
            call(&session, "log", &json!({ "line": "the last" })).unwrap();
            let removed = if keep_data {
                managed.remove_keeping_data(id)
            } else {
                managed.remove(id)
            };
            removed.unwrap();
            for (lines, error) in [waiting.join().unwrap(), rest(&mut late)] {
                assert!(lines.iter().any(|line| line == "the last"), "{lines:?}");
                assert!(
                    matches!(error, Error::NotInstalled(removed) if removed == id),
                    "{error}"
                );
            }
        });
        let error = session.follow_log().unwrap_err();
        assert!(matches!(error, Error::NotLoaded(_)), "{error}");
        managed.expect_nothing_left_over();
    }
}

#[test]
fn an_archive_goes_with_the_last_plugin_that_has_it() {
    let managed = Managed::new("shared-archive");
    let package = managed.package("1", &[]);
    let first = managed.running(package.clone());
    let second = managed.running(package);
    managed.remove(first).unwrap();
    assert_eq!(managed.store.list_archives().unwrap().len(), 1);
    assert_eq!(managed.answering_version(second), "1");
    // Unpacked once more from it.
    managed.deactivate(second, LONG).unwrap();
    fs::remove_dir_all(managed.folder(second).join("releases")).unwrap();
    managed.activate(second, LONG).unwrap();
    managed.remove(second).unwrap();
    managed.expect_nothing_at_all();
}

#[test]
fn an_archive_that_is_being_installed_is_not_collected() {
    let managed = Managed::new("not-collected");
    let package = managed.package("1", &[]);
    let first = managed.installed(package.clone());
    let second = managed.installed(managed.package("2", &[]));
    let hold = fault::hold(fault::ARCHIVED, second);
    thread::scope(|scope| {
        let update = scope.spawn(|| managed.update(second, package));
        assert!(hold.reached(LONG), "it did not come so far");
        // Nobody else has it now.
        managed.remove(first).unwrap();
        hold.release();
        update.join().unwrap().unwrap();
    });
    managed.activate(second, LONG).unwrap();
    managed.expect_nothing_left_over();
}

#[test]
fn a_plugin_that_cannot_be_stopped_stays_installed() {
    let host = TestHost::with("cannot-stop", |setup| {
        setup.timeouts(|timeouts| {
            timeouts
                .stop(Duration::from_millis(100))
                .stop_grace(Duration::from_millis(10))
        });
    });
    let managed = Managed::of(host, settings());
    let id = managed.running(managed.package("1", &[]));
    let process = managed.host.lifelines.next();
    let loss = fault::lose(fault::SIGNALLING, id);
    let error = managed.remove(id).unwrap_err();
    assert_eq!(timed_out(&error).0, Phase::Stop);
    let shown = managed.get(id).unwrap();
    assert_eq!(shown.reported_state(), Stopping);
    assert!(managed.folder(id).join("data").is_dir());
    managed.expect_nothing_left_over();
    drop(loss);
    process.cut();
    process.expect_end();
    while let Err(error) = managed.remove(id) {
        // As often as this machine needs to see its end in that time.
        assert!(error.is_timeout(), "{error}");
    }
    managed.expect_nothing_at_all();
}

#[test]
fn a_plugin_that_cannot_be_deleted_runs_again() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "cannot-delete", settings());
    let id = managed.running(managed.package("1", &["alone"]));
    let before = managed.get(id).unwrap().record().clone();
    store.fail(Step::Delete, 0);
    let error = managed.remove(id).unwrap_err();
    assert_matches!(error, Error::Io { .. });
    assert_eq!(managed.get(id).unwrap().record(), &before);
    managed.session(id).wait_for(Active, LONG).unwrap();
    assert_eq!(managed.answering_version(id), "1");
    managed.expect_nothing_left_over();
    // What is to be removed cannot be written down: it is not even stopped.
    store.mend();
    let process = loop {
        let next = managed.host.lifelines.next();
        if next.is_alive() {
            break next;
        }
    };
    let operations = managed.data().join("operations");
    fs::remove_dir(&operations).unwrap();
    fs::write(&operations, "in the way").unwrap();
    let error = managed.remove(id).unwrap_err();
    let named = error.to_string().contains(operations.to_str().unwrap());
    assert!(named, "{error}");
    assert!(process.is_alive());
    fs::remove_file(&operations).unwrap();
    managed.remove(id).unwrap();
    managed.expect_nothing_at_all();
}

#[test]
fn what_could_not_be_removed_goes_with_the_next_manager() {
    let managed = Managed::new("leftover");
    let id = managed.running(managed.package("1", &[]));
    managed.remove(id).unwrap();
    let (data, folder, store) = (managed.data(), managed.folder(id), managed.store.clone());
    let another = || {
        let next = Host::builder()
            .data_dir(&data)
            .store(store.clone())
            .build()
            .unwrap();
        let made = Manager::new(next.clone()).map(drop);
        next.shutdown(LONG);
        made
    };
    let in_use = failed(ErrorKind::StoreInUse, another()).to_string();
    let own = "is in use by another store or manager of this process;";
    assert!(in_use.contains(own), "{in_use}");
    let Managed { manager, host, .. } = managed;
    drop(manager);
    let operations = data.join("operations");
    for (what, goes) in [
        ("remove.all", true),
        ("remove.keep-data", true),
        ("remove", false),
    ] {
        let intent_file = operations.join(format!("{id}.{what}"));
        fs::create_dir_all(folder.join("releases").join("half")).unwrap();
        fs::create_dir_all(folder.join("data")).unwrap();
        fs::write(&intent_file, "").unwrap();
        another().unwrap();
        assert_eq!(!folder.join("releases").exists(), goes, "{what}");
        assert_eq!(folder.join("data").exists(), what != "remove.all");
        assert_eq!(
            intent_file.exists(),
            !goes,
            "what is not understood is left"
        );
    }
    fs::remove_file(operations.join(format!("{id}.remove"))).unwrap();
    fs::remove_dir_all(folder).unwrap();
    Managed::of(host, settings()).expect_nothing_at_all();
}
