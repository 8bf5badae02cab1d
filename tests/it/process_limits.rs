//! What a plugin's process may use of the machine: that limits are put upon it, and that hitting one
//! shows in the cause of its end.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use plugin_runner::ReportedState::{Active, Connecting, Errored, Starting};
use plugin_runner::report::EndCause;
use plugin_runner::store::Record;
use plugin_runner::{ProcessLimits, Session, StateChange};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use crate::support::alone::{after_python, run_under};
use crate::support::events::Details as _;
use crate::support::host::TestHost;
use crate::support::plugin::{With as _, command, shell};
use crate::support::{LONG, assert_matches};

/// A plugin that runs this Python code once [`run`] lets it: the limits are put upon it a moment after
/// it was spawned.
fn python(host: &TestHost, id: &str, code: &str) -> Record {
    let gate = gate(host, id);
    mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let script = format!("read -r go < '{}'; exec python3 -c \"$0\"", gate.display());
    command(host, id, "/bin/sh", &["-c", &script, code])
}

fn gate(host: &TestHost, id: &str) -> std::path::PathBuf {
    host.folder().join(format!("gate-{id}"))
}

/// Runs a [`python`] plugin to its end.
#[track_caller]
fn run(host: &TestHost, record: Record) -> (Session, StateChange) {
    let gate = gate(host, &record.manifest.id);
    let mut events = host.events();
    let session = host.start(record);
    events.until(session.id(), Connecting);
    let _held = open(&gate);
    // Two seconds of processor time may be long in coming on a busy machine.
    session.wait_for(Errored, LONG * 10).unwrap();
    let change = events.until(session.id(), Errored);
    assert_eq!(session.error_message().as_deref(), change.message());
    (session, change)
}

/// Opened both ways, which waits for nobody; what was written is there while the file is held.
fn open(gate: &Path) -> File {
    let mut gate = File::options().read(true).write(true).open(gate).unwrap();
    gate.write_all(b"go\n").unwrap();
    gate
}

fn unforgiving(test: &'static str) -> TestHost {
    TestHost::with(test, |setup| {
        setup.policy(|policy| policy.max_restart_attempts(0));
    })
}

/// The program failed by itself because of this limit, and its output says how.
#[track_caller]
fn expect_failure(change: &StateChange, limit: &str, output: &str) {
    assert_eq!(change.message(), Some("exit status 1"));
    assert_eq!(change.details()["cause"], "exited", "{change:?}");
    assert!(change.details()["limits"][limit].is_u64(), "{change:?}");
    let details = change.details();
    let lines = details["output"].as_array().unwrap();
    let last = lines.last().unwrap().as_str().unwrap();
    assert!(last.contains(output), "{lines:?}");
}

#[test]
fn all_limits_are_put_upon_the_process_and_told_with_its_end() {
    let defaults = ProcessLimits::default()
        .open_files(50)
        .processes(4000)
        .nice(7);
    let host = TestHost::with("limits-in-force", |setup| {
        setup.policy(|policy| policy.max_restart_attempts(0));
        setup.configure(|builder| builder.process_limits(defaults));
    });
    let limits = ProcessLimits::default()
        .memory(1 << 30)
        .cpu_time(Duration::from_millis(8500))
        .open_files(60);
    let code = "import os, resource as r
for name in 'AS', 'CPU', 'NOFILE', 'NPROC':
    print(name, *r.getrlimit(getattr(r, 'RLIMIT_' + name)))
print('nice', os.getpriority(os.PRIO_PROCESS, 0))
exit(3)";
    let record = python(&host, "limited", code).overrides(|own| own.process_limits(limits));
    let (_, change) = run(&host, record);
    assert_eq!(change.message(), Some("exit status 3"));
    let memory = 1 << 30;
    assert_eq!(
        change.details()["limits"],
        json!({
            "memory": memory, "cpu_time": 9, "open_files": 60, "processes": 4000,
            "nice": 7,
        })
    );
    assert_eq!(
        change.details()["output"],
        json!([
            format!("AS {memory} {memory}"),
            "CPU 9 10",
            "NOFILE 60 60",
            "NPROC 4000 4000",
            "nice 7",
        ])
    );
}

#[test]
fn limits_that_are_replaced_apply_from_the_next_start_on() {
    let host = TestHost::with("limits-replaced", |setup| {
        setup.policy(|policy| policy.max_restart_attempts(0));
        setup.configure(|builder| builder.process_limits(ProcessLimits::default().open_files(50)));
    });
    let code = "import resource as r; print(*r.getrlimit(r.RLIMIT_NOFILE)); exit(3)";
    let before = python(&host, "before", code);
    let after = python(&host, "after", code);
    let (_, change) = run(&host, before);
    assert_eq!(change.details()["output"], json!(["50 50"]));

    let limits = ProcessLimits::default();
    host.set_process_limits(limits.clone().open_files(70))
        .unwrap();
    let invalid = host.set_process_limits(limits.open_files(0)).unwrap_err();
    assert!(invalid.to_string().contains("open_files"), "{invalid}");
    let (_, change) = run(&host, after);
    assert_eq!(change.details()["output"], json!(["70 70"]));
    assert_eq!(change.details()["limits"], json!({"open_files": 70}));
}

#[test]
fn a_limit_on_core_files_that_an_earlier_version_stored_still_holds() {
    let host = unforgiving("stored-core-limit");
    let code = "import resource as r; print(*r.getrlimit(r.RLIMIT_CORE)); exit(3)";
    let mut stored = serde_json::to_value(python(&host, "limited", code)).unwrap();
    stored["overrides"] = json!({"process_limits": {"core_size": 0}});
    let record: Record = serde_json::from_value(stored.clone()).unwrap();
    let kept = serde_json::to_value(&record).unwrap();
    assert_eq!(kept["overrides"]["process_limits"]["core_size"], 0);
    let (_, change) = run(&host, record);
    assert_eq!(change.details()["limits"], json!({"core_size": 0}));
    assert_eq!(change.details()["output"], json!(["0 0"]));
}

