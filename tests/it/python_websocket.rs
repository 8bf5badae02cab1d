//! A plugin in Python over a WebSocket that is as strict as Storyden's Python SDK, with another
//! implementation's frames; see `tests/fixtures/websocket_plugin.py`.

use plugin_runner::call::InboundCall;
use plugin_runner::error::RpcError;
use plugin_runner::protocol::AccessGrant;
use plugin_runner::protocol::manifest::AccessRequest;
use plugin_runner::protocol::method::{
    Configure, Event, GenerateMessage, GenerateRole, GenerateTool, Method, Ping,
    RobotModelProviderGenerate, RobotModelProviderListModels, RobotToolCall,
};
use plugin_runner::store::Record;
use plugin_runner::{Error, ReportedState, Services, Session};
use serde_json::{Map, Value, json};

use crate::support::host::TestHost;
use crate::support::plugin::{With as _, command};
use crate::support::{LONG, assert_matches, object, wait_for, wait_until};

const MIB: usize = 1024 * 1024;
const XID: &str = "d5k2jq45o2dtjn9ct5rg";

/// Gives access, and leaves the rest as it is.
struct Access;

impl Services for Access {
    fn access_get(&self, _: &InboundCall) -> Result<AccessGrant, RpcError> {
        Ok(AccessGrant::new("sdbak_example", "https://forum.example/base").unwrap())
    }
}

fn python(host: &TestHost) -> Record {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/websocket_plugin.py"
    );
    let mut record = command(host, "strict", "python3", &["-u", script])
        .variable("FIXTURE_LIFELINE", host.lifelines.address());
    record.manifest.events_consumed = ["EventThreadPublished", "EventMemberMentioned"]
        .map(str::to_owned)
        .to_vec();
    record
}

fn tool_call(tool: &str, arguments: Value) -> RobotToolCall {
    RobotToolCall {
        provider_id: "provider".to_owned(),
        tool_id: tool.to_owned(),
        call_id: "call_1".to_owned(),
        session_id: XID.to_owned(),
        account_id: XID.to_owned(),
        robot_id: None,
        arguments: object(arguments),
    }
}

/// Calls one of the fixture's tools.
#[track_caller]
fn tool(session: &Session, tool: &str, arguments: Value) -> Map<String, Value> {
    let params = tool_call(tool, arguments);
    let reply = session.call(&params, LONG).unwrap();
    assert_eq!(reply.failure(), None);
    reply.output
}

/// Has the plugin call the host; gives the id of the call.
#[track_caller]
fn ask(session: &Session, method: &str, params: &Value) -> String {
    let asked = tool(session, "ask", json!({"method": method, "params": params}));
    asked["id"].as_str().unwrap().to_owned()
}

/// The answer that the plugin got to its call, if it has come.
#[track_caller]
fn answered(session: &Session, id: &str) -> Option<Value> {
    tool(session, "answers", json!({})).remove(id)
}

/// Waits for that answer.
#[track_caller]
fn answer(session: &Session, id: &str) -> Value {
    wait_for("the answer", || answered(session, id))
}

/// Calls a method that must be answered: what the peer refuses, it does not answer.
#[track_caller]
fn accepted<M: Method>(session: &Session, params: &M) -> M::Reply {
    match session.call(params, LONG) {
        Ok(reply) => reply,
        Err(error) => panic!("{}: {error}", M::NAME),
    }
}

#[test]
fn a_strict_peer_takes_every_request_with_all_and_with_no_optional_members() {
    let host = TestHost::new("strict-requests");
    let session = host.run(python(&host));
    assert!(accepted(&session, &Ping {}).pong);
    for configuration in [
        json!({}),
        json!({"channel": null, "deep": {"list": [1, 2.5]}}),
    ] {
        assert!(accepted(&session, &Configure(object(configuration))).ok);
    }
    for (event, payload) in [
        ("EventThreadPublished", json!({"id": XID})),
        (
            "EventMemberMentioned",
            json!({
                "by": XID,
                "source": {"kind": "post", "id": XID},
                "item": {"kind": "profile", "id": XID},
            }),
        ),
        (
            "EventReportUpdated",
            json!({"id": XID, "status": "submitted"}),
        ),
        (
            "EventReportUpdated",
            json!({
                "id": XID, "status": "resolved", "target": {"kind": "post", "id": XID},
                "reported_by": XID, "handled_by": XID,
            }),
        ),
        ("EventSettingsUpdated", json!({"settings": {"Title": null}})),
    ] {
        let params = Event::new(event, &payload).unwrap();
        assert!(accepted(&session, &params).ok, "{event}");
    }
    let provider = "acme".to_owned();
    let models = accepted(&session, &RobotModelProviderListModels { provider });
    assert_eq!(models.models[0].name, "acme/small");

    let mut generate = RobotModelProviderGenerate {
        provider: "acme".to_owned(),
        model: "small".to_owned(),
        messages: vec![GenerateMessage::new(GenerateRole::User, "hello")],
        ..RobotModelProviderGenerate::default()
    };
    let reply = accepted(&session, &generate);
    assert_eq!(reply.content.as_deref(), Some("hello"));
    generate.system = Some("Be brief.".to_owned());
    generate.messages.push(GenerateMessage {
        name: Some("forecast".to_owned()),
        tool_call_id: Some("call_1".to_owned()),
        ..GenerateMessage::new(GenerateRole::Tool, "rain")
    });
    generate.tools = vec![
        GenerateTool {
            name: "forecast".to_owned(),
            ..GenerateTool::default()
        },
        GenerateTool {
            name: "almanac".to_owned(),
            description: Some("Knows the past.".to_owned()),
            parameters: object(json!({"type": "object"})),
        },
    ];
    let reply = accepted(&session, &generate);
    assert_eq!(reply.content.as_deref(), Some("rain"));

    let arguments = json!({"city": "Oslo", "days": null});
    let mut params = tool_call("echo", arguments.clone());
    for robot in [None, Some(""), Some("robot")] {
        params.robot_id = robot.map(str::to_owned);
        let reply = accepted(&session, &params);
        assert_eq!(Value::Object(reply.output), arguments, "{robot:?}");
    }

    // Published events pass another way.
    let before = session.counters().events_delivered;
    let report = host.publish("EventThreadPublished", &json!({"id": XID}));
    assert_eq!(report.unwrap().queued, 1);
    wait_until("the answer to the event", || {
        session.counters().events_delivered > before
    });

    // And this is what the peer does with a member too many.
    let params = Event::new("EventThreadPublished", &json!({"id": XID, "x": 1})).unwrap();
    let unanswered = session.start_call(&params, LONG).unwrap();
    host.output.wait_for("about the refusal", |line| {
        (line.text == "refused: EventThreadPublished.x is unknown").then_some(())
    });
    drop(unanswered);
}

