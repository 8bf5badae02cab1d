//! Errors of secrets, tokens and connection URLs.

/// Why a token, secret or connection URL cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {}
