//! Starting plugins again, and how their last runs ended.

use serde_json::{Value, json};

use super::Api;
use crate::support::plugin::{call, manifest};
use crate::support::{LONG, wait_until};

#[test]
fn a_plugin_is_started_again() {
    let api = Api::new("admin-restart");
    let managed = &api.managed;
    let plugin = managed.running(managed.package("1", &[]));
    let pid = || call(&managed.session(plugin), "describe", &json!({})).unwrap()["pid"].clone();
    let before = pid();
    let post = |id: &dyn std::fmt::Display| {
        api.send("POST", &format!("/api/plugins/{id}/restart"), &[], b"")
    };
    let answer = post(&plugin).value(200);
    assert_eq!(answer["status"]["active_state"], "active");
    assert_ne!(pid(), before);

    managed.deactivate(plugin, LONG).unwrap();
    let (kind, detail) = post(&plugin).problem(409);
    assert_eq!(kind, "wrong_state");
    assert!(detail.contains("not wanted active"), "{detail}");
    let unknown = "d5k1vvc5o2dtjn9ct4bg";
    assert_eq!(post(&unknown).problem(404).0, "not_installed");

    // One that is run elsewhere and not connected: it could take for ever.
    let (away, _token) = managed.install_external(manifest("outside")).unwrap();
    let (kind, detail) = post(&away.id()).problem(409);
    assert_eq!(kind, "not_ready");
    assert!(detail.contains("connects again by itself"), "{detail}");

    // One that fails each time: its own words are in the answer.
    let failing = managed.package("1", &["exit-at", "start", "3"]);
    let failing = managed.installed(failing);
    managed.request_activation(failing).unwrap();
    wait_until("the plugin to be given up", || {
        managed.get(failing).unwrap().reported_state().as_str() == "errored"
    });
    let (kind, detail) = post(&failing).problem(502);
    assert_eq!(kind, "plugin_failed");
    assert!(detail.contains("exit status 3"), "{detail}");
    api.end();
}

#[test]
fn a_restart_that_waits_is_answered_when_the_server_stops() {
    let api = Api::new("admin-restart-stop");
    let managed = &api.managed;
    let plugin = managed.installed(managed.package("1", &["hang-at", "start"]));
    managed.request_activation(plugin).unwrap();
    let path = format!("/api/plugins/{plugin}/restart");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| api.send("POST", &path, &[], b""));
        wait_until("the plugin to be started again", || {
            managed.session(plugin).restart_history().len() == 1
        });
        assert_eq!(api.server.stop(LONG), 0);
        assert_eq!(waiting.join().unwrap().problem(503).0, "shut_down");
    });
    api.end();
}

#[test]
fn the_history_has_the_runs_the_newest_first_and_the_last_words() {
    let api = Api::new("admin-history");
    let managed = &api.managed;
    let plugin = managed.installed(managed.package("1", &["exit-at", "active", "7"]));
    let path = format!("/api/plugins/{plugin}/history");
    let empty = json!({"problem": null, "runs": [], "last_lines": []});
    assert_eq!(api.get(&path).value(200), empty);

    managed.request_activation(plugin).unwrap();
    wait_until("the plugin to be given up", || {
        managed.get(plugin).unwrap().reported_state().as_str() == "errored"
    });
    let history = api.get(&path).value(200);
    let runs = history["runs"].as_array().unwrap();
    assert!(runs.len() > 1, "{history}");
    for (run, number) in runs.iter().zip((1..=runs.len()).rev()) {
        assert_eq!(run["run"], number);
        assert_eq!(run["problem"]["exit_code"], 7);
        assert_eq!(run["given_up"], number == runs.len());
        for time in ["started_at", "ended_at"] {
            assert!(run[time].as_str().unwrap().ends_with('Z'), "{run}");
        }
    }
    assert_eq!(history["problem"]["error"], "exit status 7");
    let lines = history["last_lines"].as_array().unwrap();
    assert!(lines.len() > 1 && lines.len() <= 20, "{lines:?}");
    assert!(lines.contains(&json!("started")), "{lines:?}");
    api.end();
}

#[test]
fn a_history_is_short_whatever_a_plugin_prints() {
    let api = Api::new("admin-history-long");
    let managed = &api.managed;
    let plugin = managed.running(managed.package("1", &[]));
    let session = managed.session(plugin);
    let print = |line: &str| drop(call(&session, "log", &json!({"line": line})).unwrap());
    for number in 0..30 {
        print(&format!("{number} {}", "x".repeat(5000)));
    }
    print("last words");
    managed.host.output.wait_for("the last words", |line| {
        (line.text == "last words").then_some(())
    });
    let answer = api.get(&format!("/api/plugins/{plugin}/history"));
    let history = answer.value(200);
    let lines = history["last_lines"].as_array().unwrap();
    assert_eq!(lines.len(), 20);
    assert_eq!(lines[19], "last words");
    assert!(lines[18].as_str().unwrap().starts_with("29 xxx"));
    assert!(answer.text().len() < 30_000, "{}", answer.text().len());

    // There is no log of a plugin that runs elsewhere.
    let (outside, _) = managed.install_external(manifest("outside")).unwrap();
    let history = api.get(&format!("/api/plugins/{}/history", outside.id()));
    assert_eq!(
        history.value(200),
        json!({"problem": null, "runs": [], "last_lines": Value::Array(vec![])})
    );
    let unknown = api.get("/api/plugins/d5k1vvc5o2dtjn9ct4bg/history");
    assert_eq!(unknown.problem(404).0, "not_installed");
    api.end();
}
