//! What unpacking leaves on disk: when it succeeds, fails, is cancelled, or crashed before.

use std::cell::Cell;
use std::fs;
use std::sync::Barrier;

use super::super::path::MARKER;
use super::super::testing::{
    Builder, Item, NEVER, REGULAR, cancelled_at_each_moment, listing, mode, unpacked, walk,
};
use super::*;
use crate::testing::{TestDir, assert_matches};

fn plugin() -> Builder {
    Builder::plugin([
        Item::dir("empty/").unix(0o040_700),
        Item::deflated("bin/main", b"#!/bin/sh\n"),
        Item::stored("lib/data", &[9; 5_000]).unix(REGULAR | 0o600),
    ])
}

fn assert_nothing_staged(root: &Path) {
    let left = walk(&root.join("staging"));
    assert!(left.is_empty(), "{left:?}");
}

fn assert_nothing_left(root: &Path) {
    assert_nothing_staged(root);
    let left = walk(&root.join("releases"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn files_folders_modes_and_listing() {
    let root = TestDir::new("package");
    let archive = plugin().archive();
    let release = unpacked(root.path(), &archive).unwrap();
    assert_eq!(release, release_dir(root.path(), archive.sha256()));

    let listing = listing(&release).unwrap();
    assert_eq!(listing.sha256, archive.sha256());
    let listed: Vec<_> = listing
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.size))
        .collect();
    assert_eq!(
        listed,
        [("manifest.json", 2), ("bin/main", 10), ("lib/data", 5_000)]
    );

    let expected = [
        ("bin", 0o755, None),
        ("bin/main", 0o755, Some(b"#!/bin/sh\n".to_vec())),
        ("empty", 0o755, None),
        ("lib", 0o755, None),
        ("lib/data", 0o600, Some(vec![9; 5_000])),
        ("manifest.json", 0o644, Some(b"{}".to_vec())),
    ];
    assert_eq!(walk(&release).len(), expected.len() + 1, "with the marker");
    for (name, expected_mode, content) in expected {
        let path = release.join(name);
        assert_eq!(mode(&path), expected_mode, "{name}");
        assert_eq!(fs::read(path).ok(), content, "{name}");
    }
    assert_nothing_staged(root.path());
}

#[test]
fn modes_lose_what_is_dangerous_and_the_command_gains_what_it_needs() {
    let modes = [
        ("setuid", 0o4755, 0o755),
        ("setgid", 0o2640, 0o640),
        ("sticky", 0o1777, 0o755),
        ("none", 0, 0o644),
        ("private", 0o600, 0o600),
    ];
    let items = modes.map(|(name, mode, _)| Item::stored(name, b"x").unix(REGULAR | mode));
    let windows =
        Item::stored("windows", b"x").with(|item| (item.system, item.attributes) = (0, 0));
    let archive = Builder::plugin(items.into_iter().chain([windows])).archive();
    for (command, path, expected) in [
        ("./private", "private", 0o700),
        ("./windows", "windows", 0o755),
        ("x/../none", "none", 0o755),
        ("setgid", "setgid", 0o640),
        ("/private", "private", 0o600),
        ("./missing", "private", 0o600),
    ] {
        let root = TestDir::new("package");
        let limits = PackageLimits::default();
        let release = unpack_once(&archive, root.path(), command, &limits, NEVER).unwrap();
        assert_eq!(mode(release.join(path)), expected, "{command}");
        for (name, _, expected) in modes.iter().filter(|(name, ..)| *name != path) {
            assert_eq!(mode(release.join(name)), *expected, "{name}");
        }
    }
}

#[test]
fn a_complete_release_is_left_as_it_is() {
    let root = TestDir::new("package");
    let archive = plugin().archive();
    let release = unpacked(root.path(), &archive).unwrap();
    // As plugins do: own files next to the package's, and the package's changed.
    fs::write(release.join("state.db"), "mine").unwrap();
    fs::write(release.join("lib/data"), "changed").unwrap();
    // It would go through the entries.
    let cancel = || panic!("it was asked");
    let limits = PackageLimits::default();
    let again = unpack_once(&archive, root.path(), "./bin/main", &limits, &cancel);
    assert_eq!(again.unwrap(), release);
    assert_eq!(fs::read(release.join("state.db")).unwrap(), b"mine");
    assert_eq!(fs::read(release.join("lib/data")).unwrap(), b"changed");
}

#[test]
fn the_command_of_a_complete_release_is_made_executable() {
    let root = TestDir::new("package");
    let archive = plugin().archive();
    let limits = PackageLimits::default();
    let release = unpack_once(&archive, root.path(), "true", &limits, NEVER).unwrap();
    assert_eq!(mode(release.join("bin/main")), 0o644);
    unpacked(root.path(), &archive).unwrap();
    assert_eq!(mode(release.join("bin/main")), 0o755);
}

#[test]
fn two_archives_make_two_releases() {
    let root = TestDir::new("package");
    let one = unpacked(root.path(), &plugin().archive()).unwrap();
    let other = Builder::plugin([Item::stored("new", b"x")]).archive();
    let other = unpacked(root.path(), &other).unwrap();
    assert_ne!(one, other);
    assert!(one.join("bin/main").is_file());
    assert!(other.join("new").is_file() && !other.join("bin").exists());
}

#[test]
fn a_release_that_a_crash_left_unfinished_is_done_again() {
    let archive = plugin().archive();
    for marker in [
        None,
        Some(""),
        Some("plugin-runner release 1\n"),
        Some("cut off"),
    ] {
        let root = TestDir::new("package");
        let release = release_dir(root.path(), archive.sha256());
        fs::create_dir_all(release.join("bin")).unwrap();
        fs::write(release.join("bin/main"), "half").unwrap();
        fs::write(release.join("stray"), "x").unwrap();
        if let Some(marker) = marker {
            fs::write(release.join(MARKER), marker).unwrap();
        }
        unpacked(root.path(), &archive).unwrap();
        assert_eq!(fs::read(release.join("bin/main")).unwrap(), b"#!/bin/sh\n");
        assert!(!release.join("stray").exists());
        assert!(listing(&release).is_some());
        assert_nothing_staged(root.path());
    }
}

#[test]
fn what_a_crash_left_in_staging_is_removed_and_what_is_in_use_is_not() {
    let root = TestDir::new("package");
    let staging = root.path().join("staging");
    fs::create_dir_all(staging.join("dead/bin")).unwrap();
    fs::write(staging.join("dead/bin/main"), "half").unwrap();
    fs::write(staging.join("dead.lock"), "").unwrap();
    fs::create_dir_all(staging.join("unlocked/bin")).unwrap();
    fs::write(staging.join("only.lock"), "").unwrap();
    let live = Staging::create(&create_installation_dir(root.path()).unwrap()).unwrap();
    let file = live.dir().at("file");
    fs::write(&file, "in use").unwrap();

    unpacked(root.path(), &plugin().archive()).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"in use");
    assert_eq!(
        fs::read_dir(&staging).unwrap().count(),
        2,
        "the live folder and its lock"
    );
    drop(live);
    assert_nothing_staged(root.path());
}

