//! The error member of a JSON-RPC response.

use serde::{Deserialize, Serialize};

use crate::text::Foreign;

/// An error response ([Error codes](crate::protocol#error-codes)). Both members may be missing, because
/// decoders in the field treat them as optional. Displayed [escaped](crate::text::escape) and cut;
/// `message` is as it was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{} ({code})", Foreign::new(.message))]
pub struct RpcError {
    /// The code; 0 when the plugin sent none.
    #[serde(default)]
    pub code: i64,
    /// The text; empty when the plugin sent none.
    #[serde(default)]
    pub message: String,
}

impl RpcError {
    /// A handler failed.
    pub const HANDLER_FAILED: i64 = -32000;
    /// The request is not valid.
    pub const INVALID_REQUEST: i64 = -32600;
    /// The method is not known.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The params are not valid.
    pub const INVALID_PARAMS: i64 = -32602;
    /// The answering side failed internally.
    pub const INTERNAL: i64 = -32603;

    /// An error with this code and text.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
