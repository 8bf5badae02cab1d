//! Requests to the HTTP server, one behind the other: each is served or refused as its rules say, whatever
//! pieces it comes in, and none is found where there is none.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use plugin_runner::fuzzing::{ServedRequest, serve_connection};

use super::Target;
use crate::random::Random;

pub(crate) const TARGET: Target = Target {
    name: "request",
    generate,
    words: &[
        b"\r\n\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" HTTP/1.1\r\nHost: h\r\n",
        b" HTTP/1.0\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b";x=y",
        b": ",
        b"\t",
        b"\0",
    ],
    longest: 20 * 1024,
    check,
    runs: 2_500,
};

const LONG: Duration = Duration::from_secs(30);
const HEAD_LIMIT: usize = 16 * 1024;
const HEADERS: usize = 64;
const BODY_LIMIT: u64 = 1000;
const OVERHEAD: usize = 16 * 1024;

/// A byte for how it is cut, then what arrives.
fn generate(random: &mut Random) -> Vec<u8> {
    let mut input = vec![random.byte()];
    let slips = random.pick(&[0, 0, 30, 8]);
    for _ in 0..=random.length(3) {
        request(random, slips, &mut input);
    }
    input
}

fn request(random: &mut Random, slips: usize, input: &mut Vec<u8>) {
    let slip = |random: &mut Random| slips > 0 && random.one_in(slips);
    let method = random.pick(&["GET", "POST", "PUT", "HEAD", "DELETE", "x-own"]);
    let target = random.pick(&["/", "/a/b?c=d", "/%00", "/?", "//"]);
    let version = random.pick(&["1.1", "1.1", "1.1", "1.1", "1.1", "1.0"]);
    let mut head = if slip(random) {
        let line = [
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /",
            "GET / HTTP/2.0",
            "GET / HTTP/1",
            "OPTIONS * HTTP/1.1",
            "GET * HTTP/1.1",
            "GET http://h/ HTTP/1.1",
            "\r\nGET / HTTP/1.1",
            " / HTTP/1.1",
            "GET /\u{e4} HTTP/1.1",
            "G\u{e4}T / HTTP/1.1",
        ];
        random.pick(&line).to_owned()
    } else {
        format!("{method} {target} HTTP/{version}")
    };
    let mut lines = vec![("Host".to_owned(), "h".to_owned())];
    let body = body(random, slips, version == "1.1", &mut lines);
    let more = [
        ("Accept", "*/*"),
        ("User-Agent", "\u{fc}\u{1f980}"),
        ("X-Empty", ""),
        ("Connection", "keep-alive"),
        ("Authorization", "Bearer x"),
        ("Content-Type", "application/json"),
        ("Expect", "100-continue"),
        ("Expect", "100-Continue"),
    ];
    for _ in 0..random.length(3) {
        let (name, value) = random.pick(&more);
        let at = random.below(lines.len() + 1);
        lines.insert(at, (name.to_owned(), value.to_owned()));
    }
    if slip(random) {
        let (name, value) = random.pick(&[
            ("Host", "h"),
            ("Host", "other"),
            ("Content-Length", "5"),
            ("Content-Length", "+5"),
            ("Content-Length", "5, 5"),
            ("Transfer-Encoding", "chunked"),
            ("transfer-encoding", "xchunked"),
            ("Connection", "a, Close"),
            ("Expect", "more"),
            ("Na me", "x"),
            (" Folded", "x"),
            ("", "no name"),
            ("X-Nul", "a\0b"),
            ("X-Half", "a\nb: c"),
            ("X-Half", "a\rb: c"),
        ]);
        lines.push((name.to_owned(), value.to_owned()));
    }
    if slip(random) {
        let at = random.below(lines.len());
        lines.remove(at);
    }
    for (name, value) in lines {
        let space = random.pick(&[" ", " ", " ", "", "  ", "\t"]);
        head.extend(["\r\n", &name, ":", space, &value]);
    }
    if random.one_in(100) {
        for number in 0..random.length(80) {
            head.extend(["\r\nx-", &number.to_string(), ": y"]);
        }
    }
    if random.one_in(100) {
        let length = random.pick(&[16_000, 16_300, 16_384, 18_000]);
        head.extend(["\r\nx-long: ", &"y".repeat(length)]);
    }
    head.push_str("\r\n\r\n");
    input.extend(head.bytes());
    input.extend(body);
}

