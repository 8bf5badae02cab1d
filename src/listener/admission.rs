//! Admitting a plugin from a request head: the verdict, which is one implementation for the host's own
//! listeners and for an embedder's server, and what follows it.

use std::fmt;
use std::os::fd::OwnedFd;

use log::Level;

use super::access::{Attempt, address_for_line};
use super::decision::{Admitted, decide};
use super::head::{HEAD_LIMIT, Head};
use super::refusal::Refusal;
use crate::auth::rpc_query;
use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::duplex::websocket::{Socket, WebSocket};
use crate::error::{Error, Phase, Result};
use crate::host::{HandshakeInProgress, Host};
use crate::http::{RefusalAnswer, end_of_head};
use crate::session::{Peer, Reservation, Session};

/// The head of a request, as [`Host::admit`] judges it.
pub struct RequestHead {
    parsed: std::result::Result<Head, &'static RefusalAnswer>,
    address: String,
}

impl RequestHead {
    /// Returns the head with these parts, which a server has read. `target` is the path and query as they
    /// came, still encoded; `minor` is the second figure of the HTTP version, such as 1 for HTTP/1.1;
    /// `headers` are all header lines in their order, repeated ones included.
    ///
    /// The parts need not be checked before: [`Host::admit`] refuses parts that cannot be in a head, and
    /// heads that are too large, as the host's own listeners do.
    pub fn from_parts<'a>(
        method: &str,
        target: &str,
        minor: u8,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        // Written out and parsed again, so that there is one parser that decides.
        let mut head = format!("{method} {target} HTTP/1.{minor}").into_bytes();
        // A part with a line end would be parsed as several.
        let escapes = |part: &[u8]| part.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        let mut is_whole = !escapes(&head);
        for (name, value) in headers {
            if head.len() > HEAD_LIMIT {
                break;
            }
            is_whole &= !escapes(name.as_bytes()) && !escapes(value) && !name.contains(':');
            for part in [b"\r\n", name.as_bytes(), b": ", value] {
                head.extend_from_slice(part);
            }
        }
        head.extend_from_slice(b"\r\n\r\n");
        Self::judged(if head.len() > HEAD_LIMIT {
            Err(RefusalAnswer::HEAD_TOO_LARGE)
        } else if is_whole {
            Head::parse(&head)
        } else {
            Err(RefusalAnswer::BAD_REQUEST)
        })
    }

    /// Parses the bytes that were read from a connection, and returns the head with the bytes behind it,
    /// which [`Admission::attach`] takes. Returns `None` while the end of the head is missing. After 8 KiB
    /// without an end it returns a head that [`Host::admit`] refuses.
    pub fn parse(read: &[u8]) -> Option<(Self, &[u8])> {
        match end_of_head(read, 0) {
            Some(end) if end <= HEAD_LIMIT => {
                let (head, rest) = read.split_at(end);
                Some((Self::judged(Head::parse(head)), rest))
            }
            None if read.len() < HEAD_LIMIT => None,
            _ => Some((Self::judged(Err(RefusalAnswer::HEAD_TOO_LARGE)), &[])),
        }
    }

    pub(super) fn judged(parsed: std::result::Result<Head, &'static RefusalAnswer>) -> Self {
        Self {
            parsed,
            address: String::new(),
        }
    }

    /// Sets the peer's address for log lines, such as the one that a proxy in front names. Without it, the
    /// address of the stream is used once there is a stream.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }
}

impl fmt::Debug for RequestHead {
    /// Leaves the query out, because it has the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whatever else the target holds may be a secret.
        let is_rpc = |head: &Head| rpc_query(&head.target).is_some();
        f.debug_struct("RequestHead")
            .field("is_rpc", &self.parsed.as_ref().is_ok_and(is_rpc))
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A plugin that may connect. Its token is spent, and no other connection of the plugin is admitted for
/// [`Timeouts::handshake`](crate::Timeouts::handshake).
///
/// The server sends the answer, [`to_bytes`](Self::to_bytes) or its parts, and then passes the stream to
/// [`attach`](Self::attach). If it is dropped instead, or the stream does not follow in time, other
/// connections may be admitted. A supervised plugin's token stays spent:
/// [`Timeouts::connect`](crate::Timeouts::connect) ends that run, and the next run has a new token.
#[must_use = "dropping it gives the plugin's reservation up"]
pub struct Admission {
    session: Session,
    /// `None` once it is used.
    reservation: Option<Reservation>,
    deadline: Deadline,
    /// `Sec-WebSocket-Accept` of the answer.
    accept: String,
    peer: Peer,
    in_progress: HandshakeInProgress,
}

impl Admission {
    /// Returns the plugin's session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Returns the HTTP status, which is 101.
    pub fn status(&self) -> u16 {
        101
    }

