//! Calls to plugins that are answered: typed and raw, one and many at once.

use std::thread;

use plugin_runner::error::RpcError;
use plugin_runner::protocol::method::{
    Configure, Event, Method, Ping, RobotModelProviderGenerate, RobotModelProviderListModels,
    RobotToolCall,
};
use plugin_runner::{Error, RequestId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::session::{Bench, Plugin, SHORT, connect, ping, start_ping, start_raw};
use crate::support::{LONG, assert_matches, object, wait_for};

/// Sends a worked example and answers it with the worked answer; both must arrive as they are written.
#[track_caller]
fn example<M>(request: &Value, response: &Value)
where
    M: Method + Sync,
    M::Reply: Send,
{
    let bench = Bench::new();
    let plugin = bench.connect();
    let id: RequestId = request["id"].as_str().unwrap().parse().unwrap();
    let params: M = serde_json::from_value(request["params"].clone()).unwrap();
    let reply = thread::scope(|scope| {
        let call = scope.spawn(|| bench.session.send(id, &params, LONG).unwrap());
        assert_eq!(plugin.expect(M::NAME).message, *request);
        plugin.send(&response.to_string());
        call.join().unwrap()
    });
    let mut answered = object(response["result"].clone());
    assert_eq!(answered.remove("method").unwrap(), M::NAME);
    assert_eq!(object(serde_json::to_value(&reply).unwrap()), answered);
    let counters = bench.session.counters();
    assert_eq!((counters.calls, counters.replies), (1, 1));
    assert_eq!(counters.calls_in_flight, 0);
}

#[test]
fn the_examples_of_the_document_go_there_and_back() {
    let document = include_str!("../../../src/protocol/PROTOCOL.md");
    let blocks = document.split("```json\n").skip(1);
    let messages = blocks.flat_map(|block| {
        let (block, _) = block.split_once("```").unwrap();
        serde_json::Deserializer::from_str(block).into_iter::<Value>()
    });
    let (mut request, mut examples) = (Value::Null, 0);
    for message in messages.map(Result::unwrap) {
        if message.get("params").is_some() {
            request = message;
            continue;
        }
        let mut response = message;
        // A second answer to one request has an id of its own.
        response["id"] = request["id"].clone();
        match request["method"].as_str() {
            Some(Event::NAME) => example::<Event>(&request, &response),
            Some(Configure::NAME) => example::<Configure>(&request, &response),
            Some(Ping::NAME) => example::<Ping>(&request, &response),
            Some(RobotModelProviderListModels::NAME) => {
                example::<RobotModelProviderListModels>(&request, &response);
            }
            Some(RobotModelProviderGenerate::NAME) => {
                example::<RobotModelProviderGenerate>(&request, &response);
            }
            Some(RobotToolCall::NAME) => example::<RobotToolCall>(&request, &response),
            // A manifest, or a call from the plugin.
            _ => continue,
        }
        examples += 1;
    }
    assert_eq!(examples, 7);
}

#[test]
fn null_for_empty_from_a_go_plugin_is_understood() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let params = RobotModelProviderListModels::default();
    let call = bench.session.start_call(&params, LONG).unwrap();
    let request = plugin.expect("robot_model_provider_list_models");
    plugin.reply(&request, json!({"models": null}));
    assert!(call.wait().unwrap().models.is_empty());
}

#[derive(Serialize, Deserialize)]
struct Shout {
    text: String,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Shouted {
    text: String,
}

impl Method for Shout {
    const NAME: &'static str = "acme.shout";
    type Reply = Shouted;
}

#[test]
fn methods_of_the_embedders_own_are_called_by_type_and_by_name() {
    let bench = Bench::new();
    let plugin = bench.connect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                let request = plugin.expect("acme.shout");
                let text = request.params["text"].as_str().unwrap().to_uppercase();
                plugin.reply(&request, json!({"text": text}));
            }
        });
        let params = Shout {
            text: "hey".to_owned(),
        };
        let expected = Shouted {
            text: "HEY".to_owned(),
        };
        assert_eq!(bench.session.call(&params, LONG).unwrap(), expected);
        let reply = bench.session.call_raw("acme.shout", &params, LONG).unwrap();
        assert_eq!(reply.read::<Shouted>().unwrap(), expected);
        assert!(
            reply.as_json().contains(r#""text":"HEY""#),
            "{}",
            reply.as_json()
        );
    });
}

