//! WebSocket connections: over TCP or a Unix socket, in either role.
//!
//! What lives here: the connection type and its split into halves. Beside it: the socket, the
//! reading half, the writing half with the frame encoder, and the client's handshake. What does
//! not: the server's handshake, which the listener does, and TLS, which is a proxy's job.
//!
//! tungstenite does the protocol on the way in (fragments, masks, UTF-8, limits). On the way out a
//! message is one text frame, which is encoded here and written by the shared writer.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::framed::FramedWriter;
use super::outgoing::Outgoing;
use super::{Duplex, DuplexReader, DuplexSettings, DuplexWriter};
use crate::error::{Error, Result};

mod client;
mod frame;
mod read_only_stream;
mod reader;
mod socket;

#[cfg(test)]
mod tests;

#[cfg(feature = "sprites")]
pub(crate) use self::client::check as check_upgrade;
#[cfg(feature = "sprites")]
pub(crate) use self::frame::client_binary;
pub(super) use self::reader::WebSocketReader;
pub(crate) use self::socket::Socket;

/// Which side of the WebSocket protocol we are. The client masks its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::duplex) enum Role {
    Server,
    Client,
}

/// A WebSocket after its handshake, not yet in use.
pub struct WebSocket {
    socket: Socket,
    role: Role,
    already_read: Vec<u8>,
}

impl WebSocket {
    /// Takes over a stream that was accepted, as its server: a [`TcpStream`](std::net::TcpStream) or
    /// [`UnixStream`](std::os::unix::net::UnixStream) after its handshake.
    ///
    /// `already_read` is what was read beyond the handshake; it is read first. Time limits and
    /// the non-blocking mode set on the stream are undone when the connection is taken into use, which fails
    /// with anything but a connected stream socket.
    pub fn server(stream: impl Into<OwnedFd>, already_read: Vec<u8>) -> Self {
        Self::over(Socket::of(stream.into()), Role::Server, already_read)
    }

    /// Takes over a stream after its handshake as the client; otherwise as [`server`](Self::server).
    /// [`connect`](Self::connect) does the handshake too.
    pub fn client(stream: impl Into<OwnedFd>, already_read: Vec<u8>) -> Self {
        Self::over(Socket::of(stream.into()), Role::Client, already_read)
    }

    /// Takes over a socket that the listener has shaken hands on.
    pub(crate) fn accepted(socket: Socket, already_read: Vec<u8>) -> Self {
        Self::over(socket, Role::Server, already_read)
    }

    fn over(socket: Socket, role: Role, already_read: Vec<u8>) -> Self {
        Self {
            socket,
            role,
            already_read,
        }
    }
}

impl Duplex for WebSocket {
    fn split(
        self: Box<Self>,
        settings: &DuplexSettings,
    ) -> Result<(Box<dyn DuplexReader>, Arc<dyn DuplexWriter>)> {
        self.socket
            .prepare()
            .map_err(|error| Error::io("prepare the socket", error))?;
        let outgoing = Outgoing::new(self.socket, settings);
        let reader = WebSocketReader::new(outgoing.clone(), self.role, self.already_read, settings);
        let writer = FramedWriter {
            framing: self.role,
            outgoing,
        };
        Ok((Box::new(reader), Arc::new(writer)))
    }

    fn peer_address(&self) -> String {
        self.socket.peer_address()
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("socket", &self.socket)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
