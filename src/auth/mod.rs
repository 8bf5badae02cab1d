//! Who a connecting plugin is: secrets, the tokens made from them, and the URL that carries both
//! (protocol file, section 5).
//!
//! What does not live here: when a secret is replaced and which installation it belongs to
//! (`session` and `store`), and the HTTP answers to a refused token (`listener`). No I/O besides the system's
//! random generator, no threads, no locks. Nothing here shows a secret in `Debug` or `Display`.

mod credential;
mod redact;
mod request;
mod secret;
mod token;
mod url;

pub use credential::ExternalCredential;
pub use redact::redact;
pub use request::{ConnectionRequest, is_rpc_path};
pub use secret::Secret;
pub use token::{ExternalToken, SealedToken, Token, TokenDigest};
pub use url::{ConnectionUrl, connection_url};

/// The path that plugins connect to; `/rpc/` is another one (protocol file, section 5.1).
pub const RPC_PATH: &str = "/rpc";
