//! A plugin's own settings, one by one.

use std::thread;

use serde_json::{Value, json};

use super::Api;
use crate::support::LONG;

#[test]
fn settings_are_changed_one_by_one_and_apply_from_the_next_start() {
    let api = Api::new("admin-overrides");
    let managed = &api.managed;
    let plugin = managed.running(managed.package("1", &[]));
    let path = format!("/api/plugins/{plugin}/overrides");
    let patch = |body: &Value| api.json("PATCH", &path, body);
    assert_eq!(api.get(&path).value(200)["process_limits"], Value::Null);

    let first = json!({
        "environment": {"OWN_NAME": "the-secret", "OTHER": "1"},
        "process_limits": {"open_files": 123},
        "health": {"misses_allowed": 9},
    });
    let shown = patch(&first).value(200);
    let names = shown["environment"].as_array().unwrap();
    assert!(names.contains(&json!("OWN_NAME")), "{shown}");
    assert_eq!(shown["process_limits"], json!({"open_files": 123}));
    assert_eq!(shown["health"]["misses_allowed"], 9);
    assert!(!patch(&json!({})).text().contains("the-secret"));
    // Values are shown to whoever asks for them, and to no one else.
    let with_values = api.get(&format!("{path}?values=true")).value(200);
    assert_eq!(with_values["environment"]["OWN_NAME"], "the-secret");
    let (kind, _) = api.get(&format!("{path}?values=yes")).problem(400);
    assert_eq!(kind, "invalid_input");

    let second = json!({"environment": {"OTHER": null}, "health": null});
    let shown = patch(&second).value(200);
    assert_eq!(shown["process_limits"], json!({"open_files": 123}), "stays");
    assert_eq!(shown["health"], Value::Null);
    assert_eq!(api.get(&path).value(200), shown);
    for path in [&*path, "/api/plugins"] {
        assert!(!api.get(path).text().contains("the-secret"));
    }

    let restarted = api.send("POST", &format!("/api/plugins/{plugin}/restart"), &[], b"");
    assert_eq!(restarted.value(200)["status"]["active_state"], "active");
    assert_eq!(managed.variable(plugin, "OWN_NAME"), "the-secret");
    assert_eq!(managed.variable(plugin, "OTHER"), Value::Null);
    api.end();
}

#[test]
fn what_cannot_be_set_is_named_and_changes_nothing() {
    let api = Api::new("admin-overrides-wrong");
    let managed = &api.managed;
    let plugin = managed.installed(managed.package("1", &[]));
    let path = format!("/api/plugins/{plugin}/overrides");
    let before = api.get(&path).text();
    for (body, words) in [
        (
            json!({"process_limit": {}}),
            "expected one of `environment`",
        ),
        (
            json!({"process_limits": {"disk": 1}}),
            "expected one of `memory`",
        ),
        (json!({"process_limits": {"open_files": 0}}), "open_files"),
        (
            json!({"process_limits": {"open_files": -1}}),
            "expected u64",
        ),
        (json!({"process_limits": {"cpu_time": -1}}), "not negative"),
        (json!({"health": {"interval": "30s"}}), "expected"),
        (json!({"health": {"timeout": 0}}), "health.timeout"),
        (json!({"access_shape": "Go"}), "go_url"),
        (json!({"environment": {"A=B": "x"}}), "environment"),
        (
            json!({"environment": {"STORYDEN_RPC_URL": "x"}}),
            "set by the host",
        ),
        (
            json!({"environment": {"A": "the-\u{0}secret"}}),
            "zero byte",
        ),
        (
            json!({"environment": {"A": 5_551_234}}),
            "expected a string",
        ),
        (
            json!({"outbound_message": 0, "environment": {"A": "x"}}),
            "outbound_message",
        ),
        (json!({"process_limits": [1]}), "expected a map"),
        (json!([]), "JSON object"),
    ] {
        let answer = api.json("PATCH", &path, &body);
        let (_, detail) = answer.problem(400);
        assert!(detail.contains(words), "{body}: {detail}");
        assert!(
            !detail.contains("secret") && !detail.contains("5551234"),
            "{detail}"
        );
    }
    assert_eq!(api.get(&path).text(), before);
    let unknown = "/api/plugins/d5k1vvc5o2dtjn9ct4bg/overrides";
    assert_eq!(api.get(unknown).problem(404).0, "not_installed");
    let answer = api.json("PATCH", unknown, &json!({}));
    assert_eq!(answer.problem(404).0, "not_installed");
    api.end();
}

#[test]
fn changes_at_the_same_time_all_apply() {
    let api = Api::new("admin-overrides-race");
    let plugin = api.managed.installed(api.managed.package("1", &[]));
    let path = format!("/api/plugins/{plugin}/overrides");
    thread::scope(|scope| {
        for number in 0..8 {
            let (api, path) = (&api, &path);
            scope.spawn(move || {
                let body = json!({"environment": {format!("V{number}"): "x"}});
                assert_eq!(api.json("PATCH", path, &body).status, 200);
            });
        }
    });
    let stored = api.managed.get(plugin).unwrap();
    let shown = serde_json::to_value(stored).unwrap();
    assert_eq!(shown["environment"].as_array().unwrap().len(), 8, "{shown}");
    // All is well with a plugin that has such names.
    api.managed.activate(plugin, LONG).unwrap();
    api.end();
}
