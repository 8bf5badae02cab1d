//! Errors of tokens and connection URLs.

use std::sync::Arc;

use super::ErrorKind;

/// Why a token or a connection URL cannot be made or used. No message has any part of either in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// The system has no random bytes, so no secret can be made.
    #[error("the system has no random bytes: {reason}")]
    Random {
        /// The system's error.
        reason: Arc<str>,
    },
    /// The token is missing or empty.
    #[error("there is no token")]
    Missing,
    /// The text is not an external token.
    #[error("not an external token: expected sdprt_ and 32 characters of A-Z, a-z and 0-9")]
    NotExternal,
    /// The text is not a token's digest, or is another token's.
    #[error("not the digest of the token: expected 64 digits of 0-9 and a-f that are its SHA-256")]
    NotADigest,
    /// The URL cannot be used.
    #[error("connection URL cannot be used: {problem}")]
    Url {
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl TokenError {
    pub(super) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Random { .. } => ErrorKind::Io,
            _ => ErrorKind::InvalidInput,
        }
    }
}
