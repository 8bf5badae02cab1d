//! The true cause of every end: its word, its message, its details, and the history of runs. The causes
//! that need more than a moment to bring about are where that is: `start_failures`, `restart`, `sizes`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plugin_runner::ReportedState::Errored;
use plugin_runner::report::RunEnd;
use plugin_runner::store::{Record, Source};
use plugin_runner::{Session, StateChange, Timeouts};

use crate::support::LONG;
use crate::support::alone::run_under;
use crate::support::events::Details as _;
use crate::support::host::TestHost;
use crate::support::plugin::{command, executable, manifest, over_stdio, shell};

pub(super) fn start(session: &Session) {
    session.supervised().unwrap().start().unwrap();
}

pub(super) fn stop(session: &Session) {
    session.supervised().unwrap().stop(LONG).unwrap();
}

/// A host on which every crash is the last.
fn unforgiving(test: &'static str, timeouts: impl FnOnce(Timeouts) -> Timeouts) -> TestHost {
    TestHost::with(test, |setup| {
        setup.policy(|policy| policy.max_restart_attempts(0));
        setup.timeouts(timeouts);
    })
}

/// Starts it; gives the change to `errored`, whose message and details are also the session's.
#[track_caller]
pub(super) fn errored(host: &TestHost, session: &Session) -> StateChange {
    let mut events = host.events();
    start(session);
    let change = events.until(session.id(), Errored);
    assert_eq!(session.error_details(), change.details());
    assert_eq!(session.problem(), change.problem);
    assert_eq!(session.error_message().as_deref(), change.message());
    assert_eq!(change.details()["error"], change.message().unwrap());
    let last = last(session);
    assert_eq!(
        change.details()["cause"],
        last.problem.cause().unwrap().as_str()
    );
    assert_eq!(Some(last.problem.message()), change.message());
    assert!(last.given_up && last.problem.restart_after().is_none());
    change
}

#[track_caller]
pub(super) fn last(session: &Session) -> RunEnd {
    session.restart_history().pop().expect("an end of a run")
}

#[test]
fn what_keeps_a_process_from_being_spawned_has_a_word() {
    let host = TestHost::new("spawn-words");
    let program = |name: &str, content: &[u8]| {
        let record = command(&host, name, "./tool", &[]);
        let tool = host.folder().join(format!("plugin-{name}/tool"));
        executable(&tool, content);
        record
    };
    let not_executable = command(&host, "mode", "./tool", &[]);
    fs::write(host.folder().join("plugin-mode/tool"), "#!/bin/sh\n").unwrap();
    let folder = command(&host, "folder", "./tool", &[]);
    fs::create_dir(host.folder().join("plugin-folder/tool")).unwrap();
    let cases = [
        (command(&host, "missing", "./nope", &[]), "not_found"),
        (
            command(&host, "bare", "no-such-program-here", &[]),
            "not_on_path",
        ),
        (command(&host, "empty", "", &[]), "no_command"),
        (not_executable, "not_executable"),
        (folder, "not_a_file"),
        (program("script", b"#!/no/such\n"), "interpreter_not_found"),
        (program("format", b"\x7fELF, but"), "wrong_format"),
    ];
    for (record, word) in cases {
        let session = host.install(record);
        let change = errored(&host, &session);
        assert_eq!(change.details()["cause"], "could_not_spawn", "{word}");
        assert_eq!(change.details()["spawn_error"], word);
        assert_eq!(change.details()["stage"], "start");
        for absent in ["exit_status", "exit_code", "pid", "output", "signal"] {
            assert_eq!(change.details().get(absent), None, "{word}: {absent}");
        }
        let end = last(&session);
        assert_eq!(
            (
                end.problem.exit(),
                end.problem.pid(),
                end.problem.active_for()
            ),
            (None, None, None)
        );
    }
}

#[test]
fn what_cannot_be_unpacked_or_prepared_has_a_word_of_its_own() {
    let host = TestHost::new("start-words");
    let missing = Source::Archive(host.folder().join("missing.zip"));
    let mut record = Record::supervised(manifest("archive"), missing);
    record.manifest.command = "./tool".to_owned();
    let change = errored(&host, &host.install(record));
    assert_eq!(change.details()["cause"], "could_not_unpack");

    let record = command(&host, "gone", "./tool", &[]);
    fs::remove_dir(host.folder().join("plugin-gone")).unwrap();
    let change = errored(&host, &host.install(record));
    assert_eq!(change.details()["cause"], "could_not_prepare");
    assert_eq!(change.details()["stage"], "start");
}

#[test]
fn a_plugin_that_the_kernel_kills_for_want_of_memory_is_told_as_that() {
    let Some(group) = MemoryGroup::new() else {
        eprintln!("no memory control group can be made here");
        return;
    };
    // The host and its plugins live in the group, as they would in a container.
    let enter = r#"echo $$ > "$1" && shift && exec "$@""#;
    let mut inside = Command::new("/bin/sh");
    inside
        .args(["-c", enter, "enter"])
        .arg(group.0.join("cgroup.procs"));
    run_under(&mut inside, "causes::alone::the_kernel_kills_a_plugin");
}

/// A control group with little memory, removed at the end.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `None` where this test may not make one.
    fn new() -> Option<Self> {
        const LIMIT: &str = "268435456";
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let name = format!("plugin-runner-tests-{}", std::process::id());
        let path_of = |wanted: &dyn Fn(&str) -> bool| {
            own.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                wanted(controllers).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let first = path_of(&|names| names.split(',').any(|name| name == "memory"));
        let (folder, limit) = match first {
            Some(path) => (
                Path::new("/sys/fs/cgroup/memory").join(path),
                "memory.limit_in_bytes",
            ),
            None => (
                Path::new("/sys/fs/cgroup").join(path_of(&str::is_empty)?),
                "memory.max",
            ),
        };
        let group = Self(folder.join(name));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join(limit), LIMIT).ok()?;
        Some(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Tests that need a process of their own.
mod alone {
    use super::*;

    #[test]
    #[ignore = "needs little memory around it; run by another test, in a control group of its own"]
    fn the_kernel_kills_a_plugin() {
        let greedy = "exec python3 -c 'kept = []\nwhile True: kept.append(b\"x\" * (1 << 20))'";
        let wrapped =
            "python3 -c 'kept = []\nwhile True: kept.append(b\"x\" * (1 << 20))'; exit $?";
        for script in [greedy, wrapped] {
            let host = unforgiving("kernel-kills", |timeouts| timeouts);
            let session = host.install(shell(&host, "greedy", script));
            let change = errored(&host, &session);
            assert_eq!(change.details()["cause"], "out_of_memory", "{change:?}");
            let message = change.message().unwrap();
            let expected = "out of memory: killed by the kernel (";
            assert!(message.starts_with(expected), "{message}");
            // An end by somebody else's signal is not put down to that.
            let record = over_stdio(shell(&host, "bystander", "kill -9 $$"));
            let change = errored(&host, &host.install(record));
            assert_eq!(change.details()["cause"], "killed_by_signal", "{change:?}");
        }
    }
}
