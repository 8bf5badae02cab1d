//! What a connection counts, on the host's side and on the plugin's. What each count means is said where
//! the host shows it, in `session`.

use std::sync::atomic::Ordering;

use crate::counters::live_counters;
use crate::error::{Disconnect, Error};

live_counters! {
    LiveRpcCounters;
    calls,
    calls_in_flight,
    replies,
    read_by_caller,
    refusals,
    timeouts,
    disconnects,
    other_errors,
    abandoned,
    stray_replies,
    inbound_calls,
    inbound_in_flight,
    inbound_refused,
    inbound_limited,
    notifications,
    unreadable,
    binary,
    too_large,
    not_utf8,
    violations,
    stalls,
    overflows,
    pings_sent,
    pings_missed,
    bytes_sent,
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
