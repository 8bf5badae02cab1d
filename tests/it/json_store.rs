//! The example of a store of one's own, with the checks that are meant for it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use plugin_runner::InstallationId;
use plugin_runner::store::conformance::{self, Persistent};
use plugin_runner::store::{Record, Source, Store};

use crate::support::TestDir;
use crate::support::plugin::manifest;

#[path = "../examples/json_store.rs"]
#[expect(dead_code, reason = "its `main` is not called")]
mod example;

use example::JsonStore;

/// A new directory for each new store.
struct Subject {
    dir: TestDir,
    opened: u32,
}

impl Subject {
    fn path(&self) -> PathBuf {
        self.dir.path().join(self.opened.to_string())
    }
}

impl Persistent for Subject {
    fn open_empty(&mut self) -> Arc<dyn Store> {
        self.opened += 1;
        self.reopen()
    }

    fn reopen(&mut self) -> Arc<dyn Store> {
        Arc::new(JsonStore::open(self.path()).unwrap())
    }

    fn damage(&mut self, id: InstallationId) -> bool {
        let path = self.path().join(format!("{id}.json"));
        let whole = fs::read(&path).unwrap();
        fs::write(path, &whole[..whole.len() / 2]).unwrap();
        true
    }
}

#[test]
fn the_store_of_the_example_keeps_a_stores_promises() {
    let dir = TestDir::new("json-store");
    conformance::check_persistent(&mut Subject { dir, opened: 0 }).unwrap();
}

#[test]
fn a_bad_file_is_shown_and_every_other_is_read() {
    let dir = TestDir::new("json-damage");
    let source = || Source::Directory("/plugins".into());
    let records: [Record; 3] =
        std::array::from_fn(|_| Record::supervised(manifest("kept"), source()));
    let path = |record: &Record| dir.path().join(format!("{}.json", record.id));
    {
        let store = JsonStore::open(dir.path()).unwrap();
        for record in &records {
            store.put(record.clone()).unwrap();
        }
    }
    fs::write(path(&records[0]), "{\"token\": \"secret\",\n").unwrap();
    fs::copy(path(&records[2]), path(&records[1])).unwrap();
    fs::write(dir.path().join("notes.json"), "not a record").unwrap();
    let store = JsonStore::open(dir.path()).unwrap();
    let damaged = |record: &Record, why: &str| Record::damaged(record.id, why);
    let expected = [
        damaged(&records[0], "its file cannot be read: line 2, column 0"),
        damaged(&records[1], "its file is another plugin's"),
        records[2].clone(),
    ];
    assert_eq!(store.list().unwrap(), expected);
}

#[test]
fn what_the_disk_refuses_is_one_sentence() {
    let dir = TestDir::new("json-refused");
    let file = dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let error = JsonStore::open(&file).unwrap_err().to_string();
    let expected = format!("cannot create {}/archives: ", file.display());
    assert!(error.starts_with(&expected), "{error}");
}
