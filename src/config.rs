//! Settings: every time limit and every bound of the host, with its default. No behaviour but
//! validation.

use std::time::Duration;

use crate::error::Result;
use crate::settings::{require, settings};

settings! {
    /// How long the host waits for what.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use plugin_runner::{Host, Timeouts};
    ///
    /// # fn main() -> plugin_runner::Result<()> {
    /// let timeouts = Timeouts::default()
    ///     .connect(Duration::from_secs(60))
    ///     .stop_grace(Duration::from_secs(1));
    /// let host = Host::builder().timeouts(timeouts).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub struct Timeouts {
        /// From the spawn of a supervised plugin until it must be connected. Default 5 min, because
        /// real plugins compile themselves at their first start.
        connect: Duration = Duration::from_secs(300);
        /// The time limit of a call that the host makes itself, such as an event, and of writing the
        /// answer to a plugin's call. Default 30 s.
        call: Duration = Duration::from_secs(30);
        /// The time limit of the whole handshake of an incoming connection, and from a verdict of
        /// [`Host::admit`](crate::Host::admit) to its stream. Default 10 s.
        handshake: Duration = Duration::from_secs(10);
        /// How long a supervised plugin may live after its connection has ended. Default 5 s.
        disconnect_grace: Duration = Duration::from_secs(5);
        /// The time between the first signal of a stop and the kill. Default 3 s.
        stop_grace: Duration = Duration::from_secs(3);
        /// The time limit of a stop that has none of its own, and of dropping the host. Default 5 s.
        stop: Duration = Duration::from_secs(5);
        /// A connection that accepts no byte for this long is closed. Default 10 s.
        write_stall: Duration = Duration::from_secs(10);
    }
}

impl Timeouts {
    pub(crate) fn validate(&self) -> Result<()> {
        let positive = [
            ("connect", self.connect),
            ("call", self.call),
            ("handshake", self.handshake),
            ("stop", self.stop),
            ("write_stall", self.write_stall),
        ];
        for (name, value) in positive {
            require(!value.is_zero(), name, "must be longer than zero")?;
        }
        require(
            self.stop_grace < self.stop,
            "stop_grace",
            "must be shorter than stop, which includes the time after the kill",
        )
    }
}

settings! {
    /// The bounds that the host keeps its plugins to. What exceeds one is refused with an error that names it
    /// or, where no caller waits for an answer, counted (see [`Counters`](crate::report::Counters)).
    pub struct Limits {
        /// Largest message that is read from a plugin, in bytes; a larger one ends its connection.
        /// Default 4 MiB. The limit of messages to a plugin depends on its SDK.
        inbound_message: usize = 4 * 1024 * 1024;
        /// Bytes that may wait to be written to one plugin before callers wait for room, within their
        /// own timeouts. Default 8 MiB.
        outbound_bytes: usize = 8 * 1024 * 1024;
        /// Calls to one plugin that may wait for an answer. Default 1,024.
        pending_calls: usize = 1024;
        /// Calls from one plugin that are handled at once. Default 8.
        inbound_workers: usize = 8;
        /// Calls from one plugin that may wait for a worker; further ones are refused with an error.
        /// Default 1,024.
        inbound_queue: usize = 1024;
        /// Bytes that calls from one plugin may hold until they are answered; further ones are refused
        /// with an error. A single call may be larger. Default 8 MiB.
        inbound_bytes: usize = 8 * 1024 * 1024;
        /// Messages that one plugin may send in a second, in a burst or evenly; 0, the default, is no
        /// limit. Further calls are refused with an error (code -32000). Answers to the host's calls are
        /// always accepted and never count. All other messages count, but are not answered: requests
        /// without an id, binary messages, messages that are not JSON-RPC, answers that no caller waits
        /// for. [`Overrides`](crate::store::Overrides) has the same limit for a single plugin.
        inbound_per_second: u32 = 0;
        /// Events that may wait for one plugin. Default 1,024.
        queued_events: usize = 1024;
        /// Bytes of events that may wait for one plugin. Default 4 MiB.
        queued_event_bytes: usize = 4 * 1024 * 1024;
        /// Handshakes that may be in progress at once on one listener. When there are more, the oldest
        /// one whose request is incomplete is refused with 503, or the new one if there is none. For a
        /// moment there may be twice as many threads. Default 64.
        handshakes: usize = 64;
        /// Stack of the threads that run handlers, in bytes. Default 1 MiB.
        handler_stack: usize = 1024 * 1024;
    }
}

impl Limits {
    pub(crate) fn validate(&self) -> Result<()> {
        let positive = [
            ("inbound_message", self.inbound_message),
            ("outbound_bytes", self.outbound_bytes),
            ("pending_calls", self.pending_calls),
            ("inbound_workers", self.inbound_workers),
            ("inbound_bytes", self.inbound_bytes),
            ("queued_events", self.queued_events),
            ("queued_event_bytes", self.queued_event_bytes),
            ("handshakes", self.handshakes),
        ];
        for (name, value) in positive {
            require(value > 0, name, "must be at least one")?;
        }
        require(
            self.handler_stack >= 64 * 1024,
            "handler_stack",
            "must be at least 64 KiB",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        Timeouts::default().validate().unwrap();
        Limits::default().validate().unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let limits = Limits {
            pending_calls: 0,
            ..Limits::default()
        };
        assert_eq!(
            limits.validate().unwrap_err().to_string(),
            "setting pending_calls: must be at least one"
        );
        let timeouts = Timeouts {
            stop_grace: Duration::from_secs(9),
            ..Timeouts::default()
        };
        assert!(
            timeouts
                .validate()
                .unwrap_err()
                .to_string()
                .starts_with("setting stop_grace: must be shorter")
        );
    }
}
