//! Installing, starting, calling and following plugins, through rotation, a kill and a restart; and what is refused.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;

use plugin_runner::InstallationId;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{OBEDIENT, Server};
use crate::program::{Scratch, manifest, pid};
use crate::support::alone::Watched;
use crate::support::event_stream::Events;
use crate::support::http::{Answer, FORGED, Request, connect};
use crate::support::{names, wait_until};

/// Files of a few lines each, of which none is deleted.
const SMALL_FILES: &str = "--plugin-log-size 1KiB --plugin-log-files 1000";

/// Lines that fill such a file, and what they are filled up with.
const FILE: u32 = 20;
const LINE: usize = 50;

/// Bytes of a body that is too long, and of the longest that is not.
const TOO_LONG: usize = 60 << 20;
const LIMIT: usize = 52_428_800;
/// Bytes that are sent at a time.
const PIECE: usize = 1 << 20;

/// Reads the lines with these numbers, and none between them. Gives the id of the last.
#[track_caller]
fn expect_lines(events: &mut Events, from: u32, to: u32) -> String {
    let mut last = String::new();
    for number in from..to {
        let event = events.log_line();
        assert!(
            event.data.starts_with(&format!("line {number} ")),
            "{event:?} is not {number}"
        );
        last = event.id.expect("an id");
    }
    last
}

/// Lets the plugin print lines with these numbers, so that there is a new file after each few of them.
#[track_caller]
fn print_files(server: &Server, id: InstallationId, from: u32, to: u32) {
    let mut seen = server.follow(id, None);
    for first in (from..to).step_by(FILE as usize) {
        server.print(id, first, first + FILE, LINE);
        let last = format!("line {} ", first + FILE - 1);
        while !seen.data().starts_with(&last) {}
    }
}

#[test]
fn a_log_is_followed_through_rotations_a_kill_and_a_restart() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, SMALL_FILES);
    let id = server.obedient(&scratch);
    server.call(id, "keep", &json!({"text": "what it kept"}));
    let mut events = server.follow(id, None);
    let plugin = Watched::new(pid(&events.data()));
    print_files(&server, id, 0, 100);
    let logs = server.data.join(format!("{id}/logs"));
    assert!(names(&logs).len() > 4, "{:?}", names(&logs));
    let place = expect_lines(&mut events, 0, 50);
    drop(events);
    print_files(&server, id, 100, 200);
    let mut events = server.follow(id, Some(&place));
    let place = expect_lines(&mut events, 50, 150);
    let token = server.token.clone();

    server.program.signal(Signal::KILL);
    plugin.expect_end("the plugin of the killed server");
    drop(events);
    assert_eq!(server.program.end().status.code(), None);
    let server = Server::start(&scratch, SMALL_FILES);
    assert_eq!(server.token, token);
    let mut events = server.follow(id, Some(&place));
    expect_lines(&mut events, 150, 200);
    assert_ne!(pid(&events.data()), plugin.pid);
    server.expect_active(id);
    server.print(id, 200, 210, LINE);
    expect_lines(&mut events, 200, 210);
    let kept = server.call(id, "kept", &json!({}));
    assert_eq!(kept["text"], "what it kept");
    server.program.stop();
    // The stream ends with its server.
    while events.next().is_some() {}
    scratch.assert_nothing_left();
}

#[test]
fn a_place_that_is_gone_is_a_gap() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "--plugin-log-size 1KiB --plugin-log-files 1");
    let id = server.obedient(&scratch);
    let mut events = server.follow(id, None);
    assert!(events.log_line().data.starts_with("pid "));
    server.print(id, 0, 1, LINE);
    let place = expect_lines(&mut events, 0, 1);
    drop(events);
    print_files(&server, id, 1, 101);
    let mut events = server.follow(id, Some(&place));
    let gap = events.next().unwrap();
    assert_eq!(gap.name.as_deref(), Some("gap"), "{gap:?}");
    let next = events.log_line().data;
    let next: u32 = next.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(next > 1, "{next}");
    expect_lines(&mut events, next + 1, 101);
    drop(events);
    server.program.stop();
}

