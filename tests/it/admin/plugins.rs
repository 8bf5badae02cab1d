//! Listing and showing plugins.

use serde_json::json;

use super::Api;

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
