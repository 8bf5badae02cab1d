//! The traps that concern params and replies. That every method's worked example goes through its types
//! is tested with the document that shows them.

use serde_json::{Map, Value, json};

use super::*;
use crate::protocol::access::{self, AccessGrant};
use crate::protocol::jsonrpc::{
    Incoming, RemoteRequestId, ResultObject, encode_error, encode_request, encode_result,
};
use crate::protocol::peer::PeerKind;
use crate::testing::assert_matches;

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}

#[test]
fn members_that_say_how_it_went_are_understood() {
    let params: RobotRun = decode_params(r#"{"message":"m","robot_id":"r"}"#).unwrap();
    assert_eq!(params.session_id, None);
    let reply = r#"{"output":{"status":"blocked","summary":"Which page?"}}"#;
    let reply = decode_reply::<RobotRun>(reply).unwrap();
    assert_eq!(reply.output.unwrap().status, RobotRunStatus::Blocked);
    let messages = r#"{"provider":"p","model":"m","messages":[{"role":"user","content":"?"}]}"#;
    let params: RobotModelProviderGenerate = decode_params(messages).unwrap();
    assert_eq!(params.messages[0].role, GenerateRole::User);
    let reply = decode_reply::<RobotToolCall>(r#"{"error":"unknown city"}"#).unwrap();
    assert_eq!(reply.failure(), Some("unknown city"));
    let reply = decode_reply::<RobotModelProviderGenerate>(r#"{"content":"Yes."}"#).unwrap();
    assert_eq!(reply.failure(), None);
}

#[test]
fn access_get_examples() {
    assert!(decode_params::<AccessGet>("{}").is_ok());
    let go = r#"{"jsonrpc":"2.0","id":"d5k2m7c5o2dtjn9ct6dg","result":{"method":"access_get","id":"d5k2m7c5o2dtjn9ct6dg","jsonrpc":"2.0",
 "result":{"access_key":"sdbak_3vK0exampleonly","api_base_url":{"Scheme":"https","Host":"forum.example"}}}}"#;
    let refused = r#"{"jsonrpc":"2.0","id":"d5k2m7c5o2dtjn9ct6dg","result":{"method":"access_get","id":"d5k2m7c5o2dtjn9ct6dg","jsonrpc":"2.0",
 "error":{"code":-32601,"message":"this plugin's manifest asks for no access"},"result":{"access_key":"","api_base_url":{}}}}"#;
    let python = r#"{"jsonrpc":"2.0","id":"0o6a205tdo4tj2nt466b","result":{"method":"access_get","result":{"access_key":"sdbak_3vK0exampleonly","apibase_url":"https://forum.example"}}}"#;
    let grant = AccessGrant::new("sdbak_3vK0exampleonly", "https://forum.example").unwrap();
    let error = RpcError::new(-32601, "this plugin's manifest asks for no access");
    let go_agent = PeerKind::from_user_agent("Go-http-client/1.1").access_shape();
    let python_agent = PeerKind::from_user_agent("Python/3.11 websockets/15.0.1").access_shape();

    let refused = value(refused)["result"].to_string();
    assert_eq!(decode_reply::<AccessGet>(&refused).unwrap().0, Err(error));

    for (text, shape) in [(go, go_agent), (python, python_agent)] {
        let message = value(text);
        let decoded = decode_reply::<AccessGet>(&message["result"].to_string()).unwrap();
        assert_eq!(decoded.0, Ok(grant.clone()));
        let id = RawValue::from_string(message["id"].to_string()).unwrap();
        let id = RemoteRequestId::from_json(&id).unwrap();
        let result = access::reply(shape, &grant, &id);
        let mut again = String::new();
        encode_result(&mut again, &id, AccessGet::NAME, &result);
        assert_eq!(value(&again), message);
    }
}

#[test]
fn error_example() {
    let text =
        r#"{"jsonrpc":"2.0","id":"d5k2m0c5o2dtjn9ct6ag","error":{"code":-32000,"message":"..."}}"#;
    let Incoming::Response { id, outcome, .. } = Incoming::parse(text).unwrap() else {
        panic!("{text} is no response");
    };
    let mut again = String::new();
    encode_error(&mut again, &id.unwrap().into(), &outcome.unwrap_err());
    assert_eq!(value(&again), value(text));
}