#[test]
fn a_peer_with_ids_that_are_no_xids_gets_its_answers_in_its_own_shape() {
    let host = TestHost::with("strict-answers", |setup| {
        setup.configure(|builder| builder.services(Access));
    });
    let mut record = python(&host)
        .with(|record| record.configuration = object(json!({"channel": "general", "limit": 25})));
    record.manifest.access = Some(AccessRequest::default());
    let session = host.run(record);
    let result = |method: &str, params: Value| {
        let id = ask(&session, method, &params);
        let mut answer = answer(&session, &id);
        assert_eq!(answer["id"], json!(id));
        assert!(answer.get("method").is_none(), "taken for a request");
        answer["result"].take()
    };
    assert_eq!(
        result("get_config", json!({"keys": ["limit", "missing"]})),
        json!({"method": "get_config", "config": {"limit": 25}})
    );
    // No params at all.
    assert_eq!(
        result("get_config", Value::Null)["config"],
        json!({"channel": "general", "limit": 25})
    );
    // By its user agent; the inner object must have no other members.
    assert_eq!(
        result("access_get", Value::Null),
        json!({
            "method": "access_get",
            "result": {
                "access_key": "sdbak_example",
                "apibase_url": "https://forum.example/base",
            },
        })
    );
    assert_eq!(
        result("robot_run", json!({"message": "hello", "robot_id": XID}))["error"],
        "this host runs no Robots"
    );
    let unknown = ask(&session, "dance", &json!({}));
    assert_eq!(answer(&session, &unknown)["error"]["code"], -32601);
}

#[test]
fn pongs_come_while_handlers_of_the_host_are_busy() {
    let (busy, began) = crossbeam_channel::bounded(0);
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let host = TestHost::with("strict-pongs", |setup| {
        setup.limits(|limits| limits.inbound_workers(1).inbound_queue(1));
        setup.configure(move |builder| {
            builder.method_raw("wait", move |_, _| {
                busy.send(()).unwrap();
                // Ends when the test drops the sender.
                let _ = released.recv_timeout(LONG);
                Ok(Map::new().into())
            })
        });
    });
    let session = host.run(python(&host));
    let id = ask(&session, "wait", &json!({}));
    began.recv_timeout(LONG).unwrap();
    let pongs = || {
        tool(&session, "pongs", json!({}))["pongs"]
            .as_u64()
            .unwrap()
    };
    let before = pongs();
    wait_until("pongs", || pongs() >= before + 5);
    assert_eq!(answered(&session, &id), None, "the handler is not busy");
    drop(release);
    assert_eq!(answer(&session, &id)["result"], json!({"method": "wait"}));
    assert_eq!(session.reported_state(), ReportedState::Active);
    assert_eq!(session.counters().connections, 1);
}

#[test]
fn a_peer_that_says_it_is_python_is_sent_1_mib_and_not_a_byte_more() {
    let host = TestHost::new("strict-sizes");
    let session = host.run(python(&host));
    let send = |size: usize| {
        let params = tool_call("echo", json!({"text": "x".repeat(size)}));
        session.call(&params, LONG)
    };
    let Err(Error::MessageTooLarge { size, limit }) = send(MIB) else {
        panic!("a mebibyte and an envelope were sent");
    };
    assert_eq!(limit, MIB);
    let largest = limit - (size - MIB);
    // The peer closes over a byte more.
    let echo = send(largest).unwrap().output;
    assert_eq!(echo["text"].as_str().unwrap().len(), largest);
    let error = send(largest + 1).unwrap_err();
    assert_matches!(error, Error::MessageTooLarge { .. });
    assert_eq!(session.counters().connections, 1);
}
