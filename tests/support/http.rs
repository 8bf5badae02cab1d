//! A raw HTTP client for handshakes: it sends what it is told, right or wrong, and reads the answer.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::LONG;

/// A sealed token of the right form that was made with a secret no host has.
pub(crate) const FORGED: &str =
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXhNJjbe3g2fSoNt0bKqWQZx5ffcgyUccbdubI_WrrT9-LAIbY";

/// A request to upgrade, right unless changed.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    version: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// What an SDK would send to this path and query.
    pub(crate) fn upgrade(target: &str) -> Self {
        let headers = [
            ("Host", "127.0.0.1"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("User-Agent", "Go-http-client/1.1"),
        ];
        Self {
            method: "GET".to_owned(),
            target: target.to_owned(),
            version: "HTTP/1.1".to_owned(),
            headers: headers
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    /// What a browser would send.
    pub(crate) fn get(target: &str) -> Self {
        let mut request = Self::upgrade(target);
        request.headers.truncate(1);
        request
    }

    pub(crate) fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    pub(crate) fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(present, _)| present != name);
        self
    }

    /// Adds a header; with [`without`](Self::without), replaces it.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{} {} {}\r\n", self.method, self.target, self.version);
        for (name, value) in &self.headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text + "\r\n"
    }

    /// Sends it over a connection of its own.
    #[track_caller]
    pub(crate) fn send(&self, address: SocketAddr) -> Answer {
        exchange(connect(address), self.to_text().as_bytes())
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// Sends these bytes and reads the answer.
#[track_caller]
pub(crate) fn exchange(stream: TcpStream, bytes: &[u8]) -> Answer {
    (&stream).write_all(bytes).unwrap();
    Answer::read(stream)
}

/// Asserts that the connection ends without a byte from the other side.
#[track_caller]
pub(crate) fn assert_ends_unanswered(mut stream: TcpStream) {
    match stream.read(&mut [0; 64]) {
        Ok(0) => {}
        // What was sent and not read makes the system reset the connection.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("expected the end of the connection, got {other:?}"),
    }
}

/// An HTTP answer, and the connection after it.
#[derive(Debug)]
pub(crate) struct Answer<S = TcpStream> {
    pub(crate) status: u16,
    head: String,
    /// Empty for a 101.
    pub(crate) body: String,
    pub(crate) stream: S,
}

impl<S: Read> Answer<S> {
    /// Reads the head, and the body up to the end of the connection unless it is a 101.
    #[track_caller]
    pub(crate) fn read(mut stream: S) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            // One by one, so that no byte of a frame behind the head is taken.
            let mut byte = [0];
            stream
                .read_exact(&mut byte)
                .unwrap_or_else(|error| panic!("no whole answer, but {head:?}: {error}"));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = String::new();
        if status != 101 {
            stream.read_to_string(&mut body).unwrap();
        }
        Self {
            status,
            head,
            body,
            stream,
        }
    }

    pub(crate) fn header(&self, wanted: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    }
}
