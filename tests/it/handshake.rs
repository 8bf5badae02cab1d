//! Who may connect, and what everybody else is told (PROTOCOL.md, "Handshake answers").

use plugin_runner::auth::ExternalToken;
use plugin_runner::store::Record;
use plugin_runner::{ActiveState, InstallationId, ReportedState, Session};

use crate::support::host::{TestHost, active};
use crate::support::http::{Answer, FORGED, Request, connect, exchange};
use crate::support::peer::Peer;
use crate::support::plugin::{manifest, printed_url, target, url_printer};

fn external(id: &str) -> (Record, String) {
    let record = Record::external(manifest(id)).unwrap();
    let token = record.external_token().unwrap();
    let token = token.expose().to_owned();
    (record, token)
}

/// A host with a supervised plugin whose token nobody has used.
fn with_sealed(test: &'static str) -> (TestHost, Session, String) {
    let host = TestHost::new(test);
    let session = host.start(url_printer(&host, "inside"));
    let url = printed_url(&host, &session, 0);
    (host, session, target(&url))
}

#[track_caller]
fn expect_status(host: &TestHost, target: &str, expected: u16, why: &str) {
    let answer = Request::upgrade(target).send(host.address());
    assert_eq!(answer.status, expected, "{why}");
}

#[track_caller]
fn expect_busy(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.body);
    // Both SDKs go by the status; other clients by this.
    assert_eq!(answer.header("Retry-After"), Some("1"));
}

#[test]
fn missing_or_malformed_parameters_are_400() {
    let (host, session, good) = TestHost::with_external("parameters");
    let answer = Request::upgrade("/rpc").send(host.address());
    assert_eq!(answer.status, 400, "no token");
    assert_eq!(answer.body, "invalid connection parameters\n");
    let id = session.id();
    expect_status(
        &host,
        &format!("/rpc?plugin_id={id}&token="),
        400,
        "empty token",
    );
    expect_status(
        &host,
        &format!("{good}&plugin_id=short"),
        400,
        "plugin_id is no xid",
    );
    let stray = format!("{good}&plugin_id=9M4E2MR0UI3E8A215N4G");
    expect_status(&host, &stray, 400, "capitals are no xid");
    let without_id = format!("/rpc?token={FORGED}");
    expect_status(&host, &without_id, 400, "sealed without plugin_id");
    expect_status(&host, "/rpc?token=sdprt_short", 400, "judged as sealed");
    assert_eq!(session.reported_state(), ReportedState::Connecting);
}

#[test]
fn a_wrong_external_token_is_401() {
    let (host, session, good) = TestHost::with_external("wrong-external");
    let stranger = ExternalToken::generate().unwrap();
    let stranger = format!("/rpc?token={}", stranger.expose());
    let answer = Request::upgrade(&stranger).send(host.address());
    assert_eq!(answer.status, 401, "unknown token");
    assert_eq!(answer.body, "unauthenticated\n");
    let other = InstallationId::generate();
    expect_status(
        &host,
        &format!("{good}&plugin_id={other}"),
        401,
        "another plugin_id",
    );
    // Its own id is fine.
    let own = format!("{good}&plugin_id={}", session.id());
    let _peer = Peer::connect(host.address(), &own);
    active(&session);
}

#[test]
fn a_wrong_sealed_token_is_401() {
    let (host, session, good) = with_sealed("wrong-sealed");
    let id = session.id();
    expect_status(
        &host,
        &format!("/rpc?plugin_id={id}&token={FORGED}"),
        401,
        "forged",
    );
    let unknown = InstallationId::generate();
    let unknown = format!("/rpc?plugin_id={unknown}&token={FORGED}");
    expect_status(&host, &unknown, 401, "unknown plugin");
    expect_status(
        &host,
        &format!("/rpc?plugin_id={id}&token=%21%21"),
        401,
        "no base64",
    );
    expect_status(
        &host,
        &format!("/rpc?plugin_id={id}&token=AAEC"),
        401,
        "too short",
    );
    let almost = format!("/rpc?plugin_id={id}&token=sdprt_tooshort");
    expect_status(&host, &almost, 401, "neither one nor the other");

    let (outside, _) = external("outside");
    let outside = host.install(outside).id();
    let own_token = good.split_once("token=").unwrap().1;
    let elsewhere = format!("/rpc?plugin_id={outside}&token={own_token}");
    expect_status(&host, &elsewhere, 401, "sealed token at an external plugin");

    // None of them has spent the real one.
    let _peer = Peer::connect(host.address(), &good);
    active(&session);
}

