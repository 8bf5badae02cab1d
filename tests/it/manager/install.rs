//! Installing: from all that a package may come from, what is on disk then, and that of one that fails
//! nothing is left.

use std::fs;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use plugin_runner::error::Phase;
use plugin_runner::manager::{Installation, PackageSource};
use plugin_runner::package::PackageLimits;
use plugin_runner::protocol::Transport;
use plugin_runner::{Error, ErrorKind, Manager, ReportedState, RuntimeProvider};
use serde_json::json;

use super::store::{Done, FailingStore, Step};
use super::{Managed, settings, sha256};
use crate::support::host::TestHost;
use crate::support::plugin::{call, manifest};
use crate::support::{LONG, assert_matches, failed, timed_out};

#[test]
fn a_package_is_installed_from_memory_a_reader_and_a_file() {
    let managed = Managed::new("install");
    let bytes = managed.package("1", &[]);
    let path = managed.host.folder().join("upload.zip");
    fs::write(&path, &bytes).unwrap();
    let sources = [
        PackageSource::bytes(bytes.clone()),
        PackageSource::reader(Cursor::new(bytes.clone())),
        PackageSource::file(&path),
    ];
    let mut all = Vec::new();
    for source in sources {
        let installed = managed.install(source).unwrap();
        assert_eq!(installed.reported_state(), ReportedState::Inactive);
        assert_eq!(installed.message(), None);
        assert_eq!(installed.manifest().version, "1");
        let id = installed.id();
        assert_eq!(managed.releases(id), [sha256(&installed)]);
        assert!(managed.host.session(id).is_none(), "nothing is started");
        let mut package = Vec::new();
        let mut reader = managed.manager.package(id).unwrap().reader();
        reader.read_to_end(&mut package).unwrap();
        assert_eq!(package, bytes);
        all.push(installed);
    }
    // The file is the caller's.
    assert_eq!(fs::read(&path).unwrap(), bytes);
    // One archive, and an installation of its own each time.
    assert_eq!(managed.store.list_archives().unwrap().len(), 1);
    let listed: Vec<_> = managed
        .list()
        .unwrap()
        .iter()
        .map(Installation::id)
        .collect();
    let ids: Vec<_> = all.iter().map(Installation::id).collect();
    assert_eq!(listed, ids);
    managed.expect_nothing_left_over();
    // All of them run at once, each from its own folder.
    for id in ids {
        let active = managed.activate(id, LONG).unwrap();
        assert_eq!(active.reported_state(), ReportedState::Active);
        let described = call(&managed.session(id), "describe", &json!({})).unwrap();
        let directory = described["directory"].as_str().unwrap();
        assert!(directory.starts_with(managed.folder(id).to_str().unwrap()));
    }
}

#[test]
fn of_a_package_that_is_none_nothing_is_left() {
    let managed = Managed::new("no-package");
    let good = managed.package("1", &[]);
    let error = failed(
        ErrorKind::InvalidPackage,
        managed.install(PackageSource::bytes(b"no archive".to_vec())),
    );
    println!("{error}");
    let cut = good[..good.len() / 2].to_vec();
    for source in [
        PackageSource::bytes(cut.clone()),
        PackageSource::reader(Cursor::new(cut)),
        PackageSource::bytes(Vec::new()),
    ] {
        println!(
            "{}",
            failed(ErrorKind::InvalidPackage, managed.install(source))
        );
        managed.expect_nothing_at_all();
    }
    // What is wrong with a manifest is said all at once.
    let mut bad = manifest("");
    bad.author = String::new();
    bad.name = String::new();
    let error = managed
        .install(PackageSource::bytes(managed.package_with(&bad, &[])))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidManifest);
    let text = error.to_string();
    for member in ["id", "author", "name"] {
        assert!(text.contains(member), "{text}");
    }
    managed.expect_nothing_at_all();
    let missing = managed.host.folder().join("missing.zip");
    for path in [missing.as_path(), managed.host.folder()] {
        let error = managed.install(PackageSource::file(path)).unwrap_err();
        let named = error.to_string().contains(path.to_str().unwrap());
        assert!(matches!(error, Error::Io { .. }) && named, "{error}");
    }
    managed.expect_nothing_at_all();
}

#[test]
fn only_the_archive_that_was_expected_is_installed() {
    let managed = Managed::new("expected");
    let bytes = managed.package("1", &[]);
    let installed = managed
        .install(PackageSource::bytes(bytes.clone()))
        .unwrap();
    let right = sha256(&installed).to_owned();
    let wrong = "0".repeat(64);
    let source = PackageSource::bytes(bytes.clone()).sha256(&wrong);
    let error = failed(ErrorKind::DigestMismatch, managed.install(source));
    assert_eq!(
        error.to_string(),
        format!("the archive's SHA-256 is {right}, expected {wrong}")
    );
    assert_eq!(managed.list().unwrap().len(), 1);
    managed.expect_nothing_left_over();
    let shouted = format!(" {} ", right.to_uppercase());
    let source = PackageSource::reader(Cursor::new(bytes)).sha256(shouted);
    managed.install(source).unwrap();
}

