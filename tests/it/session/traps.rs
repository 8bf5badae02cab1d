//! The traps (PROTOCOL.md, "Traps") that a session must not step into. What is tested
//! here is what the plugin sees; encoding and decoding alone are tested in `protocol`.

use std::sync::Arc;

use plugin_runner::error::RpcError;
use plugin_runner::protocol::ResultObject;
use plugin_runner::protocol::method::{Configure, RobotToolCall};
use plugin_runner::{Error, Xid};
use serde_json::{Value, json};

use crate::support::plugin::With as _;
use crate::support::session::{Bench, GO, PYTHON, start_ping};
use crate::support::{LONG, object};

const MEBIBYTE: usize = 1024 * 1024;

#[test]
fn ids_from_plugins_are_echoed_as_they_came() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let long = format!("\"{}\"", "i".repeat(254));
    for id in [
        "1",
        "-7.50",
        "12345678901234567890123",
        r#""""#,
        r#""with \"quotes\" and \u00fc""#,
        // From the Python SDK: looks like an xid and is none.
        r#""0o6a205tdo4tj2nt466b""#,
        r#""d5k2m8k5o2dtjn9ct6e0""#,
        &long,
    ] {
        plugin.ask(id, "get_config", "{}");
        let answer = plugin.answer_text(id);
        let expected = r#""result":{"method":"get_config","config":{}}"#;
        assert!(answer.contains(expected), "{answer}");
        plugin.ask(id, "no_such_method", "{}");
        assert!(plugin.answer_text(id).contains("-32601"));
    }
}

#[test]
fn a_request_at_the_very_start_with_a_numeric_id_does_no_harm() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let answer = plugin.call("1", "plugin.register", r#"{"name":"x"}"#);
    assert_eq!(answer["error"]["code"], -32601);
    assert_eq!(answer["id"], json!(1));
    bench.ping(&plugin);
}

#[test]
fn ids_we_send_are_valid_xids_and_differ() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let calls: Vec<_> = (0..20).map(|_| start_ping(&bench.session)).collect();
    let mut ids = std::collections::HashSet::new();
    for call in calls {
        let request = plugin.expect("ping");
        assert!(request.id.ends_with(['0', 'g']), "{}", request.id);
        assert!(request.id.parse::<Xid>().is_ok(), "{}", request.id);
        plugin.reply(&request, json!({"pong": true}));
        call.wait().unwrap();
        ids.insert(request.id);
    }
    assert_eq!(ids.len(), 20);
}

#[test]
fn a_result_always_carries_the_method_and_a_response_never_does() {
    let bench = Bench::with_host(|builder| {
        builder.method_raw("greet", |_, _| {
            // A handler's own idea of the method does not count.
            let members = json!({"method": "ping", "text": "hello"});
            ResultObject::from_serialize(&members).map_err(|_| RpcError::new(-1, "unreachable"))
        })
    });
    let plugin = bench.connect();
    let answer = plugin.call("1", "greet", "{}");
    assert_eq!(
        answer,
        json!({"jsonrpc": "2.0", "id": 1, "result": {"method": "greet", "text": "hello"}})
    );
    let answer = plugin.call("2", "get_config", "{}");
    assert_eq!(answer["result"]["method"], "get_config");
    let members: Vec<_> = answer.as_object().unwrap().keys().collect();
    assert_eq!(members, ["id", "jsonrpc", "result"]);
    let answer = plugin.call("3", "no_such_method", "{}");
    let members: Vec<_> = answer.as_object().unwrap().keys().collect();
    assert_eq!(members, ["error", "id", "jsonrpc"]);
}

#[test]
fn an_unknown_method_is_answered_with_32601_and_its_name() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let answer = plugin.call("1", "make_coffee", "{}");
    assert_eq!(
        answer["error"],
        json!({"code": -32601, "message": "unknown method \"make_coffee\""})
    );
    // What the host asks of plugins is unknown in the other direction.
    assert_eq!(plugin.call("2", "ping", "{}")["error"]["code"], -32601);
}

