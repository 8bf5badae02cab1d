//! What is refused before there is an operation: problems as well, whoever finds them.

use plugin_runner::admin::AdminSettings;
use serde_json::Value;

use super::{Api, TOKEN};
use crate::support::http::{Answer, connect, exchange};

#[track_caller]
fn assert_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    let content_type = answer.header("Content-Type");
    assert_eq!(content_type, Some("application/problem+json"), "{answer:?}");
    assert_eq!(answer.header("Connection"), Some("close"));
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["status"], status);
    for member in ["title", "detail", "kind", "type"] {
        assert!(!problem[member].as_str().unwrap().is_empty(), "{problem}");
    }
    assert_eq!(problem["trace_id"].as_str().unwrap().len(), 32);
}

#[test]
fn a_request_that_is_none_is_answered_with_a_problem() {
    let api = Api::new("admin-malformed");
    let long = "a".repeat(20_000);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            400,
        ),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: a-miracle\r\n\r\n",
            417,
        ),
        (&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 431),
    ] {
        let answer = exchange(connect(api.server.address()), request.as_bytes());
        assert_problem(&answer, status);
    }
    api.end();
}

#[test]
fn a_connection_too_many_is_answered_with_a_problem() {
    let api = Api::with("admin-full", AdminSettings::default().connections(1));
    let plugin = api.managed.installed(api.managed.package("1", &[]));
    // It takes the only connection, for long.
    let logs = api.events(&format!("/api/plugins/{plugin}/logs"), &[]);
    let request = format!(
        "GET /api/plugins HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    let refused = exchange(connect(api.server.address()), request.as_bytes());
    assert_problem(&refused, 503);
    assert_eq!(refused.header("Retry-After"), Some("1"));
    api.managed.remove(plugin).unwrap();
    drop(logs);
    api.end();
}
