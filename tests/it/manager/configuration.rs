//! Configuration: the stored one and the plugin's are the same, or the caller learns that they may differ.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::{Error, ErrorKind, InstallationId, ReportedState, fault};
use serde_json::{Map, Value, json};

use super::store::{FailingStore, Step};
use super::{Managed, object, settings, source};
use crate::support::host::{TestHost, active};
use crate::support::peer::Peer;
use crate::support::plugin::{With as _, call, manifest};
use crate::support::{LONG, assert_matches, failed, refusing_state, wait_until};

pub(crate) fn configurable(id: &str) -> Manifest {
    let mut text = serde_json::to_value(manifest(id)).unwrap();
    text["configuration_schema"] = json!({"fields": [
        {"type": "string", "id": "channel", "label": "", "description": "", "default": "general"},
        {"type": "number", "id": "limit", "label": "", "description": "", "default": 0.1},
        {"type": "boolean", "id": "loud", "label": "", "description": ""},
    ]});
    Manifest::parse(&serde_json::to_vec(&text).unwrap()).unwrap()
}

impl Managed {
    /// A plugin that can be configured, running.
    #[track_caller]
    fn configurable(&self, arguments: &[&str]) -> InstallationId {
        let manifest = Manifest {
            command: "./run".to_owned(),
            args: arguments.iter().map(|&word| word.to_owned()).collect(),
            ..configurable("configurable")
        };
        self.running(self.package_with(&manifest, &[]))
    }

    /// One that the test plays itself.
    #[track_caller]
    fn outside_configurable(&self) -> (InstallationId, Peer) {
        let (installed, token) = self.install_external(configurable("outside")).unwrap();
        let id = installed.id();
        let target = format!("/rpc?token={}", token.expose());
        let peer = Peer::connect(self.host.address(), &target);
        active(&self.session(id));
        (id, peer)
    }

    fn replace(&self, id: InstallationId, proposal: Value) -> Result<Map<String, Value>, Error> {
        self.configure(id, object(proposal))
    }

    #[track_caller]
    fn stored(&self, id: InstallationId) -> Value {
        self.configuration(id).unwrap().into()
    }

    /// What the plugin gets when it asks.
    #[track_caller]
    fn asked(&self, id: InstallationId) -> Value {
        let answer = call(&self.session(id), "configuration", &json!({})).unwrap();
        answer["configuration"].clone()
    }

    fn is_settled(&self, id: InstallationId) -> bool {
        let record = self.store.get(id).unwrap().unwrap();
        record.pending_configuration.is_none()
    }

    /// Waits until the plugin is told this, for the time number `nth`, counted from 0.
    #[track_caller]
    fn told(&self, id: InstallationId, configuration: &Value, nth: usize) {
        let wanted = format!("configure {configuration}");
        self.host.output.wait_for_nth(&wanted, nth, |line| {
            (line.plugin == id && line.text == wanted).then_some(())
        });
    }

    /// Waits until what is stored is settled, which the end of an operation is.
    #[track_caller]
    fn settled(&self, id: InstallationId) {
        wait_until("the configuration to be settled", || self.is_settled(id));
    }
}

#[test]
fn what_the_plugin_takes_is_stored_and_what_it_asks_for() {
    for transport in [Transport::WebSocket, Transport::Stdio] {
        let managed = Managed::new("configure");
        let mut of = configurable("configurable");
        of.command = "./run".to_owned();
        of.transport = transport;
        let id = managed.running(managed.package_with(&of, &[]));
        assert_eq!(managed.stored(id), json!({}));
        assert_eq!(managed.configuration_schema(id).unwrap().len(), 3);
        let defaults = managed.configuration_defaults(id).unwrap();
        assert_eq!(
            Value::from(defaults),
            json!({"channel": "general", "limit": 0.1})
        );
        let first = json!({"channel": "a", "limit": 1, "more": [null, {"deep": true}]});
        let given = managed.replace(id, first.clone()).unwrap();
        assert_eq!(Value::from(given), first);
        managed.told(id, &first, 0);
        assert_eq!(managed.stored(id), first);
        assert_eq!(managed.asked(id), first);
        // Merged: what is named is replaced whole, everything else stays.
        let given = managed
            .merge_configuration(id, object(json!({"limit": 2, "more": 3})))
            .unwrap();
        let merged = json!({"channel": "a", "limit": 2, "more": 3});
        assert_eq!(Value::from(given), merged);
        managed.told(id, &merged, 0);
        assert_eq!(managed.asked(id), merged);
        // Replaced: what is not named goes.
        managed.replace(id, json!({"loud": true})).unwrap();
        assert_eq!(managed.asked(id), json!({"loud": true}));
        assert!(managed.is_settled(id));
        // It survives a restart, and is not told again.
        managed.deactivate(id, LONG).unwrap();
        managed.activate(id, LONG).unwrap();
        assert_eq!(managed.asked(id), json!({"loud": true}));
    }
}

