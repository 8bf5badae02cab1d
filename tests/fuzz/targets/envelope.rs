//! JSON-RPC messages: told apart as a whole parse of the same text tells them, and the same again
//! once they are written and read.

use plugin_runner::RequestId;
use plugin_runner::error::RpcError;
use plugin_runner::fuzzing::{
    EnvelopeError, Incoming, RemoteRequestId, ResultSpan, encode_error, encode_request,
    encode_result,
};
use plugin_runner::protocol::ResultObject;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Target;
use super::json::{Json, is_json};
use crate::random::Random;

pub(crate) const TARGET: Target = Target {
    name: "envelope",
    generate,
    words: &[
        b"\"id\":",
        b"\"method\":",
        b"\"params\":",
        b"\"result\":",
        b"\"error\":",
        b"\"code\":",
        b"\"message\":",
        b"null",
        b"\"jsonrpc\":\"2.0\",",
        b"\\ud800",
        b"\\udc00",
        b"1e400",
        b"\"\\u0069d\":",
        b"\x0c",
        b"\xef\xbb\xbf",
    ],
    longest: 16 * 1024,
    check,
    runs: 16_000,
};

fn generate(random: &mut Random) -> Vec<u8> {
    let mut json = Json::new(random);
    json.space();
    match json.random.below(8) {
        0 => json.value(),
        1 => json.some_of(
            &[],
            &[
                ("id", id),
                ("method", method),
                ("params", Json::value),
                ("result", Json::value),
                ("error", error),
            ],
        ),
        2..=4 => json.some_of(
            &[("jsonrpc", version), ("id", id), ("method", method)],
            &[("params", params)],
        ),
        5 | 6 => json.some_of(&[("jsonrpc", version), ("id", id), ("result", params)], &[]),
        _ => json.some_of(
            &[("jsonrpc", version), ("id", id), ("error", error)],
            &[("result", null)],
        ),
    }
    json.space();
    json.text.into_bytes()
}

fn version(json: &mut Json) {
    json.plain("2.0");
}

fn null(json: &mut Json) {
    json.push("null");
}

fn id(json: &mut Json) {
    match json.random.below(6) {
        0 => json.number(),
        1 => json.string(),
        2 => {
            let length = 240 + json.random.below(20);
            json.plain(&"x".repeat(length));
        }
        3 => json.word(b"0123456789abcdefghijklmnopqrstuv", 20),
        _ => {
            let text = json.random.text(b"0123456789abcdefghijklmnopqrstuv", 19);
            let last = json.random.text(b"0g", 1);
            json.plain(&format!("{text}{last}"));
        }
    }
}

fn method(json: &mut Json) {
    match json.random.below(4) {
        0 => json.string(),
        _ => json.plain("ping"),
    }
}

fn params(json: &mut Json) {
    json.some_of(&[], &[("method", method), ("ok", Json::boolean)]);
}

fn error(json: &mut Json) {
    match json.random.below(6) {
        0 => json.value(),
        _ => json.some_of(
            &[("code", Json::number), ("message", Json::string)],
            &[("data", Json::value)],
        ),
    }
}

fn check(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let parsed = Incoming::parse(text);
    let line = Incoming::parse_line(text);
    // Nobody else skips it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !matches!(parsed, Err(EnvelopeError::Json(_))) {
        assert!(is_json(text), "taken for JSON");
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(members)) => {
            agree(text, &members, &parsed);
            // Names and versions may be spelt with escapes.
            if !text.contains('\\') {
                among_output(&members, &line, parsed.is_ok());
            }
        }
        Ok(_) => assert!(
            matches!(parsed, Err(EnvelopeError::NotAnObject { .. })),
            "{parsed:?}"
        ),
        // Its decoder refuses more: large numbers, depth, halves of surrogate pairs.
        Err(_) => {}
    }
    if let Err(error) = &parsed {
        let told = error.to_string();
        assert!(told.len() < 200 && !told.contains('\n'), "{told:?}");
    }
    if let Ok(incoming) = &parsed {
        again(text, incoming);
    }
    parsed.is_ok()
}

