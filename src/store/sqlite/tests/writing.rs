//! Writes that fail.

use super::super::Access;
use super::super::settings::SqliteSettings;
use super::*;
use std::time::Duration;

fn limit_pages(store: &SqliteStore, pages: u32) {
    let Access::Owner(owner) = &store.access else {
        panic!("it is not owned");
    };
    let connection = owner.connection();
    connection
        .pragma_update(None, "max_page_count", pages)
        .unwrap();
}

#[test]
fn nothing_is_acknowledged_that_goes_to_a_file_nobody_will_open() {
    let folder = TestFolder::new();
    let store = folder.open();
    let kept = record("kept");
    store.put(kept.clone()).unwrap();
    let (path, aside) = (folder.database(), folder.path().join("aside"));
    for replaced in [false, true] {
        fs::rename(&path, &aside).unwrap();
        if replaced {
            fs::copy(&aside, &path).unwrap();
        }
        for result in [store.put(record("lost")), store.delete(kept.id)] {
            let error = store_error(result);
            assert!(
                matches!(&error, StoreError::Damaged { path: named, .. } if *named == path),
                "{error:?}"
            );
        }
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&kept));
        fs::rename(&aside, &path).unwrap();
    }
    store.delete(kept.id).unwrap();
}

#[test]
fn a_full_database_keeps_what_it_has_and_goes_on_when_there_is_room() {
    let folder = TestFolder::new();
    let store = folder.open();
    let kept = record("kept");
    store.put(kept.clone()).unwrap();
    limit_pages(&store, 1);
    let mut large = record("large");
    large
        .configuration
        .insert("long".to_owned(), "x".repeat(100_000).into());
    let mut grown = large.clone();
    grown.id = kept.id;
    for record in [&large, &grown] {
        let error = store_error(store.put(record.clone()));
        let StoreError::Full { path } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(path, &folder.database());
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&kept));
    }
    let reader = SqliteStore::open_read_only(folder.path()).unwrap();
    assert_eq!(reader.list().unwrap(), std::slice::from_ref(&kept));
    limit_pages(&store, 1_000_000);
    store.put(large.clone()).unwrap();
    drop(store);
    assert_eq!(folder.open().list().unwrap(), [kept, large]);
}

#[test]
fn a_database_that_somebody_else_has_locked_is_waited_for_and_named() {
    let folder = TestFolder::new();
    let settings = SqliteSettings::default().with_busy_timeout(Duration::from_millis(1));
    let store = SqliteStore::open_with(folder.path(), &settings).unwrap();
    let kept = record("kept");
    store.put(kept.clone()).unwrap();
    // Not closed before the store, whose locks it would take with it if it were not SQLite's.
    let other = Connection::open(folder.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for written in [store.put(record("more")), store.delete(kept.id)] {
        let error = store_error(written);
        assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&kept));
    }
    other.execute_batch("ROLLBACK").unwrap();
    store.put(record("more")).unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn an_archive_that_does_not_fit_leaves_nothing_behind() {
    let folder = TestFolder::new();
    let store = folder.open();
    let archive = archives::archive("a", 10);
    let archives = folder.path().join("archives");
    fs::remove_dir(&archives).unwrap();
    fs::write(&archives, "in the way").unwrap();
    let error = store.put_archive(&archive).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert!(
        error.to_string().contains(&*archives.to_string_lossy()),
        "{error}"
    );
    assert_eq!(store.list_archives().unwrap(), []);
    fs::remove_file(&archives).unwrap();
    fs::create_dir(&archives).unwrap();
    store.put_archive(&archive).unwrap();
    assert_eq!(store.list_archives().unwrap().len(), 1);
}

/// The row does not come, and so the file must not stay.
#[test]
fn an_archive_whose_row_cannot_be_written_is_not_there() {
    let folder = TestFolder::new();
    let store = folder.open();
    let archive = archives::archive("a", 10);
    let Access::Owner(owner) = &store.access else {
        panic!("it is not owned");
    };
    let set = |read_only: bool| {
        let connection = owner.connection();
        connection
            .pragma_update(None, "query_only", read_only)
            .unwrap();
    };
    set(true);
    let error = store_error(store.put_archive(&archive));
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert_eq!(store.list_archives().unwrap(), []);
    assert_eq!(
        fs::read_dir(folder.path().join("archives"))
            .unwrap()
            .count(),
        0
    );
    let error = store_error(store.put(record("a")));
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    set(false);
    store.put_archive(&archive).unwrap();
    store.put(record("a")).unwrap();
}
