//! Accepting plugins that connect in: a [`Listener`] of the host's own, the same handshake for streams
//! that the embedder accepted, and the verdict alone, an [`Admission`] or a [`Refusal`], for a request
//! that the embedder's HTTP server has read.
//!
//! What lives here: the decision on a request, the answer 101 or a refusal. What does not: accepting,
//! reading the head and the cap (`http`), the use of a connection (`session`), and the frames on it
//! (`duplex`).
//!
//! Each handshake runs on a short thread of its own, under a deadline and a cap, so that slow or
//! silent clients delay no others.
//!
//! # The access log
//! Each attempt to connect is one line of the log, at level info with the target `plugin_runner::access`: the
//! peer's address and user agent, the plugin that it names if that is loaded, the status of the answer, and the
//! reason; never the token, nor anything else of the request. Requests for other paths than `/rpc`, and peers that
//! leave before their request is whole, are lines at level debug. A host writes at most 50 lines a second, and then
//! says how many it left out.
//!
//! ```text
//! /rpc from 10.0.0.7:40122, user agent "Go-http-client/1.1", plugin hello (d5k1vvc5o2dtjn9ct4bg): 101
//! /rpc from 10.0.0.7:40123, user agent "curl/8.5.0": 401 unauthenticated
//! ```

mod access;
mod admission;
mod decision;
#[cfg(feature = "_fuzzing")]
pub(crate) mod fuzzing;
mod head;
mod refusal;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use access::{Attempt, address_for_line};
use log::Level;

use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::duplex::websocket::Socket;
use crate::error::{Error, Phase, Result};
use crate::host::{HandshakeInProgress, Host, HostShared, ListenerStop};
use crate::http::{
    self, HeadError, Interruption, RefusalAnswer, Slot, Slots, accept_until, read_head,
};
use crate::session::{Peer, Session};
use admission::judge;
pub use admission::{Admission, RequestHead};
use head::{HEAD_LIMIT, Head};
pub use refusal::Refusal;

/// The stack of a handshake's thread, in bytes.
const HANDSHAKE_STACK: usize = 128 * 1024;

/// A bound address on which plugins connect to `/rpc`. Dropping it stops accepting; connections
/// that were accepted live on.
#[derive(Debug)]
#[must_use = "dropping it stops accepting"]
pub struct Listener {
    address: SocketAddr,
    stop: ListenerStop,
}

impl Listener {
    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base of the URLs that plugins on this machine connect with, such as
    /// `http://127.0.0.1:8000`.
    pub fn base_url(&self) -> String {
        base_url(self.address)
    }

