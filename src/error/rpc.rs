//! The error member of a JSON-RPC response.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::text::Foreign;

/// An error response ([Error codes](crate::protocol#error-codes)). Each member may be missing, because
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<ErrorData>,
}

/// JSON of any kind, undecoded: it is read on a thread with a small stack, and may be nested deeply.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct ErrorData(Box<RawValue>);

/// Without what it says, which may be secret.
impl fmt::Debug for ErrorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.get().len())
    }
}

impl PartialEq for ErrorData {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for ErrorData {}

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
            data: None,
        }
    }

    /// Returns the JSON text of `data`, with which a plugin may say more; `None` if it sent none. The host and
    /// [`sdk`](crate::sdk) send none.
    pub fn data(&self) -> Option<&str> {
        self.data.as_ref().map(|data| data.0.get())
    }

    pub(crate) fn with_data(mut self, data: Option<&RawValue>) -> Self {
        self.data = data.map(|data| ErrorData(data.to_owned()));
        self
    }
}
