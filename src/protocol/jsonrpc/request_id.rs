//! `RemoteRequestId`: the id of a request from the peer, kept as it was received.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::EnvelopeError;
use crate::id::RequestId;
use crate::protocol::kind_of_text;

/// The id of a request from a peer: any JSON string or number of up to 256 bytes.
///
/// It is echoed byte for byte and never interpreted: 15 of 16 ids of the Python SDK look like xids
/// and are not, and other peers send numbers ([Identifiers](crate::protocol#identifiers) and
/// [Requests and responses](crate::protocol#requests-and-responses)). Cloning is cheap. Two ids are
/// equal when their JSON text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRequestId(Arc<str>);

impl RemoteRequestId {
    /// The longest id, in bytes of JSON text, quotes included.
    pub const LIMIT: usize = 256;

    /// Takes the id from its JSON text.
    ///
    /// # Errors
    /// - [`EnvelopeError::IdType`]: it is neither a string nor a number.
    /// - [`EnvelopeError::IdTooLong`]: it has more than [`LIMIT`](Self::LIMIT) bytes.
    pub fn from_json(json: &RawValue) -> Result<Self, EnvelopeError> {
        let text = json.get();
        match kind_of_text(text) {
            "a string" | "a number" => {}
            found => return Err(EnvelopeError::IdType { found }),
        }
        if text.len() > Self::LIMIT {
            return Err(EnvelopeError::IdTooLong { found: text.len() });
        }
        Ok(Self(text.into()))
    }

    /// Returns the id's JSON text, with quotes if it is a string.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl From<RequestId> for RemoteRequestId {
    /// An id of this side, as the answering peer sees it.
    fn from(id: RequestId) -> Self {
        Self(format!("\"{id}\"").into())
    }
}
