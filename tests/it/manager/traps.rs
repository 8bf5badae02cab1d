//! A plugin that puts named pipes, links and other things in the place of what the host keeps about it,
//! beside another one that is innocent: whatever is asked of the manager then comes to an end, nothing
//! outside is touched, and the innocent one answers all the time.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::Instant;

use plugin_runner::plugin_log::Followed;
use plugin_runner::store::SqliteStore;

use super::*;
use crate::support::TestDir;

/// What the plugin does, in its release: `$out` is a directory elsewhere, `$sha` its archive's SHA-256.
const TRAPS: [(&str, &str); 18] = [
    ("a pipe as its listing", "rm .complete; mkfifo .complete"),
    (
        "a link as its listing",
        "mv .complete $out/complete; ln -s $out/complete .complete",
    ),
    (
        "a link to a pipe as its listing",
        "rm .complete; mkfifo pipe; ln -s pipe .complete",
    ),
    (
        "a directory as its listing",
        "rm .complete; mkdir -p .complete/x",
    ),
    (
        "a huge listing",
        "rm .complete; truncate -s 1T .complete 2>/dev/null || :",
    ),
    (
        "pipes as locks",
        "mkdir -p ../../staging/a; mkfifo ../../staging/a.lock ../../staging/b.lock ../../staging/c",
    ),
    (
        "a link as the staging directory",
        "rm -rf ../../staging; ln -s $out ../../staging",
    ),
    (
        "a pipe as the staging directory",
        "rm -rf ../../staging; mkfifo ../../staging",
    ),
    (
        "a link as the directory of releases",
        "mv ../../releases ../../elsewhere; ln -s $out ../../elsewhere/../releases",
    ),
    (
        "a link as its release",
        "mv ../$sha ../moved; ln -s $out ../$sha",
    ),
    (
        "a link as its data",
        "rm -rf ../../data; ln -s $out ../../data",
    ),
    (
        "a link as the directory of its log",
        "rm -rf ../../logs; ln -s $out ../../logs; echo said >&2",
    ),
    (
        "a pipe as the directory of its log",
        "rm -rf ../../logs; mkfifo ../../logs; echo said >&2",
    ),
    (
        "links and pipes as its old logs",
        "cd ../../logs; ln -s $out/output.log output-2026-02-21T11-50-22.965.log; \
         mkfifo output-2026-02-21T11-50-22.966.log",
    ),
    (
        "a link where releases are removed",
        "ln -s $out ../../removed",
    ),
    (
        "a pipe as its archive",
        "rm -f ../../../archives/$sha.zip; mkfifo ../../../archives/$sha.zip",
    ),
    (
        "links where packages come in and operations are written down",
        "cd ../../..; rm -rf incoming operations; ln -s $out incoming; ln -s $out operations",
    ),
    (
        "a directory as what is written down",
        "cd ../../..; mkdir -p operations/$id.remove.all/x operations/$id.update.$sha.none",
    ),
];

struct Trap<'a> {
    managed: &'a Managed,
    what: &'a str,
    script: &'a str,
    plugin: InstallationId,
    innocent: InstallationId,
    outside: &'a Path,
}

impl Trap<'_> {
    fn set(&self) {
        let Self { managed, .. } = self;
        let record = managed.store.get(self.plugin).unwrap().unwrap();
        let script = format!(
            "out={}; sha={}; id={}; {}",
            self.outside.display(),
            record.stored_archive().unwrap(),
            self.plugin,
            self.script
        );
        let session = managed.session(self.plugin);
        call(&session, "shell", &json!({ "script": script })).unwrap();
    }

    /// Does this, which must come to its end, while the other plugin is called.
    #[track_caller]
    fn meanwhile<T: Send + 'static>(
        &self,
        step: &str,
        work: impl FnOnce(&Manager, InstallationId) -> T + Send + 'static,
    ) -> T {
        let (manager, plugin) = (self.managed.manager.clone(), self.plugin);
        let session = self.managed.session(self.innocent);
        let began = Instant::now();
        let working = thread::spawn(move || work(&manager, plugin));
        loop {
            call(&session, "echo", &json!({})).unwrap();
            if working.is_finished() {
                return working.join().unwrap();
            }
            assert!(
                began.elapsed() < LONG,
                "{}: {step} did not come to its end",
                self.what
            );
        }
    }
}

