//! Calls in either direction, that succeed and that fail in each way, and events.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use plugin_runner::duplex::websocket::WebSocket;
use plugin_runner::protocol::method::Ping;
use plugin_runner::store::Overrides;
use plugin_runner::{ReportedState, Session};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::*;
use crate::support::host::active;
use crate::support::peer::Peer;
use crate::support::session::SHORT;

/// Cannot be written.
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it is a secret"))
    }
}

fn secret() -> Value {
    json!({ "text": PAYLOAD })
}

pub(super) fn run(evidence: &Arc<Evidence>) {
    let watched = Watched::with(evidence, settings(), |setup| {
        setup.limits(|limits| limits.pending_calls(2));
    });
    let mut of = manifest("outside");
    of.events_consumed = vec!["happened".to_owned()];
    let (installed, token) = watched.install_external(of).unwrap();
    evidence.hide_token("an external token", token.expose());
    let (id, session) = (installed.id(), watched.session(installed.id()));
    let limited = Overrides::default().outbound_message(2_000);
    watched.set_overrides(id, limited).unwrap();
    evidence.failed(session.call_raw("hear", &secret(), LONG));
    let target = format!("/rpc?token={}", token.expose());
    let mut peer = Peer::connect(watched.host.address(), &target);
    active(&session);
    to_the_plugin(&watched, &session, &mut peer);
    from_the_plugin(&watched, &mut peer);
    events(&watched, &mut peer);
    watched.look();
    // The connection ends before the answer.
    let pending = session.start_call_raw("hear", &secret(), LONG).unwrap();
    peer.receive();
    peer.send(PAYLOAD.repeat(500_000));
    evidence.failed(pending.wait());
    session.wait_for(ReportedState::Connecting, LONG).unwrap();
    watched.look();
    // Over transports that have read something already.
    let (ours, peer) = UnixStream::pair().unwrap();
    let socket = WebSocket::server(ours, PAYLOAD.into());
    evidence.debug(&socket);
    evidence.result(session.connect(socket, "a-program/1"));
    drop(peer);
    evidence.both(&watched.remove(id).unwrap());
    evidence.failed(session.call_raw("hear", &secret(), LONG));
}

fn to_the_plugin(watched: &Watched, session: &Session, peer: &mut Peer) {
    let evidence = &watched.evidence;
    let pending = session.start_call_raw("hear", &secret(), LONG).unwrap();
    evidence.debug(&pending);
    peer.answer_one();
    let reply = pending.wait().unwrap();
    evidence.debug(&reply);
    evidence.failed(reply.read::<Vec<String>>());
    evidence.failed(session.call_raw("hear", &secret(), SHORT));
    // Its answer is late.
    peer.answer_one();
    for answer in [
        json!({"error": {"code": 7, "message": "no", "data": PAYLOAD}}),
        json!({"result": PAYLOAD}),
        json!({"result": [PAYLOAD]}),
        json!({"error": {"code": PAYLOAD}}),
        json!({ "text": PAYLOAD }),
    ] {
        let pending = session.start_call_raw("hear", &secret(), Duration::from_millis(300));
        answer_with(peer, answer);
        evidence.result(pending.unwrap().wait());
    }
    for answer in [
        json!({"result": {"pong": PAYLOAD}}),
        json!({"result": {"pong": {"text": PAYLOAD}}}),
        json!({"result": {"pong": true, "status": [PAYLOAD]}}),
        json!({"result": {"pong": true, "uptime_seconds": PAYLOAD}}),
    ] {
        let pending = session.start_call(&Ping {}, LONG).unwrap();
        evidence.debug(&pending);
        answer_with(peer, answer);
        evidence.failed(pending.wait());
    }
    let large = json!({ "text": PAYLOAD.repeat(300) });
    evidence.failed(session.call_raw("hear", &large, LONG));
    evidence.failed(session.call_raw("hear", &PAYLOAD, LONG));
    evidence.failed(session.call_raw("hear", &Unwritable, LONG));
    let mut batch = session.batch().unwrap();
    let pending: Vec<_> = (0..2)
        .map(|_| batch.start_call_raw("hear", &secret(), LONG).unwrap())
        .collect();
    evidence.debug(&batch);
    evidence.failed(batch.start_call_raw("hear", &secret(), LONG));
    batch.send();
    evidence.debug(&pending);
    for pending in pending {
        peer.answer_one();
        pending.wait().unwrap();
    }
}

fn answer_with(peer: &mut Peer, answer: Value) {
    let call = peer.receive();
    let mut answer = object(answer);
    answer.insert("jsonrpc".to_owned(), "2.0".into());
    answer.insert("id".to_owned(), call["id"].clone());
    peer.send(Value::from(answer).to_string());
}

fn from_the_plugin(watched: &Watched, peer: &mut Peer) {
    for request in [
        json!({"id": "1", "method": "probe", "params": {"text": PAYLOAD}}),
        json!({"id": "1", "method": "probe", "params": [PAYLOAD]}),
        json!({"id": "1", "method": "probe", "params": PAYLOAD}),
        json!({"id": "1", "method": "get_config", "params": {"keys": PAYLOAD}}),
        json!({"id": "1", "method": "get_config", "params": {"keys": [{"text": PAYLOAD}]}}),
        json!({"id": "1", "method": "robot_run", "params": {"robot_id": [PAYLOAD], "message": PAYLOAD}}),
        json!({"id": "1", "method": "no_such", "params": {"text": PAYLOAD}}),
    ] {
        peer.send(request.to_string());
        peer.receive();
    }
    for nonsense in [
        json!({"method": "probe", "params": {"text": PAYLOAD}}).to_string(),
        json!({"id": "stray", "result": {"text": PAYLOAD}}).to_string(),
        json!({ "text": PAYLOAD }).to_string(),
        json!([PAYLOAD]).to_string(),
        PAYLOAD.to_owned(),
        format!("{{\"id\": \"1\", \"{PAYLOAD}"),
    ] {
        peer.send(nonsense);
    }
    // All of it has been read when this is answered.
    peer.send(json!({"id": "1", "method": "no_such"}).to_string());
    while peer.receive()["error"]["code"] != -32601 {}
    watched.look();
}

fn events(watched: &Watched, peer: &mut Peer) {
    let evidence = &watched.evidence;
    let host = &watched.host;
    for answer in [
        json!({"result": {"ok": true}}),
        json!({"result": {"ok": false}}),
        json!({"result": {"ok": PAYLOAD}}),
        json!({"error": {"code": 1, "message": "no", "data": PAYLOAD}}),
    ] {
        std::thread::scope(|scope| {
            let publishing =
                scope.spawn(|| host.publish_and_wait("happened", &secret(), LONG).unwrap());
            answer_with(peer, answer);
            let deliveries = publishing.join().unwrap();
            for delivery in deliveries.values() {
                evidence.both(delivery);
            }
        });
    }
    evidence.both(&host.publish("happened", &secret()).unwrap());
    answer_with(peer, json!({"result": {"ok": true}}));
    evidence.failed(host.publish("happened", &PAYLOAD));
    evidence.failed(host.publish("happened", &Unwritable));
    let large = json!({ "text": PAYLOAD.repeat(300) });
    let deliveries = host.publish_and_wait("happened", &large, LONG).unwrap();
    assert!(!deliveries.is_empty());
    evidence.debug(&deliveries);
}
