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

const REQUESTS: u64 = 1_500;

/// Bodies that some operation takes.
#[derive(Clone, Copy)]
enum Body {
    None,
    Zip,
    External,
    Url,
    Active,
    Manifest,
    Configuration,
    Overrides,
    Rollback,
}

/// Requests that are right, with the id of a plugin before the end of the path.
const OPERATIONS: &[(&str, Option<&str>, Body)] = &[
    ("GET", None, Body::None),
    ("POST", None, Body::Zip),
    ("POST", None, Body::External),
    ("POST", None, Body::External),
    ("POST", None, Body::Url),
    ("GET", Some(""), Body::None),
    ("HEAD", Some(""), Body::None),
    ("DELETE", Some(""), Body::None),
    ("PATCH", Some("/active"), Body::Active),
    ("PATCH", Some("/active"), Body::Active),
    ("PATCH", Some("/manifest"), Body::Manifest),
    ("POST", Some("/token"), Body::None),
    ("GET", Some("/package"), Body::None),
    ("PATCH", Some("/package"), Body::Zip),
    ("GET", Some("/configuration-schema"), Body::None),
    ("GET", Some("/configuration"), Body::None),
    ("PATCH", Some("/configuration"), Body::Configuration),
    ("PATCH", Some("/configuration"), Body::Configuration),
    ("GET", Some("/logs"), Body::None),
    ("HEAD", Some("/logs"), Body::None),
    ("GET", Some("/overrides"), Body::None),
    ("PATCH", Some("/overrides"), Body::Overrides),
    ("GET", Some("/history"), Body::None),
    ("GET", Some("/versions"), Body::None),
    ("POST", Some("/rollback"), Body::Rollback),
];

const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "BREW", "get",
];
const ENDS: &[&str] = &[
    "/",
    "//",
    "/no-such",
    "/%00",
    "/%ff",
    "/..",
    "/package/",
    "/rpc",
    "/history",
];
const QUERIES: &[&str] = &[
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
    fn path(&mut self, end: Option<&str>, ids: &[String]) -> String {
        let random = &mut self.random;
        let Some(end) = end.filter(|_| !ids.is_empty()) else {
            return "/api/plugins".to_owned();
        };
        match random.below(40) {
            0 => {
                let length = random.length(300);
                format!("/{}", random.text(b"api/plugns.%20?&=~[]{}:@", length))
            }
            1 => format!(
                "/api/plugins/{}{end}",
                random.text(b"abcdefghijklmnopqrstuv", 20)
            ),
            2 => format!("/api/plugins/{}{}", random.choose(ids), random.pick(ENDS)),
            _ => format!("/api/plugins/{}{end}", random.choose(ids)),
        }
    }

    fn body(&mut self, body: Body) -> Vec<u8> {
        let random = &mut self.random;
        let value = match body {
            Body::None => return Vec::new(),
            Body::Zip => return self.zip.clone(),
            Body::External => json!({"mode": "external", "manifest": manifest("outside")}),
            // However it is spoilt, nothing is looked up.
            Body::Url => json!({"mode": "supervised", "url": "file:///a.zip"}),
            Body::Active => json!({"active": random.pick(&["active", "inactive", "error"])}),
            Body::Manifest => json!(manifest("outside")),
            Body::Overrides => {
                json!({"environment": {"OWN": "a", "NONE": null}, "inbound_per_second": 100})
            }
            Body::Rollback => json!({}),
            Body::Configuration => json!({"channel": "a", "deep": [[[{}]]], "limit": 1e300}),
        };
        value.to_string().into()
    }

    fn spoil(&mut self, body: &mut Vec<u8>) {
        let random = &mut self.random;
        if body.is_empty() || random.one_in(4) {
            let length = random.length(2_000);
            *body = if random.one_in(2) {
                random.bytes(length)
            } else {
                b"[".repeat(50 * length)
            };
            return;
        }
        let place = random.below(body.len());
        match random.below(3) {
            0 => body[place] = random.byte(),
            1 => body.truncate(place),
            _ => body.insert(place, random.byte()),
        }
    }

    fn request(&mut self, ids: &[String]) -> Vec<u8> {
        let (mut method, end, kind) = *self.random.choose(OPERATIONS);
        let path = self.path(end, ids);
        let mut body = self.body(kind);
        if self.random.one_in(4) {
            self.spoil(&mut body);
        }
        let random = &mut self.random;
        if random.one_in(10) {
            method = random.pick(METHODS);
        }
        let query = if random.one_in(5) {
            random.pick(QUERIES)
        } else {
            ""
        };
        let content_type = match kind {
            _ if random.one_in(15) => random.pick(TYPES),
            Body::Zip => "application/zip",
            _ => "application/json",
        };
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
        if !random.one_in(30) {
            head.push(format!("Content-Type: {content_type}"));
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
        successes > requests / 4,
        "only {successes} of {requests} succeeded"
    );
    assert_eq!(api.get("/api/plugins").status, 200);
    api.end();
}
