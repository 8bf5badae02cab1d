//! Messages of all sizes, up to the limit and one byte over it, both ways over both transports.

use plugin_runner::protocol::Transport;
use plugin_runner::store::Record;
use plugin_runner::{Error, ReportedState, Session};
use serde_json::json;

use crate::support::events::Details as _;
use crate::support::host::{TestHost, active};
use crate::support::peer::Peer;
use crate::support::plugin::{TRANSPORTS, With as _, call, connectable, fixture, manifest};
use crate::support::{LONG, assert_matches};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

#[test]
fn large_messages_arrive_whole_both_ways() {
    for transport in TRANSPORTS {
        let (_host, session) = TestHost::running("large", transport, &["behave"]);
        for size in [
            0,
            1,
            125,
            126,
            64 * KIB - 1,
            64 * KIB,
            64 * KIB + 1,
            MIB,
            3 * MIB,
        ] {
            // Not the same byte all over, so that nothing can be swapped unseen.
            let text: String = ('a'..='z').cycle().take(size).collect();
            let answer = call(&session, "echo", &json!({"text": text})).unwrap();
            assert!(
                answer["echo"]["text"] == text.as_str(),
                "{transport}: {size} bytes"
            );
        }
    }
}

#[test]
fn what_is_over_the_plugins_limit_is_not_sent_and_harms_nothing() {
    for transport in TRANSPORTS {
        let (_host, session) = TestHost::running("outgoing-limit", transport, &["behave"]);
        let send = |size: usize| {
            let params = json!({"ms": 0, "padding": "x".repeat(size)});
            call(&session, "sleep", &params)
        };
        let Err(Error::MessageTooLarge { size, limit }) = send(4 * MIB) else {
            panic!("4 MiB and an envelope were sent");
        };
        assert_eq!(limit, 4 * MIB);
        let envelope = size - 4 * MIB;
        send(limit - envelope).unwrap();
        let error = send(limit - envelope + 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "message of 4194305 bytes is over the limit of 4194304 bytes for this plugin"
        );
        send(0).unwrap();
        assert_eq!(session.counters().connections, 1);
    }
}

#[test]
fn a_message_over_the_read_limit_ends_the_connection_with_its_cause() {
    for transport in TRANSPORTS {
        let host = TestHost::with("read-limit", |setup| {
            setup.limits(|limits| limits.inbound_message(MIB));
            setup.policy(|policy| policy.max_restart_attempts(0));
        });
        let session = host.run(fixture(&host, transport, &["behave"]));
        let received =
            |session: &Session| usize::try_from(session.counters().bytes_received).unwrap();
        let before = received(&session);
        call(&session, "big", &json!({"bytes": 1000})).unwrap();
        let envelope = received(&session) - before - 1000;
        // Just at the limit.
        call(&session, "big", &json!({"bytes": MIB - envelope})).unwrap();
        let mut events = host.events();
        let bystander = session
            .start_call_raw("sleep", &json!({"ms": 600_000}), LONG * 10)
            .unwrap();
        let error = call(&session, "big", &json!({"bytes": MIB - envelope + 1})).unwrap_err();
        let text = "the plugin sent a message over the limit of 1048576 bytes";
        assert_eq!(
            error.to_string(),
            format!("not connected: {text}"),
            "{transport}"
        );
        let error = bystander.wait().unwrap_err();
        assert_eq!(error.to_string(), format!("not connected: {text}"));
        // Its own fault, whatever status it exits with.
        let change = events.until(session.id(), ReportedState::Errored);
        assert_eq!(change.message(), Some(text));
        assert_eq!(change.details()["cause"], "protocol_violation");
    }
}

#[test]
fn an_external_plugin_over_the_read_limit_is_closed_with_1009() {
    let host = TestHost::with("read-limit-external", |setup| {
        setup.limits(|limits| limits.inbound_message(64 * KIB));
    });
    let record = Record::external(manifest("outside")).unwrap();
    let (session, target) = connectable(&host, record);
    let mut peer = Peer::connect(host.address(), &target);
    active(&session);
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "get_config", "params": {}});
    let request = request.to_string();
    // White space after a message is part of it.
    let padded = |size: usize| request.clone() + &" ".repeat(size - request.len());
    peer.send(padded(64 * KIB));
    assert_eq!(peer.receive()["id"], 1);
    peer.send(padded(64 * KIB + 1));
    assert_eq!(peer.read_to_close(), Some(1009));
    session.wait_for(ReportedState::Connecting, LONG).unwrap();
    assert_eq!(
        session.error_message().as_deref(),
        Some("the plugin sent a message over the limit of 65536 bytes")
    );
}

#[test]
fn a_python_peer_is_sent_1_mib_at_most() {
    let host = TestHost::new("python-limit");
    let record = fixture(&host, Transport::WebSocket, &["behave"])
        .overrides(|own| own.outbound_message(MIB));
    let session = host.run(record);
    let error = call(
        &session,
        "sleep",
        &json!({"ms": 0, "padding": "x".repeat(MIB)}),
    )
    .unwrap_err();
    assert_matches!(error, Error::MessageTooLarge { limit: MIB, .. });
    call(
        &session,
        "sleep",
        &json!({"ms": 0, "padding": "x".repeat(MIB - KIB)}),
    )
    .unwrap();
}
