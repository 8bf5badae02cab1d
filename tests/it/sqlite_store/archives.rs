//! Archives, and the files that they are in.

use std::io::Read as _;
use std::sync::Arc;

use super::*;

fn bytes(archive: &Archive) -> Vec<u8> {
    let mut bytes = Vec::new();
    archive.content().reader().read_to_end(&mut bytes).unwrap();
    bytes
}

fn stored(archive: &Archive) -> Record {
    let source = Source::Stored {
        sha256: archive.sha256().to_owned(),
        size: archive.content().size().unwrap(),
    };
    Record::supervised(manifest("stored"), source)
}

/// What is wrong with an archive.
#[track_caller]
fn problem(result: Result<()>) -> String {
    let error = store_error(result);
    assert_eq!(error.kind(), ErrorKind::RecordDamaged, "{error}");
    let text = error.to_string();
    let (_, problem) = text.split_once(" is ").unwrap();
    let (problem, _) = problem.split_once(';').unwrap();
    problem.to_owned()
}

fn file(dir: &StoreDir, archive: &Archive) -> PathBuf {
    dir.path()
        .join(format!("archives/{}.zip", archive.sha256()))
}

#[test]
fn an_archive_is_a_file_of_its_own() {
    let dir = StoreDir::new();
    let store = dir.open();
    let archive = archive("a", 100_000);
    store.put_archive(&archive).unwrap();
    let path = file(&dir, &archive);
    assert_eq!(fs::read(&path).unwrap()[..], bytes(&archive));
    assert_eq!(mode(&path), 0o600);
    store.delete_archive(archive.sha256()).unwrap();
    assert!(!path.exists());
    assert_eq!(archives(dir.path()), 0);
}

#[test]
fn what_a_record_names_is_not_deleted_and_must_be_there() {
    let dir = StoreDir::new();
    let store = dir.open();
    let archive = archive("a", 10);
    let record = stored(&archive);
    assert_eq!(problem(store.put(record.clone())), "missing");
    assert_eq!(store.list().unwrap(), []);
    store.put_archive(&archive).unwrap();
    store.put(record.clone()).unwrap();
    let error = store_error(store.delete_archive(archive.sha256()));
    assert_eq!(error.kind(), ErrorKind::ArchiveInUse);
    assert_eq!(
        error.to_string(),
        format!(
            "the archive {} is in use by an installed plugin",
            archive.sha256()
        )
    );
    assert!(store.get_archive(archive.sha256()).unwrap().is_some());
    store.delete(record.id).unwrap();
    store.delete_archive(archive.sha256()).unwrap();
    assert!(store.get_archive(archive.sha256()).unwrap().is_none());
}

/// Whoever collects archives goes by what records name.
#[test]
fn a_damaged_record_still_names_its_archive() {
    let dir = StoreDir::new();
    let store = dir.open();
    let archive = archive("a", 10);
    let record = stored(&archive);
    store.put_archive(&archive).unwrap();
    store.put(record.clone()).unwrap();
    drop(store);
    for damage in ["source_kind = NULL", "archive_size = NULL", "mode = ''"] {
        dir.execute(&format!("UPDATE installation SET {damage}"));
        let store = dir.open();
        let found = store.get(record.id).unwrap().unwrap();
        assert!(found.damage.is_some(), "{damage}");
        assert_eq!(found.stored_archive(), Some(archive.sha256()), "{damage}");
        store.put(record.clone()).unwrap();
    }
}

