//! Handshakes that mean no good: each has its answer, or ends without one in time; each is counted;
//! and plugins get in meanwhile and afterwards.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use plugin_runner::protocol::Transport;
use plugin_runner::report::HandshakeCounters;
use plugin_runner::{Host, ReportedState};
use rustix::process::{Resource, Rlimit, getrlimit};
use serde_json::json;

use crate::support::alone::{Holdings, run_alone};
use crate::support::frames::{RawPeer, text};
use crate::support::host::{TestHost, active};
use crate::support::http::{Answer, Request, assert_ends_unanswered, connect, exchange};
use crate::support::peer::Peer;
use crate::support::plugin::{call, external, fixture, printed_url, target, url_printer};
use crate::support::{LONG, TestDir};

pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) status: u16,
}

pub(crate) fn attack(name: &'static str, bytes: impl Into<Vec<u8>>, status: u16) -> Attack {
    Attack {
        name,
        bytes: bytes.into(),
        status,
    }
}

/// Attacks by somebody who knows a path and query that would be let in.
pub(crate) fn attacks(good: &str) -> Vec<Attack> {
    let request = || Request::upgrade(good);
    let with = |name, value| request().with(name, value).to_text();
    let instead = |name, value| request().without(name).with(name, value).to_text();
    let without = |name| request().without(name).to_text();
    let line = |line: &str| {
        request()
            .to_text()
            .replacen("\r\n", &format!("\r\n{line}\r\n"), 1)
    };

    let mut attacks = vec![
        attack("nothing but an end", "\r\n\r\n", 400),
        attack("HTTP/0.9", format!("GET {good}\r\n\r\n"), 400),
        attack("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        attack("HTTP/1.0", request().version("HTTP/1.0").to_text(), 426),
        attack("HTTP/1.2", request().version("HTTP/1.2").to_text(), 400),
        attack("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        attack("another protocol", "HELO there\r\n\r\n", 400),
        attack("a method with a NUL", "G\0T / HTTP/1.1\r\n\r\n", 400),
        attack("no path", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        attack(
            "a NUL in the path",
            format!("GET {good}\0 HTTP/1.1\r\n\r\n"),
            400,
        ),
        attack(
            "a space in the path",
            format!("GET {good} x HTTP/1.1\r\n\r\n"),
            400,
        ),
        attack("a header without a colon", line("no colon"), 400),
        attack("a header without a name", line(": value"), 400),
        attack("a space before the colon", line("X-Space : value"), 400),
        attack("a folded header", line("X-Folded: a\r\n b"), 400),
        attack("a NUL in a header", line("X-Nul: a\0b"), 400),
        attack(
            "a bare carriage return in a header",
            line("X-Cr: a\rb"),
            400,
        ),
        attack("an escape in a header", line("User-Agent: \x1b[2J"), 400),
        attack("a header whose name is not ASCII", line("Ünicode: a"), 400),
        attack("two hosts", with("Host", "elsewhere.example"), 400),
        attack(
            "two origins",
            line("Origin: http://elsewhere.example\r\nOrigin: http://localhost"),
            400,
        ),
        attack(
            "two user agents",
            line("User-Agent: Go-http-client/1.1\r\nUser-Agent: Python/3.11 websockets/15.0.1"),
            400,
        ),
        // What another server on the way may take for something else.
        attack("a body", with("Content-Length", "5") + "hello", 400),
        attack(
            "a body in chunks",
            with("Transfer-Encoding", "chunked") + "0\r\n\r\n",
            400,
        ),
        attack(
            "both kinds of body",
            with("Content-Length", "4").replacen("\r\n", "\r\nTransfer-Encoding: chunked\r\n", 1)
                + "0\r\n\r\n",
            400,
        ),
        attack(
            "two lengths",
            with("Content-Length", "0").replacen("\r\n", "\r\nContent-Length: 30\r\n", 1),
            400,
        ),
        attack("a length with a sign", with("Content-Length", "+0"), 400),
        attack(
            "a second request behind an empty line of bare line feeds",
            format!("GET {good} HTTP/1.1\nHost: a\n\nGET /rpc HTTP/1.1\r\n\r\n"),
            400,
        ),
        attack("another path", "GET /admin HTTP/1.1\r\n\r\n", 404),
        attack("a path out of the way", "GET /../rpc HTTP/1.1\r\n\r\n", 404),
        attack(
            "a path in disguise",
            good.replacen("/rpc", "GET /%72pc", 1) + " HTTP/1.1\r\n\r\n",
            404,
        ),
        attack(
            "a proxy's tunnel",
            "CONNECT example.com:443 HTTP/1.1\r\n\r\n",
            404,
        ),
        attack("the server itself", "OPTIONS * HTTP/1.1\r\n\r\n", 404),
        attack("no upgrade", without("Upgrade"), 426),
        attack("no connection header", without("Connection"), 426),
        attack("another upgrade", instead("Upgrade", "h2c"), 426),
        attack("no version", without("Sec-WebSocket-Version"), 400),
        attack("an old version", instead("Sec-WebSocket-Version", "8"), 400),
        attack("two versions", with("Sec-WebSocket-Version", "13"), 400),
        attack("no key", without("Sec-WebSocket-Key"), 400),
        attack("an empty key", instead("Sec-WebSocket-Key", ""), 400),
        attack("a short key", instead("Sec-WebSocket-Key", "AAEC"), 400),
        attack(
            "no base64",
            instead("Sec-WebSocket-Key", "!!!!!!!!!!!!!!!!!!!!!!=="),
            400,
        ),
        attack(
            "two keys",
            with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            400,
        ),
        attack(
            "a page from elsewhere",
            with("Origin", "https://elsewhere.example"),
            403,
        ),
        attack("a page from nowhere", with("Origin", "null"), 403),
        attack("no token", Request::upgrade("/rpc").to_text(), 400),
        attack(
            "an empty token",
            Request::upgrade("/rpc?token=").to_text(),
            400,
        ),
        attack(
            "an id that is none",
            Request::upgrade(&format!("{good}&plugin_id=x")).to_text(),
            400,
        ),
        attack(
            "another token",
            Request::upgrade(&format!("{good}x&plugin_id=9m4e2mr0ui3e8a215n4g")).to_text(),
            401,
        ),
        attack("a thousand headers", line(&"X: y\r\n".repeat(1000)), 431),
        attack("a huge header", with("X-Huge", &"x".repeat(8192)), 431),
        attack(
            "a huge path",
            Request::upgrade(&format!("{good}&x={}", "x".repeat(8192))).to_text(),
            431,
        ),
        attack(
            "a header without end",
            format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(8192)),
            431,
        ),
        attack("line feeds without end", "\n".repeat(8192), 431),
    ];
    for method in ["POST", "PUT", "HEAD", "OPTIONS", "TRACE", "get"] {
        let bytes = request().method(method).to_text();
        attacks.push(attack("another method", bytes, 405));
    }
    attacks
}

#[test]
fn every_attack_has_its_answer_and_its_count() {
    let (host, session, good) = TestHost::with_external("handshake-attacks");
    for Attack {
        name,
        bytes,
        status,
    } in attacks(&good)
    {
        let before = host.handshake_counters();
        let answer = exchange(connect(host.address()), &bytes);
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        assert_eq!(answer.header("Connection"), Some("close"), "{name}");
        let after = host.handshake_counters();
        assert_eq!(
            refused_with(status, &after),
            refused_with(status, &before) + 1,
            "{name}"
        );
        assert_eq!(after.begun, before.begun + 1, "{name}");
        assert_eq!(
            refused(&after),
            refused(&before) + 1,
            "{name}: counted twice"
        );
    }
    assert_eq!(session.counters().connections, 0);
    let _peer = Peer::connect(host.address(), &good);
    active(&session);
    let counts = host.handshake_counters();
    assert_eq!(counts.accepted, 1);
    assert_eq!(counts.begun, counts.accepted + refused(&counts));
    wait_for_none(&host);
}

const STATUSES: [u16; 9] = [400, 401, 403, 404, 405, 426, 431, 500, 503];

pub(crate) fn refused_with(status: u16, counts: &HandshakeCounters) -> u64 {
    match status {
        400 => counts.refused_400,
        401 => counts.refused_401,
        403 => counts.refused_403,
        404 => counts.refused_404,
        405 => counts.refused_405,
        426 => counts.refused_426,
        431 => counts.refused_431,
        500 => counts.refused_500,
        503 => counts.refused_503 + counts.over_limit,
        other => panic!("no refusal has status {other}"),
    }
}

/// All that were answered with a refusal.
fn refused(counts: &HandshakeCounters) -> u64 {
    STATUSES
        .map(|status| refused_with(status, counts))
        .iter()
        .sum()
}

/// Waits until no handshake is in progress.
#[track_caller]
fn wait_for_none(host: &Host) {
    wait(host, "no handshake in progress", |counts| {
        counts.in_progress == 0
    });
}

#[track_caller]
fn wait(host: &Host, what: &str, wanted: impl Fn(&HandshakeCounters) -> bool) {
    let deadline = Instant::now() + LONG;
    loop {
        let counts = host.handshake_counters();
        if wanted(&counts) {
            return;
        }
        assert!(Instant::now() < deadline, "waited for {what}: {counts:?}");
        std::thread::yield_now();
    }
}

#[test]
fn odd_requests_that_are_right_are_let_in() {
    let (host, session, good) = TestHost::with_external("odd-requests");
    let request = || Request::upgrade(&good);
    let odd = [
        (
            "the absolute form",
            Request::upgrade(&format!("http://127.0.0.1{good}")),
        ),
        ("no body, said aloud", request().with("Content-Length", "0")),
        (
            "several upgrades",
            request()
                .without("Upgrade")
                .with("Upgrade", "h2c, WebSocket"),
        ),
        (
            "several connections",
            request()
                .without("Connection")
                .with("Connection", "keep-alive, Upgrade"),
        ),
        (
            "a user agent that is not ASCII",
            request()
                .without("User-Agent")
                .with("User-Agent", "Müller/1 \u{1F980}"),
        ),
        (
            "a compression offered",
            request().with("Sec-WebSocket-Extensions", "permessage-deflate"),
        ),
        (
            "a token behind another parameter",
            Request::upgrade(&good.replacen('?', "?x=y&", 1)),
        ),
    ];
    for (name, request) in odd {
        let answer = request.send(host.address());
        assert_eq!(answer.status, 101, "{name}: {}", answer.body);
        // Offered, and not taken up.
        assert_eq!(answer.header("Sec-WebSocket-Extensions"), None);
        active(&session);
        drop(answer);
        session.wait_for(ReportedState::Connecting, LONG).unwrap();
    }
}

#[test]
fn a_second_request_behind_the_first_is_no_frame() {
    let (host, session, good) = TestHost::with_external("pipelined");
    let twice = Request::upgrade(&good).to_text().repeat(2);
    let answer = exchange(connect(host.address()), twice.as_bytes());
    assert_eq!(answer.status, 101);
    assert_eq!(RawPeer(answer.stream).read_to_close(), Some(1002));
    session.wait_for(ReportedState::Connecting, LONG).unwrap();
    assert_eq!(session.counters().violations, 1);
    assert_eq!(host.handshake_counters().begun, 1);
}

#[test]
fn replayed_tokens_are_refused_and_counted() {
    let host = TestHost::new("replayed");
    let session = host.install(url_printer(&host, "inside"));
    let supervised = session.supervised().unwrap();
    supervised.start().unwrap();
    let first = target(&printed_url(&host, &session, 0));
    let peer = Peer::connect(host.address(), &first);
    active(&session);
    let replay = |token: &str, awaited: u64| {
        let answer = Request::upgrade(token).send(host.address());
        assert_eq!(answer.status, 401);
        assert_eq!(host.handshake_counters().refused_401, awaited);
    };
    replay(&first, 1);
    drop(peer);
    supervised.stop(LONG).unwrap();
    replay(&first, 2);
    supervised.start().unwrap();
    let second = target(&printed_url(&host, &session, 1));
    replay(&first, 3);
    let _peer = Peer::connect(host.address(), &second);
    active(&session);
    replay(&second, 4);
    host.unload(session.id()).unwrap();
    replay(&second, 5);
}

#[test]
fn a_request_that_trickles_ends_with_the_handshake_timeout() {
    let timeout = Duration::from_millis(500);
    let host = TestHost::with("trickle", |setup| {
        setup.timeouts(|timeouts| timeouts.handshake(timeout));
    });
    let (session, good) = external(&host, "outside");
    let mut slow = connect(host.address());
    slow.set_nodelay(true).unwrap();
    // Whenever the end has not come for a while there is another byte.
    slow.set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    slow.write_all(b"GET /rpc HTTP/1.1\r\nX: ").unwrap();
    let begun = Instant::now();
    loop {
        match slow.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = slow.write_all(b"x");
            }
            Ok(0) => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            other => panic!("an answer: {other:?}"),
        }
        assert!(begun.elapsed() < LONG, "it goes on and on");
    }
    assert!(begun.elapsed() >= timeout.mul_f32(0.9));
    assert_eq!(host.handshake_counters().timed_out, 1);
    let _peer = Peer::connect(host.address(), &good);
    active(&session);
}

