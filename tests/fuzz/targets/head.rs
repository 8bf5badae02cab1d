//! Request heads of handshakes: judged as the protocol's table says, whatever pieces they come in.

use std::time::Duration;

use plugin_runner::fuzzing::{HeadVerdict, judge_head};

use super::Target;
use super::packets::{Cut, arrived};
use crate::random::Random;

pub(crate) const TARGET: Target = Target {
    name: "head",
    generate,
    words: &[
        b"\r\n\r\n",
        b"\r\n",
        b"\n",
        b"\n\n",
        b"\n\r\n",
        b" HTTP/1.1",
        b" HTTP/1.0",
        b"Connection: Upgrade\r\n",
        b"Upgrade: websocket\r\n",
        b"Sec-WebSocket-Version: 13\r\n",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"Origin: http://a\r\n",
        b"Host: a\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\n",
        b": ",
        b"\t",
        b"\r",
        b"x: y\r\n",
    ],
    longest: 12 * 1024,
    check,
    runs: 2_500,
};

const LIMIT: usize = 8 * 1024;
const HEADERS: usize = 64;
const LONG: Duration = Duration::from_secs(30);

/// A byte for how it is cut, then what arrives.
fn generate(random: &mut Random) -> Vec<u8> {
    let slips = random.pick(&[0, 0, 0, 30, 8]);
    let slip = |random: &mut Random| slips > 0 && random.one_in(slips);
    let mut head = String::new();
    head.push_str(if slip(random) {
        random.pick(&[
            "POST",
            "get",
            "",
            "G T",
            "OPTIONS",
            "\r\nGET",
            "\r\n\r\nGET",
        ])
    } else {
        "GET"
    });
    head.push(' ');
    let target = [
        "/rpc?token=x",
        "/rpc",
        "/",
        "*",
        "http://h/rpc?token=y",
        "/\u{e4}",
    ];
    head.push_str(random.pick(&target));
    head.push_str(if slip(random) {
        random.pick(&[" HTTP/1.0", " HTTP/2.0", "", " HTTP/1.1 ", " http/1.1"])
    } else {
        " HTTP/1.1"
    });
    head.push_str("\r\n");
    let mut lines: Vec<(&str, &str)> = vec![
        (
            "Host",
            random.pick(&["localhost:8000", "[::1]", "Forum.Example", ""]),
        ),
        (
            random.pick(&["Connection", "connection"]),
            random.pick(&["Upgrade", "keep-alive, Upgrade", "upgrade", "Upgrade,"]),
        ),
        (
            random.pick(&["Upgrade", "UPGRADE"]),
            random.pick(&["websocket", "WebSocket", "h2c, websocket"]),
        ),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    if slip(random) {
        let at = random.below(lines.len());
        lines.remove(at);
    }
    for _ in 0..random.length(4) {
        let line = random.pick(&[
            ("User-Agent", "Go-http-client/1.1"),
            ("User-Agent", "Python/3.11 websockets/15.0.1"),
            ("User-Agent", "\u{fc}\u{1f980}"),
            ("Origin", "http://localhost:8000"),
            ("Origin", "https://forum.example"),
            ("Origin", "null"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
            ("Accept", "*/*"),
            ("X-Empty", ""),
            ("Content-Length", "0"),
        ]);
        let at = random.below(lines.len() + 1);
        lines.insert(at, line);
    }
    if random.one_in(8) {
        // A line once more, as it is or with another's value.
        let (name, value) = random.pick(&lines);
        let value = random.pick(&[value, "", "0", "another"]);
        let at = random.below(lines.len() + 1);
        lines.insert(at, (name, value));
    }
    if slip(random) {
        lines.push(random.pick(&[
            ("Connection", "close"),
            ("Host", "another"),
            ("Content-Length", "5"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("Sec-WebSocket-Version", "8"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Key", "short"),
            ("Na me", "x"),
            (" Folded", "x"),
            ("", "no name"),
        ]));
    }
    for (name, value) in lines {
        let space = random.pick(&[" ", " ", " ", "", "  ", "\t"]);
        head.extend([name, ":", space, value, "\r\n"]);
    }
    if random.one_in(40) {
        for number in 0..random.length(80) {
            head.extend(["x-", &number.to_string(), ": y\r\n"]);
        }
    }
    if random.one_in(40) {
        let length = random.pick(&[7_000, 8_000, 8_150, 8_192, 9_000]);
        head.extend(["x-long: ", &"y".repeat(random.length(length)), "\r\n"]);
    }
    if !slip(random) {
        head.push_str("\r\n");
    }
    let mut input = vec![random.byte()];
    input.extend(head.bytes());
    if random.one_in(4) {
        let length = random.length(30);
        input.extend(random.bytes(length));
    }
    input
}

fn check(input: &[u8]) -> bool {
    let Some((&cut, bytes)) = input.split_first() else {
        return false;
    };
    let expected = expected(bytes);
    // An embedder may have read a part of it, or all.
    let (already, later) = bytes.split_at(bytes.len() * usize::from(cut % 4) / 3);
    let cut = Cut::from(cut);
    let (reader, _peer) = arrived(later, cut);
    let found = judge_head(reader, already.to_vec(), LONG);
    assert_ne!(found, HeadVerdict::Timeout);
    if let HeadVerdict::Accepted { rest, .. } = &found {
        // What has not been read yet stays in the socket for whoever reads on.
        let end = end(bytes).unwrap();
        assert!(bytes[end..].starts_with(rest));
    }
    assert_eq!(without_rest(found), expected, "cut {cut:?}");
    matches!(expected, HeadVerdict::Accepted { .. })
}

fn without_rest(mut verdict: HeadVerdict) -> HeadVerdict {
    if let HeadVerdict::Accepted { rest, .. } = &mut verdict {
        rest.clear();
    }
    verdict
}

fn end(bytes: &[u8]) -> Option<usize> {
    let found = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(found + 4)
}

/// What the protocol's table says (PROTOCOL.md, "Handshake answers"), without what needs a host.
fn expected(bytes: &[u8]) -> HeadVerdict {
    let end = match end(bytes) {
        Some(end) if end <= LIMIT => end,
        Some(_) => return HeadVerdict::Refused(431),
        None if bytes.len() >= LIMIT => return HeadVerdict::Refused(431),
        None => return HeadVerdict::Gone,
    };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(&bytes[..end]) {
        Ok(httparse::Status::Complete(length)) if length == end => {}
        Err(httparse::Error::TooManyHeaders) => return HeadVerdict::Refused(431),
        _ => return HeadVerdict::Refused(400),
    }
    let values = |name: &str| -> Vec<String> {
        request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
            .collect()
    };
    let lists = |name: &str, wanted: &str| {
        let all = values(name).join(",");
        all.split(',')
            .any(|item| item.trim().eq_ignore_ascii_case(wanted))
    };
    // Ambiguous for a proxy in front: another value, or a body that we would take for frames.
    let has_body = values("content-length").iter().any(|length| length != "0")
        || !values("transfer-encoding").is_empty();
    let doubled = |name: &&str| values(name).len() > 1;
    if ["host", "origin", "user-agent"].iter().any(doubled) || has_body {
        return HeadVerdict::Refused(400);
    }
    if request.version != Some(1)
        || !lists("connection", "upgrade")
        || !lists("upgrade", "websocket")
    {
        return HeadVerdict::Refused(426);
    }
    if request.method != Some("GET") {
        return HeadVerdict::Refused(405);
    }
    let keys = values("sec-websocket-key");
    let good_key = keys.len() == 1 && is_key(&keys[0]);
    if values("sec-websocket-version") != ["13"] || !good_key {
        return HeadVerdict::Refused(400);
    }
    if let Some(origin) = values("origin").last() {
        let origin = origin.split_once("://").map_or(&**origin, |(_, host)| host);
        let hosts = values("host");
        let same = hosts
            .last()
            .is_some_and(|host| host.eq_ignore_ascii_case(origin));
        if !same {
            return HeadVerdict::Refused(403);
        }
    }
    HeadVerdict::Accepted {
        target: request.path.unwrap_or_default().to_owned(),
        user_agent: values("user-agent").pop().unwrap_or_default(),
        accept: tungstenite::handshake::derive_accept_key(keys[0].as_bytes()),
        rest: Vec::new(),
    }
}

/// 16 bytes in base64 take 24 characters, and leave four bits that must be zero.
fn is_key(key: &str) -> bool {
    let Some(digits) = key.strip_suffix("==") else {
        return false;
    };
    digits.len() == 22
        && digits.ends_with(['A', 'Q', 'g', 'w'])
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}
