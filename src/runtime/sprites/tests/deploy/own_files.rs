//! What becomes of the files that a plugin wrote beside its program, and of older releases.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::{LIMITS, Sprite, release, tree};
use crate::error::PackageError;
use crate::runtime::sprites::deploy::DeployError;
use crate::runtime::sprites::release::Release;
use crate::testing::{TestDir, assert_matches};

fn version(number: &str) -> Arc<Release> {
    release(&[
        ("run", number, 0o755),
        ("lib/code", number, 0o644),
        (number, "", 0o644),
    ])
}

#[test]
fn own_files_are_copied_at_an_update_and_left_for_going_back() {
    let sprite = Sprite::new();
    let (one, two, three) = (version("one"), version("two"), version("three"));
    sprite.deploy(&one).unwrap();
    fs::write(sprite.path("data/state"), "precious").unwrap();
    fs::write(sprite.of(&one, "lib/state"), "1").unwrap();
    fs::write(sprite.of(&one, "run"), "edited").unwrap();

    sprite.deploy(&two).unwrap();
    assert_eq!(fs::read(sprite.of(&two, "lib/state")).unwrap(), b"1");
    assert_eq!(fs::read(sprite.of(&two, "run")).unwrap(), b"two");
    assert!(!sprite.of(&two, "one").exists());
    assert_eq!(sprite.current(), two.sha256());
    let mut both = [one.sha256(), two.sha256()];
    both.sort_unstable();
    assert_eq!(sprite.names("releases"), both);

    // Back: the old one is as its plugin left it. Whoever starts it writes `current`.
    fs::write(sprite.of(&two, "lib/state"), "2").unwrap();
    sprite.fake.forget_calls();
    sprite.deploy(&one).unwrap();
    assert_eq!(sprite.fake.calls().0.len(), 1);
    assert_eq!(fs::read(sprite.of(&one, "lib/state")).unwrap(), b"1");
    assert_eq!(fs::read(sprite.of(&one, "run")).unwrap(), b"edited");
    fs::write(sprite.path("current"), one.sha256()).unwrap();

    // A damaged one is made anew, and what was used before it is still there for going back.
    fs::remove_file(sprite.of(&one, ".complete")).unwrap();
    sprite.deploy(&one).unwrap();
    assert_eq!(fs::read(sprite.of(&one, "lib/state")).unwrap(), b"1");
    assert_eq!(sprite.names("releases"), both);

    // On from there: from the release that was used last, which is the one that stays.
    sprite.deploy(&three).unwrap();
    assert_eq!(fs::read(sprite.of(&three, "lib/state")).unwrap(), b"1");
    let mut both = [one.sha256(), three.sha256()];
    both.sort_unstable();
    assert_eq!(sprite.names("releases"), both);
    assert_eq!(sprite.names(""), ["current", "data", "releases"]);
    assert_eq!(fs::read(sprite.path("data/state")).unwrap(), b"precious");
}

#[test]
fn releases_that_are_kept_stay_with_their_files() {
    let sprite = Sprite::new();
    let [one, two, three, four] = &["one", "two", "three", "four"].map(version);
    sprite.deploy(one).unwrap();
    fs::write(sprite.of(one, "state"), "1").unwrap();
    sprite.deploy(two).unwrap();
    let kept = [three, two, one].map(|release| release.sha256());
    sprite.deploy_keeping(&kept, three).unwrap();
    let mut expected = kept;
    expected.sort_unstable();
    assert_eq!(sprite.names("releases"), expected);
    assert_eq!(fs::read(sprite.of(one, "state")).unwrap(), b"1");
    // The second is not kept any more, and is not the one before.
    let kept = [four, one].map(|release| release.sha256());
    sprite.deploy_keeping(&kept, four).unwrap();
    let mut expected = [four, three, one].map(|release| release.sha256());
    expected.sort_unstable();
    assert_eq!(sprite.names("releases"), expected);
}

