//! HTTP/1.1 over blocking sockets: what every port of a host shares. Binding and accepting, reading a
//! request head under a deadline, the cap on connections, and refusals.
//!
//! What does not live here: which requests are right; that is decided by `listener` for a WebSocket
//! handshake.

mod accept;
mod head;
mod refusal;
mod slots;

pub(crate) use accept::{accept_until, bind};
pub(crate) use head::{HeadError, Interruption, ParseError, ParsedHead, end_of_head, read_head};
pub(crate) use refusal::{RefusalAnswer, refuse};
pub(crate) use slots::{Slot, Slots};
