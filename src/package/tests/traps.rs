//! What a plugin may put in the place of what is ours below its installation's directory: pipes, links,
//! sockets, devices, directories and huge files. Nothing waits for them, nothing outside is touched, and
//! they go with the rest.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;

use crate::package::testing::{
    Builder, Item, MIGRATION_LIMITS, NEVER, REGULAR, listing, make_pipe, make_socket, mode,
    own_files, set_mode, tree, unpacked, walk, when_asked,
};
use crate::package::*;
use crate::testing::{LONG, TestDir};

/// What can be in the place of a file.
const KINDS: [&str; 9] = [
    "nothing",
    "pipe",
    "link",
    "dangling link",
    "link to a pipe",
    "socket",
    "device",
    "directory",
    "huge file",
];

fn archive(version: &str) -> Archive {
    Builder::plugin([
        Item::stored("bin/main", version.as_bytes()),
        Item::stored("lib/data", b"data"),
    ])
    .archive()
}

/// Returns what the work returns, which must come in time.
#[track_caller]
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || drop(sender.send(work())));
    let done = receiver
        .recv_timeout(LONG)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    thread.join().unwrap();
    done
}

/// Puts this in the place of a file; `false` where it cannot be made here.
fn replace(path: &Path, kind: &str, outside: &Path) -> bool {
    fs::remove_file(path).unwrap();
    match kind {
        "nothing" => {}
        "pipe" => make_pipe(path),
        // To what would do.
        "link" => symlink(outside.join("whole"), path).unwrap(),
        "dangling link" => symlink(outside.join("nowhere"), path).unwrap(),
        "link to a pipe" => {
            let pipe = path.with_file_name("a-pipe");
            if fs::symlink_metadata(&pipe).is_err() {
                make_pipe(&pipe);
            }
            symlink(pipe, path).unwrap();
        }
        "socket" => make_socket(path),
        "device" => {
            let made = Command::new("mknod")
                .arg(path)
                .args(["c", "1", "5"])
                .output();
            return made.unwrap().status.success();
        }
        "directory" => {
            fs::create_dir(path).unwrap();
            fs::write(path.join("file"), "x").unwrap();
        }
        "huge file" => {
            let file = File::create(path).unwrap();
            file.set_len(1 << 40).unwrap();
        }
        other => panic!("{other}"),
    }
    true
}

/// A directory elsewhere that has what the host would use or remove, were it the installation's.
fn elsewhere(sha256: &str) -> TestDir {
    let outside = TestDir::new("package");
    for dir in [
        "x",
        "in",
        "bin",
        "lib",
        &format!("{sha256}/in"),
        "staging/x",
        "releases/x",
    ] {
        fs::create_dir_all(outside.path().join(dir)).unwrap();
    }
    for file in ["x/file", "x.lock", "x.part", "file", "data"] {
        fs::write(outside.path().join(file), "kept").unwrap();
    }
    for dir in ["x", ""] {
        set_mode(outside.path().join(dir), 0o550);
    }
    outside
}

#[test]
fn what_is_no_file_is_no_listing() {
    for kind in KINDS {
        let outside = TestDir::new("package");
        let root = TestDir::new("package");
        let archive = archive("one");
        let release = unpacked(root.path(), &archive).unwrap();
        let marker = release.join(".complete");
        fs::copy(&marker, outside.path().join("whole")).unwrap();
        if !replace(&marker, kind, outside.path()) {
            continue;
        }
        let found = in_time(kind, {
            let release = release.clone();
            move || listing(&release)
        });
        assert_eq!(found, None, "{kind}");
        let own = in_time(kind, {
            let release = release.clone();
            move || own_files(&release)
        });
        assert!(own.0 >= 3, "{kind}");
        let sha256 = archive.sha256().to_owned();
        let path = root.path().to_owned();
        let found = in_time(kind, move || {
            find_release(&path, &sha256, "./bin/main", NEVER)
        });
        assert_eq!(found.unwrap(), None, "{kind}");
        // It is unpacked afresh, and the odd thing goes.
        let path = root.path().to_owned();
        let again = in_time(kind, move || unpacked(&path, &archive));
        assert_eq!(again.unwrap(), release, "{kind}");
        assert!(listing(&release).is_some(), "{kind}");
        assert!(fs::symlink_metadata(&marker).unwrap().is_file(), "{kind}");
        assert_eq!(
            fs::read_dir(root.path().join("staging")).unwrap().count(),
            0
        );
        assert!(outside.path().join("whole").is_file(), "{kind}");
    }
}

