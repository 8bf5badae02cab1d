//! Durations as they are written in arguments: `500ms`, `3s`, `2m`, `1h`.

use std::time::Duration;

/// Reads a whole number with its unit. A bare number is refused: some programs take it for seconds,
/// others for milliseconds.
///
/// # Errors
/// A text that says what is wrong and how to write it.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("a duration is a number and a unit, such as 500ms, 3s or 2m".to_owned());
    }
    let too_long = || "that is too long".to_owned();
    let number: u64 = number.parse().map_err(|_| too_long())?;
    let of_seconds = |seconds: u64| {
        number
            .checked_mul(seconds)
            .map(Duration::from_secs)
            .ok_or_else(too_long)
    };
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => of_seconds(1),
        "m" => of_seconds(60),
        "h" => of_seconds(60 * 60),
        "" => Err(format!(
            "the unit is missing; write {number}ms, {number}s or {number}m"
        )),
        _ if unit.starts_with(['.', ',']) => {
            Err("only whole numbers; write 1500ms for one and a half seconds".to_owned())
        }
        _ => Err(format!("there is no unit {unit:?}; use ms, s, m or h")),
    }
}

/// Returns a duration in words, where zero is `0s`.
pub(crate) fn shown(duration: Duration) -> String {
    if duration.is_zero() {
        "0s".to_owned()
    } else {
        format!("{duration:?}")
    }
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
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)));
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_way_out() {
        for (text, part) in [
            ("", "such as 500ms"),
            ("s", "such as 500ms"),
            ("-3s", "such as 500ms"),
            ("3", "write 3ms, 3s or 3m"),
            ("1.5s", "write 1500ms"),
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
