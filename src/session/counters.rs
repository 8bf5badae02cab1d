//! What a session counts beside its connections' own counts. Plain atomics; reading returns a snapshot
//! that may be off by what happens meanwhile.

use crate::counters::counters;
use crate::rpc::{LiveRpcCounters, RpcCounters};

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
    ;
    /// What went over its connections.
    rpc: RpcCounters, LiveRpcCounters,
}
