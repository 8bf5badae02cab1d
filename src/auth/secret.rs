//! `Secret`: the 32 characters that tokens are made from. What is done with them is in `token`.

use std::fmt;

use subtle::ConstantTimeEq as _;

use crate::error::TokenError;

const LENGTH: usize = 32;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// An installation's secret: 32 characters of `A-Z a-z 0-9` (protocol file, section 5.2).
///
/// Comparing takes the same time wherever two secrets differ. `Debug` shows none of it; what has
/// to be stored comes from [`expose`](Self::expose).
#[derive(Clone)]
pub struct Secret([u8; LENGTH]);

impl Secret {
    /// Makes a new secret with the system's cryptographic generator, every character as likely as
    /// every other.
    ///
    /// Blocks only where the system's generator is not ready yet, early in its start.
    ///
    /// # Errors
    /// [`TokenError::Random`]: the system gives no random bytes.
    pub fn generate() -> Result<Self, TokenError> {
        // The largest multiple of 62 in a byte: bytes from here up would make the first characters
        // of the alphabet likelier.
        const UNBIASED: u8 = 62 * 4;
        let mut secret = [0; LENGTH];
        let mut filled = 0;
        let mut random = [0_u8; 2 * LENGTH];
        while filled < LENGTH {
            fill(&mut random)?;
            for byte in random.iter().filter(|byte| **byte < UNBIASED) {
                if filled == LENGTH {
                    break;
                }
                secret[filled] = ALPHABET[usize::from(byte % 62)];
                filled += 1;
            }
        }
        Ok(Self(secret))
    }

    /// The secret with this text.
    ///
    /// # Errors
    /// - [`TokenError::SecretLength`]: not 32 bytes.
    /// - [`TokenError::SecretCharacter`]: a character outside the alphabet.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let bytes: [u8; LENGTH] = text
            .as_bytes()
            .try_into()
            .map_err(|_| TokenError::SecretLength { found: text.len() })?;
        match bytes.iter().position(|byte| !byte.is_ascii_alphanumeric()) {
            Some(position) => Err(TokenError::SecretCharacter { position }),
            None => Ok(Self(bytes)),
        }
    }

    /// The text itself, for storing it. It belongs in no log and no message.
    pub fn expose(&self) -> &str {
        // Only ASCII ever gets in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(super) const fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…redacted…)")
    }
}

pub(super) fn fill(random: &mut [u8]) -> Result<(), TokenError> {
    getrandom::fill(random).map_err(|error| TokenError::Random {
        reason: error.to_string().into(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn generated_secrets_are_valid_distinct_and_round_trip() {
        let mut seen = HashSet::new();
        for _ in 0..1_000 {
            let secret = Secret::generate().unwrap();
            assert_eq!(Secret::parse(secret.expose()).unwrap(), secret);
            assert!(seen.insert(secret.expose().to_owned()));
        }
    }

    #[test]
    fn every_character_is_as_likely() {
        const ROUNDS: usize = 4_000;
        let mut counts: HashMap<u8, usize> = HashMap::new();
        for _ in 0..ROUNDS {
            for byte in Secret::generate().unwrap().0 {
                *counts.entry(byte).or_default() += 1;
            }
        }
        assert_eq!(counts.len(), 62);
        // Taking a byte modulo 62 would give eight characters a quarter more than the rest, which
        // is nearly ten standard deviations here; seven leave a false alarm out of the question.
        let expected = ROUNDS * LENGTH / 62;
        let tolerance = 7 * expected.isqrt();
        for (byte, count) in counts {
            assert!(
                count.abs_diff(expected) < tolerance,
                "{}: {count} instead of {expected}",
                char::from(byte)
            );
        }
    }

    #[test]
    fn parsing_says_what_is_wrong() {
        let parse = |text: &str| Secret::parse(text).unwrap_err();
        assert_eq!(parse("short"), TokenError::SecretLength { found: 5 });
        assert_eq!(parse(""), TokenError::SecretLength { found: 0 });
        assert_eq!(
            parse("Storyden0Plugin1Secret2Vector3a_"),
            TokenError::SecretCharacter { position: 31 }
        );
        // 32 bytes that are not 32 characters.
        assert_eq!(
            parse("Storyden0Plugin1Secret2Vector3ä"),
            TokenError::SecretCharacter { position: 30 }
        );
    }

    #[test]
    fn equality_sees_every_character() {
        let text = "Storyden0Plugin1Secret2Vector3ab";
        let secret = Secret::parse(text).unwrap();
        for position in 0..LENGTH {
            let mut other = text.to_owned();
            other.replace_range(position..=position, "Z");
            assert_ne!(secret, Secret::parse(&other).unwrap(), "at {position}");
        }
        assert_eq!(secret, Secret::parse(text).unwrap());
    }

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::generate().unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…redacted…)");
    }
}
