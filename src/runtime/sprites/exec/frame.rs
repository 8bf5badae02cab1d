//! The frames of an exec socket, read and written. Pure functions.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::runtime::sprites::endpoint;

/// The first byte of a binary message says which stream it is of.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const EXIT: u8 = 3;
const STDIN_END: u8 = 4;

/// What the service says over an exec socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExecEvent {
    /// The session that this is; it may come at any time, or never.
    Session {
        /// For attaching to it, and for killing it. Ids are used again.
        id: String,
    },
    /// What the program printed; it ends anywhere in a line.
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// The service could not do something, such as start the program; this is what it says.
    Problem(String),
    /// The program ended, with 128 and the number of the signal if one ended it. Nothing follows.
    Exit(i32),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum TextMessage {
    SessionInfo {
        #[serde(deserialize_with = "id")]
        session_id: String,
    },
    Exit {
        exit_code: i32,
    },
    Error {
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        error: Option<String>,
    },
    #[serde(other)]
    Other,
}

/// Reads an id, which is a string or a number.
pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(String),
        Number(u64),
    }
    let id = match Id::deserialize(deserializer)? {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string(),
    };
    // One that no request can be made with would keep a program from ever being ended.
    let is_usable = endpoint::is_segment(&id);
    is_usable
        .then_some(id)
        .ok_or_else(|| D::Error::custom("an id that cannot be used"))
}

/// Reads a binary message; `None` for what is to be ignored.
pub(super) fn read_binary(message: &[u8]) -> Option<ExecEvent> {
    let (stream, payload) = message.split_first()?;
    match *stream {
        STDOUT if !payload.is_empty() => Some(ExecEvent::Stdout(payload.to_vec())),
        STDERR if !payload.is_empty() => Some(ExecEvent::Stderr(payload.to_vec())),
        EXIT => Some(ExecEvent::Exit(
            payload.first().copied().unwrap_or(0).into(),
        )),
        _ => None,
    }
}

/// Reads a text message; `None` for what is to be ignored.
pub(super) fn read_text(message: &str) -> Option<ExecEvent> {
    match serde_json::from_str(message).ok()? {
        TextMessage::SessionInfo { session_id } => Some(ExecEvent::Session { id: session_id }),
        TextMessage::Exit { exit_code } => Some(ExecEvent::Exit(exit_code)),
        TextMessage::Error { message, error } => {
            let said = message.or(error).unwrap_or_default();
            Some(ExecEvent::Problem(said))
        }
        TextMessage::Other => None,
    }
}

/// Returns the message for a piece of the program's standard input.
pub(super) fn stdin(piece: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(1 + piece.len());
    message.push(STDIN);
    message.extend_from_slice(piece);
    message
}

/// Returns the message for the end of the program's standard input.
pub(super) fn stdin_end() -> Vec<u8> {
    vec![STDIN_END]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_messages_are_a_stream_and_its_bytes() {
        for (message, event) in [
            (
                &b"\x01out\xff\n"[..],
                Some(ExecEvent::Stdout(b"out\xff\n".to_vec())),
            ),
            (b"\x02err", Some(ExecEvent::Stderr(b"err".to_vec()))),
            (b"\x01\x01", Some(ExecEvent::Stdout(vec![1]))),
            (b"\x03", Some(ExecEvent::Exit(0))),
            (b"\x03\x00", Some(ExecEvent::Exit(0))),
            (b"\x03\x89", Some(ExecEvent::Exit(137))),
            (b"\x03\xff\x07", Some(ExecEvent::Exit(255))),
            (b"", None),
            (b"\x01", None),
            (b"\x02", None),
            (b"\x00in", None),
            (b"\x04", None),
            (b"\x05x", None),
            (b"\xff", None),
        ] {
            assert_eq!(read_binary(message), event, "{message:?}");
        }
    }

    #[test]
    fn text_messages_are_read_as_far_as_they_matter() {
        let session = |id: &str| Some(ExecEvent::Session { id: id.to_owned() });
        let id = "7".repeat(4096);
        let too_long = format!(r#"{{"type":"session_info","session_id":"{id}"}}"#);
        for (message, event) in [
            (
                r#"{"type":"session_info","session_id":"1847","command":"x","is_owner":true}"#,
                session("1847"),
            ),
            (
                r#"{"type":"session_info","session_id":1847,"cols":0}"#,
                session("1847"),
            ),
            (r#"{"type":"session_info"}"#, None),
            (r#"{"type":"session_info","session_id":""}"#, None),
            (r#"{"type":"session_info","session_id":".."}"#, None),
            (&too_long, None),
            (r#"{"type":"session_info","session_id":null}"#, None),
            (
                r#"{"type":"exit","exit_code":143}"#,
                Some(ExecEvent::Exit(143)),
            ),
            (
                r#"{"type":"exit","exit_code":-1}"#,
                Some(ExecEvent::Exit(-1)),
            ),
            (r#"{"type":"exit"}"#, None),
            (
                r#"{"type":"error","message":"no such program"}"#,
                Some(ExecEvent::Problem("no such program".to_owned())),
            ),
            (
                r#"{"type":"error","error":"oops"}"#,
                Some(ExecEvent::Problem("oops".to_owned())),
            ),
            (r#"{"type":"port_opened","port":80,"pid":7}"#, None),
            (r#"{"type":"debug"}"#, None),
            ("{}", None),
            ("[]", None),
            ("", None),
            (r#"control:{"type":"op.complete"}"#, None),
            ("exit", None),
        ] {
            assert_eq!(read_text(message), event, "{message}");
        }
    }

    #[test]
    fn standard_input_is_marked() {
        assert_eq!(stdin(b"a\x00"), b"\x00a\x00");
        assert_eq!(stdin_end(), b"\x04");
    }
}
