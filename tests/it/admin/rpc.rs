//! Calling plugins, and publishing events.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;

use plugin_runner::protocol::Manifest;
use serde_json::{Value, json};

use super::{Api, TOKEN};
use crate::support::host::active;
use crate::support::peer::Peer;
use crate::support::plugin::manifest;
use crate::support::{LONG, wait_until};

fn call(method: &str, params: &Value) -> Value {
    json!({"method": method, "params": params})
}

#[test]
fn a_call_is_answered_with_what_the_plugin_answers() {
    let api = Api::new("admin-rpc");
    let plugin = api.managed.running(api.managed.package("1", &[]));
    let path = format!("/api/plugins/{plugin}/rpc");
    // A number that no float has, and line ends, which are no part of a message.
    let body = "{\"method\": \"echo\",\n\"params\": {\"big\": 12345678901234567890,\n\"text\": \"gr\\u00fc\u{df}\"}}";
    let headers = [("Content-Type", "application/json; charset=utf-8")];
    let answer = api.send("POST", &path, &headers, body.as_bytes());
    let echoed = &answer.value(200)["echo"];
    assert_eq!(echoed["text"], "grüß");
    assert!(answer.text().contains("12345678901234567890"));
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    // Without any params it has empty ones.
    let answer = api.json("POST", &path, &json!({"method": "echo"}));
    assert_eq!(answer.value(200)["echo"], json!({}));
    api.end();
}

#[test]
fn params_are_no_deeper_than_any_decoder_goes() {
    let api = Api::new("admin-rpc-deep");
    let plugin = api.managed.running(api.managed.package("1", &[]));
    let path = format!("/api/plugins/{plugin}/rpc");
    let post = |levels: usize| {
        let (begin, end) = ("[".repeat(levels), "]".repeat(levels));
        let body = format!(r#"{{"method": "echo", "params": {{"a": {begin}{end}}}}}"#);
        let headers = [("Content-Type", "application/json")];
        api.send("POST", &path, &headers, body.as_bytes())
    };
    assert_eq!(post(125).status, 200);
    for levels in [126, 500_000] {
        let (kind, detail) = post(levels).problem(400);
        assert_eq!(kind, "invalid_input");
        assert!(detail.contains("126 deep"), "{detail}");
    }
    assert_eq!(post(1).status, 200, "the plugin is not there any more");
    api.end();
}

#[test]
fn failures_of_a_call_are_told_apart() {
    let api = Api::new("admin-rpc-failures");
    let managed = &api.managed;
    let plugin = managed.running(managed.package("1", &[]));
    let path = format!("/api/plugins/{plugin}/rpc");
    let post = |body: &Value| api.json("POST", &path, body);

    let answer = post(&call("fail", &json!({"message": "no such thing"})));
    assert_eq!(answer.problem(502).0, "rpc");
    let error = &answer.value(502)["rpc_error"];
    assert_eq!(*error, json!({"code": -32000, "message": "no such thing"}));

    let mut slow = call("sleep", &json!({"ms": 60_000}));
    slow["timeout"] = json!(0.05);
    assert_eq!(post(&slow).problem(504).0, "timeout");
    managed.restart(plugin, LONG).unwrap();

    for (body, words) in [
        (json!({}), "method"),
        (
            json!({"method": "echo", "parameters": {}}),
            "unknown field `parameters`",
        ),
        (json!({"method": "echo", "params": [1]}), "JSON object"),
        (json!({"method": 5}), "expected a string"),
        (json!({"method": "echo", "timeout": 0}), "timeout"),
        (json!({"method": "echo", "timeout": -1}), "timeout"),
        (json!({"method": "echo", "timeout": 601}), "600"),
        (json!({"method": "echo", "timeout": "5s"}), "expected f64"),
    ] {
        let (kind, detail) = post(&body).problem(400);
        assert_eq!(kind, "invalid_input", "{body}");
        assert!(detail.contains(words), "{body}: {detail}");
    }
    let answer = api.send("POST", &path, &[], b"{}");
    assert_eq!(answer.problem(415).0, "unsupported_media_type");

    let answer = post(&call("exit", &json!({"code": 0})));
    assert_eq!(answer.problem(503).0, "disconnected");
    managed.deactivate(plugin, LONG).unwrap();
    let (kind, detail) = post(&call("echo", &json!({}))).problem(409);
    assert_eq!(kind, "wrong_state");
    assert!(detail.contains("inactive"), "{detail}");

    // One that was never loaded is installed all the same.
    let other = managed.installed(managed.package("1", &[]));
    let body = call("echo", &json!({}));
    let answer = api.json("POST", &format!("/api/plugins/{other}/rpc"), &body);
    assert_eq!(answer.problem(409).0, "not_loaded");
    let (outside, _) = managed.install_external(manifest("outside")).unwrap();
    let answer = api.json("POST", &format!("/api/plugins/{}/rpc", outside.id()), &body);
    assert_eq!(answer.problem(409).0, "not_ready");
    let unknown = "/api/plugins/d5k1vvc5o2dtjn9ct4bg/rpc";
    assert_eq!(
        api.json("POST", unknown, &body).problem(404).0,
        "not_installed"
    );
    api.end();
}

#[test]
fn the_error_of_a_plugin_is_answered_with_all_that_it_says() {
    let api = Api::new("admin-rpc-error");
    let (outside, token) = api.managed.install_external(manifest("outside")).unwrap();
    let target = format!("/rpc?token={}", token.expose());
    let mut peer = Peer::connect(api.managed.host.address(), &target);
    active(&api.managed.session(outside.id()));
    let path = format!("/api/plugins/{}/rpc", outside.id());
    let answer = thread::scope(|scope| {
        let answer = scope.spawn(|| api.json("POST", &path, &call("order", &json!({}))));
        let id = peer.receive()["id"].clone();
        let error = json!({"code": 7, "message": "sold out", "data": {"left": [0]}});
        peer.send(json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string());
        answer.join().unwrap()
    });
    let (kind, detail) = answer.problem(502);
    assert_eq!(kind, "rpc");
    assert!(detail.contains("sold out (7)"), "{detail}");
    assert_eq!(
        answer.value(502)["rpc_error"],
        json!({"code": 7, "message": "sold out", "data": {"left": [0]}})
    );
    api.end();
}

#[test]
fn a_client_that_goes_away_ends_its_call() {
    let api = Api::new("admin-rpc-gone");
    let plugin = api.managed.running(api.managed.package("1", &[]));
    let session = api.managed.session(plugin);
    let in_flight = || session.counters().calls_in_flight;
    let mut slow = call("sleep", &json!({"ms": 600_000}));
    slow["timeout"] = json!(600);
    let body = slow.to_string();
    let mut client = TcpStream::connect(api.server.address()).unwrap();
    write!(
        client,
        "POST /api/plugins/{plugin}/rpc HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    wait_until("the call to be made", || in_flight() == 1);
    drop(client);
    wait_until("the call to be given up", || in_flight() == 0);

    // So does a server that stops.
    let path = format!("/api/plugins/{plugin}/rpc");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| api.json("POST", &path, &slow));
        wait_until("the call to be made", || in_flight() == 1);
        assert_eq!(api.server.stop(LONG), 0);
        assert_eq!(waiting.join().unwrap().problem(503).0, "shut_down");
    });
    // The plugin still sleeps, and is ended by its signals.
    api.end();
}