/// Gives so many bytes, then fails.
struct Breaking(usize);

impl Read for Breaking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the upload broke off"));
        }
        let count = self.0.min(buffer.len());
        self.0 -= count;
        Ok(count)
    }
}

fn limited(test: &'static str, limits: PackageLimits) -> Managed {
    let host = TestHost::with(test, |setup| {
        setup.configure(|builder| builder.package_limits(limits));
    });
    Managed::of(host, settings())
}

#[test]
fn a_reader_that_fails_or_never_ends_leaves_nothing() {
    let limit = 1024 * 1024;
    let managed = limited("readers", PackageLimits::default().archive_size(limit));
    for bytes in [0, 1, 100_000] {
        let error = failed(
            ErrorKind::Io,
            managed.install(PackageSource::reader(Breaking(bytes))),
        );
        let text = error.to_string();
        assert!(text.contains("the upload broke off"), "{text}");
        managed.expect_nothing_at_all();
    }
    let endless = managed.install(PackageSource::reader(io::repeat(b'x')));
    let error = failed(ErrorKind::PackageTooLarge, endless).to_string();
    assert!(error.contains(&limit.to_string()), "{error}");
    managed.expect_nothing_at_all();
    let large = vec![b'x'; usize::try_from(limit).unwrap() + 1];
    failed(
        ErrorKind::PackageTooLarge,
        managed.install(PackageSource::bytes(large)),
    );
    managed.expect_nothing_at_all();
}

/// Gives a byte at a time, without end, and takes its time for each.
struct Trickling;

impl Read for Trickling {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        thread::yield_now();
        buffer[0] = b'x';
        Ok(1)
    }
}

#[test]
fn a_reader_that_trickles_is_given_up_in_time() {
    let limit = Duration::from_millis(50);
    let settings = settings().install_timeout(limit);
    let managed = Managed::with("trickle", settings);
    let error = managed
        .install(PackageSource::reader(Trickling))
        .unwrap_err();
    assert_eq!(timed_out(&error), (Phase::Install, limit));
    managed.expect_nothing_at_all();
}

#[test]
fn the_limit_on_installations_holds_for_two_at_once_too() {
    for (room, expected) in [(1, 1), (2, 2)] {
        let managed = Managed::with("installations", settings().installations(1 + room));
        managed.install_external(manifest("outside")).unwrap();
        for _ in 0..10 {
            let before = managed.list().unwrap().len();
            let bytes = managed.package("1", &[]);
            let together = Barrier::new(2);
            let install = || {
                together.wait();
                managed.install(PackageSource::bytes(bytes.clone()))
            };
            let results = thread::scope(|scope| {
                let other = scope.spawn(install);
                [install(), other.join().unwrap()]
            });
            let mut done = Vec::new();
            for result in results {
                match result {
                    Ok(installation) => done.push(installation.id()),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::InstallationLimit);
                        let told = format!("{} plugins are installed", 1 + room);
                        assert!(error.to_string().starts_with(&told), "{error}");
                    }
                }
            }
            // Room for two takes two; of two in each other's way, both may have to go back.
            if expected == 2 {
                assert_eq!(done.len(), 2);
            } else {
                assert!(done.len() <= 1, "{done:?}");
            }
            for id in done {
                managed.remove(id).unwrap();
            }
            assert_eq!(managed.list().unwrap().len(), before);
            managed.expect_nothing_left_over();
        }
        let ids: Vec<_> = (0..room)
            .map(|_| managed.installed(managed.package("1", &[])))
            .collect();
        for result in [
            managed
                .install(PackageSource::bytes(managed.package("1", &[])))
                .map(drop),
            managed.install_external(manifest("outside")).map(drop),
        ] {
            failed(ErrorKind::InstallationLimit, result);
        }
        // Nobody is kept out by what is already there.
        let update =
            managed.update_package(ids[0], PackageSource::bytes(managed.package("2", &[])));
        assert_eq!(update.unwrap().installation.manifest().version, "2");
    }
}

#[test]
fn an_installation_that_is_stored_and_not_yet_over_counts_once() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "counted-once", settings().installations(2));
    let bytes = managed.package("1", &[]);
    let hold = store.hold(Done::Put);
    thread::scope(|scope| {
        let first = scope.spawn(|| managed.install(PackageSource::bytes(bytes.clone())));
        hold.expect(LONG);
        // The first one's record is there, and it is not over.
        managed.installed(bytes.clone());
        failed(
            ErrorKind::InstallationLimit,
            managed.install(PackageSource::bytes(bytes.clone())),
        );
        drop(hold);
        first.join().unwrap().unwrap();
    });
    managed.expect_nothing_left_over();
}

