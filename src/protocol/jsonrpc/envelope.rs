//! Reading messages: what arrived, in one pass over the text and without copying its payload.
//!
//! This runs on the thread that reads the connection, whose stack is small. The payload is skipped
//! over, never descended into: serde_json skips with an explicit stack on the heap of one byte for
//! each open bracket, so nesting costs no stack however deep it goes. Decoding the payload is for
//! other threads, and serde_json refuses to nest deeper than 128 there.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::PeerId;
use crate::error::RpcError;
use crate::id::RequestId;
use crate::protocol::kind_of_text;

/// The outer shape of a message.
#[derive(Debug)]
pub struct Envelope;

/// A message, told apart.
#[derive(Debug)]
#[non_exhaustive]
pub enum Incoming<'a> {
    /// The peer asks something and expects an answer.
    Request {
        /// The peer's id for it; to be echoed.
        id: PeerId,
        /// What is asked.
        method: Cow<'a, str>,
        /// The params as JSON of whatever type; nothing when missing or `null`.
        params: Option<&'a RawValue>,
    },
    /// The peer says something that cannot be answered, because it has no id. The protocol has no
    /// such thing.
    Notification {
        /// What is said.
        method: Cow<'a, str>,
        /// The params as JSON of whatever type; nothing when missing or `null`.
        params: Option<&'a RawValue>,
    },
    /// The peer answers.
    Response {
        /// The request that is answered; nothing when the id is none that we could have sent.
        id: Option<RequestId>,
        /// The result as JSON of whatever type, `null` when missing; or the error, if there is one.
        outcome: Result<&'a RawValue, RpcError>,
        /// It does not say that it is JSON-RPC 2.0, so that among other output only its id tells that it
        /// is an answer. Always false from [`Envelope::parse`], which does not ask.
        is_unmarked: bool,
    },
}

/// Why a message is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The text is not one JSON value.
    #[error("the message is not valid JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// The text is JSON, or begins like it, but not an object. Batches land here.
    #[error("the message is not a JSON object but {found}")]
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// The text is an object without any member that a message has.
    #[error("the message has neither method nor id, result or error")]
    NotAMessage,
    /// `method` is no text.
    #[error("the method of a request must be a string, found {found}")]
    MethodType {
        /// What it is instead.
        found: &'static str,
    },
    /// `method` has an escape sequence that stands for no character.
    #[error("the method of a request cannot be read: {0}")]
    MethodText(#[source] serde_json::Error),
    /// The id of a request is of a type that no id has.
    #[error("the id of a request must be a string or a number, found {found}")]
    IdType {
        /// What it is instead.
        found: &'static str,
    },
    /// The id of a request is too long to be kept and echoed.
    #[error("the id of a request has {found} bytes, more than the limit of {limit}", limit = PeerId::LIMIT)]
    IdTooLong {
        /// Bytes of its JSON text.
        found: usize,
    },
}

/// Where in a message its result stands, so that the message can be handed to another thread and
/// decoded there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSpan(Range<usize>);

impl Envelope {
    /// Reads a message. A member `method` makes it a request or notification, without one it is a
    /// response (protocol file, section 8.2). Unknown members are ignored, of repeated ones the
    /// last counts, and `null` is the same as leaving a member out. A byte order mark in front is skipped.
    ///
    /// # Errors
    /// The text is no message; see the variants. Nothing can be answered to it.
    pub fn parse(text: &str) -> Result<Incoming<'_>, EnvelopeError> {
        Members::read(text)?.told_apart()
    }

    /// Reads a line of a stream that carries other output too, such as log lines in JSON. There a message
    /// has a member `jsonrpc` that is 2.0, as text or as a number. An answer may be without it if it has
    /// nothing but `id`, `method`, and `result` or an `error` with a `code`; then it
    /// [`is_unmarked`](Incoming::Response::is_unmarked).
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_line(line: &str) -> Result<Incoming<'_>, EnvelopeError> {
        let mut members = Members::read(line)?;
        if members.is_marked() {
            return members.told_apart();
        }
        if !members.is_unmarked_answer() {
            return Err(EnvelopeError::NotAMessage);
        }
        members.method = None;
        let mut answer = members.told_apart()?;
        if let Incoming::Response { is_unmarked, .. } = &mut answer {
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

    /// Whether it says that it is JSON-RPC 2.0.
    fn is_marked(&self) -> bool {
        self.jsonrpc.map(RawValue::get).is_some_and(|version| {
            let number = version.parse::<f64>();
            version == "\"2.0\"" || number.is_ok_and(|number| (number - 2.0).abs() < f64::EPSILON)
        })
    }

    /// Whether it is what encoders write that leave the version out, and no logger does.
    fn is_unmarked_answer(&self) -> bool {
        let outcome = match self.error {
            Some(error) => serde_json::from_str::<ErrorMembers<'_>>(error.get())
                .is_ok_and(|error| error.code.is_some()),
            None => self.has_result,
        };
        outcome && self.jsonrpc.is_none() && self.params.is_none() && !self.has_others
    }

    /// The id of the request that it answers, if it could be an answer to one of ours.
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
        let members = self;
        let params = members.params;
        if let Some(method) = members.method {
            let method = method_text(method)?;
            return Ok(match members.id {
                Some(id) => Incoming::Request {
                    id: PeerId::from_json(id)?,
                    method,
                    params,
                },
                None => Incoming::Notification { method, params },
            });
        }
        if !members.is_response {
            return Err(EnvelopeError::NotAMessage);
        }
        let id = members.own_id();
        let outcome = match members.error {
            Some(error) => Err(rpc_error(error)),
            None => Ok(members.result.unwrap_or(RawValue::NULL)),
        };
        Ok(Incoming::Response {
            id,
            outcome,
            is_unmarked: false,
        })
    }
}

