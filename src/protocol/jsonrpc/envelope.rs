//! Reading messages, in one pass over the text and without copying their payload.
//!
//! This runs on the thread that reads the connection, whose stack is small. The payload is skipped,
//! never descended into: serde_json skips with one byte on the heap for each open bracket, so nesting
//! costs no stack however deep it is. Other threads decode the payload, where serde_json refuses to
//! nest deeper than 128.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::RemoteRequestId;
use crate::error::RpcError;
use crate::id::RequestId;
use crate::protocol::kind_of_text;
use crate::text::BYTE_ORDER_MARK;

/// A received message.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// A request, which expects a response.
    Request {
        /// The peer's id of the request, to be echoed.
        id: RemoteRequestId,
        /// The method.
        method: Cow<'a, str>,
        /// The params as JSON of whatever type; `None` if missing or `null`.
        params: Option<&'a RawValue>,
    },
    /// A request without an id, which cannot be answered. The protocol has none.
    Notification {
        /// The method.
        method: Cow<'a, str>,
    },
    /// A response to a request of ours.
    Response {
        /// The id of that request; `None` if this side cannot have sent it.
        id: Option<RequestId>,
        /// The result as JSON of whatever type, `null` if missing; or the error.
        outcome: Result<&'a RawValue, RpcError>,
        /// The message does not say that it is JSON-RPC 2.0, so among other output only its id shows
        /// that it is a response. Always false from [`Incoming::parse`], which does not check.
        is_unmarked: bool,
    },
}

/// Why a text is not a message.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The text is not one JSON value, or its method has an invalid escape sequence.
    #[error("the message is not valid JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// The text is JSON, or begins like JSON, but is not an object. Batches are refused here.
    #[error("the message is not a JSON object but {found}")]
    NotAnObject {
        /// The type found.
        found: &'static str,
    },
    /// The text is an object without any member that a message has.
    #[error("the message has neither method nor id, result or error")]
    NotAMessage,
    /// `method` is not a string.
    #[error("the method of a request must be a string, found {found}")]
    MethodType {
        /// The type found.
        found: &'static str,
    },
    /// The id of a request is neither a string nor a number.
    #[error("the id of a request must be a string or a number, found {found}")]
    IdType {
        /// The type found.
        found: &'static str,
    },
    /// The id of a request is too long to be kept and echoed.
    #[error("the id of a request has {found} bytes, more than the limit of {limit}", limit = RemoteRequestId::LIMIT)]
    IdTooLong {
        /// The length of its JSON text, in bytes.
        found: usize,
    },
}

/// The position of the result in a message, so that another thread can decode it later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSpan(Range<usize>);

impl<'a> Incoming<'a> {
    /// Reads a message. A message with a member `method` is a request or notification, one without is a
    /// response ([protocol](crate::protocol#requests-and-responses)). Unknown members are ignored, of repeated ones the
    /// last counts, and `null` is the same as leaving a member out. A byte order mark in front is skipped.
    ///
    /// # Errors
    /// The text is not a message; see the variants. It cannot be answered.
    pub fn parse(text: &'a str) -> Result<Self, EnvelopeError> {
        Members::read(text)?.told_apart()
    }

    /// Reads a line of a stream that carries other output too, such as log lines in JSON. There a message
    /// has a member `jsonrpc` that is 2.0, as text or as a number. An answer may lack it if it has
    /// nothing but `id`, `method`, and `result` or an `error` with a `code`; then it
    /// [`is_unmarked`](Incoming::Response::is_unmarked).
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_line(line: &'a str) -> Result<Self, EnvelopeError> {
        let mut members = Members::read(line)?;
        if members.is_marked() {
            return members.told_apart();
        }
        if !members.is_unmarked_answer() {
            return Err(EnvelopeError::NotAMessage);
        }
        members.method = None;
        let mut answer = members.told_apart()?;
        if let Self::Response { is_unmarked, .. } = &mut answer {
            *is_unmarked = true;
        }
        Ok(answer)
    }
}

impl<'a> Members<'a> {
    fn read(text: &'a str) -> Result<Self, EnvelopeError> {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let found = kind_of_text(text);
        if found != "an object" && found != "nothing" {
            return Err(not_an_object(text, found));
        }
        serde_json::from_str(text).map_err(EnvelopeError::Json)
    }

    /// Whether the message says that it is JSON-RPC 2.0.
    fn is_marked(&self) -> bool {
        let is_two = |number: f64| (number - 2.0).abs() < f64::EPSILON;
        self.jsonrpc
            .map(RawValue::get)
            .is_some_and(|version| version == "\"2.0\"" || version.parse().is_ok_and(is_two))
    }

    /// Whether this is a response as encoders write it that omit the version, and as no logger does.
    fn is_unmarked_answer(&self) -> bool {
        let outcome = match self.error {
            Some(error) => serde_json::from_str::<Members<'_>>(error.get())
                .is_ok_and(|error| error.code.is_some()),
            None => self.has_result,
        };
        outcome && self.jsonrpc.is_none() && self.params.is_none() && !self.has_others
    }

    /// The id of the request that this answers, if it may answer one of ours.
    pub(super) fn answered(&self) -> Option<RequestId> {
        if self.params.is_some() || !(self.has_result || self.error.is_some()) {
            return None;
        }
        self.own_id()
    }

    fn own_id(&self) -> Option<RequestId> {
        serde_json::from_str(self.id?.get()).ok()
    }

