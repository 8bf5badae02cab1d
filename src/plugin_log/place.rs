//! `Place`: a place between two lines of a log, as a text that outlives the host. No I/O.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::id::Xid;
use crate::text::Foreign;

/// Bytes at the end of a line that its checksum is of.
pub(super) const CHECKED: usize = 256;

/// A place in a log: behind a line, or where a file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which log it is in.
    pub(super) log: Xid,
    /// Bytes of the log before it.
    pub(super) position: u64,
    /// The checksum of the line before it, if that was read.
    pub(super) check: Option<u64>,
}

/// `d5k1vvc5o2dtjn9ct4bg-4096` or `d5k1vvc5o2dtjn9ct4bg-4096-00a1b2c3d4e5f607`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.log, self.position)?;
        match self.check {
            Some(check) => write!(f, "-{check:016x}"),
            None => Ok(()),
        }
    }
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (log, rest) = text.split_once('-')?;
        let (position, check) = match rest.split_once('-') {
            Some((position, check)) => (position, Some(u64::from_str_radix(check, 16).ok()?)),
            None => (rest, None),
        };
        let place = Self {
            log: log.parse().ok()?,
            position: position.parse().ok()?,
            check,
        };
        // Rejects every other spelling.
        (place.to_string() == text).then_some(place)
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text).ok_or_else(|| {
            let text = Foreign::new(text);
            let problem = format!(
                "not a place in a log, such as d5k1vvc5o2dtjn9ct4bg-4096-00a1b2c3d4e5f607: '{text}'"
            );
            Error::new(ErrorKind::InvalidInput, problem)
        })
    }
}

/// Returns a checksum of the end of a line, given without its `\n`. It tells lines apart that differ by chance;
/// it is the same in every version, since places are kept.
pub(super) fn checksum(line: &[u8]) -> u64 {
    let end = &line[line.len().saturating_sub(CHECKED)..];
    // FNV-1a, eight bytes at a time, which is as fast as lines are read.
    let mut sum = 0xcbf2_9ce4_8422_2325 ^ end.len() as u64;
    for chunk in end.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3);
        // Or the highest bits of a word would stay in the highest of the sum.
        sum ^= sum >> 32;
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let log = "d5k1vvc5o2dtjn9ct4bg".parse().unwrap();
        for (position, check, text) in [
            (0, None, "d5k1vvc5o2dtjn9ct4bg-0"),
            (
                4096,
                Some(0xa1),
                "d5k1vvc5o2dtjn9ct4bg-4096-00000000000000a1",
            ),
            (
                u64::MAX,
                Some(u64::MAX),
                "d5k1vvc5o2dtjn9ct4bg-18446744073709551615-ffffffffffffffff",
            ),
        ] {
            let place = Place {
                log,
                position,
                check,
            };
            assert_eq!(place.to_string(), text);
            assert_eq!(text.parse::<Place>().unwrap(), place);
        }
    }

    #[test]
    fn what_is_no_place_is_refused_and_quoted_harmlessly() {
        for text in [
            "",
            "-",
            "d5k1vvc5o2dtjn9ct4bg",
            "d5k1vvc5o2dtjn9ct4bg-",
            "d5k1vvc5o2dtjn9ct4bg-+1",
            "d5k1vvc5o2dtjn9ct4bg-01",
            "d5k1vvc5o2dtjn9ct4bg--1",
            "d5k1vvc5o2dtjn9ct4bg-18446744073709551616",
            "d5k1vvc5o2dtjn9ct4bg-1-",
            "d5k1vvc5o2dtjn9ct4bg-1-a1",
            "d5k1vvc5o2dtjn9ct4bg-1-00000000000000A1",
            "d5k1vvc5o2dtjn9ct4bg-1-00000000000000a1-",
            "d5k1vvc5o2dtjn9ct4b-1",
            " d5k1vvc5o2dtjn9ct4bg-1",
            "d5k1vvc5o2dtjn9ct4bg-1\n",
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
        let hostile = format!("\u{1b}[2J{}", "x".repeat(1_000_000));
        let text = hostile.parse::<Place>().unwrap_err().to_string();
        assert!(text.len() < 2000 && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn checksums_differ_and_do_not_change() {
        // Computed by another program.
        assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(b"a line"), 0xdbe1_4911_e06e_c037);
        let mut sums = HashSet::new();
        for length in 0..=CHECKED {
            assert!(sums.insert(checksum(&vec![b'x'; length])));
            let mut line = vec![0; CHECKED];
            if let Some(byte) = line.get_mut(length) {
                *byte = 0x80;
                assert!(sums.insert(checksum(&line)));
            }
        }
        // Of longer lines the end counts.
        let long = [b"beginning".as_slice(), &[b'x'; CHECKED]].concat();
        assert_eq!(checksum(&long), checksum(&[b'x'; CHECKED]));
    }
}
