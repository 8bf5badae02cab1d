//! How long a server waits for what, and how many connections it serves.

use std::time::Duration;

use super::refusal::{RefusalAnswer, RefusalBody};

/// The deadlines and bounds of one server. There is one deadline for each phase of a request; none begins
/// again with each byte.
///
/// Fixed are the bounds of a head (16 KiB, 64 lines), of a chunk's size line (256 bytes, 8 digits) and of all
/// chunk extensions and trailers of a body (16 KiB). The bound of a body is the handler's.
#[derive(Clone, Debug)]
pub(crate) struct HttpSettings {
    /// Connections that are served at once. When there are more, the one that has waited longest for a whole
    /// request head, or to send the rest of a request that was answered, is closed; if none waits, the new one
    /// is refused with 503. Default 256.
    pub(crate) connections: usize,
    /// From the first byte of a request until its whole head has come; then it is refused with 408. A new
    /// connection that sends nothing for this long is closed. Default 10 s.
    pub(crate) head: Duration,
    /// How long a connection may be idle between two requests before it is closed. Default 60 s.
    pub(crate) idle: Duration,
    /// How long a body may take, beyond the time that its bytes take at [`body_rate`](Self::body_rate); then
    /// it is refused with 408. Default 30 s.
    pub(crate) body: Duration,
    /// The least rate of a body, in bytes per second: a body of `n` bytes may take `body` and `n / body_rate`
    /// seconds. Default 16 KiB/s.
    pub(crate) body_rate: u64,
    /// How long each 64 KiB of a response may take, and each event of a stream; then the connection is
    /// closed. Default 10 s.
    pub(crate) write: Duration,
    /// How long what a client still sends is discarded after the last response, so that closing the
    /// connection does not destroy that response. Default 1 s.
    pub(crate) linger: Duration,
    /// The stack of a connection's thread, on which handlers run, in bytes. Default 1 MiB.
    pub(crate) stack: usize,
    /// How it words what it refuses before there is a handler, or because the handler panicked. Default one
    /// line of plain text.
    pub(crate) refusal_body: fn(&RefusalAnswer) -> RefusalBody,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connections: 256,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            body: Duration::from_secs(30),
            body_rate: 16 * 1024,
            write: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            stack: 1024 * 1024,
            refusal_body: RefusalAnswer::plain_text,
        }
    }
}
