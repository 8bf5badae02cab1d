//! A small HTTP/1.1 server over blocking sockets, and what every port of a host shares: binding and
//! accepting, reading a request head under a deadline, the cap on connections, and refusals.
//!
//! A [`Server`] has a thread that accepts and one for each connection, up to a cap, on which a [`Handler`]
//! turns a [`Request`] into a [`Response`]. Whatever waits for a client has a deadline and ends with the server.
//! Where two readers could understand a request in two ways, it is refused.
//!
//! What does not live here: which paths there are and who may use them. The WebSocket handshake of plugins
//! has rules of its own, in `listener`, which stands on the parts below [`Server`].

mod accept;
mod body;
mod connection;
mod events;
#[cfg(feature = "_fuzzing")]
pub(crate) mod fuzzing;
mod head;
mod refusal;
mod request;
mod response;
mod server;
mod settings;
mod signal;
mod slots;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use accept::{accept_until, bind};
pub(crate) use body::BodyError;
pub(crate) use events::{Event, EventStream};
pub(crate) use head::{HeadError, Interruption, ParseError, ParsedHead, end_of_head, read_head};
pub(crate) use refusal::{RefusalAnswer, RefusalBody, reason, refuse};
pub(crate) use request::Request;
pub(crate) use response::Response;
pub(crate) use server::Server;
pub(crate) use settings::HttpSettings;
pub(crate) use slots::{Slot, Slots};
