//! Writing messages. They never have a member that the SDKs do not know, because the Python SDK drops
//! a message with an unknown key ([Strictness and order](crate::protocol#strictness-and-order)).

use serde::Serialize;

use super::result_object::not_an_object;
use super::{RemoteRequestId, ResultObject};
use crate::error::{Error, Result, RpcError};
use crate::id::RequestId;
use crate::protocol::kind_of_text;
use crate::protocol::line_breaks;
use crate::text;

/// Writes a request, replacing what is in `buffer`. The message has no line breaks.
///
/// # Errors
/// [`Error::Encode`] when `params` does not encode, or not to a JSON object; `buffer` is then
/// empty.
pub fn encode_request<P: Serialize + ?Sized>(
    buffer: &mut String,
    id: RequestId,
    method: &str,
    params: &P,
) -> Result<()> {
    let mut writer = MessageBuffer::new(buffer);
    writer.text(r#"{"jsonrpc":"2.0","id":""#);
    writer.text(&id.to_string());
    writer.text(r#"","method":"#);
    writer.json(method);
    writer.text(r#","params":"#);
    writer.params(params)?;
    writer.text("}");
    writer.finish(buffer);
    Ok(())
}

/// Writes the response to a request that succeeded, replacing what is in `buffer`. The message has
/// no line breaks.
///
/// The result's member `method` is always the method that was called, even if the handler set
/// another; the response itself never has one, because that would make it a request.
pub fn encode_result(
    buffer: &mut String,
    id: &RemoteRequestId,
    method: &str,
    result: &ResultObject,
) {
    let mut writer = MessageBuffer::new(buffer);
    writer.text(r#"{"jsonrpc":"2.0","id":"#);
    writer.text(id.as_json());
    writer.text(r#","result":{"method":"#);
    writer.json(method);
    for (name, value) in result.as_map() {
        if name != "method" {
            writer.text(",");
            writer.json(name);
            writer.text(":");
            writer.json(value);
        }
    }
    writer.text("}}");
    writer.finish(buffer);
}

/// The limit of an error's text, in bytes. Escaping may make it six times as long.
const ERROR_TEXT: usize = 4 * 1024;

/// Writes the response to a request that failed, replacing what is in `buffer`. The message has no
/// line breaks.
///
/// The error's text is cut to 4 KiB, and says how many bytes are missing.
pub fn encode_error(buffer: &mut String, id: &RemoteRequestId, error: &RpcError) {
    let mut writer = MessageBuffer::new(buffer);
    writer.text(r#"{"jsonrpc":"2.0","id":"#);
    writer.text(id.as_json());
    writer.text(r#","error":{"code":"#);
    writer.text(&error.code.to_string());
    writer.text(r#","message":"#);
    writer.json(&*text::cut(&error.message, ERROR_TEXT));
    writer.text("}}");
    writer.finish(buffer);
}

/// The caller's buffer as bytes, for the JSON encoder.
struct MessageBuffer(Vec<u8>);

impl MessageBuffer {
    fn new(buffer: &mut String) -> Self {
        let mut bytes = std::mem::take(buffer).into_bytes();
        bytes.clear();
        Self(bytes)
    }

    fn text(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Writes text in quotes, or any other JSON value.
    #[expect(clippy::expect_used, reason = "text and JSON values always encode")]
    fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer(&mut self.0, value).expect("a JSON value encodes");
    }

    fn params<P: Serialize + ?Sized>(&mut self, params: &P) -> Result<()> {
        let start = self.0.len();
        serde_json::to_writer(&mut self.0, params)
            .map_err(|error| Error::encode("params", error))?;
        if self.0.get(start) == Some(&b'{') {
            return Ok(());
        }
        let written = String::from_utf8_lossy(&self.0[start..]);
        Err(not_an_object("params", kind_of_text(&written)))
    }

    /// Puts the message back into the caller's buffer.
    #[expect(clippy::expect_used, reason = "only text and JSON were written")]
    fn finish(mut self, buffer: &mut String) {
        // Only raw JSON in an embedder's params can bring line breaks, as white space between
        // tokens, but one would split the message in two on a transport that goes by lines.
        line_breaks::replace(&mut self.0);
        *buffer = String::from_utf8(self.0).expect("messages are text");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::id::Xid;
    use crate::protocol::method::Ping;

    fn request_id(json: &str) -> RemoteRequestId {
        RemoteRequestId::from_json(serde_json::from_str(json).unwrap()).unwrap()
    }

    fn object(value: Value) -> ResultObject {
        ResultObject::from_serialize(&value).unwrap()
    }

    #[test]
    fn ids_we_send_are_valid_xids() {
        let mut buffer = String::new();
        encode_request(&mut buffer, RequestId::generate(), "ping", &Ping {}).unwrap();
        let message: Value = serde_json::from_str(&buffer).unwrap();
        let id = message["id"].as_str().unwrap();
        assert!(id.parse::<Xid>().is_ok(), "{id}");
        assert!(id.ends_with(['0', 'g']), "{id}");
    }

    #[test]
    fn a_request_has_four_members_and_params_even_when_empty() {
        let id = "d5k2m2c5o2dtjn9ct6bg".parse().unwrap();
        let mut buffer = "left from last time".to_owned();
        encode_request(&mut buffer, id, "ping", &Ping {}).unwrap();
        assert_eq!(
            buffer,
            r#"{"jsonrpc":"2.0","id":"d5k2m2c5o2dtjn9ct6bg","method":"ping","params":{}}"#
        );
    }

    #[test]
    fn params_that_are_no_object_are_refused() {
        let mut buffer = "left from last time".to_owned();
        let id = RequestId::generate();
        let error = encode_request(&mut buffer, id, "x", &()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot encode params: must be a JSON object, found null"
        );
        assert_eq!(buffer, "");
        assert!(encode_request(&mut buffer, id, "x", &[1]).is_err());
        assert!(encode_request(&mut buffer, id, "x", "text").is_err());
        let keys = std::collections::HashMap::from([((1, 2), 3)]);
        assert!(encode_request(&mut buffer, id, "x", &keys).is_err());
    }

    #[test]
    fn opaque_ids_are_echoed_with_their_type() {
        let ids = [
            r#""0o6a205tdo4tj2nt466b""#,
            "1",
            "-0",
            "1.0",
            "1e400",
            "123456789012345678901234567890",
            r#""""#,
            r#""\u0041\"""#,
        ];
        for id in ids {
            let mut buffer = String::new();
            encode_result(
                &mut buffer,
                &request_id(id),
                "get_config",
                &ResultObject::new(),
            );
            assert!(
                buffer.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#)),
                "{buffer}"
            );
            encode_error(&mut buffer, &request_id(id), &RpcError::new(-32601, "no"));
            assert!(
                buffer.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":"#)),
                "{buffer}"
            );
        }
    }

    #[test]
    fn a_result_always_carries_its_method() {
        let mut buffer = String::new();
        encode_result(
            &mut buffer,
            &request_id("1"),
            "get_config",
            &ResultObject::new(),
        );
        assert_eq!(
            buffer,
            r#"{"jsonrpc":"2.0","id":1,"result":{"method":"get_config"}}"#
        );
        let result = object(json!({"method": "another", "config": {}}));
        encode_result(&mut buffer, &request_id("1"), "get_config", &result);
        assert_eq!(
            buffer,
            r#"{"jsonrpc":"2.0","id":1,"result":{"method":"get_config","config":{}}}"#
        );
    }

    #[test]
    fn a_response_never_has_a_method_at_its_top_level() {
        let members = |buffer: &str| -> Vec<String> {
            let message: Value = serde_json::from_str(buffer).unwrap();
            message.as_object().unwrap().keys().cloned().collect()
        };
        let mut buffer = String::new();
        let result = object(json!({"method": "x", "ok": true}));
        encode_result(&mut buffer, &request_id("1"), "x", &result);
        assert_eq!(members(&buffer), ["id", "jsonrpc", "result"]);
        encode_error(&mut buffer, &request_id("1"), &RpcError::new(-32000, "no"));
        assert_eq!(members(&buffer), ["error", "id", "jsonrpc"]);
    }

    #[test]
    fn an_error_has_a_code_and_a_message_and_nothing_else() {
        let mut buffer = String::new();
        let error = RpcError::new(RpcError::HANDLER_FAILED, "no \"such\"\nthing");
        encode_error(&mut buffer, &request_id(r#""a""#), &error);
        assert_eq!(
            buffer,
            r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32000,"message":"no \"such\"\nthing"}}"#
        );
    }

    #[test]
    fn a_result_that_is_no_object_cannot_be_made() {
        let error = ResultObject::from_serialize(&[1]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot encode result: must be a JSON object, found an array"
        );
        assert!(ResultObject::from_serialize(&()).is_err());
    }

    #[test]
    fn messages_have_no_line_breaks() {
        let params = RawValue::from_string("{\r\n\"text\": \"a\\nb\"\n}".to_owned()).unwrap();
        let mut buffer = String::new();
        encode_request(&mut buffer, RequestId::generate(), "x", &params).unwrap();
        assert!(!buffer.contains(['\n', '\r']), "{buffer}");
        let message: Value = serde_json::from_str(&buffer).unwrap();
        assert_eq!(message["params"]["text"], "a\nb");
    }

    #[test]
    fn results_and_ids_keep_their_content_out_of_debug_output() {
        let shown = format!("{:?}", object(json!({"access_key": "sdbak_secret"})));
        assert_eq!(shown, "ResultObject(1 members)");
    }
}
