//! What earlier hosts left, what a removal is told, and the end of the host.

use std::sync::Arc;

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use plugin_runner::ReportedState::{Inactive, Starting, Stopping};
use plugin_runner::runtime::Launch;
use plugin_runner::{ActiveState, Error, ErrorKind, Manager, Store};
use rustix::event::{PollFd, PollFlags, poll};

use super::own::{Own, plugin};
use crate::support::host::{active, supervised};
use crate::support::{LONG, failed, wait_until};

const WHY: &str = "a run goes on for a minute after its host";

#[test]
fn what_outlives_a_host_is_no_secret() {
    let host = Own::new().outliving(WHY).host("outlives");
    let guarantees = host.guarantees();
    assert!(!guarantees.plugins_end_with_host);
    let told = guarantees
        .limitations
        .iter()
        .any(|text| text.ends_with(WHY));
    assert!(told, "{guarantees:?}");
    let host = Own::new().host("ends-with-host");
    assert!(host.guarantees().plugins_end_with_host);
}

#[test]
fn only_what_may_have_outlived_a_host_is_cleared() {
    let own = Own::new();
    let host = own.host("nothing-to-clear");
    let session = host.install(plugin(&host, "inactive"));
    supervised(&session).stop(LONG).unwrap();
    assert!(own.calls().is_empty());
    drop(host);

    let own = Own::new().outliving(WHY);
    let host = own.host("cleared");
    let session = host.install(plugin(&host, "inactive"));
    wait_until("what was left to be cleared", || own.calls() == ["clear"]);
    // There may be thousands of them, and each log is an open file.
    let logs = host.installation_folder(&session).join("logs");
    assert!(!logs.exists(), "it has a log and has never run");
    // An active one is started, which clears by itself.
    let mut record = plugin(&host, "active");
    record.active_state = ActiveState::Active;
    let wanted = host.install(record);
    active(&wanted);
    assert_eq!(own.calls(), ["clear", "start"]);
    assert_eq!(session.reported_state(), Inactive);
}

/// Waits until it is cancelled.
fn hang(launch: &Launch<'_>) {
    let cancelled = launch.cancelled();
    let mut watched = [PollFd::from_borrowed_fd(cancelled, PollFlags::IN)];
    let limit = LONG.try_into().unwrap();
    assert_eq!(poll(&mut watched, Some(&limit)), Ok(1), "not cancelled");
}

#[test]
fn a_start_waits_until_all_is_cleared() {
    let (go, gate) = bounded::<()>(0);
    let own = Own::new().outliving(WHY).on_clear(move |launch| {
        assert!(launch.connection_url().is_none());
        let _ = gate.recv_timeout(LONG);
        Ok(())
    });
    let host = own.host("start-waits");
    let mut events = host.events();
    let session = host.install(plugin(&host, "left"));
    wait_until("clearing", || own.calls() == ["clear"]);
    supervised(&session).start().unwrap();
    events.until(session.id(), Starting);
    assert_eq!(own.count(), 0);
    drop(go);
    active(&session);
    assert_eq!(own.calls(), ["clear", "start"]);
}

#[test]
fn a_few_are_cleared_at_a_time_and_no_start_waits_for_others() {
    const MANY: usize = 40;
    let (go, gate) = bounded::<()>(0);
    let at_once = Arc::new(Mutex::new((0, 0)));
    let seen = at_once.clone();
    let own = Own::new().outliving(WHY).on_clear(move |_| {
        {
            let (now, most) = &mut *seen.lock();
            *now += 1;
            *most = (*most).max(*now);
        }
        let _ = gate.recv_timeout(LONG);
        seen.lock().0 -= 1;
        Ok(())
    });
    let host = own.host("many-cleared");
    let mut sessions: Vec<_> = (0..MANY)
        .map(|number| host.install(plugin(&host, &format!("left-{number}"))))
        .collect();
    wait_until("the first to be cleared", || own.calls().len() == 8);
    // Its turn has not come, and a start clears by itself.
    let wanted = sessions.pop().unwrap();
    supervised(&wanted).start().unwrap();
    active(&wanted);
    // Nor has that of this one, which goes.
    let gone = sessions.pop().unwrap();
    host.unload(gone.id()).unwrap();
    drop(go);
    wait_until("all others to be cleared", || {
        let calls = own.calls();
        calls.iter().filter(|call| **call == "clear").count() == MANY - 2
    });
    assert_eq!(at_once.lock().1, 8, "were cleared at once");
}

