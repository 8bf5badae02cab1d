//! Plugins made with the SDK, over memory; with real hosts in `hosts`.

mod hosts;

use std::thread::{self, JoinHandle};

use crossbeam_channel::{bounded, unbounded};
use plugin_runner::call::InboundCall;
use plugin_runner::duplex::memory;
use plugin_runner::error::RpcError;
use plugin_runner::protocol::method::{
    Ping, PingReply, RobotRun, RobotRunReply, RobotToolCall, ToolCallReply,
};
use plugin_runner::protocol::{AccessGrant, Manifest, ResultObject};
use plugin_runner::sdk::{HostHandle, Plugin};
use plugin_runner::store::Record;
use plugin_runner::{Error, HostBuilder, ReportedState, Result, Services};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::support::plugin::With as _;
use crate::support::session::{Bench, result};
use crate::support::{LONG, object};

/// A plugin over memory, connected to a host.
struct Peer {
    bench: Bench,
    plugin: JoinHandle<Result<()>>,
}

/// Runs the plugin that `make` returns.
fn run(make: impl FnOnce(Plugin) -> Plugin) -> Peer {
    run_with(|builder| builder, make)
}

/// Runs the plugin that `make` returns, with such a host.
fn run_with(
    settings: impl FnOnce(HostBuilder) -> HostBuilder + 'static,
    make: impl FnOnce(Plugin) -> Plugin,
) -> Peer {
    let bench = Bench::with(settings, configured);
    let (ours, theirs) = memory::pair(16);
    let plugin = make(Plugin::over(theirs));
    let plugin = thread::spawn(move || plugin.run());
    bench.session.connect(ours, "").unwrap();
    Peer { bench, plugin }
}

/// Consumes an event, asks for access, and has a configuration.
fn configured(mut record: Record) -> Record {
    let manifest = json!({
        "id": "tested", "author": "tests", "name": "Tested", "events_consumed": ["EventPostLiked"],
        "access": {"handle": "helper", "name": "Helper", "permissions": []},
    });
    record.manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    let configuration = json!({"channel": "general", "colour": "blue"});
    record.with(|record| record.configuration = object(configuration))
}

impl Peer {
    fn call(&self, method: &str, params: &Value) -> Result<Value> {
        self.bench.session.call_raw(method, params, LONG)?.read()
    }

    #[track_caller]
    fn refusal(&self, method: &str, params: &Value) -> RpcError {
        match self.call(method, params) {
            Err(Error::Rpc(error)) => RpcError::clone(&error),
            other => panic!("expected an error response, got {other:?}"),
        }
    }

    /// Closes, and waits for the plugin's end.
    #[track_caller]
    fn end(self) {
        let Self { bench, plugin } = self;
        bench.host.unload(bench.session.id()).unwrap();
        plugin.join().unwrap().unwrap();
    }
}

#[test]
fn an_event_reaches_its_handler_with_its_fields() {
    #[derive(Deserialize)]
    struct Reaction {
        emoji: String,
    }

    let (seen, events) = unbounded();
    let peer = run(|plugin| {
        plugin
            .on_event("EventPostLiked", move |_, payload: Map<String, Value>| {
                seen.send(payload).unwrap();
                Ok(())
            })
            .on_event("EventPostUnliked", |_, _: IgnoredAny| {
                Err("out of love".into())
            })
            .on_event("EventPostReacted", |_, Reaction { emoji }| {
                assert_eq!(emoji, "heart");
                Ok(())
            })
    });
    let liked = json!({"event": "EventPostLiked", "post_id": "d5k2jq45o2dtjn9ct5rg"});
    assert_eq!(
        peer.call("event", &liked).unwrap(),
        json!({"method": "event", "ok": true})
    );
    assert_eq!(
        Value::from(events.recv_timeout(LONG).unwrap()),
        json!({"post_id": "d5k2jq45o2dtjn9ct5rg"})
    );
    // One that nobody handles is fine too.
    let other = json!({"event": "EventNodeCreated"});
    assert_eq!(peer.call("event", &other).unwrap()["ok"], true);
    assert_eq!(
        peer.refusal("event", &json!({"event": "EventPostUnliked"})),
        RpcError::new(-32000, "handler error: out of love")
    );
    assert_eq!(peer.refusal("event", &json!({})).code, -32602);

    let reacted = json!({"event": "EventPostReacted", "emoji": "heart"});
    assert_eq!(peer.call("event", &reacted).unwrap()["ok"], true);
    let other = json!({"event": "EventPostReacted"});
    assert_eq!(
        peer.refusal("event", &other),
        RpcError::new(-32602, "invalid payload: missing field `emoji`")
    );
    peer.end();
}

