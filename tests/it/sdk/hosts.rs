//! Plugins of the SDK with a real host, and with servers that refuse them.

use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, bounded, unbounded};
use plugin_runner::error::Disconnect;
use plugin_runner::protocol::method::Ping;
use plugin_runner::sdk::{HostHandle, Plugin};
use plugin_runner::{Error, ReportedState, Result};
use serde_json::{Map, Value, json};

use super::configured;
use crate::support::session::{Bench, result};
use crate::support::{LONG, assert_matches};

/// What the plugin connects to, at this address.
fn url(bench: &Bench, address: impl Display) -> String {
    let record = bench.host.store().get(bench.session.id()).unwrap().unwrap();
    let token = record.external_token().unwrap();
    format!("ws://{address}/rpc?token={}", token.expose())
}

fn start(url: &str, make: impl FnOnce(Plugin) -> Plugin) -> (HostHandle, JoinHandle<Result<()>>) {
    let plugin = make(Plugin::connect_to(url).unwrap());
    (plugin.host(), thread::spawn(move || plugin.run()))
}

#[test]
fn a_plugin_and_a_real_host_talk_both_ways_until_the_host_stops_it() {
    let bench = Bench::with_record(configured);
    let listener = bench.host.listen("127.0.0.1:0").unwrap();
    let (seen, events): (_, Receiver<Map<String, Value>>) = unbounded();
    let (_, plugin) = start(&url(&bench, listener.address()), |plugin| {
        plugin
            .on_event("EventPostLiked", move |_, payload: Map<String, Value>| {
                seen.send(payload).unwrap();
                Ok(())
            })
            .method_raw("configuration", |host, _| {
                Ok(host.get_config(&[], LONG)?.into())
            })
    });
    bench.wait_for(ReportedState::Active);
    let pong = bench.session.call(&Ping {}, LONG).unwrap();
    assert_eq!(pong.status.as_deref(), Some("healthy"));
    let configuration = bench
        .session
        .call_raw("configuration", &json!({}), LONG)
        .unwrap();
    assert_eq!(configuration.read::<Value>().unwrap()["channel"], "general");
    bench
        .host
        .publish(
            "EventPostLiked",
            &json!({"post_id": "9m4e2mr0ui3e8a215n4g"}),
        )
        .unwrap();
    assert_eq!(
        events.recv_timeout(LONG).unwrap()["post_id"],
        "9m4e2mr0ui3e8a215n4g"
    );
    let id = bench.session.id();
    // Close code 1000: stay away.
    bench.host.unload(id).unwrap();
    plugin.join().unwrap().unwrap();
    drop(listener);
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

fn accept_next(listener: &TcpListener, bench: &Bench) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    let kept = stream.try_clone().unwrap();
    bench.host.accept(stream).unwrap();
    kept
}

#[test]
fn an_external_plugin_comes_back_until_it_is_refused_for_good() {
    let bench = Bench::with_record(configured);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (host, plugin) = start(&url(&bench, listener.local_addr().unwrap()), |plugin| {
        plugin
    });
    refuse_next(&listener, "503");
    let connection = accept_next(&listener, &bench);
    bench.wait_for(ReportedState::Active);
    bench.session.call(&Ping {}, LONG).unwrap();
    connection.shutdown(Shutdown::Both).unwrap();
    bench.wait_for(ReportedState::Connecting);
    let _connection = accept_next(&listener, &bench);
    bench.wait_for(ReportedState::Active);
    bench.session.call(&Ping {}, LONG).unwrap();
    // Close code 1012: come back.
    assert!(bench.host.shutdown(LONG).is_complete());
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
    let bench = Bench::with_record(configured);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (entered, has_entered) = bounded(1);
    let (release, gate) = bounded::<()>(0);
    let counted = AtomicU64::new(0);
    let (host, plugin) = start(&url(&bench, listener.local_addr().unwrap()), |plugin| {
        plugin
            .handlers_at_once(1)
            .method_raw("hold", move |_, _| {
                entered.send(()).unwrap();
                let _ = gate.recv();
                Ok(Map::new().into())
            })
            .method_raw("count", move |_, _| {
                let count = counted.fetch_add(1, Ordering::Relaxed) + 1;
                Ok(result(json!({"count": count})))
            })
    });
    let connection = accept_next(&listener, &bench);
    bench.wait_for(ReportedState::Active);
    let call = |method| {
        let call = bench.session.start_call_raw(method, &json!({}), LONG);
        call.unwrap()
    };
    let held = call("hold");
    has_entered.recv_timeout(LONG).unwrap();
    let waiting = call("count");
    connection.shutdown(Shutdown::Both).unwrap();
    assert!(held.wait().unwrap_err().is_disconnected());
    assert!(waiting.wait().unwrap_err().is_disconnected());
    let _connection = accept_next(&listener, &bench);
    bench.wait_for(ReportedState::Active);
    drop(release);
    let counted: Value = call("count").wait().unwrap().read().unwrap();
    assert_eq!(counted["count"], 1);
    host.close();
    plugin.join().unwrap().unwrap();
}

#[test]
fn closing_ends_the_wait_between_tries() {
    let bench = Bench::with_record(configured);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (host, plugin) = start(&url(&bench, listener.local_addr().unwrap()), |plugin| {
        plugin
    });
    for _ in 0..2 {
        refuse_next(&listener, "503");
    }
    host.close();
    plugin.join().unwrap().unwrap();
}

#[test]
fn a_supervised_plugin_tries_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/rpc?token=sealed", listener.local_addr().unwrap());
    let (_, plugin) = start(&url, |plugin| plugin);
    refuse_next(&listener, "503");
    let error = plugin.join().unwrap().unwrap_err();
    assert_matches!(
        &error,
        Error::Disconnected(cause) if matches!(**cause, Disconnect::Refused { status: 503 })
    );
}