#[test]
fn a_plugin_is_updated_to_the_package_that_is_meant_and_taken_back() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    let id = server.obedient(&scratch);
    let path = format!("/api/plugins/{id}/package");
    let keep = |text: &str| {
        server.call(id, "keep", &json!({"text": text}));
        server.call(id, "keep", &json!({"text": text, "path": "beside"}));
    };
    let kept = || {
        let data = server.call(id, "kept", &json!({}));
        let beside = server.call(id, "kept", &json!({"path": "beside"}));
        [data, beside].map(|kept| kept["text"].as_str().unwrap().to_owned())
    };
    let versions = || {
        let path = format!("/api/plugins/{id}/versions");
        let versions = server.ask("GET", &path, "", b"")["versions"].clone();
        let version = |one: &Value| (one["version"].clone(), one["is_current"] == true);
        let versions = versions.as_array().unwrap().iter().map(version);
        versions.collect::<Vec<_>>()
    };
    keep("first");
    let mut manifest = manifest("obedient");
    manifest["version"] = json!("2.0.0");
    let package = fs::read(scratch.zipped("second.zip", &manifest, OBEDIENT)).unwrap();
    let other = format!("{path}?sha256={}", "0".repeat(64));
    let (status, answer) = server.answer("PATCH", &other, "application/zip", &package);
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains("\"digest_mismatch\""), "{answer}");
    assert_eq!(versions(), [(json!("1.0.0"), true)]);

    let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&package));
    let meant = format!("{path}?sha256={sha256}");
    let updated = server.ask("PATCH", &meant, "application/zip", &package);
    assert_eq!(updated["version"], "2.0.0");
    assert_eq!(kept(), ["first", "first"]);
    keep("second");
    assert_eq!(
        versions(),
        [(json!("2.0.0"), true), (json!("1.0.0"), false)]
    );

    let back = server.json("POST", &format!("/api/plugins/{id}/rollback"), &json!({}));
    assert_eq!(back["version"], "1.0.0");
    assert_eq!(kept(), ["second", "first"]);
    let forward = json!({"to": sha256});
    let forward = server.json("POST", &format!("/api/plugins/{id}/rollback"), &forward);
    assert_eq!(forward["version"], "2.0.0");
    assert_eq!(kept(), ["second", "second"]);
    server.program.stop();
}

#[test]
fn wrong_tokens_are_refused_and_logged_nowhere() {
    // It has the form of an external plugin's token, and so could be one.
    const WRONG: &str = "sdprt_0123456789abcdefghijklmnopqrstuv";
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "--log-level debug");
    let plugins = server.plugin_address();
    let bearer = format!("Bearer {WRONG}");
    let headers = [("Authorization", &*bearer)];
    let body = b"{\"mode\":\"supervised\",\"url\":\"https://a.example/\"}";
    for (method, body) in [("GET", &b""[..]), ("POST", body)] {
        let (status, answer) = server.send(method, "/api/plugins", &headers, body);
        assert_eq!(status, 401, "{answer}");
        assert!(answer.contains("the token is not the one"), "{answer}");
        assert!(!answer.contains(WRONG), "{answer}");
    }
    for (token, status) in [(WRONG, 401), (FORGED, 400)] {
        let answer = Request::upgrade(&format!("/rpc?token={token}")).send(plugins);
        assert_eq!(answer.status, status, "{}", answer.body);
        let said = server.program.error_with("/rpc from 127.0.0.1:");
        assert!(said.contains(&format!(": {status} ")), "{said}");
    }
    let token = server.token.clone();
    let said = server.program.stop();
    for secret in [WRONG, FORGED, token.trim()] {
        assert!(!said.contains(secret), "{said}");
    }
}

/// The beginning of an upload, without the length of its body.
fn upload(server: &Server, headers: &str) -> TcpStream {
    let stream = connect(server.admin_address());
    let head = format!(
        "POST /api/plugins HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\
         Content-Type: application/zip\r\n{headers}\r\n\r\n",
        server.bearer()
    );
    (&stream).write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn a_package_that_is_too_large_takes_no_memory_and_leaves_nothing() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    let id = server.obedient(&scratch);
    let before = server.figure("VmHWM:");

    // What says how long it is, is refused at once.
    let stream = upload(&server, &format!("Content-Length: {TOO_LONG}"));
    let declared = Answer::read(stream);
    // What does not, where the limit is.
    let mut stream = upload(&server, "Transfer-Encoding: chunked");
    let piece = vec![0; PIECE];
    let mut sent = 0;
    while sent < TOO_LONG {
        let chunk = [format!("{PIECE:x}\r\n").as_bytes(), &piece, b"\r\n"].concat();
        if stream.write_all(&chunk).is_err() {
            // The server has read enough.
            break;
        }
        sent += PIECE;
    }
    assert!(sent > LIMIT - 2 * PIECE, "refused after {sent} bytes");
    let found = Answer::read(stream);
    for answer in [declared, found] {
        assert_eq!(answer.status, 413, "{}", answer.body);
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert!(
            problem["detail"].as_str().unwrap().contains("52428800"),
            "{problem}"
        );
    }
    let grown = server.figure("VmHWM:") - before;
    assert!(grown < 16 * 1024, "{grown} KiB of memory more");
    wait_until("what was received is removed", || {
        names(&server.data.join("incoming")).is_empty()
    });
    assert_eq!(server.plugins().as_array().unwrap().len(), 1);
    server.call(id, "ping", &json!({}));
    let other = scratch.zipped("other.zip", &manifest("other"), OBEDIENT);
    let other = server.install(&other);
    server.activate(other);
    server.program.stop();
    assert!(fs::metadata(scratch.path("data/archives")).is_ok());
}