/// Makes a body, and adds the header that tells its length.
fn body(
    random: &mut Random,
    slips: usize,
    is_current: bool,
    lines: &mut Vec<(String, String)>,
) -> Vec<u8> {
    let length = random.pick(&[0, 1, 5, 20, 300, 999, 1000, 1001]);
    let mut rest = random.bytes(length);
    if random.one_in(3) {
        return Vec::new();
    }
    if !is_current || random.one_in(2) {
        lines.push(("Content-Length".to_owned(), length.to_string()));
        return rest;
    }
    lines.push(("Transfer-Encoding".to_owned(), "chunked".to_owned()));
    let mut body = Vec::new();
    let slip = |random: &mut Random| slips > 0 && random.one_in(slips);
    while !rest.is_empty() {
        let left = rest.split_off(1 + random.below(rest.len()));
        let size = format!("{:x}", rest.len());
        let size = if slip(random) {
            random.pick(&["+5", "", "5 ", "00000005a", "g", "ffffffff", "5;a\rb"])
        } else {
            &size
        };
        let extension = random.pick(&["", "", "", ";a=b", ";\u{e4}"]);
        let end = if slip(random) { "\n" } else { "\r\n" };
        body.extend([size, extension, end].concat().bytes());
        body.extend(std::mem::replace(&mut rest, left));
        body.extend_from_slice(if slip(random) { b"x\r\n" } else { b"\r\n" });
    }
    if slip(random) {
        let length = random.pick(&[100, 254, 255, 256, 5000]);
        body.extend(format!("1;{}\r\nx\r\n", "x".repeat(length)).bytes());
    }
    body.extend_from_slice(random.pick(&[
        b"0\r\n\r\n".as_slice(),
        b"0\r\n\r\n",
        b"00\r\na: b\r\nc: d\r\n\r\n",
    ]));
    body
}

fn check(input: &[u8]) -> bool {
    let Some((&cut, bytes)) = input.split_first() else {
        return false;
    };
    let (requests, statuses) = expected(bytes);
    // Few pieces, or the threads would take turns for ever.
    let piece = match cut {
        0..128 => bytes.len().max(1),
        _ => (usize::from(cut) - 127).max(bytes.len() / 64),
    };
    let (ours, theirs) = UnixStream::pair().expect("socket pair");
    let (served, answers) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            for piece in bytes.chunks(piece) {
                // The server may have had enough.
                if (&theirs).write_all(piece).is_err() {
                    break;
                }
                std::thread::yield_now();
            }
            let _ = theirs.shutdown(Shutdown::Write);
            let mut answers = Vec::new();
            let _ = (&theirs).read_to_end(&mut answers);
            answers
        });
        let served = serve_connection(ours.into(), BODY_LIMIT, LONG);
        (served, client.join().expect("the client does not panic"))
    });
    assert_eq!(served, requests, "cut {piece}");
    assert_eq!(statuses_of(&answers), statuses, "cut {piece}");
    !requests.is_empty() && statuses.iter().all(|status| *status < 400)
}

/// The statuses of answers, none of whose bodies has one.
fn statuses_of(answers: &[u8]) -> Vec<u16> {
    let answers = String::from_utf8_lossy(answers);
    let answers = answers.split("HTTP/1.1 ").skip(1);
    answers
        .filter_map(|answer| answer.get(..3)?.parse().ok())
        .collect()
}

/// What a server must make of these bytes, after which the stream ends.
fn expected(mut bytes: &[u8]) -> (Vec<ServedRequest>, Vec<u16>) {
    let (mut requests, mut statuses) = (Vec::new(), Vec::new());
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = match end.map(|end| end + 4) {
            Some(end) if end <= HEAD_LIMIT => end,
            None if bytes.len() < HEAD_LIMIT => return (requests, statuses),
            _ => {
                statuses.push(431);
                return (requests, statuses);
            }
        };
        let (head, rest) = bytes.split_at(end);
        let head = match judge(head) {
            Ok(head) => head,
            Err(status) => {
                statuses.push(status);
                return (requests, statuses);
            }
        };
        let mut left = rest;
        let body = match head.length {
            Some(length) if length > BODY_LIMIT => Err(413),
            length => {
                if head.awaits && length != Some(0) {
                    statuses.push(100);
                }
                match length {
                    Some(length) => take(&mut left, length),
                    None => chunks(&mut left),
                }
            }
        };
        bytes = left;
        statuses.push(*body.as_ref().err().unwrap_or(&200));
        let goes_on = head.persists && body.is_ok();
        requests.push(ServedRequest {
            method: head.method,
            target: head.target,
            body,
        });
        if !goes_on {
            return (requests, statuses);
        }
    }
}

struct Judged {
    method: String,
    target: String,
    /// None for chunks.
    length: Option<u64>,
    awaits: bool,
    persists: bool,
}

