//! Temporary folders of runs that were killed: the next run removes them, and no others.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::program::{ANSWERING, Program, Scratch, manifest};
use crate::support::alone::Watched;
use crate::support::{names, wait_until};

/// A run with the plugin `hello`, which is active, and its temporary folder.
fn active(scratch: &Scratch) -> (Program, Watched, PathBuf) {
    let before = names(&scratch.temporary());
    let mut program = scratch.start("run hello --json");
    let (plugin, _) = program.active("hello");
    let mut made = names(&scratch.temporary());
    // Those of before may be gone by now.
    made.retain(|name| !before.contains(name));
    let [made] = &*made else {
        panic!("no folder, or several: {made:?}, after {before:?}");
    };
    (
        program,
        Watched::new(plugin),
        scratch.temporary().join(made),
    )
}

/// A run that is killed, with what it leaves.
fn killed(scratch: &Scratch) -> PathBuf {
    let (program, plugin, left) = active(scratch);
    program.signal(Signal::KILL);
    program.end();
    plugin.expect_end("the plugin of the killed run");
    assert!(left.is_dir(), "{} is gone already", left.display());
    left
}

fn expect_gone(path: &Path) {
    let what = format!("{} to be removed", path.display());
    wait_until(&what, || fs::symlink_metadata(path).is_err());
}

#[test]
fn what_a_killed_run_leaves_goes_at_the_next_run_and_what_runs_stays() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &manifest("hello"), ANSWERING);
    let stash = scratch.path("stash");
    let second = killed(&scratch);
    fs::rename(&second, &stash).unwrap();
    let first = killed(&scratch);
    // None of a run's.
    let other = scratch.temporary().join("plugin-runner-1-other");
    fs::create_dir(&other).unwrap();

    let (running, _plugin, used) = active(&scratch);
    expect_gone(&first);
    fs::rename(&stash, &second).unwrap();
    let (next, _plugin, own) = active(&scratch);
    expect_gone(&second);
    next.stop();
    assert!(!own.exists());
    assert!(used.is_dir(), "a folder in use is gone");
    running.stop();
    assert!(!used.exists());
    fs::remove_dir(&other).unwrap();
    scratch.assert_nothing_left();
}

#[test]
fn a_run_that_keeps_its_data_removes_what_others_left_also_in_the_cache() {
    let scratch = Scratch::new();
    scratch.plugin("hello", &manifest("hello"), ANSWERING);
    let left = killed(&scratch);
    let cache = scratch.path("cache");
    fs::create_dir(&cache).unwrap();
    let cached = cache.join(left.file_name().unwrap());
    fs::rename(&left, &cached).unwrap();
    let left = killed(&scratch);

    let mut command = scratch.command("run hello --json --data kept");
    command.env("XDG_CACHE_HOME", &cache);
    let mut program = Program::start(command);
    program.active("hello");
    expect_gone(&left);
    expect_gone(&cached);
    program.stop();
    assert!(scratch.path("kept").is_dir());
    scratch.assert_nothing_left();
}
