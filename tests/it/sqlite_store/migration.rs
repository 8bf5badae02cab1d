//! Stores that earlier versions of the crate have made: `tests/fixtures/stores` has what a program wrote with
//! the version of that commit, and as JSON what that version read back. One row was damaged afterwards.

use plugin_runner::auth::ExternalToken;

use super::*;

/// The commits, oldest first, and the schema that they have. The first two are of another SQLite each.
const MADE_BY: [(&str, u32); 4] = [
    ("6d9ccf2", 2),
    ("3465ae0", 2),
    ("f70bf43", 3),
    ("2ec128a", 4),
];

/// A copy of what that version made, and its records, of which the damaged one is the last.
fn made_by(commit: &str) -> (StoreDir, Vec<Record>) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/stores")
        .join(commit);
    let dir = StoreDir::new();
    fs::copy(fixture.join("plugins.sqlite"), dir.database()).unwrap();
    fs::create_dir(dir.path().join("archives")).unwrap();
    for archive in fs::read_dir(fixture.join("archives")).unwrap() {
        let archive = archive.unwrap();
        let copy = dir.path().join("archives").join(archive.file_name());
        fs::copy(archive.path(), copy).unwrap();
    }
    let records = fs::read(fixture.join("records.json")).unwrap();
    (dir, serde_json::from_slice(&records).unwrap())
}

/// All is there as that version knew it, but for the row that was damaged since.
#[track_caller]
fn assert_all_is_there(store: &SqliteStore, known: &[Record]) {
    let records = store.list().unwrap();
    let (damaged, sound) = records.split_last().unwrap();
    let (was, known) = known.split_last().unwrap();
    assert_eq!(sound, known);
    assert_eq!((damaged.id, &damaged.kind), (was.id, &was.kind));
    assert_eq!(damaged.overrides, was.overrides);
    assert_eq!(
        damaged.damage.as_deref(),
        Some("configuration is cut off at line 1, column 13")
    );
    let content = store
        .get_archive(known[0].stored_archive().unwrap())
        .unwrap()
        .unwrap();
    let archive = Archive::from_content(content, &PackageLimits::default(), &|| false).unwrap();
    assert_eq!(Some(archive.sha256()), known[0].stored_archive());
    for (token, name) in [("ab", "kept"), ("cd", "hashed")] {
        let token = format!("sdprt_Storyden0Plugin1Secret2Vector3{token}");
        let token = ExternalToken::parse(&token).unwrap();
        let named = known.iter().find(|record| record.manifest.id == name);
        assert_eq!(
            store.find_external(&token).unwrap(),
            named.map(|record| record.id)
        );
        let shown = named.unwrap().external_token();
        assert_eq!(shown, (name == "kept").then_some(&token));
    }
}

#[test]
fn what_earlier_versions_made_is_kept_whole_and_takes_labels_and_notes() {
    for (commit, schema) in MADE_BY {
        let (dir, mut known) = made_by(commit);
        assert_eq!(known.len(), 6, "{commit}");
        assert_eq!(dir.schema(), schema, "{commit}");
        assert_all_is_there(&dir.reader(), &known);
        assert!(dir.reader().notes("").unwrap().is_empty());
        assert_eq!(dir.schema(), schema, "reading changes nothing");

        let store = dir.open();
        assert_all_is_there(&store, &known);
        store.check_integrity().unwrap();
        let labelled = known.iter().filter(|record| !record.labels.is_empty());
        assert_eq!(labelled.count(), if schema < 3 { 0 } else { 2 }, "{commit}");
        assert!(store.notes("").unwrap().is_empty());
        store.set_note("store_id", Some("first")).unwrap();
        for record in &mut known[..5] {
            record.added_by = Some(String::new());
            record.labels.insert("team".to_owned(), "ops".to_owned());
            store.put(record.clone()).unwrap();
        }
        drop(store);
        assert_eq!(dir.schema(), 5, "{commit}");
        let store = dir.open();
        assert_all_is_there(&store, &known);
        for store in [&store, &dir.reader()] {
            assert_eq!(store.notes("store_id").unwrap()["store_id"], "first");
        }
        // The damaged one can be replaced, and nothing is damaged then.
        store.put(known[5].clone()).unwrap();
        drop(store);
        assert_eq!(dir.open().list().unwrap(), known);
    }
}

#[test]
fn what_a_newer_version_made_is_refused_by_name_and_left_alone() {
    for (commit, _) in MADE_BY {
        let (dir, _) = made_by(commit);
        drop(dir.open());
        dir.execute("PRAGMA user_version = 6");
        let before = fs::read(dir.database()).unwrap();
        let name = dir.database();
        let expected = format!(
            "{} was written by a newer version (schema 6, this version knows up to 5); update this \
             program",
            name.display()
        );
        for error in [dir.refused(), dir.reader_refused()] {
            assert_eq!(error.kind(), ErrorKind::NewerSchema);
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(fs::read(name).unwrap(), before, "{commit}");
    }
}

#[test]
fn an_operator_can_ask_for_labels() {
    let (dir, known) = made_by(MADE_BY[0].0);
    let mut labelled = known[1].clone();
    labelled.added_by = Some("anna".to_owned());
    labelled.labels.insert("team".to_owned(), "ops".to_owned());
    dir.open().put(labelled.clone()).unwrap();
    let found: (String, String) = dir
        .sqlite()
        .query_row(
            "SELECT id, added_by FROM installation WHERE labels ->> 'team' = 'ops'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(found, (labelled.id.to_string(), "anna".to_owned()));
}
