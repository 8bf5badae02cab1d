//! The OpenAPI document, and a program that tries whether the server does what it says.
//!
//! With the variable `PLUGIN_RUNNER_ADMIN_EXAMPLES` it tries so many requests of each operation, and with
//! `PLUGIN_RUNNER_ADMIN_SEED` others.

use std::process::Command;
use std::time::Duration;

use plugin_runner::admin::AdminSettings;
use serde_json::json;

use super::{Api, TOKEN};
use crate::manager::{Managed, settings};
use crate::support::host::TestHost;
use crate::support::plugin::manifest;
use crate::support::{LONG, number};
use crate::third_party::venv;

#[test]
fn the_document_is_served_as_it_is() {
    let api = Api::new("admin-openapi");
    let answer = api.get("/api/openapi.json");
    assert_eq!(answer.value(200)["openapi"], "3.1.0");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(
        answer.text(),
        include_str!("../../../src/admin/openapi.json")
    );
    let path = "/api/openapi.json";
    assert_eq!(api.send_without_token("GET", path, &[], b"").status, 401);
    api.end();
}

/// Seconds after which it is ended. On an idle machine it takes less than one minute.
const LIMIT: &str = "300";

/// Checks that are about what an answer is; others are about what a server should refuse.
const CHECKS: &str = "status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,ignored_auth,only_plugins_fail";

#[test]
fn schemathesis_finds_no_answer_that_is_not_in_the_document() {
    let test = "schemathesis_finds_no_answer_that_is_not_in_the_document";
    let Some(venv) = venv(test, "schemathesis-4.32.5") else {
        return;
    };
    let examples = number("PLUGIN_RUNNER_ADMIN_EXAMPLES").unwrap_or(15);
    let seed = number("PLUGIN_RUNNER_ADMIN_SEED").unwrap_or(1);
    // It installs as many plugins as it can, and starts some that never connect.
    let settings = settings()
        .installations(20)
        .activate_timeout(Duration::from_secs(5));
    let managed = Managed::of(TestHost::new("admin-schemathesis"), settings);
    let api = Api::of(managed, AdminSettings::default());
    let managed = &api.managed;
    managed.boot(LONG).unwrap();
    let running = managed.installed(managed.package("1", &[]));
    managed.update(running, managed.package("2", &[])).unwrap();
    managed.activate(running, LONG).unwrap();
    let package = || managed.package("1", &[]);
    let (idle, changed, doomed) = (
        managed.installed(package()),
        managed.installed(package()),
        managed.installed(package()),
    );
    let (outside, _) = managed.install_external(manifest("outside")).unwrap();
    let all = [running, idle, outside.id()];
    let plugins = json!({
        "*": all,
        "PluginDelete": [doomed],
        // Not one that is waited for.
        "PluginRestart": [running, idle],
        // So that the others still can be started.
        "PluginUpdateOverrides": [changed, outside.id()],
    });
    let folder = managed.host.folder().join("schemathesis");
    std::fs::create_dir(&folder).unwrap();
    let hooks = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/schemathesis_hooks.py"
    );
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", LIMIT])
        .arg(venv.join("bin/st"))
        .current_dir(&folder)
        .env("SCHEMATHESIS_HOOKS", hooks)
        .env("PLUGINS", plugins.to_string())
        .arg("run")
        .arg(api.url("/api/openapi.json"))
        .args(["--url", &api.server.url()])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--checks", CHECKS])
        // Streams do not end.
        .args(["--exclude-path-regex", "(logs|stream)$"])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", &examples.to_string()])
        .args(["--seed", &seed.to_string()])
        .args(["--request-timeout", &LONG.as_secs().to_string()])
        .args(["--generation-database", "none", "--no-color"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    // It did something, and the server is well.
    assert!(said.contains("Test cases"), "{said}");
    assert_eq!(api.get("/readyz").text(), "ready\n");
    api.end();
}
