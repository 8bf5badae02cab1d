//! WebSocket connections: over TCP or a Unix socket, in either role.
//!
//! What lives here: the connection type and its split into halves. Beside it: [`Socket`], the
//! reading half, the writing half with the frame encoder, and the client's handshake. What does
//! not: the server's handshake, which the listener does, and TLS, which is a proxy's job.
//!
//! tungstenite does the protocol on the way in (fragments, masks, UTF-8, limits). On the way out a
//! message is one text frame, which is encoded here and written by the shared writer.

use std::fmt;
use std::sync::Arc;

use super::framed::FramedWriter;
use super::outgoing::Outgoing;
use super::{Duplex, DuplexSettings, Halves};
use crate::error::{Error, Result};

mod client;
mod frame;
mod read_only_stream;
mod reader;
mod socket;

#[cfg(test)]
mod tests;

pub(super) use self::reader::WebSocketReader;
pub use self::socket::Socket;

/// Which side of the WebSocket protocol we are. The client masks its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We accepted the connection.
    Server,
    /// We made the connection.
    Client,
}

/// A WebSocket after its handshake, not yet in use.
pub struct WebSocket {
    socket: Socket,
    role: Role,
    already_read: Vec<u8>,
}

impl WebSocket {
    /// Takes over a socket whose handshake has been done.
    ///
    /// `already_read` is what was read beyond the handshake; it is read first. Time limits and
    /// the non-blocking mode set on the socket are undone when the connection is taken into use.
    pub fn from_upgraded(socket: impl Into<Socket>, role: Role, already_read: Vec<u8>) -> Self {
        Self {
            socket: socket.into(),
            role,
            already_read,
        }
    }
}

impl Duplex for WebSocket {
    fn split(self: Box<Self>, settings: &DuplexSettings) -> Result<Halves> {
        self.socket
            .prepare()
            .map_err(|error| Error::io("prepare the socket", error))?;
        let outgoing = Outgoing::new(self.socket, settings);
        let reader = WebSocketReader::new(outgoing.clone(), self.role, self.already_read, settings);
        let writer = FramedWriter {
            framing: self.role,
            outgoing: outgoing.clone(),
        };
        Ok(Halves {
            reader: Box::new(reader),
            writer: Arc::new(writer),
            interrupt: Arc::new(outgoing),
        })
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