#[test]
fn who_goes_away_in_the_middle_is_counted_and_forgotten() {
    let (host, session, good) = TestHost::with_external("goes-away");
    let request = Request::upgrade(&good).to_text();
    let halves = [0, 1, 20, request.len() - 1];
    for length in halves {
        let mut stream = connect(host.address());
        stream.write_all(&request.as_bytes()[..length]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_ends_unanswered(stream);
    }
    for length in halves {
        let mut stream = connect(host.address());
        stream.write_all(&request.as_bytes()[..length]).unwrap();
        reset(stream);
    }
    wait(&host, "eight that went away", |counts| {
        counts.hung_up == 8 && counts.in_progress == 0
    });
    // Gone before its answer could be written: it was a connection, if a short one.
    let mut events = host.events();
    let mut stream = connect(host.address());
    stream.write_all(request.as_bytes()).unwrap();
    reset(stream);
    wait(&host, "the ninth", |counts| {
        counts.accepted + counts.hung_up >= 9 && counts.in_progress == 0
    });
    if session.counters().connections > 0 {
        events.until(session.id(), ReportedState::Connecting);
    }
    let _peer = Peer::connect(host.address(), &good);
    active(&session);
}

/// Closes a connection in a way that the other side sees as a reset.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

#[test]
fn thousands_of_connections_at_once_do_not_keep_a_plugin_out() {
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(4096);
    // Both ends are in this process, with other tests beside.
    let storm = usize::try_from(open_files / 6).unwrap().min(3000);
    let host = TestHost::new("storm");
    let places = 64;
    let (session, good) = external(&host, "outside");
    let idle = host.thread_count();
    let mut silent = Vec::with_capacity(storm);
    let mut most = 0;
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            (0..storm)
                .map(|number| {
                    let mut stream = connect(host.address());
                    // Silent, half a request, or rubbish that never gets whole.
                    let begin: &[u8] =
                        [b"".as_slice(), b"GET /rpc?tok", b"\x16\x03\x01"][number % 3];
                    stream.write_all(begin).unwrap();
                    stream
                })
                .collect::<Vec<_>>()
        });
        // In the middle of it, as an SDK would: a 503 is 'come back'.
        let peer = loop {
            let answer = Request::upgrade(&good).send(host.address());
            if answer.status == 101 {
                break Peer::upgraded(answer);
            }
            assert_eq!(answer.status, 503, "{}", answer.body);
        };
        active(&session);
        while !connecting.is_finished() {
            most = most.max(host.thread_count());
            std::thread::yield_now();
        }
        silent = connecting.join().unwrap();
        drop(peer);
    });
    assert!(
        most <= idle + 2 * places + 8,
        "{most} threads, {idle} before"
    );
    session.wait_for(ReportedState::Connecting, LONG).unwrap();
    let all = u64::try_from(storm).unwrap();
    wait(&host, "the end of the storm", |counts| {
        counts.begun > all && counts.in_progress <= 64
    });
    // They all still hold on. Whoever comes now gets in at once.
    let _peer = Peer::connect(host.address(), &good);
    active(&session);
    let inside = host.run(fixture(&host, Transport::WebSocket, &["behave"]));
    call(&inside, "echo", &json!({})).unwrap();
    let counts = host.handshake_counters();
    assert!(counts.over_limit >= all - 64, "{counts:?}");
    assert_eq!(counts.timed_out + counts.accept_errors, 0);
    drop(silent);
    wait_for_none(&host);
}

