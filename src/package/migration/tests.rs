//! What comes over, as what, and what does not; and that nothing is touched outside of the new release.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::super::testing::{
    self, Builder, MIGRATION_LIMITS, NEVER, cancelled_at_each_moment, listing, make_pipe,
    make_socket, mode, own_files, set_mode, tree, unpacked, when_asked,
};
use super::*;
use crate::testing::{TestDir, assert_matches};

fn up_to(files: usize) -> MigrationLimits {
    MigrationLimits {
        files,
        ..MIGRATION_LIMITS
    }
}

/// Two releases of a plugin: an old one, to write into, and a new one.
struct Releases {
    root: TestDir,
    old: PathBuf,
    new: PathBuf,
}

impl Releases {
    fn new(old: &[&str], new: &[&str]) -> Self {
        let root = TestDir::new("package");
        let release = |version: &str, names: &[&str]| {
            let items = names.iter().map(|name| match name.strip_suffix('/') {
                Some(_) => testing::Item::dir(name),
                None => testing::Item::stored(name, version.as_bytes()),
            });
            let version = testing::Item::stored("version", version.as_bytes());
            let archive = Builder::plugin(items.chain([version])).archive();
            unpacked(root.path(), &archive).unwrap()
        };
        let (old, new) = (release("old", old), release("new", new));
        Self { root, old, new }
    }

    /// Writes a file of the plugin's own into the old release.
    fn write(&self, path: impl AsRef<Path>, content: &[u8]) {
        let path = self.old.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn try_migrate(&self, limits: &MigrationLimits) -> Result<MigratedFiles, PackageError> {
        let before = tree(&self.old);
        let result = migrate_files(&self.old, &self.new, limits, NEVER);
        assert_eq!(tree(&self.old), before, "the old release was changed");
        assert!(listing(&self.new).is_some());
        result
    }

    fn migrate_files(&self) -> MigratedFiles {
        self.try_migrate(&MIGRATION_LIMITS).unwrap()
    }

    fn own(&self) -> (usize, u64) {
        own_files(&self.old)
    }
}

fn left(report: &MigratedFiles) -> Vec<(&Path, LeftReason)> {
    let mut left: Vec<_> = report
        .left
        .iter()
        .map(|left| (&*left.path, left.reason))
        .collect();
    left.sort_by_key(|(path, _)| *path);
    assert_eq!(left.len(), report.left_count);
    left
}

#[test]
fn what_the_plugin_wrote_comes_over_and_what_its_package_brought_does_not() {
    let releases = Releases::new(&["lib/old", "lib/both"], &["lib/both", "lib/new"]);
    assert_eq!(releases.own(), (0, 0));
    releases.write("state.db", b"state");
    releases.write("empty", b"");
    releases.write("lib/cache/a/b", b"cached");
    releases.write("lib/old", b"changed");
    releases.write("lib/.complete", b"not the marker");
    fs::create_dir(releases.old.join("waiting")).unwrap();
    // Three directories and four files.
    assert_eq!(releases.own(), (7, 5 + 6 + 14));

    let report = releases.migrate_files();
    assert_eq!((report.files, report.bytes), (4, 5 + 6 + 14));
    assert_eq!(left(&report), []);
    let read = |path: &str| fs::read(releases.new.join(path)).unwrap();
    assert_eq!(read("state.db"), b"state");
    assert_eq!(read("empty"), b"");
    assert_eq!(read("lib/cache/a/b"), b"cached");
    assert_eq!(read("lib/.complete"), b"not the marker");
    assert_eq!(read("lib/both"), b"new");
    assert_eq!(read("version"), b"new");
    assert!(!releases.new.join("lib/old").exists());
    assert!(releases.new.join("waiting").is_dir());
    // They are the plugin's own there too.
    assert_eq!(own_files(&releases.new), own_files(&releases.old));
}

#[test]
fn modes_and_times_come_along_without_what_is_dangerous() {
    let releases = Releases::new(&[], &[]);
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_000);
    for (path, file_mode) in [("a", 0o4755), ("b", 0o2640), ("c", 0o400), ("d/e", 0o600)] {
        releases.write(path, path.as_bytes());
        let path = releases.old.join(path);
        File::open(&path).unwrap().set_modified(time).unwrap();
        set_mode(&path, file_mode);
    }
    set_mode(releases.old.join("d"), 0o1777);
    releases.migrate_files();
    for (path, expected) in [("a", 0o755), ("b", 0o640), ("c", 0o400), ("d/e", 0o600)] {
        let path = releases.new.join(path);
        assert_eq!(mode(&path), expected, "{}", path.display());
        assert_eq!(path.metadata().unwrap().modified().unwrap(), time);
    }
    assert_eq!(mode(releases.new.join("d")), 0o755);
}

