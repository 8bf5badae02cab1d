//! Frames that no plugin should send: each has its close code, its cause and its count, and the
//! plugin may connect again. And frames that are odd and harm nothing.

use plugin_runner::protocol::Transport;
use plugin_runner::report::Counters;
use plugin_runner::{ReportedState, Session};
use serde_json::{Value, json};

use crate::support::frames::{
    BINARY, CLOSE, CONTINUED, FINAL, PING, PONG, RSV1, RawPeer, TEXT, frame, header, text,
};
use crate::support::host::{TestHost, active};
use crate::support::plugin::{call, external, fixture};
use crate::support::{LONG, assert_matches};

const KIB: usize = 1024;
/// Largest message that is read in these tests.
const LIMIT: usize = 64 * KIB;

const BREACH: &str = "the plugin broke the protocol: ";
const NOT_UTF8: &str = "the plugin sent text that is not UTF-8";
const TOO_LARGE: &str = "the plugin sent a message over the limit of 65536 bytes";

/// Which of a session's counts it is.
type Count = fn(&Counters) -> u64;

struct Offence {
    name: &'static str,
    bytes: Vec<u8>,
    code: Option<u16>,
    /// How the cause begins.
    cause: &'static str,
    /// What counts it, if it is no ordinary end.
    count: Option<Count>,
}

/// Pieces of the wire, in a row.
fn wire(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, false, payload.len() as u64);
    bytes.extend(payload);
    bytes
}

fn breaches() -> Vec<Offence> {
    let mut cases = vec![
        ("unmasked", unmasked(FINAL | TEXT, b"{}")),
        ("unmasked ping", unmasked(FINAL | PING, b"")),
        ("compressed", frame(FINAL | RSV1 | TEXT, b"\xaa\x56\x4a")),
        ("second reserved bit", frame(FINAL | 0x20 | TEXT, b"{}")),
        ("third reserved bit", frame(FINAL | 0x10 | TEXT, b"{}")),
        ("compressed ping", frame(FINAL | RSV1 | PING, b"")),
        ("continuation of nothing", frame(FINAL | CONTINUED, b"{}")),
        ("endless continuation of nothing", frame(CONTINUED, b"{}")),
        (
            "a message within a message",
            wire(&[frame(TEXT, b"{"), frame(FINAL | TEXT, b"{}")]),
        ),
        (
            "binary within text",
            wire(&[frame(TEXT, b"{"), frame(FINAL | BINARY, b"}")]),
        ),
        ("a ping of 126 bytes", frame(FINAL | PING, &[b'p'; 126])),
        (
            "a pong of 60 KiB",
            frame(FINAL | PONG, &vec![b'p'; 60 * KIB]),
        ),
        ("a ping in fragments", frame(PING, b"p")),
        ("a close in fragments", frame(CLOSE, b"")),
        ("half a close code", frame(FINAL | CLOSE, b"\x03")),
        ("a close of 126 bytes", frame(FINAL | CLOSE, &[3; 126])),
        (
            // What a peer sends that believes it speaks HTTP still.
            "another HTTP request",
            b"GET /rpc HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_vec(),
        ),
    ];
    for opcode in (0x3..=0x7).chain(0xb..=0xf) {
        cases.push(("a reserved opcode", frame(FINAL | opcode, b"")));
    }
    let breach = |(name, bytes)| Offence {
        name,
        bytes,
        code: Some(1002),
        cause: BREACH,
        count: Some(|counters| counters.violations),
    };
    cases.into_iter().map(breach).collect()
}

fn texts_that_are_none() -> Vec<Offence> {
    let cases = [
        ("no UTF-8", frame(FINAL | TEXT, b"{\"a\":\"\xff\xfe\"}")),
        ("half a character", frame(FINAL | TEXT, b"\xe2\x82")),
        ("a surrogate", frame(FINAL | TEXT, b"\xed\xa0\x80")),
        ("an overlong slash", frame(FINAL | TEXT, b"\xc0\xaf")),
        (
            "half a character at the end of the fragments",
            wire(&[frame(TEXT, b"ok"), frame(FINAL, b"\xe2\x82")]),
        ),
        (
            "a character broken between fragments",
            wire(&[frame(TEXT, b"\xe2\x82"), frame(FINAL, b"x")]),
        ),
        (
            "no UTF-8 in a fragment, the message unfinished",
            wire(&[frame(TEXT, b"ok"), frame(CONTINUED, b"\xff")]),
        ),
        (
            "a close whose reason is no UTF-8",
            frame(FINAL | CLOSE, b"\x03\xe8\xff\xfe"),
        ),
    ];
    let no_text = |(name, bytes)| Offence {
        name,
        bytes,
        code: Some(1007),
        cause: NOT_UTF8,
        count: Some(|counters| counters.not_utf8),
    };
    cases.into_iter().map(no_text).collect()
}

