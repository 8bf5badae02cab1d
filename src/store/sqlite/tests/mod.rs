//! The store in a folder of its own. What takes other processes or a small disk is in the
//! integration tests.

mod archives;
mod damage;
mod opening;
mod reading;
mod records;
mod writing;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;

use super::SqliteStore;
use crate::error::{Error, StoreError};
use crate::protocol::manifest::Manifest;
use crate::store::conformance::{self, Persistent};
use crate::store::{Record, Source, Store};

/// A folder that is removed at the end.
struct TestFolder(PathBuf);

impl TestFolder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plugin-runner-sqlite-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.0).unwrap()
    }

    /// Opening must fail so.
    #[track_caller]
    fn refused(&self) -> StoreError {
        store_error(SqliteStore::open(&self.0).map(|_| ()))
    }

    fn database(&self) -> PathBuf {
        self.0.join("plugins.sqlite")
    }

    /// The database itself, while no store has it.
    fn sqlite(&self) -> Connection {
        let connection = Connection::open(self.database()).unwrap();
        connection
            .pragma_update(None, "foreign_keys", true)
            .unwrap();
        connection
    }

    fn execute(&self, sql: &str) {
        self.sqlite().execute_batch(sql).unwrap();
    }

    /// All files below the folder, with what is in them.
    fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = fs::read(&path).unwrap();
                    files.push((path, bytes));
                }
            }
        }
        files.sort();
        files
    }

    /// The names of the files, relative to the folder.
    fn files(&self) -> Vec<String> {
        let content = self.content();
        let names = content
            .iter()
            .map(|(path, _)| path.strip_prefix(&self.0).unwrap());
        names
            .map(|name| name.to_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn manifest(name: &str) -> Manifest {
    let json = serde_json::json!({"id": "plugin", "author": "test", "name": name});
    Manifest::parse(json.to_string().as_bytes()).unwrap()
}

fn record(name: &str) -> Record {
    Record::supervised(manifest(name), Source::Folder("/plugins".into()))
}

#[track_caller]
fn store_error(result: crate::Result<()>) -> StoreError {
    match result {
        Err(Error::Store(error)) => (*error).clone(),
        other => panic!("{other:?}"),
    }
}

/// A new folder for each new store.
struct Subject(Option<TestFolder>);

impl Persistent for Subject {
    fn open_empty(&mut self) -> Arc<dyn Store> {
        self.0 = Some(TestFolder::new());
        self.reopen()
    }

    fn reopen(&mut self) -> Arc<dyn Store> {
        Arc::new(self.0.as_ref().unwrap().open())
    }
}

#[test]
fn it_keeps_a_stores_promises() {
    conformance::check_persistent(&mut Subject(None)).unwrap();
}