impl ResultSpan {
    /// Where `result` stands in the message `text` that it was read from.
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

    /// The JSON of the result, from the same text; `null` if the message had none.
    pub fn of<'a>(&self, text: &'a str) -> &'a str {
        match text.get(self.0.clone()) {
            None | Some("") => "null",
            Some(result) => result,
        }
    }
}

/// Some encoders begin each text with it.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// The members of a message that are looked at, none of them `null`.
#[derive(Default)]
pub(super) struct Members<'a> {
    jsonrpc: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    /// One of the members that a response has was there, if only as `null`.
    is_response: bool,
    /// There was a result, if only as `null`.
    has_result: bool,
    /// There were others.
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
                Member::Other => {
                    map.next_value::<IgnoredAny>()?;
                    members.has_others = true;
                    continue;
                }
            };
            members.has_result |= matches!(name, Member::Result);
            members.is_response |= matches!(name, Member::Id | Member::Result | Member::Error);
            *member = not_null(map.next_value()?);
        }
        Ok(members)
    }
}

/// The error member of a response, in which anything may be missing or odd.
#[derive(Default)]
struct ErrorMembers<'a> {
    code: Option<&'a RawValue>,
    message: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum ErrorMember {
    Code,
    Message,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for ErrorMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ErrorMembersVisitor)
    }
}

struct ErrorMembersVisitor;

impl<'de> Visitor<'de> for ErrorMembersVisitor {
    type Value = ErrorMembers<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON-RPC error")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = ErrorMembers::default();
        while let Some(name) = map.next_key()? {
            match name {
                ErrorMember::Code => members.code = Some(map.next_value()?),
                ErrorMember::Message => members.message = Some(map.next_value()?),
                ErrorMember::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}

fn not_null(value: &RawValue) -> Option<&RawValue> {
    (value.get() != "null").then_some(value)
}

/// Text that does not begin like an object: is it JSON of another type, or no JSON at all?
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
        let text = serde_json::from_str(json.get()).map_err(EnvelopeError::MethodText)?;
        return Ok(Cow::Owned(text));
    }
    Ok(Cow::Borrowed(between_quotes))
}

fn rpc_error(json: &RawValue) -> RpcError {
    match serde_json::from_str::<ErrorMembers<'_>>(json.get()) {
        Ok(error) => RpcError {
            code: error.code.and_then(code).unwrap_or_default(),
            message: error
                .message
                .and_then(not_null)
                .map_or_else(String::new, text_of),
        },
        // Not an object. It is an error all the same, and its text may help.
        Err(_) => RpcError::new(0, text_of(json)),
    }
}

/// An error's code, which some write as a float or as text.
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

/// The text that this is, what of it stands for no character replaced; of other JSON its own text.
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
mod tests {
    use std::sync::Arc;

    use super::*;