#[test]
fn a_stop_while_it_is_cleared_ends_that() {
    let own = Own::new().outliving(WHY).on_clear(|launch| {
        hang(launch);
        Err(Error::new(ErrorKind::Cancelled, "cancelled"))
    });
    let host = own.host("stop-while-clearing");
    let mut events = host.events();
    let session = host.install(plugin(&host, "left"));
    wait_until("clearing", || own.calls() == ["clear"]);
    supervised(&session).start().unwrap();
    supervised(&session).stop(LONG).unwrap();
    events.expect(session.id(), &[Starting, Stopping, Inactive]);
    assert_eq!(own.calls(), ["clear"]);
    // An unload as well, and a shutdown, which the end of the test checks.
    host.unload(session.id()).unwrap();
    host.install(plugin(&host, "again"));
    wait_until("clearing", || own.calls() == ["clear", "clear"]);
}

#[test]
fn what_cannot_be_cleared_keeps_nothing_from_starting() {
    for is_panic in [false, true] {
        let own = Own::new().outliving(WHY).on_clear(move |_| {
            assert!(!is_panic, "on purpose");
            Err(Error::new(ErrorKind::RuntimeUnavailable, "not today"))
        });
        let host = own.host("not-cleared");
        let session = host.install(plugin(&host, "left"));
        supervised(&session).start().unwrap();
        active(&session);
        assert_eq!(own.calls(), ["clear", "start"]);
        assert_eq!(session.error_message(), None);
    }
}

#[test]
fn a_removal_is_told_before_the_record_goes_and_after() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let store: Arc<Mutex<Option<Arc<dyn Store>>>> = Arc::default();
    let may_remove = Arc::new(Mutex::new(false));
    let own = {
        let (before, after) = (told.clone(), told.clone());
        let (first, second) = (store.clone(), store.clone());
        let is_there = |store: &Mutex<Option<Arc<dyn Store>>>, id| {
            let store = store.lock().clone().unwrap();
            store.get(id).unwrap().is_some()
        };
        let may_remove = may_remove.clone();
        Own::new().on_removal(
            move |id, keep_data| {
                let there = is_there(&first, id);
                before.lock().push(format!(
                    "removing, keeping data: {keep_data}, record: {there}"
                ));
                if *may_remove.lock() {
                    Ok(())
                } else {
                    Err(Error::new(ErrorKind::RuntimeUnavailable, "not today"))
                }
            },
            move |id, is_gone| {
                let there = is_there(&second, id);
                after
                    .lock()
                    .push(format!("removed: {is_gone}, record: {there}"));
                is_gone.then(|| "its files are still there".to_owned())
            },
        )
    };
    let host = own.host("removal");
    *store.lock() = Some(host.store().clone());
    let manager = Manager::new(host.clone()).unwrap();
    let mut record = plugin(&host, "removed");
    record.active_state = ActiveState::Active;
    let id = record.id;
    let session = host.install(record);
    active(&session);

    let error = failed(ErrorKind::RuntimeUnavailable, manager.remove(id));
    assert_eq!(error.to_string(), "not today");
    // It runs again.
    active(&manager.session(id).unwrap());
    let expected = [
        "removing, keeping data: false, record: true",
        "removed: false, record: true",
    ];
    assert_eq!(std::mem::take(&mut *told.lock()), expected);

    *may_remove.lock() = true;
    let report = manager.remove_keeping_data(id).unwrap();
    assert_eq!(report.left.as_deref(), Some("its files are still there"));
    let expected = [
        "removing, keeping data: true, record: true",
        "removed: true, record: false",
    ];
    assert_eq!(std::mem::take(&mut *told.lock()), expected);
    *store.lock() = None;
    drop(manager);
}

#[test]
fn a_runtime_is_told_of_the_end_of_its_host_once_and_last() {
    let own = Own::new();
    let mut host = own.host("told-of-the-end");
    active(&host.start(plugin(&host, "running")));
    let taken = host.take();
    let report = taken.shutdown(LONG);
    assert!(report.is_complete(), "{report:?}");
    assert!(own.run(0).is_dropped());
    assert_eq!(own.calls(), ["start", "shut_down"]);
    taken.shutdown(LONG);
    drop(taken);
    assert_eq!(own.calls(), ["start", "shut_down"]);
}
