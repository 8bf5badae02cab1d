//! The client's side of the handshake: resolve, connect and upgrade under one deadline.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use super::{Role, Socket, WebSocket};
use crate::deadline::Deadline;
use crate::error::{Disconnect, Error, Phase, Result, TokenError};
use crate::thread::Threads;
use crate::url::{Authority, Url};

/// The `User-Agent` of the handshake.
const AGENT: &str = concat!("plugin-runner/", env!("CARGO_PKG_VERSION"));

/// Longest head of an answer that is read, in bytes and in headers.
const LONGEST_HEAD: usize = 8 * 1024;
const MOST_HEADERS: usize = 64;

/// The end of a head.
const HEAD_END: &[u8] = b"\r\n\r\n";

impl WebSocket {
    /// Connects to a `ws://` URL and does the client's handshake. Redirects are not followed.
    ///
    /// # Blocking
    /// At most `timeout`, which covers looking the name up, connecting, and the handshake; nothing wakes it
    /// earlier.
    ///
    /// # Errors
    /// - [`Error::Timeout`] with [`Phase::Handshake`]: the time ran out.
    /// - [`Error::Disconnected`]: the server refused ([`Disconnect::Refused`], with the HTTP
    ///   status), answered with something else than WebSocket ([`Disconnect::Violation`]), or hung
    ///   up ([`Disconnect::Lost`]).
    /// - [`Error::Unsupported`]: a `wss://` URL; TLS is not built in.
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): not a WebSocket URL.
    /// - [`Error::Io`]: the name is not known, no server listens, or the system starts no thread for
    ///   looking the name up.
    pub fn connect(url: &str, timeout: Duration) -> Result<Self> {
        let deadline = Deadline::after(timeout);
        let target = ServerUrl::parse(url)?;
        let ServerUrl { host, port, .. } = &target;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in resolve(host, *port, deadline, timeout)? {
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return Err(Error::timeout(Phase::Handshake, timeout));
            }
            match TcpStream::connect_timeout(&address, remaining) {
                Ok(stream) => return handshake(stream.into(), &target, deadline, timeout),
                Err(error) => last = error,
            }
        }
        if deadline.has_passed() {
            return Err(Error::timeout(Phase::Handshake, timeout));
        }
        Err(Error::io(format!("connect to {host}:{port}"), last))
    }

    /// Connects to a Unix socket and does the client's handshake there. `url` has the host name
    /// and path for the request, as in `ws://localhost/rpc?token=…`.
    ///
    /// # Blocking
    /// At most `timeout`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_unix(path: &Path, url: &str, timeout: Duration) -> Result<Self> {
        let deadline = Deadline::after(timeout);
        let target = ServerUrl::parse(url)?;
        let stream = connect_unix(path, deadline).map_err(|error| match error.kind() {
            // A full queue of the listener, for as long as the time limit on the socket.
            io::ErrorKind::WouldBlock => Error::timeout(Phase::Handshake, timeout),
            _ => Error::io(format!("connect to {}", path.display()), error),
        })?;
        handshake(stream.into(), &target, deadline, timeout)
    }
}

/// What of a `ws://` URL is needed to connect. It holds a token.
struct ServerUrl {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// For the `Host` header.
    authority: String,
    /// Path and query.
    path: String,
}

impl ServerUrl {
    /// Errors do not repeat the URL: it holds a token.
    fn parse(url: &str) -> Result<Self> {
        let problem = |problem| Error::from(TokenError::Url { problem });
        let url = Url::parse(url).map_err(problem)?;
        match url.scheme {
            Some("ws") => {}
            Some("wss") => {
                return Err(Error::Unsupported(
                    "wss:// needs TLS, which is not built in: use ws://, a proxy that adds TLS, or the \
                     transport stdio",
                ));
            }
            _ => return Err(problem("not a ws:// URL")),
        }
        // Without the user's name and password, which are not for the header.
        let authority = Authority::parse(url.authority.unwrap_or_default()).map_err(problem)?;
        if authority.host.is_empty() {
            return Err(problem("it names no host"));
        }
        Ok(Self {
            host: authority.bare_host().to_owned(),
            port: authority.port.unwrap_or(80),
            authority: authority.to_string(),
            path: url.request_target(),
        })
    }
}