#[test]
fn an_archive_that_two_are_installing_takes_room_once() {
    let size = Managed::new("size").package("1", &[]).len() as u64;
    let settings = settings().archive_bytes(size + 10);
    let managed = Managed::with("once", settings);
    let bytes = managed.package("1", &[]);
    for _ in 0..20 {
        let together = Barrier::new(2);
        let install = || {
            together.wait();
            managed.installed(bytes.clone())
        };
        let ids = thread::scope(|scope| {
            let other = scope.spawn(install);
            [install(), other.join().unwrap()]
        });
        assert_eq!(managed.store.list_archives().unwrap().len(), 1);
        for id in ids {
            managed.remove(id).unwrap();
        }
        managed.expect_nothing_at_all();
    }
}

#[test]
fn archives_have_a_limit_in_all() {
    let sample = Managed::new("sample");
    let size = sample.package("1", &[]).len() as u64;
    let managed = Managed::with("archives", settings().archive_bytes(2 * size + 10));
    let first = managed.installed(managed.package("1", &[]));
    managed.installed(managed.package("2", &[]));
    let source = PackageSource::bytes(managed.package("3", &[]));
    let error = failed(ErrorKind::InstallationLimit, managed.install(source)).to_string();
    let limit = format!("over the limit of {};", 2 * size + 10);
    assert!(
        error.starts_with("archives would take") && error.contains(&limit),
        "{error}"
    );
    managed.expect_nothing_left_over();
    assert_eq!(managed.list().unwrap().len(), 2);
    // An archive that is there already takes no room, and one that goes makes some.
    let second = managed.installed(managed.package("1", &[]));
    managed.remove(first).unwrap();
    managed.remove(second).unwrap();
    managed.installed(managed.package("3", &[]));
    managed.expect_nothing_left_over();
}

#[test]
fn what_is_in_the_way_in_the_data_directory_is_named_and_nothing_is_left() {
    let managed = Managed::new("blocked");
    let bytes = managed.package("1", &[]);
    for name in ["incoming", "operations"] {
        let path = managed.data().join(name);
        let _ = fs::remove_dir(&path);
        fs::create_dir_all(managed.data()).unwrap();
        fs::write(&path, "in the way").unwrap();
        let source = PackageSource::reader(Cursor::new(bytes.clone()));
        let error = managed.install(source).unwrap_err();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
        managed.expect_nothing_at_all();
    }
    managed.installed(bytes);
}

#[test]
fn a_store_that_fails_leaves_nothing_of_an_installation() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "store-fails", settings());
    let bytes = managed.package("1", &[]);
    for step in [Step::PutArchive, Step::Put] {
        store.fail(step, 0);
        let error = managed
            .install(PackageSource::bytes(bytes.clone()))
            .unwrap_err();
        assert_matches!(error, Error::Io { .. });
        store.mend();
        managed.expect_nothing_at_all();
    }
    managed.running(bytes);
}

#[test]
fn an_archive_that_lies_about_what_is_in_it_leaves_nothing() {
    let limits = PackageLimits::default().file_size(5_000).files(3);
    let managed = limited("limits", limits);
    let of = manifest("limits");
    let large = vec![b'x'; 5_001];
    let error = managed.install(PackageSource::bytes(
        managed.package_with(&of, &[("large", &large, 0o644)]),
    ));
    failed(ErrorKind::PackageTooLarge, error);
    let many = [
        ("a", &b"a"[..], 0o644),
        ("b", b"b", 0o644),
        ("c", b"c", 0o644),
    ];
    let error = failed(
        ErrorKind::PackageTooLarge,
        managed.install(PackageSource::bytes(managed.package_with(&of, &many))),
    );
    println!("{error}");
    managed.expect_nothing_at_all();
}

#[test]
fn a_host_that_runs_no_plugins_installs_none_but_external_ones() {
    let host = TestHost::with("disabled", |setup| {
        setup.configure(|builder| builder.runtime_provider(RuntimeProvider::None));
    });
    let managed = Managed::of(host, settings());
    // Nothing is read of it.
    let error = managed
        .install(PackageSource::reader(Breaking(0)))
        .unwrap_err();
    assert_matches!(error, Error::Disabled);
    managed.install_external(manifest("outside")).unwrap();
}

#[test]
fn a_host_that_is_shut_down_installs_nothing() {
    let managed = Managed::new("shutdown");
    let bytes = managed.package("1", &[]);
    managed.host.shutdown(LONG);
    let error = managed.install(PackageSource::bytes(bytes)).unwrap_err();
    assert_matches!(error, Error::ShutDown);
    managed.expect_nothing_at_all();
}

#[test]
fn a_host_has_one_manager_at_a_time() {
    let managed = Managed::new("one-manager");
    failed(ErrorKind::StoreInUse, Manager::new((*managed.host).clone()));
    let id = managed.running(managed.package_of("stdio", "1", Transport::Stdio, &[]));
    let Managed { manager, host, .. } = managed;
    drop(manager);
    // The plugin does not mind.
    let next = Manager::new((*host).clone()).unwrap();
    let found = next.get(id).unwrap();
    assert_eq!(found.reported_state(), ReportedState::Active);
    drop(next);
}
