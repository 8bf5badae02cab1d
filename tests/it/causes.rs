//! The true cause of every end: its word, its message, its details, and the history of runs. The causes
//! that need more than a moment to bring about are where that is: `start_failures`, `restart`, `sizes`.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use plugin_runner::ReportedState::{Connecting, Errored, Restarting, Starting, Stopping};
use plugin_runner::protocol::Transport;
use plugin_runner::report::{EndCause, ExitReason, RunEnd};
use plugin_runner::store::{Record, Source};
use plugin_runner::{Session, StateChange, Timeouts, fault};
use serde_json::json;

use crate::support::LONG;
use crate::support::alone::run_under;
use crate::support::events::Details as _;
use crate::support::host::{Setup, TestHost, active};
use crate::support::plugin::{
    TRANSPORTS, call, command, executable, fixture, manifest, over_stdio, shell,
};

fn start(session: &Session) {
    session.supervised().unwrap().start().unwrap();
}

fn stop(session: &Session) {
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
fn errored(host: &TestHost, session: &Session) -> StateChange {
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
fn last(session: &Session) -> RunEnd {
    session.restart_history().pop().expect("an end of a run")
}

#[test]
fn a_signal_from_elsewhere_is_told_with_its_number_and_name() {
    let host = unforgiving("signals", |timeouts| timeouts);
    for (signal, name, words) in [
        (11, "SIGSEGV", "segmentation fault"),
        (9, "SIGKILL", "killed"),
        (15, "SIGTERM", "terminated"),
    ] {
        // No core: whether one is left is the machine's business.
        let script = format!("ulimit -c 0; echo last words; kill -{signal} $$");
        let session = host.install(shell(&host, name, &script));
        let change = errored(&host, &session);
        let details = &change.details();
        assert_eq!(change.message(), Some(&*format!("signal: {words}")));
        assert_eq!(details["cause"], "killed_by_signal");
        assert_eq!(details["stage"], "exit");
        assert_eq!(details["signal"], signal);
        assert_eq!(details["signal_name"], name);
        assert_eq!(details["exit_code"], -1);
        assert_eq!(details["exit_status"], format!("signal: {words}"));
        assert_eq!(details["output"], json!(["last words"]));
        assert_eq!(details["attempts"], 1);
        assert!(details["uptime_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(details.get("active_seconds"), None);
        assert_eq!(details.get("core_dumped"), None);
        let end = last(&session);
        assert_eq!(end.problem.cause(), Some(EndCause::KilledBySignal));
        assert_eq!(end.problem.exit(), Some(ExitReason::Signal(signal)));
        assert_eq!(details["pid"], end.problem.pid().unwrap());
    }
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
fn a_plugin_that_reads_nothing_is_told_as_unresponsive() {
    let host = unforgiving("reads-nothing", |timeouts| {
        timeouts
            .write_stall(Duration::from_millis(200))
            .disconnect_grace(Duration::from_millis(50))
    });
    let session = host.run(fixture(&host, Transport::WebSocket, &["never-read"]));
    let mut events = host.events();
    let params = json!({"text": "x".repeat(1 << 20)});
    let mut waiting = Vec::new();
    // The system takes some; then nothing more can be written.
    while let Ok(call) = session.start_call_raw("echo", &params, LONG) {
        waiting.push(call);
    }
    let change = events.until(session.id(), Errored);
    assert_eq!(change.details()["cause"], "unresponsive", "{change:?}");
    let message = change.message().unwrap();
    assert_eq!(message, "the plugin read nothing for 200ms");
}

#[test]
fn who_was_killed_by_the_host_is_told_why_with_all_that_is_known() {
    let host = unforgiving("killed-by-host", |timeouts| {
        timeouts.connect(Duration::from_millis(300))
    });
    let script = "for line in $(seq 25); do echo line $line; done; exec sleep 1000";
    let session = host.install(shell(&host, "idler", script));
    let change = errored(&host, &session);
    let details = &change.details();
    assert_eq!(details["cause"], "never_connected");
    assert_eq!(details["signal_name"], "SIGKILL");
    assert!(details["uptime_seconds"].as_f64().unwrap() >= 0.3);
    assert_eq!(details["attempts"], 1);
    assert_eq!(details["pid"], last(&session).problem.pid().unwrap());
    let newest: Vec<String> = (6..=25).map(|line| format!("line {line}")).collect();
    assert_eq!(details["output"], json!(newest));
}

#[test]
fn the_history_tells_every_end_and_what_came_of_it() {
    for transport in TRANSPORTS {
        let host = TestHost::with("history", |setup| {
            setup.policy(|policy| policy.max_restart_attempts(1));
        });
        let session = host.install(fixture(&host, transport, &["behave"]));
        assert_eq!(session.restart_history(), []);
        let before = SystemTime::now();
        let mut events = host.events();
        let run = || {
            start(&session);
            active(&session);
        };
        run();
        let first = host.lifelines.next();
        stop(&session);
        run();
        for state in [Restarting, Errored] {
            active(&session);
            let _ = call(&session, "exit", &json!({"code": 7}));
            events.until(session.id(), state);
        }
        let history = session.restart_history();
        let told: Vec<_> = history
            .iter()
            .map(|end| {
                (
                    end.run,
                    end.problem.cause(),
                    end.problem.message(),
                    end.problem.restart_after(),
                    end.given_up,
                )
            })
            .collect();
        let after = Duration::from_millis(20);
        assert_eq!(
            told[1..],
            [
                (
                    2,
                    Some(EndCause::Exited),
                    "exit status 7",
                    Some(after),
                    false
                ),
                (3, Some(EndCause::Exited), "exit status 7", None, true),
            ]
        );
        let (run, cause, message, after, given_up) = told[0];
        assert_eq!((run, cause), (1, Some(EndCause::Stopped)));
        assert_eq!((after, given_up), (None, false));
        assert!(message.starts_with("stopped ("), "{message}");
        assert_eq!(history[0].problem.pid(), Some(first.pid));
        let pids: HashSet<_> = history.iter().map(|end| end.problem.pid()).collect();
        assert_eq!(pids.len(), 3, "{history:?}");
        let mut time = before;
        for end in &history {
            assert!(end.problem.active_for().is_some(), "{end:?}");
            assert!(time <= end.started_at, "{end:?}");
            assert!(end.started_at <= end.ended_at, "{end:?}");
            time = end.ended_at;
        }
    }
}

#[test]
fn the_history_keeps_as_many_ends_as_its_limit_says() {
    let host = TestHost::with("history-limit", |setup| {
        setup.policy(|policy| policy.max_restart_attempts(33));
    });
    let session = host.install(shell(&host, "crasher", "exit 3"));
    errored(&host, &session);
    let runs: Vec<u64> = session
        .restart_history()
        .iter()
        .map(|end| end.run)
        .collect();
    assert!(runs.into_iter().eq(3..=34));
}

#[test]
fn a_run_that_is_stopped_before_it_has_a_process_is_in_the_history() {
    let host = TestHost::new("history-unstarted");
    let session = host.install(shell(&host, "never", "exit 3"));
    let held = fault::hold(fault::PREPARING, session.id());
    start(&session);
    assert!(held.reached(LONG), "nothing is prepared");
    std::thread::scope(|scope| {
        let mut events = host.events();
        let stopping = scope.spawn(|| stop(&session));
        events.expect(session.id(), &[Stopping]);
        held.release();
        stopping.join().unwrap();
    });
    let [end] = &session.restart_history()[..] else {
        panic!("{:?}", session.restart_history());
    };
    assert_eq!(
        (end.problem.cause(), end.problem.pid()),
        (Some(EndCause::Stopped), None)
    );
    assert!(!end.given_up && end.problem.restart_after().is_none());
    assert_eq!(session.error_message(), None);
}

#[test]
fn a_stop_starts_the_counting_over_and_a_start_while_backing_off_does_not() {
    let host = TestHost::with("counting", |setup| {
        setup.policy(|policy| policy.max_restart_attempts(5));
    });
    let flag = host.folder().join("go-on");
    let script = format!("[ -e '{}' ] && exec sleep 1000; exit 3", flag.display());
    let mut events = host.events();
    let session = host.start(shell(&host, "counter", &script));
    for restarts in 0..3 {
        let change = events.until(session.id(), Restarting);
        assert_eq!(change.details()["restarts"], restarts);
    }
    fs::write(&flag, "").unwrap();
    events.until(session.id(), Connecting);
    stop(&session);
    fs::remove_file(&flag).unwrap();
    let mut events = host.events();
    start(&session);
    let change = events.until(session.id(), Restarting);
    assert_eq!(change.details()["restarts"], 0, "the stop did not reset");
    stop(&session);

    let host = TestHost::with("counting-on", |setup| {
        setup.policy(|policy| {
            policy
                .max_restart_attempts(1)
                .max_backoff(Duration::from_secs(3600))
        });
    });
    let session = host.install(shell(&host, "impatient", "exit 3"));
    // The wait is a second; who starts it does not wait so long.
    let mut events = host.events();
    start(&session);
    events.until(session.id(), Restarting);
    start(&session);
    let change = events.expect(session.id(), &[Starting, Connecting, Errored]);
    assert_eq!(change.details()["attempts"], 2);
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

#[test]
fn a_good_run_that_crashes_is_in_the_history_with_its_length() {
    let host = TestHost::with("good-run", Setup::stay_down_after_a_crash);
    let session = host.run(fixture(&host, Transport::Stdio, &["behave"]));
    let mut events = host.events();
    let _ = call(&session, "exit", &json!({"code": 7}));
    let change = events.until(session.id(), Restarting);
    let end = last(&session);
    let after = Duration::from_secs(3600);
    assert_eq!(end.problem.restart_after(), Some(after));
    let active_for = end.problem.active_for().unwrap();
    assert_eq!(change.details()["active_seconds"], active_for.as_secs_f64());
    assert!(active_for.as_secs_f64() <= change.details()["uptime_seconds"].as_f64().unwrap());
}