/// What is below a directory, with what a change of it would show in.
fn seen(folder: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, i64)> {
    let mut seen = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        let stamp = (found.mode(), found.len(), found.ctime(), found.ctime_nsec());
        seen.insert(path, stamp);
    }
    seen
}

#[test]
fn traps_delay_nothing_and_lead_nowhere() {
    for (what, script) in TRAPS {
        let folder = TestDir::new("outside");
        let outside = &folder.path().join("x");
        for kept in ["leftover/in", "staging/in", "y"] {
            fs::create_dir_all(outside.join(kept)).unwrap();
        }
        for kept in [
            "leftover/in/file",
            "leftover.lock",
            "a.part",
            "file",
            "complete",
            "output.log",
            "output-2026-02-21T11-50-22.965.log",
        ] {
            fs::write(outside.join(kept), "kept").unwrap();
        }
        let data = TestDir::new("traps-data");
        let path = data.path().join("data");
        let store = Arc::new(SqliteStore::open(&path).unwrap());
        let host = TestHost::with("traps", |setup| {
            setup.configure(move |builder| builder.data_dir(path).store(store));
        });
        let managed = Managed::of(host, settings());
        let trap = Trap {
            plugin: managed.running(managed.package("1", &[])),
            innocent: managed.running(managed.package_of("innocent", "1", Transport::Stdio, &[])),
            managed: &managed,
            what,
            script,
            outside,
        };
        trap.set();
        // What the plugin itself has put there is its own.
        let before = seen(outside);
        let fine = |step: &str, failed: Option<Error>| {
            assert!(failed.is_none(), "{what}: {step}: {failed:?}");
            assert_eq!(seen(outside), before, "{what}: {step}");
        };
        let stopped = trap.meanwhile("stop", |manager, id| manager.deactivate(id, LONG));
        fine("stop", stopped.err());
        let started = trap.meanwhile("start", |manager, id| manager.activate(id, LONG));
        fine("start", started.err());
        let followed = trap.meanwhile("follow", {
            let session = managed.session(trap.plugin);
            move |_, _| {
                let mut follower = session.follow_log()?;
                call(&session, "log", &json!({ "line": "said now" }))?;
                loop {
                    match follower.next(LONG)? {
                        Followed::Line(line) if line == "said now" => return Ok(()),
                        Followed::Line(line) => assert_ne!(line, "kept"),
                        _ => {}
                    }
                }
            }
        });
        fine("follow", followed.err());

        let package = managed.package("2", &[]);
        let again = package.clone();
        let update = |package: Vec<u8>| {
            move |manager: &Manager, id| {
                let source = PackageSource::reader(&*package);
                manager.update_package(id, source)
            }
        };
        fine("update", trap.meanwhile("update", update(package)).err());
        assert_eq!(managed.answering_version(trap.plugin), "2", "{what}");
        // The same one again, which mends what is missing.
        fine("repair", trap.meanwhile("repair", update(again)).err());

        let removed = trap.meanwhile("remove", Manager::remove);
        let left = removed
            .as_ref()
            .ok()
            .and_then(|removed| removed.left.clone());
        fine("remove", removed.err());
        assert_eq!(left, None, "{what}");
        assert!(!managed.folder(trap.plugin).exists(), "{what}");
        // The host is shut down, in time, and with nothing left, where this is dropped.
        drop(managed);
        fine("shutdown", None);
    }
}

#[test]
fn a_host_whose_plugin_is_just_started_on_a_pipe_is_shut_down() {
    let managed = Managed::new("trap-shutdown");
    let id = managed.running(managed.package("1", &[]));
    let session = managed.session(id);
    let script = "rm .complete; mkfifo .complete";
    call(&session, "shell", &json!({ "script": script })).unwrap();
    // It is started again, and no operation waits for that.
    let _ = call(&session, "exit", &json!({ "code": 0 }));
}
