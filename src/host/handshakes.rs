//! Counts of handshakes for the whole host: those of its listeners and those on streams that the
//! embedder accepted. What a connection does after its handshake is counted by its session, and so are
//! the reasons of refused handshakes that name a plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::HostShared;
use crate::counters::{count_by, counters};

counters! {
    /// Counts of a host's handshakes since it was built. A refusal is counted before it is sent.
    HandshakeCounters, LiveHandshakes;
    /// Handshakes begun.
    begun,
    /// Handshakes in progress now.
    in_progress,
    /// Handshakes answered with 101, and requests that [`Host::admit`](crate::Host::admit) admitted.
    accepted,
    /// Accepted handshakes whose plugin was stopped or unloaded before the connection was attached.
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
    /// Handshakes that took longer than [`Timeouts::handshake`](crate::Timeouts::handshake): until the whole
    /// request had come, without an answer, or from [`Host::admit`](crate::Host::admit) to the stream.
    timed_out,
    /// Handshakes whose peer went away, whose listener stopped, or whose admission was dropped.
    hung_up,
    /// Connections that were dropped because no thread was left for their handshake.
    no_thread,
    /// Times that the system refused a listener a connection, such as for lack of descriptors.
    accept_errors,
}

/// Counts a handshake as in progress while it lives.
pub(crate) struct HandshakeInProgress(Arc<HostShared>);

impl HandshakeInProgress {
    pub(crate) fn begin(host: Arc<HostShared>) -> Self {
        count_by(&host.handshakes.begun, 1);
        count_by(&host.handshakes.in_progress, 1);
        Self(host)
    }

    pub(crate) fn host(&self) -> &Arc<HostShared> {
        &self.0
    }
}

impl LiveHandshakes {
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

impl Drop for HandshakeInProgress {
    fn drop(&mut self) {
        self.0
            .handshakes
            .in_progress
            .fetch_sub(1, Ordering::Relaxed);
    }
}
