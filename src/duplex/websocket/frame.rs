//! Encoding of the frames we send.

use std::time::{SystemTime, UNIX_EPOCH};

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::Role;
use crate::duplex::framed::Framing;

/// Longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_PAYLOAD: usize = 125;

impl Framing for Role {
    fn message(&self, message: &str) -> Vec<u8> {
        text(*self, message)
    }

    fn ping(&self) -> Option<Vec<u8>> {
        Some(ping(*self, b"plugin-runner"))
    }

    fn close(&self, code: u16, reason: &str) -> Option<Vec<u8>> {
        Some(close(*self, Some(code), reason))
    }
}

/// Returns a whole text message as one frame.
fn text(role: Role, message: &str) -> Vec<u8> {
    encode(role, OpCode::Data(Data::Text), message.as_bytes())
}

/// Returns a whole binary message of a client as one frame.
#[cfg(feature = "sprites")]
pub(crate) fn client_binary(message: &[u8]) -> Vec<u8> {
    encode(Role::Client, OpCode::Data(Data::Binary), message)
}

fn ping(role: Role, payload: &[u8]) -> Vec<u8> {
    encode(role, OpCode::Control(Control::Ping), payload)
}

pub(super) fn pong(role: Role, payload: &[u8]) -> Vec<u8> {
    encode(role, OpCode::Control(Control::Pong), payload)
}

/// Returns a close frame; without a code it is empty. A reason that is too long is cut.
pub(super) fn close(role: Role, code: Option<u16>, reason: &str) -> Vec<u8> {
    let mut payload = Vec::with_capacity(CONTROL_PAYLOAD);
    if let Some(code) = code {
        payload.extend_from_slice(&code.to_be_bytes());
        let mut length = reason.len().min(CONTROL_PAYLOAD - payload.len());
        while !reason.is_char_boundary(length) {
            length -= 1;
        }
        payload.extend_from_slice(&reason.as_bytes()[..length]);
    }
    encode(role, OpCode::Control(Control::Close), &payload)
}

fn encode(role: Role, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        opcode,
        mask: (role == Role::Client).then(mask),
        ..FrameHeader::default()
    };
    let length = payload.len() as u64;
    let mut frame = Vec::with_capacity(header.len(length) + payload.len());
    #[expect(clippy::expect_used, reason = "writing to a vector cannot fail")]
    header.format(length, &mut frame).expect("vector");
    let start = frame.len();
    frame.extend_from_slice(payload);
    if let Some(mask) = header.mask {
        for (byte, key) in frame[start..].iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
    }
    frame
}

/// Returns a new mask. It keeps a page in a browser from choosing the bytes that a proxy sees, so it
/// should be hard to guess; but a system without random numbers does not stop sending.
fn mask() -> [u8; 4] {
    getrandom::u32()
        .unwrap_or_else(|_| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .subsec_nanos()
        })
        .to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_does_not_mask() {
        assert_eq!(text(Role::Server, "Hello"), b"\x81\x05Hello");
        assert_eq!(close(Role::Server, Some(1000), "ok"), b"\x88\x04\x03\xe8ok");
        assert_eq!(close(Role::Server, None, "ignored"), b"\x88\x00");
    }

    #[test]
    fn a_client_masks() {
        let frame = text(Role::Client, "Hello, Hello");
        assert_eq!(frame[..2], [0x81, 0x8c]);
        let mask = &frame[2..6];
        let plain: Vec<u8> = frame[6..]
            .iter()
            .enumerate()
            .map(|(index, byte)| byte ^ mask[index % 4])
            .collect();
        assert_eq!(plain, b"Hello, Hello");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close(Role::Server, Some(1008), &"ü".repeat(100));
        assert_eq!(frame[1], 124);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
