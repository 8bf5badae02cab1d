//! The configuration of a plugin: its schema, the stored one and a new one.

use plugin_runner::protocol::Manifest;
use serde_json::json;

use super::Api;
use crate::manager::configuration::configurable;
use crate::support::plugin::manifest;

#[test]
fn what_the_plugin_takes_is_stored_and_answered() {
    let api = Api::new("admin-configure");
    let manifest = Manifest {
        command: "./run".to_owned(),
        ..configurable("configurable")
    };
    let plugin = api
        .managed
        .installed(api.managed.package_with(&manifest, &[]));
    let path = format!("/api/plugins/{plugin}/configuration");
    assert_eq!(
        api.get(&format!("{path}-schema")).value(200),
        json!({"fields": [
            {"type": "string", "id": "channel", "label": "", "description": "", "default": "general"},
            {"type": "number", "id": "limit", "label": "", "description": "", "default": 0.1},
            {"type": "boolean", "id": "loud", "label": "", "description": ""},
        ]})
    );
    assert_eq!(api.get(&path).value(200), json!({}));
    let first = json!({"channel": "a", "limit": 9_007_199_254_740_993_u64, "more": [null]});
    // It has to run for that.
    let (kind, _) = api.json("PATCH", &path, &first).problem(409);
    assert_eq!(kind, "not_loaded");
    assert_eq!(api.get(&path).value(200), json!({}));
    // Unless it is only to be stored, under the same rules.
    let stored = format!("{path}?propose=false");
    let early = json!({"channel": "early"});
    assert_eq!(api.json("PATCH", &stored, &early).value(200), early);
    assert_eq!(api.get(&path).value(200), early);
    let wrong = json!({"limit": "hush"});
    assert_eq!(
        api.json("PATCH", &stored, &wrong).problem(400).0,
        "invalid_configuration"
    );
    assert_eq!(
        api.json("PATCH", &format!("{path}?propose=0"), &early)
            .problem(400)
            .0,
        "invalid_input"
    );
    api.managed.activate(plugin, crate::support::LONG).unwrap();
    // It was given that, and decides from now on.
    let given = api.managed.session(plugin);
    let given = crate::support::plugin::call(&given, "configuration", &json!({})).unwrap();
    assert_eq!(given["configuration"]["channel"], "early", "{given}");
    assert_eq!(
        api.json("PATCH", &stored, &json!({})).problem(409).0,
        "wrong_state"
    );
    for new in [first, json!({"loud": true}), json!({})] {
        // What it does not name is gone.
        assert_eq!(api.json("PATCH", &path, &new).value(200), new);
        assert_eq!(api.get(&path).value(200), new);
    }
    let wrong = json!({"channel": "hush", "limit": "hush", "loud": "hush"});
    let answer = api.json("PATCH", &path, &wrong).value(400);
    assert_eq!(answer["kind"], "invalid_configuration");
    assert_eq!(
        answer["fields"],
        json!([
            {"field": "limit", "message": "must be a number, found a string"},
            {"field": "loud", "message": "must be a boolean, found a string"},
        ])
    );
    assert!(!answer.to_string().contains("hush"), "{answer}");
    for body in [json!([]), json!(null), json!("hush")] {
        let (kind, detail) = api.json("PATCH", &path, &body).problem(400);
        assert_eq!(kind, "invalid_input");
        assert!(!detail.contains("hush"), "{detail}");
    }
    let answer = api.send("PATCH", &path, &[("Content-Type", "text/json")], b"{}");
    assert_eq!(answer.problem(415).0, "unsupported_media_type");
    assert_eq!(api.get(&path).value(200), json!({}));
    api.end();
}

#[test]
fn what_it_refuses_changes_nothing() {
    let api = Api::new("admin-refuses");
    let plugin = api
        .managed
        .running(api.managed.package("1", &["reject-configuration"]));
    let path = format!("/api/plugins/{plugin}/configuration");
    let new = json!({"channel": "hush"});
    let (kind, detail) = api.json("PATCH", &path, &new).problem(400);
    assert_eq!(kind, "configuration_refused");
    assert!(!detail.contains("hush"), "{detail}");
    assert_eq!(api.get(&path).value(200), json!({}));
    assert_eq!(
        api.get(&format!("{path}-schema")).value(200),
        json!({"fields": []})
    );
    api.end();
}

#[test]
fn one_that_is_not_connected_cannot_be_configured() {
    let api = Api::new("admin-configure-away");
    let (outside, _) = api.managed.install_external(manifest("outside")).unwrap();
    let path = format!("/api/plugins/{}/configuration", outside.id());
    let (kind, detail) = api.json("PATCH", &path, &json!({})).problem(409);
    assert_eq!(kind, "not_ready");
    assert!(detail.contains("connecting"), "{detail}");
    let unknown = "/api/plugins/d5k1vvc5o2dtjn9ct4bg/configuration";
    for answer in [
        api.get(unknown),
        api.get(&format!("{unknown}-schema")),
        api.json("PATCH", unknown, &json!({})),
    ] {
        assert_eq!(answer.problem(404).0, "not_installed");
    }
    api.end();
}
