//! Settings: every time and every bound of the host, with its default. No behaviour but the
//! check that they can work.

use std::time::Duration;

use crate::error::{Error, Result};

/// Every time that the host waits for something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// From the spawn of a supervised plugin until it must be connected. Default 5 min, because
    /// real plugins compile themselves at their first start.
    pub connect: Duration,
    /// For the answer to a call that the host makes itself, such as an event; and for writing the
    /// answer to a plugin's call. Default 30 s.
    pub call: Duration,
    /// For a whole handshake of an incoming connection. Default 10 s.
    pub handshake: Duration,
    /// Between the end of a connection and that of its process. Default 5 s.
    pub disconnect_grace: Duration,
    /// Between the first signal of a stop and the kill. Default 3 s.
    pub stop_grace: Duration,
    /// For a whole stop that names no time of its own, and for dropping the host. Default 5 s.
    pub stop: Duration,
    /// A connection that takes not one byte for so long is given up. Default 10 s.
    pub write_stall: Duration,
    /// For a sign of life of a connection that a newcomer would take the place of. Default 5 s.
    pub incumbent: Duration,
    /// An inbound or delivery worker with nothing to do for so long ends. Default 1 s.
    pub worker_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(300),
            call: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            disconnect_grace: Duration::from_secs(5),
            stop_grace: Duration::from_secs(3),
            stop: Duration::from_secs(5),
            write_stall: Duration::from_secs(10),
            incumbent: Duration::from_secs(5),
            worker_idle: Duration::from_secs(1),
        }
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
            ("incumbent", self.incumbent),
        ];
        for (name, value) in positive {
            if value.is_zero() {
                return Err(Error::Setting {
                    name,
                    problem: "must be longer than zero".into(),
                });
            }
        }
        if self.stop_grace >= self.stop {
            return Err(Error::Setting {
                name: "stop_grace",
                problem: "must be shorter than stop, which includes the time after the kill".into(),
            });
        }
        Ok(())
    }
}

/// Every bound of the host. What goes over one is refused with an error that names it, or, where
/// nobody waits for an answer, counted (see [`Counters`](crate::Counters)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest message that is read from a plugin, in bytes; a larger one ends its connection.
    /// Default 4 MiB. What may be *sent* follows the peer.
    pub read_message: usize,
    /// Bytes that may wait to be written to one plugin before callers wait for room, within their own
    /// timeouts. Default 8 MiB.
    pub outgoing: usize,
    /// Calls to one plugin that may wait for an answer. Default 1,024.
    pub pending_calls: usize,
    /// Calls from one plugin that are handled at once. Default 8.
    pub inbound_workers: usize,
    /// Calls from one plugin that may wait for a worker; over it they are refused with an error.
    /// Default 64.
    pub inbound_queue: usize,
    /// Events that may wait for one plugin. Default 1,024.
    pub queued_events: usize,
    /// Bytes of events that may wait for one plugin. Default 4 MiB.
    pub queued_event_bytes: usize,
    /// Handshakes that may be in progress at once on one listener; over it plugins are told to come
    /// back later. Default 64.
    pub handshakes: usize,
    /// State changes that may wait for one subscriber. Default 1,024.
    pub queued_state_changes: usize,
    /// Stack of a session's thread, in bytes. Default 128 KiB.
    pub session_stack: usize,
    /// Stack of the threads that run handlers, in bytes. Default 1 MiB.
    pub handler_stack: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            read_message: 4 * 1024 * 1024,
            outgoing: 8 * 1024 * 1024,
            pending_calls: 1024,
            inbound_workers: 8,
            inbound_queue: 64,
            queued_events: 1024,
            queued_event_bytes: 4 * 1024 * 1024,
            handshakes: 64,
            queued_state_changes: 1024,
            session_stack: 128 * 1024,
            handler_stack: 1024 * 1024,
        }
    }
}

impl Limits {
    pub(crate) fn validate(&self) -> Result<()> {
        let positive = [
            ("read_message", self.read_message),
            ("outgoing", self.outgoing),
            ("pending_calls", self.pending_calls),
            ("inbound_workers", self.inbound_workers),
            ("queued_events", self.queued_events),
            ("queued_event_bytes", self.queued_event_bytes),
            ("handshakes", self.handshakes),
            ("queued_state_changes", self.queued_state_changes),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(Error::Setting {
                    name,
                    problem: "must be at least one".into(),
                });
            }
        }
        for (name, value) in [
            ("session_stack", self.session_stack),
            ("handler_stack", self.handler_stack),
        ] {
            if value < 64 * 1024 {
                return Err(Error::Setting {
                    name,
                    problem: "must be at least 64 KiB".into(),
                });
            }
        }
        Ok(())
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
