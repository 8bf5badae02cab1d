//! Versions of a plugin that are kept.

use serde_json::{Value, json};

use super::Api;
use crate::support::plugin::manifest;

#[test]
fn versions_are_listed_and_gone_back_to() {
    let api = Api::new("admin-versions");
    let managed = &api.managed;
    let plugin = managed.running(managed.package("1", &[]));
    let path = format!("/api/plugins/{plugin}/versions");
    let listed = || api.get(&path).value(200)["versions"].clone();
    let rollback =
        |body: &Value| api.json("POST", &format!("/api/plugins/{plugin}/rollback"), body);

    let first = listed()[0]["sha256"].as_str().unwrap().to_owned();
    let (kind, _) = rollback(&json!({})).problem(404);
    assert_eq!(kind, "unknown_version");
    managed.update(plugin, managed.package("2", &[])).unwrap();
    let both = listed();
    assert_eq!(both.as_array().unwrap().len(), 2, "{both}");
    assert_eq!(
        (&both[0]["version"], &both[0]["is_current"]),
        (&json!("2"), &json!(true))
    );
    assert_eq!(
        (&both[1]["version"], &both[1]["is_current"]),
        (&json!("1"), &json!(false))
    );
    assert_eq!(both[1]["sha256"], *first);
    assert_eq!(both[0]["used_until"], Value::Null);
    for (version, time) in [(0, "used_from"), (1, "used_from"), (1, "used_until")] {
        let time = both[version][time].as_str().unwrap();
        assert!(time.ends_with('Z'), "{time}");
    }

    let shown = rollback(&json!({})).value(200);
    assert_eq!(shown["version"], "1");
    assert_eq!(shown["status"]["active_state"], "active");
    assert_eq!(managed.answering_version(plugin), "1");
    let second = both[0]["sha256"].clone();
    let shown = rollback(&json!({"to": second})).value(200);
    assert_eq!(shown["version"], "2", "forward again");

    let (kind, detail) = rollback(&json!({"to": "0".repeat(64)})).problem(404);
    assert_eq!(kind, "unknown_version");
    assert!(detail.contains(&first), "what is kept is named: {detail}");
    for (body, words) in [
        (json!({"to": "1"}), "64"),
        (json!({"version": "1"}), "expected `to`"),
        (json!([]), "JSON object"),
    ] {
        let (_, detail) = rollback(&body).problem(400);
        assert!(detail.contains(words), "{detail}");
    }
    // It must not be guessed what a body without its type was meant to be.
    let path = format!("/api/plugins/{plugin}/rollback");
    let untyped = api.send("POST", &path, &[], b"");
    assert_eq!(untyped.problem(415).0, "unsupported_media_type");
    assert_eq!(managed.answering_version(plugin), "2");

    let (outside, _) = managed.install_external(manifest("outside")).unwrap();
    let outside = api.get(&format!("/api/plugins/{}/versions", outside.id()));
    assert_eq!(outside.problem(400).0, "unsupported");
    api.end();
}
