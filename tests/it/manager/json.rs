//! What an admin API may answer with, each as a whole. Times are seconds since 1970, and durations seconds: `"s"`
//! here.

use std::time::Duration;

use plugin_runner::report::{Counters, ExitReason, HandshakeCounters};
use plugin_runner::store::Overrides;
use plugin_runner::{Health, ProcessLimits};
use serde::Serialize;
use serde_json::Value;

use super::*;
use crate::support::host::active;
use crate::support::peer::Peer;

/// As it is serialised, without what is different each time: times, process ids and sizes, and in texts ids and
/// digests, and the test's directory.
#[track_caller]
fn shown(managed: &Managed, of: &impl Serialize) -> Value {
    let folder = managed.host.folder().to_str().unwrap();
    settled(serde_json::to_value(of).unwrap(), folder)
}

fn settled(value: Value, folder: &str) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => "s".into(),
        Value::String(text) => {
            let text = text.replace(folder, "…");
            let parts = text.split('/').map(|part| match part {
                id if id.parse::<InstallationId>().is_ok() => "id",
                digest if digest.len() == 64 => "sha256",
                other => other,
            });
            parts.collect::<Vec<_>>().join("/").into()
        }
        Value::Array(all) => {
            let all = all.into_iter().map(|each| settled(each, folder));
            all.collect()
        }
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| {
                let is_any = matches!(&*name, "pid" | "size");
                let value = if is_any {
                    1.into()
                } else {
                    settled(value, folder)
                };
                (name, value)
            });
            members.collect()
        }
        other => other,
    }
}

#[track_caller]
fn assert_shown(managed: &Managed, of: &impl Serialize, expected: &Value) {
    let shown = shown(managed, of);
    assert_eq!(&shown, expected, "it is {shown:#}");
}

fn plugin() -> Manifest {
    Manifest {
        command: "./run".to_owned(),
        ..manifest("shown")
    }
}

#[test]
fn a_plugin_that_failed_and_what_is_known_of_its_end() {
    let host = TestHost::with("json-failed", |setup| {
        setup.policy(|policy| policy.max_restart_attempts(0));
    });
    let managed = Managed::of(host, settings());
    let changes = managed.host.subscribe();
    let of = Manifest {
        command: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), "echo last words; exit 7".to_owned()],
        ..plugin()
    };
    let source = PackageSource::bytes(managed.package_with(&of, &[]))
        .added_by("Ada")
        .labels([("team", "red")]);
    let id = managed.install(source).unwrap().id();
    let overrides = Overrides::default()
        .environment([("PASSWORD", "hush")])
        .outbound_message(4096)
        .health(Health::default().interval(Duration::from_millis(1500)))
        .inbound_per_second(7)
        .process_limits(
            ProcessLimits::default()
                .open_files(64)
                .cpu_time(Duration::from_secs(60)),
        );
    managed.set_overrides(id, overrides).unwrap();
    managed.activate(id, LONG).unwrap_err();
    let problem = json!({
        "runtime_provider": "local", "stage": "exit", "cause": "exited", "error": "exit status 7",
        "exit_status": "exit status 7", "exit_code": 7, "pid": 1, "uptime_seconds": "s",
        "attempts": 1, "restarts": 0, "limits": {"cpu_time": 60, "open_files": 64},
        "output": ["last words"],
    });
    let session = managed.session(id);
    assert_shown(&managed, &session.problem().unwrap(), &problem);
    let expected = json!({
        "id": "id",
        "manifest": {
            "id": "shown", "name": "Test plugin shown", "author": "tests", "description": "for tests",
            "version": "1", "command": "/bin/sh", "args": ["-c", "echo last words; exit 7"],
        },
        "mode": "supervised",
        "active_state": "active",
        "reported_state": "errored",
        "since": "s",
        "message": "exit status 7",
        "details": problem,
        "added_at": "s",
        "added_by": "Ada",
        "labels": {"team": "red"},
        "source": {"kind": "stored", "sha256": "sha256", "size": 1},
        "environment": ["PASSWORD"],
        "overrides": {
            "health": {
                "interval": "s", "timeout": "s", "misses_allowed": 3, "rpc_ping": false, "busy_limit": "s",
            },
            "outbound_message": 4096,
            "inbound_per_second": 7,
            "process_limits": {"cpu_time": 60, "open_files": 64},
        },
        "damage": null,
        "warnings": [],
    });
    assert_shown(&managed, &managed.get(id).unwrap(), &expected);

    let mut of_the_past = problem.clone();
    of_the_past["output"] = json!([]);
    let expected = json!([{
        "run": 1, "started_at": "s", "ended_at": "s", "problem": of_the_past, "given_up": true,
    }]);
    assert_shown(&managed, &session.restart_history(), &expected);

    let changes: Vec<_> = changes.try_iter().collect();
    let change = |sequence: u64, from: &str, to: &str, problem: &Value| {
        json!({
            "sequence": sequence, "plugin": "id", "manifest_id": "shown", "from": from, "to": to,
            "problem": problem, "at": "s", "missed": 0,
        })
    };
    let expected = json!([
        change(1, "inactive", "starting", &Value::Null),
        change(2, "starting", "connecting", &Value::Null),
        change(3, "connecting", "errored", &problem),
    ]);
    assert_shown(&managed, &changes, &expected);

    let expected = json!({
        "active": [], "starting": [], "awaited": [],
        "failed": [{
            "id": "id", "kind": "plugin_failed", "message": "the plugin is errored: exit status 7",
        }],
        "took": "s",
    });
    assert_shown(&managed, &managed.boot(LONG).unwrap(), &expected);
    for (exit, expected) in [
        (ExitReason::Code(7), json!({"code": 7})),
        (ExitReason::Signal(9), json!({"signal": 9})),
        (ExitReason::Unknown, json!("unknown")),
    ] {
        assert_eq!(serde_json::to_value(exit).unwrap(), expected);
    }
}

