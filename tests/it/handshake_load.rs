//! Handshakes that are slow, silent or too many hold up nobody.

use std::io::Write as _;
use std::time::Duration;

use plugin_runner::store::{PluginKind, Record};

use crate::support::host::{Setup, TestHost, active};
use crate::support::http::{Answer, Request, assert_ends_unanswered, connect, exchange};
use crate::support::peer::Peer;
use crate::support::plugin::manifest;

fn external(host: &TestHost) -> (plugin_runner::Session, String) {
    let record = Record::external(manifest("outside")).unwrap();
    let PluginKind::External(token) = &record.kind else {
        unreachable!("just made");
    };
    let target = format!("/rpc?token={}", token.expose());
    (host.install(record), target)
}

#[test]
fn silent_connections_delay_nobody() {
    let host = TestHost::new("silent");
    let (session, good) = external(&host);
    let silent: Vec<_> = (0..40).map(|_| connect(host.address())).collect();
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = connect(host.address());
            stream.write_all(b"GET /rpc?tok").unwrap();
            stream
        })
        .collect();
    // All of them hold a handshake; this one would wait for their timeout of 30 s.
    let _peer = Peer::connect(host.address(), &good);
    active(&session);
    drop((silent, slow));
}

#[test]
fn a_slow_handshake_is_cut_at_the_timeout() {
    let host = Setup::new("slow-handshake")
        .timeouts(|timeouts| timeouts.handshake = Duration::from_secs(1))
        .start();
    let (session, good) = external(&host);
    let mut streams: Vec<_> = (0..5).map(|_| connect(host.address())).collect();
    for stream in &mut streams {
        stream.write_all(b"GET /rpc HTTP/1.1\r\nHost:").unwrap();
    }
    for stream in streams {
        // No answer: a 4xx would make a plugin that was merely slow give up for good.
        assert_ends_unanswered(stream);
    }
    assert_eq!(session.counters().connections, 0);
    let _peer = Peer::connect(host.address(), &good);
    active(&session);
}

#[test]
fn over_the_cap_on_handshakes_a_connection_is_told_to_come_back() {
    let host = Setup::new("handshake-cap")
        .limits(|limits| limits.handshakes = 2)
        .start();
    let (session, good) = external(&host);
    let request = Request::upgrade(&good);
    let first = connect(host.address());
    let second = connect(host.address());
    // Accepted in order, so the cap is reached when this one's turn comes.
    let third = Answer::read(connect(host.address()));
    assert_eq!(third.status, 503);
    assert_eq!(third.header("Retry-After"), Some("1"));
    let refused = exchange(first, b"\r\n\r\n\r\n");
    assert_eq!(refused.status, 400);
    // Its place is free again once its thread has ended, right after the answer.
    let peer = loop {
        let answer = exchange(connect(host.address()), request.to_text().as_bytes());
        if answer.status == 101 {
            break Peer::upgraded(answer);
        }
        assert_eq!(answer.status, 503);
    };
    active(&session);
    drop((second, peer));
}

#[test]
fn a_stopped_listener_gives_up_handshakes_in_progress() {
    let host = Setup::new("listener-stop").deaf().start();
    let listener = host.listen("127.0.0.1:0").unwrap();
    let mut waiting = connect(listener.address());
    waiting.write_all(b"GET /rpc").unwrap();
    // A whole answer to a later one shows that the first is accepted too.
    assert_eq!(
        Request::upgrade("/rpc").send(listener.address()).status,
        400
    );
    listener.stop();
    assert_ends_unanswered(waiting);
}
