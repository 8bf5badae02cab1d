//! Whether and when a plugin reconnects, as pure functions. Only external plugins do: a supervised one is
//! started again by its host ([Refused or disconnected](crate::protocol#refused-or-disconnected)).

use std::time::Duration;

use crate::error::{Disconnect, Error};

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The waits between attempts: 250 ms, doubling up to 10 s, reset by each accepted handshake.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) const fn new() -> Self {
        Self(FIRST_WAIT)
    }

    pub(super) fn next_wait(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST_WAIT);
        wait
    }

    pub(super) fn reset(&mut self) {
        self.0 = FIRST_WAIT;
    }
}

/// Returns whether a failure to connect may pass by itself. A 4xx is final. Anything but 5xx and 101 did
/// not come from a plugin host, and neither did something that is not a WebSocket.
pub(super) fn may_pass(error: &Error) -> bool {
    match error {
        Error::Disconnected(cause) => match **cause {
            Disconnect::Refused { status } => status >= 500,
            Disconnect::Violation(_) => false,
            _ => true,
        },
        // No server listens, the name is not known, or no answer comes.
        Error::Io { .. } | Error::Timeout { .. } => true,
        _ => false,
    }
}

/// Returns whether the way a connection ended means 'reconnect'. A close by the host does so only with
/// certain codes.
pub(super) fn comes_back(cause: &Disconnect) -> bool {
    match cause {
        Disconnect::ByPeer { code, .. } => matches!(code, Some(1001 | 1011 | 1012 | 1013)),
        // We closed it ourselves.
        Disconnect::ByHost { .. } => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;
    use crate::error::Phase;

    #[test]
    fn the_wait_doubles_to_ten_seconds_and_starts_over() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..8).map(|_| backoff.next_wait().as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10000, 10000]);
        backoff.reset();
        assert_eq!(backoff.next_wait(), Duration::from_millis(250));
    }

    #[test]
    fn refusals() {
        let refused = |status| Error::Disconnected(Arc::new(Disconnect::Refused { status }));
        for status in [400, 401, 403, 404, 409, 426, 429, 200, 302] {
            assert!(!may_pass(&refused(status)), "{status}");
        }
        for status in [500, 502, 503] {
            assert!(may_pass(&refused(status)), "{status}");
        }
        assert!(may_pass(&Error::Disconnected(Arc::new(Disconnect::Lost))));
        assert!(may_pass(&Error::io(
            "connect",
            io::ErrorKind::ConnectionRefused
        )));
        assert!(may_pass(&Error::timeout(Phase::Handshake, LONGEST_WAIT)));
        assert!(!may_pass(&Error::Unsupported("wss")));
    }

    #[test]
    fn ends() {
        let closed = |code| Disconnect::ByPeer {
            code,
            reason: String::new(),
        };
        for code in [1001, 1011, 1012, 1013] {
            assert!(comes_back(&closed(Some(code))), "{code}");
        }
        for code in [1000, 1002, 1003, 1008, 1009, 4001] {
            assert!(!comes_back(&closed(Some(code))), "{code}");
        }
        assert!(!comes_back(&closed(None)));
        assert!(comes_back(&Disconnect::Lost));
        // A message from the host over our limit: both SDKs in the field try again.
        assert!(comes_back(&Disconnect::TooLarge { limit: 1 }));
        assert!(!comes_back(&Disconnect::ByHost {
            code: 1000,
            reason: "shutting down".into()
        }));
    }
}