/// Compares what is a message among other output with what its members say.
fn among_output(
    members: &Map<String, Value>,
    line: &Result<Incoming<'_>, EnvelopeError>,
    is_message: bool,
) {
    let member = |name: &str| members.get(name).filter(|value| !value.is_null());
    let is_marked = match member("jsonrpc") {
        Some(Value::String(version)) => version == "2.0",
        Some(Value::Number(version)) => version.as_f64() == Some(2.0),
        _ => false,
    };
    let has_outcome = match member("error") {
        Some(error) => error.get("code").is_some(),
        None => members.contains_key("result"),
    };
    let known = ["jsonrpc", "id", "method", "params", "result", "error"];
    let is_bare = member("jsonrpc").or(member("params")).is_none()
        && members.keys().all(|name| known.contains(&&**name));
    match line {
        Ok(Incoming::Response {
            is_unmarked: true, ..
        }) => assert!(!is_marked && is_bare && has_outcome),
        Ok(_) => assert!(is_marked && is_message),
        Err(_) => assert!(!(is_marked && is_message || is_bare && has_outcome)),
    }
}

/// Compares with what a parse of everything says.
fn agree(text: &str, members: &Map<String, Value>, parsed: &Result<Incoming<'_>, EnvelopeError>) {
    let member = |name: &str| members.get(name).filter(|value| !value.is_null());
    let same = |raw: Option<&RawValue>, value: Option<&Value>| {
        raw.map(decoded).as_ref() == value && raw.is_none_or(|raw| text.contains(raw.get()))
    };
    match (member("method"), member("id")) {
        (Some(Value::String(wanted)), None) => match parsed {
            Ok(Incoming::Notification { method }) => assert_eq!(method, wanted),
            other => panic!("{other:?}"),
        },
        (Some(Value::String(wanted)), Some(id @ (Value::String(_) | Value::Number(_)))) => {
            match parsed {
                Ok(Incoming::Request {
                    id: found,
                    method,
                    params,
                }) => {
                    assert_eq!(method, wanted);
                    assert!(same(*params, member("params")));
                    assert_eq!(&serde_json::from_str::<Value>(found.as_json()).unwrap(), id);
                    assert!(text.contains(found.as_json()) && found.as_json().len() <= 256);
                }
                Err(EnvelopeError::IdTooLong { found }) => assert!(*found > RemoteRequestId::LIMIT),
                other => panic!("{other:?}"),
            }
        }
        (Some(Value::String(_)), Some(_)) => {
            assert!(
                matches!(parsed, Err(EnvelopeError::IdType { .. })),
                "{parsed:?}"
            );
        }
        (Some(_), _) => assert!(
            matches!(parsed, Err(EnvelopeError::MethodType { .. })),
            "{parsed:?}"
        ),
        (None, id) => {
            if !["id", "result", "error"]
                .iter()
                .any(|name| members.contains_key(*name))
            {
                assert!(
                    matches!(parsed, Err(EnvelopeError::NotAMessage)),
                    "{parsed:?}"
                );
                return;
            }
            let Ok(Incoming::Response {
                id: found, outcome, ..
            }) = parsed
            else {
                panic!("{parsed:?}");
            };
            let ours = id.and_then(Value::as_str).filter(|id| is_xid(id));
            assert_eq!(found.map(|found| found.to_string()).as_deref(), ours);
            match (member("error"), outcome) {
                (Some(error), Err(found)) => {
                    let expected = rpc_error(error);
                    // What is no text is kept as its JSON, which may be spelt in more than one way.
                    let is_text = error.get("message").unwrap_or(error).is_string();
                    assert_eq!(expected.code, found.code);
                    let data = error.get("data").filter(|data| !data.is_null());
                    let found_data = found.data().map(serde_json::from_str::<Value>);
                    assert_eq!(found_data.transpose().unwrap().as_ref(), data);
                    assert!(!is_text || expected.message == found.message, "{found:?}");
                }
                (None, Ok(result)) => {
                    let expected = member("result").unwrap_or(&Value::Null);
                    assert_eq!(&decoded(result), expected);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn decoded(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap()
}

fn is_xid(text: &str) -> bool {
    text.len() == 20
        && text.ends_with(['0', 'g'])
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'v'))
}

fn rpc_error(error: &Value) -> RpcError {
    /// What is kept of text, and of anything in its place.
    fn text(value: &Value) -> Option<String> {
        value.as_str().map(str::to_owned)
    }
    let Value::Object(members) = error else {
        return RpcError::new(0, text(error).unwrap_or_default());
    };
    let code = match members.get("code") {
        Some(Value::Number(code)) => code.as_i64().or_else(|| whole(code.as_f64()?)),
        Some(Value::String(code)) => {
            let code = code.as_str();
            code.parse().ok().or_else(|| whole(code.parse().ok()?))
        }
        _ => None,
    };
    let message = members.get("message").and_then(text);
    RpcError::new(code.unwrap_or_default(), message.unwrap_or_default())
}

/// The code that a float stands for.
fn whole(float: f64) -> Option<i64> {
    let is_exact = float.fract() == 0.0 && float.abs() <= 2_f64.powi(53);
    let wanted = is_exact.then(|| format!("{float:.0}"))?;
    wanted.parse().ok()
}

/// Writes what was read, and reads that.
fn again(text: &str, incoming: &Incoming<'_>) {
    let mut buffer = "left from last time".to_owned();
    match incoming {
        Incoming::Request { id, method, .. } => {
            encode_result(&mut buffer, id, method, &ResultObject::new());
            let prefix = format!(r#"{{"jsonrpc":"2.0","id":{},"result":"#, id.as_json());
            assert!(buffer.starts_with(&prefix), "{buffer}");
            let expected = serde_json::json!({ "method": method });
            match parse_line(&buffer) {
                Incoming::Response {
                    outcome: Ok(result),
                    ..
                } => {
                    assert_eq!(decoded(result), expected);
                }
                other => panic!("{other:?}"),
            }
        }
        Incoming::Response {
            id,
            outcome: Ok(result),
            ..
        } => {
            let span = ResultSpan::locate(text, result);
            assert_eq!(span.of(text), result.get());
            let Ok(Value::Object(members)) = serde_json::from_str(result.get()) else {
                return;
            };
            if let Some(id) = id {
                let request = encode_request(&mut buffer, *id, "echo", result);
                request.unwrap();
                match parse_line(&buffer) {
                    Incoming::Request {
                        id: found, params, ..
                    } => {
                        assert_eq!(found, RemoteRequestId::from(*id));
                        let params = decoded(params.unwrap());
                        assert_eq!(params, Value::Object(members.clone()));
                    }
                    other => panic!("{other:?}"),
                }
            }
            let sent = ResultObject::from(members);
            let id = id.unwrap_or_else(RequestId::generate);
            encode_result(&mut buffer, &id.into(), "echo", &sent);
            let mut expected = sent.into_map();
            expected.insert("method".to_owned(), "echo".into());
            match parse_line(&buffer) {
                Incoming::Response {
                    id: Some(found),
                    outcome: Ok(result),
                    ..
                } => {
                    assert_eq!(found, id);
                    assert_eq!(decoded(result), Value::Object(expected));
                }
                other => panic!("{other:?}"),
            }
        }
        Incoming::Response {
            outcome: Err(error),
            ..
        } => {
            let id = RequestId::generate();
            encode_error(&mut buffer, &id.into(), error);
            match parse_line(&buffer) {
                Incoming::Response {
                    id: Some(found),
                    outcome: Err(again),
                    ..
                } => {
                    // What came with it is not sent on.
                    let sent = RpcError::new(error.code, &*error.message);
                    assert_eq!((found, again), (id, sent));
                }
                other => panic!("{other:?}"),
            }
        }
        _ => {}
    }
}

/// Reads a message that we wrote, which has to be one line.
fn parse_line(text: &str) -> Incoming<'_> {
    assert!(!text.contains(['\n', '\r']), "{text}");
    Incoming::parse(text).unwrap()
}