#[test]
fn folders_that_nobody_may_write_to_come_with_what_is_in_them() {
    let releases = Releases::new(&[], &[]);
    releases.write("a/b/c", b"x");
    releases.write("a/x", b"x");
    let locked = ["a/b/c", "a/b", "a"];
    for path in locked {
        set_mode(releases.old.join(path), 0o555);
    }
    let report = releases.migrate_files();
    assert_eq!(report.files, 2);
    for path in locked {
        assert_eq!(mode(releases.new.join(path)), 0o555);
    }
    // For whoever removes the test's directory.
    for release in [&releases.old, &releases.new] {
        for path in ["a", "a/b"] {
            set_mode(release.join(path), 0o755);
        }
    }
}

#[test]
fn links_are_copied_and_never_followed() {
    let outside = TestDir::new("package");
    fs::create_dir(outside.path().join("in")).unwrap();
    fs::write(outside.path().join("in/secret"), "secret").unwrap();
    let before = tree(outside.path());
    // One of them is where the new package has a directory, and one where it has a file.
    let releases = Releases::new(&[], &["folder/file", "in"]);
    let links = ["data", "folder", "in", "sub/dangling", "sub/up"];
    fs::create_dir(releases.old.join("sub")).unwrap();
    for link in links {
        symlink(outside.path(), releases.old.join(link)).unwrap();
    }
    fs::remove_file(releases.old.join("sub/dangling")).unwrap();
    symlink("../../nowhere", releases.old.join("sub/dangling")).unwrap();

    assert_eq!(releases.own(), (6, 0));
    let report = releases.migrate_files();
    assert_eq!((report.files, report.bytes), (3, 0));
    assert_eq!(
        left(&report),
        [
            (Path::new("folder"), LeftReason::InPackage),
            (Path::new("in"), LeftReason::InPackage),
        ]
    );
    let target = |link: &str| fs::read_link(releases.new.join(link)).unwrap();
    assert_eq!(target("data"), outside.path());
    assert_eq!(target("sub/dangling"), Path::new("../../nowhere"));
    assert_eq!(tree(outside.path()), before);
}

