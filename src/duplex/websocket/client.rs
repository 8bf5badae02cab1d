//! The client's side of the handshake: resolve, connect and upgrade under one deadline.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, Uri};
use tungstenite::client::IntoClientRequest;
use tungstenite::error::{Error as TungsteniteError, ProtocolError};
use tungstenite::handshake::client::{ClientHandshake, Request};
use tungstenite::handshake::{HandshakeError, MidHandshake};

use super::{Role, Socket, WebSocket};
use crate::deadline::Deadline;
use crate::duplex::outgoing::Sink;
use crate::error::{Disconnect, Error, Phase, Result};
use crate::thread::Threads;

/// What we call ourselves in the handshake.
const AGENT: &str = concat!("plugin-runner/", env!("CARGO_PKG_VERSION"));

/// Bytes read at a time during the handshake.
const HEAD_BUFFER: usize = 2048;

impl WebSocket {
    /// Connects to a `ws://` URL and does the client's handshake.
    ///
    /// Blocks at most for `timeout`, which covers looking the name up, connecting, and the
    /// handshake; nothing wakes it earlier. Redirects are not followed.
    ///
    /// # Errors
    /// - [`Error::Timeout`] with [`Phase::Handshake`]: the time ran out.
    /// - [`Error::Disconnected`]: the server refused ([`Disconnect::Refused`], with the HTTP
    ///   status), answered with something else than WebSocket ([`Disconnect::Violation`]), or hung
    ///   up ([`Disconnect::Lost`]).
    /// - [`Error::Unsupported`]: a `wss://` URL; TLS is not built in.
    /// - [`Error::Setting`]: not a WebSocket URL.
    /// - [`Error::Io`]: the name is not known, or nobody listens.
    /// - [`Error::ThreadLimit`] is never returned: the thread that looks the name up is not part
    ///   of any host's budget.
    pub fn connect(url: &str, timeout: Duration) -> Result<Self> {
        let deadline = Deadline::after(timeout);
        let request = request(url)?;
        let (host, port) = address(request.uri())?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in resolve(&host, port, deadline, timeout)? {
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return Err(Error::timeout(Phase::Handshake, timeout));
            }
            match TcpStream::connect_timeout(&address, remaining) {
                Ok(stream) => return handshake(stream.into(), request, deadline, timeout),
                Err(error) => last = error,
            }
        }
        if deadline.has_passed() {
            return Err(Error::timeout(Phase::Handshake, timeout));
        }
        Err(Error::io(format!("connect to {host}:{port}"), last))
    }

    /// Connects to a Unix socket and does the client's handshake there. `url` gives the host name
    /// and path for the request, as in `ws://localhost/rpc?token=…`.
    ///
    /// Blocks at most for `timeout`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_unix(path: &Path, url: &str, timeout: Duration) -> Result<Self> {
        let deadline = Deadline::after(timeout);
        let request = request(url)?;
        let stream = connect_unix(path, deadline).map_err(|error| match error.kind() {
            // A full queue of the listener, for as long as the time limit on the socket.
            io::ErrorKind::WouldBlock => Error::timeout(Phase::Handshake, timeout),
            _ => Error::io(format!("connect to {}", path.display()), error),
        })?;
        handshake(stream.into(), request, deadline, timeout)
    }
}

fn request(url: &str) -> Result<Request> {
    // The URL is not repeated in errors: it holds a token.
    let mut request = url.into_client_request().map_err(|error| Error::Setting {
        name: "url",
        problem: error.to_string().into(),
    })?;
    match request.uri().scheme_str() {
        Some("ws") => {}
        Some("wss") => {
            return Err(Error::Unsupported(
                "wss:// needs TLS, which is not built in: use ws://, or a proxy that adds TLS",
            ));
        }
        _ => {
            return Err(Error::Setting {
                name: "url",
                problem: "not a ws:// URL".into(),
            });
        }
    }
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static(AGENT));
    Ok(request)
}

fn address(uri: &Uri) -> Result<(String, u16)> {
    let host = uri.host().unwrap_or_default();
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() {
        return Err(Error::Setting {
            name: "url",
            problem: "it names no host".into(),
        });
    }
    Ok((host.to_owned(), uri.port_u16().unwrap_or(80)))
}

/// Looks a name up. The system's function has no time limit, so it runs on a thread of its own,
/// which is left behind when the time is over.
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
        // Nobody waits any more if the time was over.
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

fn handshake(
    socket: Socket,
    request: Request,
    deadline: Deadline,
    timeout: Duration,
) -> Result<WebSocket> {
    socket
        .prepare()
        .map_err(|error| Error::io("prepare the socket", error))?;
    let mut conversation = Conversation {
        socket,
        deadline,
        buffer: Vec::new(),
        given: 0,
        matched: 0,
    };
    let started = ClientHandshake::start(&mut conversation, request, None);
    match started.map(MidHandshake::handshake) {
        Ok(Ok(_)) => {
            let already_read = conversation.buffer.split_off(conversation.given);
            let socket = conversation.socket;
            Ok(WebSocket::from_upgraded(socket, Role::Client, already_read))
        }
        Ok(Err(HandshakeError::Failure(error))) | Err(error) => Err(refusal(error, timeout)),
        // The conversation waits instead of reporting that it would block.
        Ok(Err(HandshakeError::Interrupted(_))) => Err(Error::timeout(Phase::Handshake, timeout)),
    }
}

fn refusal(error: TungsteniteError, timeout: Duration) -> Error {
    let cause = match error {
        TungsteniteError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Error::timeout(Phase::Handshake, timeout);
        }
        TungsteniteError::Io(error) => Disconnect::from(error),
        TungsteniteError::Http(response) => Disconnect::Refused {
            status: response.status().as_u16(),
        },
        TungsteniteError::Protocol(ProtocolError::HandshakeIncomplete) => Disconnect::Lost,
        other => Disconnect::Violation(other.to_string().into()),
    };
    Error::Disconnected(Arc::new(cause))
}

/// The end of an HTTP head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// The socket during the handshake: every read and write is under the deadline. Nothing beyond
/// the end of the response's head is given to the handshake, so nothing is lost in its buffers.
struct Conversation {
    socket: Socket,
    deadline: Deadline,
    buffer: Vec<u8>,
    /// How much of the buffer has been given out.
    given: usize,
    /// How much of the end of the head has been seen; all of it when it is over.
    matched: usize,
}

impl Read for &mut Conversation {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.matched == HEAD_END.len() {
            return Ok(0);
        }
        if self.given == self.buffer.len() {
            if !self.socket.wait_readable(self.deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.buffer.resize(HEAD_BUFFER, 0);
            self.given = 0;
            let count = self.socket.read(&mut self.buffer);
            self.buffer.truncate(*count.as_ref().unwrap_or(&0));
            count?;
        }
        let mut count = 0;
        while let Some((byte, place)) = self.buffer.get(self.given).zip(into.get_mut(count)) {
            *place = *byte;
            count += 1;
            self.matched = match (byte, self.matched) {
                (b'\r', 2) => 3,
                (b'\r', _) => 1,
                (b'\n', 1) => 2,
                (b'\n', 3) => 4,
                _ => 0,
            };
            self.given += 1;
            if self.matched == HEAD_END.len() {
                break;
            }
        }
        Ok(count)
    }
}

impl Write for &mut Conversation {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.socket.wait_writable(self.deadline)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
