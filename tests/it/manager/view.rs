//! What an admin API may show of plugins and of operations on them: all of it, and nothing that is secret.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use plugin_runner::ReportedState::{Active, Errored};
use plugin_runner::manager::Installation;
use plugin_runner::store::Overrides;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Managed, settings, sha256};
use crate::support::plugin::manifest;
use crate::support::{LONG, object};

/// In everything that must not be shown.
const SECRET: &str = "hush-hush";

fn shown(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap()
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

#[test]
fn an_installation_is_shown_with_what_an_admin_needs() {
    let managed = Managed::new("shown");
    let began = now();
    let package = managed.package("1", &["exit-at", "start", "7"]);
    let id = managed.installed(package.clone());
    let mut record = managed.store.get(id).unwrap().unwrap();
    record.overrides = Overrides::default()
        .environment([("TOKEN_OF_ANOTHER", SECRET)])
        .inbound_per_second(7);
    record.configuration = object(json!({ "password": SECRET }));
    record.added_by = Some("Ada".to_owned());
    record.labels.insert("team".to_owned(), "red".to_owned());
    managed.store.put(record).unwrap();
    managed.activate(id, LONG).unwrap_err();
    let plugin = managed.get(id).unwrap();
    assert_eq!(plugin.reported_state(), Errored);
    let text = format!("{plugin:?} {}", shown(&plugin));
    assert!(!text.contains(SECRET), "{text}");
    let json = shown(&plugin);
    assert_eq!(json["id"], id.to_string());
    assert_eq!(json["manifest"]["id"], "scripted");
    assert_eq!(json["mode"], "supervised");
    assert_eq!(json["active_state"], "active");
    assert_eq!(json["reported_state"], "errored");
    assert_eq!(json["message"], plugin.message().unwrap());
    assert_eq!(json["details"]["exit_code"], 7);
    let source = json!({
        "kind": "stored", "sha256": sha256(&plugin),
        "size": package.len(),
    });
    assert_eq!(json["source"], source);
    assert_eq!(
        (&json["added_by"], &json["labels"]["team"]),
        (&json!("Ada"), &json!("red"))
    );
    assert_eq!(json["environment"], json!(["TOKEN_OF_ANOTHER"]));
    assert_eq!(json["overrides"], json!({ "inbound_per_second": 7 }));
    assert_eq!(
        (&json["damage"], &json["warnings"]),
        (&Value::Null, &json!([]))
    );
    for time in ["since", "added_at"] {
        let time = json[time].as_f64().unwrap();
        assert!((began..=now()).contains(&time), "{json}");
    }
    assert_eq!(json.get("configuration"), None);
    // Only who asks for it is shown it, and not in a log line even then.
    let plugin = plugin.show_configuration();
    assert_eq!(shown(&plugin)["configuration"]["password"], SECRET);
    assert!(!format!("{plugin:?}").contains(SECRET));
}

#[test]
fn an_external_plugin_is_shown_without_its_token() {
    let managed = Managed::with("shown-token", settings().keep_external_tokens(true));
    let (installed, token) = managed.install_external(manifest("outside")).unwrap();
    let shown_again = managed.get(installed.id()).unwrap();
    let kept = shown_again.record().external_token();
    assert_eq!(kept, Some(&token), "there is nothing to be hidden");
    for plugin in [installed, shown_again] {
        let json = shown(&plugin);
        assert_eq!(
            (&json["mode"], &json["source"]),
            (&json!("external"), &Value::Null)
        );
        let text = format!(
            "{json} {plugin:?} {}",
            shown(&plugin.clone().show_configuration())
        );
        assert!(!text.contains(token.expose()), "{text}");
    }
}

#[test]
fn reports_are_shown_whatever_a_plugin_names_its_files() {
    let managed = Managed::new("shown-reports");
    let id = managed.running(managed.package("1", &[]));
    let release = managed
        .folder(id)
        .join("releases")
        .join(&managed.releases(id)[0]);
    // The new version has a directory there.
    let odd = OsStr::from_bytes(b"odd\xff");
    rustix::fs::mkfifoat(rustix::fs::CWD, release.join(odd), rustix::fs::Mode::RUSR).unwrap();
    fs::write(release.join("own.txt"), "1234").unwrap();
    let update = managed.update(id, managed.package("2", &[])).unwrap();
    assert_eq!((update.migrated_files, update.migrated_bytes), (1, 4));
    assert_eq!(update.left[0].0, odd);
    let json = shown(&update);
    assert_eq!(json["installation"]["reported_state"], shown(&Active));
    assert_eq!(json["unchanged"], false);
    assert!(json["gap"].as_f64().unwrap() > 0.0, "{json}");
    assert_eq!(
        (&json["migrated_files"], &json["left_count"]),
        (&json!(1), &json!(1))
    );
    let left =
        json!([{"path": "odd\u{fffd}", "reason": "it is a socket, a named pipe or a device"}]);
    assert_eq!(json["left"], left);
    assert_eq!(json["previous"], release.to_str().unwrap());

    let failing = managed.installed(managed.package("1", &["exit-at", "start", "7"]));
    managed.activate(failing, LONG).unwrap_err();
    let booted = shown(&managed.boot(LONG).unwrap());
    assert_eq!(booted["active"], json!([id.to_string()]));
    let failed = &booted["failed"][0];
    assert_eq!(failed["id"], failing.to_string());
    assert_eq!(failed["kind"], "plugin_failed");
    assert!(
        booted["took"].is_f64() && failed["message"].is_string(),
        "{booted}"
    );
    let removed = shown(&managed.remove_keeping_data(id).unwrap());
    assert_eq!(removed["kept"], managed.folder(id).to_str().unwrap());
    assert_eq!(
        (&removed["left"], &removed["descendants"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn a_damaged_installation_is_shown_as_such() {
    let store = std::sync::Arc::new(super::store::FailingStore::default());
    let managed = Managed::over(store.clone(), "shown-damage", settings());
    let id = managed.installed(managed.package("1", &[]));
    store.damage(
        managed.store.get(id).unwrap().unwrap(),
        "its kind is unknown",
    );
    let all: Vec<Installation> = managed.list().unwrap();
    let json = shown(&all[0]);
    assert_eq!(json["reported_state"], "errored");
    assert_eq!(json["damage"], "its kind is unknown");
}
