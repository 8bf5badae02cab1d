//! Opening a directory, again and for the first time.

use super::*;
use crate::support::plugin::With as _;

#[test]
fn a_new_folder_has_what_it_needs_and_nobody_else_may_look() {
    let dir = StoreDir::new();
    let below = dir.path().join("made/on the way/ü");
    let store = SqliteStore::open(&below).unwrap();
    store.put(record("a")).unwrap();
    assert_eq!(store.dir(), below);
    assert_eq!(store.unreadable_rows(), 0);
    for name in FILES {
        assert_eq!(mode(&below.join(name)), 0o600, "{name}");
    }
    for name in ["", "archives", ".."] {
        assert_eq!(mode(&below.join(name)), 0o700, "{name}");
    }
    drop(store);
    assert_eq!(
        dir.files(),
        [
            "made/on the way/ü/owner.lock",
            "made/on the way/ü/plugins.sqlite"
        ],
        "a store that is closed has all it knows in one file"
    );
}

#[test]
fn a_folder_and_a_database_that_others_may_read_are_taken_from_them() {
    let dir = StoreDir::new();
    drop(dir.open());
    fs::create_dir(dir.path().join("9m4e2mr0ui3e8a215n4g")).unwrap();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(dir.path(), 0o755);
    open(&dir.database(), 0o644);
    let store = dir.open();
    store.put(record("a")).unwrap();
    assert_eq!(mode(dir.path()), 0o700);
    for name in FILES {
        assert_eq!(mode(&dir.path().join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_second_owner_is_refused_until_the_first_is_gone() {
    let dir = StoreDir::new();
    let first = dir.open();
    let error = dir.refused();
    assert_eq!(error.kind(), ErrorKind::StoreInUse);
    let expected = format!(
        "the data directory {} is in use by another store or manager of this process; stop that, or use another \
         directory",
        dir.path().display()
    );
    assert_eq!(error.to_string(), expected);
    drop(first);
    drop(dir.open());
    // Whatever somebody has written into it.
    fs::write(dir.path().join("owner.lock"), "nonsense\n\0\u{fffd}").unwrap();
    let _first = dir.open();
    assert_eq!(dir.refused().kind(), ErrorKind::StoreInUse);
}

#[test]
fn a_lock_that_outlives_its_owner_is_waited_for_and_the_owner_still_told() {
    let dir = StoreDir::new();
    drop(dir.open());
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    // As a child has it that the owner was just starting.
    let path = dir.path().join("owner.lock");
    let held = fs::File::open(&path).unwrap();
    held.lock().unwrap();
    fs::write(path, format!("{:010}\n", dead.id())).unwrap();
    let told = dir.refused().to_string();
    let owner = format!("in use by process {};", dead.id());
    assert!(
        told.contains(&owner),
        "it is told after each attempt: {told}"
    );
    drop(held);
    drop(dir.open());
}

#[test]
fn an_older_schema_is_brought_up_to_date_with_all_that_is_in_it() {
    let dir = StoreDir::new();
    let known = record("known").variable("A", "1");
    dir.open().put(known.clone()).unwrap();
    // As the first version made it.
    dir.execute(
        "DROP TABLE note;
        ALTER TABLE installation DROP COLUMN releases;
        ALTER TABLE installation DROP COLUMN labels;
        ALTER TABLE installation DROP COLUMN added_by;
        ALTER TABLE installation DROP COLUMN unsettled_configuration;
        PRAGMA user_version = 1",
    );
    assert_eq!(dir.reader().list().unwrap(), std::slice::from_ref(&known));
    assert!(dir.reader().notes("").unwrap().is_empty());
    assert_eq!(dir.schema(), 1, "reading changes nothing");

    let store = dir.open();
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&known));
    let mut changed = known;
    changed.pending_configuration = Some(serde_json::Map::new());
    changed.labels.insert("team".to_owned(), "ops".to_owned());
    store.put(changed.clone()).unwrap();
    drop(store);
    assert_eq!(dir.schema(), 5);
    assert_eq!(dir.open().list().unwrap(), [changed]);
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let dir = StoreDir::new();
    drop(dir.open());
    // The column that the second version adds is in the way.
    dir.execute("PRAGMA user_version = 1");
    assert_eq!(dir.refused().kind(), ErrorKind::StoreFailed);
    assert_eq!(dir.schema(), 1);
}

#[test]
fn a_newer_schema_and_another_programs_database_are_refused_untouched() {
    let dir = StoreDir::new();
    drop(dir.open());
    dir.execute("PRAGMA user_version = 4711");
    let before = dir.content();
    let error = dir.refused();
    assert_eq!(error.kind(), ErrorKind::NewerSchema);
    assert_eq!(
        error.to_string(),
        format!(
            "{} was written by a newer version (schema 4711, this version knows up to 5); update \
             this program",
            dir.database().display()
        )
    );
    let reading = dir.reader_refused();
    assert_eq!(reading.kind(), ErrorKind::NewerSchema);
    assert_same(&before, &dir);

    let foreign = StoreDir::new();
    foreign.execute("CREATE TABLE mine (a); PRAGMA user_version = 1");
    let before = foreign.content();
    assert_eq!(foreign.refused().kind(), ErrorKind::StoreDamaged);
    let reading = foreign.reader_refused();
    assert_eq!(reading.kind(), ErrorKind::StoreDamaged);
    assert_same(&before, &foreign);
}

/// Nothing has changed but the lock.
#[track_caller]
fn assert_same(before: &[(String, Vec<u8>)], dir: &StoreDir) {
    let mut after = dir.content();
    after.retain(|(name, _)| name != "owner.lock");
    let before = before.iter().filter(|(name, _)| name != "owner.lock");
    assert!(after.iter().eq(before), "something has changed");
}

#[test]
fn what_a_crash_left_of_making_a_database_is_removed() {
    let dir = StoreDir::new();
    let left = [
        "plugins.sqlite.new",
        "plugins.sqlite.new-wal",
        "plugins.sqlite.new-journal",
    ];
    for round in 0..2 {
        for name in left {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let store = dir.open();
        store.put(record("a")).unwrap();
        drop(store);
        assert_eq!(
            dir.files(),
            ["owner.lock", "plugins.sqlite"],
            "round {round}"
        );
    }
    assert_eq!(dir.open().list().unwrap().len(), 2);
}

#[test]
fn an_operator_can_read_the_tables() {
    let dir = StoreDir::new();
    let known = record("known").variable("A", "1");
    dir.open().put(known.clone()).unwrap();
    let row: (String, String, String, String) = dir
        .sqlite()
        .query_row(
            "SELECT id, manifest ->> 'name', datetime(added_at / 1000000000, 'unixepoch'),
                    CAST(source_path AS TEXT)
             FROM installation WHERE mode = 'supervised' AND active_state = 'inactive'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .unwrap();
    assert_eq!(
        (row.0, row.1, row.3),
        (known.id.to_string(), known.manifest.name, "/plugins".into())
    );
    assert!(row.2.starts_with("20"), "{}", row.2);
}
