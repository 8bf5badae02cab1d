//! Answers that answer nothing, and calls that cannot be answered: each has its count, and nobody
//! gets an answer that was not meant for it.

use std::time::Duration;

use plugin_runner::report::Counters;
use plugin_runner::{Error, Session};
use serde_json::{Value, json};

use crate::support::host::{TestHost, active};
use crate::support::peer::Peer;
use crate::support::plugin::external;
use crate::support::{LONG, assert_matches};

/// Which of a session's counts it is.
type Count = fn(&Counters) -> u64;

/// What becomes of a call when the plugin sends a message.
#[derive(Clone, Copy)]
enum Fate {
    /// It waits on.
    Waits,
    /// It fails with the plugin's error of this code.
    Refused(i64),
    /// It is answered with something that is no such answer.
    Unreadable,
    /// It is answered.
    Answered,
}

const STRAY: Option<Count> = Some(|counters| counters.stray_replies);
const CALL: Option<Count> = Some(|counters| counters.inbound_calls);
const UNREADABLE: Option<Count> = Some(|counters| counters.unreadable);
const NOTIFICATION: Option<Count> = Some(|counters| counters.notifications);

fn connected(test: &'static str) -> (TestHost, Session, Peer) {
    let host = TestHost::new(test);
    let (session, target) = external(&host, "outside");
    let peer = Peer::connect(host.address(), &target);
    active(&session);
    (host, session, peer)
}

/// The next call of this method; what else the plugin is sent meanwhile is passed over.
#[track_caller]
fn next_call(peer: &mut Peer, method: &str) -> Value {
    loop {
        let message = peer.receive();
        if message["method"] == method {
            return message;
        }
    }
}

/// A call there and back. What the plugin sent before has been dealt with when it returns.
#[track_caller]
fn pass_marker(session: &Session, peer: &mut Peer) {
    let marker = session.start_call_raw("marker", &json!({}), LONG).unwrap();
    let asked = next_call(peer, "marker");
    peer.send(json!({"id": asked["id"], "result": {}}).to_string());
    marker.wait().unwrap();
}