#[test]
fn all_that_can_be_copied_is_and_nothing_of_the_new_package_is_lost() {
    let sprite = Sprite::new();
    let outside = TestDir::new("deploy");
    fs::write(outside.path().join("file"), "outside").unwrap();
    let one = release(&[("lib/code", "1", 0o644), ("old/only", "1", 0o644)]);
    let two = release(&[
        ("lib/code", "2", 0o644),
        ("clash", "new", 0o644),
        ("dir/inside", "new", 0o644),
        ("was-dir", "new", 0o644),
    ]);
    sprite.deploy(&one).unwrap();
    let of = |path: &str| sprite.of(&one, path);
    fs::create_dir_all(of("own/deep er")).unwrap();
    fs::create_dir(of("own/empty")).unwrap();
    fs::write(of("own/deep er/file"), "own").unwrap();
    fs::write(of("old/own"), "own").unwrap();
    fs::write(of("lib/own"), "own").unwrap();
    fs::write(of("tool"), "own").unwrap();
    fs::set_permissions(of("tool"), fs::Permissions::from_mode(0o6777)).unwrap();
    let time = UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    let tool = fs::File::options().write(true).open(of("tool")).unwrap();
    tool.set_modified(time).unwrap();
    fs::write(of("clash"), "own").unwrap();
    fs::write(of("dir"), "a file").unwrap();
    fs::create_dir(of("was-dir")).unwrap();
    fs::write(of("was-dir/lost"), "own").unwrap();
    symlink(outside.path(), of("link")).unwrap();
    symlink("tool", of("own/link")).unwrap();
    symlink("nowhere", of("dangling")).unwrap();
    fs::set_permissions(of("own/deep er"), fs::Permissions::from_mode(0o555)).unwrap();
    let made = Command::new("mkfifo").arg(of("pipe")).status().unwrap();
    assert!(made.success());
    let before = tree(&of(""));

    sprite.deploy(&two).unwrap();
    let mut found = tree(&sprite.of(&two, ""));
    found.remove(".complete");
    let file = |mode, content: &str| (mode, Some(content.as_bytes().to_vec()));
    let dir = |mode| (mode, None);
    let link = (0o777, None);
    let expected = [
        ("manifest.json", file(0o644, "{}")),
        ("lib", dir(0o755)),
        ("lib/code", file(0o644, "2")),
        ("lib/own", file(0o644, "own")),
        ("clash", file(0o644, "new")),
        ("dir", dir(0o755)),
        ("dir/inside", file(0o644, "new")),
        ("was-dir", file(0o644, "new")),
        ("own", dir(0o755)),
        ("own/deep er", dir(0o555)),
        ("own/deep er/file", file(0o644, "own")),
        ("own/empty", dir(0o755)),
        ("own/link", link.clone()),
        ("old", dir(0o755)),
        ("old/own", file(0o644, "own")),
        ("tool", file(0o755, "own")),
        ("link", link.clone()),
        ("dangling", link),
    ];
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(path, seen)| (path.to_owned(), seen))
        .collect();
    assert_eq!(found, expected);
    let copied = sprite.of(&two, "tool").metadata().unwrap();
    assert_eq!(copied.modified().unwrap(), time);
    assert_eq!(copied.nlink(), 1);
    assert_eq!(
        fs::read_link(sprite.of(&two, "link")).unwrap(),
        outside.path()
    );
    assert_eq!(tree(&of("")), before);
    assert_eq!(tree(outside.path()).len(), 1);
}

#[test]
fn own_files_over_the_limits_are_refused_and_nothing_is_changed() {
    let sprite = Sprite::new();
    let (one, two) = (version("one"), version("two"));
    sprite.deploy(&one).unwrap();
    let refused = || match sprite.deploy(&two).unwrap_err() {
        DeployError::Package(error) => error,
        other @ DeployError::Service(_) => panic!("{other:?}"),
    };
    for number in 0..=LIMITS.files {
        fs::write(sprite.of(&one, &format!("own-{number}")), "").unwrap();
    }
    assert_matches!(
        refused(),
        PackageError::MigrationTooLarge {
            files: 101,
            file_limit: 100,
            ..
        }
    );
    assert_eq!(sprite.current(), one.sha256());
    for number in 1..=LIMITS.files {
        fs::remove_file(sprite.of(&one, &format!("own-{number}"))).unwrap();
    }
    let own = fs::File::create(sprite.of(&one, "own-0")).unwrap();
    own.set_len(LIMITS.bytes + 1).unwrap();
    assert_matches!(
        refused(),
        PackageError::MigrationTooLarge {
            files: 1,
            bytes: 1_048_577,
            ..
        }
    );
    own.set_len(LIMITS.bytes).unwrap();
    sprite.fake.forget_calls();
    sprite.deploy(&two).unwrap();
    assert_eq!(sprite.uploads(), 0);
    let copied = sprite.of(&two, "own-0").metadata().unwrap();
    assert_eq!(copied.len(), LIMITS.bytes);
}