fn too_large() -> Vec<Offence> {
    let announced = |length| wire(&[header(FINAL | TEXT, true, length), vec![0; 4]]);
    let cases = [
        ("one byte over", frame(FINAL | TEXT, &vec![b' '; LIMIT + 1])),
        ("binary", frame(FINAL | BINARY, &vec![0; LIMIT + 1])),
        // The header alone is enough, and makes nobody reserve that much.
        ("four exbibytes announced", announced(1 << 62)),
        ("a length with the highest bit", announced(u64::MAX)),
        (
            "fragments that never end",
            wire(&[frame(TEXT, b""), frame(CONTINUED, &[b' '; 63]).repeat(1041)]),
        ),
        (
            "fragments of a byte that never end",
            wire(&[frame(TEXT, b"["), frame(CONTINUED, b" ").repeat(LIMIT)]),
        ),
    ];
    let over = |(name, bytes)| Offence {
        name,
        bytes,
        code: Some(1009),
        cause: TOO_LARGE,
        count: Some(|counters| counters.too_large),
    };
    cases.into_iter().map(over).collect()
}

fn ends() -> Vec<Offence> {
    let end = |name, bytes, code, cause| Offence {
        name,
        bytes,
        code,
        cause,
        count: None,
    };
    let close = |payload: &[u8]| frame(FINAL | CLOSE, payload);
    let mut ends = vec![
        end(
            "a close without a code",
            close(b""),
            None,
            "closed by the plugin",
        ),
        end(
            "a close of its own code",
            close(b"\x0f\xa0bye"),
            Some(4000),
            "closed by the plugin (code 4000, bye)",
        ),
    ];
    // Codes that may not be on a wire: below 1000, 'no code', 'abnormal', 'TLS', not given out.
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 65535_u16] {
        ends.push(end(
            "a close with a code that does not exist",
            close(&code.to_be_bytes()),
            Some(1002),
            "closed by the plugin (code 1002",
        ));
    }
    ends
}

#[test]
fn every_offence_has_its_close_code_its_cause_and_its_count() {
    let host = TestHost::with("offences", |setup| {
        setup.limits(|limits| limits.inbound_message(LIMIT));
    });
    let (session, target) = external(&host, "outside");
    let mut events = host.events();
    for offence in breaches()
        .into_iter()
        .chain(texts_that_are_none())
        .chain(too_large())
        .chain(ends())
    {
        let Offence { name, count, .. } = offence;
        let mut peer = RawPeer::connect(host.address(), &target);
        active(&session);
        let waiting = session.start_call_raw("echo", &json!({}), LONG).unwrap();
        let before = session.counters();
        peer.send(&offence.bytes);
        assert_eq!(peer.read_to_close(), offence.code, "{name}");
        let change = events.until(session.id(), ReportedState::Connecting);
        let cause = change.message().unwrap();
        assert!(cause.starts_with(offence.cause), "{name}: {cause}");
        let error = waiting.wait().unwrap_err();
        assert_eq!(error.to_string(), format!("not connected: {cause}"));
        let after = session.counters();
        match count {
            Some(count) => assert_eq!(count(&after), count(&before) + 1, "{name}"),
            None => assert_eq!(faults(&after), faults(&before), "{name}"),
        }
        assert!(
            faults(&after) - faults(&before) <= 1,
            "counted twice: {name}"
        );
    }
    let mut peer = RawPeer::connect(host.address(), &target);
    echo(&session, &mut peer);
}

fn faults(counters: &Counters) -> u64 {
    counters.violations
        + counters.not_utf8
        + counters.too_large
        + counters.stalls
        + counters.overflows
}

