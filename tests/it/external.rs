//! External plugins: connecting in, coming back, and standing in each other's way.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use plugin_runner::{ActiveState, Error, ReportedState, Session};
use serde_json::{Value, json};

use crate::support::host::{Setup, TestHost, active};
use crate::support::http::{Answer, Request, assert_ends_unanswered, connect};
use crate::support::peer::Peer;
use crate::support::plugin::external;
use crate::support::{LONG, assert_matches};

/// Calls `echo` while the peer answers it.
#[track_caller]
fn echo<S: std::io::Read + std::io::Write>(session: &Session, peer: &mut Peer<S>) {
    let params = json!({"text": "hello"});
    let call = session.start_call_raw("echo", &params, LONG).unwrap();
    assert_eq!(peer.answer_one()["params"], params);
    let reply: Value = call.wait().unwrap().read().unwrap();
    assert_eq!(reply["echo"], params);
}

#[test]
fn an_external_plugin_connects_is_called_and_comes_back_with_the_same_token() {
    let host = TestHost::new("external");
    let mut events = host.events();
    let (session, target) = external(&host, "outside");
    assert!(session.supervised().is_none());
    assert_eq!(session.reported_state(), ReportedState::Connecting);
    events.expect(session.id(), &[ReportedState::Connecting]);
    for _ in 0..3 {
        let mut peer = Peer::connect(host.address(), &target);
        events.expect(session.id(), &[ReportedState::Active]);
        echo(&session, &mut peer);
        drop(peer);
        let change = events.expect(session.id(), &[ReportedState::Connecting]);
        assert_eq!(change.message(), Some("connection lost"));
        let error = session.call_raw("echo", &json!({}), LONG).unwrap_err();
        assert_matches!(error, Error::State { .. });
    }
    assert_eq!(session.counters().connections, 3);
}

#[test]
fn a_call_in_flight_fails_at_once_when_the_plugin_drops() {
    let (host, session, target) = TestHost::with_external("external-drops");
    let mut peer = Peer::connect(host.address(), &target);
    active(&session);
    let call = session.start_call_raw("echo", &json!({}), LONG).unwrap();
    peer.receive();
    drop(peer);
    let began = Instant::now();
    let error = call.wait().unwrap_err();
    assert!(error.is_disconnected(), "{error}");
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
}

#[test]
fn deactivating_closes_with_1000_and_shutting_down_with_1012() {
    let (host, session, target) = TestHost::with_external("close-codes");
    let mut peer = Peer::connect(host.address(), &target);
    active(&session);
    session.set_active_state(ActiveState::Inactive).unwrap();
    assert_eq!(session.reported_state(), ReportedState::Inactive);
    assert_eq!(peer.read_to_close(), Some(1000));

    session.set_active_state(ActiveState::Active).unwrap();
    let mut peer = Peer::connect(host.address(), &target);
    active(&session);
    let reading = std::thread::spawn(move || peer.read_to_close());
    host.shutdown(LONG);
    assert_eq!(reading.join().unwrap(), Some(1012));
}

#[test]
fn an_incumbent_that_is_alive_stays() {
    let host = TestHost::new("incumbent-alive");
    let (session, target) = external(&host, "outside");
    let mut incumbent = Peer::connect(host.address(), &target);
    active(&session);
    let newcomer = Request::upgrade(&target).send(host.address());
    assert_eq!(newcomer.status, 503);
    assert_eq!(newcomer.body, "the plugin is already connected\n");
    // The newcomer had it pinged; it answers that while it waits for the call.
    echo(&session, &mut incumbent);
    assert_eq!(session.counters().connections, 1);
}