#[test]
fn null_from_go_is_an_empty_list_or_object() {
    let models = decode_reply::<RobotModelProviderListModels>(r#"{"models":null}"#).unwrap();
    assert!(models.models.is_empty());
    let reply = decode_reply::<RobotModelProviderListModels>(
        r#"{"models":[{"name":"a","display_name":null,"context_window":null,"raw":null}]}"#,
    );
    assert!(reply.unwrap().models[0].raw.is_empty());
    let reply = decode_reply::<RobotModelProviderGenerate>(
        r#"{"content":null,"tool_calls":null,"finish_reason":null,"error":null}"#,
    );
    assert_eq!(reply.unwrap(), GenerateReply::default());
    let reply = decode_reply::<RobotModelProviderGenerate>(
        r#"{"tool_calls":[{"name":"x","arguments":null}]}"#,
    );
    assert!(reply.unwrap().tool_calls[0].arguments.is_empty());
    let reply = decode_reply::<RobotToolCall>(r#"{"output":null,"error":null}"#).unwrap();
    assert_eq!(reply, ToolCallReply::default());
    assert_eq!(reply.failure(), None);
    let reply = decode_reply::<RobotToolCall>(r#"{"output":null,"error":""}"#).unwrap();
    assert_eq!(reply.failure(), None);
    let reply = decode_reply::<GetConfig>(r#"{"config":null}"#).unwrap();
    assert!(reply.config.is_empty());

    let params: GetConfig = decode_params(r#"{"keys":null}"#).unwrap();
    assert!(params.keys.is_empty());
    let text = r#"{"message":"m","robot_id":"r","session_id":null,
        "workspace":{"workspace_id":null,"workspace_instance_id":null}}"#;
    let params: RobotRun = decode_params(text).unwrap();
    assert_eq!(params.session_id, None);
    assert_eq!(params.workspace, Some(RobotRunWorkspace::default()));
}

/// Every member anywhere in a value, as `name` or `outer.name`, with lists left out of the path.
fn members(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = format!("{path}{name}");
                found.push(path.clone());
                members(value, &format!("{path}."), found);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                members(element, path, found);
            }
        }
        Value::Null => panic!("{path} is null"),
        _ => {}
    }
}

#[track_caller]
fn sends<M: Method>(params: &M, expected: &[&str]) {
    let mut buffer = String::new();
    let id = crate::id::RequestId::generate();
    encode_request(&mut buffer, id, M::NAME, params).unwrap();
    let message = value(&buffer);
    let mut found: Vec<_> = map(message.clone()).keys().cloned().collect();
    found.sort();
    assert_eq!(found, ["id", "jsonrpc", "method", "params"]);
    let mut found = Vec::new();
    members(&message["params"], "", &mut found);
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn nothing_unknown_empty_or_null_is_ever_sent() {
    let some = |text: &str| Some(text.to_owned());
    let object = map(json!({"x": 1}));

    sends(&Ping {}, &[]);
    sends(&Configure::default(), &[]);
    sends(&Event::default(), &["event"]);
    sends(&RobotModelProviderListModels::default(), &["provider"]);
    sends(
        &RobotToolCall {
            robot_id: some(""),
            ..RobotToolCall::default()
        },
        &[
            "provider_id",
            "tool_id",
            "call_id",
            "session_id",
            "account_id",
            "arguments",
        ],
    );
    sends(
        &RobotToolCall {
            robot_id: some("r"),
            arguments: object.clone(),
            ..RobotToolCall::default()
        },
        &[
            "provider_id",
            "tool_id",
            "call_id",
            "session_id",
            "account_id",
            "robot_id",
            "arguments",
            "arguments.x",
        ],
    );
    sends(
        &RobotModelProviderGenerate {
            system: some(""),
            ..RobotModelProviderGenerate::default()
        },
        &["provider", "model", "messages"],
    );
    let message = GenerateMessage {
        role: GenerateRole::Tool,
        content: None,
        name: some(""),
        tool_call_id: None,
    };
    sends(
        &RobotModelProviderGenerate {
            messages: vec![message],
            tools: vec![GenerateTool::default()],
            ..RobotModelProviderGenerate::default()
        },
        &[
            "provider",
            "model",
            "messages",
            "messages.role",
            "tools",
            "tools.name",
        ],
    );
    let message = GenerateMessage {
        role: GenerateRole::Tool,
        content: some("c"),
        name: some("n"),
        tool_call_id: some("t"),
    };
    let tool = GenerateTool {
        name: "n".to_owned(),
        description: some("d"),
        parameters: object,
    };
    sends(
        &RobotModelProviderGenerate {
            provider: "p".to_owned(),
            model: "m".to_owned(),
            messages: vec![message],
            system: some("s"),
            tools: vec![tool],
        },
        &[
            "provider",
            "model",
            "system",
            "messages",
            "messages.role",
            "messages.content",
            "messages.name",
            "messages.tool_call_id",
            "tools",
            "tools.name",
            "tools.description",
            "tools.parameters",
            "tools.parameters.x",
        ],
    );
}

#[test]
fn empty_optional_members_of_replies_are_left_out() {
    #[track_caller]
    fn encodes<T: Serialize>(reply: &T, expected: Value) {
        let result = ResultObject::from_serialize(reply).unwrap();
        assert_eq!(Value::Object(result.into_map()), expected);
    }
    let pong = PingReply {
        pong: true,
        ..PingReply::default()
    };
    encodes(&pong, json!({"pong": true}));
    encodes(&GenerateReply::default(), json!({}));
    encodes(&ToolCallReply::default(), json!({}));
    encodes(&RobotRunReply::default(), json!({}));
    encodes(&ListModelsReply::default(), json!({"models": []}));
    encodes(&GetConfigReply::default(), json!({"config": {}}));
}

#[test]
fn the_member_event_is_always_the_name() {
    let payload = json!({"event": "EventAccountCreated", "id": "d5k2jq45o2dtjn9ct5rg"});
    let params = Event::new("EventThreadPublished", &payload).unwrap();
    assert_eq!(
        serde_json::to_string(&params).unwrap(),
        r#"{"event":"EventThreadPublished","id":"d5k2jq45o2dtjn9ct5rg"}"#
    );
    assert_eq!(
        Event::new("EventX", &[1]).unwrap_err().to_string(),
        "cannot encode event: must be a JSON object, found an array"
    );
    let error = |text: &str| decode_params::<Event>(text).unwrap_err().message;
    assert!(error("{}").contains("missing field `event`"));
    assert!(error(r#"{"event":1}"#).contains("event must be a string"));
}

#[test]
fn a_reply_without_what_is_required_is_an_error() {
    let error = decode_reply::<Ping>(r#"{"method":"ping"}"#).unwrap_err();
    assert_matches!(&error, Error::InvalidReply { method, .. } if &**method == "ping");
    assert!(
        error.to_string().contains("missing field `pong`"),
        "{error}"
    );
    assert!(decode_reply::<Event>("{}").is_err());
    assert!(decode_reply::<Configure>(r#"{"ok":null}"#).is_err());
    assert!(decode_reply::<Configure>(r#"{"ok":"true"}"#).is_err());
    assert!(decode_reply::<RobotModelProviderListModels>("{}").is_err());
    assert!(decode_reply::<GetConfig>("{}").is_err());
    // By position an array would do, and a missing result is null.
    assert!(decode_reply::<Event>("[true]").is_err());
    assert!(decode_reply::<RobotToolCall>("null").is_err());
}

#[test]
fn replies_ignore_the_method_and_what_they_do_not_know() {
    let reply = decode_reply::<Event>(r#"{"method":"ping","ok":true,"more":[null]}"#);
    assert!(reply.unwrap().ok);
}

#[test]
fn bad_params_are_answered_with_the_code_for_it() {
    let error = |text: &str| {
        let error = decode_params::<RobotRun>(text).unwrap_err();
        assert_eq!(error.code, -32602);
        error.message
    };
    for (text, expected) in [
        // Where the error has no name for it, the member is found by its place.
        (
            r#"{"robot_id":"r","message":1}"#,
            "\"message\": invalid type: integer, expected a string",
        ),
        (
            "{\"message\":\n \"m\",\n\"robot_id\" : [true]}",
            "\"robot_id\": invalid type: sequence, expected a string",
        ),
        (
            r#"{"message":"m","robot_id":"r","workspace":{"workspace_id":{}}}"#,
            "\"workspace\": invalid type: map, expected a string",
        ),
        (r#"{"message":"m"}"#, "missing field `robot_id`"),
        (r#"[["m"]]"#, "expected an object, found an array"),
    ] {
        let message = error(text);
        let expected = format!("invalid params: {expected}");
        assert!(message.starts_with(&expected), "{text}: {message}");
    }
}

#[test]
fn deep_params_are_refused_rather_than_followed() {
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let body = move || {
        assert!(decode_params::<Configure>(&deep).is_err());
        assert!(decode_reply::<GetConfig>(&format!("{{\"config\":{deep}}}")).is_err());
        // Where it is not looked at, it does no harm.
        assert!(decode_params::<Ping>(&deep).is_ok());
    };
    std::thread::spawn(body).join().unwrap();
}

#[test]
fn asking_for_keys_gives_those_that_exist() {
    let stored = map(json!({"channel": "general", "limit": 25}));
    let select = |keys: &[&str]| {
        let keys = keys.iter().map(ToString::to_string).collect();
        Value::Object(GetConfig { keys }.select(&stored))
    };
    assert_eq!(select(&["limit", "missing"]), json!({"limit": 25}));
    assert_eq!(select(&["missing"]), json!({}));
    assert_eq!(select(&[]), json!({"channel": "general", "limit": 25}));
}

#[test]
fn the_deepest_payload_that_is_followed_needs_half_a_mebibyte_of_stack() {
    // 127 levels in all; with one more it is refused.
    let config = |inner| {
        let (open, close) = ("[".repeat(inner), "]".repeat(inner));
        format!("{{\"config\":{{\"x\":{open}{close}}}}}")
    };
    let body = move || {
        let reply = decode_reply::<GetConfig>(&config(125)).unwrap();
        let id = RemoteRequestId::from(crate::id::RequestId::generate());
        let result = ResultObject::from_serialize(&reply).unwrap();
        let mut buffer = String::new();
        encode_result(&mut buffer, &id, GetConfig::NAME, &result);
        assert!(buffer.contains(&"[".repeat(125)));
        assert!(decode_reply::<GetConfig>(&config(126)).is_err());
    };
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    small.spawn(body).unwrap().join().unwrap();
}

#[test]
fn debug_shows_no_value_of_a_configuration() {
    let configuration = map(json!({"city": "secret"}));
    assert_eq!(
        format!("{:?}", Configure(configuration.clone())),
        r#"Configure({"city"})"#
    );
    let reply = GetConfigReply {
        config: configuration,
    };
    assert_eq!(
        format!("{reply:?}"),
        r#"GetConfigReply { config: {"city"} }"#
    );
}
