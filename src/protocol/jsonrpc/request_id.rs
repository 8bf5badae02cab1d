//! `RemoteRequestId`: the id of a request that the other side sent, kept as it came.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::EnvelopeError;
use crate::id::RequestId;
use crate::protocol::kind_of_text;

/// The id of a request from a peer: any JSON string or number of up to 256 bytes.
///
/// It is echoed byte for byte and never looked into: 15 of 16 ids of the Python SDK resemble xids
/// and are none, and other peers send numbers (protocol file, sections 2 and 8.2). Cloning is
/// cheap. Two ids are equal when their JSON text is.
#[derive(Clone)]
pub struct RemoteRequestId(Arc<RawValue>);

impl RemoteRequestId {
    /// The longest id, in bytes of JSON text, quotes included.
    pub const LIMIT: usize = 256;

    /// The id that this JSON is.
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
        Ok(Self(json.to_owned().into()))
    }

    /// The id's JSON text, with the quotes if it is a string.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }
}

impl From<RequestId> for RemoteRequestId {
    /// One of our own ids, as the one who answers us sees it.
    #[expect(clippy::expect_used, reason = "an xid in quotes is JSON")]
    fn from(id: RequestId) -> Self {
        let json = RawValue::from_string(format!("\"{id}\""));
        Self(json.expect("an xid needs no escapes").into())
    }
}

impl PartialEq for RemoteRequestId {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for RemoteRequestId {}

impl std::hash::Hash for RemoteRequestId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_json().hash(state);
    }
}

impl fmt::Display for RemoteRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_json())
    }
}

impl fmt::Debug for RemoteRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteRequestId({self})")
    }
}

impl Serialize for RemoteRequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
