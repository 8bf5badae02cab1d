//! The HTTP API for administrators over a connection that is kept: a list of a thousand installations, and a call
//! to a plugin. Beside each the same call in this process, and the least that the server answers.
//!
//! `cargo bench --bench admin` measures; run by `cargo test` it does everything once with fewer. The client is on
//! the same machine and does no more than it must: it writes a request, and reads an answer whose length it knows.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use plugin_runner::admin::{AdminServer, AdminSettings};
use plugin_runner::store::{Record, Source, SqliteStore};
use plugin_runner::{Manager, ReportedState};
use serde_json::json;
use support::plugins::{Folder, builder, fixture, install, manifest};
use support::{Bench, By, Case, LONG, Target, latencies};

const TOKEN: &str = "the-token-of-this-bench";
const IN_PROCESS: &str = "in process";
const LEAST: &str = "GET /healthz";

fn main() {
    let bench = Bench::new("admin", "administrators use the HTTP API");
    let folder = Folder::new("admin");
    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    let host = builder(&folder).store(store).build().unwrap();
    let manager = Manager::new(host).unwrap();
    let settings = AdminSettings::default();
    let server = AdminServer::start(manager.clone(), "127.0.0.1:0", TOKEN, settings).unwrap();
    list(&bench, &manager, &server);
    call(&bench, &manager, &server);
    assert_eq!(server.stop(LONG), 0);
    assert!(manager.host().shutdown(LONG).is_complete());
}

fn list(bench: &Bench, manager: &Manager, server: &AdminServer) {
    let count = bench.pick(5, 100, 1_000);
    let program = fixture();
    let folder = program.parent().unwrap();
    for number in 0..count {
        let manifest = manifest(&json!({
            "id": "bench", "author": "bench", "name": "bench", "version": number.to_string(),
            "command": program, "events_consumed": ["EventThreadPublished", "EventNodeUpdated"],
        }));
        let record = Record::supervised(manifest, Source::Directory(folder.to_owned()));
        manager.host().store().put(record).unwrap();
    }
    let lists = bench.pick(1, 5, 20);
    let cases = vec![
        Case::new(IN_PROCESS, || {
            || {
                latencies(lists, || {
                    let plugins = manager.list().unwrap();
                    black_box(serde_json::to_vec(&plugins).unwrap());
                })
            }
        }),
        Case::new("GET /api/plugins", || {
            let mut client = Client::new(server);
            move || latencies(lists, || client.ask("GET", "/api/plugins", ""))
        })
        .against(IN_PROCESS, By::P50, Target::None),
    ];
    let rounds = bench.pick(1, 2, 5);
    bench.group_of(&format!("all of {count}"), rounds, cases);
}

fn call(bench: &Bench, manager: &Manager, server: &AdminServer) {
    let host = manager.host();
    let id = install(host, "called", &fixture(), &["behave"], "stdio");
    let session = host.load(id).unwrap();
    session.supervised().unwrap().start().unwrap();
    session.wait_for(ReportedState::Active, LONG).unwrap();
    let calls = bench.pick(5, 500, 5_000);
    let session = &session;
    let cases = vec![
        Case::new(IN_PROCESS, move || {
            move || {
                latencies(calls, || {
                    let reply = session.call_raw("ping", &json!({}), LONG).unwrap();
                    black_box(reply.read::<serde_json::Value>().unwrap());
                })
            }
        }),
        Case::new(LEAST, || {
            let mut client = Client::new(server);
            move || latencies(calls, || client.ask("GET", "/healthz", ""))
        }),
        Case::new("POST /api/plugins/{id}/rpc", || {
            let mut client = Client::new(server);
            let path = format!("/api/plugins/{id}/rpc");
            let body = json!({"method": "ping", "params": {}}).to_string();
            move || latencies(calls, || client.ask("POST", &path, &body))
        })
        .against(LEAST, By::P50, Target::None)
        .against(IN_PROCESS, By::Difference, Target::None),
    ];
    bench.group("a ping to a plugin over stdio", cases);
}

/// A connection that is kept.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(server: &AdminServer) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a request, and reads the whole answer, which must be 200.
    fn ask(&mut self, method: &str, path: &str, body: &str) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        let mut line = String::new();
        let mut is_first = true;
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if line == "\r\n" {
                break;
            }
            assert!(!is_first || line.starts_with("HTTP/1.1 200 "), "{line}");
            is_first = false;
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).unwrap();
        black_box(answer);
    }
}
