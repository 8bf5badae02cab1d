//! Opening a folder, again and for the first time.

use std::os::unix::fs::PermissionsExt as _;

use super::super::schema;
use super::*;

#[test]
fn a_new_folder_has_what_it_needs_and_nobody_else_may_look() {
    let folder = TestFolder::new();
    let below = folder.path().join("made/on the way/ü");
    let store = SqliteStore::open(&below).unwrap();
    store.put(record("a")).unwrap();
    assert_eq!(store.folder(), below);
    assert_eq!(store.unreadable_rows(), 0);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in [
        "plugins.sqlite",
        "plugins.sqlite-wal",
        "plugins.sqlite-shm",
        "owner.lock",
    ] {
        assert_eq!(mode(&below.join(name)), 0o600, "{name}");
    }
    for name in ["", "archives", ".."] {
        assert_eq!(mode(&below.join(name)), 0o700, "{name}");
    }
    drop(store);
    assert_eq!(
        folder.files(),
        [
            "made/on the way/ü/owner.lock",
            "made/on the way/ü/plugins.sqlite"
        ],
        "a store that is closed has all it knows in one file"
    );
}

#[test]
fn a_folder_and_a_database_that_others_may_read_are_taken_from_them() {
    let folder = TestFolder::new();
    drop(folder.open());
    fs::create_dir(folder.path().join("9m4e2mr0ui3e8a215n4g")).unwrap();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(folder.path(), 0o755);
    open(&folder.database(), 0o644);
    let store = folder.open();
    store.put(record("a")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.path()), 0o700);
    for name in ["plugins.sqlite", "plugins.sqlite-wal", "plugins.sqlite-shm"] {
        assert_eq!(mode(&folder.path().join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_second_owner_is_refused_until_the_first_is_gone() {
    let folder = TestFolder::new();
    let first = folder.open();
    let error = folder.refused();
    let StoreError::InUse {
        folder: named,
        owner,
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(named, folder.path());
    assert_eq!(*owner, Some(std::process::id()));
    let expected = format!(
        "the data folder {} is in use by process {}; stop that, or use another folder",
        folder.path().display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), expected);
    drop(first);
    drop(folder.open());
    // Whatever somebody has written into it.
    fs::write(folder.path().join("owner.lock"), "nonsense\n\0\u{fffd}").unwrap();
    let _first = folder.open();
    assert!(matches!(folder.refused(), StoreError::InUse { .. }));
}

#[test]
fn a_lock_that_outlives_its_owner_is_waited_for_and_the_owner_still_told() {
    let folder = TestFolder::new();
    drop(folder.open());
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    // As a child has it that the owner was just starting.
    let held = fs::File::options()
        .read(true)
        .write(true)
        .open(folder.path().join("owner.lock"))
        .unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    fs::write(
        folder.path().join("owner.lock"),
        format!("{:010}\n", dead.id()),
    )
    .unwrap();
    let StoreError::InUse { owner, .. } = folder.refused() else {
        panic!("another error");
    };
    assert_eq!(owner, Some(dead.id()), "it is told after each attempt");
    drop(held);
    drop(folder.open());
}

#[test]
fn an_older_schema_is_brought_up_to_date_with_all_that_is_in_it() {
    let folder = TestFolder::new();
    let known = record("known").with_variable("A", "1");
    {
        let store = folder.open();
        store.put(known.clone()).unwrap();
    }
    let rows = |connection: &Connection| -> Vec<String> {
        let mut statement = connection.prepare("SELECT id FROM installation").unwrap();
        let ids = statement.query_map([], |row| row.get(0)).unwrap();
        ids.map(|id| id.unwrap()).collect()
    };
    // As the first version made it.
    let old = TestFolder::new();
    fs::create_dir(old.path().join("archives")).unwrap();
    let mut connection = old.sqlite();
    connection
        .pragma_update(None, "application_id", schema::APPLICATION)
        .unwrap();
    schema::migrate_to(&mut connection, 1).unwrap();
    let copy = format!("ATTACH '{}' AS new", folder.database().display());
    connection.execute_batch(&copy).unwrap();
    let columns = "id, mode, manifest, active_state, active_state_changed_at, added_at, \
         configuration, overrides, source_kind, source_path, archive_sha256, archive_size, \
         token_digest, token";
    let insert =
        format!("INSERT INTO main.installation ({columns}) SELECT {columns} FROM new.installation");
    connection.execute_batch(&insert).unwrap();
    assert_eq!(schema::version(&connection).unwrap(), 1);
    assert_eq!(rows(&connection), [known.id.to_string()]);
    drop(connection);

    let reader = SqliteStore::open_read_only(old.path()).unwrap();
    assert_eq!(reader.list().unwrap(), std::slice::from_ref(&known));
    drop(reader);
    assert_eq!(
        schema::version(&old.sqlite()).unwrap(),
        1,
        "reading changes nothing"
    );

    let store = old.open();
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&known));
    let mut changed = known;
    changed.unsettled_configuration = Some(serde_json::Map::new());
    store.put(changed.clone()).unwrap();
    drop(store);
    assert_eq!(schema::version(&old.sqlite()).unwrap(), schema::SUPPORTED);
    assert_eq!(old.open().list().unwrap(), [changed]);
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let folder = TestFolder::new();
    let mut connection = folder.sqlite();
    connection
        .pragma_update(None, "application_id", schema::APPLICATION)
        .unwrap();
    schema::migrate_to(&mut connection, 1).unwrap();
    // The column that the second version adds is in the way.
    let sql = "ALTER TABLE installation ADD COLUMN unsettled_configuration TEXT";
    connection.execute_batch(sql).unwrap();
    drop(connection);
    assert!(matches!(
        folder.refused(),
        StoreError::Database { action: "open", .. }
    ));
    assert_eq!(schema::version(&folder.sqlite()).unwrap(), 1);
}

#[test]
fn a_newer_schema_and_another_programs_database_are_refused_untouched() {
    let folder = TestFolder::new();
    drop(folder.open());
    folder.execute("PRAGMA user_version = 4711");
    let before = folder.content();
    let error = folder.refused();
    assert!(
        matches!(
            error,
            StoreError::NewerSchema {
                found: 4711,
                supported: 2,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        format!(
            "{} was written by a newer version (schema 4711, this version knows up to 2); update \
             this program",
            folder.database().display()
        )
    );
    let reading = SqliteStore::open_read_only(folder.path()).map(|_| ());
    assert!(matches!(
        store_error(reading),
        StoreError::NewerSchema { .. }
    ));
    assert_same(&before, &folder);

    let foreign = TestFolder::new();
    foreign.execute("CREATE TABLE mine (a); PRAGMA user_version = 1");
    let before = foreign.content();
    assert!(matches!(foreign.refused(), StoreError::Foreign { .. }));
    let reading = SqliteStore::open_read_only(foreign.path()).map(|_| ());
    assert!(matches!(store_error(reading), StoreError::Foreign { .. }));
    assert_same(&before, &foreign);
}

/// Nothing has changed but the lock.
#[track_caller]
fn assert_same(before: &[(PathBuf, Vec<u8>)], folder: &TestFolder) {
    let no_lock = |files: &[(PathBuf, Vec<u8>)]| -> Vec<_> {
        let files = files
            .iter()
            .filter(|(path, _)| !path.ends_with("owner.lock"));
        files.cloned().collect()
    };
    assert_eq!(no_lock(before), no_lock(&folder.content()));
}

#[test]
fn what_a_crash_left_of_making_a_database_is_removed() {
    let folder = TestFolder::new();
    let left = [
        "plugins.sqlite.new",
        "plugins.sqlite.new-wal",
        "plugins.sqlite.new-journal",
    ];
    for round in 0..2 {
        for name in left {
            fs::write(folder.path().join(name), "half").unwrap();
        }
        let store = folder.open();
        store.put(record("a")).unwrap();
        drop(store);
        assert_eq!(
            folder.files(),
            ["owner.lock", "plugins.sqlite"],
            "round {round}"
        );
    }
    assert_eq!(folder.open().list().unwrap().len(), 2);
}

#[test]
fn an_operator_can_read_the_tables() {
    let folder = TestFolder::new();
    let known = record("known").with_variable("A", "1");
    folder.open().put(known.clone()).unwrap();
    let row: (String, String, String, String) = folder
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
        (known.id.to_string(), "known".into(), "/plugins".into())
    );
    assert!(row.2.starts_with("20"), "{}", row.2);
}
