//! Who a connecting plugin is: secrets, the tokens made from them, and the URL that carries both
//! (protocol file, section 5).
//!
//! What does not live here: when a secret is replaced and which installation it belongs to
//! (`session` and `store`), and the HTTP answers to a refused token (`listener`). No I/O besides the system's
//! random generator, no threads, no locks. Nothing here shows a secret in `Debug` or `Display`.

mod connection_url;
mod credential;
#[cfg(feature = "_fuzzing")]
pub(crate) mod fuzzing;
mod redact;
mod request;
mod secret;
mod token;

pub use credential::ExternalCredential;
pub use redact::redact;
pub use token::{ExternalToken, TokenDigest};

pub(crate) use connection_url::{ConnectionUrl, connection_url};
pub(crate) use request::{ConnectionRequest, rpc_query};
pub(crate) use secret::Secret;
pub(crate) use token::{SealedToken, Token};

/// The path that plugins connect to; `/rpc/` is another one (protocol file, section 5.1).
pub(crate) const RPC_PATH: &str = "/rpc";
