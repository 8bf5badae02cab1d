//! Handshakes that are slow, silent or too many hold up nobody.

use std::collections::VecDeque;
use std::io::Write as _;
use std::time::Duration;

use crate::support::host::{Setup, TestHost, active};
use crate::support::http::{Answer, Request, assert_ends_unanswered, connect};
use crate::support::peer::Peer;
use crate::support::plugin::external;

#[test]
fn silent_connections_delay_nobody() {
    let (host, session, good) = TestHost::with_external("silent");
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
    let host = TestHost::with("slow-handshake", |setup| {
        setup.timeouts(|timeouts| timeouts.handshake(Duration::from_secs(1)));
    });
    let (session, good) = external(&host, "outside");
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
    let host = TestHost::with("handshake-cap", |setup| {
        setup.limits(|limits| limits.handshakes(8));
    });
    let (session, good) = external(&host, "outside");
    let mut silent: VecDeque<_> = (0..8).map(|_| connect(host.address())).collect();
    // Accepted in order, so each newcomer finds all places taken by those before it. There are fewer
    // of them than places: as many may be on their way out before newcomers are refused instead.
    for round in 1..=5 {
        silent.push_back(connect(host.address()));
        let oldest = Answer::read(silent.pop_front().unwrap());
        assert_eq!(oldest.status, 503);
        assert_eq!(oldest.header("Retry-After"), Some("1"));
        assert_eq!(oldest.body, "too many handshakes in progress\n");
        assert_eq!(host.handshake_counters().over_limit, round);
    }
    // Nobody who sends a request at once is kept out.
    let _peer = Peer::connect(host.address(), &good);
    active(&session);
    drop(silent);
}

#[test]
fn a_stopped_listener_gives_up_handshakes_in_progress() {
    let host = TestHost::with("listener-stop", Setup::deaf);
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
