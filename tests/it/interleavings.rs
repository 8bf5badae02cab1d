//! Requests that meet: loads, unloads, starts, stops and shutdowns from several threads or in quick
//! succession. Each of these once left a plugin, or a caller, hanging.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_runner::duplex::memory;
use plugin_runner::store::Record;
use plugin_runner::{ActiveState, Host, ReportedState, Session, fault};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, json};

use crate::support::LONG;
use crate::support::events::Details as _;
use crate::support::host::{TestHost, active};
use crate::support::peer::Peer;
use crate::support::plugin::{With as _, connectable, manifest, over_stdio, shell};

/// A stdio plugin in a few lines of shell: it knows no method, which is an answer too.
const ANSWERING: &str = r#"while read -r line; do
    id=${line#*\"id\":\"}; id=${id%%\"*}
    printf '{"jsonrpc":"2.0","id":"%s","error":{"code":-32601,"message":"no"}}\n' "$id"
done"#;

pub(super) fn answering(host: &TestHost, id: &str, before: &str) -> Record {
    over_stdio(shell(host, id, &format!("{before}\n{ANSWERING}")))
        .with(|record| record.set_active_state(ActiveState::Active))
}

/// Writes into the gate of a [`breaking`] plugin. Open both ways, which never waits for a reader; what
/// was written is there for as long as the file is held.
fn open_gate(gate: &Path) -> File {
    let mut file = File::options().read(true).write(true).open(gate).unwrap();
    file.write_all(b"\n").unwrap();
    file
}

/// A plugin that breaks the rules when it is called, and lives on until something is written into
/// the gate.
fn breaking(host: &TestHost, id: &str) -> (Session, PathBuf) {
    let gate = host.folder().join(format!("gate-{id}"));
    let script = format!(
        r#"mkfifo '{0}' 2>/dev/null
        # The host reads no more after the break, and that must not end it.
        trap "" PIPE
        while read -r line; do
            id=${{line#*\"id\":\"}}; id=${{id%%\"*}}
            case $line in *break*) printf '{{"result":"%09999d"}}\n' 0 2>/dev/null ;; esac
            printf '{{"jsonrpc":"2.0","id":"%s","error":{{"code":-32601,"message":"no"}}}}\n' "$id"
        done
        read -r line < '{0}'"#,
        gate.display()
    );
    let session = host.run(over_stdio(shell(host, id, &script)));
    let broken = session.call_raw("break", &json!({}), LONG).unwrap_err();
    assert!(broken.is_disconnected(), "{broken}");
    (session, gate)
}

#[test]
fn a_start_of_a_plugin_that_is_about_to_be_killed_tells_how_it_ended() {
    let host = TestHost::with("start-of-doomed", |setup| {
        setup.limits(|limits| limits.inbound_message(9_000));
    });
    let mut events = host.events();
    let (session, gate) = breaking(&host, "doomed");
    events.until(session.id(), ReportedState::Active);
    events.expect(session.id(), &[ReportedState::Connecting]);
    session.supervised().unwrap().start().unwrap();
    let _gate = open_gate(&gate);
    let ended = events.expect(session.id(), &[ReportedState::Restarting]);
    assert_eq!(ended.details()["cause"], "protocol_violation", "{ended:?}");
    assert_eq!(ended.details()["restarting_after_seconds"], 0.0);
    events.expect(
        session.id(),
        &[
            ReportedState::Starting,
            ReportedState::Connecting,
            ReportedState::Active,
        ],
    );
}

#[test]
fn what_a_plugin_did_on_one_connection_is_not_held_against_it_on_the_next() {
    let host = TestHost::with("second-chance", |setup| {
        setup.limits(|limits| limits.inbound_message(9_000));
    });
    let mut events = host.events();
    let (session, gate) = breaking(&host, "pardoned");
    events.until(session.id(), ReportedState::Active);
    events.expect(session.id(), &[ReportedState::Connecting]);
    let (ours, _theirs) = memory::pair(1);
    session.connect(ours, "").unwrap();
    events.expect(session.id(), &[ReportedState::Active]);
    let _gate = open_gate(&gate);
    let ended = events.until(session.id(), ReportedState::Restarting);
    assert_eq!(ended.details()["cause"], "exited", "{ended:?}");
    active(&session);
}

#[test]
fn requests_that_meet_the_last_crash_follow_it() {
    use ReportedState::{Errored, Inactive, Starting, Stopping};
    let stop_alone: &[_] = &[Errored, Inactive];
    let start_and_stop = &[Errored, Starting, Stopping, Inactive];
    for (starts, expected) in [(0, stop_alone), (1, start_and_stop)] {
        let host = TestHost::with("requests-meet-crash", |setup| {
            setup.policy(|policy| policy.max_restart_attempts(0));
            // The look for descendants would go on beside all this, and its end change what is seen.
            setup.configure(|builder| builder.find_descendants(false));
        });
        let idle = host.threads_with_keeper();
        // Once its output is closed, nothing of it is waited for when it has ended.
        let script = r#"echo "pid $$"; exec >&- 2>&-; exec sleep 1000"#;
        let session = host.install(shell(&host, "dying", script));
        let supervised = session.supervised().unwrap();
        supervised.start().unwrap();
        let pid = host.output.wait_for("with the pid", |line| {
            line.text.strip_prefix("pid ")?.parse().ok()
        });
        // What is left of its threads is that of the session.
        host.expect_threads(idle + 1);
        let mut events = host.events();
        let reaped = fault::hold(fault::REAPED, session.id());
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        assert!(reaped.reached(LONG), "its end was not noticed");
        // The reaper is held, so these get no further than being asked for.
        for _ in 0..starts {
            supervised.start().unwrap();
        }
        let error = supervised.stop(Duration::from_millis(1)).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        // Whoever waits for the stop is not told of the error before it.
        let stopped = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| session.wait_for(Inactive, LONG));
            reaped.release();
            waiting.join().unwrap()
        });
        stopped.unwrap();
        events.expect(session.id(), expected);
    }
}

