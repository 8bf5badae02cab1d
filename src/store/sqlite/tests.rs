//! What takes the store's own connection or files to bring about. All else is in the integration tests.

use std::fs;
use std::io::{Cursor, Read as _};
use std::path::Path;
use std::time::Duration;

use parking_lot::MutexGuard;
use rusqlite::Connection;

use super::archive_files::UnfinishedArchive;
use super::dir::StoreDir;
use super::{Access, SqliteStore};
use crate::error::{FailureCause, StoreError};
use crate::package::{Archive, PackageLimits};
use crate::protocol::manifest::Manifest;
use crate::store::{Record, Source, Store};
use crate::testing::{TestDir, assert_matches};

fn archives(dir: &TestDir) -> usize {
    fs::read_dir(dir.path().join("archives")).unwrap().count()
}

fn record(name: &str) -> Record {
    let manifest = Manifest {
        name: name.to_owned(),
        ..Manifest::default()
    };
    Record::supervised(manifest, Source::Directory("/plugins".into()))
}

#[track_caller]
fn store_error(result: crate::Result<()>) -> StoreError {
    let error = result.unwrap_err();
    match error.cause() {
        Some(FailureCause::Store(error)) => error.clone(),
        _ => panic!("{error:?}"),
    }
}

fn connection(store: &SqliteStore) -> MutexGuard<'_, Connection> {
    match &store.access {
        Access::Writer(writer) => writer.connection(),
        Access::Reader(_) => panic!("it is not owned"),
    }
}

fn set(store: &SqliteStore, pragma: &str, value: u32) {
    let connection = connection(store);
    connection.pragma_update(None, pragma, value).unwrap();
}

/// Ends in the middle.
struct Broken;

impl std::io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("broken"))
    }
}

#[test]
fn a_content_with_another_digest_is_refused() {
    let dir = TestDir::new("sqlite");
    let files = StoreDir::make(dir.path()).unwrap();
    let digest = "0".repeat(64);
    let copied = UnfinishedArchive::copy(&files, &digest, &mut &b"content"[..]);
    let error = store_error(copied.map(|_| ()));
    assert_matches!(
        error,
        StoreError::Archive {
            problem: "damaged",
            ..
        }
    );
    let mut content = (&b"content"[..]).chain(Broken);
    let error = UnfinishedArchive::copy(&files, &digest, &mut content).unwrap_err();
    assert!(error.to_string().ends_with("broken"), "{error}");
    assert_eq!(archives(&dir), 0);
}

#[test]
fn a_full_database_keeps_what_it_has_and_goes_on_when_there_is_room() {
    let dir = TestDir::new("sqlite");
    let open = |path: &Path| SqliteStore::open(path).unwrap();
    let store = open(dir.path());
    let kept = record("kept");
    store.put(kept.clone()).unwrap();
    set(&store, "max_page_count", 1);
    let long = serde_json::Map::from_iter([("long".to_owned(), "x".repeat(100_000).into())]);
    let mut large = record("large");
    large.configuration = long;
    let mut grown = large.clone();
    grown.id = kept.id;
    for record in [&large, &grown] {
        let error = store_error(store.put(record.clone()));
        let StoreError::Full { path } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(path, &dir.path().join("plugins.sqlite"));
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&kept));
    }
    let reader = SqliteStore::open_read_only(dir.path()).unwrap();
    assert_eq!(reader.list().unwrap(), std::slice::from_ref(&kept));
    set(&store, "max_page_count", 1_000_000);
    store.put(large.clone()).unwrap();
    drop(store);
    assert_eq!(open(dir.path()).list().unwrap(), [kept, large]);
}

/// The row does not come, and so the file must not stay.
#[test]
fn an_archive_whose_row_cannot_be_written_is_not_there() {
    let dir = TestDir::new("sqlite");
    let store = SqliteStore::open(dir.path()).unwrap();
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("manifest.json", options).unwrap();
    let bytes = zip.finish().unwrap().into_inner();
    let archive = Archive::from_bytes(bytes, &PackageLimits::default()).unwrap();
    set(&store, "query_only", 1);
    let noted = store.set_note("a", Some(""));
    for written in [store.put_archive(&archive), store.put(record("a")), noted] {
        let error = store_error(written);
        assert_matches!(error, StoreError::ReadOnly { .. });
    }
    assert!(store.list_archives().unwrap().is_empty());
    assert!(store.notes("").unwrap().is_empty());
    assert_eq!(archives(&dir), 0);
    set(&store, "query_only", 0);
    store.put_archive(&archive).unwrap();
    store.put(record("a")).unwrap();
}

#[test]
fn a_database_that_somebody_else_has_locked_is_waited_for_and_named() {
    let dir = TestDir::new("sqlite");
    let store = SqliteStore::open(dir.path()).unwrap();
    let at_most = Duration::from_millis(1);
    connection(&store).busy_timeout(at_most).unwrap();
    let kept = record("kept");
    store.put(kept.clone()).unwrap();
    // Not closed before the store, whose locks it would take with it if it were not SQLite's.
    let other = Connection::open(dir.path().join("plugins.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let noted = store.set_note("a", Some(""));
    for written in [store.put(record("more")), store.delete(kept.id), noted] {
        let error = store_error(written);
        assert_matches!(error, StoreError::Busy { .. });
        assert!(store.notes("").unwrap().is_empty());
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&kept));
    }
    other.execute_batch("ROLLBACK").unwrap();
    store.put(record("more")).unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
}
