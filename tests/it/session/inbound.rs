//! Calls from plugins: who handles them, what a handler may do, and what happens when it fails or
//! when there are too many.

use std::panic::panic_any;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use plugin_runner::call::{InboundCall, Params};
use plugin_runner::duplex::websocket::WebSocket;
use plugin_runner::duplex::{Duplex, DuplexSettings};
use plugin_runner::error::RpcError;
use plugin_runner::protocol::method::Ping;
use plugin_runner::protocol::{Method, ResultObject};
use plugin_runner::{Limits, ReportedState, Services};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::support::session::{Bench, connect, result};
use crate::support::{LONG, assert_matches, object, wait_until};

/// Handlers that wait until they are let go.
struct Gate {
    /// Says that a handler has begun.
    begun: Receiver<()>,
    /// Dropping it lets all handlers go.
    release: Sender<()>,
}

/// A host with the method `slow`, whose handlers wait at the gate.
fn slow_bench(limits: Limits) -> (Bench, Gate) {
    let (begin, begun) = unbounded();
    let (release, released) = bounded::<()>(0);
    let bench = Bench::with_host(|builder| {
        builder.limits(limits).method_raw("slow", move |_, _| {
            begin.send(()).unwrap();
            assert!(released.recv_timeout(LONG).unwrap_err().is_disconnected());
            Ok(result(json!({"done": true})))
        })
    });
    (bench, Gate { begun, release })
}

#[test]
fn a_slow_handler_delays_neither_replies_nor_other_handlers() {
    let (bench, gate) = slow_bench(Limits::default());
    let plugin = bench.connect();
    plugin.ask("1", "slow", "{}");
    gate.begun.recv_timeout(LONG).expect("slow handler");
    assert_eq!(bench.session.counters().inbound_in_flight, 1);
    bench.ping(&plugin);
    let answer = plugin.call("2", "get_config", "{}");
    assert_eq!(answer["result"]["config"], json!({}));
    drop(gate.release);
    assert_eq!(plugin.answer("1")["result"]["done"], true);
}

#[test]
fn a_slow_handler_does_not_keep_websocket_pings_from_being_answered() {
    let (bench, gate) = slow_bench(Limits::default());
    let socket = WebSocket::client(bench.connect_silent(), Vec::new());
    let settings = DuplexSettings::new("plugin");
    let (mut reader, writer) = Box::new(socket).split(&settings).unwrap();
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"slow"}"#;
    assert!(writer.send(request, Instant::now() + LONG).unwrap());
    gate.begun.recv_timeout(LONG).expect("slow handler");
    assert!(writer.ping());
    assert_matches!(reader.receive(), Ok(None));
    drop(gate.release);
    assert_matches!(reader.receive(), Ok(Some(_)));
}

#[test]
fn a_handler_may_call_the_plugin_back() {
    let bench = Bench::with_host(|builder| {
        builder.method_raw("are_you_there", |call, _| {
            let reply = call
                .session()
                .call(&Ping {}, LONG)
                .map_err(|error| RpcError::new(RpcError::HANDLER_FAILED, error.to_string()))?;
            Ok(result(json!({"pong": reply.pong})))
        })
    });
    let plugin = bench.connect();
    plugin.ask("1", "are_you_there", "{}");
    let request = plugin.expect("ping");
    plugin.reply(&request, json!({"pong": true}));
    assert_eq!(plugin.answer("1")["result"]["pong"], true);
}

#[test]
fn all_workers_may_call_the_plugin_back_at_once() {
    let limits = Limits::default().inbound_workers(4);
    let bench = Bench::with_host(|builder| {
        builder.limits(limits).method_raw("call_me", |call, _| {
            let reply = call
                .session()
                .call_raw("called", &json!({}), LONG)
                .map_err(|error| RpcError::new(RpcError::HANDLER_FAILED, error.to_string()))?;
            Ok(result(reply.read().unwrap()))
        })
    });
    let plugin = bench.connect();
    for id in 0..4 {
        plugin.ask(&id.to_string(), "call_me", "{}");
    }
    let requests: Vec<_> = (0..4).map(|_| plugin.expect("called")).collect();
    for request in requests.iter().rev() {
        plugin.reply(request, json!({"ok": 1}));
    }
    for _ in 0..4 {
        let answer: Value = serde_json::from_str(&plugin.next_text("answer")).unwrap();
        assert_eq!(answer["result"], json!({"method": "call_me", "ok": 1}));
    }
}

#[test]
fn a_panicking_handler_is_answered_with_32603_and_the_session_lives() {
    /// Panics when it is dropped.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose, again");
        }
    }

    let bench = Bench::with_host(|builder| {
        builder
            .method_raw("panic", |_, _| panic!("on purpose"))
            .method_raw("panic twice", |_, _| panic_any(Bomb))
    });
    let plugin = bench.connect();
    for (id, method) in [("1", "panic"), ("2", "panic twice")] {
        assert_eq!(
            plugin.call(id, method, "{}")["error"],
            json!({"code": -32603, "message": "the handler failed unexpectedly"})
        );
    }
    bench.ping(&plugin);
    assert!(plugin.call("3", "get_config", "{}")["result"].is_object());
}

