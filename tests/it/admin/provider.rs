//! A host that runs no plugins from packages.

use plugin_runner::RuntimeProvider;
use plugin_runner::admin::AdminSettings;
use serde_json::json;

use super::Api;
use crate::manager::{Managed, settings};
use crate::support::host::TestHost;
use crate::support::plugin::manifest;

#[test]
fn without_a_runtime_only_what_needs_one_is_refused() {
    let host = TestHost::with("admin-none", |setup| {
        setup.configure(|builder| builder.runtime_provider(RuntimeProvider::None));
    });
    let api = Api::of(Managed::of(host, settings()), AdminSettings::default());
    let zip = api.managed.package("1", &[]);
    let by_url = json!({"mode": "supervised", "url": "https://a.example/plugin.zip"});
    for refused in [
        api.zip("POST", "/api/plugins", &zip),
        api.json("POST", "/api/plugins", &by_url),
    ] {
        let (kind, detail) = refused.problem(403);
        assert_eq!(kind, "disabled");
        assert!(detail.contains("'none'"), "{detail}");
    }
    api.managed.expect_nothing_at_all();
    let external = json!({"mode": "external", "manifest": manifest("outside")});
    let added = api.json("POST", "/api/plugins", &external).value(200);
    let path = format!("/api/plugins/{}", added["id"].as_str().unwrap());
    assert_eq!(
        api.get(&path).value(200)["status"]["active_state"],
        "connecting"
    );
    assert_eq!(api.send("DELETE", &path, &[], b"").status, 204);
    api.end();
}