#[test]
fn what_operations_report() {
    let managed = Managed::new("json-reports");
    let id = managed.running(managed.package("1", &[]));
    let session = managed.session(id);
    let lost = "mkfifo lost; echo 1234 > kept";
    call(&session, "shell", &json!({ "script": lost })).unwrap();
    let update = managed.update(id, managed.package("2", &[])).unwrap();
    let expected = json!({
        "installation": shown(&managed, &managed.get(id).unwrap()),
        "newly_installed": false,
        "unchanged": false,
        "gap": "s",
        "migrated_files": 1,
        "migrated_bytes": 5,
        "left": [{"path": "lost", "reason": "it is a socket, a named pipe or a device"}],
        "left_count": 1,
        "previous": "…/data/id/releases/sha256",
    });
    assert_shown(&managed, &update, &expected);

    let expected =
        json!({"active": ["id"], "starting": [], "awaited": [], "failed": [], "took": "s"});
    assert_shown(&managed, &managed.boot(LONG).unwrap(), &expected);

    let stopped = managed
        .session(id)
        .supervised()
        .unwrap()
        .stop(LONG)
        .unwrap();
    let exit = serde_json::to_value(stopped.exit.unwrap()).unwrap();
    let expected = json!({"exit": exit, "killed": false, "took": "s"});
    assert_shown(&managed, &stopped, &expected);

    let removed = managed.remove_keeping_data(id).unwrap();
    let expected = json!({"kept": "…/data/id", "left": null, "descendants": null});
    assert_shown(&managed, &removed, &expected);

    let guarantees = managed.host.guarantees();
    let expected = json!({
        "plugins_end_with_host": guarantees.plugins_end_with_host,
        "descendants_are_found": guarantees.descendants_are_found,
        "escaped": guarantees.escaped,
        "limitations": guarantees.limitations,
    });
    assert_shown(&managed, &guarantees, &expected);

    let mut end = managed.host.shutdown(LONG);
    let expected =
        json!({"killed": [], "unfinished": [], "descendants": [], "threads": [], "took": "s"});
    assert_shown(&managed, &end, &expected);
    // As it is when something is left.
    end.unfinished.push(id);
    end.descendants
        .push((id, "2 processes are left".to_owned()));
    let json = shown(&managed, &end);
    assert_eq!(json["unfinished"], json!(["id"]));
    let left = json!([{"id": "id", "descendants": "2 processes are left"}]);
    assert_eq!(json["descendants"], left);
}

#[test]
fn an_external_plugin_its_deliveries_and_its_counts() {
    let managed = Managed::new("json-external");
    let of = Manifest {
        command: String::new(),
        events_consumed: vec!["happened".to_owned()],
        ..plugin()
    };
    let (installed, token) = managed.install_external(of).unwrap();
    let expected = json!({
        "id": "id",
        "manifest": {
            "id": "shown", "name": "Test plugin shown", "author": "tests", "description": "for tests",
            "version": "1", "command": "", "events_consumed": ["happened"],
        },
        "mode": "external",
        "active_state": "active",
        "reported_state": "connecting",
        "since": "s",
        "message": null,
        "details": {},
        "added_at": "s",
        "added_by": null,
        "labels": {},
        "source": null,
        "environment": [],
        "overrides": {},
        "damage": null,
        "warnings": [],
    });
    assert_shown(&managed, &installed, &expected);

    let target = format!("/rpc?token={}", token.expose());
    let mut peer = Peer::connect(managed.host.address(), &target);
    let session = managed.session(installed.id());
    active(&session);
    let delivered = std::thread::scope(|scope| {
        let wait = || managed.host.publish_and_wait("happened", &json!({}), LONG);
        let publishing = scope.spawn(wait);
        let call = peer.receive();
        let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": {"ok": true}});
        peer.send(answer.to_string());
        publishing.join().unwrap().unwrap()
    });
    let expected = json!({ installed.id().to_string(): "delivered" });
    assert_eq!(serde_json::to_value(&delivered).unwrap(), expected);
    let published = managed.host.publish("happened", &json!({})).unwrap();
    assert_shown(&managed, &published, &json!({"queued": 1, "dropped": 0}));
    // Numbers all of them, by the names of the fields.
    let counters = serde_json::to_value(session.counters()).unwrap();
    assert_eq!(
        (&counters["connections"], &counters["events_delivered"]),
        (&json!(1), &json!(1))
    );
    let handshakes = serde_json::to_value(managed.host.handshake_counters()).unwrap();
    assert_eq!(handshakes["accepted"], 1);
    for (counters, none) in [
        (counters, serde_json::to_value(Counters::default()).unwrap()),
        (
            handshakes,
            serde_json::to_value(HandshakeCounters::default()).unwrap(),
        ),
    ] {
        let (counters, none) = (object(counters), object(none));
        assert!(counters.keys().eq(none.keys()));
        assert!(counters.values().all(Value::is_u64));
    }
    let unknown = InstallationId::generate();
    let error = managed.activate(unknown, LONG).unwrap_err();
    let error = serde_json::to_value(error).unwrap();
    let message = format!("no plugin {unknown} is installed");
    assert_eq!(error, json!({"kind": "not_installed", "message": message}));
}