#[test]
fn a_file_that_is_missing_or_of_another_size_is_told_and_put_right() {
    let dir = StoreDir::new();
    let store = dir.open();
    let archive = archive("a", 10);
    store.put_archive(&archive).unwrap();
    let path = file(&dir, &archive);
    let found = || problem(store.get_archive(archive.sha256()).map(drop));
    fs::remove_file(&path).unwrap();
    assert_eq!(found(), "missing");
    store.put_archive(&archive).unwrap();
    assert!(store.get_archive(archive.sha256()).unwrap().is_some());
    fs::write(&path, "short").unwrap();
    assert_eq!(found(), "damaged");
    store.put_archive(&archive).unwrap();
    assert_eq!(fs::read(&path).unwrap()[..], bytes(&archive));
    // Another content of the same size shows only where it is read.
    let mut other = bytes(&archive);
    *other.last_mut().unwrap() ^= 1;
    fs::write(&path, other).unwrap();
    store.put_archive(&archive).unwrap();
    assert_eq!(fs::read(&path).unwrap()[..], bytes(&archive));
    // A store that was closed in between knows it all the same.
    fs::remove_file(&path).unwrap();
    drop(store);
    let store = dir.open();
    assert_eq!(store.list_archives().unwrap().len(), 1);
    let error = store_error(store.get_archive(archive.sha256()).map(drop));
    assert_eq!(
        error.to_string(),
        format!(
            "the archive {} is missing; update the plugin with its package",
            archive.sha256()
        )
    );
    store.put_archive(&archive).unwrap();
    assert!(store.get_archive(archive.sha256()).unwrap().is_some());
    // One whose content does not matter any more can go.
    fs::remove_file(&path).unwrap();
    store.delete_archive(archive.sha256()).unwrap();
    assert!(store.list_archives().unwrap().is_empty());
}

#[test]
fn opening_removes_what_no_row_names_and_nothing_else() {
    let dir = StoreDir::new();
    let [known, unknown] = [archive("known", 10), archive("unknown", 10)];
    let store = dir.open();
    store.put_archive(&known).unwrap();
    drop(store);
    fs::write(file(&dir, &unknown), bytes(&unknown)).unwrap();
    let archives = dir.path().join("archives");
    fs::write(archives.join("9m4e2mr0ui3e8a215n4g.tmp"), "half").unwrap();
    for mine in ["README", "mine.zip", "mine.tmp"] {
        fs::write(archives.join(mine), "").unwrap();
    }
    let store = dir.open();
    let mut left: Vec<_> = fs::read_dir(&archives)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let mut expected = vec![format!("{}.zip", known.sha256())];
    expected.extend(["README", "mine.tmp", "mine.zip"].map(str::to_owned));
    expected.sort();
    assert_eq!(left, expected);
    assert!(store.get_archive(known.sha256()).unwrap().is_some());
    drop(store);
    // Nothing is removed on the word of a database that is not whole.
    let whole = fs::read(dir.database()).unwrap();
    fs::write(dir.database(), &whole[..whole.len() - 1]).unwrap();
    fs::write(file(&dir, &unknown), bytes(&unknown)).unwrap();
    assert_eq!(dir.refused().kind(), ErrorKind::StoreDamaged);
    assert!(file(&dir, &unknown).exists());
}

#[test]
fn a_row_that_is_no_digest_never_becomes_a_path() {
    let dir = StoreDir::new();
    drop(dir.open());
    fs::write(dir.path().join("secret.zip"), "1234").unwrap();
    dir.execute("INSERT INTO archive VALUES ('../secret', 4, 0), ('', -1, 0)");
    let store = dir.open();
    assert!(store.list_archives().unwrap().is_empty());
    assert!(store.get_archive("../secret").unwrap().is_none());
    store.delete_archive("../secret").unwrap();
    assert!(dir.path().join("secret.zip").exists());
}

#[test]
fn threads_that_put_and_delete_one_archive_leave_it_whole_or_gone() {
    let dir = StoreDir::new();
    let store = dir.open();
    let archive = archive("a", 100_000);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, archive) = (&store, &archive);
            scope.spawn(move || {
                for round in 0..30 {
                    store.put_archive(archive).unwrap();
                    if (thread + round) % 3 == 0 {
                        store.delete_archive(archive.sha256()).unwrap();
                    }
                    if let Some(content) = store.get_archive(archive.sha256()).unwrap() {
                        let mut first = [0; 4];
                        assert_eq!(content.size().unwrap(), bytes(archive).len() as u64);
                        let _ = content.reader().read(&mut first).unwrap();
                    }
                }
            });
        }
    });
    store.put_archive(&archive).unwrap();
    assert_eq!(fs::read(file(&dir, &archive)).unwrap()[..], bytes(&archive));
    assert_eq!(archives(dir.path()), 1);
    store.delete_archive(archive.sha256()).unwrap();
    assert_eq!(archives(dir.path()), 0);
}

