//! Operations on a disk that has no room, and on one that cannot be written: what is said, that what is
//! installed and runs goes on as it was, and that all is well once there is room. The disk is a mount of
//! the test's own, which is not allowed everywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin_runner::ErrorKind;
use plugin_runner::store::SqliteStore;

use super::*;
use crate::support::disk::{self, run_on_a_disk};
use crate::support::wait_until;

/// More than there is room for, and not to be packed.
const LARGE: usize = 3 << 20;

#[test]
fn a_full_or_read_only_disk_is_reported_and_survived() {
    run_on_a_disk(
        6,
        &[
            "manager::disk::alone::a_disk_is_full_for_a_while",
            "manager::disk::alone::a_disk_is_read_only_for_a_while",
        ],
    );
}

/// Run by others, in processes of their own.
mod alone {
    use super::*;

    #[test]
    #[ignore = "fills the disk; run by another test, in a namespace of its own"]
    fn a_disk_is_full_for_a_while() {
        let disk = disk::mounted().unwrap();
        let managed = on(&disk);
        let id = managed.running(managed.package("1", &[]));
        let configured = object(json!({"room": "a little"}));
        let configure = |value: serde_json::Map<_, _>| managed.configure(id, value);
        configure(configured.clone()).unwrap();
        let before = files(&disk);
        let expect_as_before = |what: &str| {
            assert_eq!(managed.list().unwrap().len(), 1, "{what}");
            assert_eq!(managed.answering_version(id), "1", "{what}");
            assert_eq!(managed.configuration(id).unwrap(), configured, "{what}");
            assert_eq!(files(&disk), before, "{what}");
        };
        let large = |version: &str| {
            let manifest = Manifest {
                command: "./run".to_owned(),
                args: vec!["version".to_owned(), version.to_owned()],
                version: version.to_owned(),
                ..manifest("scripted")
            };
            managed.package_with(&manifest, &[("large", &noise(LARGE), 0o644)])
        };
        // Something fits: the package is refused while it is received, unpacked, or stored.
        for room in [4 << 20, 1 << 20, 64 << 10, 0] {
            let what = format!("{room} bytes of room");
            for source in [
                PackageSource::bytes(large("2")),
                PackageSource::reader(&*large("2")),
            ] {
                let ballast = disk::fill(&disk, room);
                expect_no_room(&managed.install(source), &disk, &what);
                disk::empty(ballast);
                expect_as_before(&what);
            }
            let source = PackageSource::bytes(large("2"));
            let ballast = disk::fill(&disk, room);
            let updated = managed.update_package(id, source);
            expect_no_room(&updated, &disk, &what);
            disk::empty(ballast);
            expect_as_before(&what);
        }
        // Nothing fits, into the database either.
        let ballast = disk::fill(&disk, 0);
        let grown = object(json!({"room": "x".repeat(1 << 20)}));
        expect_no_room(&configure(grown.clone()), &disk, "configure");
        wait_until("a check that finds no room", || {
            managed
                .check(LONG)
                .is_err_and(|error| error.kind() == ErrorKind::StorageFull)
        });
        disk::empty(ballast);
        wait_until("a check that finds room", || managed.check(LONG).is_ok());
        expect_as_before("configure");

        configure(grown).unwrap();
        let source = managed.package("2", &[]);
        managed.update(id, source).unwrap();
        assert_eq!(managed.answering_version(id), "2");
        // What frees the room needs none.
        let ballast = disk::fill(&disk, 0);
        let removed = managed.remove(id);
        disk::empty(ballast);
        if removed.is_err() {
            expect_no_room(&removed, &disk, "remove");
            managed.remove(id).unwrap();
        }
        assert!(managed.list().unwrap().is_empty());
    }

    #[test]
    #[ignore = "mounts; run by another test, in a namespace of its own"]
    fn a_disk_is_read_only_for_a_while() {
        let disk = disk::mounted().unwrap();
        let managed = on(&disk);
        let id = managed.running(managed.package("1", &[]));
        disk::make_read_only(&disk.join("data"));
        let package = managed.package("2", &[]);
        let source = || PackageSource::bytes(package.clone());
        let expect = |what: &str, error: Option<Error>| {
            let text = error
                .unwrap_or_else(|| panic!("{what} succeeded"))
                .to_string();
            assert!(text.to_lowercase().contains("read-only"), "{what}: {text}");
            assert!(text.contains(disk.to_str().unwrap()), "{what}: {text}");
            assert_eq!(managed.list().unwrap().len(), 1, "{what}");
            assert_eq!(managed.answering_version(id), "1", "{what}");
        };
        expect("install", managed.install(source()).err());
        let updated = managed.update_package(id, source());
        expect("update", updated.err());
        expect("remove", managed.remove(id).err());
        disk::mount("umount", &[], &disk.join("data"));
        let updated = managed.update_package(id, source());
        updated.unwrap();
        assert_eq!(managed.answering_version(id), "2");
        managed.remove(id).unwrap();
    }
}

/// A manager whose data is on this disk.
fn on(disk: &Path) -> Managed {
    let data = disk.join("data");
    let store = Arc::new(SqliteStore::open(&data).unwrap());
    let host = TestHost::with("disk", |setup| {
        setup.configure(move |builder| builder.data_dir(data).store(store));
    });
    Managed::of(host, settings())
}

#[track_caller]
fn expect_no_room<T>(result: &Result<T, Error>, disk: &Path, what: &str) {
    let error = match result {
        Ok(_) => panic!("{what}: it succeeded"),
        Err(error) if error.kind() == ErrorKind::RolledBack => source(error),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{what}: {error}");
    let text = error.to_string();
    assert!(text.contains(disk.to_str().unwrap()), "{what}: {text}");
}

/// Everything on the disk but the database, which keeps the room that it once had, and logs.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !name.starts_with("plugins.sqlite") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// So many bytes that cannot be packed.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..size).map(|_| next()).collect()
}