#[test]
fn a_listener_outlives_a_lack_of_descriptors() {
    run_alone("handshake_attacks::alone::without_descriptors_connections_wait");
}

#[test]
fn a_thousand_connections_leave_nothing() {
    run_alone("handshake_attacks::alone::connections_come_and_go");
}

/// Tests that look at the whole process, so that they need one of their own.
mod alone {
    use super::*;

    #[test]
    #[ignore = "uses up the process's descriptors; run by another test, in a process of its own"]
    fn without_descriptors_connections_wait() {
        // Not a host of the usual kind, which has a listener of its own that must not fail.
        let folder = TestDir::new("no-descriptors");
        let host = Host::builder().data_dir(folder.path()).build().unwrap();
        let listener = host.listen("127.0.0.1:0").unwrap();
        let (session, good) = external(&host, "outside");
        let limit = getrlimit(Resource::Nofile);
        let few = Rlimit {
            current: Some(64),
            ..limit
        };
        rustix::process::setrlimit(Resource::Nofile, few).unwrap();
        let mut held = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            held.push(file);
        }
        // One for the test's own end; none for the other.
        held.pop();
        let begun = Instant::now();
        let mut waiting = connect(listener.address());
        waiting
            .write_all(Request::upgrade(&good).to_text().as_bytes())
            .unwrap();
        let errors = || host.handshake_counters().accept_errors;
        wait(&host, "five vain tries", |counts| counts.accept_errors >= 5);
        // It pauses between them.
        let took = begun.elapsed();
        let most = took.as_millis() / 100 + 1;
        assert!(u128::from(errors()) <= most, "{} in {took:?}", errors());
        assert_eq!(session.reported_state(), ReportedState::Connecting);
        held.clear();
        let _peer = Peer::upgraded(Answer::read(waiting));
        active(&session);
        rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
        assert!(host.shutdown(LONG).is_complete());
    }

    #[test]
    #[ignore = "counts what the process has; run by another test, in a process of its own"]
    fn connections_come_and_go() {
        let (host, session, good) = TestHost::with_external("come-and-go");
        let (idle, threads) = (host.thread_count(), Holdings::now().threads);
        let round = |number: usize| {
            let mut peer = RawPeer::connect(host.address(), &good);
            active(&session);
            match number % 4 {
                // It closes, it breaks the rules, it asks and does not wait, it is just gone.
                0 => peer.send(b"\x88\x80\0\0\0\0"),
                1 => peer.send(b"\xc1\x80\0\0\0\0"),
                2 => peer.send(&text(r#"{"id":1,"method":"get_config"}"#)),
                _ => {}
            }
            if number % 4 < 2 {
                peer.read_to_close();
            } else {
                drop(peer);
            }
            session.wait_for(ReportedState::Connecting, LONG).unwrap();
            // And one that is refused, and one that goes away.
            let refused = Request::upgrade("/rpc?token=x").send(host.address());
            assert_eq!(refused.status, 400);
            reset(connect(host.address()));
        };
        // Before counting, for what is made once and kept.
        (0..20).for_each(round);
        host.expect_threads(idle);
        let before = Holdings::at_rest(threads);
        (0..1000).for_each(round);
        before.expect();
        println!("before and after 1,000 rounds: {before}");
        let counts = host.handshake_counters();
        assert_eq!((counts.accepted, counts.in_progress), (1020, 0));
        assert_eq!(session.counters().connections, 1020);
    }
}