#[test]
fn bad_params_are_answered_with_32602() {
    let bench = Bench::new();
    let plugin = bench.connect();
    for (method, params) in [
        ("get_config", r#"{"keys":"channel"}"#),
        ("get_config", r#"{"keys":[1]}"#),
        ("get_config", r#"[["channel"]]"#),
        ("get_config", r#""channel""#),
        ("robot_run", "{}"),
        ("robot_run", r#"["message","robot"]"#),
        (
            "robot_run",
            r#"{"message":"m","robot_id":"r","session_id":"no xid"}"#,
        ),
    ] {
        let error = plugin.call("1", method, params)["error"].clone();
        assert_eq!(error["code"], -32602, "{method} {params}: {error}");
        let text = error["message"].as_str().unwrap();
        assert!(text.starts_with("invalid params: "), "{text}");
    }
    bench.ping(&plugin);
}

#[test]
fn missing_or_null_params_are_no_params() {
    let bench = Bench::new();
    let plugin = bench.connect();
    plugin.send(r#"{"id":1,"jsonrpc":"2.0","method":"get_config"}"#);
    assert_eq!(plugin.answer("1")["result"]["config"], json!({}));
    assert!(plugin.call("2", "get_config", "null")["result"].is_object());
    assert!(plugin.call("3", "get_config", r#"{"keys":null}"#)["result"].is_object());
}

#[test]
fn a_request_without_an_id_is_counted_and_not_answered() {
    let bench = Bench::new();
    let plugin = bench.connect();
    plugin.send(r#"{"jsonrpc":"2.0","method":"get_config","params":{}}"#);
    plugin.send(r#"{"jsonrpc":"2.0","id":null,"method":"get_config"}"#);
    bench.ping(&plugin);
    let counters = bench.session.counters();
    assert_eq!(counters.notifications, 2);
    assert_eq!(counters.inbound_calls, 0);
    assert!(plugin.has_nothing_more());
}

#[test]
fn what_is_no_json_rpc_is_counted_and_harms_nothing() {
    let bench = Bench::new();
    let plugin = bench.connect();
    for text in [
        "hello",
        "",
        "[]",
        "{}",
        r#"{"jsonrpc":"2.0","id":{},"method":"get_config"}"#,
        &format!(r#"{{"id":"{}","method":"get_config"}}"#, "i".repeat(255)),
    ] {
        plugin.send(text);
    }
    bench.ping(&plugin);
    assert_eq!(bench.session.counters().unreadable, 6);
    assert!(plugin.has_nothing_more());
}

#[test]
fn calls_have_only_members_that_the_plugin_knows() {
    let bench = Bench::new();
    let plugin = bench.connect_as(PYTHON);
    let params = RobotToolCall {
        provider_id: "weather".to_owned(),
        tool_id: "forecast".to_owned(),
        robot_id: Some(String::new()),
        ..RobotToolCall::default()
    };
    let _call = bench.session.start_call(&params, LONG).unwrap();
    let request = plugin.expect("robot_tool_call");
    let members =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(
        members(&request.message),
        ["id", "jsonrpc", "method", "params"]
    );
    assert_eq!(
        members(&request.params),
        [
            "account_id",
            "arguments",
            "call_id",
            "provider_id",
            "session_id",
            "tool_id"
        ]
    );
    assert_eq!(request.params["arguments"], json!({}));
}

/// Finds how much text brings a `configure` to exactly `limit` bytes, and tries that and one more.
#[track_caller]
fn check_message_limit(bench: &Bench, user_agent: &str, limit: usize) {
    let plugin = bench.connect_as(user_agent);
    let params = |length: usize| Configure(object(json!({"text": "x".repeat(length)})));
    let call = |length| bench.session.start_call(&params(length), LONG);

    let sent = bench.session.counters();
    let Err(Error::MessageTooLarge { size, limit: told }) = call(limit) else {
        panic!("over the limit, and no error");
    };
    assert_eq!(told, limit);
    let fits = limit - (size - limit);
    let error = call(fits + 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "message of {} bytes is over the limit of {limit} bytes for this plugin",
            limit + 1
        )
    );
    assert!(!error.is_retryable());
    let counters = bench.session.counters();
    assert_eq!(
        counters.bytes_sent, sent.bytes_sent,
        "something was written"
    );
    assert_eq!(counters.other_errors, sent.other_errors + 2);

    // The connection is fine, and what fits exactly goes through.
    let pending = call(fits).unwrap();
    let request = plugin.expect("configure");
    assert_eq!(request.params["text"].as_str().unwrap().len(), fits);
    plugin.reply(&request, json!({"ok": true}));
    assert!(pending.wait().unwrap().ok);
}

#[test]
fn python_plugins_are_sent_no_more_than_one_mebibyte() {
    check_message_limit(&Bench::new(), PYTHON, MEBIBYTE);
}

#[test]
fn other_plugins_are_sent_up_to_four_mebibytes() {
    check_message_limit(&Bench::new(), GO, 4 * MEBIBYTE);
    check_message_limit(&Bench::new(), "", 4 * MEBIBYTE);
}

#[test]
fn a_record_overrides_the_size_that_the_user_agent_suggests() {
    let bench = Bench::with_record(|record| record.overrides(|own| own.outbound_message(1000)));
    check_message_limit(&bench, PYTHON, 1000);
    let bench =
        Bench::with_record(|record| record.overrides(|own| own.outbound_message(2 * MEBIBYTE)));
    check_message_limit(&bench, PYTHON, 2 * MEBIBYTE);
}

#[test]
fn an_answer_over_the_limit_becomes_an_error_for_the_plugin() {
    let text: Arc<str> = "x".repeat(2000).into();
    let configuration = object(json!({"text": &*text}));
    let bench = Bench::with_record(|record| {
        record
            .with(|record| record.configuration = configuration)
            .overrides(|own| own.outbound_message(1000))
    });
    let plugin = bench.connect();
    let error = plugin.call("1", "get_config", "{}")["error"].clone();
    assert_eq!(error["code"], -32603);
    let text = error["message"].as_str().unwrap();
    assert!(text.ends_with("over the limit of 1000 bytes"), "{text}");
    bench.ping(&plugin);
}

#[test]
fn an_unknown_method_of_any_length_is_answered_with_a_short_error() {
    let bench = Bench::new();
    let plugin = bench.connect();
    // Of one byte each, which some ways of showing them make seven of.
    let name = "\u{7f}".repeat(MEBIBYTE);
    plugin.ask("1", &name, "{}");
    let answer = plugin.answer_text("1");
    assert!(answer.len() < 8 * 1024, "{} bytes", answer.len());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["error"]["code"], -32601);
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(text.starts_with("unknown method \"\u{7f}"), "{text}");
    assert!(text.ends_with(" more bytes)"), "{text}");
    bench.ping(&plugin);
}

#[test]
fn the_text_of_an_error_is_cut_between_characters() {
    for (text, kept) in [("ä", 2048), ("\u{1}", 4096), ("\u{2028}", 1365)] {
        let bench = Bench::with_host(|builder| {
            builder.method_raw("fail", |_, _| Err(RpcError::new(7, text.repeat(MEBIBYTE))))
        });
        let plugin = bench.connect();
        let answer = plugin.call("1", "fail", "{}");
        let told = answer["error"]["message"].as_str().unwrap();
        let cut = text.len() * (MEBIBYTE - kept);
        assert_eq!(told, format!("{}… ({cut} more bytes)", text.repeat(kept)));
        assert_eq!(answer["error"]["code"], 7);
    }
}

#[test]
fn an_error_over_the_limit_becomes_a_shorter_one_and_one_that_finds_no_room_is_not_sent() {
    let bench = Bench::with(
        |builder| builder.method_raw("fail", |_, _| Err(RpcError::new(7, "x".repeat(200)))),
        |record| record.overrides(|own| own.outbound_message(150)),
    );
    let plugin = bench.connect();
    plugin.ask("1", "fail", "{}");
    let answer = plugin.answer_text("1");
    assert!(answer.len() <= 150, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["error"]["code"], 7);
    // The id alone is too long.
    plugin.ask(&"9".repeat(200), "fail", "{}");
    plugin.ask("2", "fail", "{}");
    plugin.answer("2");
    bench.ping(&plugin);
    assert!(plugin.has_nothing_more());
}

#[test]
fn a_refusal_keeps_to_the_limit_as_well() {
    let bench = Bench::with_record(|mut record| {
        record.overrides = record.overrides.inbound_per_second(1);
        record.overrides(|own| own.outbound_message(100))
    });
    let plugin = bench.connect();
    for id in 0..20 {
        plugin.ask(&id.to_string(), "get_config", "{}");
        let answer = plugin.answer_text(&id.to_string());
        assert!(answer.len() <= 100, "{answer}");
    }
    bench.ping(&plugin);
}