#[test]
fn a_supervised_token_works_once() {
    let (host, session, good) = with_sealed("token-once");
    let peer = Peer::connect(host.address(), &good);
    active(&session);
    expect_status(&host, &good, 401, "spent");
    drop(peer);
    session
        .wait_for(ReportedState::Connecting, crate::support::LONG)
        .unwrap();
    expect_status(&host, &good, 401, "still spent when the connection is gone");
}

#[test]
fn a_restart_takes_the_old_token_back() {
    let (host, session, old) = with_sealed("token-rotated");
    let supervised = session.supervised().unwrap();
    supervised.stop(crate::support::LONG).unwrap();
    expect_status(&host, &old, 401, "stopped");
    supervised.start().unwrap();
    let new = target(&printed_url(&host, &session, 1));
    assert_ne!(new, old);
    expect_status(&host, &old, 401, "the token of the run before");
    let _peer = Peer::connect(host.address(), &new);
    active(&session);
}

#[test]
fn a_refused_handshake_does_not_spend_the_token() {
    let (host, session, good) = with_sealed("token-kept");
    let refused = Request::upgrade(&good)
        .without("Upgrade")
        .send(host.address());
    assert_eq!(refused.status, 426);
    let refused = Request::upgrade(&good)
        .with("Origin", "http://elsewhere.example")
        .send(host.address());
    assert_eq!(refused.status, 403);
    assert_eq!(session.reported_state(), ReportedState::Connecting);
    let _peer = Peer::connect(host.address(), &good);
    active(&session);
}

#[test]
fn two_connections_with_one_token_at_once_make_one() {
    let (host, session, good) = with_sealed("token-race");
    let (address, barrier) = (host.address(), std::sync::Barrier::new(8));
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let stream = connect(address);
                    barrier.wait();
                    exchange(stream, Request::upgrade(&good).to_text().as_bytes())
                })
            })
            .collect();
        attempts
            .into_iter()
            .map(|attempt| attempt.join().unwrap())
            .collect()
    });
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [101, 401, 401, 401, 401, 401, 401, 401]);
    // A 101 is written before the connection is the session's.
    active(&session);
    assert_eq!(session.counters().connections, 1);
}

#[test]
fn a_known_plugin_that_is_not_wanted_is_told_to_come_back() {
    let host = TestHost::new("not-wanted");
    let (record, token) = external("outside");
    let good = format!("/rpc?token={token}");
    let id = record.id;
    host.store().put(record).unwrap();
    expect_busy(&Request::upgrade(&good).send(host.address()));

    let session = host.load(id).unwrap();
    session.set_active_state(ActiveState::Inactive).unwrap();
    expect_busy(&Request::upgrade(&good).send(host.address()));

    session.set_active_state(ActiveState::Active).unwrap();
    let _peer = Peer::connect(host.address(), &good);
    active(&session);
    expect_busy(&Request::upgrade(&good).send(host.address()));
    assert_eq!(session.counters().connections, 1, "the first one stays");
    host.unload(id).unwrap();
    expect_busy(&Request::upgrade(&good).send(host.address()));
}

