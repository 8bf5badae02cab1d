//! Errors of secrets, tokens and connection URLs.

use std::sync::Arc;

use super::IdError;

/// Why a token, secret or connection URL cannot be used.
///
/// A server answers all that concern a token with the same 401: the difference is for its own log.
/// No message contains any part of a secret, token or URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The system gave no random bytes, so nothing secret can be made.
    #[error("the system gives no random bytes: {reason}")]
    Random {
        /// What the system says.
        reason: Arc<str>,
    },
    /// A secret of another length than 32.
    #[error("secret has {found} bytes, expected 32 characters of A-Z, a-z and 0-9")]
    SecretLength {
        /// Bytes found.
        found: usize,
    },
    /// A secret with a character outside its alphabet.
    #[error("secret has a character outside A-Z, a-z and 0-9 at position {position}")]
    SecretCharacter {
        /// Where, counted in bytes from zero.
        position: usize,
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
    /// A sealed token that is not URL-safe base64 without padding.
    #[error(
        "sealed token is not base64 (URL-safe, without padding) at position {position}; is it whole?"
    )]
    NotBase64 {
        /// Where, counted in bytes from zero.
        position: usize,
    },
    /// A sealed token too short for its nonce and its tag.
    #[error("sealed token has {found} bytes, too few to hold a nonce and a tag")]
    TooShort {
        /// Bytes found, decoded.
        found: usize,
    },
    /// The token was not sealed with this secret, or was changed since.
    #[error("sealed token does not open: made with another secret, spent, or altered")]
    DoesNotOpen,
    /// The token opens, but to something that is not an installation id.
    #[error("sealed token opens to something that is not an installation id: {0}")]
    NotAnId(#[source] IdError),
    /// A sealed token goes with an installation id, and none was given.
    #[error("a connection URL with a sealed token needs the installation id")]
    NoInstallation,
    /// A URL that cannot be used.
    #[error("connection URL cannot be used: {problem}")]
    Url {
        /// What is wrong with it.
        problem: &'static str,
    },
}
