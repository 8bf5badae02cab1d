//! `CookieMatcher`: finds the cookie in an environment that is read in pieces. Does no I/O.

use memchr::memmem::Finder;

use super::{CookieMatch, NUMBER_BYTES};

/// Searches environments for an entry that a [`CookieMatch`] describes. The entry may be anywhere, because
/// shells reorder their environment.
pub(super) struct CookieMatcher<'a> {
    matching: &'a CookieMatch,
    finder: Finder<'a>,
}

impl<'a> CookieMatcher<'a> {
    pub(super) fn new(matching: &'a CookieMatch) -> Self {
        Self {
            matching,
            finder: Finder::new(&matching.prefix),
        }
    }

    /// Returns how many bytes from the end of one piece must precede the next, so that an entry across both
    /// is found: the byte before the entry, the entry, and the byte after it.
    pub(super) fn overlap(&self) -> usize {
        1 + self.matching.prefix.len() + 2 * NUMBER_BYTES + 1
    }

    /// Whether this piece contains the entry. `is_first` says that nothing precedes the piece, `is_last`
    /// that nothing follows it.
    pub(super) fn finds(&self, piece: &[u8], is_first: bool, is_last: bool) -> bool {
        self.finder.find_iter(piece).any(|start| {
            let begins = match start.checked_sub(1) {
                Some(before) => piece[before] == 0,
                None => is_first,
            };
            let value = &piece[start + self.matching.prefix.len()..];
            begins && self.is_run(value, is_last)
        })
    }

    /// Whether a value, followed by the rest of the piece, is the number of a matching run.
    fn is_run(&self, value: &[u8], is_last: bool) -> bool {
        let Some(numbers) = &self.matching.numbers else {
            return true;
        };
        numbers.iter().any(|number| {
            value
                .strip_prefix(number.as_bytes())
                // A value without an end is decided with the next piece.
                .is_some_and(|rest| rest.first().map_or(is_last, |&byte| byte == 0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cookie, VARIABLE};
    use super::*;

    /// Scans in pieces of every size, which must make no difference.
    fn finds(matching: &CookieMatch, environment: &[u8]) -> bool {
        let matcher = CookieMatcher::new(matching);
        let whole = matcher.finds(environment, true, true);
        for size in 1..=environment.len() {
            let (mut window, mut found) = (Vec::new(), false);
            let pieces = environment.chunks(size);
            let count = pieces.len();
            let mut is_first = true;
            for (number, piece) in (1..).zip(pieces) {
                window.extend_from_slice(piece);
                found |= matcher.finds(&window, is_first, number == count);
                let cut = window.len().saturating_sub(matcher.overlap());
                is_first &= cut == 0;
                window.drain(..cut);
            }
            assert_eq!(found, whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn bearers_are_told_by_the_whole_entry_of_their_run() {
        let cookie = Cookie::generate().unwrap();
        let of = |run| format!("PATH=/bin\0{VARIABLE}={}\0LAST=1\0", cookie.of_run(run));
        assert!(finds(&cookie.match_runs(&[1]), of(1).as_bytes()));
        assert!(!finds(&cookie.match_runs(&[1]), of(12).as_bytes()));
        assert!(finds(&cookie.match_runs(&[7, 12]), of(12).as_bytes()));
        assert!(!finds(&cookie.match_runs(&[]), of(12).as_bytes()));
        assert!(finds(&cookie.match_all(), of(12).as_bytes()));
        assert!(finds(
            &cookie.match_runs(&[u64::MAX]),
            of(u64::MAX).as_bytes()
        ));
        let in_a_value = format!("X={VARIABLE}={}\0", cookie.of_run(1));
        assert!(!finds(&cookie.match_all(), in_a_value.as_bytes()));
        let guessed = format!("{VARIABLE}={}.1\0", cookie.as_str());
        assert!(!finds(&cookie.match_runs(&[1]), guessed.as_bytes()));
        let other = Cookie::generate().unwrap();
        assert!(!finds(&other.match_all(), of(1).as_bytes()));
        assert!(!finds(&cookie.match_all(), b""));
    }

    #[test]
    fn the_entry_may_be_the_first_the_last_and_without_an_end() {
        let cookie = Cookie::generate().unwrap();
        let entry = format!("{VARIABLE}={}", cookie.of_run(3));
        for environment in [
            entry.clone(),
            format!("{entry}\0"),
            format!("{entry}\0A=1"),
            format!("A=1\0{entry}"),
            format!("\0\0{entry}\0"),
        ] {
            assert!(
                finds(&cookie.match_runs(&[3]), environment.as_bytes()),
                "{environment:?}"
            );
        }
        let longer = format!("{entry}0");
        assert!(!finds(&cookie.match_runs(&[3]), longer.as_bytes()));
    }
}
