//! Databases and records that are not what they were.

use std::time::UNIX_EPOCH;

use super::*;
use crate::auth::ExternalCredential;
use crate::protocol::configuration::Configuration;
use crate::state::ActiveState;
use crate::store::{Overrides, PluginKind};

#[test]
fn a_missing_or_empty_database_is_not_begun_anew_over_archives() {
    let folder = TestFolder::new();
    let archive = archives::archive("a", 100);
    folder.open().put_archive(&archive).unwrap();
    let kept = fs::read(folder.database()).unwrap();
    let archives = fs::read_dir(folder.path().join("archives"))
        .unwrap()
        .count();
    for content in [None, Some("")] {
        fs::remove_file(folder.database()).unwrap();
        if let Some(content) = content {
            fs::write(folder.database(), content).unwrap();
        }
        let error = folder.refused();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!(
                "{} is damaged: it is ",
                folder.database().display()
            )) && text.ends_with(
                "; put a backup of it in its place, or move the whole folder away to begin anew"
            ),
            "{text}"
        );
        let left = fs::read_dir(folder.path().join("archives"))
            .unwrap()
            .count();
        assert_eq!(left, archives);
        fs::write(folder.database(), &kept).unwrap();
    }
    let store = folder.open();
    assert!(store.get_archive(archive.sha256()).unwrap().is_some());
}

#[test]
fn an_empty_database_and_a_log_without_one_are_damage_too() {
    let folder = TestFolder::new();
    drop(folder.open());
    fs::write(folder.database(), "").unwrap();
    assert!(matches!(folder.refused(), StoreError::Damaged { .. }));
    let reading = SqliteStore::open_read_only(folder.path()).map(|_| ());
    assert!(matches!(store_error(reading), StoreError::Damaged { .. }));
    fs::remove_file(folder.database()).unwrap();
    fs::write(folder.path().join("plugins.sqlite-wal"), "x").unwrap();
    assert!(matches!(folder.refused(), StoreError::Damaged { .. }));
    fs::write(folder.path().join("plugins.sqlite-wal"), "").unwrap();
    drop(folder.open());
}

/// A database with a few records, some of which fill pages of their own; and what is in it.
fn filled(folder: &TestFolder) -> Vec<Record> {
    let store = folder.open();
    for number in 0..12 {
        let mut record = record(&format!("{number}"));
        let long = "x".repeat(1_500 * number);
        record.configuration.insert("long".to_owned(), long.into());
        store.put(record).unwrap();
    }
    store.list().unwrap()
}

#[test]
fn a_database_that_is_cut_off_anywhere_is_refused_or_whole() {
    let folder = TestFolder::new();
    let expected = filled(&folder);
    let whole = fs::read(folder.database()).unwrap();
    let archives = folder.path().join("archives");
    let mut lengths: Vec<_> = (0..whole.len()).step_by(509).collect();
    lengths.extend(0..120);
    lengths.extend((0..whole.len()).step_by(4096));
    lengths.extend(whole.len() - 50..=whole.len());
    for length in lengths {
        fs::write(folder.database(), &whole[..length]).unwrap();
        match SqliteStore::open(folder.path()) {
            Ok(store) => assert_eq!(store.list().unwrap(), expected, "{length}"),
            Err(Error::Store(error)) => {
                let StoreError::Damaged { path, .. } = &*error else {
                    panic!("{length}: {error:?}");
                };
                assert_eq!(path, &folder.database());
                assert_eq!(fs::read(folder.database()).unwrap(), whole[..length]);
                assert_eq!(folder.files(), ["owner.lock", "plugins.sqlite"], "{length}");
            }
            Err(error) => panic!("{length}: {error:?}"),
        }
        match SqliteStore::open_read_only(folder.path()) {
            Ok(store) => assert_eq!(store.list().unwrap(), expected, "{length}"),
            Err(Error::Store(error)) => {
                assert!(
                    matches!(*error, StoreError::Damaged { .. }),
                    "{length}: {error:?}"
                );
            }
            Err(error) => panic!("{length}: {error:?}"),
        }
    }
    assert!(archives.is_dir());
    fs::write(folder.database(), &whole).unwrap();
    assert_eq!(folder.open().list().unwrap(), expected);
}

