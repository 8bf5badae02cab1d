//! What a connection counts, on the host's side and on the plugin's. Plain atomics; reading returns a
//! snapshot that may be off by what happens meanwhile.

use std::sync::atomic::Ordering;

use crate::counters::counters;
use crate::error::{Disconnect, Error};

counters! {
    /// Counts of what went over a plugin's connections.
    RpcCounters, LiveRpcCounters;
    /// Calls to the plugin that were started.
    calls,
    /// Calls to the plugin that wait for an answer now.
    calls_in_flight,
    /// Calls that the plugin answered with a result.
    replies,
    /// Answers that a lone caller read from the connection itself.
    read_by_caller,
    /// Calls that the plugin answered with an error.
    refusals,
    /// Calls whose time ran out.
    timeouts,
    /// Calls that failed because the connection ended or was not there.
    disconnects,
    /// Calls that failed in any other way, such as an answer that cannot be read.
    other_errors,
    /// Answers without a waiting call: their id is late, used up, unknown, or not of the host's form.
    stray_replies,
    /// Calls from the plugin.
    inbound_calls,
    /// Calls from the plugin that are queued or being handled now.
    inbound_in_flight,
    /// Calls from the plugin that were refused because too many were in progress.
    inbound_refused,
    /// Calls from the plugin that were refused because it sent more messages in a second than it may.
    inbound_limited,
    /// Requests from the plugin without an id, which get no answer.
    notifications,
    /// Messages from the plugin that are not JSON-RPC. What a stdio plugin prints is output, and not counted.
    unreadable,
    /// Messages from the plugin that are binary, which the protocol has no use for.
    binary,
    /// Connections that ended because the plugin sent a message over the limit.
    too_large,
    /// Connections that ended because the plugin sent text that is not UTF-8.
    not_utf8,
    /// Connections that ended because the plugin broke the transport's protocol.
    violations,
    /// Connections that were given up because the plugin read nothing for too long.
    stalls,
    /// Connections that were closed because the plugin asked faster than it read the answers.
    overflows,
    /// Pings sent to see whether the plugin is alive; see [`Health`](crate::Health).
    pings_sent,
    /// Pings after which no sign of life came in time.
    pings_missed,
    /// Bytes of messages sent.
    bytes_sent,
    /// Bytes of messages received.
    bytes_received,
}

impl LiveRpcCounters {
    /// Counts the end of a connection that was the plugin's fault.
    pub(crate) fn count_end(&self, cause: &Disconnect) {
        let counter = match cause {
            Disconnect::TooLarge { .. } => &self.too_large,
            Disconnect::NotUtf8 => &self.not_utf8,
            Disconnect::Violation(_) => &self.violations,
            Disconnect::Stalled { .. } => &self.stalls,
            Disconnect::ControlOverflow => &self.overflows,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failure(&self, error: &Error) {
        let counter = match error {
            Error::Timeout { .. } => &self.timeouts,
            Error::Disconnected(_) | Error::State { .. } => &self.disconnects,
            Error::Rpc(_) => &self.refusals,
            _ => &self.other_errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