/// Looks a name up. The system's function has no time limit, so it runs on a thread of its own, which is
/// left behind when the time is over.
fn resolve(
    host: &str,
    port: u16,
    deadline: Deadline,
    timeout: Duration,
) -> Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (answer, answers) = crossbeam_channel::bounded(1);
    let name = host.to_owned();
    Threads::with_limit(1).spawn("resolve", 256 * 1024, move || {
        let addresses = (name.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect::<Vec<_>>);
        // Fails when the time is over, and so the caller gone.
        let _ = answer.send(addresses);
    })?;
    match answers.recv_deadline(deadline.instant()) {
        Ok(addresses) => addresses.map_err(|error| Error::io(format!("look up {host}"), error)),
        Err(_) => Err(Error::timeout(Phase::Handshake, timeout)),
    }
}

/// As [`UnixStream::connect`], which waits without limit while the listener's queue is full.
fn connect_unix(path: &Path, deadline: Deadline) -> io::Result<UnixStream> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

    #[cfg(not(target_vendor = "apple"))]
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    #[cfg(target_vendor = "apple")]
    let socket = {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
        socket
    };
    // Zero would mean without limit.
    let limit = deadline.remaining().max(Duration::from_millis(1));
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    let address = SocketAddrUnix::new(path)?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address))?;
    Ok(UnixStream::from(socket))
}

/// Asks for the upgrade and reads the answer.
///
/// Not tungstenite's own handshake: that one logs the request, and the request holds a token; and
/// it keeps to itself what it has read too far.
fn handshake(
    socket: Socket,
    target: &ServerUrl,
    deadline: Deadline,
    timeout: Duration,
) -> Result<WebSocket> {
    let key = generate_key();
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nUser-Agent: {AGENT}\r\n\r\n",
        target.path, target.authority,
    );
    let answered = socket
        .prepare()
        .and_then(|()| socket.write_within(request.as_bytes(), deadline))
        .and_then(|()| read_head(&socket, deadline));
    let (mut head, length) = answered.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => Error::timeout(Phase::Handshake, timeout),
        _ => Error::Disconnected(Arc::new(Disconnect::from(error))),
    })?;
    check(&head[..length], &key).map_err(|cause| Error::Disconnected(Arc::new(cause)))?;
    let already_read = head.split_off(length);
    Ok(WebSocket::over(socket, Role::Client, already_read))
}

/// Reads to the end of the answer's head; returns what was read and where the head ends.
fn read_head(socket: &Socket, deadline: Deadline) -> io::Result<(Vec<u8>, usize)> {
    let mut bytes = Vec::new();
    loop {
        if !socket.wait_readable(deadline)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let read = bytes.len();
        bytes.resize(read + 1024, 0);
        let count = socket.read(&mut bytes[read..])?;
        bytes.truncate(read + count);
        // The end may lie across two reads.
        let from = read.saturating_sub(HEAD_END.len() - 1);
        if let Some(end) = memchr::memmem::find(&bytes[from..], HEAD_END) {
            return Ok((bytes, from + end + HEAD_END.len()));
        }
        if count == 0 || bytes.len() > LONGEST_HEAD {
            // Not HTTP, or nothing at all: let the check say which.
            let length = bytes.len();
            return Ok((bytes, length));
        }
    }
}

/// Checks the server's answer (RFC 6455, section 4.1).
pub(crate) fn check(head: &[u8], key: &str) -> std::result::Result<(), Disconnect> {
    let violation = |text: &str| Disconnect::Violation(text.into());
    if head.is_empty() {
        return Err(Disconnect::Lost);
    }
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(violation("its answer has no end")),
        Err(error) => {
            let text = format!("its answer is not HTTP: {error}");
            return Err(violation(&text));
        }
    }
    match response.code {
        Some(101) => {}
        Some(status) => return Err(Disconnect::Refused { status }),
        None => return Err(violation("its answer has no status")),
    }
    let values = |name: &'static str| {
        let headers = response.headers.iter();
        headers
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    };
    let has = |name, value: &[u8]| {
        values(name)
            .flat_map(|list| list.split(|byte| *byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(value))
    };
    if !has("Upgrade", b"websocket") || !has("Connection", b"Upgrade") {
        return Err(violation("it upgrades to something else than WebSocket"));
    }
    let accept = derive_accept_key(key.as_bytes());
    // The case counts: it is base64.
    if !values("Sec-WebSocket-Accept").any(|value| value == accept.as_bytes()) {
        return Err(violation("it did not read our handshake"));
    }
    for name in ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"] {
        if values(name).next().is_some() {
            let text = format!("it answers with {name}, which was not asked for");
            return Err(violation(&text));
        }
    }
    Ok(())
}
