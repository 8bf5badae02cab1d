//! One connection of a server, for fuzzing. Nothing is decided here: the connection is served as any other.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::connection::Connection;
use super::wire::{Stop, Wire};
use super::{HttpSettings, Request, Response, Slots};
use crate::duplex::websocket::Socket;

/// A request that reached the handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedRequest {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The whole body, or the status that is answered instead.
    pub body: Result<Vec<u8>, u16>,
}

/// Serves a connection to its end. Bodies may have so many bytes, and each wait takes at most the time. Returns
/// the requests that reached the handler, each of which is answered with 200 if its body is whole.
pub fn serve_connection(socket: OwnedFd, body_limit: u64, time: Duration) -> Vec<ServedRequest> {
    let settings = HttpSettings {
        head: time,
        idle: time,
        body: time,
        write: time,
        linger: time,
        ..HttpSettings::default()
    };
    let Ok(stop) = Stop::new() else {
        return Vec::new();
    };
    let socket = Arc::new(Socket::of(socket));
    let Some(slot) = Slots::new(1, "connections").take(&socket) else {
        return Vec::new();
    };
    let served: Arc<Mutex<Vec<ServedRequest>>> = Arc::default();
    let seen = served.clone();
    let handler = move |request: &mut Request<'_>| {
        let body = request.read_body(body_limit);
        let body = body.map_err(|error| error.answer().status);
        let status = body.as_ref().map_or_else(|status| *status, |_| 200);
        seen.lock().push(ServedRequest {
            method: request.method().to_owned(),
            target: request.target().to_owned(),
            body,
        });
        Response::empty(status)
    };
    let connection = Connection {
        wire: Wire::new(socket, Arc::new(stop), settings.write),
        slot,
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        settings: Arc::new(settings),
        handler: Arc::new(handler),
    };
    connection.run();
    std::mem::take(&mut *served.lock())
}
