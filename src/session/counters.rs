//! What a session counts, with the counts of its connections. Plain atomics; reading returns a snapshot
//! that may be off by what happens meanwhile.

use crate::counters::counters;
use crate::rpc::LiveRpcCounters;

counters! {
    /// Counts of one session since it was loaded.
    Counters, LiveCounters;
    /// Connections accepted.
    connections,
    /// Handshakes in the plugin's name that were refused with 401 for a token which was good once: one
    /// of a supervised plugin that is spent or of the run before, one of an external plugin that was
    /// replaced. Known of the last two tokens since the plugin was loaded.
    refused_spent_token,
    /// Those that were refused with 401 for any other token, or one that names another plugin.
    refused_wrong_token,
    /// Those with a good token that were no WebSocket handshake: with 400, 403, 405 or 426.
    refused_malformed,
    /// Those with a good token that were refused with 503 because the plugin was not wanted.
    refused_not_wanted,
    /// Those with a good token that were refused with 503 because the plugin had a connection.
    refused_already_connected,
    /// Those with a good token that were refused with 503 because the host was shutting down.
    refused_shutting_down,
    /// Events delivered and answered.
    events_delivered,
    /// Events whose delivery failed.
    events_failed,
    /// Events dropped because the queue was full or the plugin went away.
    events_dropped,
    /// Lines of output that could not be written to the log, on a full disk say. The log says so
    /// too, once it can be written again.
    log_lines_lost,
    ; rpc: LiveRpcCounters;
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
    /// Calls whose caller dropped them before it had the answer.
    abandoned,
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