#[test]
fn a_configuration_is_accepted_or_not_and_never_an_error() {
    let peer = run(|plugin| {
        plugin.on_configure(|_, configuration| match configuration["answer"].as_str() {
            Some("fail") => Err("disk full".into()),
            Some("panic") => panic!("on purpose"),
            answer => Ok(answer == Some("yes")),
        })
    });
    for (answer, ok) in [
        ("yes", true),
        ("no", false),
        ("fail", false),
        ("panic", false),
    ] {
        assert_eq!(
            peer.call("configure", &json!({"answer": answer})).unwrap(),
            json!({"method": "configure", "ok": ok}),
            "{answer}"
        );
    }
    peer.end();
    let peer = run(|plugin| plugin);
    assert_eq!(peer.call("configure", &json!({})).unwrap()["ok"], true);
    peer.end();
}

#[test]
fn a_typed_handler_gets_params_and_gives_a_reply() {
    let peer = run(|plugin| {
        plugin.on(|_, call: RobotToolCall| match call.tool_id.as_str() {
            "forecast" => Ok(ToolCallReply {
                output: call.arguments,
                error: None,
            }),
            other => Err(format!("no tool {other}").into()),
        })
    });
    let mut params = RobotToolCall {
        tool_id: "forecast".to_owned(),
        ..RobotToolCall::default()
    };
    params.arguments.insert("city".to_owned(), "Oslo".into());
    let asked = serde_json::to_value(&params).unwrap();
    assert_eq!(
        peer.call("robot_tool_call", &asked).unwrap(),
        json!({"method": "robot_tool_call", "output": {"city": "Oslo"}})
    );
    params.tool_id = "hammer".to_owned();
    let asked = serde_json::to_value(&params).unwrap();
    assert_eq!(
        peer.refusal("robot_tool_call", &asked),
        RpcError::new(-32000, "no tool hammer")
    );
    assert_eq!(peer.refusal("robot_tool_call", &json!({})).code, -32602);
    peer.end();
}

#[test]
fn unknown_methods_and_panics_are_answered_and_the_plugin_lives() {
    let peer = run(|plugin| {
        plugin
            .method_raw("greet", |_, params| {
                let members: Map<String, Value> = params.read()?;
                let text = format!("hello {}", members["name"].as_str().unwrap());
                Ok(result(json!({"text": text})))
            })
            .method_raw("own code", |_, _| Err(RpcError::new(42, "mine").into()))
    });
    assert_eq!(
        peer.refusal("nonsense", &json!({})).code,
        RpcError::METHOD_NOT_FOUND
    );
    // Without a name it panics.
    assert_eq!(
        peer.refusal("greet", &json!({})),
        RpcError::new(RpcError::INTERNAL, "the handler failed unexpectedly")
    );
    assert_eq!(
        peer.refusal("own code", &json!({})),
        RpcError::new(42, "mine")
    );
    assert_eq!(
        peer.call("greet", &json!({"name": "you"})).unwrap(),
        json!({"method": "greet", "text": "hello you"})
    );
    peer.end();
}

#[test]
fn methods_may_have_types_of_their_own() {
    #[derive(Deserialize)]
    struct Greet {
        name: String,
    }

    #[derive(Serialize)]
    struct Greeting {
        text: String,
    }

    let peer = run(|plugin| {
        plugin.method("greet", |host, Greet { name }| {
            if name.is_empty() {
                return Err("it has no name".into());
            }
            let channel = host.get_config(&["channel"], LONG)?["channel"].clone();
            let text = format!("hello {name} on {channel}");
            Ok(Greeting { text })
        })
    });
    assert_eq!(
        peer.call("greet", &json!({"name": "you"})).unwrap(),
        json!({"method": "greet", "text": "hello you on \"general\""})
    );
    assert_eq!(
        peer.refusal("greet", &json!({"name": ""})),
        RpcError::new(RpcError::HANDLER_FAILED, "it has no name")
    );
    let refusal = peer.refusal("greet", &json!({"name": 1}));
    assert_eq!(refusal.code, RpcError::INVALID_PARAMS);
    assert!(refusal.message.contains("\"name\""), "{refusal}");
    peer.end();
}

#[test]
fn errors_of_any_length_are_answered_with_a_short_text() {
    let peer = run(|plugin| plugin.method_raw("fail", |_, _| Err("\u{1}".repeat(5 << 20).into())));
    let unknown = peer.refusal(&"\u{7f}".repeat(1 << 20), &json!({}));
    assert_eq!(unknown.code, RpcError::METHOD_NOT_FOUND);
    assert!(unknown.message.len() < 5000, "{}", unknown.message.len());
    let failed = peer.refusal("fail", &json!({}));
    assert_eq!(failed.code, RpcError::HANDLER_FAILED);
    assert!(failed.message.len() < 5000, "{}", failed.message.len());
    peer.end();
}

#[test]
fn a_ping_is_answered_unless_the_plugin_wants_to() {
    let peer = run(|plugin| plugin);
    let pong = peer.call("ping", &json!({})).unwrap();
    assert_eq!(
        (&pong["pong"], &pong["status"]),
        (&json!(true), &json!("healthy"))
    );
    assert!(pong["uptime_seconds"].as_f64().unwrap() >= 0.0);
    peer.end();

    let peer = run(|plugin| {
        plugin.on(|_, _: Ping| {
            Ok(PingReply {
                pong: true,
                uptime_seconds: None,
                status: Some("tired".to_owned()),
            })
        })
    });
    assert_eq!(
        peer.call("ping", &json!({})).unwrap(),
        json!({"method": "ping", "pong": true, "status": "tired"})
    );
    peer.end();
}

