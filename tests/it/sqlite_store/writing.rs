//! Writes that fail.

use super::*;
use crate::support::assert_matches;

#[test]
fn nothing_is_acknowledged_that_goes_to_a_file_nobody_will_open() {
    let dir = StoreDir::new();
    let store = dir.open();
    let kept = record("kept");
    store.put(kept.clone()).unwrap();
    let (path, aside) = (dir.database(), dir.path().join("aside"));
    for replaced in [false, true] {
        fs::rename(&path, &aside).unwrap();
        if replaced {
            fs::copy(&aside, &path).unwrap();
        }
        for result in [store.put(record("lost")), store.delete(kept.id)] {
            let error = store_error(result);
            assert_eq!(error.kind(), ErrorKind::StoreDamaged);
            assert!(
                error.to_string().starts_with(path.to_str().unwrap()),
                "{error}"
            );
        }
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&kept));
        fs::rename(&aside, &path).unwrap();
    }
    store.delete(kept.id).unwrap();
}

#[test]
fn an_archive_that_does_not_fit_leaves_nothing_behind() {
    let dir = StoreDir::new();
    let store = dir.open();
    let archive = archive("a", 10);
    let archives = dir.path().join("archives");
    fs::remove_dir(&archives).unwrap();
    fs::write(&archives, "in the way").unwrap();
    let error = store.put_archive(&archive).unwrap_err();
    assert_matches!(error, Error::Io { .. });
    assert!(
        error.to_string().contains(&*archives.to_string_lossy()),
        "{error}"
    );
    assert!(store.list_archives().unwrap().is_empty());
    fs::remove_file(&archives).unwrap();
    fs::create_dir(&archives).unwrap();
    store.put_archive(&archive).unwrap();
    assert_eq!(store.list_archives().unwrap().len(), 1);
}
