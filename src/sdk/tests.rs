//! Plugins as their hosts see them: over the in-memory pair against a connection that the test
//! drives, and against a real host.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, unbounded};
use serde_json::{Map, Value, json};

use super::*;
use crate::auth::{ExternalToken, SealedToken, Secret};
use crate::deadline::Deadline;
use crate::duplex::{Duplex, DuplexSettings, memory};
use crate::error::{Disconnect, Error, Result, RpcError};
use crate::protocol::jsonrpc::ResultObject;
use crate::protocol::manifest::Manifest;
use crate::protocol::method::{
    Empty, Ping, PingReply, RobotRunParams, RobotToolCall, ToolCallParams, ToolCallReply,
};
use crate::rpc::{Connection, ConnectionSettings, InboundRequest};
use crate::store::Record;
use crate::{Host, InstallationId, ReportedState, Session, Threads};

const LONG: Duration = Duration::from_secs(30);

/// The other end of a plugin, and the plugin's thread.
struct Peer {
    connection: Arc<Connection>,
    plugin: JoinHandle<Result<()>>,
    reading: JoinHandle<()>,
}

type AnswerTo = fn(&str, &Value) -> std::result::Result<Value, RpcError>;

/// Runs the plugin that `make` gives, with a host that answers nothing.
fn run(make: impl FnOnce(Plugin) -> Plugin) -> Peer {
    let refuse: AnswerTo = |_, _| Err(RpcError::new(RpcError::METHOD_NOT_FOUND, "no such method"));
    run_with(refuse, make)
}

/// Runs the plugin that `make` gives, with a host that answers its calls like this.
fn run_with(answer_to: AnswerTo, make: impl FnOnce(Plugin) -> Plugin) -> Peer {
    let (ours, theirs) = memory::pair(16);
    let settings = DuplexSettings::new("test", Threads::with_limit(0));
    let halves = Box::new(ours).split(&settings).unwrap();
    let settings = ConnectionSettings {
        peer: "plugin".to_owned(),
        pending_limit: 1024,
        message_limit: 4 << 20,
        rate: None,
        spin: Duration::ZERO,
    };
    let (connection, reader) = Connection::new(halves, settings, Arc::default());
    let reading = thread::spawn({
        let connection = connection.clone();
        move || {
            let answering = connection.clone();
            let dispatch = Box::new(move |request: InboundRequest| {
                let params = request.params.read().unwrap();
                let answer = answer_to(&request.method, &params)
                    .map(|result| ResultObject::from_serialize(&result).unwrap());
                answering.answer(
                    &request.id,
                    &request.method,
                    answer.as_ref(),
                    Deadline::after(LONG),
                );
            });
            connection.read_until_end(reader, dispatch);
        }
    });
    let plugin = make(Plugin::over(theirs));
    Peer {
        connection,
        plugin: thread::spawn(move || plugin.run()),
        reading,
    }
}

impl Peer {
    fn call(&self, method: &str, params: &Value) -> Result<Value> {
        self.connection.call(method, params, LONG)?.read()
    }

    fn refusal(&self, method: &str, params: &Value) -> RpcError {
        match self.call(method, params) {
            Err(Error::Rpc(error)) => RpcError::clone(&error),
            other => panic!("expected an error response, got {other:?}"),
        }
    }

    /// Closes as a host does, and waits for the plugin's end.
    fn end(self) -> Result<()> {
        self.connection.close(1000, "closed", Deadline::after(LONG));
        self.reading.join().unwrap();
        self.plugin.join().unwrap()
    }
}

