//! A client of the service that shows what really comes over the wire: HTTP, and messages of exec sockets.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};
use ureq::Agent;

/// How long one read waits.
const STEP: Duration = Duration::from_millis(50);
/// The time for a request, or for a sprite to wake.
const REQUEST: Duration = Duration::from_secs(60);

/// What an experiment is a failure by: it is shown, and nothing more.
pub(super) type Outcome<T> = Result<T, String>;

/// Where the service is, and who asks.
pub(super) struct Client {
    pub(super) url: String,
    token: String,
    agent: Agent,
}

/// An answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// What came over an exec socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Text(Value),
    /// The stream, and its bytes.
    Bytes(u8, Vec<u8>),
    Ping,
    /// How it ended.
    Closed(String),
}

pub(super) struct Exec(WebSocket<Wire>);

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Client {
    pub(super) fn new(url: &str, token: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST))
            .max_redirects(0)
            .proxy(None)
            .build();
        Self {
            url: url.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            agent: config.into(),
        }
    }

    pub(super) fn ask(&self, method: &str, target: &str, body: &[u8]) -> Outcome<Answer> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/v1/{target}", self.url))
            .header("Authorization", format!("Bearer {}", self.token));
        // The error may name the URL, and no more.
        let request = request.body(body.to_vec()).map_err(shown)?;
        let mut response = self.agent.run(request).map_err(shown)?;
        let body = response.body_mut().read_to_string().map_err(shown)?;
        let status = response.status().as_u16();
        Ok(Answer { status, body })
    }

    pub(super) fn get(&self, target: &str) -> Outcome<Answer> {
        self.ask("GET", target, b"")
    }

    /// Opens an exec socket.
    pub(super) fn exec(&self, target: &str) -> Outcome<Exec> {
        let url = format!("{}/v1/{target}", self.url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().map_err(shown)?;
        let bearer = format!("Bearer {}", self.token);
        let headers = request.headers_mut();
        headers.insert("Authorization", bearer.parse().map_err(shown)?);
        let host = request.uri().host().unwrap_or_default().to_owned();
        let secure = self.url.starts_with("https://");
        let default = if secure { 443 } else { 80 };
        let port = request.uri().port_u16().unwrap_or(default);
        let stream = TcpStream::connect((&*host, port)).map_err(shown)?;
        stream.set_read_timeout(Some(REQUEST)).map_err(shown)?;
        let wire = if secure {
            Wire::Tls(Box::new(tls(host, stream)?))
        } else {
            Wire::Plain(stream)
        };
        let (socket, _) = tungstenite::client(request, wire).map_err(shown)?;
        let timed = socket.get_ref().socket().set_read_timeout(Some(STEP));
        timed.map_err(shown)?;
        Ok(Exec(socket))
    }
}

impl Exec {
    /// Everything that comes, until something is as wanted, it has ended or the time is over.
    pub(super) fn until(&mut self, time: Duration, wanted: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let end = Instant::now() + time;
        let mut seen = Vec::new();
        while Instant::now() < end && !wanted(&seen) {
            match self.0.read() {
                Ok(Message::Text(text)) => {
                    seen.push(Seen::Text(serde_json::from_str(&text).unwrap_or_default()));
                }
                Ok(Message::Binary(bytes)) => {
                    let (stream, rest) = bytes.split_first().unwrap_or((&255, &[]));
                    seen.push(Seen::Bytes(*stream, rest.to_vec()));
                }
                Ok(Message::Ping(_)) => seen.push(Seen::Ping),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if is_early(&error) => {}
                Err(error) => {
                    seen.push(Seen::Closed(error.to_string()));
                    return seen;
                }
            }
        }
        seen
    }

    /// All that comes to the end.
    pub(super) fn rest(&mut self, time: Duration) -> Vec<Seen> {
        self.until(time, |_| false)
    }
}

fn tls(host: String, stream: TcpStream) -> Outcome<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(shown)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host).map_err(shown)?;
    let client = ClientConnection::new(Arc::new(config), name).map_err(shown)?;
    Ok(StreamOwned::new(client, stream))
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

fn is_early(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

pub(super) fn shown(error: impl std::fmt::Display) -> String {
    error.to_string()
}