#[test]
fn what_may_not_be_read_is_no_listing_and_is_unpacked_afresh() {
    for place in [".complete", ""] {
        let root = TestDir::new("package");
        let archive = archive("one");
        let release = unpacked(root.path(), &archive).unwrap();
        let shut = release.join(place);
        set_mode(&shut, 0);
        let by_root = File::open(&shut).is_ok();
        let found = listing(&release);
        assert!(place != ".complete" || by_root || found.is_none());
        own_files(&release);
        find_release(root.path(), archive.sha256(), "./bin/main", NEVER).unwrap();
        assert_eq!(unpacked(root.path(), &archive).unwrap(), release, "{place}");
        assert!(listing(&release).is_some(), "{place}");
        assert_eq!(fs::read(release.join("bin/main")).unwrap(), b"one");
    }
}

#[test]
fn installations_with_odd_listings_go() {
    for kind in KINDS {
        let outside = TestDir::new("package");
        let root = TestDir::new("package");
        let archive = archive("one");
        let release = unpacked(root.path(), &archive).unwrap();
        fs::write(outside.path().join("whole"), "x").unwrap();
        if !replace(&release.join(".complete"), kind, outside.path()) {
            continue;
        }
        let path = root.path().to_owned();
        in_time(kind, move || remove_installation(&path, false)).unwrap();
        assert!(!root.path().exists(), "{kind}");
        assert!(outside.path().join("whole").is_file(), "{kind}");
    }
}

#[test]
fn odd_things_in_staging_go() {
    for kind in KINDS {
        let outside = TestDir::new("package");
        fs::write(outside.path().join("whole"), "x").unwrap();
        let root = TestDir::new("package");
        let archive = archive("one");
        unpacked(root.path(), &archive).unwrap();
        let staging = root.path().join("staging");
        fs::create_dir_all(staging.join("odd/below")).unwrap();
        let mut made = true;
        for name in ["odd.lock", "lone.lock", "stray"] {
            let path = staging.join(name);
            fs::write(&path, "").unwrap();
            made &= replace(&path, kind, outside.path());
        }
        if !made {
            continue;
        }
        let path = root.path().to_owned();
        let found = in_time(kind, move || unpacked(&path, &archive));
        found.unwrap();
        let left = walk(&staging);
        assert!(left.is_empty(), "{kind}: {left:?}");
        assert!(outside.path().join("whole").is_file(), "{kind}");
    }
}

#[test]
fn a_lock_whose_name_leads_up_takes_nothing_with_it() {
    let root = TestDir::new("package");
    let archive = archive("one");
    unpacked(root.path(), &archive).unwrap();
    let data = data_dir(root.path()).unwrap().join("file");
    fs::write(&data, "kept").unwrap();
    let staging = root.path().join("staging");
    for name in ["..lock", "...lock", ".lock"] {
        fs::write(staging.join(name), "").unwrap();
    }
    let release = unpacked(root.path(), &archive).unwrap();
    assert!(release.join("bin/main").is_file());
    assert_eq!(fs::read(&data).unwrap(), b"kept");
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
}

