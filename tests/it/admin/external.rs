//! External plugins: their tokens and manifests.

use plugin_runner::ReportedState;
use plugin_runner::protocol::Manifest;
use serde_json::{Value, json};

use super::{Api, expected};
use crate::support::LONG;
use crate::support::http::Request;
use crate::support::peer::Peer;
use crate::support::plugin::manifest;

#[track_caller]
fn token(value: &Value) -> String {
    let token = value.as_str().unwrap();
    assert!(token.starts_with("sdprt_"), "{token}");
    token.to_owned()
}

#[test]
fn its_token_is_answered_once_when_it_is_made() {
    let api = Api::new("admin-external");
    let manifest = manifest("outside");
    let body = json!({"mode": "external", "manifest": manifest});
    let added = api.json("POST", "/api/plugins", &body).value(200);
    let first = token(&added["connection"]["token"]);
    let id = added["id"].as_str().unwrap();
    let shown_with = |shown: &Value, connection: Value, state: &str| {
        expected(
            shown,
            id,
            &manifest,
            &connection,
            json!({ "active_state": state }),
        )
    };
    let connection = json!({"mode": "external", "token": first});
    assert_eq!(added, shown_with(&added, connection, "connecting"));
    let connection = json!({"mode": "external"});
    let path = format!("/api/plugins/{id}");
    let shown = api.get(&path).value(200);
    assert_eq!(shown, shown_with(&shown, connection.clone(), "connecting"));
    assert_eq!(
        api.get("/api/plugins").value(200),
        json!({"plugins": [shown]})
    );

    let session = api.managed.session(id.parse().unwrap());
    let connect = |token: &str| {
        let peer = Peer::connect(api.managed.host.address(), &format!("/rpc?token={token}"));
        session.wait_for(ReportedState::Active, LONG).unwrap();
        peer
    };
    let peer = connect(&first);
    let shown = api.get(&path).value(200);
    assert_eq!(shown, shown_with(&shown, connection, "active"));
    drop(peer);
    session.wait_for(ReportedState::Connecting, LONG).unwrap();

    let renewed = api
        .send("POST", &format!("{path}/token"), &[], b"")
        .value(200);
    let second = token(&renewed["token"]);
    assert_eq!(renewed, json!({ "token": second }));
    assert_ne!(first, second);
    let refused = Request::upgrade(&format!("/rpc?token={first}"));
    assert_eq!(refused.send(api.managed.host.address()).status, 401);
    let _peer = connect(&second);
    let shown = format!(
        "{} {}",
        api.get(&path).text(),
        api.get("/api/plugins").text()
    );
    assert!(!shown.contains("sdprt_"), "{shown}");
    api.end();
}

#[test]
fn its_manifest_is_replaced_whole() {
    let api = Api::new("admin-manifest");
    let (installed, _) = api.managed.install_external(manifest("outside")).unwrap();
    let id = installed.id().to_string();
    let path = format!("/api/plugins/{id}/manifest");
    let new = Manifest {
        version: "2".to_owned(),
        ..manifest("renamed")
    };
    let updated = api.json("PATCH", &path, &json!(new)).value(200);
    let connection = json!({"mode": "external"});
    let status = json!({"active_state": "connecting"});
    assert_eq!(updated, expected(&updated, &id, &new, &connection, status));
    assert_eq!(api.shown(installed.id()), updated);
    for (body, kind) in [
        (json!({"id": "a"}), "invalid_manifest"),
        (json!([]), "invalid_manifest"),
        (json!(null), "invalid_manifest"),
    ] {
        assert_eq!(api.json("PATCH", &path, &body).problem(400).0, kind);
    }
    let other = api.send(
        "PATCH",
        &path,
        &[("Content-Type", "application/yaml")],
        b"id: a",
    );
    assert_eq!(other.problem(415).0, "unsupported_media_type");
    assert_eq!(api.shown(installed.id()), updated);
    api.end();
}

#[test]
fn a_plugin_that_the_host_runs_has_neither() {
    let api = Api::new("admin-not-external");
    let plugin = api.managed.installed(api.managed.package("1", &[]));
    let before = api.shown(plugin);
    let path = format!("/api/plugins/{plugin}");
    let refused = [
        api.send("POST", &format!("{path}/token"), &[], b""),
        api.json(
            "PATCH",
            &format!("{path}/manifest"),
            &json!(manifest("scripted")),
        ),
    ];
    for answer in refused {
        let (kind, detail) = answer.problem(400);
        assert_eq!(kind, "unsupported");
        assert!(detail.contains("external"), "{detail}");
    }
    assert_eq!(api.shown(plugin), before);
    let unknown = "/api/plugins/d5k1vvc5o2dtjn9ct4bg";
    for answer in [
        api.send("POST", &format!("{unknown}/token"), &[], b""),
        api.json(
            "PATCH",
            &format!("{unknown}/manifest"),
            &json!(manifest("a")),
        ),
    ] {
        assert_eq!(answer.problem(404).0, "not_installed");
    }
    api.end();
}
