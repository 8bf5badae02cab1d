//! `PluginKind`: how a plugin is run, and what is kept for that: where its files are, or what proves its
//! token. Making and reading tokens is in `auth`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::auth::{ExternalToken, TokenDigest};
use crate::error::{Result, TokenError};

/// How a plugin is run, and what that takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PluginKind {
    /// The host runs the plugin as a child process.
    Supervised(Source),
    /// The plugin runs elsewhere, and connects with a token. Made by [`external`](Self::external) and
    /// [`external_by_digest`](Self::external_by_digest).
    ///
    /// It is serialised as `{"digest": "…"}`, and `"token"` where that is kept: the output is a secret then.
    #[non_exhaustive]
    #[serde(with = "credential")]
    External {
        /// The token's [`digest`](ExternalToken::digest), which finds and proves it.
        digest: String,
        /// The token itself, only where it has to be shown again, as Storyden's HTTP API does in every
        /// answer.
        token: Option<ExternalToken>,
    },
}

/// Where the files of a supervised plugin are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// A zip archive of the embedder's. It is unpacked below the data directory and runs there.
    Archive(PathBuf),
    /// A directory that the plugin runs in as it is, for development.
    #[serde(rename = "folder")]
    Directory(PathBuf),
    /// A zip archive in the store. It is unpacked below the data directory and runs there.
    Stored {
        /// Its SHA-256, in lower-case hexadecimal.
        sha256: String,
        /// Its size in bytes.
        size: u64,
    },
}

impl PluginKind {
    /// An external plugin with this token, which is kept.
    pub fn external(token: ExternalToken) -> Self {
        Self::External {
            digest: token.digest(),
            token: Some(token),
        }
    }

    /// An external plugin with the token that has this [`digest`](ExternalToken::digest), which is all that is
    /// kept of it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the text is not a digest.
    pub fn external_by_digest(digest: &str) -> Result<Self> {
        let digest: TokenDigest = digest.parse()?;
        Ok(Self::known_by(digest))
    }

    /// An external plugin of whose token no more than this is kept.
    pub(crate) fn known_by(digest: TokenDigest) -> Self {
        Self::External {
            digest: digest.to_string(),
            token: None,
        }
    }

    /// The digest of an external plugin's token.
    pub(crate) fn token_digest(&self) -> Option<TokenDigest> {
        match self {
            Self::External { digest, .. } => digest.parse().ok(),
            Self::Supervised(_) => None,
        }
    }
}

/// What is written of an external plugin.
mod credential {
    use std::borrow::Cow;

    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};
    use zeroize::Zeroizing;

    use super::{Deserialize, ExternalToken, Serialize, TokenDigest, TokenError};

    #[derive(Serialize, Deserialize)]
    struct Stored<'a> {
        digest: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Cow<'a, str>>,
    }

    #[expect(clippy::ref_option, reason = "serde passes the fields so")]
    pub(super) fn serialize<S: Serializer>(
        digest: &str,
        token: &Option<ExternalToken>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let stored = Stored {
            digest: digest.into(),
            token: token.as_ref().map(|token| token.expose().into()),
        };
        stored.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<(String, Option<ExternalToken>), D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let digest: TokenDigest = stored.digest.parse().map_err(D::Error::custom)?;
        let token = match stored.token {
            Some(text) => {
                let text = Zeroizing::new(text.into_owned());
                Some(ExternalToken::parse(&text).map_err(D::Error::custom)?)
            }
            None => None,
        };
        match &token {
            Some(token) if token.binary_digest() != digest => {
                Err(D::Error::custom(TokenError::NotADigest))
            }
            _ => Ok((digest.to_string(), token)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> ExternalToken {
        ExternalToken::generate().unwrap()
    }

    #[test]
    fn a_token_is_known_by_its_digest_alone() {
        let token = token();
        let kept = PluginKind::external(token.clone());
        let hashed = PluginKind::external_by_digest(&token.digest()).unwrap();
        assert_eq!(kept.token_digest(), hashed.token_digest());
        assert_ne!(
            kept.token_digest(),
            PluginKind::external(self::token()).token_digest()
        );
        for text in ["", "ab", &"AB".repeat(32), &"ag".repeat(32)] {
            assert!(PluginKind::external_by_digest(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_shows_the_token_only_where_it_is_kept() {
        let text = "sdprt_Storyden0Plugin1Secret2Vector3ab";
        let token = ExternalToken::parse(text).unwrap();
        let digest = token.digest();
        for (kind, expected) in [
            (
                PluginKind::external(token.clone()),
                format!(r#"{{"external":{{"digest":"{digest}","token":"{text}"}}}}"#),
            ),
            (
                PluginKind::external_by_digest(&digest).unwrap(),
                format!(r#"{{"external":{{"digest":"{digest}"}}}}"#),
            ),
        ] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), expected);
            assert_eq!(serde_json::from_str::<PluginKind>(&expected).unwrap(), kind);
            assert!(!format!("{kind:?}").contains(&text[6..]));
        }
    }

    #[test]
    fn a_digest_that_is_not_its_tokens_is_refused() {
        let (token, other) = (token(), token());
        for (digest, token) in [
            (other.digest(), token.expose()),
            ("ab".repeat(31), token.expose()),
            ("AB".repeat(32), token.expose()),
            (token.digest(), "sdprt_short"),
        ] {
            let stored = serde_json::json!({"external": {"digest": digest, "token": token}});
            let read = serde_json::from_value::<PluginKind>(stored);
            assert!(read.is_err(), "{digest} {token}");
        }
    }
}