/// Reads a head line by line, where the server has a parser.
fn judge(head: &[u8]) -> Result<Judged, u16> {
    let is_half = |pair: &[u8]| (pair[0] == b'\r') != (pair[1] == b'\n');
    if head.windows(2).any(is_half) || head.starts_with(b"\n") {
        return Err(400);
    }
    let mut lines: Vec<&[u8]> = Vec::new();
    let mut rest = head;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        lines.push(&rest[..end - 1]);
        rest = &rest[end + 1..];
    }
    // The last is the empty line, and one may stand before the first.
    lines.pop();
    if lines.first().is_some_and(|line| line.is_empty()) {
        lines.remove(0);
    }
    let (first, lines) = lines.split_first().ok_or(400_u16)?;
    let (method, target, minor) = request_line(first)?;
    let mut headers: Vec<(String, &[u8])> = Vec::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(400_u16)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        if !is_token(name) || !value.iter().all(is_text) {
            return Err(400);
        }
        if headers.len() == HEADERS {
            return Err(431);
        }
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let begin = value.iter().take_while(|byte| is_space(byte)).count();
        let end = value.iter().rposition(|byte| !is_space(byte));
        let value = &value[begin.min(end.map_or(begin, |end| end + 1))..];
        let end = value.iter().rposition(|byte| !is_space(byte));
        let value = &value[..end.map_or(0, |end| end + 1)];
        headers.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value));
    }
    let all = |wanted: &str| -> Vec<String> {
        let found = headers.iter().filter(|(name, _)| name == wanted);
        found
            .map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase())
            .collect()
    };
    let is_path = target.starts_with('/') || (target == "*" && method == "OPTIONS");
    let once = [
        "host",
        "origin",
        "authorization",
        "content-type",
        "content-length",
        "transfer-encoding",
        "expect",
    ];
    let is_unclear = |name: &&str| {
        let values = all(name);
        // A replacement character is none either.
        values.len() > 1 || values.iter().any(|value| !value.is_ascii())
    };
    let is_unclear = once.iter().any(is_unclear);
    if !is_path || !target.is_ascii() || is_unclear || (minor == 1 && all("host").is_empty()) {
        return Err(400);
    }
    let lengths = all("content-length");
    let codings = all("transfer-encoding");
    let length = match (lengths.first(), codings.first()) {
        (None, None) => Some(0),
        (Some(length), None) => {
            let is_number = (1..=15).contains(&length.len())
                && length.bytes().all(|digit| digit.is_ascii_digit());
            Some(if is_number {
                length.parse().unwrap()
            } else {
                return Err(400);
            })
        }
        (None, Some(coding)) if coding == "chunked" && minor == 1 => None,
        _ => return Err(400),
    };
    let expects = all("expect");
    if minor == 1 && expects.iter().any(|what| what != "100-continue") {
        return Err(417);
    }
    let connection = all("connection").join(",");
    let closes = connection.split(',').any(|item| item.trim() == "close");
    Ok(Judged {
        method,
        target,
        length,
        awaits: minor == 1 && !expects.is_empty(),
        persists: minor == 1 && !closes,
    })
}

fn request_line(line: &[u8]) -> Result<(String, String, u8), u16> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (method, target) = (parts.next().unwrap(), parts.next().ok_or(400_u16)?);
    let version = parts.next();
    let is_target = |byte: &u8| *byte > b' ' && *byte != 0x7f;
    let text = std::str::from_utf8(target).map_err(|_| 400_u16)?;
    if !is_token(method) || target.is_empty() || !target.iter().all(is_target) {
        return Err(400);
    }
    let version = version.ok_or(400_u16)?;
    let minor = match version.get(..8) {
        Some(b"HTTP/1.1") => 1,
        Some(b"HTTP/1.0") => 0,
        _ => return Err(505),
    };
    if version.len() > 8 {
        return Err(400);
    }
    Ok((
        String::from_utf8_lossy(method).into_owned(),
        text.to_owned(),
        minor,
    ))
}

fn is_token(name: &[u8]) -> bool {
    let others = b"!#$%&'*+-.^_`|~";
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || others.contains(byte);
    !name.is_empty() && name.iter().all(is_part)
}

/// Takes so many bytes; a body that breaks off is answered with 400.
fn take(bytes: &mut &[u8], length: u64) -> Result<Vec<u8>, u16> {
    let length = usize::try_from(length).unwrap();
    if bytes.len() < length {
        return Err(400);
    }
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(taken.to_vec())
}

/// Takes a line that ends in both characters.
fn line<'b>(bytes: &mut &'b [u8], limit: usize) -> Result<&'b [u8], u16> {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or(400_u16)?;
    if end + 1 > limit || end == 0 || bytes[end - 1] != b'\r' {
        return Err(400);
    }
    let text = &bytes[..end - 1];
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    *bytes = &bytes[end + 1..];
    if text.iter().all(is_text) {
        Ok(text)
    } else {
        Err(400)
    }
}

fn chunks(bytes: &mut &[u8]) -> Result<Vec<u8>, u16> {
    let (mut body, mut overhead) = (Vec::new(), 0);
    loop {
        let text = line(bytes, 256)?;
        let digits = text.split(|byte| *byte == b';').next().unwrap();
        let digits = std::str::from_utf8(digits).map_err(|_| 400_u16)?;
        let is_size = (1..=8).contains(&digits.len())
            && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_size {
            return Err(400);
        }
        let size = u64::from_str_radix(digits, 16).unwrap();
        overhead += text.len() - digits.len();
        if overhead > OVERHEAD {
            return Err(400);
        }
        if size == 0 {
            break;
        }
        if body.len() as u64 + size > BODY_LIMIT {
            return Err(413);
        }
        body.extend(take(bytes, size)?);
        if !line(bytes, 2)?.is_empty() {
            return Err(400);
        }
    }
    loop {
        let trailer = line(bytes, 4096)?;
        overhead += trailer.len();
        if overhead > OVERHEAD {
            return Err(400);
        }
        if trailer.is_empty() {
            return Ok(body);
        }
    }
}