    /// Returns the headers of the answer. Others may be added, but neither a body nor extensions.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", self.accept.as_str()),
        ]
        .into_iter()
    }

    /// Returns the whole answer: a status line, these headers, and no body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut answer = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
        for (name, value) in self.headers() {
            answer.extend([name, ": ", value, "\r\n"]);
        }
        answer.push_str("\r\n");
        answer.into_bytes()
    }

    /// Attaches the connection to its session, after the server has written the whole answer. From here on
    /// the host reads and writes frames. `already_read` are the bytes that the server has read behind the
    /// head. The stream, a [`TcpStream`](std::net::TcpStream) or
    /// [`UnixStream`](std::os::unix::net::UnixStream), may be non-blocking and have timeouts; both are reset.
    ///
    /// # Blocking
    /// For the store's I/O with an external plugin; it never waits for the peer.
    ///
    /// # Errors
    /// With each of them the connection is closed.
    /// - [`Error::Timeout`] with [`Phase::Handshake`]: the handshake timeout has passed since the verdict.
    /// - [`Error::State`] or [`Error::NotLoaded`]: the plugin was stopped or unloaded meanwhile, or its
    ///   token replaced.
    /// - [`Error::Io`]: the connection cannot be taken into use.
    /// - [The store's](crate::store::Store#errors), with an external plugin.
    pub fn attach(self, stream: impl Into<OwnedFd>, already_read: Vec<u8>) -> Result<Session> {
        self.attach_socket(Socket::of(stream.into()), already_read)
    }

    pub(super) fn attach_socket(
        mut self,
        socket: Socket,
        already_read: Vec<u8>,
    ) -> Result<Session> {
        if self.peer.address.is_empty() {
            // Now, because the end of the socket forgets it.
            self.peer.address = address_for_line(&socket);
        }
        let attached = self.try_attach(socket, already_read);
        match &attached {
            Ok(_) => self.log(format_args!("101")),
            Err(error) => self.log(format_args!("101, and closed: {error}")),
        }
        attached
    }

    /// Writes the line of the access log.
    fn log(&self, answered: fmt::Arguments<'_>) {
        let attempt = Attempt {
            plugin: Some(&self.session),
            ..Attempt::of(&self.peer)
        };
        attempt.ended(self.in_progress.host(), Level::Info, answered);
    }

    fn try_attach(&mut self, socket: Socket, already_read: Vec<u8>) -> Result<Session> {
        let counts = &self.in_progress.host().handshakes;
        let Some(reservation) = self.reservation.take() else {
            return Err(Error::NotLoaded(self.session.id()));
        };
        if self.deadline.has_passed() {
            count_by(&counts.timed_out, 1);
            let settings = &self.in_progress.host().context.settings;
            return Err(Error::timeout(
                Phase::Handshake,
                settings.timeouts.handshake,
            ));
        }
        let duplex = WebSocket::accepted(socket, already_read);
        reservation
            .attach(Box::new(duplex), &self.peer, false)
            .inspect_err(|_| count_by(&counts.raced, 1))?;
        Ok(self.session.clone())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.reservation.is_some() {
            count_by(&self.in_progress.host().handshakes.hung_up, 1);
            self.log(format_args!("101, and then no connection"));
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("plugin", &self.session.id())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Decides on a request, and counts the verdict before the peer can notice it.
pub(super) fn judge(
    in_progress: HandshakeInProgress,
    head: RequestHead,
    deadline: Deadline,
) -> std::result::Result<Admission, Refusal> {
    let RequestHead { parsed, address } = head;
    let host = in_progress.host();
    let (decided, user_agent) = match parsed {
        Ok(head) => (decide(host, &head, deadline), head.user_agent),
        Err(refusal) => (Err(refusal.into()), None),
    };
    let peer = Peer {
        user_agent: user_agent.unwrap_or_default(),
        address,
    };
    match decided {
        Ok(admitted) => {
            let Admitted {
                reservation,
                session,
                accept,
            } = admitted;
            count_by(&host.handshakes.accepted, 1);
            Ok(Admission {
                session,
                reservation: Some(reservation),
                deadline,
                accept,
                peer,
                in_progress,
            })
        }
        Err(refusal) => Err(refusal.counted(in_progress, peer)),
    }
}

impl Host {
    /// Decides whether a plugin may connect, from the head of a request that the embedder's own HTTP
    /// server has read and not answered. So plugins can connect on the port of that server, which passes on
    /// the requests for `/rpc` and serves all others itself. The checks, answers and counts are those of
    /// [`listen`](Self::listen). [`Limits::handshakes`](crate::Limits::handshakes) does not apply: this
    /// waits for no peer, and at most one admission per loaded plugin is valid at a time.
    ///
    /// The server must be able to hand over the [`TcpStream`](std::net::TcpStream) or
    /// [`UnixStream`](std::os::unix::net::UnixStream). Servers that only offer a boxed stream, such as
    /// `tiny_http` and `rouille`, cannot; with them, plugins connect on a port of their own, which
    /// [`listen`](Self::listen) binds.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::net::TcpStream;
    ///
    /// use plugin_runner::Host;
    /// use plugin_runner::listener::RequestHead;
    ///
    /// /// For a connection of which this much was read.
    /// fn rpc(host: &Host, mut stream: TcpStream, read: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    ///     let (head, rest) = RequestHead::parse(read).ok_or("the head is not complete")?;
    ///     match host.admit(head) {
    ///         Ok(admission) => {
    ///             stream.write_all(&admission.to_bytes())?;
    ///             admission.attach(stream, rest.to_vec())?;
    ///         }
    ///         Err(refusal) => stream.write_all(&refusal.to_bytes())?,
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Blocking
    /// For the store's I/O; it never waits for a peer.
    ///
    /// # Errors
    /// A [`Refusal`], which is the answer to send: with a 4xx for good, with a 5xx for the moment.
    pub fn admit(&self, head: RequestHead) -> std::result::Result<Admission, Refusal> {
        let in_progress = HandshakeInProgress::begin(self.shared().clone());
        let deadline = Deadline::after(self.shared().context.settings.timeouts.handshake);
        judge(in_progress, head, deadline)
    }
}