#[test]
fn many_threads_may_unpack_the_same_archive_at_once() {
    const THREADS: usize = 8;
    let archive = plugin().archive();
    for half in [false, true] {
        let root = TestDir::new("package");
        let release = release_dir(root.path(), archive.sha256());
        if half {
            fs::create_dir_all(&release).unwrap();
            fs::write(release.join("stray"), "x").unwrap();
        }
        let barrier = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        unpacked(root.path(), &archive)
                    })
                })
                .collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap().unwrap(), release);
            }
        });
        assert_eq!(fs::read(release.join("lib/data")).unwrap(), [9; 5_000]);
        assert!(!release.join("stray").exists());
        assert_nothing_staged(root.path());
    }
}

#[test]
fn cancelling_at_any_moment_leaves_nothing() {
    let archive = Builder::plugin([
        Item::stored("a/b", b"x"),
        Item::deflated("large", &vec![1; 3 * 1024 * 1024]),
    ])
    .archive();
    let limits = PackageLimits::default();
    let root = TestDir::new("package");
    let (cancelled, release) = cancelled_at_each_moment(|cancel| {
        let result = unpack_once(&archive, root.path(), "./a/b", &limits, cancel);
        if result.is_err() {
            assert_nothing_left(root.path());
        }
        result
    });
    assert!(release.join("large").is_file());
    // One directory (made, and synced), three files, three MiB in one of them, and at the end.
    assert_eq!(cancelled, 2 + 3 + 3 + 1);
}

