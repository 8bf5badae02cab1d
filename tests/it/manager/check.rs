//! Whether everything is alive that must be: the reaper, the store, the host; and what a check costs when many ask.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use plugin_runner::error::Phase;
use plugin_runner::{ErrorKind, fault};
use rustix::process::Signal;

use super::store::{Done, FailingStore, Step};
use super::*;
use crate::support::{assert_matches, wait_until};

/// Too short for anything that is held.
const SHORT: Duration = Duration::from_millis(50);

#[track_caller]
fn expect_timeout(result: Result<(), Error>, expected: Phase) {
    assert_matches!(
        result,
        Err(Error::Timeout { phase, limit, .. }) if phase == expected && limit == SHORT
    );
}

#[test]
fn a_host_is_well_from_the_start_and_ready_once_it_has_booted() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "check", settings());
    managed.check(LONG).unwrap();
    assert_eq!(store.notes_written(), 1);
    assert!(!managed.is_booted());
    managed.boot(LONG).unwrap();
    assert!(managed.is_booted());
    managed.check(LONG).unwrap();
    managed.host.shutdown(LONG);
    // Though it was well less than a second before.
    assert_matches!(managed.check(LONG), Err(Error::ShutDown));
    assert!(!managed.is_booted());
}

#[test]
fn a_boot_that_fails_makes_nothing_ready() {
    let store = Arc::new(FailingStore::default());
    let deaf = TestHost::with("check-boot", |setup| {
        setup.deaf();
        setup.configure(|builder| builder.store(store));
    });
    let managed = Managed::of(deaf, settings());
    let id = managed.installed(managed.package("1", &[]));
    let mut record = managed.store.get(id).unwrap().unwrap();
    record.set_active_state(plugin_runner::ActiveState::Active);
    managed.store.put(record).unwrap();
    assert_eq!(
        managed.boot(LONG).unwrap_err().kind(),
        ErrorKind::InvalidSetting
    );
    assert!(!managed.is_booted());
}

#[test]
fn a_reaper_that_does_not_answer_is_named() {
    let managed = Managed::new("check-reaper");
    let id = managed.running(managed.package("1", &[]));
    let hold = fault::hold(fault::EXITED, id);
    managed.host.lifelines.next().signal(Signal::KILL);
    assert!(hold.reached(LONG), "the end of the plugin was not noticed");
    expect_timeout(managed.check(SHORT), Phase::Reaper);
    // The same check, which is still in progress.
    expect_timeout(managed.check(SHORT), Phase::Reaper);
    hold.release();
    managed.check(LONG).unwrap();
}

#[test]
fn a_store_that_cannot_be_written_is_told_until_it_can() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "check-store", settings());
    store.fail(Step::SetNote, 0);
    let error = managed.check(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    store.mend();
    // That result stands for a second.
    wait_until("a new check", || managed.check(LONG).is_ok());
}

#[test]
fn any_number_of_callers_cost_one_write() {
    const CALLERS: usize = 100;
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "check-many", settings());
    let held = store.hold(Done::SetNote);
    let calling = Barrier::new(CALLERS + 1);
    thread::scope(|scope| {
        scope.spawn(|| managed.check(LONG).unwrap());
        held.expect(LONG);
        expect_timeout(managed.check(SHORT), Phase::Store);
        for _ in 0..CALLERS {
            scope.spawn(|| {
                calling.wait();
                managed.check(LONG).unwrap();
            });
        }
        calling.wait();
        drop(held);
    });
    // One more for each second that passes before the last of them has come so far.
    let written = store.notes_written();
    assert!((1..10).contains(&written), "{written}");
}

#[test]
fn a_store_without_notes_is_read() {
    let store = Arc::new(FailingStore::default());
    store.keep_no_notes();
    let managed = Managed::over(store.clone(), "check-no-notes", settings());
    let held = store.hold(Done::Get);
    thread::scope(|scope| {
        let checked = scope.spawn(|| managed.check(LONG));
        held.expect(LONG);
        drop(held);
        checked.join().unwrap().unwrap();
    });
}

#[cfg(feature = "sqlite")]
#[test]
fn a_store_that_may_only_be_read_is_told() {
    use plugin_runner::store::SqliteStore;

    let folder = TestDir::new("check-read-only");
    drop(SqliteStore::open(folder.path()).unwrap());
    let store = Arc::new(SqliteStore::open_read_only(folder.path()).unwrap());
    let managed = Managed::over(store, "check-read-only", settings());
    managed.boot(LONG).unwrap();
    let error = managed.check(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert!(error.to_string().contains(folder.path().to_str().unwrap()));
}
