//! Whether the kernel killed for want of memory. It tells nobody directly: it counts its kills, per
//! control group and for the whole system. What lives here: finding the nearest such counter of a
//! process, and comparing it at the spawn and at the end. Reading the files may wait for locks of the
//! kernel's, so no thread reads them that others depend on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::process::Pid;

/// None of these files is longer.
const READ_LIMIT: u64 = 256 * 1024;

/// Kills that a process's end has been put down to already, per counter: one kill explains one end.
/// For the whole program, since the counters are.
static EXPLAINED: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// The kernel's count of kills, from the spawn of a process on. Where the process is in a control
/// group of its own it is exact; in a group with others, a kill of any of these counts.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutOfMemoryWatch {
    /// The file with the counter, and what it was just after the spawn. Empty until it was looked for, and
    /// where the kernel has none.
    counter: Arc<OnceLock<(PathBuf, u64)>>,
}

impl OutOfMemoryWatch {
    /// Looks for the counter of a process that has just been spawned.
    pub(crate) fn begin(&self, pid: Pid) {
        self.begin_below(Path::new("/proc"), Path::new("/sys/fs/cgroup"), pid);
    }

    /// With `/proc` and `/sys/fs/cgroup` elsewhere.
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

    /// Whether the kernel has killed since the spawn and no other end was put down to it; if so, that
    /// kill is used up.
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

/// The files that may hold the counter, best first, for what `/proc/<pid>/cgroup` says. Its lines are
/// `number:controllers:path`; version 2 has the number 0 and names no controllers.
fn candidates(membership: &str, groups: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut add = |root: PathBuf, path: &str, file: &str| {
        let path = path.trim_start_matches('/');
        // Outside of what this process sees of the groups.
        if !path.split('/').any(|part| part == "..") {
            files.push(root.join(path).join(file));
        }
        // In a container, its own group may be all that is to be seen, at the root.
        files.push(root.join(file));
    };
    let lines = || {
        membership.lines().filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            Some((number, controllers, path))
        })
    };
    // The memory of a process is counted by one version only: by the first, if that has it.
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

/// What a file of the kernel's says, as far as it is read.
fn text(file: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(file).ok()?;
    file.take(READ_LIMIT).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The counter, which all of these files have on a line of the same form.
fn kills(text: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find_map(|(key, value)| (key == "oom_kill").then(|| value.trim().parse().ok())?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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

    /// A made-up system: its folder, and a process in it.
    fn system(name: &str, membership: &str) -> (PathBuf, Pid) {
        let folder = std::env::temp_dir().join(format!(
            "plugin-runner-memory-{name}-{}",
            std::process::id()
        ));
        let pid = rustix::process::getpid();
        let own = folder.join("proc").join(pid.as_raw_pid().to_string());
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("cgroup"), membership).unwrap();
        fs::write(folder.join("proc/vmstat"), "oom_kill 5\n").unwrap();
        (folder, pid)
    }

    fn watch(folder: &Path, pid: Pid) -> OutOfMemoryWatch {
        let watch = OutOfMemoryWatch::default();
        watch.begin_below(&folder.join("proc"), &folder.join("groups"), pid);
        watch
    }

    #[test]
    fn a_kill_since_the_spawn_explains_one_end() {
        let (folder, pid) = system("two", VERSION_2);
        let group = folder.join("groups/system.slice/server.service");
        fs::create_dir_all(&group).unwrap();
        let count = |count: u64| {
            fs::write(group.join("memory.events"), format!("oom_kill {count}\n")).unwrap();
        };
        count(4);
        let (first, second) = (watch(&folder, pid), watch(&folder, pid));
        assert!(!first.take_kill(), "before any kill");
        count(5);
        assert!(first.take_kill());
        assert!(!second.take_kill(), "it was the other's");
        count(7);
        assert!(second.take_kill());
        let third = watch(&folder, pid);
        assert!(!third.take_kill(), "it was before its time");
        count(8);
        assert!(third.take_kill());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn without_a_group_the_whole_systems_counter_counts() {
        let (folder, pid) = system("none", VERSION_1);
        let whole = watch(&folder, pid);
        assert!(!whole.take_kill());
        fs::write(folder.join("proc/vmstat"), "oom_kill 6\n").unwrap();
        assert!(whole.take_kill());
        fs::remove_file(folder.join("proc/vmstat")).unwrap();
        assert!(!whole.take_kill());
        assert!(!watch(&folder, pid).take_kill(), "there is no counter");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn this_system_has_a_counter() {
        let watch = OutOfMemoryWatch::default();
        watch.begin(rustix::process::getpid());
        assert!(watch.counter.get().is_some());
    }
}
