//! Databases and records that are not what they were.

use std::time::UNIX_EPOCH;

use plugin_runner::protocol::Manifest;
use plugin_runner::store::{Overrides, PluginKind};
use plugin_runner::{ActiveState, ErrorKind};

use super::*;
use crate::support::plugin::With as _;

type Configuration = serde_json::Map<String, serde_json::Value>;

#[test]
fn a_missing_or_empty_database_is_not_begun_anew_over_archives() {
    let dir = StoreDir::new();
    let archive = archive("a", 100);
    dir.open().put_archive(&archive).unwrap();
    let kept = fs::read(dir.database()).unwrap();
    let kept_archives = archives(dir.path());
    for content in [None, Some("")] {
        fs::remove_file(dir.database()).unwrap();
        if let Some(content) = content {
            fs::write(dir.database(), content).unwrap();
        }
        let error = dir.refused();
        assert_eq!(error.kind(), ErrorKind::StoreDamaged);
        let text = error.to_string();
        assert!(
            text.starts_with(&format!(
                "{} is damaged: it is ",
                dir.database().display()
            )) && text.ends_with(
                "; put a backup of it in its place, or move the whole directory away to start over"
            ),
            "{text}"
        );
        assert_eq!(archives(dir.path()), kept_archives);
        fs::write(dir.database(), &kept).unwrap();
    }
    let store = dir.open();
    assert!(store.get_archive(archive.sha256()).unwrap().is_some());
}

#[test]
fn an_empty_database_and_a_log_without_one_are_damage_too() {
    let dir = StoreDir::new();
    drop(dir.open());
    fs::write(dir.database(), "").unwrap();
    assert_eq!(dir.refused().kind(), ErrorKind::StoreDamaged);
    assert_eq!(dir.reader_refused().kind(), ErrorKind::StoreDamaged);
    fs::remove_file(dir.database()).unwrap();
    fs::write(dir.path().join("plugins.sqlite-wal"), "x").unwrap();
    assert_eq!(dir.refused().kind(), ErrorKind::StoreDamaged);
    fs::write(dir.path().join("plugins.sqlite-wal"), "").unwrap();
    drop(dir.open());
}

/// A database with a few records, some of which fill pages of their own; and what is in it.
fn filled(dir: &StoreDir) -> Vec<Record> {
    let store = dir.open();
    for number in 0..12 {
        let mut record = record(&format!("{number}"));
        let long = "x".repeat(1_500 * number);
        record.configuration.insert("long".to_owned(), long.into());
        store.put(record).unwrap();
    }
    store.list().unwrap()
}

/// Whether the database was refused as damaged. If not, all that is expected is in it.
#[track_caller]
fn is_refused(opened: Result<SqliteStore>, expected: &[Record], length: usize) -> bool {
    let opened = opened.map(|store| assert_eq!(store.list().unwrap(), expected, "{length}"));
    if opened.is_ok() {
        return false;
    }
    let error = store_error(opened);
    assert_eq!(error.kind(), ErrorKind::StoreDamaged, "{length}: {error}");
    assert!(
        error.to_string().contains("plugins.sqlite is damaged"),
        "{length}: {error}"
    );
    true
}

#[test]
fn a_database_that_is_cut_off_anywhere_is_refused_or_whole() {
    let dir = StoreDir::new();
    let expected = filled(&dir);
    let whole = fs::read(dir.database()).unwrap();
    let archives = dir.path().join("archives");
    let mut lengths: Vec<_> = (0..whole.len()).step_by(509).collect();
    lengths.extend(0..120);
    lengths.extend((0..whole.len()).step_by(4096));
    lengths.extend(whole.len() - 50..=whole.len());
    for length in lengths {
        fs::write(dir.database(), &whole[..length]).unwrap();
        if is_refused(SqliteStore::open(dir.path()), &expected, length) {
            assert_eq!(fs::read(dir.database()).unwrap(), whole[..length]);
            assert_eq!(dir.files(), ["owner.lock", "plugins.sqlite"], "{length}");
        }
        is_refused(SqliteStore::open_read_only(dir.path()), &expected, length);
    }
    assert!(archives.is_dir());
    fs::write(dir.database(), &whole).unwrap();
    assert_eq!(dir.open().list().unwrap(), expected);
}

