//! Times as people read them.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// Returns how long ago this time in RFC 3339 was, in its largest units; the text itself if it is none.
pub(super) fn ago(at: &str) -> String {
    ago_at(at, SystemTime::now()).unwrap_or_else(|| at.to_owned())
}

/// Returns the time itself, and how long ago that was.
pub(super) fn at_and_ago(at: &str) -> String {
    match ago_at(at, SystemTime::now()) {
        Some(ago) => format!("{at} ({ago} ago)"),
        None => at.to_owned(),
    }
}

/// Returns the time between two times in RFC 3339; nothing if either is none.
pub(super) fn between(start: &str, end: &str) -> String {
    let times = humantime::parse_rfc3339(start)
        .ok()
        .zip(humantime::parse_rfc3339(end).ok());
    let took = times.and_then(|(start, end)| end.duration_since(start).ok());
    took.map(roughly).unwrap_or_default()
}

fn ago_at(at: &str, now: SystemTime) -> Option<String> {
    let at = humantime::parse_rfc3339(at).ok()?;
    // Clocks of two machines differ.
    Some(roughly(now.duration_since(at).unwrap_or_default()))
}

/// Returns a duration in its two largest units, from seconds on.
pub(super) fn roughly(duration: Duration) -> String {
    const UNITS: [(u64, char); 4] = [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')];
    let seconds = duration.as_secs();
    let largest = UNITS.iter().position(|(size, _)| seconds >= *size);
    let Some(largest) = largest else {
        return "0s".to_owned();
    };
    let mut left = seconds;
    let mut text = String::new();
    for (size, name) in UNITS.iter().skip(largest).take(2) {
        if left / size > 0 {
            let _ = write!(text, "{}{name}", left / size);
        }
        left %= size;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_largest_units_are_shown() {
        for (seconds, shown) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_599, "59m59s"),
            (3_600, "1h"),
            (3_661, "1h1m"),
            (90_000, "1d1h"),
            (86_400 * 400, "400d"),
        ] {
            assert_eq!(roughly(Duration::from_secs(seconds)), shown);
        }
    }
}
