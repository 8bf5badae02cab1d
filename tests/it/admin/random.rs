//! Requests of all kinds, from a seed: random methods, paths and bodies, wrong ones and right ones. Whatever
//! comes, the server answers, and none of it is its own fault.
//!
//! With the variable `PLUGIN_RUNNER_ADMIN_REQUESTS` there are as many as it says, and with
//! `PLUGIN_RUNNER_ADMIN_SEED` they are others.

use std::io::{Read as _, Write as _};
use std::time::Instant;

use plugin_runner::admin::AdminSettings;
use serde_json::json;

use super::{Api, TOKEN};
use crate::random::Random;
use crate::support::http::connect;
use crate::support::plugin::manifest;
use crate::support::{LONG, number};

const REQUESTS: u64 = 2_000;

const METHODS: &[&str] = &[
    "GET", "GET", "HEAD", "POST", "POST", "PATCH", "PATCH", "PATCH", "DELETE", "PUT", "OPTIONS",
    "BREW", "get",
];
const ENDS: &[&str] = &[
    "",
    "/active",
    "/active",
    "/manifest",
    "/token",
    "/package",
    "/configuration-schema",
    "/configuration",
    "/logs",
    "/",
    "//",
    "/no-such",
    "/%00",
    "/%ff",
    "/..",
    "/package/",
];
const QUERIES: &[&str] = &[
    "",
    "",
    "",
    "?",
    "?sha256=",
    "?sha256=%zz",
    "?tail=1",
    "?tail=x",
    "?tail=-1",
    "?a=b&tail=%31&&=",
    "?%",
];
const TYPES: &[&str] = &[
    "application/json",
    "application/json",
    "application/json;charset=utf-8",
    "application/zip",
    "text/plain",
    "",
    "a/b/c",
    ";",
];

/// What requests are made of.
struct Requests {
    random: Random,
    zip: Vec<u8>,
}

impl Requests {
    fn path(&mut self, ids: &[String]) -> String {
        let random = &mut self.random;
        match random.below(10) {
            0 => "/api/plugins".to_owned(),
            1 => {
                let length = random.length(300);
                format!("/{}", random.text(b"api/plugns.%20?&=~[]{}:@", length))
            }
            2 => format!(
                "/api/plugins/{}{}",
                random.text(b"abcdefghijklmnopqrstuv", 20),
                random.pick(ENDS)
            ),
            _ if ids.is_empty() => "/api/plugins".to_owned(),
            _ => format!("/api/plugins/{}{}", random.choose(ids), random.pick(ENDS)),
        }
    }

    fn body(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut body = match random.below(9) {
            0 => Vec::new(),
            1 => {
                let length = random.length(2_000);
                return random.bytes(length);
            }
            2 => self.zip.clone(),
            3 => json!({"mode": "external", "manifest": manifest("outside")})
                .to_string()
                .into(),
            4 => json!({"mode": "supervised", "url": "http://127.0.0.1:1/a.zip"})
                .to_string()
                .into(),
            5 => json!({"active": random.pick(&["active", "inactive", "error"])})
                .to_string()
                .into(),
            6 => json!(manifest("outside")).to_string().into(),
            7 => json!({"channel": "a", "deep": [[[{}]]], "limit": 1e300})
                .to_string()
                .into(),
            _ => b"[".repeat(random.length(100_000)),
        };
        if random.one_in(3) && !body.is_empty() {
            let place = random.below(body.len());
            match random.below(3) {
                0 => body[place] = random.byte(),
                1 => body.truncate(place),
                _ => body.insert(place, random.byte()),
            }
        }
        body
    }

    fn request(&mut self, ids: &[String]) -> Vec<u8> {
        let (path, body) = (self.path(ids), self.body());
        let random = &mut self.random;
        let method = random.pick(METHODS);
        let query = random.pick(QUERIES);
        let host = if random.one_in(30) {
            "evil.example"
        } else {
            "localhost"
        };
        let token = if random.one_in(30) { "another" } else { TOKEN };
        let mut head = vec![
            format!("{method} {path}{query} HTTP/1.1"),
            format!("Host: {host}"),
            format!("Authorization: Bearer {token}"),
            "Connection: close".to_owned(),
        ];
        if !random.one_in(10) {
            head.push(format!("Content-Type: {}", random.pick(TYPES)));
        }
        if random.one_in(10) {
            let length = random.length(50);
            let place = random.text(b"0123456789abc-.:", length);
            head.push(format!("Last-Event-ID: {place}"));
        }
        let is_chunked = random.one_in(4);
        head.push(if is_chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", body.len())
        });
        let mut request = format!("{}\r\n\r\n", head.join("\r\n")).into_bytes();
        if !is_chunked {
            request.extend(body);
            return request;
        }
        for chunk in body.chunks(1 + random.length(5_000)) {
            request.extend(format!("{:x}\r\n", chunk.len()).bytes());
            request.extend(chunk);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        request
    }
}

#[test]
fn no_request_is_the_servers_fault() {
    let requests = number("PLUGIN_RUNNER_ADMIN_REQUESTS").unwrap_or(REQUESTS);
    let seed = number("PLUGIN_RUNNER_ADMIN_SEED").unwrap_or(16);
    // Streams of lines that nobody reads any more keep their connections for a second.
    let settings = AdminSettings::default().connections(2_000);
    let api = Api::with("admin-random", settings);
    let zip = api.managed.package("1", &[]);
    let mut all = Requests {
        random: Random::new(seed, 0),
        zip: zip.clone(),
    };
    let mut ids = Vec::new();
    let mut successes = 0;
    for number in 0..requests {
        if number % 50 == 0 {
            let installed = api.managed.list().unwrap();
            ids = installed
                .iter()
                .map(|plugin| plugin.id().to_string())
                .collect();
            if ids.is_empty() {
                ids.push(api.managed.installed(zip.clone()).to_string());
            }
        }
        let request = all.request(&ids);
        let shown = request[..request.len().min(300)].escape_ascii().to_string();
        let began = Instant::now();
        let mut stream = connect(api.server.address());
        // It may be refused before it is sent whole.
        let _ = stream.write_all(&request);
        let mut answer = [0; 12];
        let read = stream.read_exact(&mut answer);
        read.unwrap_or_else(|error| panic!("request {number} of seed {seed}: {error}: {shown}"));
        let status = std::str::from_utf8(&answer[9..]).unwrap();
        assert!(
            status < "500",
            "request {number} of seed {seed} is answered with {status}: {shown}"
        );
        assert!(
            began.elapsed() < LONG,
            "request {number} of seed {seed} took too long"
        );
        successes += u64::from(status < "300");
    }
    assert!(
        successes > requests / 20,
        "only {successes} of {requests} succeeded"
    );
    assert_eq!(api.get("/api/plugins").status, 200);
    api.end();
}