#[test]
fn an_event_reaches_its_handler_with_its_fields() {
    let (seen, events) = unbounded();
    let peer = run(|plugin| {
        plugin
            .on_event("EventPostLiked", move |_, payload| {
                seen.send(payload.clone()).unwrap();
                Ok(())
            })
            .on_event("EventPostUnliked", |_, _| Err("out of love".into()))
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
    peer.end().unwrap();
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
    peer.end().unwrap();
    let peer = run(|plugin| plugin);
    assert_eq!(peer.call("configure", &json!({})).unwrap()["ok"], true);
    peer.end().unwrap();
}

#[test]
fn a_typed_handler_gets_params_and_gives_a_reply() {
    let peer = run(|plugin| {
        plugin.on::<RobotToolCall>(|_, call| match call.tool_id.as_str() {
            "forecast" => Ok(ToolCallReply {
                output: call.arguments,
                error: None,
            }),
            other => Err(format!("no tool {other}").into()),
        })
    });
    let mut params = ToolCallParams {
        tool_id: "forecast".to_owned(),
        ..ToolCallParams::default()
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
    peer.end().unwrap();
}

#[test]
fn unknown_methods_and_panics_are_answered_and_the_plugin_lives() {
    let peer = run(|plugin| {
        plugin
            .on_raw("greet", |_, params| {
                let members: Map<String, Value> = params.read()?;
                let text = format!("hello {}", members["name"].as_str().unwrap());
                Ok(ResultObject::from_serialize(&json!({"text": text}))?)
            })
            .on_raw("own code", |_, _| Err(RpcError::new(42, "mine").into()))
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
    peer.end().unwrap();
}

#[test]
fn errors_of_any_length_are_answered_with_a_short_text() {
    let peer = run(|plugin| plugin.on_raw("fail", |_, _| Err("\u{1}".repeat(5 << 20).into())));
    let unknown = peer.refusal(&"\u{7f}".repeat(1 << 20), &json!({}));
    assert_eq!(unknown.code, RpcError::METHOD_NOT_FOUND);
    assert!(unknown.message.len() < 5000, "{}", unknown.message.len());
    let failed = peer.refusal("fail", &json!({}));
    assert_eq!(failed.code, RpcError::HANDLER_FAILED);
    assert!(failed.message.len() < 5000, "{}", failed.message.len());
    peer.end().unwrap();
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
    peer.end().unwrap();

    let peer = run(|plugin| {
        plugin.on::<Ping>(|_, _| {
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
    peer.end().unwrap();
}

#[test]
fn a_handler_may_call_the_host() {
    let host: AnswerTo = |method, params| match method {
        "get_config" if params["keys"] == json!(["channel"]) => {
            Ok(json!({"config": {"channel": "general"}}))
        }
        "access_get" => Ok(json!({"error": {"code": -32601, "message": "no access for you"}})),
        "robot_run" => Ok(json!({"error": format!("no robot {}", params["robot_id"])})),
        "custom" => Ok(json!({"doubled": params["number"].as_i64().unwrap() * 2})),
        _ => Err(RpcError::new(RpcError::METHOD_NOT_FOUND, "no such method")),
    };
    let peer = run_with(host, |plugin| {
        plugin
            .on_raw("ask", |host, _| {
                let configuration = host.get_config(&["channel"], LONG)?;
                let access = host.access_get(LONG).unwrap_err().to_string();
                let run = RobotRunParams {
                    message: "go".to_owned(),
                    robot_id: "r2d2".to_owned(),
                    ..RobotRunParams::default()
                };
                let run = host.robot_run(&run, LONG)?;
                let custom = host.call_raw("custom", &json!({"number": 21}), LONG)?;
                Ok(ResultObject::from_serialize(&json!({
                    "channel": configuration["channel"],
                    "access": access,
                    "robot": run.failure(),
                    "custom": custom.read::<Value>()?["doubled"],
                }))?)
            })
            .on_raw("fail", |host, _| {
                host.call_raw("nonsense", &json!({}), LONG)?;
                Ok(ResultObject::new())
            })
    });
    let answer = peer.call("ask", &json!({})).unwrap();
    assert_eq!(answer["channel"], "general");
    assert_eq!(answer["robot"], "no robot \"r2d2\"");
    assert_eq!(answer["custom"], 42);
    let access = answer["access"].as_str().unwrap();
    assert!(access.contains("no access for you"), "{access}");
    assert_eq!(
        peer.refusal("fail", &json!({})),
        RpcError::new(
            -32000,
            "the host answered with an error: no such method (-32601)"
        )
    );
    peer.end().unwrap();
}

#[test]
fn a_slow_handler_delays_no_other_and_over_the_cap_calls_wait() {
    let (release, gate) = bounded::<()>(0);
    let peer = run(|plugin| {
        plugin.handlers_at_once(2).on_raw("slow", move |_, _| {
            let _ = gate.recv_timeout(LONG);
            Ok(ResultObject::new())
        })
    });
    let start = || {
        let id = crate::RequestId::generate();
        peer.connection.start(id, "slow", &json!({}), LONG).unwrap()
    };
    let first = start();
    peer.call("ping", &json!({})).unwrap();
    let second = start();
    let third = start();
    drop(release);
    for slow in [first, second, third] {
        slow.wait().unwrap();
    }
    peer.end().unwrap();
}

#[test]
fn the_plugin_hears_that_it_is_connected() {
    let (seen, connected) = bounded(1);
    let host: AnswerTo = |_, _| Ok(json!({"config": {"colour": "blue"}}));
    let peer = run_with(host, |plugin| {
        plugin.on_connect(move |host| {
            seen.send(host.get_config(&[], LONG)?).unwrap();
            Ok(())
        })
    });
    let configuration = connected.recv_timeout(LONG).unwrap();
    assert_eq!(configuration["colour"], "blue");
    peer.end().unwrap();
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
    peer.reading.join().unwrap();
    assert!(!host.is_connected());
    assert!(
        host.call::<Ping>(&Empty {}, LONG)
            .unwrap_err()
            .is_disconnected()
    );
    // The host saw a normal close.
    let error = peer.connection.call("ping", &json!({}), LONG).unwrap_err();
    let Error::Disconnected(cause) = error else {
        panic!("{error:?}");
    };
    assert!(
        matches!(
            &*cause,
            Disconnect::ByPeer {
                code: Some(1000),
                ..
            }
        ),
        "{cause:?}"
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

/// A real host with one external plugin loaded, in a folder of its own.
struct RealHost {
    host: Host,
    session: Session,
    token: ExternalToken,
    folder: PathBuf,
}

impl RealHost {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!(
            "plugin-runner-sdk-{}-{}",
            std::process::id(),
            InstallationId::generate()
        ));
        let host = Host::builder().data_dir(&folder).build().unwrap();
        let manifest = json!({
            "id": "sdk-test", "author": "nobody", "name": "SDK test",
            "events_consumed": ["EventPostLiked"],
        });
        let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
        let mut configuration = Map::new();
        configuration.insert("channel".to_owned(), "general".into());
        let record = Record::external(manifest)
            .unwrap()
            .with_configuration(configuration);
        let token = record.external_token().unwrap();
        let (id, token) = (record.id, token.clone());
        host.store().put(record).unwrap();
        let session = host.load(id).unwrap();
        Self {
            host,
            session,
            token,
            folder,
        }
    }

    fn url(&self, base: &str) -> String {
        self.token.connection_url(base).unwrap()
    }

    fn wait_for(&self, state: ReportedState) {
        self.session.wait_for(state, LONG).unwrap();
    }

    fn end(self) {
        let report = self.host.shutdown(LONG);
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(self.host.threads().count(), 0);
        // Nothing was unpacked, so there may be none.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn start(url: &str, make: impl FnOnce(Plugin) -> Plugin) -> (HostHandle, JoinHandle<Result<()>>) {
    let plugin = make(Plugin::connect_to(url).unwrap());
    (plugin.host(), thread::spawn(move || plugin.run()))
}

#[test]
fn a_plugin_and_a_real_host_talk_both_ways_until_the_host_stops_it() {
    let real = RealHost::new();
    let listener = real.host.listen("127.0.0.1:0").unwrap();
    let (seen, events): (_, Receiver<Map<String, Value>>) = unbounded();
    let (_, plugin) = start(&real.url(&listener.base_url()), |plugin| {
        plugin
            .on_event("EventPostLiked", move |_, payload| {
                seen.send(payload.clone()).unwrap();
                Ok(())
            })
            .on_raw("configuration", |host, _| {
                Ok(host.get_config(&[], LONG)?.into())
            })
    });
    real.wait_for(ReportedState::Active);
    let pong = real.session.call::<Ping>(&Empty {}, LONG).unwrap();
    assert_eq!(pong.status.as_deref(), Some("healthy"));
    let configuration = real
        .session
        .call_raw("configuration", &json!({}), LONG)
        .unwrap();
    assert_eq!(configuration.read::<Value>().unwrap()["channel"], "general");
    real.host
        .publish(
            "EventPostLiked",
            &json!({"post_id": "9m4e2mr0ui3e8a215n4g"}),
        )
        .unwrap();
    assert_eq!(
        events.recv_timeout(LONG).unwrap()["post_id"],
        "9m4e2mr0ui3e8a215n4g"
    );
    let id = real.session.id();
    // Close code 1000: stay away.
    real.host.unload(id).unwrap();
    plugin.join().unwrap().unwrap();
    drop(listener);
    real.end();
}

/// Answers the next connection with this status, once its request head has come.
fn refuse_next(listener: &TcpListener, status: &str) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.contains("user-agent: plugin-runner/"), "{head}");
    write!(stream, "HTTP/1.1 {status} no\r\nContent-Length: 0\r\n\r\n").unwrap();
}

fn accept_next(listener: &TcpListener, real: &RealHost) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    let kept = stream.try_clone().unwrap();
    real.host.accept(stream).unwrap();
    kept
}

#[test]
fn an_external_plugin_comes_back_until_it_is_refused_for_good() {
    let real = RealHost::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (host, plugin) = start(&real.url(&base), |plugin| plugin);
    refuse_next(&listener, "503");
    let connection = accept_next(&listener, &real);
    real.wait_for(ReportedState::Active);
    real.session.call::<Ping>(&Empty {}, LONG).unwrap();
    connection.shutdown(Shutdown::Both).unwrap();
    real.wait_for(ReportedState::Connecting);
    let _connection = accept_next(&listener, &real);
    real.wait_for(ReportedState::Active);
    real.session.call::<Ping>(&Empty {}, LONG).unwrap();
    // Close code 1012: come back.
    real.end();
    refuse_next(&listener, "401");
    let error = plugin.join().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "not connected: the handshake was refused with HTTP status 401"
    );
    assert!(!host.is_connected());
}

#[test]
fn calls_that_wait_when_the_connection_ends_are_not_carried_out_on_the_next() {
    let real = RealHost::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (entered, has_entered) = bounded(1);
    let (release, gate) = bounded::<()>(0);
    let counted = AtomicU64::new(0);
    let (host, plugin) = start(&real.url(&base), |plugin| {
        plugin
            .handlers_at_once(1)
            .on_raw("hold", move |_, _| {
                entered.send(()).unwrap();
                let _ = gate.recv();
                Ok(Map::new().into())
            })
            .on_raw("count", move |_, _| {
                let count = counted.fetch_add(1, Ordering::Relaxed) + 1;
                Ok(ResultObject::from_serialize(&json!({"count": count}))?)
            })
    });
    let connection = accept_next(&listener, &real);
    real.wait_for(ReportedState::Active);
    let call = |method| {
        let call = real.session.start_call_raw(method, &json!({}), LONG);
        call.unwrap()
    };
    let held = call("hold");
    has_entered.recv_timeout(LONG).unwrap();
    let waiting = call("count");
    connection.shutdown(Shutdown::Both).unwrap();
    assert!(held.wait().unwrap_err().is_disconnected());
    assert!(waiting.wait().unwrap_err().is_disconnected());
    let _connection = accept_next(&listener, &real);
    real.wait_for(ReportedState::Active);
    drop(release);
    let counted: Value = call("count").wait().unwrap().read().unwrap();
    assert_eq!(counted["count"], 1);
    host.close();
    plugin.join().unwrap().unwrap();
    real.end();
}

#[test]
fn closing_ends_the_wait_between_tries() {
    let real = RealHost::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (host, plugin) = start(&real.url(&base), |plugin| plugin);
    for _ in 0..2 {
        refuse_next(&listener, "503");
    }
    host.close();
    plugin.join().unwrap().unwrap();
    real.end();
}

#[test]
fn a_supervised_plugin_tries_once() {
    let id = InstallationId::generate();
    let token = SealedToken::seal(&Secret::generate().unwrap(), id).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let url = token.connection_url(&base, id).unwrap();
    let (_, plugin) = start(&url, |plugin| plugin);
    refuse_next(&listener, "503");
    let error = plugin.join().unwrap().unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Disconnected(cause) if matches!(**cause, Disconnect::Refused { status: 503 })
        ),
        "{error:?}"
    );
}
