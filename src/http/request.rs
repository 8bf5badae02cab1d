//! A request: which heads are right, and what a handler sees of one.

use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;

use super::body::{Body, BodyError, Framing};
use super::head::{ParseError, ParsedHead};
use super::refusal::RefusalAnswer;

/// Largest head that is read, in bytes.
pub(super) const HEAD_LIMIT: usize = 16 * 1024;

/// Headers that may occur once, and in ASCII: with two, a proxy in front may have used the other.
const ONCE: [&str; 7] = [
    "authorization",
    "content-length",
    "content-type",
    "expect",
    "host",
    "origin",
    "transfer-encoding",
];

/// Most digits of a length.
const LENGTH_DIGITS: usize = 15;

/// A head that is right, and what it says of the body and the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) parsed: ParsedHead,
    pub(super) framing: Framing,
    /// The client waits for 100 before it sends the body.
    pub(super) expects_continue: bool,
    /// The client wants the connection for further requests.
    pub(super) persists: bool,
}

impl Head {
    /// Parses a whole head.
    ///
    /// # Errors
    /// The answer to one that is not right. Whatever two readers could understand in two ways is refused.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static RefusalAnswer> {
        if !has_whole_line_ends(bytes) {
            return Err(RefusalAnswer::BAD_REQUEST);
        }
        let parsed = ParsedHead::parse(bytes).map_err(|error| match error {
            ParseError::TooManyHeaders => RefusalAnswer::HEAD_TOO_LARGE,
            ParseError::Version => RefusalAnswer::OTHER_VERSION,
            ParseError::Malformed => RefusalAnswer::BAD_REQUEST,
        })?;
        let is_current = parsed.minor == 1;
        let is_target = match parsed.target.as_bytes() {
            [b'/', ..] => parsed.target.is_ascii(),
            target => target == b"*" && parsed.method == "OPTIONS",
        };
        // What is not text would be as good as absent for who asks for text.
        let is_unclear = |name: &&str| {
            let mut values = parsed.values(name);
            values.next().is_some_and(|value| !value.is_ascii()) || values.next().is_some()
        };
        let has_host = parsed.values("host").next().is_some();
        if !is_target || ONCE.iter().any(is_unclear) || (is_current && !has_host) {
            return Err(RefusalAnswer::BAD_REQUEST);
        }
        let framing = framing(&parsed)?;
        let expects_continue = match parsed.values("expect").next() {
            Some(what) if is_current && what.eq_ignore_ascii_case(b"100-continue") => true,
            Some(_) if is_current => return Err(RefusalAnswer::UNKNOWN_EXPECTATION),
            _ => false,
        };
        let is_last = parsed.values("connection").any(|list| {
            let mut items = list.split(|byte| *byte == b',');
            items.any(|item| item.trim_ascii().eq_ignore_ascii_case(b"close"))
        });
        Ok(Self {
            framing,
            expects_continue,
            persists: is_current && !is_last,
            parsed,
        })
    }
}

impl ParsedHead {
    /// Returns the values of all headers of this name.
    pub(super) fn values<'h>(&'h self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        let headers = self.headers.iter();
        headers
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }
}

/// Whether CR and LF occur together alone: a reader that takes either for a line end sees other lines.
fn has_whole_line_ends(bytes: &[u8]) -> bool {
    let mut before = 0;
    let are_whole = bytes.iter().all(|&byte| {
        let is_whole = (before == b'\r') == (byte == b'\n');
        before = byte;
        is_whole
    });
    are_whole && before != b'\r'
}

/// Exactly one of a length and chunks, in one spelling each.
fn framing(head: &ParsedHead) -> Result<Framing, &'static RefusalAnswer> {
    let length = head.values("content-length").next();
    match (length, head.values("transfer-encoding").next()) {
        (None, None) => Ok(Framing::Length(0)),
        (Some(length), None) => {
            let is_length = length.len() <= LENGTH_DIGITS && length.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(length).ok().filter(|_| is_length);
            let length = length.and_then(|length| length.parse().ok());
            length
                .map(Framing::Length)
                .ok_or(RefusalAnswer::BAD_REQUEST)
        }
        (None, Some(coding)) if head.minor == 1 && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Framing::Chunked)
        }
        _ => Err(RefusalAnswer::BAD_REQUEST),
    }
}

/// A request, as a handler sees it.
pub(crate) struct Request<'c> {
    pub(super) head: ParsedHead,
    pub(super) body: Body<'c>,
    pub(super) peer: SocketAddr,
}

impl<'c> Request<'c> {
    pub(crate) fn method(&self) -> &str {
        &self.head.method
    }

    /// Returns path and query as they came, still encoded. It begins with `/`, or is `*` with OPTIONS.
    pub(crate) fn target(&self) -> &str {
        &self.head.target
    }

    /// Returns the path, still encoded.
    pub(crate) fn path(&self) -> &str {
        self.split_target().0
    }

    /// Returns the query, still encoded; empty if there is none.
    pub(crate) fn query(&self) -> &str {
        self.split_target().1
    }

    fn split_target(&self) -> (&str, &str) {
        self.target().split_once('?').unwrap_or((self.target(), ""))
    }

