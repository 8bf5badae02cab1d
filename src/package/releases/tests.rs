//! What goes and what stays, also after a crash at any point.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::super::testing::{
    Builder, Item, NEVER, cancelled_at_each_moment, listing, set_mode, unpacked,
};
use super::super::{Archive, PackageLimits, data_dir, release_dir, unpack_afresh};
use super::*;
use crate::testing::TestDir;

fn archive(name: &str) -> Archive {
    Builder::plugin([Item::stored(name, b"x"), Item::stored("lib/data", b"data")]).archive()
}

fn afresh(root: &Path, archive: &Archive) -> Result<PathBuf, PackageError> {
    unpack_afresh(archive, root, "", &PackageLimits::default(), NEVER)
}

fn below(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// As a plugin may: its directory, those above it, and its files made read-only.
fn lock_up(release: &Path) {
    fs::create_dir_all(release.join("own/deep")).unwrap();
    fs::write(release.join("own/deep/file"), "x").unwrap();
    symlink("/etc", release.join("own/link")).unwrap();
    for path in ["own/deep/file", "own/deep", "own", "lib", ""] {
        set_mode(release.join(path), 0o500);
    }
    let releases = release.parent().unwrap();
    set_mode(releases, 0o500);
    set_mode(releases.parent().unwrap(), 0o500);
}

#[test]
fn a_release_is_replaced_by_a_fresh_one() {
    let root = TestDir::new("package");
    let archive = archive("main");
    for round in 0..3 {
        if round > 0 {
            let release = release_dir(root.path(), archive.sha256());
            fs::write(release.join("own"), "mine").unwrap();
            fs::write(release.join("lib/data"), "changed").unwrap();
            fs::remove_file(release.join("main")).unwrap();
            if round == 2 {
                fs::remove_file(release.join(".complete")).unwrap();
            }
        }
        let release = afresh(root.path(), &archive).unwrap();
        assert_eq!(
            below(&release),
            [".complete", "lib", "main", "manifest.json"]
                .map(str::to_owned)
                .into()
        );
        assert_eq!(fs::read(release.join("lib/data")).unwrap(), b"data");
        assert!(listing(&release).is_some());
        assert!(below(&root.path().join("staging")).is_empty());
    }
}

#[test]
fn one_that_the_plugin_locked_up_is_replaced_too() {
    let root = TestDir::new("package");
    let archive = archive("main");
    let release = unpacked(root.path(), &archive).unwrap();
    lock_up(&release);
    afresh(root.path(), &archive).unwrap();
    assert!(!release.join("own").exists());
    assert!(below(&root.path().join("staging")).is_empty());
    assert!(Path::new("/etc").exists());
}

#[test]
fn a_file_or_a_link_in_the_place_of_a_release_is_replaced() {
    let elsewhere = TestDir::new("package");
    fs::write(elsewhere.path().join("file"), "x").unwrap();
    for link in [false, true] {
        let root = TestDir::new("package");
        let archive = archive("main");
        let release = release_dir(root.path(), archive.sha256());
        fs::create_dir_all(release.parent().unwrap()).unwrap();
        if link {
            symlink(elsewhere.path(), &release).unwrap();
        } else {
            fs::write(&release, "x").unwrap();
        }
        afresh(root.path(), &archive).unwrap();
        assert!(release.symlink_metadata().unwrap().is_dir());
        assert!(elsewhere.path().join("file").exists());
    }
}

#[test]
fn cancelling_keeps_the_old_release() {
    let root = TestDir::new("package");
    let archive = archive("main");
    let release = unpacked(root.path(), &archive).unwrap();
    fs::write(release.join("own"), "mine").unwrap();
    let limits = PackageLimits::default();
    let (moments, _) = cancelled_at_each_moment(|cancel| {
        assert!(release.join("own").exists());
        let result = unpack_afresh(&archive, root.path(), "", &limits, cancel);
        assert!(below(&root.path().join("staging")).is_empty());
        result
    });
    assert!(moments > 3);
    assert!(!release.join("own").exists());
}

#[test]
fn the_releases_to_keep_stay() {
    let root = TestDir::new("package");
    let archives: Vec<_> = ["one", "two", "three"].map(archive).into();
    let releases: Vec<_> = archives
        .iter()
        .map(|archive| unpacked(root.path(), archive).unwrap())
        .collect();
    let dir = root.path().join("releases");
    fs::write(dir.join("stray"), "x").unwrap();
    symlink(root.path(), dir.join("link")).unwrap();
    fs::create_dir_all(root.path().join("staging/leftover/x")).unwrap();
    fs::write(data_dir(root.path()).unwrap().join("file"), "x").unwrap();
    lock_up(&releases[0]);

    let keep = [archives[1].sha256(), archives[2].sha256(), "not there"];
    for _ in 0..2 {
        keep_releases(root.path(), &keep).unwrap();
        assert_eq!(
            below(&dir),
            keep[..2].iter().map(|name| (*name).to_owned()).collect()
        );
        assert!(below(&root.path().join("staging")).is_empty());
        assert!(listing(&releases[2]).is_some());
    }
    for _ in 0..2 {
        remove_release(root.path(), keep[0]).unwrap();
        assert_eq!(below(&dir), [keep[1].to_owned()].into());
    }
    keep_releases(root.path(), &[]).unwrap();
    assert!(below(&dir).is_empty());
    assert_eq!(below(&root.path().join("data")).len(), 1);
}

#[test]
fn where_nothing_is_there_is_nothing_to_keep_or_remove() {
    let root = TestDir::new("package");
    let missing = root.path().join("missing");
    keep_releases(&missing, &["x"]).unwrap();
    for keep_data in [true, false] {
        remove_installation(&missing, keep_data).unwrap();
        remove_installation(&missing.join("x"), keep_data).unwrap();
    }
    assert!(!missing.exists());
    keep_releases(root.path(), &["x"]).unwrap();
    assert!(below(root.path()).is_empty());
}

#[test]
fn releases_behind_a_link_are_nobodys() {
    let root = TestDir::new("package");
    let elsewhere = TestDir::new("package");
    fs::create_dir(elsewhere.path().join("x")).unwrap();
    symlink(elsewhere.path(), root.path().join("releases")).unwrap();
    keep_releases(root.path(), &[]).unwrap();
    assert_eq!(below(root.path()), BTreeSet::new());
    symlink(elsewhere.path(), root.path().join("releases")).unwrap();
    assert!(elsewhere.path().join("x").exists());
    symlink(elsewhere.path(), root.path().join("data")).unwrap();
    symlink(elsewhere.path(), root.path().join("staging")).unwrap();
    remove_installation(root.path(), false).unwrap();
    assert!(elsewhere.path().join("x").exists());
    assert!(!root.path().exists());

    let link = elsewhere.path().join("root");
    symlink(elsewhere.path().join("x"), &link).unwrap();
    remove_installation(&link, true).unwrap();
    assert!(link.symlink_metadata().is_ok());
    remove_installation(&link, false).unwrap();
    assert!(link.symlink_metadata().is_err());
    assert!(elsewhere.path().join("x").exists());
}

/// An installation with everything that one may have.
fn installation(root: &Path) {
    let release = unpacked(root, &archive("main")).unwrap();
    fs::create_dir_all(root.join("staging/leftover")).unwrap();
    for dir in ["data", "logs"] {
        fs::create_dir(root.join(dir)).unwrap();
        fs::write(root.join(dir).join("file"), "x").unwrap();
    }
    fs::create_dir_all(root.join("data/locked/in")).unwrap();
    set_mode(root.join("data/locked/in"), 0);
    set_mode(root.join("data/locked"), 0);
    lock_up(&release);
}

#[test]
fn an_installation_goes_with_its_data_or_without() {
    let dir = TestDir::new("package");
    let root = dir.path().join("root");
    installation(&root);
    for _ in 0..2 {
        remove_installation(&root, true).unwrap();
        assert_eq!(below(&root), ["data", "logs"].map(str::to_owned).into());
        assert_eq!(fs::read(root.join("data/file")).unwrap(), b"x");
    }
    fs::write(root.join("else"), "x").unwrap();
    for _ in 0..2 {
        remove_installation(&root, false).unwrap();
        assert!(!root.exists());
    }
    unpacked(&root, &archive("main")).unwrap();
    remove_installation(&root, true).unwrap();
    assert!(!root.exists(), "nothing was left in it");
}

#[test]
fn removing_is_taken_up_where_a_crash_left_it() {
    // What has been moved and removed by then.
    let crashes: [&dyn Fn(&Path); 4] = [
        &|root| fs::rename(root.join("releases"), root.join("removed")).unwrap(),
        &|root| {
            fs::rename(root.join("releases"), root.join("removed")).unwrap();
            fs::create_dir_all(root.join("releases/again")).unwrap();
        },
        &|root| {
            fs::remove_dir_all(root.join("releases")).unwrap();
            fs::create_dir_all(root.join("removed/half")).unwrap();
        },
        &|root| {
            fs::remove_dir_all(root.join("releases")).unwrap();
            fs::remove_dir_all(root.join("staging")).unwrap();
            fs::remove_dir_all(root.join("logs")).unwrap();
        },
    ];
    for keep_data in [true, false] {
        for crash in crashes {
            let root = TestDir::new("package");
            unpacked(root.path(), &archive("main")).unwrap();
            for dir in ["data/x", "logs/x"] {
                fs::create_dir_all(root.path().join(dir)).unwrap();
            }
            crash(root.path());
            remove_installation(root.path(), keep_data).unwrap();
            if keep_data {
                let left = below(root.path());
                assert!(left.contains("data"));
                assert!(left.iter().all(|name| name == "data" || name == "logs"));
            } else {
                assert!(!root.path().exists());
            }
        }
    }
}
