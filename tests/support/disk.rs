//! A small disk of a test's own: mounted in a namespace, which is not allowed everywhere, and filled.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::TestDir;
use super::alone::run_under;

/// Names the mounted disk, in the test's own process.
const MOUNTED: &str = "TEST_MOUNTED_DISK";

/// Runs ignored tests, each with an empty disk of so many MiB that only it sees. Where that cannot be had
/// it says so.
#[track_caller]
pub(crate) fn run_on_a_disk(mebibytes: usize, tests: &[&str]) {
    let folder = TestDir::new("mounted");
    let mounting = format!("mount -t tmpfs -o size={mebibytes}m none \"${MOUNTED}\"");
    let own_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["-Urm", "sh", "-c", script, "sh"])
            .env(MOUNTED, folder.path());
        command
    };
    match own_namespace(&mounting).output() {
        Ok(output) if output.status.success() => {}
        other => {
            eprintln!("NOT TESTED on a disk of its own: mounting is not allowed: {other:?}");
            return;
        }
    }
    for test in tests {
        run_under(
            &mut own_namespace(&format!("{mounting} && exec \"$@\"")),
            test,
        );
    }
}

/// The disk, if the test has one of its own.
pub(crate) fn mounted() -> Option<PathBuf> {
    std::env::var_os(MOUNTED).map(PathBuf::from)
}

/// Leaves room for so many bytes on a disk of a few MiB; gives what is to be removed again.
#[track_caller]
pub(crate) fn fill(disk: &Path, room: u64) -> PathBuf {
    let path = disk.join("ballast");
    let mut ballast = File::create(&path).unwrap();
    let error = ballast.write_all(&vec![0; 16 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let length = ballast.metadata().unwrap().len();
    ballast.set_len(length.saturating_sub(room)).unwrap();
    path
}

/// Calls `mount` or `umount`.
#[track_caller]
pub(crate) fn mount(program: &str, options: &[&str], folder: &Path) {
    let status = Command::new(program).args(options).arg(folder).status();
    assert!(status.unwrap().success(), "{program} {options:?}");
}

/// Makes a folder one that nothing can be made in or removed from; what is open stays writable. Until
/// `umount`.
#[track_caller]
pub(crate) fn make_read_only(folder: &Path) {
    mount("mount", &["--bind", folder.to_str().unwrap()], folder);
    mount("mount", &["-o", "remount,bind,ro"], folder);
}

/// Removes what [`fill`] has left.
#[track_caller]
pub(crate) fn empty(ballast: PathBuf) {
    fs::remove_file(ballast).unwrap();
}
