//! What plugins do and use.

use plugin_runner::protocol::method::Ping;
use serde_json::{Value, json};

use super::Api;
use crate::support::plugin::manifest;
use crate::support::{LONG, wait_until};

#[test]
fn each_installed_plugin_is_shown_with_what_it_does_and_uses() {
    let api = Api::new("admin-usage");
    let managed = &api.managed;
    let refused = api.send_without_token("GET", "/api/usage", &[], b"");
    assert_eq!(refused.status, 401);
    let none = api.get("/api/usage").value(200);
    assert_eq!(none["plugins"], json!([]));

    let steady = managed.running(managed.package("1", &[]));
    let broken = managed.installed(managed.package("1", &["exit-at", "start", "7"]));
    managed.activate(broken, LONG).unwrap_err();
    let (outside, _) = managed.install_external(manifest("outside")).unwrap();
    let session = managed.session(steady);
    for _ in 0..3 {
        session.call(&Ping {}, LONG).unwrap();
    }
    session
        .call_raw("no-such-method", &json!({}), LONG)
        .unwrap_err();

    let usage = api.get("/api/usage").value(200);
    let plugins = usage["plugins"].as_array().unwrap();
    let ids: Vec<_> = plugins.iter().map(|plugin| plugin["id"].clone()).collect();
    assert_eq!(
        json!(ids),
        json!([steady, broken, outside.id()]),
        "in the order of the list"
    );
    let of = |place: usize, members: &[&str]| -> Vec<Value> {
        members
            .iter()
            .map(|&member| plugins[place][member].clone())
            .collect()
    };
    let members = ["manifest_id", "state", "restarts", "calls", "failed"];
    assert_eq!(
        json!(of(0, &members)),
        json!(["scripted", "active", 0, 4, 1])
    );
    // It was started again as often as that may be.
    assert_eq!(
        json!(of(1, &members)),
        json!(["scripted", "errored", 3, 0, 0])
    );
    assert_eq!(
        json!(of(2, &members)),
        json!(["outside", "connecting", 0, 0, 0])
    );
    let status = &api.shown(steady)["status"];
    assert_eq!(plugins[0]["since"], status["activated_at"]);
    for idle in &plugins[1..] {
        assert_eq!(idle["process"], Value::Null, "{idle}");
    }
    // Of all plugins: each bucket has what the ones before it have.
    let buckets = usage["call_durations"].as_array().unwrap();
    let counts: Vec<_> = buckets.iter().map(|bucket| &bucket["calls"]).collect();
    assert!(
        counts.is_sorted_by_key(|count| count.as_u64()),
        "{counts:?}"
    );
    let last = buckets.last().unwrap();
    assert_eq!(*last, json!({"up_to_seconds": null, "calls": 4}));

    if cfg!(target_os = "linux") {
        let process = || api.get("/api/usage").value(200)["plugins"][0]["process"].clone();
        assert_eq!(process()["processes"], 1);
        assert!(process()["memory_bytes"].as_u64() > Some(100_000));
        let before = process()["cpu_seconds"].as_f64();
        wait_until("processor time to be used", || {
            (0..100).for_each(|_| drop(session.call(&Ping {}, LONG).unwrap()));
            process()["cpu_seconds"].as_f64() > before
        });
    }
    api.end();
}