/// As after a crash: what was written last is in the log alone.
#[test]
fn a_database_that_is_cut_off_is_found_with_a_log_beside_it() {
    let folder = TestFolder::new();
    let mut expected = filled(&folder);
    let crashed = TestFolder::new();
    fs::create_dir(crashed.path().join("archives")).unwrap();
    let log = {
        let store = folder.open();
        expected[3] = expected[3].clone().with_variable("LAST", "1");
        store.put(expected[3].clone()).unwrap();
        // By SQLite's own account nobody may open it here; nobody writes any more either.
        fs::read(folder.path().join("plugins.sqlite-wal")).unwrap()
    };
    // The store has put it into the database when it was closed; before, it was not there.
    let database = fs::read(folder.database()).unwrap();
    let mut refused = 0;
    for length in (0..=database.len()).step_by(1_021).chain([database.len()]) {
        fs::write(crashed.database(), &database[..length]).unwrap();
        fs::write(crashed.path().join("plugins.sqlite-wal"), &log).unwrap();
        match SqliteStore::open(crashed.path()) {
            Ok(store) => assert_eq!(store.list().unwrap(), expected, "{length}"),
            Err(Error::Store(error)) => {
                assert!(
                    matches!(*error, StoreError::Damaged { .. }),
                    "{length}: {error:?}"
                );
                assert_eq!(fs::read(crashed.database()).unwrap(), database[..length]);
                let kept = fs::read(crashed.path().join("plugins.sqlite-wal")).unwrap();
                assert_eq!(kept, log, "{length}");
                refused += 1;
            }
            Err(error) => panic!("{length}: {error:?}"),
        }
        for name in ["plugins.sqlite", "plugins.sqlite-wal", "plugins.sqlite-shm"] {
            let _ = fs::remove_file(crashed.path().join(name));
        }
    }
    assert!(refused > 10, "only {refused} were refused");
}

/// The last transactions are as if they had never been, and no other is.
#[test]
fn a_log_that_is_cut_off_loses_its_end_alone() {
    let folder = TestFolder::new();
    let before = filled(&folder);
    let database = fs::read(folder.database()).unwrap();
    let mut states = vec![before.clone()];
    let log = {
        let store = folder.open();
        for record in before.iter().take(5) {
            store
                .put(record.clone().with_variable("LAST", "1"))
                .unwrap();
            states.push(store.list().unwrap());
        }
        fs::read(folder.path().join("plugins.sqlite-wal")).unwrap()
    };
    let crashed = TestFolder::new();
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
    let folder = TestFolder::new();
    let expected = filled(&folder);
    let whole = fs::read(folder.database()).unwrap();
    for start in (100..whole.len()).step_by(1_777) {
        let mut bytes = whole.clone();
        for byte in bytes.iter_mut().skip(start).take(64) {
            *byte ^= 0xa5;
        }
        fs::write(folder.database(), &bytes).unwrap();
        match SqliteStore::open(folder.path()) {
            // Where nothing is, or within a record.
            Ok(store) => {
                let found = store.list().unwrap();
                assert_eq!(
                    found.len() + store.unreadable_rows(),
                    expected.len(),
                    "{start}"
                );
            }
            Err(Error::Store(error)) => {
                let known = matches!(
                    *error,
                    StoreError::Damaged { .. }
                        | StoreError::Foreign { .. }
                        | StoreError::NewerSchema { .. }
                );
                assert!(known, "{start}: {error:?}");
                assert_eq!(fs::read(folder.database()).unwrap(), bytes);
            }
            Err(error) => panic!("{start}: {error:?}"),
        }
    }
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let folder = TestFolder::new();
    for content in ["SQLite format 2\0", "PK\x03\x04", "x", &"\0".repeat(10_000)] {
        fs::write(folder.database(), content).unwrap();
        let error = folder.refused();
        assert!(error.to_string().contains("it is no database"), "{error}");
        assert_eq!(fs::read(folder.database()).unwrap(), content.as_bytes());
    }
}

/// What a damaged record has in place of what it had.
type Change = fn(&mut Record);

