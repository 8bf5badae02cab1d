//! Requests as they are read, and answers as they are written.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};

use serde_json::{Value, json};

use super::stream::Stream;

/// A longer head is refused. Arguments and the environment travel in it.
const MAX_HEAD: usize = 1024 * 1024;
/// A longer body is not even read.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// One request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Without the query, still encoded.
    pub(super) path: String,
    /// Decoded, in order; names may repeat.
    pub(super) query: Vec<(String, String)>,
    /// By lower-case name.
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Reads the next request of a connection. `None` at its end.
    pub(super) fn read(stream: &mut Stream, rest: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let mut buffer = [0; 16 * 1024];
        let head = loop {
            if let Some(at) = find(rest, b"\r\n\r\n") {
                break at + 4;
            }
            if rest.len() > MAX_HEAD {
                return Err(ErrorKind::InvalidData.into());
            }
            match stream.read_waiting(&mut buffer)? {
                0 => return Ok(None),
                read => rest.extend_from_slice(&buffer[..read]),
            }
        };
        let mut request = parse(&rest[..head])?;
        rest.drain(..head);
        if request.header("expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = Body { stream, rest };
        request.body = if request.header("transfer-encoding").is_some() {
            body.chunked()?
        } else {
            let length = request.header("content-length").unwrap_or("0");
            body.take(length.parse().map_err(invalid)?)?
        };
        Ok(Some(request))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first value of a name in the query.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query_all(name).next()
    }

    pub(super) fn query_all(&self, name: &str) -> impl Iterator<Item = &str> {
        let all = self.query.iter().filter(move |(key, _)| key == name);
        all.map(|(_, value)| value.as_str())
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.query(name) == Some("true")
    }

    pub(super) fn is_upgrade(&self) -> bool {
        let upgrade = self.header("upgrade").unwrap_or_default();
        self.method == "GET" && upgrade.eq_ignore_ascii_case("websocket")
    }

    /// The segments of the path, decoded.
    pub(super) fn segments(&self) -> Vec<String> {
        let segments = self.path.trim_start_matches('/').split('/');
        segments
            .map(|segment| {
                let bytes = percent_encoding::percent_decode_str(segment);
                bytes.decode_utf8_lossy().into_owned()
            })
            .collect()
    }

    /// The body as a JSON object; what is none is empty.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, wanted)
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

fn parse(head: &[u8]) -> io::Result<Request> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(head).map_err(invalid)?;
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        // Both `+` and `%20` are a space.
        query: form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        headers: parsed
            .headers
            .iter()
            .map(|header| {
                let value = String::from_utf8_lossy(header.value).into_owned();
                (header.name.to_ascii_lowercase(), value)
            })
            .collect(),
        body: Vec::new(),
    })
}

/// What is still to be read of a request.
struct Body<'a> {
    stream: &'a mut Stream,
    rest: &'a mut Vec<u8>,
}

impl Body<'_> {
    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read_waiting(&mut buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                self.rest.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > MAX_BODY {
            return Err(ErrorKind::InvalidData.into());
        }
        while self.rest.len() < length {
            self.fill()?;
        }
        Ok(self.rest.drain(..length).collect())
    }

    fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match httparse::parse_chunk_size(self.rest) {
                Ok(httparse::Status::Complete((start, size))) => {
                    self.take(start)?;
                    let size = usize::try_from(size).map_err(invalid)?;
                    body.extend(self.take(size)?);
                    self.take(2)?;
                    if size == 0 {
                        return Ok(body);
                    }
                }
                Ok(httparse::Status::Partial) => self.fill()?,
                Err(_) => return Err(ErrorKind::InvalidData.into()),
            }
        }
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), kind.to_owned())],
            body: body.into(),
        }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// An error in the shape that the SDKs decode.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({"error": code, "message": message}))
    }

    /// A page of HTML, as proxies send it.
    pub(crate) fn html(status: u16) -> Self {
        let page = format!("<html><body><h1>{status}</h1></body></html>\n");
        Self::new(status, "text/html", page)
    }

    /// A rate limit, with the wait in the header and in the body where it is given.
    pub(crate) fn rate_limited(code: &str, header: Option<u64>, body: Option<u64>) -> Self {
        let mut members =
            json!({"error": code, "message": "too many", "limit": 10, "window_seconds": 60});
        if let Some(seconds) = body {
            members["retry_after_seconds"] = seconds.into();
        }
        let answer = Self::json(429, &members)
            .with("X-RateLimit-Limit", "10")
            .with("X-RateLimit-Remaining", "0");
        match header {
            Some(seconds) => answer.with("Retry-After", &seconds.to_string()),
            None => answer,
        }
    }

    pub(crate) fn redirect(status: u16, to: &str) -> Self {
        Self::empty(status).with("Location", to)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a member to a JSON object so that the body has about this many bytes.
    pub(super) fn padded(mut self, size: usize) -> Self {
        if let Ok(Value::Object(mut members)) = serde_json::from_slice(&self.body) {
            let padding = "x".repeat(size.saturating_sub(self.body.len()));
            members.insert("padding".to_owned(), padding.into());
            self.body = Value::Object(members).to_string().into_bytes();
        } else {
            self.body.resize(self.body.len().max(size), b' ');
        }
        self
    }

    /// The bytes of the whole answer. To a `HEAD`, the body is left out.
    pub(super) fn to_bytes(&self, date: &str, is_head: bool) -> Vec<u8> {
        let mut bytes = self.head(date);
        let length = self.body.len();
        let has_none = self.status == 204 || self.status == 304;
        if !has_none {
            bytes.extend(format!("Content-Length: {length}\r\n").bytes());
        }
        bytes.extend(b"\r\n");
        if !has_none && !is_head {
            bytes.extend(&self.body);
        }
        bytes
    }

    /// The status line and headers, with neither a length nor the empty line.
    pub(super) fn head(&self, date: &str) -> Vec<u8> {
        let reason = match self.status {
            101 => "Switching Protocols",
            200..300 => "OK",
            300..400 => "Elsewhere",
            _ => "Error",
        };
        let mut head = format!("HTTP/1.1 {} {reason}\r\nDate: {date}\r\n", self.status);
        for (name, value) in &self.headers {
            head.extend([name.as_str(), ": ", value, "\r\n"]);
        }
        head.into_bytes()
    }
}

/// An answer whose length is not known when it begins.
pub(super) struct Chunks<'a> {
    stream: &'a mut Stream,
}

impl<'a> Chunks<'a> {
    pub(super) fn begin(stream: &'a mut Stream, head: &Answer, date: &str) -> Self {
        let head = head.clone().with("Transfer-Encoding", "chunked");
        let mut bytes = head.head(date);
        bytes.extend(b"\r\n");
        // Whoever has gone away does not stop what was asked for.
        let _ = stream.write_all(&bytes);
        Self { stream }
    }

    /// Sends one chunk. Fails once nobody listens.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend(bytes);
        chunk.extend(b"\r\n");
        self.stream.write_all(&chunk)
    }

    pub(super) fn end(self) -> io::Result<()> {
        self.stream.write_all(b"0\r\n\r\n")
    }
}