#[test]
fn all_that_has_the_wrong_type_is_said_together() {
    let managed = Managed::new("types");
    let id = managed.configurable(&[]);
    managed.replace(id, json!({"channel": "a"})).unwrap();
    let bad = json!({"channel": 1, "limit": "2", "loud": null, "other": null});
    let bad = object(bad);
    for result in [
        managed.configure(id, bad.clone()),
        managed.merge_configuration(id, bad),
    ] {
        let error = failed(ErrorKind::InvalidConfiguration, result);
        assert_eq!(error.problems().len(), 3, "{error}");
        for word in ["channel", "limit", "loud"] {
            assert!(error.to_string().contains(word), "{error}");
        }
    }
    assert_eq!(managed.asked(id), json!({"channel": "a"}));
    assert!(managed.is_settled(id));
}

#[test]
fn a_plugin_that_says_no_keeps_what_it_had() {
    let managed = Managed::new("says-no");
    let id = managed.configurable(&["reject-configuration"]);
    let record = managed.store.get(id).unwrap().unwrap();
    let old = json!({"channel": "old"});
    managed
        .store
        .put(record.with(|record| record.configuration = object(old.clone())))
        .unwrap();
    failed(
        ErrorKind::ConfigurationRefused,
        managed.replace(id, json!({"channel": "new"})),
    );
    assert_eq!(managed.stored(id), old);
    assert_eq!(managed.asked(id), old);
    assert!(managed.is_settled(id));
}

#[test]
fn a_plugin_that_answers_with_an_error_keeps_what_it_had() {
    let managed = Managed::new("answers-error");
    let (id, mut peer) = managed.outside_configurable();
    let error = json!({"code": -32_000, "message": "not now"});
    thread::scope(|scope| {
        let configuring = scope.spawn(|| managed.replace(id, json!({"channel": "new"})));
        let call = peer.receive();
        let answer = json!({"jsonrpc": "2.0", "id": call["id"], "error": error});
        peer.send(answer.to_string());
        let error = configuring.join().unwrap().unwrap_err();
        assert_matches!(error, Error::Rpc(_));
    });
    assert_eq!(managed.stored(id), json!({}));
    assert!(managed.is_settled(id));
}