/// As after a crash: what was written last is in the log alone.
#[test]
fn a_database_that_is_cut_off_is_found_with_a_log_beside_it() {
    let dir = StoreDir::new();
    let mut expected = filled(&dir);
    let crashed = StoreDir::new();
    fs::create_dir(crashed.path().join("archives")).unwrap();
    let log = {
        let store = dir.open();
        expected[3] = expected[3].clone().variable("LAST", "1");
        store.put(expected[3].clone()).unwrap();
        // By SQLite's own account nobody may open it here; nobody writes any more either.
        fs::read(dir.path().join("plugins.sqlite-wal")).unwrap()
    };
    // The store has put it into the database when it was closed; before, it was not there.
    let database = fs::read(dir.database()).unwrap();
    let mut refused = 0;
    for length in (0..=database.len()).step_by(1_021).chain([database.len()]) {
        fs::write(crashed.database(), &database[..length]).unwrap();
        fs::write(crashed.path().join("plugins.sqlite-wal"), &log).unwrap();
        let reading = SqliteStore::open_read_only(crashed.path());
        let refused_to_read = is_refused(reading, &expected, length);
        let is_refused = is_refused(SqliteStore::open(crashed.path()), &expected, length);
        assert_eq!(refused_to_read, is_refused, "{length}");
        if is_refused {
            assert_eq!(fs::read(crashed.database()).unwrap(), database[..length]);
            let kept = fs::read(crashed.path().join("plugins.sqlite-wal")).unwrap();
            assert_eq!(kept, log, "{length}");
            refused += 1;
        }
        for name in FILES {
            let _ = fs::remove_file(crashed.path().join(name));
        }
    }
    assert!(refused > 10, "only {refused} were refused");
}

/// The last transactions are as if they had never been, and no other is.
#[test]
fn a_log_that_is_cut_off_loses_its_end_alone() {
    let dir = StoreDir::new();
    let before = filled(&dir);
    let database = fs::read(dir.database()).unwrap();
    let mut states = vec![before.clone()];
    let log = {
        let store = dir.open();
        for record in before.iter().take(5) {
            store.put(record.clone().variable("LAST", "1")).unwrap();
            states.push(store.list().unwrap());
        }
        fs::read(dir.path().join("plugins.sqlite-wal")).unwrap()
    };
    let crashed = StoreDir::new();
    let mut at_least = 0;
    for length in (0..=log.len()).step_by(997).chain([log.len()]) {
        fs::write(crashed.database(), &database).unwrap();
        fs::write(crashed.path().join("plugins.sqlite-wal"), &log[..length]).unwrap();
        let found = crashed.open().list().unwrap();
        let state = states.iter().position(|state| *state == found);
        let state = state.unwrap_or_else(|| panic!("{length}: a state that never was"));
        assert!(state >= at_least, "{length}");
        at_least = state;
    }
    assert_eq!(at_least, 5);
}

#[test]
fn pages_with_nonsense_in_them_are_refused_or_only_change_what_is_told() {
    let dir = StoreDir::new();
    let expected = filled(&dir);
    let whole = fs::read(dir.database()).unwrap();
    for start in (100..whole.len()).step_by(1_777) {
        let mut bytes = whole.clone();
        for byte in bytes.iter_mut().skip(start).take(64) {
            *byte ^= 0xa5;
        }
        fs::write(dir.database(), &bytes).unwrap();
        match SqliteStore::open(dir.path()) {
            // Where nothing is, or within a record.
            Ok(store) => {
                let found = store.list().unwrap();
                assert_eq!(
                    found.len() + store.unreadable_rows(),
                    expected.len(),
                    "{start}"
                );
            }
            Err(error) => {
                let known = matches!(
                    error.kind(),
                    ErrorKind::StoreDamaged | ErrorKind::NewerSchema
                );
                assert!(known, "{start}: {error:?}");
                assert_eq!(fs::read(dir.database()).unwrap(), bytes);
            }
        }
    }
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let dir = StoreDir::new();
    for content in ["SQLite format 2\0", "PK\x03\x04", "x", &"\0".repeat(10_000)] {
        fs::write(dir.database(), content).unwrap();
        let error = dir.refused();
        assert!(error.to_string().contains("it is no database"), "{error}");
        assert_eq!(fs::read(dir.database()).unwrap(), content.as_bytes());
    }
}

/// Which record, what is done to its row, and what its damage begins with.
const CHANGES: &str = r#"
supervised | manifest = '{"id":"plugin","name":7}' | manifest cannot be read
supervised | manifest = '{"id":"plu' | manifest cannot be read
supervised | manifest = CAST(X'FF' AS TEXT) | manifest is not text
supervised | configuration = '[1]' | configuration is not what it should be at line 1
supervised | configuration = '' | configuration is cut off at line 1
supervised | unsettled_configuration = 'secret' | unsettled_configuration is not JSON at line 1
supervised | overrides = '{"environment":1}' | overrides is not what it should be at line 1
supervised | labels = '{"team":1}' | labels is not what it should be at line 1, column 9
supervised | labels = '["secret"]' | labels is not what it should be at line 1
supervised | releases = '{"secret":1}' | releases is not what it should be at line 1
supervised | added_by = CAST(X'FF' AS TEXT) | added_by is not text
supervised | active_state = 'perhaps' | active_state is not a state
supervised | source_kind = 'elsewhere' | source_kind does not fit
supervised | source_path = NULL | source_kind does not fit
supervised | mode = 'mine' | mode is neither
external | token_digest = 'AB' | token_digest is not a digest
external | token = 'sdprt_secret' | token is not the one
external | token_digest = NULL, token = NULL | token_digest is not a digest
external | overrides = 'null' | overrides is not what it should be
external | configuration = '{', overrides = '}', active_state = '' | active_state is not a state; configuration is cut off at line 1, column 1; overrides is not JSON at line 1, column 1
"#;

