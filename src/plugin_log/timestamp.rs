//! `Timestamp`: the time in the name of an old log file, and the calendar arithmetic for it; `Clock`: the time by
//! which such a file is old.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PREFIX: &str = "output-";
const SUFFIX: &str = ".log";
const DAY: u64 = 24 * 60 * 60 * 1000;

/// When a file was rotated away: milliseconds since 1970, UTC. Stamps sort as the names do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp(u64);

impl Timestamp {
    /// The end of the year 9999, after which names would no longer sort by age.
    const LAST: u64 = 253_402_300_799_999;

    /// Returns the present time, or one later than `previous`, so that names are never used twice and keep the
    /// order of the files even when several are rotated within a millisecond or the clock goes backwards.
    pub(super) fn now_after(previous: Option<Self>) -> Self {
        let least = previous.map_or(0, |previous| previous.0 + 1);
        Self(Self::now().0.max(least).min(Self::LAST))
    }

    fn now() -> Self {
        Self(since_epoch(SystemTime::now()))
    }

    /// The time that lies this far back.
    #[cfg(test)]
    pub(super) fn ago(age: Duration) -> Self {
        Self(Self::now().0 - milliseconds(age))
    }

    /// Returns how long before `now` this was; zero if it was later.
    pub(super) fn age(self, now: Self) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.0))
    }

    /// Returns the time in the name of a file; `None` if it is not the name of an old log.
    pub(super) fn from_file_name(name: &str) -> Option<Self> {
        let text = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        // 2026-02-21T11-50-22.965
        let number = |from: usize, to: usize| -> Option<u64> { text.get(from..to)?.parse().ok() };
        let year = number(0, 4)?;
        let month = usize::try_from(number(5, 7)?).ok()?;
        let months = months(year);
        let past_months = months.get(..month.checked_sub(1)?)?;
        let days = (1970..year).map(year_length).sum::<u64>()
            + past_months.iter().sum::<u64>()
            + number(8, 10)?.checked_sub(1)?;
        let seconds = (number(11, 13)? * 60 + number(14, 16)?) * 60 + number(17, 19)?;
        let stamp = Self(days * DAY + seconds * 1000 + number(20, 23)?);
        // Rejects numbers out of range and every other spelling.
        (stamp.file_name() == name).then_some(stamp)
    }

    /// Returns the name of the file that was rotated away at this time.
    pub(super) fn file_name(self) -> String {
        let (mut days, time) = (self.0 / DAY, self.0 % DAY);
        let mut year = 1970;
        while days >= year_length(year) {
            days -= year_length(year);
            year += 1;
        }
        let mut month = 1;
        for length in months(year) {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        let day = days + 1;
        let (hour, minute) = (time / 3_600_000, time / 60_000 % 60);
        let (second, millisecond) = (time / 1000 % 60, time % 1000);
        format!(
            "{PREFIX}{year:04}-{month:02}-{day:02}T\
             {hour:02}-{minute:02}-{second:02}.{millisecond:03}{SUFFIX}"
        )
    }
}

/// Returns the milliseconds since 1970.
pub(super) fn since_epoch(time: SystemTime) -> u64 {
    milliseconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The system's clock, believed when it is started; from then on it does not run ahead of the time that has passed.
#[derive(Debug)]
pub(super) struct Clock {
    begun: Timestamp,
    since: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            begun: Timestamp::now(),
            since: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.read(Timestamp::now(), self.since.elapsed())
    }

    /// Returns the time when the system's clock shows `shown` and this much time has passed.
    fn read(&self, shown: Timestamp, passed: Duration) -> Timestamp {
        let latest = self.begun.0.saturating_add(milliseconds(passed));
        shown.min(Timestamp(latest))
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn year_length(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

const fn months(year: u64) -> [u64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_utc_with_milliseconds() {
        // Checked against `date -u -d @…`.
        for (milliseconds, name) in [
            (0, "output-1970-01-01T00-00-00.000.log"),
            (951_782_399_999, "output-2000-02-28T23-59-59.999.log"),
            (951_782_400_000, "output-2000-02-29T00-00-00.000.log"),
            (951_868_800_000, "output-2000-03-01T00-00-00.000.log"),
            (1_771_674_622_965, "output-2026-02-21T11-50-22.965.log"),
            (4_107_542_399_000, "output-2100-02-28T23-59-59.000.log"),
            (4_107_542_400_000, "output-2100-03-01T00-00-00.000.log"),
            (Timestamp::LAST, "output-9999-12-31T23-59-59.999.log"),
        ] {
            assert_eq!(Timestamp(milliseconds).file_name(), name);
            assert_eq!(
                Timestamp::from_file_name(name),
                Some(Timestamp(milliseconds))
            );
        }
    }

    #[test]
    fn other_names_are_not_old_logs() {
        for name in [
            "output.log",
            "output-.log",
            "output-2026-02-30T11-50-22.965.log",
            "output-2026-13-01T11-50-22.965.log",
            "output-2026-00-01T11-50-22.965.log",
            "output-2026-02-21T24-00-00.000.log",
            "output-2026-02-21T11-50-60.000.log",
            "output-2026-02-21T11-50-22.965.log.gz",
            "output-2026-02-21T11-50-22.9655.log",
            "output-2026-02-21 11-50-22.965.log",
            "output-+026-02-21T11-50-22.965.log",
            "output-1969-12-31T23-59-59.999.log",
            "output-2026-02-21T11-50-22.96é.log",
        ] {
            assert_eq!(Timestamp::from_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_clock_that_is_set_makes_nothing_older_than_it_has_become() {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        let at = |hours: u64| Timestamp(1_771_674_622_965 + hours * 3_600_000);
        let clock = Clock {
            begun: at(1000),
            since: Instant::now(),
        };
        let age = |shown, passed| at(900).age(clock.read(at(shown), passed));
        assert_eq!(age(1000, Duration::ZERO), 100 * HOUR);
        assert_eq!(age(1002, 2 * HOUR), 102 * HOUR);
        // Set forward by years, and back.
        assert_eq!(age(90_000, 2 * HOUR), 102 * HOUR);
        assert_eq!(age(950, 2 * HOUR), 50 * HOUR);
        assert_eq!(age(0, 2 * HOUR), Duration::ZERO);
        assert_eq!(age(90_000, Duration::MAX), 89_100 * HOUR);
    }

    #[test]
    fn a_stamp_is_later_than_the_one_before_it_whatever_the_clock_says() {
        let first = Timestamp::now_after(None);
        let second = Timestamp::now_after(Some(first));
        assert!(second > first && second.file_name() > first.file_name());

        let future = Timestamp::from_file_name("output-2999-12-31T23-59-59.999.log").unwrap();
        assert_eq!(
            Timestamp::now_after(Some(future)).file_name(),
            "output-3000-01-01T00-00-00.000.log"
        );
    }
}