#[test]
fn an_event_is_published_to_those_who_consume_it() {
    let api = Api::new("admin-events");
    let managed = &api.managed;
    let manifest = |id: &str, words: &[&str]| Manifest {
        command: "./run".to_owned(),
        args: words.iter().map(|&word| word.to_owned()).collect(),
        events_consumed: vec!["Heard".to_owned()],
        ..manifest(id)
    };
    let willing = managed.running(managed.package_with(&manifest("willing", &[]), &[]));
    let unwilling = manifest("unwilling", &["fail-events"]);
    let unwilling = managed.running(managed.package_with(&unwilling, &[]));
    managed.running(managed.package("1", &[]));

    let post = |body: &Value| api.json("POST", "/api/events", body);
    let event = json!({"event": "Heard", "payload": {"id": "x"}});
    assert_eq!(
        post(&event).value(200),
        json!({"queued": 2, "dropped": 0}),
        "not to the third"
    );
    let mut waited = event.clone();
    waited["wait"] = json!(30);
    let deliveries = post(&waited).value(200);
    assert_eq!(
        deliveries,
        json!({"deliveries": {willing.to_string(): "delivered", unwilling.to_string(): "failed"}})
    );
    let unheard = json!({"event": "Unheard", "wait": 0.5});
    assert_eq!(post(&unheard).value(200), json!({"deliveries": {}}));
    for (body, words) in [
        (json!({"payload": {}}), "event"),
        (json!({"event": "Heard", "payload": []}), "payload"),
        (json!({"event": "Heard", "payload": "secret"}), "payload"),
        (json!({"event": "Heard", "wait": 61}), "60"),
        (json!({"event": "Heard", "waits": 1}), "waits"),
    ] {
        let (kind, detail) = post(&body).problem(400);
        assert_eq!(kind, "invalid_input", "{body}");
        assert!(!detail.contains("secret"), "{detail}");
        let is_named = detail.contains(words) || detail.contains("expected a map");
        assert!(is_named, "{body}: {detail}");
    }
    api.end();
}
