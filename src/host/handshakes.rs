//! Counts of handshakes for the whole host: those of its listeners and those on streams that the
//! embedder accepted. What a connection does after its handshake is counted by its session, and so are
//! the reasons of refused handshakes that name a plugin.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::{count_by, counters};

counters! {
    /// Counts of a host's handshakes since it was built. A refusal is counted before it is sent.
    HandshakeCounters, LiveHandshakes;
    /// Handshakes begun.
    begun,
    /// Handshakes in progress now.
    in_progress,
    /// Handshakes answered with 101.
    accepted,
    /// Handshakes answered with 101 whose plugin was stopped or unloaded at that very moment.
    raced,
    /// Malformed requests, with 400.
    refused_400,
    /// Tokens that are unknown, forged, spent, or of an earlier run, with 401.
    refused_401,
    /// A browser's pages from another origin, with 403.
    refused_403,
    /// Other paths than `/rpc`, with 404.
    refused_404,
    /// Other methods than GET, with 405.
    refused_405,
    /// Requests that are no WebSocket handshake, or use an HTTP older than 1.1, with 426.
    refused_426,
    /// Request heads with too many bytes or lines, with 431.
    refused_431,
    /// Failures of the store, with 500.
    refused_500,
    /// Plugins that are not loaded, not started, not wanted active or connected already, and all while the
    /// host shuts down, with 503.
    refused_503,
    /// Handshakes over [`Limits::handshakes`](crate::Limits::handshakes), also with 503.
    over_limit,
    /// Handshakes that ended without an answer: no whole request within the handshake timeout.
    timed_out,
    /// Handshakes whose peer went away, or whose listener stopped.
    hung_up,
    /// Connections that were dropped because no thread was left for their handshake.
    no_thread,
    /// Times that the system refused a listener a connection, such as for lack of descriptors.
    accept_errors,
}

/// Counts a handshake as in progress while it lives.
pub(crate) struct HandshakeInProgress<'a>(&'a LiveHandshakes);

impl LiveHandshakes {
    pub(crate) fn begin(&self) -> HandshakeInProgress<'_> {
        count_by(&self.begun, 1);
        count_by(&self.in_progress, 1);
        HandshakeInProgress(self)
    }

    /// Counts a refusal with this status.
    pub(crate) fn count_refusal(&self, status: u16) {
        let counter: &AtomicU64 = match status {
            401 => &self.refused_401,
            403 => &self.refused_403,
            404 => &self.refused_404,
            405 => &self.refused_405,
            426 => &self.refused_426,
            431 => &self.refused_431,
            500 => &self.refused_500,
            503 => &self.refused_503,
            _ => &self.refused_400,
        };
        count_by(counter, 1);
    }
}

impl Drop for HandshakeInProgress<'_> {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}