    /// Returns the value of the first header of this name, if it is text. A request with two of `Host`,
    /// `Origin`, `Authorization`, `Content-Type` or `Expect`, or with one that is not ASCII, is refused before
    /// there is a handler.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.head.values(name).next()?).ok()
    }

    /// Returns the address of the peer.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the body, of which at most so many bytes are accepted; reading it fails over that limit, at
    /// once if the client has announced more. A client that waits for it is sent 100 by the first read.
    /// What the handler leaves is discarded, or the connection ends.
    pub(crate) fn body(&mut self, limit: u64) -> &mut Body<'c> {
        self.body.set_limit(limit);
        &mut self.body
    }

    /// Reads a whole body of at most so many bytes.
    ///
    /// # Blocking
    /// At most [`HttpSettings::body`](super::HttpSettings::body) and the time for so many bytes.
    ///
    /// # Errors
    /// A [`BodyError`], which has the answer to send.
    pub(crate) fn read_body(&mut self, limit: u64) -> Result<Vec<u8>, BodyError> {
        let mut bytes = Vec::new();
        let read = self.body(limit).read_to_end(&mut bytes);
        let failure = || self.body_error().unwrap_or(BodyError::Gone);
        read.map_err(|_| failure())?;
        Ok(bytes)
    }

    /// Returns why reading the body failed, if it did, whatever became of the error on its way.
    pub(crate) fn body_error(&self) -> Option<BodyError> {
        self.body.error()
    }

    /// Whether an answer is still of use: the client has not gone, and a server that stops has time for it. A
    /// handler that waits long asks once a second. Never blocks.
    pub(crate) fn is_awaited(&self) -> bool {
        self.body.wire.is_awaited()
    }
}

impl fmt::Debug for Request<'_> {
    /// Leaves the query and the headers out, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("peer", &self.peer)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status that a request line with these headers behind `Host` is refused with, or its framing.
    fn judged(line: &str, headers: &str) -> Result<Framing, u16> {
        let head = format!("{line}\r\nHost: h\r\n{headers}\r\n");
        let head = Head::parse(head.as_bytes());
        head.map(|head| head.framing)
            .map_err(|refusal| refusal.status)
    }

    #[test]
    fn a_body_has_one_length_in_one_spelling() {
        let none = Ok(Framing::Length(0));
        for (headers, wanted) in [
            ("", none),
            ("Content-Length: 0\r\n", none),
            ("content-length:5\r\n", Ok(Framing::Length(5))),
            (
                "Content-Length: 000000000000005\r\n",
                Ok(Framing::Length(5)),
            ),
            ("Content-Length: 0000000000000005\r\n", Err(400)),
            ("Content-Length:\r\n", Err(400)),
            ("Content-Length: +5\r\n", Err(400)),
            ("Content-Length: -5\r\n", Err(400)),
            ("Content-Length: 5 5\r\n", Err(400)),
            ("Content-Length: 5, 5\r\n", Err(400)),
            ("Content-Length: 0x5\r\n", Err(400)),
            ("Content-Length: 18446744073709551616\r\n", Err(400)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(400)),
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: CHUNKED\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: xchunked\r\n", Err(400)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(400)),
            ("Transfer-Encoding: identity\r\n", Err(400)),
            ("Transfer-Encoding: \u{b}chunked\r\n", Err(400)),
            ("Transfer-Encoding : chunked\r\n", Err(400)),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(400),
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                Err(400),
            ),
        ] {
            assert_eq!(judged("POST / HTTP/1.1", headers), wanted, "{headers:?}");
        }
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(judged("POST / HTTP/1.0", chunked), Err(400));
    }

    #[test]
    fn a_request_line_has_a_path_and_a_version_that_is_served() {
        for (line, wanted) in [
            ("GET / HTTP/1.1", Ok(Framing::Length(0))),
            ("GET /a?b=%20 HTTP/1.0", Ok(Framing::Length(0))),
            ("OPTIONS * HTTP/1.1", Ok(Framing::Length(0))),
            ("GET * HTTP/1.1", Err(400)),
            ("GET http://h/ HTTP/1.1", Err(400)),
            ("CONNECT h:80 HTTP/1.1", Err(400)),
            ("GET /\u{e4} HTTP/1.1", Err(400)),
            ("GET  / HTTP/1.1", Err(400)),
            ("GET /", Err(400)),
            ("GET / HTTP/1.2", Err(505)),
            ("GET / HTTP/2.0", Err(505)),
            ("GET / HTTP/1.1\r", Err(400)),
        ] {
            assert_eq!(judged(line, ""), wanted, "{line:?}");
        }
    }

    #[test]
    fn what_decides_occurs_once() {
        for name in ["Authorization", "Content-Type", "Host", "Origin", "hOsT"] {
            let twice = format!("{name}: a\r\n{name}: a\r\n");
            assert_eq!(judged("GET / HTTP/1.1", &twice), Err(400), "{name}");
        }
        for name in ["Authorization", "Content-Type", "Origin"] {
            let head = [
                b"GET / HTTP/1.1\r\nHost: h\r\n",
                name.as_bytes(),
                b": \xe4\r\n\r\n",
            ]
            .concat();
            let refused = Head::parse(&head).map_err(|refusal| refusal.status);
            assert_eq!(refused, Err(400), "{name} that is no text");
        }
        let twice = "Accept: a\r\nAccept: b\r\n";
        assert!(judged("GET / HTTP/1.1", twice).is_ok());
        assert_eq!(judged("GET / HTTP/1.1", "Expect: a-miracle\r\n"), Err(417));
    }

    #[test]
    fn lines_end_in_both_characters() {
        for head in [
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nx: a\nb: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nx: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n x: folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\0\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            let refused = Head::parse(head.as_bytes()).map_err(|refusal| refusal.status);
            assert_eq!(refused, Err(400), "{head:?}");
        }
    }
}
