//! Starting and stopping plugins.

use std::io::Write as _;
use std::time::Duration;

use plugin_runner::admin::AdminSettings;
use plugin_runner::{InstallationId, ReportedState, fault};
use serde_json::{Value, json};

use super::{Answer, Api, TOKEN, expected};
use crate::manager::{Managed, settings};
use crate::support::host::TestHost;
use crate::support::http::connect;
use crate::support::plugin::manifest;
use crate::support::{LONG, wait_until};

impl Api {
    fn set_active(&self, id: InstallationId, body: &Value) -> Answer {
        self.json("PATCH", &format!("/api/plugins/{id}/active"), body)
    }

    /// Stops the plugin, which must succeed.
    #[track_caller]
    fn expect_stop(&self, plugin: InstallationId) {
        let inactive = json!({"active": "inactive"});
        let stopped = self.set_active(plugin, &inactive).value(200);
        assert_eq!(stopped["status"]["active_state"], "inactive");
    }
}

#[test]
fn a_plugin_is_activated_and_deactivated() {
    let api = Api::new("admin-active");
    let plugin = api.managed.installed(api.managed.package("1", &[]));
    let installed = api.managed.get(plugin).unwrap();
    // It has never been loaded.
    for (wanted, times) in [("inactive", 1), ("active", 2), ("inactive", 2)] {
        for _ in 0..times {
            let answer = api.set_active(plugin, &json!({ "active": wanted }));
            let shown = answer.value(200);
            let manifest = installed.manifest();
            let connection = json!({"mode": "supervised"});
            let status = json!({ "active_state": wanted });
            let id = plugin.to_string();
            assert_eq!(shown, expected(&shown, &id, manifest, &connection, status));
            assert_eq!(api.shown(plugin), shown);
        }
    }
    api.end();
}

#[test]
fn one_that_fails_says_why() {
    let host = TestHost::with("admin-errored", |setup| {
        setup.policy(|policy| policy.max_restart_attempts(0));
    });
    let api = Api::of(Managed::of(host, settings()), AdminSettings::default());
    let zip = api.managed.package("1", &["exit-at", "start", "42"]);
    let plugin = api.managed.installed(zip);
    // Once more is a start of its own.
    for _ in 0..2 {
        let answer = api.set_active(plugin, &json!({"active": "active"}));
        let (kind, detail) = answer.problem(502);
        assert_eq!(kind, "plugin_failed");
        assert!(detail.contains("exit status 42"), "{detail}");
    }
    let shown = api.shown(plugin);
    let status = &shown["status"];
    assert_eq!(status["active_state"], "error");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("exit status 42")
    );
    assert_eq!(status["details"]["exit_code"], 42);
    api.expect_stop(plugin);
    api.end();
}

#[test]
fn one_that_never_connects_runs_out_of_time_and_can_be_stopped() {
    let quick = settings().activate_timeout(Duration::from_millis(50));
    let api = Api::of(
        Managed::with("admin-hangs", quick),
        AdminSettings::default(),
    );
    let plugin = api
        .managed
        .installed(api.managed.package("1", &["hang-at", "start"]));
    let answer = api.set_active(plugin, &json!({"active": "active"}));
    let (kind, detail) = answer.problem(504);
    assert_eq!(kind, "timeout");
    assert!(detail.contains("timed out"), "{detail}");
    api.expect_stop(plugin);
    api.end();
}

#[test]
fn a_stop_that_takes_too_long_goes_on() {
    let api = Api::with_short_stops("admin-slow-stop");
    let plugin = api.managed.running(api.managed.package("1", &[]));
    let loss = fault::lose(fault::SIGNALLING, plugin);
    let answer = api.set_active(plugin, &json!({"active": "inactive"}));
    assert_eq!(answer.problem(504).0, "timeout");
    drop(loss);
    // As what no signal reaches may end by itself some day.
    api.managed.host.lifelines.next().cut();
    let session = api.managed.session(plugin);
    let stopped = session.wait_for(ReportedState::Inactive, LONG);
    stopped.unwrap();
    let shown = api.managed.get(plugin).unwrap();
    assert_eq!(shown.record().active_state.as_str(), "inactive");
    api.end();
}

#[test]
fn other_states_and_other_plugins_are_refused() {
    let api = Api::new("admin-active-wrong");
    let (outside, _) = api.managed.install_external(manifest("outside")).unwrap();
    let plugin = api.managed.installed(api.managed.package("1", &[]));
    for wanted in ["active", "inactive"] {
        let answer = api.set_active(outside.id(), &json!({ "active": wanted }));
        let (kind, detail) = answer.problem(400);
        assert_eq!(kind, "unsupported");
        assert!(detail.contains("external"), "{detail}");
    }
    for body in [
        json!({"active": "starting"}),
        json!({"active": "connecting"}),
        json!({"active": "error"}),
        json!({"active": "restarting"}),
        json!({"active": true}),
        json!({"active": null}),
        json!({"active": "active", "timeout": 1}),
        json!({}),
        json!([]),
        json!("active"),
    ] {
        assert_eq!(
            api.set_active(plugin, &body).problem(400).0,
            "invalid_input",
            "{body}"
        );
    }
    let path = format!("/api/plugins/{plugin}/active");
    let answer = api.send("PATCH", &path, &[], b"{\"active\": \"active\"}");
    assert_eq!(answer.problem(415).0, "unsupported_media_type");
    assert_eq!(api.shown(plugin)["status"]["active_state"], "inactive");
    let unknown = InstallationId::generate();
    let answer = api.set_active(unknown, &json!({"active": "active"}));
    assert_eq!(answer.problem(404).0, "not_installed");
    api.end();
}

#[test]
fn a_client_that_goes_away_and_a_stop_end_the_wait_and_not_the_start() {
    let api = Api::new("admin-active-gone");
    let zip = api.managed.package("1", &["hang-at", "start"]);
    let (gone, stopped) = (
        api.managed.installed(zip.clone()),
        api.managed.installed(zip),
    );
    let request = |plugin| {
        let body = r#"{"active": "active"}"#;
        let stream = connect(api.server.address());
        let head = format!(
            "PATCH /api/plugins/{plugin}/active HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        (&stream).write_all(head.as_bytes()).unwrap();
        stream
    };
    let (leaving, staying) = (request(gone), request(stopped));
    for plugin in [gone, stopped] {
        wait_until("its start", || {
            let shown = api.managed.get(plugin).unwrap();
            shown.reported_state() == ReportedState::Connecting
        });
    }
    drop(leaving);
    assert_eq!(api.server.stop(LONG), 0);
    let answer = crate::support::http::Answer::read(staying);
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("what was begun goes on"),
        "{}",
        answer.body
    );
    for plugin in [gone, stopped] {
        assert_eq!(
            api.managed.get(plugin).unwrap().reported_state(),
            ReportedState::Connecting
        );
        assert_eq!(
            api.managed
                .get(plugin)
                .unwrap()
                .record()
                .active_state
                .as_str(),
            "active"
        );
    }
    api.end();
}
