//! The service's clock, in the forms in which it is told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(u64);

impl Moment {
    /// Now, on a clock that is so many seconds fast.
    pub(super) fn now(offset: i64) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = since.unwrap_or(Duration::ZERO).as_secs();
        Self(seconds.saturating_add_signed(offset))
    }

    pub(super) fn at(unix: u64) -> Self {
        Self(unix)
    }

    pub(super) fn unix(self) -> u64 {
        self.0
    }

    /// Year, month and day.
    fn date(self) -> (u64, u64, u64) {
        // Counted from 1 March of the year 0, so that leap days come last in their years.
        let days = self.0 / 86_400 + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let date = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        (era * 400 + year + u64::from(month <= 2), month, date)
    }

    fn time(self) -> String {
        let second = self.0 % 86_400;
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        format!("{hour:02}:{minute:02}:{:02}", second % 60)
    }

    /// As in RFC 3339.
    pub(super) fn rfc3339(self) -> String {
        let (year, month, day) = self.date();
        format!("{year:04}-{month:02}-{day:02}T{}Z", self.time())
    }

    /// As in a `Date` header.
    pub(super) fn http(self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let (year, month, day) = self.date();
        let weekday = usize::try_from(self.0 / 86_400 % 7).expect("a day");
        let month = usize::try_from(month - 1).expect("a month");
        let (weekday, month) = (DAYS[weekday], MONTHS[month]);
        format!("{weekday}, {day:02} {month} {year:04} {} GMT", self.time())
    }
}