#[test]
fn each_part_of_a_record_that_cannot_be_read_has_a_stand_in() {
    let folder = TestFolder::new();
    let other = record("other");
    let mut external = Record::external(manifest("external")).unwrap();
    external.configuration.insert("a".to_owned(), 1.into());
    let mut supervised = record("supervised").with_variable("A", "1");
    supervised.active_state = ActiveState::Active;
    let records = [supervised.clone(), external.clone(), other.clone()];
    let (a, b) = (0, 1);
    let cases: [(usize, &str, &str, Change); 16] = [
        (
            a,
            "manifest = '{\"id\":\"plugin\",\"name\":7}'",
            "manifest cannot be read",
            |record| {
                record.manifest = Manifest {
                    id: "plugin".into(),
                    ..Manifest::default()
                };
            },
        ),
        (
            a,
            "manifest = '{\"id\":\"plu'",
            "manifest cannot be read",
            |record| {
                record.manifest = Manifest::default();
            },
        ),
        (
            a,
            "manifest = CAST(X'FF' AS TEXT)",
            "manifest is not text",
            |record| {
                record.manifest = Manifest::default();
            },
        ),
        (
            a,
            "configuration = '[1]'",
            "configuration is not what it should be at line 1",
            |record| {
                record.configuration = Configuration::new();
            },
        ),
        (
            a,
            "configuration = ''",
            "configuration is cut off at line 1",
            |record| {
                record.configuration = Configuration::new();
            },
        ),
        (
            a,
            "unsettled_configuration = 'secret'",
            "unsettled_configuration is not JSON at line 1",
            |record| {
                record.unsettled_configuration = Some(Configuration::new());
            },
        ),
        (
            a,
            "overrides = '{\"environment\":1}'",
            "overrides is not what it should be at line 1",
            |record| {
                record.overrides = Overrides::default();
            },
        ),
        (
            a,
            "active_state = 'perhaps'",
            "active_state is not a state",
            |record| {
                record.active_state = ActiveState::Inactive;
            },
        ),
        (
            a,
            "source_kind = 'elsewhere'",
            "source_kind does not fit",
            |record| {
                record.kind = PluginKind::Supervised(Source::Folder(PathBuf::new()));
            },
        ),
        (
            a,
            "source_path = NULL",
            "source_kind does not fit",
            |record| {
                record.kind = PluginKind::Supervised(Source::Folder(PathBuf::new()));
            },
        ),
        (a, "mode = 'mine'", "mode is neither", |record| {
            record.kind = PluginKind::Supervised(Source::Folder(PathBuf::new()));
        }),
        (
            b,
            "token_digest = 'AB'",
            "token_digest is not a digest",
            |record| {
                let nobody = crate::auth::TokenDigest::from_bytes([0; 32]);
                record.kind = PluginKind::External(ExternalCredential::from_digest(nobody));
            },
        ),
        (
            b,
            "token = 'sdprt_secret'",
            "token is not the one",
            |record| {
                let PluginKind::External(credential) = record.kind.clone() else {
                    panic!()
                };
                record.kind = PluginKind::External(credential.without_token());
            },
        ),
        (
            b,
            "token_digest = NULL, token = NULL",
            "token_digest is not a digest",
            |record| {
                let nobody = crate::auth::TokenDigest::from_bytes([0; 32]);
                record.kind = PluginKind::External(ExternalCredential::from_digest(nobody));
            },
        ),
        (
            b,
            "overrides = 'null'",
            "overrides is not what it should be",
            |record| {
                record.overrides = Overrides::default();
            },
        ),
        (
            b,
            "configuration = '{', overrides = '}', active_state = ''",
            "active_state is not a state; configuration is cut off at line 1, column 1; overrides is not JSON at line 1, column 1",
            |record| {
                record.configuration = Configuration::new();
                record.active_state = ActiveState::Inactive;
            },
        ),
    ];
    for (which, change, problem, stand_in) in cases {
        let store = folder.open();
        for record in &records {
            store.put(record.clone()).unwrap();
        }
        drop(store);
        let id = records[which].id;
        folder.execute(&format!(
            "UPDATE installation SET {change} WHERE id = '{id}'"
        ));

        let reader = SqliteStore::open_read_only(folder.path()).unwrap();
        let read = reader.get(id).unwrap();
        drop(reader);
        let store = folder.open();
        let found = store.get(id).unwrap().unwrap();
        assert_eq!(read.as_ref(), Some(&found), "{change}");
        let damage = found
            .damage
            .clone()
            .unwrap_or_else(|| panic!("{change}: none"));
        assert!(damage.starts_with(problem), "{change}: {damage}");
        assert!(!damage.contains("secret"), "{damage}");
        let mut expected = records[which].clone();
        stand_in(&mut expected);
        expected.damage = found.damage.clone();
        assert_eq!(found, expected, "{change}");
        // The others are as they were.
        assert_eq!(store.list().unwrap().len(), 3);
        assert_eq!(store.get(other.id).unwrap(), Some(other.clone()));

        // What is left of it does not take its place; a whole one does.
        let error = store_error(store.put(found));
        assert!(
            matches!(error, StoreError::DamagedRecord { .. }),
            "{error:?}"
        );
        drop(store);
        let store = folder.open();
        assert!(store.get(id).unwrap().unwrap().damage.is_some());
        store.put(records[which].clone()).unwrap();
        assert_eq!(store.get(id).unwrap().as_ref(), Some(&records[which]));
        drop(store);
        assert_eq!(
            folder.open().get(id).unwrap().as_ref(),
            Some(&records[which])
        );
    }
    let store = folder.open();
    store.delete(supervised.id).unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn a_row_without_an_id_is_counted_and_left_alone() {
    let folder = TestFolder::new();
    let known = record("known");
    folder.open().put(known.clone()).unwrap();
    for id in ["", "nobody", "9M4E2MR0UI3E8A215N4G"] {
        folder.execute(&format!(
            "INSERT INTO installation (id, mode, manifest, active_state, active_state_changed_at,
                 added_at, configuration, overrides)
             VALUES ('{id}', 'external', '{{}}', 'active', 0, 0, '{{}}', '{{}}')"
        ));
    }
    let store = folder.open();
    assert_eq!(store.unreadable_rows(), 3);
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&known));
    store.put(known).unwrap();
    drop(store);
    let store = folder.open();
    assert_eq!(store.unreadable_rows(), 3);
    assert!(store.list().unwrap()[0].added_at > UNIX_EPOCH);
}