#[test]
fn an_answer_that_is_none_never_reaches_a_caller() {
    use Fate::{Answered, Refused, Unreadable, Waits};

    let (_host, session, mut peer) = connected("hostile-answers");
    // `ID` stands for the id of the call, in quotes; `BARE` for the same without them.
    let cases = [
        (
            "another id",
            r#"{"id":"9m4e2mr0ui3e8a215n4g","result":{"ok":1}}"#,
            Waits,
            STRAY,
        ),
        ("no id", r#"{"result":{"ok":1}}"#, Waits, STRAY),
        (
            "a null id",
            r#"{"id":null,"result":{"ok":1}}"#,
            Waits,
            STRAY,
        ),
        ("a number", r#"{"id":1,"result":{"ok":1}}"#, Waits, STRAY),
        (
            "an object",
            r#"{"id":{"id":ID},"result":{"ok":1}}"#,
            Waits,
            STRAY,
        ),
        ("a list", r#"{"id":[ID],"result":{"ok":1}}"#, Waits, STRAY),
        ("true", r#"{"id":true,"result":{"ok":1}}"#, Waits, STRAY),
        ("no xid", r#"{"id":"1","result":{"ok":1}}"#, Waits, STRAY),
        (
            "a longer id",
            r#"{"id":"BAREg","result":{"ok":1}}"#,
            Waits,
            STRAY,
        ),
        (
            "a space before it",
            r#"{"id":" BARE","result":{"ok":1}}"#,
            Waits,
            STRAY,
        ),
        (
            "a huge id",
            r#"{"id":"HUGE","result":{"ok":1}}"#,
            Waits,
            STRAY,
        ),
        (
            "an error for nobody",
            r#"{"id":null,"error":{"code":-32700,"message":""}}"#,
            Waits,
            STRAY,
        ),
        (
            "an error without an id",
            r#"{"error":{"code":-32700}}"#,
            Waits,
            STRAY,
        ),
        // A message with a method asks, whatever else it has (PROTOCOL.md, "Requests and responses").
        (
            "a method",
            r#"{"id":ID,"method":"ping","result":{"ok":1}}"#,
            Waits,
            CALL,
        ),
        (
            "a method of no type",
            r#"{"id":ID,"method":7,"result":{"ok":1}}"#,
            Unreadable,
            UNREADABLE,
        ),
        (
            "no JSON",
            r#"{"id":ID,"result":{"ok":1}"#,
            Unreadable,
            UNREADABLE,
        ),
        (
            "in a batch",
            r#"[{"id":ID,"result":{"ok":1}}]"#,
            Unreadable,
            UNREADABLE,
        ),
        ("neither result nor error", r#"{"id":ID}"#, Unreadable, None),
        (
            "result and error null",
            r#"{"id":ID,"result":null,"error":null}"#,
            Unreadable,
            None,
        ),
        (
            "a result of another type",
            r#"{"id":ID,"result":[1,2]}"#,
            Unreadable,
            None,
        ),
        (
            "both",
            r#"{"id":ID,"result":{"ok":1},"error":{"code":5,"message":"no"}}"#,
            Refused(5),
            None,
        ),
        (
            "an error as the SDKs send it",
            r#"{"id":ID,"error":{"code":-32000}}"#,
            Refused(-32000),
            None,
        ),
        (
            "an error that is text",
            r#"{"id":ID,"error":"no"}"#,
            Refused(0),
            None,
        ),
        (
            "an error of a huge code",
            r#"{"id":ID,"error":{"code":1e99}}"#,
            Refused(0),
            None,
        ),
        (
            "an error and a null result",
            r#"{"id":ID,"error":{"code":6},"result":null}"#,
            Refused(6),
            None,
        ),
        (
            "the id twice, the last counts",
            r#"{"id":1,"id":ID,"result":{"ok":1}}"#,
            Answered,
            None,
        ),
        (
            "the id escaped",
            r#"{"id":"\uXXXXREST","result":{"ok":1}}"#,
            Answered,
            None,
        ),
        (
            "a result and a null error",
            r#"{"id":ID,"result":{"ok":1},"error":null}"#,
            Answered,
            None,
        ),
        (
            "more members",
            r#"{"x":[{}],"id":ID,"result":{"ok":1},"y":"z"}"#,
            Answered,
            None,
        ),
    ];
    for (name, message, fate, count) in cases {
        let before = session.counters();
        let call = session
            .start_call_raw("anything", &json!({}), LONG)
            .unwrap();
        let asked = next_call(&mut peer, "anything");
        let id = asked["id"].as_str().unwrap();
        let message = message
            .replace("ID", &format!("\"{id}\""))
            .replace("BARE", id)
            .replace("HUGE", &"g".repeat(300_000))
            .replace("XXXX", &format!("{:04x}", id.as_bytes()[0]))
            .replace("REST", &id[1..]);
        peer.send(message);
        if let Waits = fate {
            pass_marker(&session, &mut peer);
            peer.send(json!({"id": id, "result": {"ok": 1}}).to_string());
        }
        let result = call.wait().and_then(|reply| reply.read::<Map>());
        match fate {
            Waits | Answered => assert!(
                result.as_ref().is_ok_and(|result| result["ok"] == 1),
                "{name}: {result:?}"
            ),
            Refused(code) => {
                assert_matches!(&result, Err(Error::Rpc(error)) if error.code == code, "{name}");
            }
            Unreadable => assert_matches!(result, Err(Error::InvalidReply { .. }), "{name}"),
        }
        let after = session.counters();
        if let Some(count) = count {
            assert_eq!(count(&after), count(&before) + 1, "{name}");
        }
        let odd = |counters: &Counters| {
            counters.stray_replies
                + counters.unreadable
                + counters.notifications
                + counters.inbound_calls
        };
        assert_eq!(
            odd(&after) - odd(&before),
            u64::from(count.is_some()),
            "{name}"
        );
    }
    let counters = session.counters();
    assert_eq!((counters.connections, counters.calls_in_flight), (1, 0));
}

type Map = serde_json::Map<String, Value>;

#[test]
fn the_first_of_two_answers_counts_and_a_late_one_does_not() {
    let (_host, session, mut peer) = connected("answers-twice");
    let call = session
        .start_call_raw("anything", &json!({}), LONG)
        .unwrap();
    let id = peer.receive()["id"].clone();
    for number in 1..=100 {
        peer.send(json!({"id": id, "result": {"number": number}}).to_string());
    }
    let reply: Value = call.wait().unwrap().read().unwrap();
    assert_eq!(reply["number"], 1);

    let error = session
        .call_raw("late", &json!({}), Duration::from_millis(20))
        .unwrap_err();
    assert!(error.is_timeout(), "{error}");
    // The call may have been withdrawn before it was sent; then its id is not known here.
    let marker = session.start_call_raw("marker", &json!({}), LONG).unwrap();
    let mut late = None;
    loop {
        let asked = peer.receive();
        if asked["method"] == "marker" {
            if let Some(id) = &late {
                peer.send(json!({"id": id, "result": {"late": true}}).to_string());
            }
            peer.send(json!({"id": asked["id"], "result": {}}).to_string());
            break;
        }
        late = Some(asked["id"].clone());
    }
    marker.wait().unwrap();
    let strays = 99 + u64::from(late.is_some());
    let counters = session.counters();
    assert_eq!((counters.stray_replies, counters.replies), (strays, 2));
}

#[test]
fn a_plugin_cannot_answer_for_another() {
    let host = TestHost::new("answers-for-another");
    let (first, target) = external(&host, "first");
    let mut first_peer = Peer::connect(host.address(), &target);
    let (second, target) = external(&host, "second");
    let mut second_peer = Peer::connect(host.address(), &target);
    active(&first);
    active(&second);
    let call = first.start_call_raw("secret", &json!({}), LONG).unwrap();
    let id = first_peer.receive()["id"].clone();
    second_peer.send(json!({"id": id, "result": {"from": "second"}}).to_string());
    pass_marker(&second, &mut second_peer);
    first_peer.send(json!({"id": id, "result": {"from": "first"}}).to_string());
    let reply: Value = call.wait().unwrap().read().unwrap();
    assert_eq!(reply["from"], "first");
    assert_eq!(second.counters().stray_replies, 1);
    assert_eq!(first.counters().stray_replies, 0);
}

#[test]
fn calls_with_odd_ids_are_echoed_or_counted() {
    let (_host, session, mut peer) = connected("odd-ids");
    let long = |length: usize| format!("\"{}\"", "i".repeat(length - 2));
    let echoed = [
        "1".to_owned(),
        "-0.5e-300".to_owned(),
        "0".to_owned(),
        "9".repeat(256),
        r#""""#.to_owned(),
        r#""\u0000\ud83d\ude00""#.to_owned(),
        r#"" ""#.to_owned(),
        // Half a character, which is JSON all the same.
        r#""\ud800""#.to_owned(),
        long(256),
    ];
    for id in &echoed {
        peer.send(format!(r#"{{"id":{id},"method":"get_config"}}"#));
        let tungstenite::Message::Text(answer) = peer.socket.read().unwrap() else {
            panic!("no answer to {id}");
        };
        assert!(answer.contains(&format!("\"id\":{id},")), "{answer}");
    }
    let count = u64::try_from(echoed.len()).unwrap();
    assert_eq!(session.counters().inbound_calls, count);

    let unanswered = [
        (r#"{"method":"get_config"}"#.to_owned(), NOTIFICATION),
        (
            r#"{"id":null,"method":"get_config"}"#.to_owned(),
            NOTIFICATION,
        ),
        (
            r#"{"id":1,"id":null,"method":"get_config"}"#.to_owned(),
            NOTIFICATION,
        ),
        (
            format!(r#"{{"id":{},"method":"get_config"}}"#, long(257)),
            UNREADABLE,
        ),
        (
            format!(r#"{{"id":{},"method":"get_config"}}"#, "9".repeat(257)),
            UNREADABLE,
        ),
        (
            format!(r#"{{"id":{},"method":"get_config"}}"#, long(1 << 20)),
            UNREADABLE,
        ),
        (
            r#"{"id":true,"method":"get_config"}"#.to_owned(),
            UNREADABLE,
        ),
        (r#"{"id":{},"method":"get_config"}"#.to_owned(), UNREADABLE),
        (
            r#"{"id":["1"],"method":"get_config"}"#.to_owned(),
            UNREADABLE,
        ),
        (r#"{"id":01,"method":"get_config"}"#.to_owned(), UNREADABLE),
        (r#"{"id":1,"method":null}"#.to_owned(), STRAY),
        (r#"{"id":1,"method":{}}"#.to_owned(), UNREADABLE),
        (r#"{"id":1,"method":"\ud800"}"#.to_owned(), UNREADABLE),
    ];
    for (message, count) in unanswered {
        let before = session.counters();
        peer.send(message.clone());
        pass_marker(&session, &mut peer);
        let after = session.counters();
        let count = count.unwrap();
        assert_eq!(count(&after), count(&before) + 1, "{message:.100}");
    }
    assert_eq!(session.counters().connections, 1);
}