#[test]
fn an_incumbent_that_is_dead_makes_room() {
    let host = TestHost::new("incumbent-dead");
    let (session, target) = external(&host, "outside");
    // Its socket is open, as that of a machine that lost its power; it answers nothing.
    let dead = Peer::connect(host.address(), &target);
    active(&session);
    let mut events = host.events();
    assert_eq!(Request::upgrade(&target).send(host.address()).status, 503);
    let change = events.expect(session.id(), &[ReportedState::Connecting]);
    assert_eq!(
        change.message(),
        Some("unresponsive: no sign of life for 5s")
    );
    let mut newcomer = Peer::connect(host.address(), &target);
    events.expect(session.id(), &[ReportedState::Active]);
    echo(&session, &mut newcomer);
    drop(dead);
}

#[test]
fn an_incumbent_that_ends_while_it_is_looked_at_has_its_own_cause() {
    let host = TestHost::new("incumbent-ends");
    let (session, target) = external(&host, "outside");
    let incumbent = Peer::connect(host.address(), &target);
    active(&session);
    let mut events = host.events();
    assert_eq!(Request::upgrade(&target).send(host.address()).status, 503);
    drop(incumbent);
    let change = events.expect(session.id(), &[ReportedState::Connecting]);
    assert_eq!(change.message(), Some("connection lost"));
}

#[test]
fn an_embedder_may_accept_on_its_own_listener() {
    let host = TestHost::with("own-listener", Setup::deaf);
    let (session, target) = external(&host, "outside");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = {
        let target = target.clone();
        std::thread::spawn(move || Peer::connect(address, &target))
    };
    let accepted = host.accept(listener.accept().unwrap().0).unwrap();
    assert_eq!(accepted.id(), session.id());
    let mut peer = connecting.join().unwrap();
    echo(&session, &mut peer);

    // The next is refused, and the embedder is told what the peer was.
    let refused = std::thread::spawn(move || Request::upgrade(&target).send(address).status);
    let error = host.accept(listener.accept().unwrap().0).unwrap_err();
    assert_matches!(error, Error::Refused { status: 503, .. });
    assert_eq!(refused.join().unwrap(), 503);
}

#[test]
fn an_embedder_may_have_read_the_head_already() {
    let host = TestHost::with("own-head", Setup::deaf);
    let (session, target) = external(&host, "outside");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The whole head, half of it, and the head with something of the first frame.
    let text = Request::upgrade(&target).to_text();
    let frame = [0x89, 0x80, 0, 0, 0, 0];
    let whole = [text.as_bytes(), &frame].concat();
    for read_by_embedder in [text.len(), text.len() / 2, text.len() + 3] {
        let stream = connect(address);
        std::io::Write::write_all(&mut &stream, &whole).unwrap();
        let mut accepted = listener.accept().unwrap().0;
        let mut head = vec![0; read_by_embedder];
        accepted.read_exact(&mut head).unwrap();
        let same = host.accept_with_head(accepted, head).unwrap();
        assert_eq!(same.id(), session.id());
        let mut peer = Peer::upgraded(Answer::read(stream));
        assert!(peer.socket.read().unwrap().is_pong());
        echo(&session, &mut peer);
        drop(peer);
        session.wait_for(ReportedState::Connecting, LONG).unwrap();
    }
}

#[test]
fn a_unix_socket_works_like_any_other() {
    let host = TestHost::with("unix-socket", Setup::deaf);
    let (session, target) = external(&host, "outside");
    // Short, because the path of a socket may not be long.
    let name = format!("plugin-runner-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let text = Request::upgrade(&target).to_text();
    std::io::Write::write_all(&mut &stream, text.as_bytes()).unwrap();
    host.accept(listener.accept().unwrap().0).unwrap();
    let mut peer = Peer::upgraded(Answer::read(stream));
    active(&session);
    echo(&session, &mut peer);
}

#[test]
fn a_silent_stream_is_given_back_after_the_handshake_timeout() {
    let host = TestHost::with("silent-stream", |setup| {
        setup.deaf();
        setup.timeouts(|timeouts| timeouts.handshake(Duration::from_millis(100)));
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = connect(listener.local_addr().unwrap());
    let error = host.accept(listener.accept().unwrap().0).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    // No answer: a 4xx would make a plugin that was merely slow give up for good.
    assert_ends_unanswered(silent);
}