#[test]
fn a_time_without_end_is_one_that_never_comes() {
    let host = TestHost::with("endless", |setup| {
        setup.timeouts(|timeouts| {
            timeouts
                .connect(Duration::MAX)
                .disconnect_grace(Duration::MAX)
                .call(Duration::MAX)
        });
        setup.policy(|policy| policy.crash_threshold(Duration::MAX));
    });
    let session = host.install(answering(&host, "patient", ""));
    session
        .wait_for(ReportedState::Active, Duration::MAX)
        .unwrap();
    session.supervised().unwrap().stop(LONG).unwrap();
}

#[test]
fn a_shutdown_that_loses_patience_with_another_does_not_call_it_complete() {
    let mut host = TestHost::new("two-shutdowns");
    let stubborn = format!("trap '' INT TERM\n{ANSWERING}\nwhile :; do sleep 1; done");
    let record = over_stdio(shell(&host, "stubborn", &stubborn));
    let record = record.with(|record| record.set_active_state(ActiveState::Active));
    let session = host.install(record);
    active(&session);
    let mut events = host.events();
    let owned: Host = host.take();
    let report = std::thread::scope(|scope| {
        let first = scope.spawn(|| owned.shutdown(LONG));
        events.expect(session.id(), &[ReportedState::Stopping]);
        let second = owned.shutdown(Duration::from_millis(1));
        assert!(!second.is_complete(), "{second:?}");
        assert_eq!(second.unfinished, [session.id()]);
        first.join().unwrap()
    });
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.killed, [session.id()]);
}

#[test]
fn external_plugins_that_dawdle_do_not_keep_a_shutdown_from_the_others() {
    let mut host = TestHost::new("dawdling");
    let mut peers = Vec::new();
    for number in 0..30 {
        let record = Record::external(manifest(&format!("slow-{number}"))).unwrap();
        let (session, target) = connectable(&host, record);
        // Connected, and never reading: it answers no close.
        peers.push(Peer::connect(host.address(), &target));
        active(&session);
    }
    let supervised = host.install(answering(&host, "quick", ""));
    active(&supervised);
    let report = host.take().shutdown(Duration::from_secs(2));
    assert!(report.is_complete(), "{report:?}");
    assert!(report.killed.is_empty(), "{report:?}");
}

#[test]
fn a_burst_of_calls_is_answered_whole_by_a_host_that_refuses_some() {
    let host = TestHost::with("burst", |setup| {
        setup.configure(|builder| builder.method_raw("quick", |_, _| Ok(Map::new().into())));
    });
    let record = Record::external(manifest("bursting")).unwrap();
    let (session, target) = connectable(&host, record);
    let mut peer = Peer::connect(host.address(), &target);
    active(&session);
    for _ in 0..5 {
        for number in 0..400 {
            peer.send(format!(
                r#"{{"jsonrpc":"2.0","id":{number},"method":"quick"}}"#
            ));
        }
        let mut ids: Vec<_> = (0..400)
            .map(|_| peer.receive()["id"].as_u64().unwrap())
            .collect();
        ids.sort_unstable();
        assert!(ids.iter().copied().eq(0..400), "{ids:?}");
    }
    assert_eq!(session.counters().connections, 1);
}