#[test]
fn an_error_from_the_plugin_is_told_with_its_code() {
    let bench = Bench::new();
    let plugin = bench.connect();
    for (error, expected) in [
        (
            r#"{"code":-32000,"message":"handler error: no"}"#,
            RpcError::new(-32000, "handler error: no"),
        ),
        (r#"{"message":"no code"}"#, RpcError::new(0, "no code")),
        ("{}", RpcError::new(0, "")),
    ] {
        // Error responses of Storyden's Go host have a null result beside.
        for beside in ["", r#","result":null"#] {
            let call = start_ping(&bench.session);
            let id = plugin.expect("ping").id;
            plugin.send(&format!(
                r#"{{"jsonrpc":"2.0","id":"{id}","error":{error}{beside}}}"#
            ));
            let refused = call.wait().unwrap_err();
            assert_matches!(&refused, Error::Rpc(found) if **found == expected);
            assert!(!refused.is_retryable() && !refused.is_timeout());
        }
    }
    let counters = bench.session.counters();
    assert_eq!((counters.refusals, counters.replies), (6, 0));
}

/// A shuffle that is the same every time.
fn shuffled<T>(items: Vec<T>) -> Vec<T> {
    let mut numbered: Vec<_> = items
        .into_iter()
        .enumerate()
        .map(|(index, item)| (index * 7919 % 1009, item))
        .collect();
    numbered.sort_by_key(|(place, _)| *place);
    numbered.into_iter().map(|(_, item)| item).collect()
}

#[test]
fn one_thread_has_64_calls_in_flight_and_each_gets_its_own_answer() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let calls: Vec<_> = (0..64)
        .map(|number| start_raw(&bench.session, "echo", json!({"number": number})))
        .collect();
    assert_eq!(bench.session.counters().calls_in_flight, 64);
    let requests = (0..64).map(|_| plugin.expect("echo")).collect();
    for request in shuffled(requests) {
        let params = request.params.clone();
        plugin.reply(&request, params);
    }
    for (number, call) in calls.into_iter().enumerate() {
        let reply: Value = call.wait().unwrap().read().unwrap();
        assert_eq!(reply["number"], number);
    }
    assert_eq!(bench.session.counters().calls_in_flight, 0);
}

fn two_hundred_callers(bench: &Bench, plugin: &Plugin) {
    const CALLERS: usize = 200;
    thread::scope(|scope| {
        for number in 0..CALLERS {
            scope.spawn(move || {
                let params = json!({"number": number});
                let reply = bench.session.call_raw("echo", &params, LONG).unwrap();
                assert_eq!(reply.read::<Value>().unwrap()["number"], number);
            });
        }
        let requests = (0..CALLERS).map(|_| plugin.expect("echo")).collect();
        for request in shuffled(requests) {
            let params = request.params.clone();
            plugin.reply(&request, params);
        }
    });
    let counters = bench.session.counters();
    assert_eq!((counters.calls, counters.replies), (200, 200));
    assert_eq!((counters.calls_in_flight, counters.stray_replies), (0, 0));
}

#[test]
fn two_hundred_callers_in_memory_each_get_their_own_answer() {
    let bench = Bench::new();
    two_hundred_callers(&bench, &bench.connect());
}

#[test]
fn two_hundred_callers_over_a_websocket_each_get_their_own_answer() {
    let bench = Bench::new();
    two_hundred_callers(&bench, &bench.connect_socket());
}

#[test]
fn an_answer_can_be_asked_for_without_waiting() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let mut call = start_ping(&bench.session);
    assert!(call.try_wait().is_none());
    let request = plugin.expect("ping");
    plugin.reply(&request, json!({"pong": true}));
    let reply = wait_for("the answer", || call.try_wait());
    assert!(reply.unwrap().pong);
    assert!(call.try_wait().is_none(), "the answer came twice");

    // The raw form, and a time that runs out.
    let mut call = bench
        .session
        .start_call_raw("never", &json!({}), SHORT)
        .unwrap();
    let reply = wait_for("the timeout", || call.try_wait());
    assert!(reply.unwrap_err().is_timeout());
    assert_eq!(bench.session.counters().timeouts, 1);
}

