//! `ExternalCredential`: what is kept of an external plugin's token. Making and reading tokens is
//! `token`'s.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
    /// Of this token, which is kept.
    pub fn new(token: ExternalToken) -> Self {
        Self {
            digest: token.digest(),
            token: Some(token),
        }
    }

    /// Of the token with this digest, for a store that keeps no more.
    pub const fn from_digest(digest: TokenDigest) -> Self {
        Self {
            digest,
            token: None,
        }
    }

    /// The same without the token: nobody can show it again.
    #[must_use]
    pub fn without_token(self) -> Self {
        Self::from_digest(self.digest)
    }

    /// The token, where it is kept.
    pub const fn token(&self) -> Option<&ExternalToken> {
        self.token.as_ref()
    }

    /// The token's digest.
    pub const fn digest(&self) -> TokenDigest {
        self.digest
    }

    /// Whether this is the token. How long it takes says nothing of the token: what is compared is
    /// digests, and from those no token can be made.
    pub fn matches(&self, token: &ExternalToken) -> bool {
        self.digest == token.digest()
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Serialize for ExternalCredential {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = Stored {
            digest: self.digest.to_string(),
            token: self.token.as_ref().map(ExternalToken::expose),
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
        data_encoding::HEXLOWER
            .encode_display(self.as_bytes())
            .fmt(f)
    }
}

impl std::str::FromStr for TokenDigest {
    type Err = TokenError;

    /// Reads the 64 lower-case hexadecimal digits that `Display` writes.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .map_err(|_| TokenError::NotADigest)?;
        let bytes = bytes.try_into().map_err(|_| TokenError::NotADigest)?;
        Ok(Self::from_bytes(bytes))
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
        assert!(credential.matches(&token));
        let hashed = credential.without_token();
        assert_eq!(hashed.token(), None);
        assert!(hashed.matches(&token));
        assert!(!hashed.matches(&ExternalToken::generate().unwrap()));
    }

    #[test]
    fn what_is_written_is_read_back_and_shows_the_token_only_where_it_is_kept() {
        let token = ExternalToken::generate().unwrap();
        let credential = ExternalCredential::new(token.clone());
        for credential in [credential.clone(), credential.without_token()] {
            let text = serde_json::to_string(&credential).unwrap();
            assert_eq!(
                text.contains(&token.expose()),
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
            (token.digest().to_string(), "sdprt_short".to_owned()),
        ] {
            let stored = serde_json::json!({"digest": digest, "token": token});
            let read = serde_json::from_value::<ExternalCredential>(stored);
            assert!(read.is_err(), "{digest} {token}");
        }
    }
}
