//! The OpenAPI document.

use super::Api;

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
