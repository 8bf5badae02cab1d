//! Plugins that an embedder's own HTTP server lets in: the host decides from the request head, the
//! server answers, and hands the connection over.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use plugin_runner::error::Phase;
use plugin_runner::listener::{Admission, Refusal, RequestHead};
use plugin_runner::{ActiveState, Error, Host, InstallationId, ReportedState};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::handshake_attacks::{attack, attacks, refused_with};
use crate::support::host::{Setup, TestHost, active};
use crate::support::http::{Answer, FORGED, Request, connect};
use crate::support::peer::Peer;
use crate::support::plugin::{external, printed_url, target, url_printer};
use crate::support::{LONG, assert_matches, timed_out, wait_for, wait_until};

/// The parts that a server's parser finds in a head, if it takes the whole for one.
pub(crate) fn parts(head: &[u8]) -> Option<RequestHead> {
    let mut headers = vec![httparse::EMPTY_HEADER; 2000];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(head).ok()?;
    if parsed != httparse::Status::Complete(head.len()) {
        return None;
    }
    Some(RequestHead::from_parts(
        request.method?,
        request.path?,
        request.version?,
        request.headers.iter().map(|line| (line.name, line.value)),
    ))
}

/// What the host decides on a good handshake to this path and query.
fn admit(host: &Host, target: &str) -> Result<Admission, Refusal> {
    let head = Request::upgrade(target).to_text();
    host.admit(parts(head.as_bytes()).unwrap())
}

#[track_caller]
fn refused(host: &Host, target: &str, status: u16) {
    let refusal = admit(host, target).unwrap_err();
    assert_eq!(refusal.status(), status, "{}", refusal.body());
}

/// Both ends of a connection: the server's, and the peer's.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = connect(listener.local_addr().unwrap());
    (listener.accept().unwrap().0, theirs)
}

/// Asserts that the peer finds its connection closed.
#[track_caller]
fn assert_closed(mut peer: TcpStream) {
    assert_eq!(peer.read(&mut [0; 16]).unwrap(), 0);
}

/// Answers for the host, and hands the connection over.
#[track_caller]
fn attach(admission: Admission, rest: &[u8]) -> Peer {
    let (mut ours, theirs) = connection();
    ours.write_all(&admission.to_bytes()).unwrap();
    admission.attach(ours, rest.to_vec()).unwrap();
    Peer::upgraded(Answer::read(theirs))
}

#[test]
fn an_embedders_server_gives_every_answer_that_a_listener_gives() {
    let host = TestHost::new("admission-answers");
    let (session, good) = external(&host, "outside");
    let (unwanted, other) = external(&host, "unwanted");
    unwanted.set_active_state(ActiveState::Inactive).unwrap();
    let id = session.id();
    let mut requests = attacks(&good);
    for (name, target, status) in [
        ("not wanted", other, 503),
        (
            "another's id",
            format!("{good}&plugin_id={}", unwanted.id()),
            401,
        ),
        ("forged", format!("/rpc?plugin_id={id}&token={FORGED}"), 401),
        (
            "unknown",
            format!(
                "/rpc?token={FORGED}&plugin_id={}",
                InstallationId::generate()
            ),
            401,
        ),
    ] {
        requests.push(attack(name, Request::upgrade(&target).to_text(), status));
    }
    for request in requests {
        let (name, bytes) = (request.name, &request.bytes);
        let mut stream = connect(host.address());
        stream.write_all(bytes).unwrap();
        let mut answered = Vec::new();
        stream.read_to_end(&mut answered).unwrap();
        let counted = || {
            let counts = host.handshake_counters();
            (counts.begun, refused_with(request.status, &counts))
        };
        let (raw, rest) = RequestHead::parse(bytes).expect(name);
        let length = bytes.len() - rest.len();
        for head in [Some(raw), parts(&bytes[..length])].into_iter().flatten() {
            let (begun, before) = counted();
            let refusal = host.admit(head).expect_err(name);
            assert_eq!(refusal.to_bytes(), answered, "{name}");
            assert_eq!(counted(), (begun + 1, before + 1), "{name}");
        }
    }
    assert_eq!(host.handshake_counters().accepted, 0);
}