#[test]
fn an_id_of_the_callers_own_is_sent_and_can_be_used_again() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let id: RequestId = "d5k2m2c5o2dtjn9ct6bg".parse().unwrap();
    for _ in 0..2 {
        thread::scope(|scope| {
            let first = scope.spawn(|| bench.session.send(id, &Ping {}, LONG));
            let request = plugin.expect("ping");
            assert_eq!(request.id, "d5k2m2c5o2dtjn9ct6bg");
            // Not while it is in flight; the first call is not disturbed.
            let refused = bench.session.send(id, &Ping {}, LONG);
            assert_matches!(refused, Err(Error::IdInUse(found)) if found == id);
            plugin.reply(&request, json!({"pong": true}));
            assert!(first.join().unwrap().unwrap().pong);
        });
    }
}

#[test]
fn answers_to_nobody_are_dropped_and_counted() {
    let bench = Bench::new();
    let plugin = bench.connect();
    // Late.
    let late = bench.session.start_call(&Ping {}, SHORT);
    let late_request = plugin.expect("ping");
    assert!(late.unwrap().wait().unwrap_err().is_timeout());
    plugin.reply(&late_request, json!({"pong": true}));
    // Given up.
    drop(start_ping(&bench.session));
    let given_up = plugin.expect("ping");
    plugin.refuse(&given_up, -32000, "no");
    // Twice.
    let call = start_ping(&bench.session);
    let twice = plugin.expect("ping");
    plugin.reply(&twice, json!({"pong": true}));
    plugin.reply(&twice, json!({"pong": false}));
    assert!(call.wait().unwrap().pong);
    // Of an id that was never sent, or that nobody could have sent.
    plugin.send(r#"{"jsonrpc":"2.0","id":"d5k2m2c5o2dtjn9ct6bg","result":{"method":"ping"}}"#);
    plugin.send(r#"{"jsonrpc":"2.0","id":17,"result":{"method":"ping"}}"#);
    plugin.send(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#);

    bench.ping(&plugin);
    let counters = bench.session.counters();
    assert_eq!(counters.stray_replies, 6);
    assert_eq!((counters.replies, counters.timeouts), (2, 1));
    assert_eq!(counters.calls_in_flight, 0);
}

#[test]
fn a_call_from_the_plugin_with_the_id_of_ours_is_no_answer() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let call = start_ping(&bench.session);
    let request = plugin.expect("ping");
    let answer = plugin.call(&format!("\"{}\"", request.id), "get_config", "{}");
    assert_eq!(answer["result"]["config"], json!({}));
    plugin.reply(&request, json!({"pong": true}));
    assert!(call.wait().unwrap().pong);
}

#[test]
fn two_plugins_of_a_host_do_not_get_each_others_answers() {
    let bench = Bench::new();
    let other = bench.load(|record| record);
    let (plugin, other_plugin) = (bench.connect(), connect(&other, ""));
    let call = start_ping(&bench.session);
    let request = plugin.expect("ping");
    other_plugin.reply(&request, json!({"pong": false}));
    ping(&other, &other_plugin);
    assert_eq!(other.counters().stray_replies, 1);
    plugin.reply(&request, json!({"pong": true}));
    assert!(call.wait().unwrap().pong);
}

#[test]
fn counters_are_one_flat_object() {
    let bench = Bench::new();
    let plugin = bench.connect();
    bench.ping(&plugin);
    let counters = serde_json::to_value(bench.session.counters()).unwrap();
    assert_eq!(
        (&counters["connections"], &counters["replies"]),
        (&json!(1), &json!(1))
    );
    assert!(object(counters).values().all(Value::is_u64));
    let counters = serde_json::to_value(bench.host.handshake_counters()).unwrap();
    assert!(object(counters).values().all(Value::is_u64));
}