/// What the work gives, which must come in time.
#[track_caller]
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(sender.send(work())));
    let done = receiver.recv_timeout(std::time::Duration::from_secs(30));
    done.unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn make_pipe(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
}

#[test]
fn what_is_no_file_in_the_place_of_an_archive_is_damage_and_is_put_right() {
    type Make = (&'static str, fn(&Path, &Path));
    let archive = archive("a", 1_000);
    let make: [Make; 4] = [
        ("pipe", |path, _| make_pipe(path)),
        ("link", |path, outside| {
            std::os::unix::fs::symlink(outside.join("whole.zip"), path).unwrap();
        }),
        ("directory", |path, _| {
            fs::create_dir_all(path.join("x")).unwrap();
        }),
        ("huge file", |path, _| {
            fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
        }),
    ];
    for (kind, make) in make {
        let (dir, outside) = (StoreDir::new(), StoreDir::new());
        let store = Arc::new(dir.open());
        store.put_archive(&archive).unwrap();
        let path = file(&dir, &archive);
        fs::copy(&path, outside.path().join("whole.zip")).unwrap();
        fs::remove_file(&path).unwrap();
        make(&path, outside.path());
        let (reading, sha256) = (store.clone(), archive.sha256().to_owned());
        let found = in_time(kind, move || reading.get_archive(&sha256).map(drop));
        assert_eq!(problem(found), "damaged", "{kind}");
        let (putting, again) = (store.clone(), archive.clone());
        in_time(kind, move || putting.put_archive(&again)).unwrap();
        assert_eq!(fs::read(&path).unwrap()[..], bytes(&archive), "{kind}");
        let whole = fs::read(outside.path().join("whole.zip")).unwrap();
        assert_eq!(whole[..], bytes(&archive), "{kind}");

        // What is not known goes, whatever it is, when the store is opened next.
        drop(store);
        let stray = dir.path().join(format!("archives/{}.zip", "ab".repeat(32)));
        make(&stray, outside.path());
        let path = dir.path().to_owned();
        drop(in_time(kind, move || SqliteStore::open(path)).unwrap());
        assert!(fs::symlink_metadata(&stray).is_err(), "{kind}");
        assert!(outside.path().join("whole.zip").exists(), "{kind}");
    }
}

#[test]
fn a_link_in_the_place_of_the_archives_is_refused_and_nothing_done_behind_it() {
    let (dir, outside) = (StoreDir::new(), StoreDir::new());
    let archive = archive("a", 10);
    let store = dir.open();
    store.put_archive(&archive).unwrap();
    let archives = dir.path().join("archives");
    fs::rename(&archives, dir.path().join("moved")).unwrap();
    let stray = outside.path().join(format!("{}.zip", "ab".repeat(32)));
    fs::write(&stray, "kept").unwrap();
    std::os::unix::fs::symlink(outside.path(), &archives).unwrap();
    assert!(store.put_archive(&archive).is_err());
    assert!(store.get_archive(archive.sha256()).is_err());
    drop(store);
    let error = SqliteStore::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("/archives"), "{error}");
    assert_eq!(outside.files().len(), 1);
    assert_eq!(fs::read(&stray).unwrap(), b"kept");
}

#[test]
fn pipes_in_the_place_of_the_stores_other_files_hold_nobody_up() {
    for name in FILES.map(|name| name.replace("-shm", "-journal")) {
        let dir = StoreDir::new();
        drop(dir.open());
        let path = dir.path().join(&name);
        let _ = fs::remove_file(&path);
        make_pipe(&path);
        let path = dir.path().to_owned();
        let opened = in_time(&name, move || SqliteStore::open(path).map(drop));
        assert!(opened.is_err(), "{name}");
        let path = dir.path().to_owned();
        let _ = in_time(&name, move || SqliteStore::open_read_only(path).map(drop));
    }
}