    fn told_apart(self) -> Result<Incoming<'a>, EnvelopeError> {
        let params = self.params;
        if let Some(method) = self.method {
            let method = method_text(method)?;
            return Ok(match self.id {
                Some(id) => Incoming::Request {
                    id: RemoteRequestId::from_json(id)?,
                    method,
                    params,
                },
                None => Incoming::Notification { method },
            });
        }
        if !self.is_response {
            return Err(EnvelopeError::NotAMessage);
        }
        let id = self.own_id();
        let outcome = match self.error {
            Some(error) => Err(rpc_error(error)),
            None => Ok(self.result.unwrap_or(RawValue::NULL)),
        };
        Ok(Incoming::Response {
            id,
            outcome,
            is_unmarked: false,
        })
    }
}

impl ResultSpan {
    /// Finds `result` in the message `text` that it was read from.
    pub fn locate(text: &str, result: &RawValue) -> Self {
        let result = result.get();
        let start = (result.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
        // A missing result is a `null` that is not part of the text.
        let range = start.map(|start| start..start + result.len());
        let is_part = |range: &Range<usize>| {
            let part = text.get(range.clone());
            part.is_some_and(|part| std::ptr::eq(part, result))
        };
        Self(range.filter(is_part).unwrap_or_default())
    }

    /// Returns the JSON of the result from the same text; `null` if the message had none.
    pub fn of<'a>(&self, text: &'a str) -> &'a str {
        match text.get(self.0.clone()) {
            None | Some("") => "null",
            Some(result) => result,
        }
    }
}

/// The known members of a message, or of its error; `None` for `null`, unless noted otherwise. Of
/// repeated ones the last counts; a derived decoder would refuse them.
#[derive(Default)]
pub(super) struct Members<'a> {
    jsonrpc: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    /// Of an error; may be `null`.
    code: Option<&'a RawValue>,
    /// Of an error.
    message: Option<&'a RawValue>,
    /// Of an error.
    data: Option<&'a RawValue>,
    /// A member of a response was there, if only as `null`.
    is_response: bool,
    /// There was a result, if only as `null`.
    has_result: bool,
    /// There were members that a message does not have.
    has_others: bool,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Member {
    Jsonrpc,
    Id,
    Method,
    Params,
    Result,
    Error,
    Code,
    Message,
    Data,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON-RPC message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key()? {
            let member = match name {
                Member::Jsonrpc => &mut members.jsonrpc,
                Member::Id => &mut members.id,
                Member::Method => &mut members.method,
                Member::Params => &mut members.params,
                Member::Result => &mut members.result,
                Member::Error => &mut members.error,
                Member::Code => &mut members.code,
                Member::Message => &mut members.message,
                Member::Data => &mut members.data,
                Member::Other => {
                    map.next_value::<IgnoredAny>()?;
                    members.has_others = true;
                    continue;
                }
            };
            members.has_others |= matches!(name, Member::Code | Member::Message | Member::Data);
            members.has_result |= matches!(name, Member::Result);
            members.is_response |= matches!(name, Member::Id | Member::Result | Member::Error);
            let value = map.next_value()?;
            // An error has a code also if it is `null`.
            *member = if matches!(name, Member::Code) {
                Some(value)
            } else {
                not_null(value)
            };
        }
        Ok(members)
    }
}

fn not_null(value: &RawValue) -> Option<&RawValue> {
    (value.get() != "null").then_some(value)
}

/// The error for text that does not begin like an object: JSON of another type, or not JSON at all.
fn not_an_object(text: &str, found: &'static str) -> EnvelopeError {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => EnvelopeError::NotAnObject { found },
        Err(error) => EnvelopeError::Json(error),
    }
}

fn method_text(json: &RawValue) -> Result<Cow<'_, str>, EnvelopeError> {
    match kind_of_text(json.get()) {
        "a string" => {}
        found => return Err(EnvelopeError::MethodType { found }),
    }
    let between_quotes = json.get().trim_matches('"');
    if between_quotes.contains('\\') {
        let text = serde_json::from_str(json.get()).map_err(EnvelopeError::Json)?;
        return Ok(Cow::Owned(text));
    }
    Ok(Cow::Borrowed(between_quotes))
}

fn rpc_error(json: &RawValue) -> RpcError {
    match serde_json::from_str::<Members<'_>>(json.get()) {
        Ok(error) => {
            let code = error.code.and_then(code).unwrap_or_default();
            let message = error.message.map_or_else(String::new, text_of);
            RpcError::new(code, message).with_data(error.data)
        }
        // Not an object. It is an error all the same, and its text may help.
        Err(_) => RpcError::new(0, text_of(json)),
    }
}

/// An error's code, which some plugins write as a float or as text.
fn code(json: &RawValue) -> Option<i64> {
    let text = json.get().trim_matches('"');
    if let Ok(code) = text.parse() {
        return Some(code);
    }
    let float: f64 = text.parse().ok()?;
    // A whole number is shown as one. Larger ones are not what was meant.
    let is_exact = float.abs() <= 9_007_199_254_740_992.0;
    is_exact.then(|| float.to_string().parse().ok())?
}

/// The value of a JSON string, with invalid escapes replaced; for other JSON its own text.
fn text_of(json: &RawValue) -> String {
    struct Lossy;

    impl Visitor<'_> for Lossy {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        // Half of a surrogate pair comes as the bytes that it would have, were it a character.
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
    }

    let text = serde_json::Deserializer::from_str(json.get()).deserialize_bytes(Lossy);
    text.unwrap_or_else(|_| json.get().to_owned())
}

#[cfg(test)]
mod tests;
