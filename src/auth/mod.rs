//! How a connecting plugin proves which one it is: tokens, and the URLs that carry them
//! ([Connection URL](crate::protocol#connection-url)).
//!
//! What does not live here: when a secret is replaced and which installation it belongs to
//! (`session` and `store`), and the HTTP answers to a refused token (`listener`). The module does no I/O
//! besides reading the system's random generator, and has no threads and no locks.
//! [`Debug`](std::fmt::Debug) and [`Display`](std::fmt::Display) never show a secret.
//!
//! Secrets and tokens are wiped from memory when they are dropped. Copies outside these types are not: the
//! URL in the environment of a plugin's process, the request that a socket received, and what a store
//! holds.

mod connection_url;
#[cfg(feature = "_fuzzing")]
pub(crate) mod fuzzing;
mod redact;
mod request;
mod secret;
mod token;

pub use redact::redact;
pub use token::ExternalToken;

pub(crate) use connection_url::connection_url;
pub(crate) use request::{ConnectionRequest, rpc_query};
pub(crate) use secret::Secret;
pub(crate) use token::{SealedToken, Token, TokenDigest};
