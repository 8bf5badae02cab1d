//! `Health`: how a plugin's connection is watched for signs of life. No behaviour but validation; the
//! watching is in `session`.

use std::time::Duration;

use crate::error::Result;
use crate::settings::{require, settings};

settings! {
    /// How the host finds connections whose plugin shows no sign of life: a process that hangs or
    /// is stopped, a machine without power.
    ///
    /// Every [`interval`](Self::interval) the plugin is pinged. On a socket that is a WebSocket ping,
    /// and whatever arrives after it is a sign of life. A plugin over stdio gets the protocol's `ping`
    /// ([`ping`](crate::protocol#ping)): any answer counts, also an error, and
    /// so does any line that it prints.
    ///
    /// A plugin may be unable to answer while a handler runs: over stdio, and with Python's `websockets`
    /// (a user agent `Python/… websockets/…`), where handlers run on the event loop that answers pings.
    /// The silence of such a plugin does not count while a call to it is outstanding within its time
    /// limit, for [`busy_limit`](Self::busy_limit) at most; over stdio it is not pinged either. A call
    /// that timed out while the plugin sent nothing excuses nothing, and neither do calls after it. A
    /// plugin that is asked with the protocol's `ping` is not pinged while the host handles one of its
    /// own calls, however long that takes. An existing connection that a new one would replace is
    /// checked without any excuse: it has five seconds to show a sign of life.
    ///
    /// Plugins are pinged in groups, so that the host does not wake up for each of many: up to a
    /// sixteenth of the interval (or of the timeout, if that is shorter) early, and their answers are
    /// checked as much late.
    ///
    /// When [`misses_allowed`](Self::misses_allowed) is exceeded the plugin is unresponsive: the
    /// connection ends with [`Disconnect::Unresponsive`](crate::error::Disconnect::Unresponsive). A
    /// supervised plugin is killed and, as after any crash, started again; an external one sees close
    /// code 1012 and may come back at once. With the defaults that is 100 to 130 seconds after
    /// the last sign of life; for a plugin that is busy with a call, ten minutes later.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use plugin_runner::{Health, Host};
    ///
    /// # fn main() -> plugin_runner::Result<()> {
    /// let health = Health::default()
    ///     .interval(Duration::from_secs(10))
    ///     .misses_allowed(1);
    /// let host = Host::builder().health(health).build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(default)]
    pub struct Health {
        /// The time between two pings, and from the moment a plugin is active to its first. Zero switches
        /// health checks off: nothing is pinged, and no thread runs for it. Default 30 s.
        interval: Duration = Duration::from_secs(30);
        /// How long to wait for a sign of life after a ping. If the interval is shorter, the next ping
        /// waits for it. Default 10 s.
        timeout: Duration = Duration::from_secs(10);
        /// Pings in a row that may go unanswered; the next one that does makes the plugin
        /// unresponsive. Default 3.
        misses_allowed: u32 = 3;
        /// Sends the protocol's `ping` on every transport, which finds a plugin that hangs while its
        /// library answers WebSocket pings. Then only whole messages are signs of life. A transport
        /// without a ping of its own, such as one in memory, is watched with this alone. Default false.
        rpc_ping: bool = false;
        /// How long calls may excuse the silence of a plugin that cannot answer meanwhile; after that it
        /// is pinged and judged as if it were idle. A sign of life restarts the time. Zero: calls excuse
        /// nothing. Default 10 min.
        busy_limit: Duration = Duration::from_secs(600);
    }
}

impl Health {
    /// Whether health checks are on.
    pub(crate) fn is_on(&self) -> bool {
        !self.interval.is_zero()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if !self.is_on() {
            return Ok(());
        }
        require(
            self.interval >= Duration::from_millis(1),
            "health.interval",
            "must be at least a millisecond, or zero for no health checks",
        )?;
        require(
            !self.timeout.is_zero(),
            "health.timeout",
            "must be longer than zero; an interval of zero switches health checks off",
        )
    }

    /// The shortest silence that makes a plugin unresponsive.
    pub(crate) fn silence(&self) -> Duration {
        self.interval
            .max(self.timeout)
            .saturating_mul(self.misses_allowed)
            .saturating_add(self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silence_is_that_of_all_missed_pings() {
        assert_eq!(Health::default().silence(), Duration::from_secs(100));
        let quick = Health::default().interval(Duration::from_secs(1));
        assert_eq!(quick.silence(), Duration::from_secs(40));
        let strict = Health::default().misses_allowed(0);
        assert_eq!(strict.silence(), Duration::from_secs(10));
        let never = Health {
            interval: Duration::MAX,
            timeout: Duration::MAX,
            misses_allowed: u32::MAX,
            rpc_ping: false,
            busy_limit: Duration::MAX,
        };
        assert_eq!(never.silence(), Duration::MAX);
    }

    #[test]
    fn a_timeout_of_zero_is_refused_unless_all_is_off() {
        let health = Health::default().timeout(Duration::ZERO);
        let refused = health.validate().unwrap_err().to_string();
        assert!(
            refused.starts_with("setting health.timeout: must be longer"),
            "{refused}"
        );
        health.interval(Duration::ZERO).validate().unwrap();
    }
}
