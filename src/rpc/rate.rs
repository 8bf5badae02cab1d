//! How many messages one plugin may send in a second. It belongs to the session, not to the connection, so
//! that a reconnect does not reset it. `reading` decides what happens to a message over the limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The limit of one plugin, and how much of it is used.
#[derive(Debug, Default)]
pub(crate) struct Rate(Mutex<Meter>);

impl Rate {
    /// Sets the limit. Returns what to ask about each message; `None` when there is no limit.
    pub(crate) fn limited_to(self: &Arc<Self>, per_second: u32) -> Option<Arc<Self>> {
        self.0.lock().per_second = per_second;
        (per_second > 0).then(|| self.clone())
    }

    /// Counts a message that arrives now.
    ///
    /// # Errors
    /// The limit, when the message is over it; then it is not counted.
    pub(crate) fn admit(&self) -> Result<(), u32> {
        self.0.lock().admit(Instant::now())
    }
}

/// Admits at most the limit in any second, evenly spread or all at once: each message moves a mark on by its
/// share of a second, and the mark may be a second ahead.
#[derive(Debug, Default)]
struct Meter {
    per_second: u32,
    mark: Option<Instant>,
}

impl Meter {
    fn admit(&mut self, now: Instant) -> Result<(), u32> {
        const SECOND: Duration = Duration::from_secs(1);
        let share = SECOND / self.per_second.max(1);
        let next = self.mark.map_or(now, |mark| mark.max(now)) + share;
        // Shares are rounded down, so the last of a full second still fits.
        if next > now + SECOND {
            return Err(self.per_second);
        }
        self.mark = Some(next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` messages pass, all at this moment.
    fn admitted(meter: &mut Meter, count: u32, now: Instant) -> u32 {
        let passed = (0..count).filter(|_| meter.admit(now).is_ok()).count();
        u32::try_from(passed).unwrap()
    }

    #[test]
    fn a_second_holds_as_many_as_the_limit_however_they_come() {
        for per_second in [1, 3, 7, 1000] {
            let begin = Instant::now();
            let mut meter = Meter {
                per_second,
                mark: None,
            };
            assert_eq!(admitted(&mut meter, 5000, begin), per_second, "at once");
            assert_eq!(meter.admit(begin), Err(per_second));
            // Half a second later there is room for half of them, also after many refusals.
            let half = begin + Duration::from_millis(500);
            assert_eq!(admitted(&mut meter, 5000, half), per_second / 2);
            // Room is not saved up for longer than a second.
            let later = begin + Duration::from_secs(60);
            assert_eq!(admitted(&mut meter, 5000, later), per_second);
        }
    }

    #[test]
    fn evenly_spread_messages_pass_for_ever() {
        let mut now = Instant::now();
        let mut meter = Meter {
            per_second: 100,
            mark: None,
        };
        for _ in 0..1000 {
            assert_eq!(meter.admit(now), Ok(()));
            now += Duration::from_millis(10);
        }
    }

    #[test]
    fn no_limit_is_none_and_the_limit_outlives_its_connection() {
        let rate = Arc::new(Rate::default());
        assert!(rate.limited_to(0).is_none());
        let first = rate.limited_to(1).unwrap();
        assert_eq!(first.admit(), Ok(()));
        let second = rate.limited_to(1).unwrap();
        assert_eq!(second.admit(), Err(1));
    }
}