#[test]
fn an_admitted_connection_is_used_with_what_was_read_behind_the_head() {
    let host = TestHost::with("admission", Setup::deaf);
    let (session, good) = external(&host, "outside");
    // A ping, right behind the head.
    let bytes = [
        Request::upgrade(&good).to_text().as_bytes(),
        &[0x89, 0x80, 0, 0, 0, 0],
    ]
    .concat();
    let (head, rest) = RequestHead::parse(&bytes).unwrap();
    let admission = host.admit(head).unwrap();
    assert_eq!(
        (admission.session().id(), admission.status()),
        (session.id(), 101)
    );
    assert_eq!(host.handshake_counters().in_progress, 1);
    let mut peer = attach(admission, rest);
    assert!(peer.socket.read().unwrap().is_pong());
    active(&session);
    let call = session
        .start_call_raw("echo", &json!({"text": "hello"}), LONG)
        .unwrap();
    assert_eq!(peer.answer_one()["params"]["text"], "hello");
    let reply: Value = call.wait().unwrap().read().unwrap();
    assert_eq!(reply["echo"]["text"], "hello");
    refused(&host, &good, 503);
    let counts = host.handshake_counters();
    assert_eq!(
        (counts.accepted, counts.hung_up, counts.in_progress),
        (1, 0, 0)
    );
}

#[test]
fn a_head_is_asked_for_until_it_is_complete_or_too_large() {
    let bytes = Request::upgrade("/rpc").to_text() + "rest";
    let end = bytes.len() - "rest".len();
    assert!((0..end).all(|length| RequestHead::parse(&bytes.as_bytes()[..length]).is_none()));
    assert_eq!(RequestHead::parse(bytes.as_bytes()).unwrap().1, b"rest");
    let mut endless = vec![b'x'; 8 * 1024 - 1];
    assert!(RequestHead::parse(&endless).is_none());
    endless.push(b'x');
    let host = TestHost::with("endless-head", Setup::deaf);
    let refusal = host
        .admit(RequestHead::parse(&endless).unwrap().0)
        .unwrap_err();
    assert_eq!(refusal.status(), 431);
}

#[test]
fn parts_that_could_not_stand_in_a_head_are_refused() {
    let host = TestHost::with("odd-parts", Setup::deaf);
    let (_session, good) = external(&host, "outside");
    let key = ("Sec-WebSocket-Key", &b"dGhlIHNhbXBsZSBub25jZQ=="[..]);
    let usual: [(&str, &[u8]); 5] = [
        ("Host", b"h"),
        ("Connection", b"Upgrade"),
        ("Upgrade", b"websocket"),
        ("Sec-WebSocket-Version", b"13"),
        key,
    ];
    let status = |method: &str, target: &str, minor, more: (&'static str, &[u8])| {
        let headers = usual.into_iter().chain([more]);
        let head = RequestHead::from_parts(method, target, minor, headers);
        host.admit(head)
            .map_or_else(|refusal| refusal.status(), |it| it.status())
    };
    let plain: (&str, &[u8]) = ("X", b"y");
    assert_eq!(status("GET", &good, 1, plain), 101);
    assert_eq!(status("GET", &good, 0, plain), 426);
    assert_eq!(status("GET", &good, 2, plain), 400);
    assert_eq!(status("", &good, 1, plain), 400);
    assert_eq!(
        status("GET", &format!("{good} HTTP/1.1\r\nX: y"), 1, plain),
        400
    );
    assert_eq!(status("GET", &format!("{good} x"), 1, plain), 400);
    assert_eq!(status("GET /rpc HTTP/1.1\r\nX:", &good, 1, plain), 400);
    assert_eq!(
        status("GET", &good, 1, ("Origin ", b"http://elsewhere")),
        400
    );
    assert_eq!(
        status("GET", &good, 1, ("Origin", b"http://elsewhere")),
        403
    );
    for more in [
        ("X", &b"y\r\nOrigin: http://h"[..]),
        ("X", b"y\nZ: z"),
        ("X: y\r\nZ", b"z"),
        ("X:Y", b"z"),
        ("", b"z"),
        ("X", b"a\0b"),
        ("Content-Length", b"5"),
        ("Host", b"h"),
    ] {
        assert_eq!(status("GET", &good, 1, more), 400, "{more:?}");
    }
    assert_eq!(status("GET", &good, 1, ("X", &[b'y'; 8192])), 431);
    let many = (0..64).map(|_| plain).chain(usual);
    let head = RequestHead::from_parts("GET", &good, 1, many);
    assert_eq!(host.admit(head).unwrap_err().status(), 431);
}