    fn request(text: &str) -> (PeerId, String) {
        match Envelope::parse(text) {
            Ok(Incoming::Request { id, method, .. }) => (id, method.into_owned()),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn response(text: &str) -> (Option<RequestId>, Result<String, RpcError>) {
        match Envelope::parse(text) {
            Ok(Incoming::Response { id, outcome, .. }) => {
                (id, outcome.map(|result| result.get().to_owned()))
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    fn refusal(text: &str) -> String {
        Envelope::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_method_at_the_top_makes_it_a_request() {
        let text = r#"{"id":1,"result":{"ok":true},"error":null,"method":"ping"}"#;
        assert_eq!(request(text).1, "ping");
        // A method inside the result does not.
        let text = r#"{"id":"d5k2m2c5o2dtjn9ct6bg","result":{"method":"ping"}}"#;
        let (id, outcome) = response(text);
        assert_eq!(id.unwrap().to_string(), "d5k2m2c5o2dtjn9ct6bg");
        assert_eq!(outcome.unwrap(), r#"{"method":"ping"}"#);
    }

    #[test]
    fn request_ids_are_opaque() {
        let id = |json: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","id": {json} ,"method":"plugin.register"}}"#);
            request(&text).0.to_string()
        };
        for json in ["1", "-2.50", "1e400", r#""""#, r#""0o6a205tdo4tj2nt466b""#] {
            assert_eq!(id(json), json);
        }
        assert_eq!(id(r#""\u00e4 \" \\""#), r#""\u00e4 \" \\""#);
        let longest = format!("\"{}\"", "x".repeat(254));
        assert_eq!(id(&longest), longest);
    }

    #[test]
    fn other_request_ids_are_refused() {
        let refusal = |json: &str| refusal(&format!(r#"{{"id":{json},"method":"x"}}"#));
        let must = "the id of a request must be a string or a number, found";
        assert_eq!(refusal("{}"), format!("{must} an object"));
        assert_eq!(refusal("[1]"), format!("{must} an array"));
        assert_eq!(refusal("true"), format!("{must} a boolean"));
        assert_eq!(
            refusal(&format!("\"{}\"", "x".repeat(255))),
            "the id of a request has 257 bytes, more than the limit of 256"
        );
        assert_eq!(
            refusal(&"1".repeat(257)),
            "the id of a request has 257 bytes, more than the limit of 256"
        );
    }

    #[test]
    fn without_an_id_it_is_a_notification() {
        for text in [
            r#"{"method":"x","params":{"a":1}}"#,
            r#"{"id":null,"method":"x","params":{"a":1}}"#,
        ] {
            match Envelope::parse(text).unwrap() {
                Incoming::Notification { method, params } => {
                    assert_eq!(method, "x");
                    assert_eq!(params.unwrap().get(), r#"{"a":1}"#);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn params_are_borrowed_and_null_is_none() {
        let text = r#"{"id":1,"method":"x","params": {"a": [1, 2]} }"#;
        match Envelope::parse(text).unwrap() {
            Incoming::Request { params, method, .. } => {
                let params = params.unwrap().get();
                assert_eq!(params, r#"{"a": [1, 2]}"#);
                assert!(text.as_bytes().as_ptr_range().contains(&params.as_ptr()));
                assert!(matches!(method, Cow::Borrowed("x")));
            }
            other => panic!("{other:?}"),
        }
        match Envelope::parse(r#"{"id":1,"method":"x","params":null}"#).unwrap() {
            Incoming::Request { params, .. } => assert!(params.is_none()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn escapes_in_names_and_methods_are_understood() {
        let text = r#"{"i\u0064":1,"\u006dethod":"pi\u006eg\""}"#;
        assert_eq!(request(text).1, "ping\"");
        assert_eq!(request(r#"{"id":1,"method":""}"#).1, "");
        assert!(refusal(r#"{"id":1,"method":"\ud800"}"#).starts_with("the method"));
    }

    #[test]
    fn the_last_of_repeated_members_counts() {
        let text = r#"{"id":1,"method":"a","id":"two","method":"b"}"#;
        assert_eq!(
            request(text),
            (request(r#"{"id":"two","method":"b"}"#).0, "b".into())
        );
        let (_, outcome) = response(r#"{"id":1,"error":{"code":5},"result":1,"error":null}"#);
        assert_eq!(outcome.unwrap(), "1");
    }

    #[test]
    fn a_response_to_none_of_our_ids_has_no_id() {
        for id in [
            "1",
            "null",
            "{}",
            r#""0o6a205tdo4tj2nt466b""#,
            r#""D5K2M2C5O2DTJN9CT6BG""#,
        ] {
            let (id, outcome) = response(&format!(r#"{{"id":{id},"result":{{}}}}"#));
            assert_eq!(id, None);
            assert!(outcome.is_ok());
        }
        assert_eq!(response(r#"{"result":{}}"#).0, None);
    }

    #[test]
    fn results_and_errors_are_told_apart() {
        let outcome = |members: &str| response(&format!(r#"{{"id":"x"{members}}}"#)).1;
        assert_eq!(outcome(""), Ok("null".into()));
        assert_eq!(outcome(r#","result":null"#), Ok("null".into()));
        assert_eq!(outcome(r#","result":{},"error":null"#), Ok("{}".into()));
        // As the seed's host writes it.
        assert_eq!(
            outcome(r#","result":null,"error":{"code":-32601,"message":"no"}"#),
            Err(RpcError::new(-32601, "no"))
        );
        // A failed call never looks like an answer.
        assert_eq!(
            outcome(r#","error":{"code":1,"message":"no"},"result":{"ok":true}"#),
            Err(RpcError::new(1, "no"))
        );
    }

    #[test]
    fn odd_errors_are_errors() {
        let error = |json: &str| response(&format!(r#"{{"id":"x","error":{json}}}"#)).1;
        let is = |json: &str, code: i64, message: &str| {
            assert_eq!(error(json), Err(RpcError::new(code, message)), "{json}");
        };
        is("{}", 0, "");
        is(r#"{"code":null,"message":null}"#, 0, "");
        // Codes of encoders that know floats only, or only text.
        is(r#"{"code":-32000.0,"message":"no"}"#, -32000, "no");
        is(r#"{"code":-3.2602e4}"#, -32602, "");
        is(r#"{"code":"-32000","data":{"x":[]}}"#, -32000, "");
        is(r#"{"code":"E_NO"}"#, 0, "");
        is(r#"{"code":1.5}"#, 0, "");
        is(r#"{"code":true}"#, 0, "");
        is(r#"{"code":1e300}"#, 0, "");
        is(r#"{"code":1e999}"#, 0, "");
        is(
            r#"{"code":123456789012345678901234567890,"code":-1}"#,
            -1,
            "",
        );
        // What it says is kept, whatever it is.
        is(r#"{"code":1,"message":7}"#, 1, "7");
        is(r#"{"code":1,"message":{"a":[1]}}"#, 1, r#"{"a":[1]}"#);
        is(
            r#"{"code":1,"message":"a\ud800b"}"#,
            1,
            "a\u{fffd}\u{fffd}\u{fffd}b",
        );
        is(r#"{"code":1,"message":"\ud83d\ude00"}"#, 1, "\u{1f600}");
        is(r#""it broke""#, 0, "it broke");
        is("false", 0, "false");
        is("[]", 0, "[]");
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let text = "\u{feff}{\"id\":1,\"method\":\"x\",\"params\":{}}";
        assert_eq!(request(text).1, "x");
        match Envelope::parse(text).unwrap() {
            Incoming::Request { params, .. } => {
                assert_eq!(ResultSpan::locate(text, params.unwrap()).of(text), "{}");
            }
            other => panic!("{other:?}"),
        }
    }

    fn kind(line: &str) -> &'static str {
        match Envelope::parse_line(line) {
            Ok(Incoming::Request { .. }) => "request",
            Ok(Incoming::Notification { .. }) => "notification",
            Ok(Incoming::Response { is_unmarked, .. }) => {
                if is_unmarked {
                    "unmarked"
                } else {
                    "response"
                }
            }
            Err(_) => "output",
        }
    }

    #[test]
    fn among_output_a_message_says_what_it_is() {
        for version in [r#""2.0""#, "2.0"] {
            let kind = |rest: &str| kind(&format!(r#"{{{rest},"jsonrpc":{version}}}"#));
            assert_eq!(kind(r#""id":1,"method":"x""#), "request");
            assert_eq!(kind(r#""method":"x","level":"info""#), "notification");
            assert_eq!(kind(r#""id":"x","result":{}"#), "response");
            assert_eq!(kind(r#""id":"x","error":"no","more":1"#), "response");
            assert_eq!(kind(r#""level":"info""#), "output");
        }
        // As zap, zerolog and logrus write them.
        for line in [
            r#"{"level":"error","ts":1.5,"msg":"failed","error":"no route"}"#,
            r#"{"level":"error","error":"no route","message":"failed"}"#,
            r#"{"error":"no route","level":"error","msg":"failed"}"#,
            r#"{"level":"info","id":7,"method":"GET","msg":"served"}"#,
            r#"{"level":"info","id":7,"result":"ok"}"#,
            r#"{"method":"GET"}"#,
            r#"{"id":7,"method":"GET"}"#,
            r#"{"id":7}"#,
            r#"{"jsonrpc":"1.0","id":7,"method":"x"}"#,
            r#"{"jsonrpc":"1.0","id":7,"result":{}}"#,
            r#"{"id":7,"error":"no"}"#,
            r#"{"id":7,"error":{"message":"no"}}"#,
            r#"{"id":7,"result":{},"params":{}}"#,
        ] {
            assert_eq!(kind(line), "output", "{line}");
        }
    }

    #[test]
    fn an_answer_without_a_version_has_nothing_that_others_have_not() {
        for line in [
            r#"{"id":"x","result":null}"#,
            r#"{"result":{},"id":"x"}"#,
            r#"{"id":"x","error":{"code":1}}"#,
            r#"{"id":"x","result":null,"error":{"code":1,"message":"no"}}"#,
            r#"{"id":"x","result":{},"error":null,"method":"ping"}"#,
        ] {
            assert_eq!(kind(line), "unmarked", "{line}");
        }
    }

    #[test]
    fn what_is_no_message_says_why() {
        assert!(refusal("").starts_with("the message is not valid JSON: EOF"));
        assert!(refusal("listening on :8080").starts_with("the message is not valid JSON"));
        assert!(refusal("200 OK").starts_with("the message is not valid JSON"));
        assert!(refusal(r#"{"id":1,"method":"x"}}"#).starts_with("the message is not valid JSON"));
        assert!(refusal(r#"{"id":1,"method":"x""#).starts_with("the message is not valid JSON"));
        assert_eq!(
            refusal("[]"),
            "the message is not a JSON object but an array"
        );
        assert_eq!(
            refusal(" 7 "),
            "the message is not a JSON object but a number"
        );
        assert_eq!(
            refusal(r#"{"level":"info","text":"started"}"#),
            "the message has neither method nor id, result or error"
        );
        assert_eq!(
            refusal(r#"{"id":1,"method":5}"#),
            "the method of a request must be a string, found a number"
        );
    }

    #[test]
    fn the_result_can_be_found_again_on_another_thread() {
        let text: Arc<str> = r#"{"id":"x", "result": {"ä": [1]} }"#.into();
        let span = match Envelope::parse(&text).unwrap() {
            Incoming::Response { outcome, .. } => ResultSpan::locate(&text, outcome.unwrap()),
            other => panic!("{other:?}"),
        };
        let found = std::thread::spawn(move || span.of(&text).to_owned());
        assert_eq!(found.join().unwrap(), r#"{"ä": [1]}"#);

        let text = r#"{"id":"x"}"#;
        match Envelope::parse(text).unwrap() {
            Incoming::Response { outcome, .. } => {
                assert_eq!(ResultSpan::locate(text, outcome.unwrap()).of(text), "null");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        // The largest message that is read is 4 MiB.
        let longest = "[".repeat(4 * 1024 * 1024);
        let depth = 100_000;
        let closed = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let on_a_small_stack = std::thread::Builder::new().stack_size(128 * 1024);
        let body = move || {
            assert!(Envelope::parse(&longest).is_err());
            let text = format!(r#"{{"id":1,"params":{longest}"#);
            assert!(Envelope::parse(&text).is_err());
            assert!(Envelope::parse(&closed).is_err());
            assert!(Envelope::parse(&objects).is_err());
            for deep in [&closed, &objects] {
                for name in ["params", "result", "error", "unknown"] {
                    let text = format!(r#"{{"id":1,"{name}":{deep}}}"#);
                    assert!(Envelope::parse(&text).is_ok(), "{name}");
                }
                let text = format!(r#"{{"id":{deep},"result":{{}}}}"#);
                assert_eq!(response(&text).0, None);
                let text = format!(r#"{{"id":{deep},"method":"x"}}"#);
                assert!(Envelope::parse(&text).is_err());
                let text = format!(r#"{{"id":1,"method":{deep}}}"#);
                assert!(Envelope::parse(&text).is_err());
                let text = format!(r#"{{"id":1,"error":{{"code":{deep},"message":{deep}}}}}"#);
                assert!(Envelope::parse(&text).is_ok());
            }
        };
        on_a_small_stack.spawn(body).unwrap().join().unwrap();
    }
}