type Operation = (&'static str, fn(&Path));

/// Everything that is done with an installation.
fn operations() -> Vec<Operation> {
    vec![
        ("find", |root| {
            let found = find_release(root, archive("one").sha256(), "./bin/main", NEVER);
            let _ = found.unwrap();
        }),
        ("unpack", |root| {
            let release = unpacked(root, &archive("one")).unwrap();
            assert_eq!(fs::read(release.join("bin/main")).unwrap(), b"one");
        }),
        ("unpack another", |root| {
            let release = unpacked(root, &archive("two")).unwrap();
            assert_eq!(fs::read(release.join("bin/main")).unwrap(), b"two");
        }),
        ("unpack afresh", |root| {
            let limits = PackageLimits::default();
            let archive = archive("one");
            let release = unpack_afresh(&archive, root, "./bin/main", &limits, NEVER).unwrap();
            assert_eq!(fs::read(release.join("bin/main")).unwrap(), b"one");
        }),
        ("update", |root| {
            let to = unpacked(root, &archive("two")).unwrap();
            let from = release_dir(root, archive("one").sha256());
            migrate_files(&from, &to, &MIGRATION_LIMITS, NEVER).unwrap();
            own_files(&from);
            keep_releases(root, &[archive("two").sha256()]).unwrap();
        }),
        ("keep", |root| {
            keep_releases(root, &[archive("one").sha256()]).unwrap();
        }),
        ("remove release", |root| {
            remove_release(root, archive("one").sha256()).unwrap();
        }),
        ("data", |root| {
            let data = data_dir(root).unwrap();
            assert!(fs::symlink_metadata(data).unwrap().is_dir());
        }),
        ("remove, keeping data", |root| {
            remove_installation(root, true).unwrap();
        }),
        ("remove", |root| {
            remove_installation(root, false).unwrap();
            assert!(fs::symlink_metadata(root).is_err());
        }),
    ]
}

#[test]
fn links_in_the_place_of_our_directories_are_never_followed() {
    let sha256 = archive("one").sha256().to_owned();
    let release = format!("releases/{sha256}");
    let places = [
        "staging", "releases", "data", "logs", "removed", &release, "own",
    ];
    for (operation, work) in operations() {
        for place in places {
            let what = format!("{operation} with a link at {place}");
            let root = TestDir::new("package");
            unpacked(root.path(), &archive("one")).unwrap();
            let outside = elsewhere(&sha256);
            let before = tree(outside.path());
            let link = root.path().join(place);
            let _ = fs::remove_dir_all(&link);
            symlink(outside.path(), &link).unwrap();
            let path = root.path().to_owned();
            in_time(&what, move || work(&path));
            assert_eq!(tree(outside.path()), before, "{what}");
        }
    }
}

#[test]
fn odd_things_in_the_place_of_our_directories_hold_nobody_up() {
    for (operation, work) in operations() {
        for place in ["staging", "releases", "data", "logs", "removed"] {
            for kind in ["pipe", "socket"] {
                let what = format!("{operation} with a {kind} at {place}");
                let root = TestDir::new("package");
                unpacked(root.path(), &archive("one")).unwrap();
                let path = root.path().join(place);
                let _ = fs::remove_dir_all(&path);
                fs::write(&path, "").unwrap();
                replace(&path, kind, root.path());
                let path = root.path().to_owned();
                in_time(&what, move || work(&path));
            }
        }
    }
}

/// Unpacks while the plugin changes something at each moment in turn. Returns the number of moments.
fn while_changing(change: &dyn Fn(&Path, &Path)) -> u32 {
    for moment in 1.. {
        let root = TestDir::new("package");
        let archive = archive("two");
        unpacked(root.path(), &self::archive("one")).unwrap();
        let outside = elsewhere(archive.sha256());
        let before = tree(outside.path());
        let changed = std::cell::Cell::new(false);
        let cancel = when_asked(moment, || {
            changed.set(true);
            change(root.path(), outside.path());
        });
        let limits = PackageLimits::default();
        let result = unpack_once(&archive, root.path(), "./bin/main", &limits, &cancel);
        let after = tree(outside.path());
        assert_eq!(after, before, "at moment {moment}: {result:?}");
        if !changed.get() {
            return moment;
        }
    }
    unreachable!()
}

#[test]
fn a_plugin_that_runs_leads_unpacking_nowhere_else() {
    let swap = |path: PathBuf, outside: &Path| {
        if fs::symlink_metadata(&path).is_ok() {
            fs::rename(&path, path.with_extension("moved")).unwrap();
            symlink(outside, path).unwrap();
        }
    };
    for name in ["staging", "releases"] {
        let moments = while_changing(&|root, outside| swap(root.join(name), outside));
        assert!(moments > 5, "{moments}");
    }
    for name in ["", "bin", "lib"] {
        while_changing(&|root, outside| {
            let staged = fs::read_dir(root.join("staging")).unwrap();
            let mut staged = staged.map(|entry| entry.unwrap().path());
            let staged = staged.find(|path| path.is_dir()).unwrap();
            let path = if name.is_empty() {
                staged
            } else {
                staged.join(name)
            };
            swap(path, outside);
        });
    }
}

#[test]
fn an_unpacked_file_is_nobody_elses_to_write() {
    let modes = [
        ("everybody", 0o777, 0o755),
        ("shared", 0o666, 0o644),
        ("group", 0o664, 0o644),
        ("setuid", 0o4777, 0o755),
        ("sticky", 0o1666, 0o644),
        ("private", 0o600, 0o600),
        ("odd", 0o022, 0o644),
    ];
    let items =
        modes.map(|(name, mode, _)| Item::stored(&format!("in/{name}"), b"x").unix(REGULAR | mode));
    let dir = Item::dir("in/").unix(0o040_777);
    let archive = Builder::plugin([dir].into_iter().chain(items)).archive();
    let root = TestDir::new("package");
    let release = unpacked(root.path(), &archive).unwrap();
    for (name, _, expected) in modes {
        assert_eq!(mode(release.join("in").join(name)), expected, "{name}");
    }
    for dir in ["in", ""] {
        assert_eq!(mode(release.join(dir)), 0o755, "{dir}");
    }
}

#[test]
fn a_release_from_before_loses_what_others_may_write_and_nothing_else_does() {
    let root = TestDir::new("package");
    let outside = TestDir::new("package");
    let archive = Builder::plugin([
        Item::stored("bin/main", b"x"),
        Item::stored("lib/deep/data", b"x"),
        Item::stored("gone/data", b"x"),
        Item::stored("link", b"x"),
    ])
    .archive();
    let release = unpacked(root.path(), &archive).unwrap();
    fs::write(outside.path().join("data"), "x").unwrap();
    fs::write(release.join("lib/own"), "x").unwrap();
    fs::create_dir(release.join("own")).unwrap();
    fs::remove_dir_all(release.join("gone")).unwrap();
    symlink(outside.path(), release.join("gone")).unwrap();
    fs::remove_file(release.join("link")).unwrap();
    symlink(outside.path().join("data"), release.join("link")).unwrap();
    for path in [
        "bin/main",
        "bin",
        "lib/deep/data",
        "lib/deep",
        "lib",
        "",
        "lib/own",
        "own",
    ] {
        set_mode(release.join(path), 0o777);
    }
    set_mode(release.join("lib/deep/data"), 0o666);
    set_mode(outside.path(), 0o777);
    set_mode(outside.path().join("data"), 0o666);
    let found = find_release(root.path(), archive.sha256(), "./bin/main", NEVER);
    assert_eq!(found.unwrap().as_deref(), Some(&*release));
    for (path, expected) in [
        ("bin/main", 0o755),
        ("bin", 0o755),
        ("lib/deep/data", 0o644),
        ("lib/deep", 0o755),
        ("lib", 0o755),
        ("", 0o755),
        // The plugin's own are its own business.
        ("lib/own", 0o777),
        ("own", 0o777),
    ] {
        assert_eq!(mode(release.join(path)), expected, "{path}");
    }
    assert_eq!(mode(outside.path()), 0o777);
    assert_eq!(mode(outside.path().join("data")), 0o666);
}

#[test]
fn copies_at_an_update_lose_what_others_may_write() {
    let root = TestDir::new("package");
    let old = unpacked(root.path(), &archive("one")).unwrap();
    let new = unpacked(root.path(), &archive("two")).unwrap();
    let modes = [
        ("a", 0o666, 0o644),
        ("b", 0o6777, 0o755),
        ("c", 0o620, 0o600),
    ];
    fs::create_dir(old.join("in")).unwrap();
    for (name, mode, _) in modes {
        fs::write(old.join("in").join(name), "x").unwrap();
        set_mode(old.join("in").join(name), mode);
    }
    set_mode(old.join("in"), 0o3777);
    migrate_files(&old, &new, &MIGRATION_LIMITS, NEVER).unwrap();
    for (name, _, expected) in modes {
        assert_eq!(mode(new.join("in").join(name)), expected, "{name}");
    }
    assert_eq!(mode(new.join("in")), 0o755);
}
