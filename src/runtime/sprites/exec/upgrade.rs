//! Asks the service for an exec socket and reads its answer.
//!
//! Not tungstenite's own handshake, which logs the request with the token in it.

use tungstenite::handshake::client::generate_key;
use zeroize::Zeroizing;

use crate::duplex::websocket::check_upgrade;
use crate::error::{Disconnect, SpritesProblem};
use crate::runtime::sprites::answer::{FAILURE_LIMIT, FailedAnswer};
use crate::runtime::sprites::client::{ATTEMPT, Client, USER_AGENT};
use crate::runtime::sprites::interrupt::Within;
use crate::runtime::sprites::link::Link;

/// Longest head of an answer, in bytes and in headers.
const LONGEST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// Returns the connection and what was read of it beyond the answer.
pub(super) fn upgrade(
    client: &Client,
    target: &str,
    within: Within<'_>,
) -> Result<(Link, Vec<u8>), SpritesProblem> {
    let mut link = client.link(within)?;
    let key = generate_key();
    let authority = &client.endpoint().authority;
    let request = Zeroizing::new(format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nUser-Agent: {USER_AGENT}\r\n\
         Authorization: Bearer {}\r\n\r\n",
        client.token()
    ));
    link.write_within(request.as_bytes(), within)?;
    let (mut bytes, length) = read_head(&mut link, within)?;
    let rest = bytes.split_off(length);
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(&bytes);
    let not_http = || SpritesProblem::Protocol("it is not HTTP".into());
    if !parsed.is_ok_and(|status| status.is_complete()) {
        return Err(not_http());
    }
    match head.code.ok_or_else(not_http)? {
        101 => {}
        200..=299 => {
            let problem = "it does not upgrade the connection to WebSocket";
            return Err(SpritesProblem::Protocol(problem.into()));
        }
        status => {
            let value = |name: &str| {
                let mut headers = head.headers.iter();
                let found = headers.find(|header| header.name.eq_ignore_ascii_case(name));
                found.map(|header| header.value.trim_ascii())
            };
            let length = value("Content-Length")
                .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
            // A body in chunks is not looked at: what matters is the status.
            let length = length.or(value("Transfer-Encoding").map(|_| 0));
            let body = failure(&mut link, rest, length, within);
            let failed = FailedAnswer {
                status,
                retry_after: value("Retry-After"),
                body: &body,
                token: client.token(),
                secret_body: false,
            };
            return Err(failed.problem());
        }
    }
    check_upgrade(&bytes, &key).map_err(|problem| match problem {
        Disconnect::Violation(text) => SpritesProblem::Protocol((*text).into()),
        other => SpritesProblem::Protocol(other.to_string().into()),
    })?;
    Ok((link, rest))
}

/// Reads to the end of the head; returns what was read and where the head ends.
fn read_head(link: &mut Link, within: Within<'_>) -> Result<(Vec<u8>, usize), SpritesProblem> {
    let mut bytes = Vec::new();
    loop {
        let read = bytes.len();
        bytes.resize(read + 1024, 0);
        let count = link.read_within(&mut bytes[read..], within)?;
        bytes.truncate(read + count);
        if count == 0 {
            let ended = std::io::ErrorKind::UnexpectedEof;
            return Err(SpritesProblem::Broken(ended.into()));
        }
        // The end may lie across two reads.
        let from = read.saturating_sub(HEAD_END.len() - 1);
        if let Some(end) = memchr::memmem::find(&bytes[from..], HEAD_END) {
            return Ok((bytes, from + end + HEAD_END.len()));
        }
        if bytes.len() > LONGEST_HEAD {
            let limit = LONGEST_HEAD;
            return Err(SpritesProblem::TooLarge { limit });
        }
    }
}

/// Reads what can be had of the body of a failure. That it cannot be had changes nothing.
fn failure(
    link: &mut Link,
    mut body: Vec<u8>,
    length: Option<usize>,
    within: Within<'_>,
) -> Vec<u8> {
    let limit = length.unwrap_or(FAILURE_LIMIT).min(FAILURE_LIMIT);
    let within = within.at_most(ATTEMPT / 6);
    while body.len() < limit {
        let read = body.len();
        body.resize(limit.min(read + 4096), 0);
        let count = link.read_within(&mut body[read..], within).unwrap_or(0);
        body.truncate(read + count);
        if count == 0 {
            break;
        }
    }
    body.truncate(limit);
    body
}
