//! Secrets: 32 random characters that the system's cryptographic generator made. The tokens made from
//! them are in `token`.

use zeroize::Zeroizing;

use crate::error::TokenError;
use crate::protocol::connection::SECRET_LENGTH;
#[cfg(any(test, feature = "_fuzzing"))]
use crate::protocol::connection::is_secret;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The secret that seals the token of a supervised plugin's run: 32 characters of `A-Z a-z 0-9`
/// ([Tokens](crate::protocol#tokens)). It is wiped from memory when it is dropped, and never shown.
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// Makes a new secret.
    ///
    /// # Errors
    /// [`TokenError::Random`]: the system has no random bytes.
    pub(crate) fn generate() -> Result<Self, TokenError> {
        random_text("").map(Self)
    }

    /// The secret with this text; `None` if it is not one.
    #[cfg(any(test, feature = "_fuzzing"))]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        is_secret(text).then(|| Self(text.to_owned().into()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Returns the prefix and a new secret behind it, every character as likely as every other.
///
/// It blocks only where the system's generator is not ready yet, early in its start.
pub(super) fn random_text(prefix: &str) -> Result<Zeroizing<String>, TokenError> {
    // The largest multiple of 62 in a byte: bytes from here up would make the first characters
    // of the alphabet likelier.
    const UNBIASED: u8 = 62 * 4;
    let length = prefix.len() + SECRET_LENGTH;
    // With room for all of it, because growing would leave a copy behind that is not wiped.
    let mut text = Zeroizing::new(String::with_capacity(length));
    text.push_str(prefix);
    let mut random = Zeroizing::new([0_u8; 2 * SECRET_LENGTH]);
    while text.len() < length {
        fill(&mut *random)?;
        let missing = length - text.len();
        let usable = random.iter().filter(|byte| **byte < UNBIASED);
        let characters = usable.map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        text.extend(characters.take(missing));
    }
    Ok(text)
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
    fn generated_secrets_are_valid_and_distinct() {
        let mut seen = HashSet::new();
        for _ in 0..1_000 {
            let text = random_text("sdprt_").unwrap();
            assert!(
                text.strip_prefix("sdprt_").is_some_and(is_secret),
                "{text:?}"
            );
            assert!(seen.insert(text.to_string()));
        }
    }

    #[test]
    fn every_character_is_as_likely() {
        const ROUNDS: usize = 4_000;
        let mut counts: HashMap<u8, usize> = HashMap::new();
        for _ in 0..ROUNDS {
            for byte in random_text("").unwrap().bytes() {
                *counts.entry(byte).or_default() += 1;
            }
        }
        assert_eq!(counts.len(), 62);
        // Taking a byte modulo 62 would give eight characters a quarter more than the rest, which
        // is nearly ten standard deviations here; seven leave a false alarm out of the question.
        let expected = ROUNDS * SECRET_LENGTH / 62;
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
    fn only_32_letters_and_digits_are_a_secret() {
        assert!(is_secret("Storyden0Plugin1Secret2Vector3ab"));
        for text in [
            "short",
            "",
            "Storyden0Plugin1Secret2Vector3a_",
            "Storyden0Plugin1Secret2Vector3abc",
            // 32 bytes that are not 32 characters.
            "Storyden0Plugin1Secret2Vector3ä",
        ] {
            assert!(!is_secret(text), "{text:?}");
        }
    }
}