#[test]
fn a_plugin_that_asks_while_it_is_being_configured_gets_the_old_values() {
    let managed = Managed::new("asks");
    let id = managed.configurable(&["ask-in-configure"]);
    managed.replace(id, json!({"channel": "old"})).unwrap();
    managed.replace(id, json!({"channel": "new"})).unwrap();
    for (nth, text) in [(0, "stored {}"), (1, r#"stored {"channel":"old"}"#)] {
        let said = managed
            .host
            .output
            .wait_for_nth("what is stored", nth, |line| {
                (line.plugin == id && line.text.starts_with("stored ")).then(|| line.text.clone())
            });
        assert_eq!(said, text);
    }
    assert_eq!(managed.asked(id), json!({"channel": "new"}));
}

#[test]
fn nothing_is_stored_if_no_plugin_can_agree() {
    let managed = Managed::new("nobody");
    let id = managed.installed(managed.package("1", &["hang-at", "start"]));
    let error = managed.replace(id, json!({"a": 1})).unwrap_err();
    assert_matches!(error, Error::NotLoaded(_));
    managed.request_activation(id).unwrap();
    let error = managed.replace(id, json!({"a": 1})).unwrap_err();
    assert_matches!(error, Error::State { .. });
    managed.deactivate(id, LONG).unwrap();
    let error = managed.replace(id, json!({"a": 1})).unwrap_err();
    assert_eq!(refusing_state(&error), ReportedState::Inactive);
    assert_eq!(managed.stored(id), json!({}));
    assert!(managed.is_settled(id));
}

#[test]
fn what_the_plugin_took_and_could_not_be_stored_is_taken_back_when_it_next_connects() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "not-stored", settings());
    let id = managed.configurable(&[]);
    let (old, new) = (json!({"channel": "old"}), json!({"channel": "new"}));
    managed.replace(id, old.clone()).unwrap();
    // Not even asked.
    store.fail(Step::Put, 0);
    let error = managed.replace(id, new.clone()).unwrap_err();
    assert_matches!(error, Error::Io { .. });
    store.fail(Step::Put, 1);
    failed(
        ErrorKind::ConfigurationNotStored,
        managed.replace(id, new.clone()),
    );
    managed.told(id, &new, 0);
    store.mend();
    assert_eq!(managed.stored(id), old);
    assert!(!managed.is_settled(id));
    managed
        .host
        .lifelines
        .next()
        .signal(rustix::process::Signal::KILL);
    managed.told(id, &old, 1);
    managed.settled(id);
    assert_eq!(managed.stored(id), old);
    assert_eq!(managed.asked(id), old);
}

#[test]
fn without_an_answer_it_is_not_certain_and_settled_at_the_next_connect() {
    let host = TestHost::with("no-answer", |setup| {
        setup.timeouts(|timeouts| timeouts.call(Duration::from_secs(1)));
    });
    let managed = Managed::of(host, settings());
    let id = managed.configurable(&["hang-at", "configure", "gated"]);
    let new = json!({"channel": "new"});
    let error = failed(
        ErrorKind::ConfigurationUncertain,
        managed.replace(id, new.clone()),
    );
    assert!(source(&error).is_timeout(), "{error}");
    managed.told(id, &new, 0);
    assert_eq!(managed.stored(id), json!({}));
    assert!(!managed.is_settled(id));
    // Still there when it is asked about something else that it refuses to be asked.
    let error = managed.replace(id, json!({"limit": "x"})).unwrap_err();
    println!("{error}");
    assert!(!managed.is_settled(id));
    managed
        .host
        .lifelines
        .next()
        .signal(rustix::process::Signal::KILL);
    // Before it is asked, so that it answers in time.
    managed.host.lifelines.next().open_gate();
    managed.told(id, &json!({}), 0);
    managed.settled(id);
}

#[test]
fn a_no_to_one_proposal_does_not_settle_the_one_before() {
    let managed = Managed::new("two-proposals");
    let (installed, token) = managed.install_external(configurable("outside")).unwrap();
    let id = installed.id();
    let target = format!("/rpc?token={}", token.expose());
    let session = managed.session(id);
    let answer = |peer: &mut Peer, result: Value| {
        let call = peer.receive();
        assert_eq!(call["method"], "configure");
        let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": result});
        peer.send(answer.to_string());
        call["params"].clone()
    };
    thread::scope(|scope| {
        let mut peer = Peer::connect(managed.host.address(), &target);
        active(&session);
        // An answer that cannot be read says nothing of what it has now.
        let first = scope.spawn(|| managed.replace(id, json!({"channel": "first"})));
        answer(&mut peer, json!({"method": "configure", "ok": "maybe"}));
        failed(ErrorKind::ConfigurationUncertain, first.join().unwrap());
        let second = scope.spawn(|| managed.replace(id, json!({"channel": "second"})));
        answer(&mut peer, json!({"method": "configure", "ok": false}));
        failed(ErrorKind::ConfigurationRefused, second.join().unwrap());
        assert!(!managed.is_settled(id), "it may have the first one");
        drop(peer);
        session.wait_for(ReportedState::Connecting, LONG).unwrap();
        let mut peer = Peer::connect(managed.host.address(), &target);
        let told = answer(&mut peer, json!({"method": "configure", "ok": true}));
        assert_eq!(told, json!({}));
        managed.settled(id);
    });
}

