//! What becomes of handshakes, counted for the whole host: those of its listeners and those on
//! streams that the embedder accepted. What a connection does after its handshake is counted by its
//! session.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::counters;

counters! {
    /// Counts of a host's handshakes since it was built. A refusal is counted before it is sent.
    HandshakeCounters, LiveHandshakes;
    /// Handshakes begun.
    begun,
    /// Handshakes in progress now.
    in_progress,
    /// Those that were let in, answered with 101.
    accepted,
    /// Let in, but the plugin was stopped or unloaded in that very moment.
    overtaken,
    /// Refused with 400: no HTTP request, or one with a body.
    malformed,
    /// Refused with 400: the token or the plugin's id is missing or malformed.
    invalid_parameters,
    /// Refused with 400: the WebSocket version or key is missing or wrong.
    bad_handshakes,
    /// Refused with 401: a token that is unknown, forged, spent, or of an earlier run.
    unauthenticated,
    /// Refused with 403: a browser's page from elsewhere.
    foreign_origins,
    /// Refused with 404: another path than `/rpc`.
    unknown_paths,
    /// Refused with 405: another method than GET.
    wrong_methods,
    /// Refused with 426: no WebSocket handshake, or HTTP older than 1.1.
    not_upgrades,
    /// Refused with 431: a head with too many bytes or lines.
    heads_too_large,
    /// Refused with 500: the store failed.
    internal_errors,
    /// Refused with 503: the plugin is not loaded, not started, or not wanted active.
    not_wanted,
    /// Refused with 503: the plugin has a connection.
    already_connected,
    /// Refused with 503: the host shuts down.
    shutting_down,
    /// Refused with 503: too many handshakes in progress.
    over_cap,
    /// Ended without an answer: no whole request within the handshake timeout.
    timed_out,
    /// The peer went away, or the listener stopped.
    hung_up,
    /// Accepted connections that were dropped because no thread was left for their handshake.
    no_thread,
    /// Times that the system would not give a listener a connection, such as for lack of descriptors.
    accept_errors,
}

/// A handshake while it is in progress.
pub(super) struct InProgress<'a>(&'a LiveHandshakes);

impl LiveHandshakes {
    pub(super) fn begin(&self) -> InProgress<'_> {
        count(&self.begun);
        count(&self.in_progress);
        InProgress(self)
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