#[test]
fn a_link_in_the_new_release_is_not_gone_through() {
    let outside = TestDir::new("package");
    let releases = Releases::new(&[], &[]);
    releases.write("a/file", b"x");
    symlink(outside.path(), releases.new.join("a")).unwrap();
    symlink(outside.path().join("b"), releases.new.join("b")).unwrap();
    releases.write("b", b"x");
    let report = releases.migrate_files();
    assert_eq!(report.files, 0);
    assert_eq!(
        left(&report),
        ["a", "a/file", "b"].map(|path| (Path::new(path), LeftReason::InPackage))
    );
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn what_the_new_package_brings_is_kept_and_reported() {
    let releases = Releases::new(
        &["was/package"],
        &["file", "folder/file", "file-now", "was"],
    );
    releases.write("file", b"mine");
    releases.write("folder", b"mine");
    releases.write("file-now/a/b", b"mine");
    releases.write("was/own", b"mine");
    let report = releases.migrate_files();
    assert_eq!((report.files, report.bytes), (0, 0));
    assert_eq!(
        left(&report),
        [
            "file",
            "file-now",
            "file-now/a",
            "file-now/a/b",
            "folder",
            "was/own"
        ]
        .map(|path| (Path::new(path), LeftReason::InPackage))
    );
    assert_eq!(fs::read(releases.new.join("file")).unwrap(), b"new");
    assert_eq!(fs::read(releases.new.join("file-now")).unwrap(), b"new");
    assert_eq!(fs::read(releases.new.join("was")).unwrap(), b"new");
    assert_eq!(fs::read(releases.new.join("folder/file")).unwrap(), b"new");
}

#[test]
fn a_file_of_the_package_that_became_something_else_is_not_the_plugins() {
    let releases = Releases::new(&["a", "b"], &[]);
    for name in ["a", "b"] {
        fs::remove_file(releases.old.join(name)).unwrap();
    }
    symlink("/etc", releases.old.join("a")).unwrap();
    // But what is in a directory was not in the package.
    releases.write("b/file", b"mine");
    let report = releases.migrate_files();
    assert_eq!(report.files, 1);
    assert!(releases.new.join("a").symlink_metadata().is_err());
    assert_eq!(fs::read(releases.new.join("b/file")).unwrap(), b"mine");
}

#[test]
fn what_is_no_file_is_left_and_reported() {
    let releases = Releases::new(&[], &[]);
    make_socket(&releases.old.join("socket"));
    make_pipe(&releases.old.join("pipe"));
    releases.write("file", b"x");
    let report = releases.migrate_files();
    assert_eq!(report.files, 1);
    assert_eq!(
        left(&report),
        ["pipe", "socket"].map(|path| (Path::new(path), LeftReason::Special))
    );
}

#[test]
fn what_cannot_be_read_is_left_and_reported() {
    let releases = Releases::new(&[], &[]);
    releases.write("file", b"x");
    releases.write("folder/file", b"x");
    let closed = ["file", "folder"];
    for path in closed {
        set_mode(releases.old.join(path), 0o300);
    }
    let limits = MIGRATION_LIMITS;
    let report = migrate_files(&releases.old, &releases.new, &limits, NEVER).unwrap();
    // Root reads everything.
    if !rustix::process::geteuid().is_root() {
        assert_eq!(report.files, 0);
        assert_eq!(
            left(&report),
            closed.map(|path| (Path::new(path), LeftReason::Unreadable))
        );
    }
    assert_eq!(mode(releases.new.join("folder")), 0o300);
    // For whoever removes the test's directory.
    for release in [&releases.old, &releases.new] {
        set_mode(release.join("folder"), 0o700);
    }
}

#[test]
fn folders_that_go_while_they_are_counted_are_not_counted() {
    let releases = Releases::new(&[], &[]);
    releases.write("a/file", b"x");
    releases.write("b", b"x");
    let release = find_release_dir(&releases.old).unwrap().unwrap();
    let gone = || fs::remove_dir_all(releases.old.join("a")).unwrap();
    let (limits, mut report) = (MIGRATION_LIMITS, MigratedFiles::default());
    let mut found = Vec::new();
    let mut add = |item: UntrackedFile| found.push(item.path);
    list_untracked(
        &release,
        &limits,
        &mut report,
        &mut add,
        &when_asked(2, gone),
    )
    .unwrap();
    found.sort();
    assert_eq!(found, [Path::new("a"), Path::new("b")]);
}

#[test]
fn names_that_are_no_text_and_deep_folders_come_over() {
    let releases = Releases::new(&[], &[]);
    let name = OsString::from_vec(b"caf\xe9\n \xff".to_vec());
    let deep: PathBuf = std::iter::repeat_n("deep", 200).collect();
    for path in [PathBuf::from(&name), deep.join(&name)] {
        releases.write(&path, name.as_bytes());
    }
    let report = releases.migrate_files();
    assert_eq!(report.files, 2);
    for path in [
        PathBuf::from(&name),
        deep.join(OsStr::from_bytes(b"caf\xe9\n \xff")),
    ] {
        assert_eq!(fs::read(releases.new.join(path)).unwrap(), name.as_bytes());
    }
}

#[test]
fn folders_that_are_too_deep_are_left_and_reported() {
    let releases = Releases::new(&[], &[]);
    let deepest: PathBuf = std::iter::repeat_n("x", 256).collect();
    releases.write(deepest.join("file"), b"x");
    releases.write(deepest.join("x/too deep"), b"x");
    let report = releases.migrate_files();
    assert_eq!(report.files, 1);
    assert!(releases.new.join(&deepest).join("file").exists());
    assert_eq!(left(&report), [(&*deepest.join("x"), LeftReason::TooDeep)]);
}

#[test]
fn over_a_limit_nothing_is_copied() {
    let releases = Releases::new(&["lib/x"], &[]);
    releases.write("lib/own/a", &[1; 600]);
    releases.write("b", &[1; 401]);
    let before = tree(&releases.new);
    for (files, bytes) in [(2, 2_000), (10, 1_000)] {
        let limits = MigrationLimits { bytes, files };
        let error = releases.try_migrate(&limits).unwrap_err();
        assert!(!error.is_permanent());
        let message = error.to_string();
        for words in [
            releases.old.to_str().unwrap(),
            "3 with",
            &format!("{files} files"),
            &format!("{bytes} bytes"),
        ] {
            assert!(message.contains(words), "no {words} in {message}");
        }
        assert_eq!(tree(&releases.new), before);
    }
    let limits = MigrationLimits {
        files: 3,
        bytes: 1_001,
    };
    assert_eq!(releases.try_migrate(&limits).unwrap().bytes, 1_001);
}

#[test]
fn what_is_left_is_named_up_to_a_hundred() {
    let names: Vec<_> = (0..150).map(|number| format!("file{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let releases = Releases::new(&[], &names);
    for name in names {
        releases.write(name, b"mine");
    }
    let report = releases.migrate_files();
    assert_eq!((report.left.len(), report.left_count), (100, 150));
}

#[test]
fn a_file_that_grows_or_goes_meanwhile_is_an_error() {
    for change in [&b"longer"[..], b"x"] {
        let releases = Releases::new(&[], &[]);
        releases.write("file", b"four");
        let file = releases.old.join("file");
        // Once for the directory.
        let cancel = when_asked(2, || fs::write(&file, change).unwrap());
        let limits = MIGRATION_LIMITS;
        let error = migrate_files(&releases.old, &releases.new, &limits, &cancel).unwrap_err();
        assert_matches!(error, PackageError::Io { .. });
        assert!(error.to_string().contains("/file: it changed"), "{error}");
    }
}

#[test]
fn a_folder_that_becomes_a_link_meanwhile_is_not_gone_through() {
    let outside = TestDir::new("package");
    fs::write(outside.path().join("file"), "five5").unwrap();
    let releases = Releases::new(&[], &[]);
    releases.write("a/file", b"five5");
    // The release, the directory, and then the first to copy.
    let cancel = when_asked(3, || {
        fs::remove_dir_all(releases.old.join("a")).unwrap();
        symlink(outside.path(), releases.old.join("a")).unwrap();
    });
    let limits = MIGRATION_LIMITS;
    let error = migrate_files(&releases.old, &releases.new, &limits, &cancel).unwrap_err();
    assert!(error.to_string().contains("open directory"), "{error}");
    assert!(!releases.new.join("a/file").exists());
}

#[test]
fn cancelling_is_possible_at_any_moment() {
    let releases = Releases::new(&["lib/x"], &["lib/x"]);
    releases.write("lib/own", &vec![1; 3 * POLL_BYTES]);
    releases.write("own/file", b"x");
    let limits = MIGRATION_LIMITS;
    let (moments, report) = cancelled_at_each_moment(|cancel| {
        // As who discards the new release does.
        let _ = fs::remove_file(releases.new.join("lib/own"));
        let _ = fs::remove_dir_all(releases.new.join("own"));
        migrate_files(&releases.old, &releases.new, &limits, cancel)
    });
    assert_eq!(report.files, 2);
    // Three directories, the four things in them, four chunks, and two or three directories to finish.
    assert!(moments >= 3 + 4 + 4 + 2, "{moments}");
}

#[test]
fn without_a_release_there_is_nothing_and_without_a_listing_everything() {
    let releases = Releases::new(&["lib/x"], &["lib/x"]);
    let missing = releases.old.join("missing");
    let limits = MIGRATION_LIMITS;
    let report = migrate_files(&missing, &releases.new, &limits, NEVER).unwrap();
    assert_eq!(report, MigratedFiles::default());
    assert_eq!(own_files(&missing), (0, 0));
    let error = migrate_files(&releases.old, &missing, &limits, NEVER).unwrap_err();
    assert!(error.to_string().contains("/missing"), "{error}");

    fs::remove_file(releases.old.join(".complete")).unwrap();
    releases.write("own", b"mine");
    let report = releases.migrate_files();
    assert_eq!(report.files, 1);
    assert_eq!(
        left(&report),
        ["lib/x", "manifest.json", "version"].map(|path| (Path::new(path), LeftReason::InPackage))
    );
}

/// A release in which a plugin has made so many links so many directories down, whose names are long.
fn deep(links: usize, dirs: usize) -> Releases {
    let releases = Releases::new(&["lib/x"], &[]);
    let name = "n".repeat(250);
    let mut here = File::open(&releases.old).unwrap();
    for _ in 0..dirs {
        rustix::fs::mkdirat(&here, &*name, Mode::RWXU).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        here = rustix::fs::openat(&here, &*name, flags, Mode::empty())
            .unwrap()
            .into();
    }
    for number in 0..links {
        rustix::fs::symlinkat(c"x", &here, format!("{number}")).unwrap();
    }
    releases
}

#[test]
fn what_is_deep_down_is_not_collected_beyond_a_bound() {
    // Each has a path of 50 KB: all of them would take 200 MB.
    let releases = deep(4_000, 200);
    assert_eq!(releases.own(), (200 + 4_000, 0));
    for limits in [MIGRATION_LIMITS, up_to(20_000)] {
        let limit = limits.files * 1_024;
        let mut kept = 0;
        let release = find_release_dir(&releases.old).unwrap().unwrap();
        let mut report = MigratedFiles::default();
        let mut add = |item: UntrackedFile| kept += item.path.capacity();
        let found = list_untracked(&release, &limits, &mut report, &mut add, NEVER);
        assert!(kept < 2 * limit, "{kept}");
        for result in [
            found,
            check_untracked_files(&releases.old, &limits, NEVER),
            migrate_files(&releases.old, &releases.new, &limits, NEVER).map(drop),
        ] {
            let error = result.unwrap_err();
            assert_matches!(error, PackageError::MigrationPathsTooLarge { .. });
            assert!(!error.is_permanent());
            let message = error.to_string();
            assert!(
                message.contains(releases.old.to_str().unwrap()),
                "{message}"
            );
            assert!(message.contains(&limit.to_string()), "{message}");
        }
    }
    super::super::removal::remove(rustix::fs::CWD, releases.root.path()).unwrap();
}

#[test]
fn counting_ends_with_the_first_over_a_limit_whatever_it_is() {
    let releases = Releases::new(&["lib/x"], &[]);
    for number in 0..100 {
        let pipe = releases.old.join(format!("pipe{number}"));
        rustix::fs::mkfifoat(rustix::fs::CWD, pipe, Mode::RWXU).unwrap();
    }
    let limits = up_to(10);
    let error = check_untracked_files(&releases.old, &limits, NEVER).unwrap_err();
    assert!(error.to_string().contains("at least 11 with"), "{error}");
    let limits = up_to(100);
    let report = migrate_files(&releases.old, &releases.new, &limits, NEVER).unwrap();
    assert_eq!((report.files, report.left_count), (0, 100));
}