#[test]
fn without_limits_nothing_is_said_of_them() {
    let host = unforgiving("no-limits");
    let code = "raise MemoryError('for a reason of its own')";
    let (_, change) = run(&host, python(&host, "free", code));
    assert_eq!(change.message(), Some("exit status 1"));
    assert_eq!(change.details().get("limits"), None);
}

#[test]
fn a_plugin_that_runs_into_its_memory_limit_fails_by_itself() {
    let host = unforgiving("memory-limit");
    let limits = ProcessLimits::default().memory(300_000_000);
    let record =
        python(&host, "greedy", "b'x' * (1 << 30)").overrides(|own| own.process_limits(limits));
    let (_, change) = run(&host, record);
    expect_failure(&change, "memory", "MemoryError");
}

#[test]
fn a_plugin_that_opens_too_many_files_fails_by_itself() {
    let host = unforgiving("files-limit");
    let limits = ProcessLimits::default().open_files(32);
    let code = "kept = [open('/dev/null') for _ in range(100)]";
    let record = python(&host, "opener", code).overrides(|own| own.process_limits(limits));
    let (_, change) = run(&host, record);
    expect_failure(&change, "open_files", "Too many open files");
}

#[test]
fn a_plugin_that_starts_too_many_processes_fails_by_itself() {
    let host = unforgiving("processes-limit");
    let limits = ProcessLimits::default().processes(1);
    // Root is exempt from this limit.
    let code = "import os
if os.getuid() == 0: os.setuid(65534)
os.fork()";
    let record = python(&host, "forker", code).overrides(|own| own.process_limits(limits));
    let (_, change) = run(&host, record);
    expect_failure(&change, "processes", "Resource temporarily unavailable");
}

#[test]
fn a_plugin_that_uses_up_its_processor_time_is_ended_for_that() {
    let host = unforgiving("cpu-limit");
    let limits = ProcessLimits::default().cpu_time(Duration::from_secs(1));
    let ignoring = "import signal
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
while True: pass";
    for (id, code, status) in [
        (
            "busy",
            "while True: pass",
            "signal: CPU time limit exceeded",
        ),
        ("stubborn", ignoring, "signal: killed"),
    ] {
        let record = python(&host, id, code).overrides(|own| own.process_limits(limits.clone()));
        let (session, change) = run(&host, record);
        let expected = format!("used up its processor time of 1s ({status})");
        // A core may or may not be left.
        let message = change.message().unwrap().replace(" (core dumped)", "");
        assert_eq!(message, expected);
        assert_eq!(change.details()["cause"], "cpu_time");
        assert_eq!(change.details()["limits"], json!({"cpu_time": 1}));
        let end = session.restart_history().pop().unwrap();
        assert_eq!(end.problem.cause(), Some(EndCause::CpuTime));
    }
}

#[test]
fn limits_that_cannot_work_are_refused_before_anything_is_spawned() {
    let limits = ProcessLimits::default().nice(-21);
    let built = plugin_runner::Host::builder()
        .process_limits(limits.clone())
        .build();
    let problem = "setting nice: must be from -20 to 19";
    assert_eq!(built.unwrap_err().to_string(), problem);

    let host = TestHost::new("bad-limits");
    let record = shell(&host, "bad", r#"touch "$PLUGIN_DATA_DIR/spawned""#);
    let mut events = host.events();
    let session = host.start(record.overrides(|own| own.process_limits(limits)));
    let change = events.expect(session.id(), &[Starting, Errored]);
    let message = change.message().unwrap();
    assert_eq!(message, format!("could not prepare: {problem}"));
    let data = host.installation_folder(&session).join("data");
    assert!(!data.join("spawned").exists());
}

#[test]
fn a_limit_that_cannot_be_had_is_named_and_the_process_killed() {
    // Root may set any limit, unless this capability is taken from whatever it runs.
    let weaken = "import ctypes
PR_CAPBSET_DROP, CAP_SYS_NICE = 24, 23
ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0)";
    run_under(
        &mut after_python(weaken),
        "process_limits::alone::a_limit_cannot_be_had",
    );
}

/// Tests that need a process of their own.
mod alone {
    use super::*;

    #[test]
    #[ignore = "needs a process without privileges; run by another test"]
    fn a_limit_cannot_be_had() {
        let host = TestHost::new("limit-denied");
        let limits = ProcessLimits::default().open_files(100).nice(-5);
        let record =
            shell(&host, "denied", "exec sleep 1000").overrides(|own| own.process_limits(limits));
        let mut events = host.events();
        let session = host.start(record);
        let change = events.expect(session.id(), &[Starting, Errored]);
        let message = change.message().unwrap();
        assert!(message.starts_with("could not limit nice: "), "{message}");
        assert_eq!(change.details()["cause"], "could_not_limit");
        assert_eq!(change.details()["limit"], "nice");
        assert_eq!(change.details()["stage"], "start");
        let error = session.wait_for(Active, LONG).unwrap_err();
        assert_eq!(error.to_string(), message);
        // The process was there, and is gone, and with the host so is its keeper.
        drop(host);
        let child = rustix::process::waitid(
            rustix::process::WaitId::All,
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG,
        );
        assert_matches!(
            child,
            Err(rustix::io::Errno::CHILD),
            "there is a child left"
        );
    }
}