/// Puts in place what a record has where a column cannot be read.
fn stand_in(record: &mut Record, column: &str) {
    match column {
        "manifest" => record.manifest = Manifest::default(),
        "configuration" => record.configuration = Configuration::new(),
        "unsettled_configuration" => record.pending_configuration = Some(Configuration::new()),
        "overrides" => record.overrides = Overrides::default(),
        "added_by" => record.added_by = None,
        "labels" => record.labels.clear(),
        "releases" => record.releases.clear(),
        "active_state" => record.active_state = ActiveState::Inactive,
        "token_digest" => {
            record.kind = PluginKind::external_by_digest(&"0".repeat(64)).unwrap();
        }
        "token" => {
            if let PluginKind::External { digest, .. } = record.kind.clone() {
                record.kind = PluginKind::external_by_digest(&digest).unwrap();
            }
        }
        _ => record.kind = PluginKind::Supervised(Source::Directory(PathBuf::new())),
    }
}

#[test]
fn each_part_of_a_record_that_cannot_be_read_has_a_stand_in() {
    let dir = StoreDir::new();
    let other = record("other");
    let mut external = Record::external(manifest("external")).unwrap();
    external.configuration.insert("a".to_owned(), 1.into());
    let mut supervised = record("supervised").variable("A", "1");
    supervised.active_state = ActiveState::Active;
    supervised.added_by = Some("anna".to_owned());
    (supervised.labels).insert("team".to_owned(), "ops".to_owned());
    let records = [supervised.clone(), external.clone(), other.clone()];
    for line in CHANGES.trim().lines() {
        let [which, change, problem] = line.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let whole = if which == "external" {
            &external
        } else {
            &supervised
        };
        let store = dir.open();
        for record in &records {
            store.put(record.clone()).unwrap();
        }
        drop(store);
        let id = whole.id;
        dir.execute(&format!(
            "UPDATE installation SET {change} WHERE id = '{id}'"
        ));

        let read = dir.reader().get(id).unwrap();
        let store = dir.open();
        let found = store.get(id).unwrap().unwrap();
        assert_eq!(read.as_ref(), Some(&found), "{change}");
        let damage = found
            .damage
            .clone()
            .unwrap_or_else(|| panic!("{change}: none"));
        assert!(damage.starts_with(problem), "{change}: {damage}");
        assert!(!damage.contains("secret"), "{damage}");
        let mut expected = whole.clone();
        for part in change.split(", ") {
            stand_in(&mut expected, part.split_once(" = ").unwrap().0);
        }
        // What says which plugin it was is kept.
        if change.contains(r#""id":"plugin""#) {
            expected.manifest.id = "plugin".to_owned();
        }
        expected.damage = found.damage.clone();
        assert_eq!(found, expected, "{change}");
        // The others are as they were.
        assert_eq!(store.list().unwrap().len(), 3);
        assert_eq!(store.get(other.id).unwrap(), Some(other.clone()));

        // What is left of it does not take its place; a whole one does.
        let error = store_error(store.put(found));
        assert_eq!(error.kind(), ErrorKind::RecordDamaged);
        drop(store);
        let store = dir.open();
        assert!(store.get(id).unwrap().unwrap().damage.is_some());
        store.put(whole.clone()).unwrap();
        assert_eq!(store.get(id).unwrap().as_ref(), Some(whole));
        drop(store);
        assert_eq!(dir.open().get(id).unwrap().as_ref(), Some(whole));
    }
    let store = dir.open();
    store.delete(supervised.id).unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn a_row_without_an_id_is_counted_and_left_alone() {
    let dir = StoreDir::new();
    let known = record("known");
    dir.open().put(known.clone()).unwrap();
    for id in ["", "nobody", "9M4E2MR0UI3E8A215N4G"] {
        dir.execute(&format!(
            "INSERT INTO installation (id, mode, manifest, active_state, active_state_changed_at,
                 added_at, configuration, overrides)
             VALUES ('{id}', 'external', '{{}}', 'active', 0, 0, '{{}}', '{{}}')"
        ));
    }
    let store = dir.open();
    assert_eq!(store.unreadable_rows(), 3);
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&known));
    store.put(known).unwrap();
    drop(store);
    let store = dir.open();
    assert_eq!(store.unreadable_rows(), 3);
    assert!(store.list().unwrap()[0].added_at > UNIX_EPOCH);
}
