//! The messages between plugins and host, as types.
//!
//! What lives here: the manifest, the JSON-RPC envelope, the methods and their
//! replies, event names, configuration schemas, and how the SDKs differ. What does not: I/O, threads, waiting, request bookkeeping, and archives. Everything here
//! is plain data and pure functions.
//!
//! The rest of this page is `PROTOCOL.md`, which says what the wire looks like.
//!
#![doc = include_str!("PROTOCOL.md")]

pub(crate) mod access;
mod base_url;
pub(crate) mod configuration;
pub(crate) mod connection;
pub(crate) mod environment;
pub(crate) mod event;
#[cfg_attr(not(feature = "_fuzzing"), expect(unreachable_pub))]
pub(crate) mod jsonrpc;
pub(crate) mod line_breaks;
pub mod manifest;
pub mod method;
pub(crate) mod peer;
#[cfg(test)]
mod tests;
pub(crate) mod unquoted;

pub use access::{AccessGrant, AccessShape};
pub use configuration::{ConfigurationField, ConfigurationFieldKind};
pub use event::STORYDEN_EVENTS;
pub use jsonrpc::ResultObject;
pub use manifest::{Capability, Manifest, Transport};
pub use method::Method;

/// The type of a JSON value, with its article, for error texts.
fn kind_of(value: &serde_json::Value) -> &'static str {
    use serde_json::Value;
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The same for JSON that has not been decoded, judged by its first byte. Only for text that begins
/// with a JSON value.
fn kind_of_text(json: &str) -> &'static str {
    match json.bytes().find(|byte| !byte.is_ascii_whitespace()) {
        None => "nothing",
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'"') => "a string",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(_) => "a number",
    }
}
