//! Errors of tokens and connection URLs.

use std::sync::Arc;

/// Why a token or a connection URL cannot be made or used. No message has any part of either in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The system has no random bytes, so nothing secret can be made.
    #[error("the system has no random bytes: {reason}")]
    Random {
        /// What the system says.
        reason: Arc<str>,
    },
    /// There is no token, or it is empty.
    #[error("there is no token")]
    Missing,
    /// Text that should be an external token is not one.
    #[error("not an external token: expected sdprt_ and 32 characters of A-Z, a-z and 0-9")]
    NotExternal,
    /// Text that should be the digest of a token is not one, or is another token's.
    #[error("not the digest of the token: expected 64 digits of 0-9 and a-f that are its SHA-256")]
    NotADigest,
    /// A URL that cannot be used.
    #[error("connection URL cannot be used: {problem}")]
    Url {
        /// What is wrong with it.
        problem: &'static str,
    },
}