#[test]
fn a_token_is_spent_with_the_verdict() {
    let host = TestHost::new("admission-token");
    let session = host.install(url_printer(&host, "inside"));
    session.supervised().unwrap().start().unwrap();
    let good = target(&printed_url(&host, &session, 0));
    let foreign = Request::upgrade(&good).with("Origin", "http://elsewhere.example");
    let refusal = host
        .admit(parts(foreign.to_text().as_bytes()).unwrap())
        .unwrap_err();
    assert_eq!(refusal.status(), 403, "and the token is not spent by it");
    let admission = admit(&host, &good).unwrap();
    refused(&host, &good, 401);
    assert_eq!(session.reported_state(), ReportedState::Connecting);
    let _peer = attach(admission, b"");
    active(&session);
}

#[test]
fn an_admission_that_is_dropped_makes_room() {
    let host = TestHost::with("admission-dropped", Setup::deaf);
    let (session, good) = external(&host, "outside");
    let admission = admit(&host, &good).unwrap();
    refused(&host, &good, 503);
    drop(admission);
    let counts = host.handshake_counters();
    assert_eq!(
        (counts.accepted, counts.hung_up, counts.in_progress),
        (1, 1, 0)
    );
    let _peer = attach(admit(&host, &good).unwrap(), b"");
    active(&session);
}

#[test]
fn what_is_no_connected_stream_is_refused_before_the_plugin_counts_as_connected() {
    let host = TestHost::with("admission-no-stream", Setup::deaf);
    let (session, good) = external(&host, "outside");
    let things: [(&str, OwnedFd); 6] = [
        ("file", File::open("/dev/null").unwrap().into()),
        ("pipe", std::io::pipe().unwrap().0.into()),
        ("listener", TcpListener::bind("127.0.0.1:0").unwrap().into()),
        ("listener", {
            let path = host.folder().join("socket");
            UnixListener::bind(path).unwrap().into()
        }),
        ("datagrams", UdpSocket::bind("127.0.0.1:0").unwrap().into()),
        ("datagrams", UnixDatagram::pair().unwrap().0.into()),
    ];
    for (name, thing) in things {
        let admission = admit(&host, &good).unwrap();
        let refused = admission.attach(thing, Vec::new());
        assert_matches!(refused, Err(Error::Io { .. }), "{name}");
        assert_eq!(session.counters().connections, 0, "{name}");
    }
    let _peer = attach(admit(&host, &good).unwrap(), b"");
    active(&session);
}

#[cfg(target_os = "linux")]
#[test]
fn a_stream_that_the_server_makes_non_blocking_later_is_read_without_spinning() {
    let host = TestHost::with("admission-non-blocking", Setup::deaf);
    let (session, good) = external(&host, "kept-clone");
    let admission = admit(&host, &good).unwrap();
    let (mut ours, theirs) = connection();
    let clone = ours.try_clone().unwrap();
    ours.write_all(&admission.to_bytes()).unwrap();
    admission.attach(ours, Vec::new()).unwrap();
    let mut peer = Peer::upgraded(Answer::read(theirs));
    active(&session);
    // Both are handles to one socket.
    clone.set_nonblocking(true).unwrap();
    peer.socket.send(Message::Ping(Vec::new().into())).unwrap();
    assert!(peer.socket.read().unwrap().is_pong());
    wait_until("the reader to sleep", || {
        thread_state("sess-kept-clone") == Some('S')
    });
}

