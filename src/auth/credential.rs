//! `ExternalCredential`: what is kept of an external plugin's token. Making and reading tokens is
//! in `token`.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::token::{ExternalToken, TokenDigest};
use crate::error::TokenError;

/// What is kept of an external plugin's token: its digest, which finds and proves it, and the token
/// itself only where it has to be shown again, as Storyden's HTTP API does in every answer.
///
/// Serialises as `{"digest": "…"}` with 64 hexadecimal digits, and `"token"` where that is kept:
/// what is written then is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalCredential {
    digest: TokenDigest,
    token: Option<ExternalToken>,
}

impl ExternalCredential {
    /// Creates the credential of a token, and keeps the token in it.
    pub fn new(token: ExternalToken) -> Self {
        Self {
            digest: token.digest(),
            token: Some(token),
        }
    }

    /// Creates the credential of the token with this digest, for a store that keeps no more.
    pub const fn from_digest(digest: TokenDigest) -> Self {
        Self {
            digest,
            token: None,
        }
    }

    /// Returns the token, where it is kept.
    pub const fn token(&self) -> Option<&ExternalToken> {
        self.token.as_ref()
    }

    /// Returns the digest of the token.
    pub const fn digest(&self) -> TokenDigest {
        self.digest
    }
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    digest: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Cow<'a, str>>,
}

impl Serialize for ExternalCredential {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = Stored {
            digest: self.digest.to_string().into(),
            token: self.token.as_ref().map(|token| token.expose().into()),
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ExternalCredential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refused = |error: TokenError| serde::de::Error::custom(error);
        let stored = Stored::deserialize(deserializer)?;
        let digest: TokenDigest = stored.digest.parse().map_err(refused)?;
        let Some(text) = stored.token else {
            return Ok(Self::from_digest(digest));
        };
        let text = Zeroizing::new(text.into_owned());
        let credential = Self::new(ExternalToken::parse(&text).map_err(refused)?);
        if credential.digest == digest {
            Ok(credential)
        } else {
            Err(refused(TokenError::NotADigest))
        }
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        data_encoding::HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl std::str::FromStr for TokenDigest {
    type Err = TokenError;

    /// Reads the 64 lower-case hexadecimal digits that `Display` writes.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(TokenError::NotADigest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_digest_alone() {
        let token = ExternalToken::generate().unwrap();
        let credential = ExternalCredential::new(token.clone());
        assert_eq!(credential.token(), Some(&token));
        let hashed = ExternalCredential::from_digest(token.digest());
        assert_eq!(hashed.token(), None);
        assert_eq!(hashed.digest(), credential.digest());
        assert_ne!(hashed.digest(), ExternalToken::generate().unwrap().digest());
    }

    #[test]
    fn what_is_written_is_read_back_and_shows_the_token_only_where_it_is_kept() {
        let token = ExternalToken::generate().unwrap();
        let credential = ExternalCredential::new(token.clone());
        let hashed = ExternalCredential::from_digest(token.digest());
        for credential in [credential.clone(), hashed] {
            let text = serde_json::to_string(&credential).unwrap();
            assert_eq!(
                text.contains(token.expose()),
                credential.token().is_some(),
                "{text}"
            );
            let read: ExternalCredential = serde_json::from_str(&text).unwrap();
            assert_eq!(read, credential);
            assert!(!format!("{credential:?}").contains(&token.expose()[6..]));
        }
    }

    #[test]
    fn a_digest_that_is_not_its_tokens_is_refused() {
        let (token, other) = (
            ExternalToken::generate().unwrap(),
            ExternalToken::generate().unwrap(),
        );
        for (digest, token) in [
            (other.digest().to_string(), token.expose()),
            ("ab".repeat(31), token.expose()),
            ("AB".repeat(32), token.expose()),
            (token.digest().to_string(), "sdprt_short"),
        ] {
            let stored = serde_json::json!({"digest": digest, "token": token});
            let read = serde_json::from_value::<ExternalCredential>(stored);
            assert!(read.is_err(), "{digest} {token}");
        }
    }
}