#[test]
fn headers_that_lie_are_found_out_and_nothing_is_left() {
    let zeros = vec![0; 2 * 1024 * 1024];
    for (item, check) in [
        (
            Item::deflated("bomb", &zeros).with(|item| item.size = 1_000),
            (|error| matches!(error, PackageError::Content { .. })) as fn(&PackageError) -> bool,
        ),
        (
            Item::deflated("bomb", b"short").with(|item| item.size = 1_000),
            |error| {
                matches!(
                    error,
                    PackageError::SizeMismatch {
                        found: 5,
                        declared: 1_000,
                        ..
                    }
                )
            },
        ),
        (
            Item::deflated("bomb", b"damaged").with(|item| item.checksum ^= 1),
            |error| matches!(error, PackageError::Content { .. }),
        ),
        (
            Item::deflated("bomb", b"damaged").with(|item| item.packed.fill(0xff)),
            |error| matches!(error, PackageError::Content { .. }),
        ),
    ] {
        let root = TestDir::new("package");
        let archive = Builder::plugin([Item::stored("first", b"x"), item]).archive();
        let error = unpacked(root.path(), &archive).unwrap_err();
        assert!(check(&error), "{error:?}");
        assert!(error.is_permanent());
        assert!(error.to_string().contains("\"bomb\""), "{error}");
        assert_nothing_left(root.path());
    }
}

#[test]
fn names_that_are_one_on_this_file_system_are_refused_for_good() {
    // Played by putting there what an earlier entry would have made.
    for (name, dir) in [("a", false), ("b/a", false), ("b", true)] {
        let root = TestDir::new("package");
        let archive = Builder::plugin([Item::stored("a", b""), Item::stored("b/a", b"")]).archive();
        let made = Cell::new(false);
        let error = unpack_once(
            &archive,
            root.path(),
            "",
            &PackageLimits::default(),
            &|| {
                let staging = fs::read_dir(root.path().join("staging")).unwrap();
                let mut paths = staging.map(|entry| entry.unwrap().path());
                let staged = paths.find(|path| path.is_dir()).unwrap().join(name);
                if !made.get() && staged.parent().unwrap().is_dir() {
                    let result = if dir {
                        fs::create_dir(staged)
                    } else {
                        fs::write(staged, "")
                    };
                    result.unwrap();
                    made.set(true);
                }
                false
            },
        )
        .unwrap_err();
        assert_matches!(error, PackageError::Collision { .. });
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        assert!(error.is_permanent());
        assert_nothing_left(root.path());
    }
}

#[test]
fn limits_count_what_is_written() {
    let archive = plugin().archive();
    let mut limits = PackageLimits {
        file_size: 4_999,
        ..PackageLimits::default()
    };
    let root = TestDir::new("package");
    let error = unpack_once(&archive, root.path(), "", &limits, NEVER).unwrap_err();
    assert_matches!(
        error,
        PackageError::FileTooLarge {
            size: 5_000,
            limit: 4_999,
            ..
        }
    );
    limits.file_size = 5_000;
    limits.total_size = 5_011;
    let error = unpack_once(&archive, root.path(), "", &limits, NEVER).unwrap_err();
    assert_matches!(
        error,
        PackageError::TotalTooLarge {
            size: 5_012,
            limit: 5_011,
            ..
        }
    );
    assert_nothing_left(root.path());
    limits.total_size = 5_012;
    unpack_once(&archive, root.path(), "", &limits, NEVER).unwrap();
}

#[test]
fn errors_of_the_system_name_the_path_and_may_pass() {
    let root = TestDir::new("package");
    fs::write(root.path().join("staging"), "in the way").unwrap();
    let error = unpacked(root.path(), &plugin().archive()).unwrap_err();
    assert_matches!(error, PackageError::Io { .. });
    assert!(error.to_string().contains("/staging"), "{error}");
    assert!(!error.is_permanent());
}

#[test]
fn nested_packages_keep_their_paths() {
    let root = TestDir::new("package");
    let archive = Builder::new([
        Item::stored("plugin/manifest.json", b"{}"),
        Item::stored("plugin/main", b"x"),
    ])
    .archive();
    let limits = PackageLimits::default();
    let release = unpack_once(&archive, root.path(), "plugin/main", &limits, NEVER).unwrap();
    assert_eq!(mode(release.join("plugin/main")), 0o755);
}

#[test]
fn the_data_folder_is_made_and_stays() {
    let root = TestDir::new("package");
    let data = super::super::data_dir(root.path()).unwrap();
    assert_eq!(data, root.path().join("data"));
    fs::write(data.join("x"), "x").unwrap();
    super::super::data_dir(root.path()).unwrap();
    assert!(data.join("x").is_file());
}
