//! The wire: what plugins and host say to each other, as types.
//!
//! What lives here: the manifest, the JSON-RPC envelope, the nine methods with their params and
//! replies, event names, configuration schemas, and what differs from one kind of peer to the
//! next. What does not: I/O, threads, waiting, request bookkeeping, and archives. Everything here
//! is plain data and pure functions.
//!
//! Facts come from the protocol file; comments name its sections.

mod base_url;
pub mod configuration;
pub mod event;
pub mod manifest;

pub use configuration::ConfigurationSchema;
pub use manifest::{Capability, Manifest, Transport};

/// What kind of JSON value this is, with its article, for error texts.
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