#[test]
fn anything_but_a_websocket_handshake_is_refused_by_its_kind() {
    let (host, session, good) = TestHost::with_external("no-websocket");
    let address = host.address();
    let good = || Request::upgrade(&good);

    let answer = good().method("POST").send(address);
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("Allow"), Some("GET"));

    let answer = good().without("Upgrade").send(address);
    assert_eq!(answer.status, 426, "no Upgrade");
    assert_eq!(answer.header("Upgrade"), Some("websocket"));
    let other = good().without("Upgrade").with("Upgrade", "h2c");
    assert_eq!(other.send(address).status, 426, "another Upgrade");
    assert_eq!(
        good().without("Connection").send(address).status,
        426,
        "no Connection"
    );
    assert_eq!(
        good().version("HTTP/1.0").send(address).status,
        426,
        "HTTP/1.0"
    );

    let version = |version| {
        let request = good().without("Sec-WebSocket-Version");
        request.with("Sec-WebSocket-Version", version).send(address)
    };
    let answer = version("8");
    assert_eq!(answer.status, 400, "version 8");
    assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
    let none = good().without("Sec-WebSocket-Version").send(address);
    assert_eq!(none.status, 400, "no version");
    let none = good().without("Sec-WebSocket-Key").send(address);
    assert_eq!(none.status, 400, "no key");
    let two = good().with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(two.send(address).status, 400, "two keys");
    let short = good()
        .without("Sec-WebSocket-Key")
        .with("Sec-WebSocket-Key", "AAEC");
    assert_eq!(short.send(address).status, 400, "a key of 3 bytes");

    assert_eq!(session.counters().connections, 0);
}

#[test]
fn a_browser_from_elsewhere_is_403() {
    let (host, session, good) = TestHost::with_external("origin");
    let from = |origin| Request::upgrade(&good).with("Origin", origin);
    let foreign = from("https://elsewhere.example").send(host.address());
    assert_eq!(foreign.status, 403);
    let opaque = from("null").send(host.address());
    assert_eq!(opaque.status, 403);
    let _peer = Peer::upgraded(from("http://127.0.0.1").send(host.address()));
    active(&session);
}

#[test]
fn any_other_path_is_404() {
    let (host, _session, good) = TestHost::with_external("path");
    for path in ["/", "/rpc/", "/RPC", "/rpc/x", "//rpc", "/api/rpc"] {
        let target = good.replacen("/rpc", path, 1);
        expect_status(&host, &target, 404, "{path}");
    }
}

#[test]
fn a_head_that_is_too_large_is_431_and_one_that_fits_is_not() {
    let (host, session, good) = TestHost::with_external("large-head");
    let padded = |padding: usize| Request::upgrade(&good).with("X-Padding", &"x".repeat(padding));
    let fixed = padded(0).to_text().len();
    let limit = 8 * 1024;
    let too_large = padded(limit - fixed + 1);
    assert_eq!(too_large.to_text().len(), limit + 1);
    assert_eq!(too_large.send(host.address()).status, 431);
    let mut many = Request::upgrade(&good);
    for _ in 0..100 {
        many = many.with("X", "y");
    }
    assert_eq!(many.send(host.address()).status, 431, "too many headers");
    let fits = padded(limit - fixed);
    assert_eq!(fits.to_text().len(), limit);
    let _peer = Peer::upgraded(fits.send(host.address()));
    active(&session);
}

#[test]
fn garbage_is_400() {
    let (host, _session, _good) = TestHost::with_external("garbage");
    for garbage in [
        "\x16\x03\x01\x02\x00\x01\r\n\r\n",
        "HELO there\r\n\r\n",
        "GET /rpc\r\n\r\n",
        "GET /rpc HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        let answer = exchange(connect(host.address()), garbage.as_bytes());
        assert_eq!(answer.status, 400, "{garbage:?}");
    }
}

#[test]
fn the_handshake_may_come_in_pieces_and_with_the_first_frames() {
    use std::io::Write as _;
    let (host, session, good) = TestHost::with_external("pieces");
    let mut stream = connect(host.address());
    stream.set_nodelay(true).unwrap();
    let mut bytes = Request::upgrade(&good).to_text().into_bytes();
    let end = bytes.len();
    // A call to the host, right behind the head: a masked text frame with a mask of zeros.
    let text = br#"{"jsonrpc":"2.0","id":"x","method":"get_config","params":{"keys":[]}}"#;
    bytes.extend([0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0]);
    bytes.extend(text);
    for piece in [
        &bytes[..1],
        &bytes[1..end - 2],
        &bytes[end - 2..end + 3],
        &bytes[end + 3..],
    ] {
        stream.write_all(piece).unwrap();
    }
    let mut peer = Peer::upgraded(Answer::read(stream));
    active(&session);
    let answer = peer.receive();
    assert_eq!(answer["id"], "x");
    assert_eq!(answer["result"]["method"], "get_config");
}