#[test]
fn a_message_that_stops_half_way_is_a_lost_connection() {
    let (host, session, target) = TestHost::with_external("truncated");
    let whole = text(r#"{"jsonrpc":"2.0","id":1,"method":"get_config"}"#);
    let mut events = host.events();
    for length in [0, 1, 2, 5, 6, 20, whole.len() - 1] {
        let mut peer = RawPeer::connect(host.address(), &target);
        active(&session);
        peer.send(&whole[..length]);
        drop(peer);
        let change = events.until(session.id(), ReportedState::Connecting);
        assert_eq!(change.message(), Some("connection lost"));
    }
    let counters = session.counters();
    assert_eq!((counters.inbound_calls, faults(&counters)), (0, 0));
}

/// Calls the plugin and answers for it; whatever it was sent before is passed over.
#[track_caller]
fn echo(session: &Session, peer: &mut RawPeer) {
    active(session);
    let call = session.start_call_raw("echo", &json!({}), LONG).unwrap();
    loop {
        let (_, payload) = peer.next().expect("a call");
        let Ok(message) = serde_json::from_slice::<Value>(&payload) else {
            continue;
        };
        if message["method"] == "echo" {
            let result = json!({"method": "echo"});
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
            peer.send(&text(&answer.to_string()));
            break;
        }
    }
    call.wait().unwrap();
}

#[test]
fn odd_frames_are_counted_and_harm_nothing() {
    let (host, session, target) = TestHost::with_external("odd-frames");
    let mut peer = RawPeer::connect(host.address(), &target);
    active(&session);
    let call = r#"{"jsonrpc":"2.0","id":"x","method":"get_config","params":{}}"#;
    let in_bytes: Vec<u8> = call
        .bytes()
        .enumerate()
        .flat_map(|(index, byte)| frame(if index == 0 { TEXT } else { CONTINUED }, &[byte]))
        .collect();
    let deep = |brackets: usize| {
        let (open, close) = ("[".repeat(brackets), "]".repeat(brackets));
        format!(
            r#"{{"jsonrpc":"2.0","id":"deep","method":"get_config","params":{{"keys":{open}{close}}}}}"#
        )
    };
    let unreadable: Count = |counters| counters.unreadable;
    let binary: Count = |counters| counters.binary;
    let calls: Count = |counters| counters.inbound_calls;
    let nothing: Count = |_| 0;
    let cases = [
        ("binary", frame(FINAL | BINARY, call.as_bytes()), binary, 1),
        ("an empty binary", frame(FINAL | BINARY, b""), binary, 1),
        (
            "binary in fragments",
            wire(&[
                frame(BINARY, b"a"),
                frame(CONTINUED, b"b"),
                frame(FINAL, b"c"),
            ]),
            binary,
            1,
        ),
        ("an empty text", text(""), unreadable, 1),
        (
            "a mebibyte of brackets",
            text(&"[".repeat(KIB * KIB)),
            unreadable,
            1,
        ),
        (
            "a mebibyte of braces",
            text(&"{\"a\":".repeat(KIB * KIB / 5)),
            unreadable,
            1,
        ),
        ("a batch", text(&format!("[{call},{call}]")), unreadable, 1),
        ("half a message", text(&call[..30]), unreadable, 1),
        ("two in one", text(&format!("{call}{call}")), unreadable, 1),
        ("NUL bytes", text("\0\0\0"), unreadable, 1),
        ("nested params", text(&deep(500_000)), calls, 1),
        (
            "a call in fragments of a byte, with pings between",
            wire(&[
                in_bytes,
                frame(FINAL | PING, b"between"),
                frame(CONTINUED, b"").repeat(10_000),
                frame(FINAL, b""),
            ]),
            calls,
            1,
        ),
        (
            "unasked pongs",
            frame(FINAL | PONG, b"?").repeat(1000),
            nothing,
            0,
        ),
        (
            "a flood of pings",
            frame(FINAL | PING, &[b'p'; 125]).repeat(1000),
            nothing,
            0,
        ),
    ];
    for (name, bytes, count, times) in cases {
        let before = session.counters();
        peer.send(&bytes);
        // Answered after it, so it has been dealt with.
        echo(&session, &mut peer);
        let after = session.counters();
        assert_eq!(count(&after), count(&before) + times, "{name}");
    }
    let counters = session.counters();
    assert_eq!((counters.connections, faults(&counters)), (1, 0));
    assert_eq!((counters.unreadable, counters.binary), (7, 3));
}

#[test]
fn params_and_results_that_are_nested_too_deep_are_errors() {
    let (host, session, target) = TestHost::with_external("nested");
    let mut peer = RawPeer::connect(host.address(), &target);
    active(&session);
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    peer.send(&text(&format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"get_config","params":{{"keys":{open}{close}}}}}"#
    )));
    let (_, answer) = peer.next().unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(
        (&answer["id"], &answer["error"]["code"]),
        (&json!(7), &json!(-32602))
    );

    let waiting = session
        .start_call_raw("anything", &json!({}), LONG)
        .unwrap();
    let (_, asked) = peer.next().unwrap();
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    peer.send(&text(&format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{open}{close}}}"#,
        asked["id"]
    )));
    let reply = waiting.wait().unwrap();
    let error = reply.read::<Value>().unwrap_err();
    assert_matches!(error, plugin_runner::Error::InvalidReply { .. });
}

#[test]
fn an_offence_of_one_plugin_is_not_noticed_by_another() {
    let host = TestHost::with("offence-apart", |setup| {
        setup.limits(|limits| limits.inbound_message(LIMIT));
    });
    let well = host.run(fixture(&host, Transport::WebSocket, &["behave"]));
    let (session, target) = external(&host, "outside");
    let threads = host.thread_count();
    for offence in breaches()
        .into_iter()
        .chain(texts_that_are_none())
        .chain(too_large())
    {
        let mut peer = RawPeer::connect(host.address(), &target);
        active(&session);
        peer.send(&offence.bytes);
        call(&well, "echo", &json!({})).unwrap();
        assert!(peer.read_to_close().is_some(), "{}", offence.name);
        session.wait_for(ReportedState::Connecting, LONG).unwrap();
        // A handshake, a writer, and their predecessors on their way out.
        let now = host.thread_count();
        assert!(now <= threads + 8, "{now} threads, {threads} before");
    }
    assert_eq!(well.counters().connections, 1);
}
