//! Configurations that a plugin takes, refuses, does not answer, answers with nonsense, and asks for.

use std::thread;
use std::time::Duration;

use plugin_runner::protocol::method::Configure;
use plugin_runner::{ReportedState, Session};
use serde_json::Value;

use super::super::store::{FailingStore, Step};
use super::*;
use crate::support::host::active;
use crate::support::peer::Peer;

fn configurable() -> Manifest {
    let mut text = serde_json::to_value(manifest("outside")).unwrap();
    text["configuration_schema"] = json!({"fields": [
        {"type": "string", "id": "password", "label": "", "description": ""},
        {"type": "number", "id": "limit", "label": "", "description": ""},
    ]});
    text["access"] = json!({"handle": "helper", "name": "Helper", "permissions": ["CREATE_POST"]});
    Manifest::parse(&serde_json::to_vec(&text).unwrap()).unwrap()
}

fn secret() -> serde_json::Map<String, Value> {
    object(json!({"password": CONFIGURED, CONFIGURED_ELSEWHERE: {"more": [CONFIGURED]}}))
}

/// A member that the schema does not have.
const CONFIGURED_ELSEWHERE: &str = "unknown";

struct Outside {
    watched: Watched,
    id: InstallationId,
    target: String,
    session: Session,
}

impl Outside {
    fn new(evidence: &Arc<Evidence>, change: impl FnOnce(&mut Setup)) -> Self {
        let watched = Watched::with(evidence, settings().keep_external_tokens(true), change);
        let (installed, token) = watched.install_external(configurable()).unwrap();
        evidence.hide_token("an external token", token.expose());
        let session = watched.session(installed.id());
        Self {
            id: installed.id(),
            target: format!("/rpc?token={}", token.expose()),
            session,
            watched,
        }
    }

    fn connect(&self) -> Peer {
        let peer = Peer::connect(self.watched.host.address(), &self.target);
        active(&self.session);
        peer
    }

    /// Configures it while the plugin answers.
    fn configure(&self, peer: &mut Peer, answer: Value) -> Result<(), Error> {
        thread::scope(|scope| {
            let configuring = scope.spawn(|| self.watched.configure(self.id, secret()));
            let call = peer.receive();
            assert_eq!(call["method"], "configure");
            let mut answer = object(answer);
            answer.insert("jsonrpc".to_owned(), "2.0".into());
            answer.insert("id".to_owned(), call["id"].clone());
            peer.send(Value::from(answer).to_string());
            configuring.join().unwrap().map(drop)
        })
    }
}

pub(super) fn run(evidence: &Arc<Evidence>) {
    let outside = Outside::new(evidence, |_| {});
    let watched = &outside.watched;
    evidence.debug(&Configure(secret()));
    let mut peer = outside.connect();
    outside
        .configure(&mut peer, json!({"result": {"ok": true}}))
        .unwrap();
    watched.look();
    for answer in [
        json!({"result": {"ok": false}}),
        json!({"error": {"code": 1, "message": "not now"}}),
        json!({"error": {"code": 1, "message": "not now", "data": CONFIGURED}}),
        json!({"result": {}}),
        // What it was sent, in the place of what it should say.
        json!({"result": {"ok": CONFIGURED}}),
        json!({"result": CONFIGURED}),
        json!({"result": {"ok": {"password": CONFIGURED}}}),
    ] {
        evidence.failed(outside.configure(&mut peer, answer));
        watched.look();
    }
    // Refused by its schema.
    let bad = object(json!({"limit": CONFIGURED}));
    evidence.failed(watched.configure(outside.id, bad.clone()));
    evidence.failed(watched.merge_configuration(outside.id, bad));
    // It asks for it, and for access to the host's API.
    for method in ["get_config", "access_get", "get_config"] {
        let params = match method {
            "get_config" => json!({"keys": ["password"]}),
            _ => json!({}),
        };
        peer.send(json!({"jsonrpc": "2.0", "id": "0o6a205tdo4tj2nt466b", "method": method, "params": params}).to_string());
        let answer = peer.receive();
        let text = answer.to_string();
        assert!(
            text.contains(CONFIGURED) || text.contains(ACCESS_KEY),
            "{text}"
        );
    }
    // With what it must not say there.
    peer.send(
        json!({"id": "1", "method": "get_config", "params": {"keys": CONFIGURED}}).to_string(),
    );
    peer.receive();
    // The connection ends instead of an answer.
    thread::scope(|scope| {
        let configuring = scope.spawn(|| watched.configure(outside.id, secret()));
        peer.receive();
        drop(peer);
        evidence.failed(configuring.join().unwrap());
    });
    outside
        .session
        .wait_for(ReportedState::Connecting, LONG)
        .unwrap();
    evidence.failed(watched.configure(outside.id, secret()));
    // What was not decided is sent again.
    let mut peer = outside.connect();
    let call = peer.receive();
    let refusal = json!({"jsonrpc": "2.0", "id": call["id"], "result": {"ok": CONFIGURED}});
    peer.send(refusal.to_string());
    drop(outside);
    unanswered(evidence);
    not_stored(evidence);
}

fn unanswered(evidence: &Arc<Evidence>) {
    let outside = Outside::new(evidence, |setup| {
        setup.timeouts(|timeouts| timeouts.call(Duration::from_millis(100)));
    });
    let _peer = outside.connect();
    evidence.failed(outside.watched.configure(outside.id, secret()));
    outside.watched.look();
}

fn not_stored(evidence: &Arc<Evidence>) {
    let store = Arc::new(FailingStore::default());
    let shared = store.clone();
    let host = TestHost::with("secrets-store", |setup| {
        setup.configure(|builder| builder.store(shared));
    });
    let managed = Managed::of(host, settings());
    let (installed, token) = managed.install_external(configurable()).unwrap();
    evidence.hide_token("an external token", token.expose());
    let target = format!("/rpc?token={}", token.expose());
    let mut peer = Peer::connect(managed.host.address(), &target);
    active(&managed.session(installed.id()));
    for spared in [0, 1] {
        store.fail(Step::Put, spared);
        thread::scope(|scope| {
            let configuring = scope.spawn(|| managed.configure(installed.id(), secret()));
            if spared == 1 {
                let call = peer.receive();
                let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": {"ok": true}});
                peer.send(answer.to_string());
            }
            evidence.failed(configuring.join().unwrap());
        });
        store.mend();
    }
    evidence.debug(&store);
    store.damage(
        managed.store.get(installed.id()).unwrap().unwrap(),
        "cannot be read",
    );
    for installation in managed.list().unwrap() {
        evidence.both(&installation);
        evidence.debug(installation.record());
        evidence.failed(installation.record().validate());
    }
}
