//! A response: what a handler returns, and how it is written.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write as _};

use super::events::EventStream;
use super::refusal::{RefusalAnswer, RefusalBody, reason};
use super::wire::{PACE, Wire};

/// Headers that are the server's to write.
const OWN: [&str; 3] = ["connection", "content-length", "transfer-encoding"];

enum Content {
    Bytes(Vec<u8>),
    Stream { length: u64, source: Box<dyn Read> },
    Events(Box<dyn FnOnce(&mut EventStream<'_>)>),
}

/// An answer to a request.
pub(crate) struct Response {
    status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    content: Content,
    /// It has a header that cannot be sent.
    is_wrong: bool,
}

/// What of the request its response depends on.
#[derive(Clone, Copy)]
pub(super) struct Exchange {
    pub(super) is_head: bool,
    pub(super) minor: u8,
    /// The connection ends after the response.
    pub(super) is_last: bool,
}

impl Response {
    fn of(status: u16, content: Content) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content,
            is_wrong: false,
        }
    }

    /// Returns an answer without a body.
    pub(crate) fn empty(status: u16) -> Self {
        Self::of(status, Content::Bytes(Vec::new()))
    }

    /// Returns an answer with this body.
    pub(crate) fn bytes(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self::of(status, Content::Bytes(body.into())).header("Content-Type", content_type)
    }

    /// Returns an answer whose body is read while it is sent. If the source has fewer bytes, or fails, the
    /// connection is cut off, so that the client cannot take the part for the whole.
    pub(crate) fn stream(
        status: u16,
        content_type: &'static str,
        length: u64,
        source: impl Read + 'static,
    ) -> Self {
        let source = Box::new(source);
        Self::of(status, Content::Stream { length, source }).header("Content-Type", content_type)
    }

    /// Returns a stream of server-sent events, which `send` writes on the connection's own thread until it
    /// returns. It is not called for HEAD.
    pub(crate) fn events(send: impl FnOnce(&mut EventStream<'_>) + 'static) -> Self {
        Self::of(200, Content::Events(Box::new(send)))
            .header("Content-Type", "text/event-stream; charset=utf-8")
            .header("Cache-Control", "no-cache")
    }

    /// Returns a refusal with this body.
    pub(super) fn refusal(answer: &RefusalAnswer, body: RefusalBody) -> Self {
        let headers = answer.headers_with(&body);
        let response = Self::of(answer.status, Content::Bytes(body.text.into_bytes()));
        headers.fold(response, |response, (name, value)| {
            response.header(name, value)
        })
    }

    /// Adds a header. With a name or value that cannot be in a head, above all one with CR, LF or NUL, and
    /// with a name that is the server's to write, the answer becomes 500.
    #[must_use]
    pub(crate) fn header(
        mut self,
        name: &'static str,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        let value = value.into();
        let is_own = OWN.iter().any(|own| name.eq_ignore_ascii_case(own));
        if is_token(name)
            && !is_own
            && value
                .bytes()
                .all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
        {
            self.headers.push((name, value));
        } else {
            log::error!("an answer has a header {name:?} that cannot be sent");
            self.is_wrong = true;
        }
        self
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Whether it has a header that cannot be sent.
    pub(super) fn is_wrong(&self) -> bool {
        self.is_wrong
    }

    /// Writes the answer.
    ///
    /// # Errors
    /// Those of the connection, and of the source; the connection is of no use then.
    pub(super) fn write(self, wire: &Wire, exchange: Exchange) -> io::Result<()> {
        let mut head = Vec::with_capacity(256);
        write!(head, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status))?;
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n")?;
        }
        if exchange.is_last {
            head.extend_from_slice(b"Connection: close\r\n");
        }
        let has_body = !matches!(self.status, 100..=199 | 204 | 304);
        let is_silent = exchange.is_head || !has_body;
        match self.content {
            Content::Bytes(body) => {
                if has_body {
                    write!(head, "Content-Length: {}\r\n", body.len())?;
                }
                head.extend_from_slice(b"\r\n");
                let (first, rest) = body.split_at(body.len().min(PACE / 2));
                if is_silent {
                    return wire.write(&head);
                }
                // In one packet, if it is short.
                head.extend_from_slice(first);
                wire.write(&head)?;
                wire.write(rest)?;
            }
            Content::Stream { length, source } => {
                write!(head, "Content-Length: {length}\r\n\r\n")?;
                wire.write(&head)?;
                if !is_silent {
                    copy(source, length, wire)?;
                }
            }
            Content::Events(send) => {
                let is_chunked = exchange.minor > 0;
                if is_chunked {
                    head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                }
                head.extend_from_slice(b"\r\n");
                wire.write(&head)?;
                if !is_silent {
                    let mut stream = EventStream::new(wire, is_chunked);
                    send(&mut stream);
                    stream.end()?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Response {
    /// Leaves the headers and the body out, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

fn is_token(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_part)
}

/// Copies exactly so many bytes.
fn copy(mut source: Box<dyn Read>, length: u64, wire: &Wire) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(PACE).min(PACE)];
    let mut left = length;
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(PACE).min(buffer.len());
        match source.read(&mut buffer[..room]) {
            Ok(0) => {
                log::error!("the source of a response ended {left} bytes early");
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(count) => {
                wire.write(&buffer[..count])?;
                left -= count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                log::error!("the source of a response failed {left} bytes early: {error}");
                return Err(error);
            }
        }
    }
    Ok(())
}
