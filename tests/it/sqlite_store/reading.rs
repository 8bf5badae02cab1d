//! Stores that are only read, next to an owner and without one.

use super::*;
use crate::support::assert_matches;
use crate::support::plugin::With as _;
use plugin_runner::auth::ExternalToken;

#[test]
fn a_reader_sees_at_once_what_the_owner_acknowledged() {
    let dir = StoreDir::new();
    let owner = dir.open();
    let reader = dir.reader();
    let token = ExternalToken::generate().unwrap();
    let mut external = Record::external(manifest("external")).unwrap();
    let id = external.id;
    assert_eq!(reader.list().unwrap(), []);
    for round in 0..20 {
        external = external.variable("ROUND", round.to_string());
        owner.put(external.clone()).unwrap();
        assert_eq!(reader.get(id).unwrap().as_ref(), Some(&external));
        assert_eq!(reader.list().unwrap(), [external.clone()]);
    }
    let own = external.external_token().unwrap();
    assert_eq!(reader.find_external(own).unwrap(), Some(id));
    assert_eq!(reader.find_external(&token).unwrap(), None);
    let archive = archive("a", 10);
    owner.put_archive(&archive).unwrap();
    assert_eq!(
        reader.list_archives().unwrap(),
        owner.list_archives().unwrap()
    );
    assert!(reader.get_archive(archive.sha256()).unwrap().is_some());
    owner.delete_archive(archive.sha256()).unwrap();
    assert!(reader.get_archive(archive.sha256()).unwrap().is_none());
    owner.delete(id).unwrap();
    assert_eq!(reader.get(id).unwrap(), None);
    // It takes nothing from the owner, nor from the next one.
    drop(owner);
    assert_eq!(reader.list().unwrap(), []);
    let owner = dir.open();
    owner.put(external.clone()).unwrap();
    assert_eq!(reader.list().unwrap(), [external]);
}

#[test]
fn a_reader_writes_nothing() {
    let dir = StoreDir::new();
    let known = record("known");
    let [archive, other] = ["a", "b"].map(|name| archive(name, 10));
    let owner = dir.open();
    owner.put(known.clone()).unwrap();
    owner.put_archive(&archive).unwrap();
    drop(owner);
    let before = dir.content();
    let reader = dir.reader();
    for written in [
        reader.put(known.clone()),
        reader.delete(known.id),
        reader.put_archive(&archive),
        reader.put_archive(&other),
        reader.delete_archive(archive.sha256()),
    ] {
        let error = store_error(written);
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
    }
    assert_eq!(reader.list().unwrap(), [known]);
    assert!(reader.get_archive(archive.sha256()).unwrap().is_some());
    assert_eq!(reader.unreadable_rows(), 0);
    drop(reader);
    assert_eq!(dir.content(), before, "reading has changed something");
}

#[test]
fn a_reader_without_a_database_says_so() {
    let dir = StoreDir::new();
    let open = |path: &Path| SqliteStore::open_read_only(path).map(|_| ());
    for path in [dir.path().to_owned(), dir.path().join("nowhere")] {
        let error = open(&path).unwrap_err();
        assert_matches!(error, Error::Io { .. });
        assert!(
            error.to_string().contains(&*path.to_string_lossy()),
            "{error}"
        );
    }
    assert_eq!(dir.files(), [""; 0]);
}

/// As a crash of the owner leaves it: a log with what was acknowledged last.
#[test]
fn a_reader_after_a_crash_sees_what_was_acknowledged() {
    let dir = StoreDir::new();
    let owner = dir.open();
    let known = record("known");
    owner.put(known.clone()).unwrap();
    let crashed = StoreDir::new();
    for name in ["plugins.sqlite", "plugins.sqlite-wal"] {
        fs::copy(dir.path().join(name), crashed.path().join(name)).unwrap();
    }
    drop(owner);
    let before = crashed.content();
    let reader = crashed.reader();
    assert_eq!(reader.list().unwrap(), std::slice::from_ref(&known));
    drop(reader);
    let mut after = crashed.content();
    after.retain(|(name, _)| name != "plugins.sqlite-shm");
    assert_eq!(before, after, "reading has changed something");
    assert_eq!(crashed.open().list().unwrap(), [known]);
}

#[test]
fn a_path_with_anything_in_it_can_be_read() {
    use std::os::unix::ffi::OsStringExt as _;

    let dir = StoreDir::new();
    let name = std::ffi::OsString::from_vec(b"a?mode=rw&b#c%41 \xff'\"".to_vec());
    let path = dir.path().join(name);
    let known = record("known");
    SqliteStore::open(&path)
        .unwrap()
        .put(known.clone())
        .unwrap();
    let reader = SqliteStore::open_read_only(&path).unwrap();
    assert_eq!(reader.list().unwrap(), [known]);
}

#[test]
fn readers_and_an_owner_that_comes_and_goes_do_not_disturb_each_other() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let dir = StoreDir::new();
    let kept = record("kept");
    dir.open().put(kept.clone()).unwrap();
    let reader = dir.reader();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let found = reader
                        .get(kept.id)
                        .unwrap()
                        .expect("the record is always there");
                    assert!(found.damage.is_none());
                }
            });
        }
        let owners = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..20 {
                let owner = dir.open();
                for _ in 0..5 {
                    let changed = kept.clone().variable("ROUND", round.to_string());
                    owner.put(changed).unwrap();
                }
            }
        }));
        done.store(true, Ordering::Release);
        owners.unwrap();
    });
}

/// One that a crash leaves would keep every reader out.
#[test]
#[cfg(target_os = "linux")]
fn an_owner_makes_no_journal() {
    use std::mem::MaybeUninit;

    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    use rustix::io::Errno;

    let dir = StoreDir::new();
    drop(dir.open());
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, dir.path(), WatchFlags::CREATE).unwrap();
    for _ in 0..2 {
        let owner = dir.open();
        owner.put(record("known")).unwrap();
        owner.put_archive(&archive("a", 10)).unwrap();
    }
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    let mut created = Vec::new();
    loop {
        match events.next() {
            Ok(event) => created.extend(event.file_name().map(ToOwned::to_owned)),
            Err(Errno::WOULDBLOCK) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        created.contains(&c"plugins.sqlite-wal".to_owned()),
        "{created:?}"
    );
    assert!(
        !created.contains(&c"plugins.sqlite-journal".to_owned()),
        "{created:?}"
    );
}
