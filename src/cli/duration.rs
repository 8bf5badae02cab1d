//! Durations as they are written in arguments and settings: `500ms`, `3s`, `28d`, and as Go writes them, `1m30s` or
//! `1.5h`.

use std::time::Duration;

/// The units, each with its length in nanoseconds. Go has all but `d`.
const UNITS: [(&str, u128); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 60 * 60 * SECOND),
    ("d", 24 * 60 * 60 * SECOND),
];
const SECOND: u128 = 1_000_000_000;
/// Digits of a fraction that count: more than tell one nanosecond of a day from the next.
const FRACTION: usize = 18;

/// Reads numbers, each with its unit, which are added up. A bare number is refused: some programs take it for
/// seconds, others for milliseconds.
///
/// # Errors
/// A text that says what is wrong and how to write it.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let too_long = || "that is too long".to_owned();
    let mut rest = text;
    let mut nanoseconds: u128 = 0;
    loop {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err("a duration is a number and a unit, such as 500ms, 3s or 1m30s".to_owned());
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        let number = &rest[..rest.len() - after.len() - unit.len()];
        if unit.is_empty() {
            return Err(format!(
                "the unit is missing; write {number}ms, {number}s or {number}m"
            ));
        }
        let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("there is no unit {unit:?}; use ms, s, m, h or d"));
        };
        let whole: u64 = match whole {
            "" => 0,
            digits => digits.parse().map_err(|_| too_long())?,
        };
        let part = u128::from(whole) * length + fraction_of(*length, fraction);
        nanoseconds = nanoseconds.saturating_add(part);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let seconds = u64::try_from(nanoseconds / SECOND).map_err(|_| too_long())?;
    // Less than a second, so it fits.
    let nanoseconds = u32::try_from(nanoseconds % SECOND).unwrap_or_default();
    Ok(Duration::new(seconds, nanoseconds))
}

/// Splits the text behind its leading digits.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Returns how much of a length these digits behind a point are.
fn fraction_of(length: u128, digits: &str) -> u128 {
    let digits = &digits[..digits.len().min(FRACTION)];
    let mut scale = 1;
    let mut number: u128 = 0;
    for digit in digits.bytes() {
        number = number * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    number * length / scale
}

/// Returns a duration in words, where zero is `0s`.
pub(crate) fn shown(duration: Duration) -> String {
    if duration.is_zero() {
        "0s".to_owned()
    } else {
        format!("{duration:?}")
    }
}

/// Returns a duration as a setting would have it: in the largest unit of which it is a whole number.
pub(crate) fn written(duration: Duration) -> String {
    for (unit, length) in UNITS.iter().rev() {
        if !duration.is_zero() && duration.as_nanos().is_multiple_of(*length) {
            return format!("{}{unit}", duration.as_nanos() / length);
        }
    }
    shown(duration)
}

/// Reads a duration that cannot be zero.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_words() {
        for (milliseconds, text) in [(0, "0s"), (200, "200ms"), (1_500, "1.5s")] {
            assert_eq!(shown(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn numbers_with_units() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("0s", 0),
            ("3s", 3_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("28d", 28 * 24 * 3_600_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)));
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        for (text, microseconds) in [
            ("1m30s", 90_000_000),
            ("1.5h", 5_400_000_000),
            ("250ms", 250_000),
            ("1h0m0.5s", 3_600_500_000),
            (".5s", 500_000),
            ("1.s", 1_000_000),
            ("100µs", 100),
            ("100μs", 100),
            ("100us7000ns", 107),
            ("0.3333333333333333333333333333333333333333s", 333_333),
        ] {
            let parsed = parse(text).map(|duration| duration.as_micros());
            assert_eq!(parsed, Ok(microseconds), "{text}");
        }
    }

    #[test]
    fn durations_as_settings() {
        for (text, expected) in [
            ("672h", "28d"),
            ("60s", "1m"),
            ("1.5h", "90m"),
            ("1500ms", "1500ms"),
            ("0h", "0s"),
        ] {
            assert_eq!(parse(text).map(written).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for nanoseconds in [0, 1, 1_500, 250_000_000, 90_000_000_000, 5_400_000_000_001] {
            let duration = Duration::from_nanos(nanoseconds);
            assert_eq!(parse(&shown(duration)), Ok(duration));
            assert_eq!(parse(&written(duration)), Ok(duration));
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_way_out() {
        for (text, part) in [
            ("", "such as 500ms"),
            ("s", "such as 500ms"),
            ("-3s", "such as 500ms"),
            ("3", "write 3ms, 3s or 3m"),
            ("1m30", "write 30ms, 30s or 30m"),
            ("1,5s", "no unit \",\""),
            (".", "such as 500ms"),
            ("1.5.5s", "write 1.5ms"),
            ("3 s", "no unit \" s\""),
            ("3sec", "no unit \"sec\""),
            ("3S", "no unit \"S\""),
            ("99999999999999999999s", "too long"),
            ("9999999999999999999h", "too long"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(parse_positive("0ms").is_err());
        assert_eq!(parse_positive("1ms"), parse("1ms"));
    }
}
