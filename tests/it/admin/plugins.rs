//! Listing, showing, adding and removing plugins.

use std::sync::Arc;

use plugin_runner::admin::AdminSettings;
use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::{InstallationId, fault};
use serde_json::{Value, json};

use super::{Api, expected};
use crate::manager::store::FailingStore;
use crate::manager::{Managed, settings};
use crate::support::plugin::manifest;

/// The id in an answer.
#[track_caller]
fn id(shown: &Value) -> InstallationId {
    shown["id"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_package_is_added_and_removed() {
    let api = Api::new("admin-add");
    let manifest = Manifest {
        command: "./run".to_owned(),
        ..manifest("fire-bot")
    };
    let zip = api.managed.package_with(&manifest, &[]);
    let added = api.zip("POST", "/api/plugins", &zip).value(200);
    let as_expected = |shown: &Value| {
        let connection = json!({"mode": "supervised"});
        let status = json!({"active_state": "inactive"});
        let id = shown["id"].as_str().unwrap();
        expected(shown, id, &manifest, &connection, status)
    };
    assert_eq!(added, as_expected(&added));
    assert_eq!(api.shown(id(&added)), added);
    // Once more is another installation.
    let other = api.zip("POST", "/api/plugins", &zip).value(200);
    assert_ne!(other["id"], added["id"]);
    let listed = api.get("/api/plugins").value(200);
    assert_eq!(listed, json!({"plugins": [added, other]}));
    for plugin in [added, other] {
        let path = format!("/api/plugins/{}", id(&plugin));
        let removed = api.send("DELETE", &path, &[], b"");
        assert_eq!((removed.status, removed.text()), (204, String::new()));
        let (kind, _) = api.send("DELETE", &path, &[], b"").problem(404);
        assert_eq!(kind, "not_installed");
    }
    api.managed.expect_nothing_at_all();
    api.end();
}

#[test]
fn data_is_kept_if_that_is_asked_for() {
    let api = Api::new("admin-keep-data");
    let plugin = api.managed.running(api.managed.package("1", &[]));
    let path = format!("/api/plugins/{plugin}?keep_data=");
    let (kind, _) = api
        .send("DELETE", &format!("{path}1"), &[], b"")
        .problem(400);
    assert_eq!(kind, "invalid_input");
    let removed = api
        .send("DELETE", &format!("{path}true"), &[], b"")
        .value(200);
    let kept = removed["kept"].as_str().expect("where it is");
    assert!(std::path::Path::new(kept).is_dir(), "{kept}");
    assert_eq!(removed["left"], Value::Null);
    api.end();
}

#[test]
fn what_cannot_be_added_is_refused_and_leaves_nothing() {
    let api = Api::new("admin-add-wrong");
    let described = json!({"mode": "external", "manifest": manifest("outside")});
    let text = |value: Value| value.to_string().into_bytes();
    let with = |mut value: Value, name: &str, other: Value| {
        value[name] = other;
        text(value)
    };
    let json = "application/json";
    let rows: Vec<(&str, Vec<u8>, u16, &str, &str)> = vec![
        // content type, body, status, kind, what the detail names
        (
            "",
            text(described.clone()),
            415,
            "unsupported_media_type",
            "application/zip",
        ),
        (
            "text/plain",
            b"a".to_vec(),
            415,
            "unsupported_media_type",
            "application/json",
        ),
        (json, b"".to_vec(), 400, "invalid_input", "EOF"),
        (json, b"{\"mode\": ".to_vec(), 400, "invalid_input", "EOF"),
        (json, b"[]".to_vec(), 400, "invalid_input", "object"),
        (json, b"\xff".to_vec(), 400, "invalid_input", "line 1"),
        (json, text(json!({})), 400, "invalid_input", "mode"),
        (
            json,
            text(json!({"mode": "remote"})),
            400,
            "invalid_input",
            "supervised",
        ),
        (
            json,
            text(json!({"mode": "supervised"})),
            400,
            "invalid_input",
            "url",
        ),
        (
            json,
            text(json!({"mode": "supervised", "url": 1})),
            400,
            "invalid_input",
            "string",
        ),
        (
            json,
            text(json!({"mode": "supervised", "url": "https://a.example/", "manifest": {}})),
            400,
            "invalid_input",
            "url",
        ),
        (
            json,
            text(json!({"mode": "external"})),
            400,
            "invalid_input",
            "manifest",
        ),
        (
            json,
            with(described.clone(), "url", json!("")),
            400,
            "invalid_input",
            "manifest",
        ),
        (
            json,
            with(described.clone(), "label", json!("")),
            400,
            "invalid_input",
            "label",
        ),
        (
            json,
            with(described.clone(), "manifest", json!({"id": "a"})),
            400,
            "invalid_manifest",
            "author",
        ),
        (
            json,
            with(described, "manifest", json!("x")),
            400,
            "invalid_manifest",
            "a string",
        ),
        (
            "application/zip",
            b"".to_vec(),
            400,
            "invalid_package",
            "zip",
        ),
        (
            "Application/ZIP; q=1",
            b"PK".to_vec(),
            400,
            "invalid_package",
            "zip",
        ),
    ];
    for (content_type, body, status, kind, named) in rows {
        let headers = [("Content-Type", content_type)];
        let headers = &headers[usize::from(content_type.is_empty())..];
        let answer = api.send("POST", "/api/plugins", headers, &body);
        let what = String::from_utf8_lossy(&body).into_owned();
        let (found, detail) = answer.problem(status);
        assert_eq!(found, kind, "{what}: {detail}");
        assert!(detail.contains(named), "{what}: {detail}");
    }
    // What is wrong with each field is told as such.
    let body = json!({"mode": "external", "manifest": {"id": "a", "name": 1}});
    let answer = api.json("POST", "/api/plugins", &body).value(400);
    let fields = answer["fields"].as_array().unwrap();
    let names: Vec<_> = fields.iter().map(|field| &field["field"]).collect();
    assert!(
        names.contains(&&json!("name")) && names.contains(&&json!("author")),
        "{answer}"
    );
    let pinned = json!({"mode": "external", "manifest": manifest("outside")});
    let answer = api.json("POST", "/api/plugins?sha256=00", &pinned);
    assert!(answer.problem(400).1.contains("sha256"));
    api.managed.expect_nothing_at_all();
    api.end();
}

#[test]
fn a_body_over_its_limit_is_refused() {
    let api = Api::new("admin-large");
    let large = json!({"mode": "supervised", "url": "a".repeat(5 << 20)});
    let answer = api.json("POST", "/api/plugins", &large);
    let (kind, detail) = answer.problem(413);
    assert_eq!(kind, "invalid_body");
    assert!(detail.contains("4194304"), "{detail}");
    api.end();
}

#[cfg(feature = "fetch")]
#[test]
fn a_package_is_fetched_from_a_url() {
    use crate::manager::fetch::{fetching_from, ok, serve};

    let makes = Managed::new("admin-makes");
    let zip = makes.package("1", &[]);
    let not_found = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
    let redirect =
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\n\r\n".to_vec();
    let mut short = ok(&zip);
    short.truncate(short.len() - 1);
    let pin = "0".repeat(64);
    for (what, answer, pin, status, kind) in [
        ("good", ok(&zip), None, 200, ""),
        ("not found", not_found, None, 502, "fetch_refused"),
        ("cut off", short, None, 502, "fetch_failed"),
        (
            "into the cloud's metadata",
            redirect,
            None,
            400,
            "private_address",
        ),
        ("no package", ok(b"PK"), None, 400, "invalid_package"),
        (
            "another package",
            ok(&zip),
            Some(pin),
            400,
            "digest_mismatch",
        ),
    ] {
        let (address, served) = serve(answer);
        let managed = Managed::with("admin-fetch", fetching_from(address));
        let api = Api::of(managed, AdminSettings::default());
        let body = json!({
            "mode": "supervised",
            "url": format!("http://{address}/fire-bot.zip?key=secret"),
        });
        let query = pin.map_or_else(String::new, |pin| format!("?sha256={pin}"));
        let answer = api.json("POST", &format!("/api/plugins{query}"), &body);
        served.join().unwrap();
        if status == 200 {
            let added = answer.value(200);
            assert_eq!(added["connection"], json!({"mode": "supervised"}));
            api.managed.expect_nothing_left_over();
        } else {
            let (found, detail) = answer.problem(status);
            assert_eq!(found, kind, "{what}: {detail}");
            assert!(!detail.contains("secret"), "{what}: {detail}");
            api.managed.expect_nothing_at_all();
        }
        api.end();
    }
    let api = Api::new("admin-url");
    for (url, kind) in [
        ("", "invalid_input"),
        (" ", "invalid_input"),
        ("plugin.zip", "invalid_input"),
        ("ftp://a.example/plugin.zip", "invalid_input"),
        ("https://user:hush@a.example/plugin.zip", "invalid_input"),
        ("http://127.0.0.1:1/", "private_address"),
        ("http://[::1]:1/", "private_address"),
    ] {
        let body = json!({"mode": "supervised", "url": url});
        let (found, detail) = api.json("POST", "/api/plugins", &body).problem(400);
        assert_eq!(found, kind, "{url}: {detail}");
        assert!(!detail.contains("hush"), "{detail}");
    }
    api.managed.expect_nothing_at_all();
    api.end();
}

#[test]
fn a_plugin_that_cannot_be_stopped_is_not_removed() {
    let api = Api::with_short_stops("admin-stuck");
    let plugin = api.managed.running(api.managed.package("1", &[]));
    let loss = fault::lose(fault::SIGNALLING, plugin);
    let path = format!("/api/plugins/{plugin}");
    let (kind, detail) = api.send("DELETE", &path, &[], b"").problem(504);
    assert_eq!(kind, "timeout");
    assert!(detail.contains("stop"), "{detail}");
    drop(loss);
    // As what no signal reaches may end by itself some day.
    api.managed.host.lifelines.next().cut();
    assert_eq!(api.shown(plugin)["id"], plugin.to_string());
    api.end();
}

#[test]
fn a_damaged_record_spoils_no_list() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "admin-damage", settings());
    let zip = |id| managed.package_of(id, "1", Transport::WebSocket, &[]);
    let (sound, damaged) = (
        managed.installed(zip("sound")),
        managed.installed(zip("hurt")),
    );
    let record = managed.get(damaged).unwrap().record().clone();
    store.damage(record, "its manifest is gone");
    let api = Api::of(managed, AdminSettings::default());
    let listed = api.get("/api/plugins").value(200);
    let plugins = listed["plugins"].as_array().unwrap();
    assert_eq!(plugins.len(), 2);
    assert_eq!(plugins[0], api.shown(sound));
    let message = "its record is damaged: its manifest is gone";
    assert_eq!(
        plugins[1]["status"],
        json!({"active_state": "error", "message": message, "details": {}})
    );
    assert_eq!(plugins[1], api.shown(damaged));
    let body = json!({"active": "active"});
    let answer = api.json("PATCH", &format!("/api/plugins/{damaged}/active"), &body);
    assert_eq!(answer.problem(500).0, "record_damaged");
    api.end();
}

#[test]
fn plugins_are_listed_and_shown_as_storyden_shows_them() {
    let api = Api::new("admin-list");
    assert_eq!(api.get("/api/plugins").value(200), json!({"plugins": []}));
    let plugin = api.managed.installed(api.managed.package("1.0.0", &[]));
    let shown = api
        .get(&format!("/api/plugins/{plugin}-and-a-name"))
        .value(200);
    assert_eq!(shown["id"], plugin.to_string());
    assert_eq!(shown["version"], "1.0.0");
    assert_eq!(shown["connection"], json!({"mode": "supervised"}));
    assert_eq!(shown["status"]["active_state"], "inactive");
    assert!(
        shown["status"]["deactivated_at"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    assert_eq!(
        api.get("/api/plugins").value(200),
        json!({"plugins": [shown]})
    );
    for unknown in ["d5k1vvc5o2dtjn9ct4bg", "1", "%20"] {
        let (kind, _) = api.get(&format!("/api/plugins/{unknown}")).problem(404);
        assert_eq!(kind, "not_installed");
    }
    api.end();
}
