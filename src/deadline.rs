//! `Deadline`: the end of a timeout, computed once where a public call begins.

use std::time::{Duration, Instant};

/// A point in time that a blocking operation must not pass.
///
/// Every public call takes a `Duration`, turns it into a deadline once, and passes that inward, so
/// that several waits in a row share one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(Instant);

/// Far enough to mean 'never' and near enough not to overflow on any platform.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

impl Deadline {
    /// Returns the deadline that lies `timeout` from now. Anything over a year is a year.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout.min(FAR))
    }

    /// Returns when [`after`](Self::after) was called with this timeout.
    pub(crate) fn begun(self, timeout: Duration) -> Option<Instant> {
        self.0.checked_sub(timeout.min(FAR))
    }

    /// Returns the deadline at this instant.
    pub(crate) const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// Returns the point in time.
    pub(crate) const fn instant(self) -> Instant {
        self.0
    }

    /// Returns the time left until the deadline; zero when it has passed.
    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Returns whether the deadline has passed.
    pub(crate) fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// Returns the earlier of two deadlines.
    #[must_use]
    pub(crate) fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_timeout_does_not_overflow() {
        assert!(Deadline::after(Duration::MAX).remaining() > Duration::from_secs(3600));
    }

    #[test]
    fn its_beginning_is_known_also_of_a_huge_timeout() {
        for timeout in [Duration::ZERO, Duration::from_secs(1), Duration::MAX] {
            let before = Instant::now();
            let begun = Deadline::after(timeout).begun(timeout).unwrap();
            assert!((before..=Instant::now()).contains(&begun), "{timeout:?}");
        }
    }

    #[test]
    fn zero_has_passed_at_once() {
        assert!(Deadline::after(Duration::ZERO).has_passed());
    }
}
