//! What Prometheus reads. What its numbers are is tested with the manager.

use std::process::Command;

use plugin_runner::InstallationId;
use plugin_runner::protocol::Transport;
use plugin_runner::protocol::method::Ping;
use serde_json::{Value, json};

use super::{Api, TOKEN};
use crate::support::LONG;
use crate::third_party::venv;

/// Scrapes with the token, and prints each series with its family's type, as Prometheus' own library reads them.
const SCRAPE: &str = r#"
import json, sys, urllib.request
from prometheus_client.parser import text_string_to_metric_families
url, token = sys.argv[1:]
request = urllib.request.Request(url, headers={"Authorization": "Bearer " + token})
with urllib.request.urlopen(request, timeout=30) as answer:
    text = answer.read().decode()
print(json.dumps([
    {"type": family.type, "help": family.documentation, "name": sample.name,
     "labels": sample.labels, "value": sample.value}
    for family in text_string_to_metric_families(text) for sample in family.samples
]))
"#;

#[test]
fn a_scrape_needs_the_token_and_is_answered_with_text() {
    let api = Api::new("admin-metrics");
    let refused = api.send_without_token("GET", "/metrics", &[], b"");
    assert_eq!(refused.status, 401);
    assert!(!refused.text().contains("plugin_runner_"));
    let answer = api.get("/metrics");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let kind = answer.header("Content-Type").unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    assert!(
        text.contains("\nplugin_runner_sessions{state=\"active\"} 0\n"),
        "{text}"
    );
    assert!(!text.contains(TOKEN));
    api.end();
}

#[test]
fn the_parser_of_prometheus_reads_a_scrape() {
    let test = "the_parser_of_prometheus_reads_a_scrape";
    let Some(venv) = venv(test, "prometheus-0.26.0") else {
        return;
    };
    let api = Api::new("admin-metrics-parser");
    let package = |id, words| api.managed.package_of(id, "1", Transport::WebSocket, words);
    let steady = api.managed.running(package("steady", &[]));
    let broken = api
        .managed
        .installed(package("broken", &["exit-at", "start", "7"]));
    api.managed.activate(broken, LONG).unwrap_err();
    api.managed.session(steady).call(&Ping {}, LONG).unwrap();

    let scrape = Command::new(venv.join("bin/python"))
        .args(["-c", SCRAPE, &api.url("/metrics"), TOKEN])
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&scrape.stderr);
    assert!(scrape.status.success(), "{problem}");
    let series: Vec<Value> = serde_json::from_slice(&scrape.stdout).expect("JSON");
    assert!(series.len() > 100, "only {}", series.len());
    for one in &series {
        // What the parser cannot place is a family of its own, without a type.
        let kind = one["type"].as_str().unwrap();
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{one}");
        assert!(one["help"].as_str().unwrap().ends_with('.'), "{one}");
        assert!(one["value"].as_f64().unwrap() >= 0.0, "{one}");
    }
    let value = |name: &str, labels: Value| {
        let name = format!("plugin_runner_{name}");
        let found = series
            .iter()
            .find(|one| one["name"] == *name && one["labels"] == labels);
        found.unwrap_or_else(|| panic!("no {name} with {labels}"))["value"].as_f64()
    };
    let plugin = |id: InstallationId, name: &str| json!({"plugin": id.to_string(), "name": name});
    assert_eq!(value("plugin_up", plugin(steady, "steady")), Some(1.0));
    assert_eq!(value("plugin_up", plugin(broken, "broken")), Some(0.0));
    let calls = json!({"direction": "to_plugin", "outcome": "ok"});
    assert_eq!(value("calls_total", calls), Some(1.0));
    let all = json!({"outcome": "ok", "le": "+Inf"});
    assert_eq!(value("call_duration_seconds_bucket", all), Some(1.0));
    let ends = json!({"cause": "exited"});
    assert_eq!(value("run_ends_total", ends), Some(4.0));
    api.end();
}
