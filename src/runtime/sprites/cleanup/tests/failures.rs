//! Removals beside a store that fails, and without a thread.

use super::*;

#[test]
fn a_sprite_that_is_kept_for_its_data_outlives_whatever_fails() {
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    let cleanup = setup.host();
    // The store keeps the note, and cannot be read after that.
    let unread = setup.install(&cleanup);
    cleanup.note_removal(unread, true).unwrap();
    setup.store.delete(unread).unwrap();
    setup.store.fail("notes");
    cleanup.removed(unread, true);
    setup.store.fail("");
    // A removal before this one failed, and its note could not be taken back.
    let undecided = setup.install(&cleanup);
    cleanup.note_removal(undecided, false).unwrap();
    setup.store.fail("set_note");
    cleanup.removed(undecided, false);
    setup.store.fail("");
    cleanup.note_removal(undecided, true).unwrap();
    setup.store.delete(undecided).unwrap();
    assert_eq!(cleanup.removed(undecided, true), None);
    setup.wait_for_the_thread();
    let mut kept = [cleanup.name_of(unread), cleanup.name_of(undecided)];
    kept.sort();
    assert_eq!(fake.sprites(), kept);

    // The next host deletes nothing either.
    setup.host();
    setup.wait_for_the_thread();
    assert_eq!(fake.sprites(), kept);
    // And the other way round: what is removed for good is noted as that alone.
    let removed = setup.install(&cleanup);
    cleanup.note_removal(removed, true).unwrap();
    cleanup.note_removal(removed, false).unwrap();
    setup.store.delete(removed).unwrap();
    assert_eq!(cleanup.removed(removed, true), None);
    assert_eq!((fake.sprites().len(), setup.deletions()), (2, 1));
    assert_eq!(setup.store.inner.notes(KEPT).unwrap().len(), 2);
    setup.wait_for_the_thread();
    drop(setup);
    fake.finish();
}

#[test]
fn a_removal_does_not_wait_where_there_is_no_thread_for_its_sprite() {
    let fake = Fake::start();
    let setup = Setup::on(&fake);
    let cleanup = setup.host();
    let id = setup.install(&cleanup);
    let (free, held) = crossbeam_channel::bounded::<()>(0);
    for _ in 0..2 {
        let held = held.clone();
        let wait = move || {
            let _ = held.recv();
        };
        setup.threads.spawn("held", STACK, wait).unwrap();
    }
    cleanup.note_removal(id, false).unwrap();
    setup.store.delete(id).unwrap();
    let began = Instant::now();
    let left = cleanup.removed(id, true).unwrap();
    assert!(left.contains("threads"), "{left}");
    assert!(began.elapsed() < REMOVAL_TIME / 2, "{:?}", began.elapsed());
    drop(free);
    wait_until("both threads to end", || setup.threads.count() == 0);
    // It goes with the next one.
    let next = setup.install(&cleanup);
    setup.remove(&cleanup, next);
    setup.wait_for_the_thread();
    assert!(fake.sprites().is_empty());
    drop(setup);
    fake.finish();
}
