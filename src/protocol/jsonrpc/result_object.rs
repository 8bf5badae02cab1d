//! `ResultObject`: the result of a request.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::protocol::kind_of;

/// The result of a request: always a JSON object, because without a member `method` in it the Go
/// SDK cannot decode a response and its caller hangs ([Traps](crate::protocol#traps)). That member is
/// added when the result is written; the handler sets the others.
#[derive(Clone, Default, PartialEq)]
pub struct ResultObject(Map<String, Value>);

impl ResultObject {
    /// Returns an empty result.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the result that this value encodes to.
    ///
    /// # Errors
    /// [`Error::Encode`] if the value does not encode to a JSON object.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        to_object("result", value).map(Self)
    }

    /// Returns the members, without `method` unless the handler put one in.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the members, without `method` unless the handler put one in.
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }
}

impl From<Map<String, Value>> for ResultObject {
    fn from(members: Map<String, Value>) -> Self {
        Self(members)
    }
}

impl fmt::Debug for ResultObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payloads are never shown: they may hold secrets.
        write!(f, "ResultObject({} members)", self.0.len())
    }
}

/// Encodes `value` to an object.
///
/// # Errors
/// [`Error::Encode`] with `what` if it does not encode to an object.
pub(crate) fn to_object<T: Serialize + ?Sized>(
    what: &'static str,
    value: &T,
) -> Result<Map<String, Value>, Error> {
    match serde_json::to_value(value).map_err(|error| Error::encode(what, error))? {
        Value::Object(members) => Ok(members),
        other => Err(not_an_object(what, kind_of(&other))),
    }
}

pub(super) fn not_an_object(what: &'static str, found: &'static str) -> Error {
    let problem = format_args!("must be a JSON object, found {found}");
    Error::encode(what, serde::ser::Error::custom(problem))
}