/// The state of a thread of this process, as the kernel tells it.
#[cfg(target_os = "linux")]
fn thread_state(name: &str) -> Option<char> {
    let mut threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    threads.find_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).ok()?;
        let (_, state) = stat.split_once(&format!(" ({name}) "))?;
        state.chars().next()
    })
}

#[test]
fn an_admission_without_its_stream_makes_room_after_the_handshake_timeout() {
    let limit = Duration::from_millis(100);
    let host = TestHost::with("admission-late", |setup| {
        setup.deaf();
        setup.timeouts(|timeouts| timeouts.handshake(limit));
    });
    let (session, good) = external(&host, "outside");
    let threads = host.thread_count();
    let late = admit(&host, &good).unwrap();
    assert_eq!(host.thread_count(), threads, "a thread waits for it");
    let newcomer = wait_for("room", || admit(&host, &good).ok());
    let (ours, theirs) = connection();
    // A server may keep a handle of its own.
    let _kept = ours.try_clone().unwrap();
    let error = late.attach(ours, Vec::new()).unwrap_err();
    assert_eq!(timed_out(&error), (Phase::Handshake, limit));
    assert_closed(theirs);
    assert_eq!(host.handshake_counters().timed_out, 1);
    assert_eq!(session.counters().connections, 0);
    drop(newcomer);
}

#[test]
fn an_admission_is_void_once_its_plugin_is_stopped() {
    let host = TestHost::with("admission-void", Setup::deaf);
    let (session, good) = external(&host, "outside");
    let admission = admit(&host, &good).unwrap();
    session.set_active_state(ActiveState::Inactive).unwrap();
    let (ours, theirs) = connection();
    let error = admission.attach(ours, Vec::new()).unwrap_err();
    assert_matches!(
        error,
        Error::State {
            state: ReportedState::Inactive,
            ..
        }
    );
    assert_closed(theirs);
    let counts = host.handshake_counters();
    assert_eq!((counts.raced, counts.hung_up), (1, 0));
}

#[test]
fn a_refusal_has_an_incumbent_that_is_dead_make_room() {
    let host = TestHost::with("admission-incumbent", |setup| {
        setup.deaf();
    });
    let (session, good) = external(&host, "outside");
    // Its socket is open, and it answers nothing.
    let _dead = attach(admit(&host, &good).unwrap(), b"");
    active(&session);
    refused(&host, &good, 503);
    session.wait_for(ReportedState::Connecting, LONG).unwrap();
    let _peer = attach(admit(&host, &good).unwrap(), b"");
    active(&session);
}

#[test]
fn a_refusal_is_in_the_plugins_log_with_the_address_that_the_server_names() {
    let host = TestHost::new("admission-log");
    let session = host.install(url_printer(&host, "inside"));
    session.supervised().unwrap().start().unwrap();
    printed_url(&host, &session, 0);
    let forged = format!("/rpc?plugin_id={}&token={FORGED}", session.id());
    let head = parts(Request::upgrade(&forged).to_text().as_bytes()).unwrap();
    let head = head.address("203.0.113.7:9");
    assert!(!format!("{head:?}").contains(FORGED), "{head:?}");
    drop(host.admit(head).unwrap_err());
    assert_eq!(session.counters().refused_wrong_token, 1);
    wait_until("a line", || {
        let lines = host.output.texts(session.id());
        lines
            .iter()
            .any(|line| line.contains("from 203.0.113.7:9 was refused with 401"))
    });
}
