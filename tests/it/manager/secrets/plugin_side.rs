//! A plugin in Rust: it has the URL with the token, and receives configurations. Its log is the plugin's, but
//! the lines are the crate's.

use std::net::TcpListener;

use plugin_runner::duplex::memory;
use plugin_runner::duplex::websocket::WebSocket;
use plugin_runner::protocol::ResultObject;
use plugin_runner::sdk::Plugin;
use plugin_runner::store::Record;
use serde::Deserialize;

use super::super::fetch::serve;
use super::*;
use crate::support::host::active;

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "only decoded")]
struct Typed {
    number: u64,
    word: Word,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    One,
    Two,
}

pub(super) fn run(evidence: &Arc<Evidence>) {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for url in [
        format!("ws://me:{URL}@{gone}/rpc?token={URL}&key={URL}"),
        format!("ws://{gone}/rpc?token={URL}"),
        format!("wss://{gone}/rpc?token={URL}"),
        format!("http://{gone}/rpc?token={URL}"),
        format!("ws://{gone}/rpc?{URL}"),
        format!("ws://h h/rpc?token={URL}"),
        URL.to_owned(),
    ] {
        evidence.failed(WebSocket::connect(&url, LONG));
        match Plugin::connect_to(&url) {
            Ok(plugin) => {
                evidence.debug(&plugin);
                evidence.failed(plugin.run());
            }
            Err(error) => evidence.error(&error),
        }
    }
    for answer in [
        format!("HTTP/1.1 401 {HEADER}\r\nX: {HEADER}\r\nContent-Length: 16\r\n\r\n{HEADER}"),
        format!("HTTP/1.1 101 {HEADER}\r\nSec-WebSocket-Accept: {HEADER}\r\n\r\n"),
        format!("HTTP/1.1 101 S\r\nUpgrade: {HEADER}\r\nbad {HEADER}\r\n\r\n"),
        HEADER.to_owned(),
    ] {
        let (address, served) = serve(answer.into_bytes());
        let url = format!("ws://{address}/rpc?token={URL}");
        evidence.failed(Plugin::connect_to(&url).unwrap().run());
        served.join().unwrap();
    }
    handlers(evidence);
}

/// Handlers that are given what they cannot decode.
fn handlers(evidence: &Arc<Evidence>) {
    let watched = Watched::new(evidence, settings());
    let record = Record::external(manifest("inside")).unwrap();
    let session = watched.host.install(record);
    let (ours, theirs) = memory::pair(64);
    evidence.debug(&ours);
    let shown = evidence.clone();
    let plugin = Plugin::over(theirs)
        .on_configure(|_, _| Err("it does not suit me".into()))
        .method("typed", |_, _: Typed| Ok(json!({})))
        .method_raw("shown", move |host, params| {
            shown.debug(host);
            shown.debug(params);
            Ok(ResultObject::from_serialize(&json!({ "text": PAYLOAD }))?)
        });
    evidence.debug(&plugin);
    let running = std::thread::spawn(move || plugin.run());
    session.connect(ours, "").unwrap();
    active(&session);
    let configuration = object(json!({ "password": CONFIGURED }));
    evidence.failed(watched.configure(session.id(), configuration));
    for params in [
        json!({ "number": PAYLOAD }),
        json!({"number": 1, "word": PAYLOAD}),
        json!({"number": {"text": PAYLOAD}}),
        json!({ PAYLOAD: 1 }),
    ] {
        evidence.failed(session.call_raw("typed", &params, LONG));
    }
    let reply = session.call_raw("shown", &json!({ "text": PAYLOAD }), LONG);
    evidence.debug(&reply.unwrap());
    watched.look();
    watched.host.unload(session.id()).unwrap();
    running.join().unwrap().unwrap();
}
