//! Whether the kernel killed a process for lack of memory. The kernel does not report that; it counts its
//! kills, per control group and for the whole system. What lives here: finding the nearest counter for a
//! process, and comparing its values at the spawn and at the end. A read may wait for locks in the kernel,
//! so these files are not read on the reaper's thread.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::process::Pid;

/// Longer than any of these files, in bytes.
const READ_LIMIT: u64 = 256 * 1024;

/// Kills already attributed to an exit, by counter file; each explains one exit only. Shared by all hosts
/// of the process, as the counters are.
static EXPLAINED: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// The kernel's count of kills since the spawn of a process. It is exact for a process in a control group
/// of its own; in a shared group a kill of any member counts. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutOfMemoryWatch {
    /// The file with the counter, and its value just after the spawn. Empty before [`begin`](Self::begin),
    /// and if the kernel has no counter.
    counter: Arc<OnceLock<(PathBuf, u64)>>,
}

impl OutOfMemoryWatch {
    /// Finds and reads the counter for a process that has just been spawned.
    pub(crate) fn begin(&self, pid: Pid) {
        self.begin_below(Path::new("/proc"), Path::new("/sys/fs/cgroup"), pid);
    }

    /// [`begin`](Self::begin) with other directories than `/proc` and `/sys/fs/cgroup`, for tests.
    fn begin_below(&self, proc: &Path, groups: &Path, pid: Pid) {
        let membership = proc.join(pid.as_raw_pid().to_string()).join("cgroup");
        let membership = text(&membership).unwrap_or_default();
        let mut files = candidates(&membership, groups);
        files.push(proc.join("vmstat"));
        let counter = files
            .into_iter()
            .find_map(|file| read(&file).map(|count| (file, count)));
        if let Some(counter) = counter {
            let _ = self.counter.set(counter);
        }
    }

    /// Whether the kernel has counted a kill since the spawn that is not attributed to another exit. If so,
    /// attributes it to this one.
    pub(crate) fn take_kill(&self) -> bool {
        let Some((file, at_spawn)) = self.counter.get() else {
            return false;
        };
        let Some(now) = read(file) else {
            return false;
        };
        let mut explained = EXPLAINED.lock();
        let before = explained
            .get(file)
            .copied()
            .unwrap_or_default()
            .max(*at_spawn);
        let killed = now > before;
        if killed {
            explained.insert(file.clone(), before + 1);
        }
        killed
    }
}

/// Returns the files that may hold the counter, best first. `membership` is the text of
/// `/proc/<pid>/cgroup`, whose lines are `number:controllers:path`; version 2 has the number 0 and no
/// controllers.
fn candidates(membership: &str, groups: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut add = |root: PathBuf, path: &str, file: &str| {
        let path = path.trim_start_matches('/');
        // A path with `..` lies outside of the groups that this process can see.
        if !path.split('/').any(|part| part == "..") {
            files.push(root.join(path).join(file));
        }
        // In a container only its own group may be visible, at the root.
        files.push(root.join(file));
    };
    let lines = || {
        membership.lines().filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            Some((number, controllers, path))
        })
    };
    // One version only counts a process's memory: version 1, if it has the memory controller.
    for (_, controllers, path) in lines() {
        if controllers.split(',').any(|name| name == "memory") {
            add(groups.join("memory"), path, "memory.oom_control");
        }
    }
    for (number, controllers, path) in lines() {
        if number == "0" && controllers.is_empty() {
            add(groups.to_owned(), path, "memory.events");
        }
    }
    files
}

fn read(file: &Path) -> Option<u64> {
    kills(&text(file)?)
}

/// Reads a file of the kernel, up to [`READ_LIMIT`].
fn text(file: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(file).ok()?;
    file.take(READ_LIMIT).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Returns the counter, which is on a line `oom_kill NUMBER` in all of these files.
fn kills(text: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find_map(|(key, value)| (key == "oom_kill").then(|| value.trim().parse().ok())?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::TestDir;

    const VERSION_1: &str = "9:name=systemd:/\n4:cpu,memory:/pod/1\n3:cpuset:/\n0::/\n";
    const VERSION_2: &str = "0::/system.slice/server.service\n";

    #[test]
    fn the_counter_is_found_in_all_three_texts() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(kills(events), Some(2));
        assert_eq!(
            kills("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
            Some(7)
        );
        assert_eq!(
            kills("nr_free_pages 3\noom_kill 11\ndrop_pagecache 0\n"),
            Some(11)
        );
        // Kernels before 4.13, and what is no counter at all.
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\n"), None);
        assert_eq!(kills("oom_kill many\n"), None);
        assert_eq!(kills(""), None);
    }

    #[test]
    fn the_groups_of_a_process_are_read_in_both_versions() {
        let files = |text: &str| -> Vec<String> {
            let files = candidates(text, Path::new("/g"));
            files
                .iter()
                .map(|file| file.to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(
            files(VERSION_1),
            [
                "/g/memory/pod/1/memory.oom_control",
                "/g/memory/memory.oom_control",
                "/g/memory.events",
                "/g/memory.events",
            ]
        );
        assert_eq!(
            files(VERSION_2),
            [
                "/g/system.slice/server.service/memory.events",
                "/g/memory.events"
            ]
        );
        assert_eq!(files("0::/../../elsewhere\n"), ["/g/memory.events"]);
        assert_eq!(files("nonsense\n\n:\n"), [""; 0]);
    }

    /// A made-up system: its directory, and a process in it.
    fn system(membership: &str) -> (TestDir, Pid) {
        let dir = TestDir::new("memory");
        let pid = rustix::process::getpid();
        let own = dir.path().join("proc").join(pid.as_raw_pid().to_string());
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("cgroup"), membership).unwrap();
        fs::write(dir.path().join("proc/vmstat"), "oom_kill 5\n").unwrap();
        (dir, pid)
    }

    fn watch(dir: &TestDir, pid: Pid) -> OutOfMemoryWatch {
        let watch = OutOfMemoryWatch::default();
        watch.begin_below(&dir.path().join("proc"), &dir.path().join("groups"), pid);
        watch
    }

    #[test]
    fn a_kill_since_the_spawn_explains_one_end() {
        let (dir, pid) = system(VERSION_2);
        let group = dir.path().join("groups/system.slice/server.service");
        fs::create_dir_all(&group).unwrap();
        let count = |count: u64| {
            fs::write(group.join("memory.events"), format!("oom_kill {count}\n")).unwrap();
        };
        count(4);
        let (first, second) = (watch(&dir, pid), watch(&dir, pid));
        assert!(!first.take_kill(), "before any kill");
        count(5);
        assert!(first.take_kill());
        assert!(!second.take_kill(), "it was the other's");
        count(7);
        assert!(second.take_kill());
        let third = watch(&dir, pid);
        assert!(!third.take_kill(), "it was before its time");
        count(8);
        assert!(third.take_kill());
    }

    #[test]
    fn without_a_group_the_whole_systems_counter_counts() {
        let (dir, pid) = system(VERSION_1);
        let whole = watch(&dir, pid);
        assert!(!whole.take_kill());
        fs::write(dir.path().join("proc/vmstat"), "oom_kill 6\n").unwrap();
        assert!(whole.take_kill());
        fs::remove_file(dir.path().join("proc/vmstat")).unwrap();
        assert!(!whole.take_kill());
        assert!(!watch(&dir, pid).take_kill(), "there is no counter");
    }

    #[test]
    fn this_system_has_a_counter() {
        let watch = OutOfMemoryWatch::default();
        watch.begin(rustix::process::getpid());
        assert!(watch.counter.get().is_some());
    }
}