    /// Stops accepting. Does not block; handshakes in progress are given up.
    pub fn stop(&self) {
        self.stop.stop();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

impl Host {
    /// Binds an address and accepts plugins on it. Unless the builder named an
    /// [`rpc_base_url`](crate::HostBuilder::rpc_base_url), the oldest listener that is bound is what
    /// supervised plugins are told to connect to.
    ///
    /// `address` is a literal such as `127.0.0.1:8000` or `[::1]:0`; port 0 takes a free one. Host names
    /// are not resolved, because resolving has no deadline. Does not block.
    ///
    /// # Errors
    /// - [`Error::Setting`] when `address` is not a literal address.
    /// - [`Error::Io`] when the address cannot be bound, or no thread can be started.
    /// - [`Error::ThreadLimit`] when no thread is left.
    /// - [`Error::ShutDown`].
    pub fn listen(&self, address: &str) -> Result<Listener> {
        let shared = self.shared();
        if shared.context.is_shut_down() {
            return Err(Error::ShutDown);
        }
        let (listener, address) = http::bind(address)?;
        let (stopped, writer) =
            io::pipe().map_err(|error| Error::io(format!("listen on {address}"), error))?;
        let base = base_url(address);
        let stop = ListenerStop::new(shared.context.clone(), base.as_str().into(), writer);
        let acceptor = Acceptor {
            host: shared.clone(),
            listener,
            stopped: Arc::new(stopped),
            slots: Slots::new(shared.context.settings.limits.handshakes, "handshakes"),
        };
        shared
            .context
            .services
            .threads
            .spawn("host-accept", HANDSHAKE_STACK, move || acceptor.run())?;
        shared.context.services.addresses.add(base);
        let mut listeners = shared.listeners.lock();
        listeners.retain(|listener| !listener.has_stopped());
        listeners.push(stop.clone());
        drop(listeners);
        if shared.context.is_shut_down() {
            stop.stop();
        }
        Ok(Listener { address, stop })
    }

    /// Performs the handshake on a stream that the embedder accepted, a [`TcpStream`](std::net::TcpStream) or
    /// [`UnixStream`](std::os::unix::net::UnixStream), and attaches the connection to its session.
    /// [`Limits::handshakes`](crate::Limits::handshakes) does not apply: the embedder limits how many run at
    /// once.
    ///
    /// ```no_run
    /// use std::net::TcpListener;
    /// use std::thread;
    ///
    /// use plugin_runner::Host;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = TcpListener::bind("127.0.0.1:8000")?;
    /// let host = Host::builder().rpc_base_url("http://127.0.0.1:8000").build()?;
    /// for stream in listener.incoming() {
    ///     let (stream, host) = (stream?, host.clone());
    ///     thread::spawn(move || host.accept(stream));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Blocking
    /// At most [`Timeouts::handshake`](crate::Timeouts::handshake), and for the store's I/O. Data from the
    /// peer wakes it; a shutdown of the host does not.
    ///
    /// # Errors
    /// - [`Error::Refused`] with the status that the peer was sent.
    /// - [`Error::Timeout`] with [`Phase::Handshake`] when the peer was too slow.
    /// - [`Error::Io`] when the peer went away, or the connection cannot be taken into use.
    /// - [The store's](crate::store::Store#errors), with an external plugin.
    /// - [`Error::State`] or [`Error::NotLoaded`] when the plugin was stopped or unloaded just as it was
    ///   accepted.
    pub fn accept(&self, stream: impl Into<OwnedFd>) -> Result<Session> {
        self.accept_with_head(stream, Vec::new())
    }

    /// [`accept`](Self::accept) for a stream that the embedder has read from: `already_read` is everything
    /// it read, usually the whole request head.
    ///
    /// # Blocking
    /// As [`accept`](Self::accept).
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_with_head(
        &self,
        stream: impl Into<OwnedFd>,
        already_read: Vec<u8>,
    ) -> Result<Session> {
        let socket = Arc::new(Socket::of(stream.into()));
        handshake(self.shared(), socket, already_read, None)
    }
}

/// Returns the URL by which programs on this machine reach an address.
pub(crate) fn base_url(address: SocketAddr) -> String {
    // A literal address: a name may resolve to another family than the one that is bound.
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

struct Acceptor {
    host: Arc<HostShared>,
    listener: TcpListener,
    stopped: Arc<io::PipeReader>,
    slots: Arc<Slots>,
}

impl Acceptor {
    fn run(self) {
        let accepted = |stream, address| self.accepted(Socket::from(stream), address);
        let failed = || count_by(&self.host.handshakes.accept_errors, 1);
        accept_until(&self.stopped, &self.listener, accepted, failed);
    }

    fn accepted(&self, socket: Socket, address: SocketAddr) {
        let socket = Arc::new(socket);
        let Some(slot) = self.slots.take(&socket) else {
            let in_progress = HandshakeInProgress::begin(self.host.clone());
            let refusal = Refusal::from(RefusalAnswer::BUSY).counted(in_progress, peer(&socket));
            refuse(&socket, refusal, Deadline::after(Duration::ZERO));
            return;
        };
        let (host, stopped) = (self.host.clone(), self.stopped.clone());
        let started =
            self.host
                .context
                .services
                .threads
                .spawn("handshake", HANDSHAKE_STACK, move || {
                    let mut guard = Guard { stopped, slot };
                    // What became of it is in the access log.
                    let _ = handshake(&host, socket, Vec::new(), Some(&mut guard));
                });
        if let Err(error) = started {
            count_by(&self.host.handshakes.no_thread, 1);
            let line = format_args!("connection from {address} dropped: {error}");
            self.host.access.write(Level::Warn, line);
        }
    }
}

/// What can interrupt a listener's handshake.
struct Guard {
    stopped: Arc<io::PipeReader>,
    slot: Slot,
}

/// The whole handshake, from the first byte to the attached connection.
fn handshake(
    host: &Arc<HostShared>,
    socket: Arc<Socket>,
    already_read: Vec<u8>,
    guard: Option<&mut Guard>,
) -> Result<Session> {
    let counts = &host.handshakes;
    let in_progress = HandshakeInProgress::begin(host.clone());
    let limit = host.context.settings.timeouts.handshake;
    let deadline = Deadline::after(limit);
    let gone = || Error::io("do the handshake", io::ErrorKind::ConnectionAborted);
    let refused = |in_progress, answer| {
        let refusal = Refusal::from(answer).counted(in_progress, peer(&socket));
        refuse(&socket, refusal, deadline)
    };
    let interruption = guard.as_deref().map(|guard| Interruption {
        stop: &guard.stopped,
        slot: &guard.slot,
    });
    let mut head = already_read;
    let end = match read_head(&socket, &mut head, HEAD_LIMIT, deadline, interruption) {
        Ok(end) => end,
        Err(HeadError::TooLarge) => {
            return Err(refused(in_progress, RefusalAnswer::HEAD_TOO_LARGE));
        }
        Err(HeadError::SlotLost) => return Err(refused(in_progress, RefusalAnswer::BUSY)),
        Err(HeadError::Gone) => {
            count_by(&counts.hung_up, 1);
            unanswered(
                host,
                &socket,
                Level::Debug,
                "the peer left, or the listener stopped",
            );
            return Err(gone());
        }
        // Unanswered: a 4xx would make an SDK that was merely slow give up for good.
        Err(HeadError::Timeout) => {
            count_by(&counts.timed_out, 1);
            let why = format_args!("the request was not whole after {limit:?}");
            unanswered(host, &socket, Level::Info, why);
            return Err(Error::timeout(Phase::Handshake, limit));
        }
    };
    if guard.is_some_and(|guard| !guard.slot.keep()) {
        return Err(refused(in_progress, RefusalAnswer::BUSY));
    }
    let rest = head.split_off(end);
    // Now, because the end of the socket forgets it.
    let head = RequestHead::judged(Head::parse(&head)).address(socket.peer_address());
    let admission =
        judge(in_progress, head, deadline).map_err(|refusal| refuse(&socket, refusal, deadline))?;
    socket
        .write_within(&admission.to_bytes(), deadline)
        .map_err(|error| Error::io("answer the handshake", error))?;
    // The handshake slots held the other handle, and have dropped it.
    let socket = Arc::into_inner(socket).ok_or_else(gone)?;
    admission.attach_socket(socket, rest)
}

/// Returns who is refused before its request is known.
fn peer(socket: &Socket) -> Peer {
    Peer {
        address: address_for_line(socket),
        ..Peer::default()
    }
}

/// Writes the line of an attempt that got no answer.
fn unanswered(host: &HostShared, socket: &Socket, level: Level, why: impl fmt::Display) {
    Attempt::of(&peer(socket)).ended(host, level, format_args!("no answer, {why}"));
}

/// Sends a refusal, as far as the peer reads it, and returns it as an error.
fn refuse(socket: &Socket, refusal: Refusal, deadline: Deadline) -> Error {
    http::refuse(socket, &refusal.to_bytes(), deadline);
    refusal.into()
}