#[test]
fn a_plugin_that_starts_again_before_the_new_one_is_stored_gets_it_all_the_same() {
    let managed = Managed::new("early-restart");
    let id = managed.configurable(&[]);
    let new = json!({"channel": "new"});
    let session = managed.session(id);
    let mut events = managed.host.events();
    let hold = fault::hold(fault::AGREED, id);
    thread::scope(|scope| {
        let configuring = scope.spawn(|| managed.replace(id, new.clone()));
        assert!(hold.reached(LONG), "it did not agree");
        // As a plugin does to start afresh with what it has taken.
        call(&session, "exit", &json!({"code": 0})).unwrap_err();
        events.until(id, ReportedState::Active);
        // What it asks for at its start is the old one still.
        assert_eq!(managed.asked(id), json!({}));
        hold.release();
        configuring.join().unwrap().unwrap();
    });
    assert_eq!(managed.stored(id), new);
    managed.told(id, &new, 1);
    assert_eq!(managed.asked(id), new);
    managed.settled(id);
}

#[test]
fn a_plugin_that_exits_after_it_agreed_comes_back_with_the_new_one() {
    let managed = Managed::new("exit-after");
    let id = managed.configurable(&[]);
    let mut events = managed.host.events();
    let new = json!({"channel": "new"});
    managed.replace(id, new.clone()).unwrap();
    call(&managed.session(id), "exit", &json!({"code": 0})).unwrap_err();
    events.until(id, ReportedState::Active);
    assert_eq!(managed.asked(id), new);
}

#[test]
fn a_plugin_that_ends_at_each_configuration_comes_up_all_the_same() {
    let managed = Managed::new("ends-at-configure");
    let id = managed.configurable(&["exit-at", "configure", "0"]);
    let new = json!({"channel": "new"});
    let error = failed(
        ErrorKind::ConfigurationUncertain,
        managed.replace(id, new.clone()),
    );
    assert!(source(&error).is_disconnected(), "{error}");
    managed.told(id, &new, 0);
    managed.told(id, &json!({}), 0);
    managed.settled(id);
    // It ends once more after it was told, and then no more.
    let deadline = std::time::Instant::now() + LONG;
    loop {
        managed.activate(id, LONG).unwrap();
        match call(&managed.session(id), "configuration", &json!({})) {
            Ok(answer) => break assert_eq!(answer["configuration"], json!({})),
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
    }
}

#[test]
fn numbers_are_on_the_wire_and_in_the_store_as_they_were_given() {
    let managed = Managed::new("numbers");
    let (id, mut peer) = managed.outside_configurable();
    let numbers = [
        "-9223372036854775808",
        "9223372036854775807",
        "18446744073709551615",
        "0.1",
        "1.0",
        "1",
        "-0.0",
        "5e-324",
        "1.7976931348623157e308",
        "0.30000000000000004",
    ];
    for text in numbers {
        let number: Value = serde_json::from_str(text).unwrap();
        let proposal = json!({"limit": number});
        thread::scope(|scope| {
            let configuring = scope.spawn(|| managed.replace(id, proposal.clone()));
            let message = peer.socket.read().unwrap().into_text().unwrap();
            let written = serde_json::to_string(&proposal).unwrap();
            assert!(message.contains(&written), "{message}");
            assert!(message.contains(&format!("{number}")), "{message}");
            let call: Value = serde_json::from_str(&message).unwrap();
            let result = json!({"method": "configure", "ok": true});
            let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": result});
            peer.send(answer.to_string());
            let given = configuring.join().unwrap().unwrap();
            assert_eq!(Value::from(given).to_string(), proposal.to_string());
        });
        let stored = managed.stored(id)["limit"].clone();
        assert_eq!(stored.to_string(), number.to_string());
        assert_eq!(stored.is_f64(), number.is_f64());
        // As a store keeps it.
        let record = managed.store.get(id).unwrap().unwrap();
        let kept = serde_json::to_vec(&record).unwrap();
        let read: plugin_runner::store::Record = serde_json::from_slice(&kept).unwrap();
        assert_eq!(read.configuration["limit"].to_string(), number.to_string());
    }
}
