//! Messages told apart, and told from other output.

use std::sync::Arc;

use super::*;
use crate::testing::assert_matches;

fn request(text: &str) -> (RemoteRequestId, String) {
    match Incoming::parse(text) {
        Ok(Incoming::Request { id, method, .. }) => (id, method.into_owned()),
        other => panic!("{text}: {other:?}"),
    }
}

fn response(text: &str) -> (Option<RequestId>, Result<String, RpcError>) {
    match Incoming::parse(text) {
        Ok(Incoming::Response { id, outcome, .. }) => {
            (id, outcome.map(|result| result.get().to_owned()))
        }
        other => panic!("{text}: {other:?}"),
    }
}

fn refusal(text: &str) -> String {
    Incoming::parse(text).unwrap_err().to_string()
}

#[test]
fn a_method_at_the_top_makes_it_a_request() {
    let text = r#"{"id":1,"result":{"ok":true},"error":null,"method":"ping"}"#;
    assert_eq!(request(text).1, "ping");
    // A method inside the result does not.
    let text = r#"{"id":"d5k2m2c5o2dtjn9ct6bg","result":{"method":"ping"}}"#;
    let (id, outcome) = response(text);
    assert_eq!(id.unwrap().to_string(), "d5k2m2c5o2dtjn9ct6bg");
    assert_eq!(outcome.unwrap(), r#"{"method":"ping"}"#);
}

#[test]
fn request_ids_are_opaque() {
    let id = |json: &str| {
        let text = format!(r#"{{"jsonrpc":"2.0","id": {json} ,"method":"plugin.register"}}"#);
        request(&text).0.as_json().to_owned()
    };
    for json in ["1", "-2.50", "1e400", r#""""#, r#""0o6a205tdo4tj2nt466b""#] {
        assert_eq!(id(json), json);
    }
    assert_eq!(id(r#""\u00e4 \" \\""#), r#""\u00e4 \" \\""#);
    let longest = format!("\"{}\"", "x".repeat(254));
    assert_eq!(id(&longest), longest);
}

#[test]
fn other_request_ids_are_refused() {
    let refusal = |json: &str| refusal(&format!(r#"{{"id":{json},"method":"x"}}"#));
    let must = "the id of a request must be a string or a number, found";
    assert_eq!(refusal("{}"), format!("{must} an object"));
    assert_eq!(refusal("[1]"), format!("{must} an array"));
    assert_eq!(refusal("true"), format!("{must} a boolean"));
    assert_eq!(
        refusal(&format!("\"{}\"", "x".repeat(255))),
        "the id of a request has 257 bytes, more than the limit of 256"
    );
    assert_eq!(
        refusal(&"1".repeat(257)),
        "the id of a request has 257 bytes, more than the limit of 256"
    );
}

#[test]
fn without_an_id_it_is_a_notification() {
    for text in [
        r#"{"method":"x","params":{"a":1}}"#,
        r#"{"id":null,"method":"x","params":{"a":1}}"#,
    ] {
        match Incoming::parse(text).unwrap() {
            Incoming::Notification { method } => assert_eq!(method, "x"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn params_are_borrowed_and_null_is_none() {
    let text = r#"{"id":1,"method":"x","params": {"a": [1, 2]} }"#;
    match Incoming::parse(text).unwrap() {
        Incoming::Request { params, method, .. } => {
            let params = params.unwrap().get();
            assert_eq!(params, r#"{"a": [1, 2]}"#);
            assert!(text.as_bytes().as_ptr_range().contains(&params.as_ptr()));
            assert_matches!(method, Cow::Borrowed("x"));
        }
        other => panic!("{other:?}"),
    }
    match Incoming::parse(r#"{"id":1,"method":"x","params":null}"#).unwrap() {
        Incoming::Request { params, .. } => assert!(params.is_none()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn escapes_in_names_and_methods_are_understood() {
    let text = r#"{"i\u0064":1,"\u006dethod":"pi\u006eg\""}"#;
    assert_eq!(request(text).1, "ping\"");
    assert_eq!(request(r#"{"id":1,"method":""}"#).1, "");
    assert!(refusal(r#"{"id":1,"method":"\ud800"}"#).starts_with("the message is not valid JSON"));
}

#[test]
fn the_last_of_repeated_members_counts() {
    let text = r#"{"id":1,"method":"a","id":"two","method":"b"}"#;
    assert_eq!(
        request(text),
        (request(r#"{"id":"two","method":"b"}"#).0, "b".into())
    );
    let (_, outcome) = response(r#"{"id":1,"error":{"code":5},"result":1,"error":null}"#);
    assert_eq!(outcome.unwrap(), "1");
}

#[test]
fn a_response_to_none_of_our_ids_has_no_id() {
    for id in [
        "1",
        "null",
        "{}",
        r#""0o6a205tdo4tj2nt466b""#,
        r#""D5K2M2C5O2DTJN9CT6BG""#,
    ] {
        let (id, outcome) = response(&format!(r#"{{"id":{id},"result":{{}}}}"#));
        assert_eq!(id, None);
        assert!(outcome.is_ok());
    }
    assert_eq!(response(r#"{"result":{}}"#).0, None);
}

#[test]
fn results_and_errors_are_told_apart() {
    let outcome = |members: &str| response(&format!(r#"{{"id":"x"{members}}}"#)).1;
    assert_eq!(outcome(""), Ok("null".into()));
    assert_eq!(outcome(r#","result":null"#), Ok("null".into()));
    assert_eq!(outcome(r#","result":{},"error":null"#), Ok("{}".into()));
    // As Storyden's Go host writes it.
    assert_eq!(
        outcome(r#","result":null,"error":{"code":-32601,"message":"no"}"#),
        Err(RpcError::new(-32601, "no"))
    );
    // A failed call never looks like an answer.
    assert_eq!(
        outcome(r#","error":{"code":1,"message":"no"},"result":{"ok":true}"#),
        Err(RpcError::new(1, "no"))
    );
}

#[test]
fn what_an_error_says_more_is_kept_as_it_is() {
    let deep = "[".repeat(20_000) + &"]".repeat(20_000);
    for data in [r#"{"x": [1]}"#, "12345678901234567890", r#""no""#, &deep] {
        let error = format!(r#"{{"id":"x","error":{{"code":1,"data":{data},"message":"no"}}}}"#);
        let error = response(&error).1.unwrap_err();
        assert_eq!((error.code, &*error.message), (1, "no"));
        assert_eq!(error.data(), Some(data));
        assert_ne!(error, RpcError::new(1, "no"));
    }
}

#[test]
fn odd_errors_are_errors() {
    let error = |json: &str| response(&format!(r#"{{"id":"x","error":{json}}}"#)).1;
    let is = |json: &str, code: i64, message: &str| {
        assert_eq!(error(json), Err(RpcError::new(code, message)), "{json}");
    };
    is("{}", 0, "");
    is(r#"{"code":null,"message":null}"#, 0, "");
    // Codes of encoders that know floats only, or only text.
    is(r#"{"code":-32000.0,"message":"no"}"#, -32000, "no");
    is(r#"{"code":-3.2602e4}"#, -32602, "");
    is(r#"{"code":"-32000","data":null}"#, -32000, "");
    is(r#"{"code":"E_NO"}"#, 0, "");
    is(r#"{"code":1.5}"#, 0, "");
    is(r#"{"code":true}"#, 0, "");
    is(r#"{"code":1e300}"#, 0, "");
    is(r#"{"code":1e999}"#, 0, "");
    is(
        r#"{"code":123456789012345678901234567890,"code":-1}"#,
        -1,
        "",
    );
    // What it says is kept, whatever it is.
    is(r#"{"code":1,"message":7}"#, 1, "7");
    is(r#"{"code":1,"message":{"a":[1]}}"#, 1, r#"{"a":[1]}"#);
    is(
        r#"{"code":1,"message":"a\ud800b"}"#,
        1,
        "a\u{fffd}\u{fffd}\u{fffd}b",
    );
    is(r#"{"code":1,"message":"\ud83d\ude00"}"#, 1, "\u{1f600}");
    is(r#""it broke""#, 0, "it broke");
    is("false", 0, "false");
    is("[]", 0, "[]");
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let text = "\u{feff}{\"id\":1,\"method\":\"x\",\"params\":{}}";
    assert_eq!(request(text).1, "x");
    match Incoming::parse(text).unwrap() {
        Incoming::Request { params, .. } => {
            assert_eq!(ResultSpan::locate(text, params.unwrap()).of(text), "{}");
        }
        other => panic!("{other:?}"),
    }
}

fn kind(line: &str) -> &'static str {
    match Incoming::parse_line(line) {
        Ok(Incoming::Request { .. }) => "request",
        Ok(Incoming::Notification { .. }) => "notification",
        Ok(Incoming::Response { is_unmarked, .. }) => {
            if is_unmarked {
                "unmarked"
            } else {
                "response"
            }
        }
        Err(_) => "output",
    }
}

#[test]
fn among_output_a_message_says_what_it_is() {
    for version in [r#""2.0""#, "2.0"] {
        let kind = |rest: &str| kind(&format!(r#"{{{rest},"jsonrpc":{version}}}"#));
        assert_eq!(kind(r#""id":1,"method":"x""#), "request");
        assert_eq!(kind(r#""method":"x","level":"info""#), "notification");
        assert_eq!(kind(r#""id":"x","result":{}"#), "response");
        assert_eq!(kind(r#""id":"x","error":"no","more":1"#), "response");
        assert_eq!(kind(r#""level":"info""#), "output");
    }
    // As zap, zerolog and logrus write them.
    for line in [
        r#"{"level":"error","ts":1.5,"msg":"failed","error":"no route"}"#,
        r#"{"level":"error","error":"no route","message":"failed"}"#,
        r#"{"error":"no route","level":"error","msg":"failed"}"#,
        r#"{"level":"info","id":7,"method":"GET","msg":"served"}"#,
        r#"{"level":"info","id":7,"result":"ok"}"#,
        r#"{"method":"GET"}"#,
        r#"{"id":7,"method":"GET"}"#,
        r#"{"id":7}"#,
        r#"{"jsonrpc":"1.0","id":7,"method":"x"}"#,
        r#"{"jsonrpc":"1.0","id":7,"result":{}}"#,
        r#"{"id":7,"error":"no"}"#,
        r#"{"id":7,"error":{"message":"no"}}"#,
        r#"{"id":7,"result":{},"params":{}}"#,
    ] {
        assert_eq!(kind(line), "output", "{line}");
    }
}

#[test]
fn an_answer_without_a_version_has_nothing_that_others_have_not() {
    for line in [
        r#"{"id":"x","result":null}"#,
        r#"{"result":{},"id":"x"}"#,
        r#"{"id":"x","error":{"code":1}}"#,
        r#"{"id":"x","result":null,"error":{"code":1,"message":"no"}}"#,
        r#"{"id":"x","result":{},"error":null,"method":"ping"}"#,
    ] {
        assert_eq!(kind(line), "unmarked", "{line}");
    }
}

#[test]
fn what_is_no_message_says_why() {
    assert!(refusal("").starts_with("the message is not valid JSON: EOF"));
    assert!(refusal("listening on :8080").starts_with("the message is not valid JSON"));
    assert!(refusal("200 OK").starts_with("the message is not valid JSON"));
    assert!(refusal(r#"{"id":1,"method":"x"}}"#).starts_with("the message is not valid JSON"));
    assert!(refusal(r#"{"id":1,"method":"x""#).starts_with("the message is not valid JSON"));
    assert_eq!(
        refusal("[]"),
        "the message is not a JSON object but an array"
    );
    assert_eq!(
        refusal(" 7 "),
        "the message is not a JSON object but a number"
    );
    assert_eq!(
        refusal(r#"{"level":"info","text":"started"}"#),
        "the message has neither method nor id, result or error"
    );
    assert_eq!(
        refusal(r#"{"id":1,"method":5}"#),
        "the method of a request must be a string, found a number"
    );
}

#[test]
fn the_result_can_be_found_again_on_another_thread() {
    let text: Arc<str> = r#"{"id":"x", "result": {"ä": [1]} }"#.into();
    let span = match Incoming::parse(&text).unwrap() {
        Incoming::Response { outcome, .. } => ResultSpan::locate(&text, outcome.unwrap()),
        other => panic!("{other:?}"),
    };
    let found = std::thread::spawn(move || span.of(&text).to_owned());
    assert_eq!(found.join().unwrap(), r#"{"ä": [1]}"#);

    let text = r#"{"id":"x"}"#;
    match Incoming::parse(text).unwrap() {
        Incoming::Response { outcome, .. } => {
            assert_eq!(ResultSpan::locate(text, outcome.unwrap()).of(text), "null");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn deep_nesting_needs_no_stack() {
    // The largest message that is read is 4 MiB.
    let longest = "[".repeat(4 * 1024 * 1024);
    let depth = 100_000;
    let closed = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let on_a_small_stack = std::thread::Builder::new().stack_size(128 * 1024);
    let body = move || {
        assert!(Incoming::parse(&longest).is_err());
        let text = format!(r#"{{"id":1,"params":{longest}"#);
        assert!(Incoming::parse(&text).is_err());
        assert!(Incoming::parse(&closed).is_err());
        assert!(Incoming::parse(&objects).is_err());
        for deep in [&closed, &objects] {
            for name in ["params", "result", "error", "unknown"] {
                let text = format!(r#"{{"id":1,"{name}":{deep}}}"#);
                assert!(Incoming::parse(&text).is_ok(), "{name}");
            }
            let text = format!(r#"{{"id":{deep},"result":{{}}}}"#);
            assert_eq!(response(&text).0, None);
            let text = format!(r#"{{"id":{deep},"method":"x"}}"#);
            assert!(Incoming::parse(&text).is_err());
            let text = format!(r#"{{"id":1,"method":{deep}}}"#);
            assert!(Incoming::parse(&text).is_err());
            let text = format!(r#"{{"id":1,"error":{{"code":{deep},"message":{deep}}}}}"#);
            assert!(Incoming::parse(&text).is_ok());
        }
    };
    on_a_small_stack.spawn(body).unwrap().join().unwrap();
}