#[test]
fn deep_paths_are_bounded() {
    let sprite = Sprite::new();
    let (one, two) = (version("one"), version("two"));
    sprite.deploy(&one).unwrap();
    let mut deep = sprite.of(&one, "");
    for _ in 0..90 {
        deep.push("x");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "own").unwrap();
    sprite.deploy(&two).unwrap();
    let copied = format!("{}file", "x/".repeat(90));
    assert_eq!(fs::read(sprite.of(&two, &copied)).unwrap(), b"own");
}

#[test]
fn what_stands_in_the_place_of_our_own_directories_is_not_followed() {
    let sprite = Sprite::new();
    let outside = TestDir::new("deploy");
    fs::write(outside.path().join("file"), "outside").unwrap();
    let (one, two) = (version("one"), version("two"));
    sprite.deploy(&one).unwrap();
    let replace = |path: &str| {
        let path = sprite.path(path);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            let _ = fs::remove_file(&path);
        }
        symlink(outside.path(), &path).unwrap();
    };
    for path in ["data", "staging-work", "current"] {
        replace(path);
    }
    replace(&format!("releases/{}", two.sha256()));
    replace(&format!("releases/{}.replaced", two.sha256()));
    replace("releases/stranger");
    sprite.deploy(&two).unwrap();
    assert_eq!(tree(outside.path()).len(), 1);
    assert_eq!(sprite.current(), two.sha256());
    assert!(sprite.path("data").symlink_metadata().unwrap().is_dir());
    // The release before is not known without `current`.
    assert_eq!(sprite.names("releases"), [two.sha256()]);
    replace("releases");
    sprite.deploy(&two).unwrap();
    assert_eq!(tree(outside.path()).len(), 1);
    assert_eq!(sprite.names("releases"), [two.sha256()]);
}

#[test]
fn what_a_crash_in_the_middle_has_left_is_gone_on_from() {
    let sprite = Sprite::new();
    let one = version("one");
    sprite.deploy(&one).unwrap();
    let rename = |from: &str, to: &str| fs::rename(sprite.path(from), sprite.path(to)).unwrap();
    let (place, aside) = (
        format!("releases/{}", one.sha256()),
        format!("releases/{}.replaced", one.sha256()),
    );
    // It was moved out of the way, and the new one has not taken its place.
    fs::write(sprite.of(&one, "own"), "kept").unwrap();
    rename(&place, &aside);
    fs::create_dir_all(sprite.path("staging-work")).unwrap();
    fs::create_dir_all(sprite.path("staging-of-another")).unwrap();
    sprite.deploy(&one).unwrap();
    assert_eq!(fs::read(sprite.of(&one, "own")).unwrap(), b"kept");
    assert_eq!(sprite.names(""), ["current", "data", "releases"]);
    assert_eq!(sprite.names("releases"), [one.sha256()]);
    // A copy was cut off: half of a file that is the plugin's own.
    let two = version("two");
    let staging = sprite.path(&format!("staging-{}", two.sha256()));
    fs::create_dir_all(&staging).unwrap();
    fs::write(staging.join("own"), "ke").unwrap();
    fs::write(staging.join("gone"), "").unwrap();
    sprite.deploy(&two).unwrap();
    assert_eq!(fs::read(sprite.of(&two, "own")).unwrap(), b"kept");
    assert!(!sprite.of(&two, "gone").exists());
}

#[test]
fn a_listing_of_the_plugins_own_making_harms_nothing() {
    let sprite = Sprite::new();
    let one = version("one");
    sprite.deploy(&one).unwrap();
    let title = String::from_utf8(one.outline().listing.clone()).unwrap();
    let title = title.split('\0').next().unwrap().to_owned();
    let numbers = [
        "",
        "x",
        "-1",
        "1",
        "a[$(touch pwned)]",
        "99999999999999999999",
    ];
    for (number, count) in numbers.into_iter().enumerate() {
        let current = sprite.current();
        let release = sprite.path(&format!("releases/{current}"));
        let listing =
            format!("{title}\0sha\0{count}\0f $(touch pwned) 1 lib/code\0d `touch pwned`\0");
        fs::write(release.join(".complete"), listing).unwrap();
        fs::write(release.join("own"), "kept").unwrap();
        let next = version(&format!("next-{number}"));
        sprite.deploy(&next).unwrap();
        assert_eq!(fs::read(sprite.of(&next, "own")).unwrap(), b"kept");
        sprite.assert_nothing_ran();
    }
}