#[test]
fn an_error_of_a_handler_is_the_answer() {
    let bench = Bench::with_host(|builder| {
        builder.method_raw("fail", |_, _| Err(RpcError::new(-32000, "no \"luck\"")))
    });
    let plugin = bench.connect();
    assert_eq!(
        plugin.call("1", "fail", "{}"),
        json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "no \"luck\""}})
    );
}

#[test]
fn calls_that_hold_too_much_memory_are_refused_until_they_are_answered() {
    let (bench, gate) = slow_bench(Limits::default().inbound_bytes(1000));
    let plugin = bench.connect();
    let large = json!({"text": "x".repeat(600)}).to_string();
    plugin.ask("1", "slow", &large);
    gate.begun.recv_timeout(LONG).expect("slow handler");
    let refused = plugin.call("2", "slow", &large);
    assert_eq!(refused["error"]["code"], -32000);
    assert!(plugin.call("3", "get_config", "{}")["result"].is_object());
    drop(gate.release);
    assert_eq!(plugin.answer("1")["result"]["done"], true);
    // Its memory is given back a moment after its answer.
    wait_until("the memory of the first call", || {
        plugin.call("4", "slow", &large)["result"].is_object()
    });
}

#[test]
fn over_the_cap_a_call_is_refused_and_the_session_lives() {
    let (bench, gate) = slow_bench(Limits::default().inbound_workers(2).inbound_queue(1));
    let plugin = bench.connect();
    for id in ["1", "2", "3"] {
        plugin.ask(id, "slow", "{}");
    }
    for _ in 0..2 {
        gate.begun.recv_timeout(LONG).expect("slow handler");
    }
    // The third waits; for one more there is no room.
    let refused = plugin.call("4", "slow", "{}");
    assert_eq!(refused["error"]["code"], -32000);
    let text = refused["error"]["message"].as_str().unwrap();
    assert_eq!(
        text,
        "too many calls from this plugin are in progress; try again later"
    );
    bench.ping(&plugin);
    let counters = bench.session.counters();
    assert_eq!((counters.inbound_calls, counters.inbound_refused), (4, 1));
    assert_eq!(counters.inbound_in_flight, 3);
    // Room comes back.
    drop(gate.release);
    let mut ids: Vec<i64> = (0..3)
        .map(|_| {
            let answer: Value = serde_json::from_str(&plugin.next_text("answer")).unwrap();
            assert_eq!(answer["result"]["done"], true);
            answer["id"].as_i64().unwrap()
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    assert!(plugin.call("5", "get_config", "{}")["result"].is_object());
}

#[test]
fn one_plugins_slow_handlers_do_not_delay_another_plugin() {
    let (bench, gate) = slow_bench(Limits::default().inbound_workers(1).inbound_queue(0));
    let other = bench.load(|record| record);
    let plugin = bench.connect();
    let other_plugin = connect(&other, "");
    plugin.ask("1", "slow", "{}");
    gate.begun.recv_timeout(LONG).expect("slow handler");
    assert_eq!(plugin.call("2", "slow", "{}")["error"]["code"], -32000);
    assert!(other_plugin.call("1", "get_config", "{}")["result"].is_object());
    drop(gate.release);
    plugin.answer("1");
}

#[test]
fn an_answer_for_a_connection_that_has_ended_goes_nowhere() {
    let (bench, gate) = slow_bench(Limits::default());
    let plugin = bench.connect();
    plugin.ask("1", "slow", "{}");
    gate.begun.recv_timeout(LONG).expect("slow handler");
    drop(plugin);
    bench.wait_for(ReportedState::Connecting);
    let plugin = bench.connect();
    drop(gate.release);
    // The handler has ended when nothing is in flight any more.
    bench.host.drain(LONG).unwrap();
    plugin.ask("2", "get_config", "{}");
    assert!(plugin.answer("2")["result"].is_object());
    assert!(plugin.has_nothing_more());
}

#[test]
fn registered_methods_get_their_params_and_know_who_calls() {
    #[derive(Deserialize)]
    struct Numbers {
        numbers: Vec<i64>,
    }

    let bench = Bench::with_host(|builder| {
        builder.method_raw("sum", |call: &InboundCall, params: &Params| {
            let Numbers { numbers } = params.read()?;
            Ok(result(json!({
                "sum": numbers.iter().sum::<i64>(),
                "caller": call.session().id().to_string(),
                "manifest": call.manifest().id,
                "called": call.method(),
            })))
        })
    });
    let plugin = bench.connect();
    assert_eq!(
        plugin.call("1", "sum", r#"{"numbers":[1,2,3]}"#)["result"],
        json!({
            "method": "sum", "sum": 6, "caller": bench.session.id().to_string(),
            "manifest": "tested", "called": "sum",
        })
    );
    let error = plugin.call("2", "sum", r#"{"numbers":"many"}"#)["error"].clone();
    assert_eq!(error["code"], -32602);
}

#[test]
fn methods_may_have_types_of_their_own() {
    #[derive(Deserialize)]
    struct Get {
        key: String,
        version: Option<u32>,
    }

    #[derive(Serialize)]
    struct Got {
        value: String,
        caller: String,
    }

    #[derive(Serialize, Deserialize)]
    struct Count {}

    impl Method for Count {
        const NAME: &'static str = "kv_count";
        type Reply = Map<String, Value>;
    }

    let bench = Bench::with_host(|builder| {
        builder
            .method("kv_get", |call, Get { key, version }| {
                let found = version.is_none_or(|version| version == 1);
                let value = format!("value of {key}");
                let caller = call.manifest().id.clone();
                found
                    .then_some(Got { value, caller })
                    .ok_or_else(|| RpcError::new(7, "no such version"))
            })
            .on(|_, Count {}| Ok(object(json!({"keys": 3}))))
            .method("number", |_, _: IgnoredAny| Ok(5))
    });
    let plugin = bench.connect();
    assert_eq!(
        plugin.call("1", "kv_get", r#"{"key":"k"}"#)["result"],
        json!({"method": "kv_get", "value": "value of k", "caller": "tested"})
    );
    assert_eq!(plugin.call("2", "kv_count", "{}")["result"]["keys"], 3);
    let error = |id: &str, method: &str, params: &str| {
        let error = plugin.call(id, method, params)["error"].clone();
        let code = error["code"].as_i64().unwrap();
        (code, error["message"].as_str().unwrap().to_owned())
    };
    let own = error("3", "kv_get", r#"{"key":"k","version":2}"#);
    assert_eq!(own, (7, "no such version".to_owned()));
    // The plugin learns which field is wrong.
    for (id, params, field) in [
        ("4", "{}", "`key`"),
        ("5", r#"{"key":1}"#, "\"key\""),
        ("6", r#"{"key":"k","version":"one"}"#, "\"version\""),
    ] {
        let (code, message) = error(id, "kv_get", params);
        assert_eq!(code, RpcError::INVALID_PARAMS, "{message}");
        assert!(message.contains(field), "{params}: {message}");
    }
    // What is not an object would leave callers in Go hanging.
    let (code, message) = error("7", "number", "{}");
    assert_eq!(code, RpcError::INTERNAL);
    assert!(message.contains("must be a JSON object"), "{message}");
}

#[test]
fn other_methods_come_to_the_service_after_the_registered_ones() {
    struct Everything;

    impl Services for Everything {
        fn call(
            &self,
            call: &InboundCall,
            params: &Params,
        ) -> Option<Result<ResultObject, RpcError>> {
            let by_service = json!({"by": "service", "params": params.as_json()});
            call.method()
                .starts_with("acme.")
                .then(|| Ok(result(by_service)))
        }
    }

    let bench = Bench::with_host(|builder| {
        builder
            .services(Everything)
            .method_raw("acme.registered", |_, _| {
                Ok(result(json!({"by": "method"})))
            })
            // The protocol's own are found before it.
            .method_raw("get_config", |_, _| Ok(result(json!({"by": "method"}))))
    });
    let plugin = bench.connect();
    let by = |id: &str, method: &str| plugin.call(id, method, "{}")["result"]["by"].clone();
    assert_eq!(by("1", "acme.registered"), "method");
    assert_eq!(by("2", "acme.other"), "service");
    assert_eq!(by("3", "get_config"), Value::Null);
    assert_eq!(plugin.call("4", "other", "{}")["error"]["code"], -32601);
    let params = plugin.call("5", "acme.raw", r#"{"a": [1, 2]}"#)["result"]["params"].clone();
    assert_eq!(params, r#"{"a": [1, 2]}"#);
}

#[test]
fn both_sides_call_each_other_at_full_speed_and_nothing_gets_lost() {
    const CALLS: usize = 100;
    let bench = Bench::with_host(|builder| {
        let limits = Limits::default().inbound_queue(CALLS);
        builder.limits(limits)
    });
    let plugin = Arc::new(bench.connect_socket());
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..CALLS {
                let params = json!({"number": number});
                let reply = bench.session.call_raw("echo", &params, LONG).unwrap();
                assert_eq!(reply.read::<Value>().unwrap()["number"], number);
            }
        });
        scope.spawn(|| {
            for id in 0..CALLS {
                plugin.ask(&id.to_string(), "get_config", "{}");
            }
        });
        let mut answered = [false; CALLS];
        for _ in 0..2 * CALLS {
            let text = plugin.next_text("call or answer");
            let message: Value = serde_json::from_str(&text).unwrap();
            if message.get("method").is_some() {
                let response = json!({
                    "jsonrpc": "2.0", "id": message["id"],
                    "result": {"method": "echo", "number": message["params"]["number"]},
                });
                plugin.send(&response.to_string());
            } else {
                assert_eq!(message["result"]["config"], json!({}), "{text}");
                let id = usize::try_from(message["id"].as_u64().unwrap()).unwrap();
                assert!(
                    !std::mem::replace(&mut answered[id], true),
                    "{id} answered twice"
                );
            }
        }
        assert_eq!(answered, [true; CALLS]);
    });
}