/// Has neither access nor Robots to offer.
struct Reluctant;

impl Services for Reluctant {
    fn access_get(&self, _: &InboundCall) -> std::result::Result<AccessGrant, RpcError> {
        Err(RpcError::new(-32601, "no access for you"))
    }

    fn robot_run(
        &self,
        _: &InboundCall,
        params: RobotRun,
    ) -> std::result::Result<RobotRunReply, RpcError> {
        Ok(RobotRunReply {
            session_id: None,
            output: None,
            error: Some(format!("no robot {:?}", params.robot_id)),
        })
    }
}

#[test]
fn a_handler_may_call_the_host() {
    let settings = |builder: HostBuilder| {
        builder
            .services(Reluctant)
            .method_raw("custom", |_, params| {
                let params: Value = params.read()?;
                let doubled = params["number"].as_i64().unwrap() * 2;
                Ok(result(json!({"doubled": doubled})))
            })
    };
    let peer = run_with(settings, |plugin| {
        plugin
            .method_raw("ask", |host, _| {
                let configuration = host.get_config(&["channel"], LONG)?;
                let access = host.access_get(LONG).unwrap_err().to_string();
                let run = RobotRun {
                    message: "go".to_owned(),
                    robot_id: "r2d2".to_owned(),
                    ..RobotRun::default()
                };
                let run = host.robot_run(&run, LONG)?;
                let custom = host.call_raw("custom", &json!({"number": 21}), LONG)?;
                Ok(result(json!({
                    "configuration": configuration,
                    "access": access,
                    "robot": run.failure(),
                    "custom": custom.read::<Value>()?["doubled"],
                })))
            })
            .method_raw("fail", |host, _| {
                host.call_raw("nonsense", &json!({}), LONG)?;
                Ok(ResultObject::new())
            })
    });
    let answer = peer.call("ask", &json!({})).unwrap();
    assert_eq!(answer["configuration"], json!({"channel": "general"}));
    assert_eq!(answer["robot"], "no robot \"r2d2\"");
    assert_eq!(answer["custom"], 42);
    let access = answer["access"].as_str().unwrap();
    assert!(access.contains("no access for you"), "{access}");
    assert_eq!(
        peer.refusal("fail", &json!({})),
        RpcError::new(
            -32000,
            "the host answered with an error: unknown method \"nonsense\" (-32601)"
        )
    );
    peer.end();
}

#[test]
fn a_slow_handler_delays_no_other_and_over_the_cap_calls_wait() {
    let (release, gate) = bounded::<()>(0);
    let peer = run(|plugin| {
        plugin.handlers_at_once(2).method_raw("slow", move |_, _| {
            let _ = gate.recv_timeout(LONG);
            Ok(ResultObject::new())
        })
    });
    let start = || {
        let call = peer.bench.session.start_call_raw("slow", &json!({}), LONG);
        call.unwrap()
    };
    let first = start();
    peer.call("ping", &json!({})).unwrap();
    let second = start();
    let third = start();
    drop(release);
    for slow in [first, second, third] {
        slow.wait().unwrap();
    }
    peer.end();
}

#[test]
fn the_plugin_hears_that_it_is_connected() {
    let (seen, connected) = bounded(1);
    let peer = run(|plugin| {
        plugin.on_connect(move |host| {
            seen.send(host.get_config(&[], LONG)?).unwrap();
            Ok(())
        })
    });
    let configuration = connected.recv_timeout(LONG).unwrap();
    assert_eq!(configuration["colour"], "blue");
    peer.end();
}

#[test]
fn closing_ends_the_run_and_fails_calls_with_the_cause() {
    let (sender, handle) = bounded(1);
    let peer = run(|plugin| {
        sender.send(plugin.host()).unwrap();
        plugin
    });
    let host = handle.recv_timeout(LONG).unwrap();
    peer.call("ping", &json!({})).unwrap();
    assert!(host.is_connected());
    host.close();
    peer.plugin.join().unwrap().unwrap();
    assert!(!host.is_connected());
    let error = host.call(&Ping {}, LONG).unwrap_err();
    assert!(error.is_disconnected());
    peer.bench.wait_for(ReportedState::Connecting);
    assert_eq!(
        peer.bench.session.error_message().unwrap(),
        "closed by the plugin (code 1000, shutting down)"
    );
}

#[test]
fn a_plugin_that_is_closed_before_it_runs_does_not_connect() {
    let plugin = Plugin::connect_to("ws://127.0.0.1:9/rpc?token=x").unwrap();
    plugin.host().close();
    plugin.run().unwrap();
}

#[test]
fn handles_cross_threads() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    fn send<T: Send + 'static>() {}
    check::<HostHandle>();
    send::<Plugin>();
}
