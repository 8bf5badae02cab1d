//! WebSocket frames as they are on the wire, right or wrong, and a connection that carries them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::http::Request;

pub(crate) const CONTINUED: u8 = 0x00;
pub(crate) const FINAL: u8 = 0x80;
pub(crate) const TEXT: u8 = 0x01;
pub(crate) const BINARY: u8 = 0x02;
pub(crate) const CLOSE: u8 = 0x08;
pub(crate) const PING: u8 = 0x09;
pub(crate) const PONG: u8 = 0x0a;
/// The first reserved bit: 'compressed'.
pub(crate) const RSV1: u8 = 0x40;

/// A frame as a client sends it. `first` is its first byte: flags and opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = header(first, true, payload.len() as u64);
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    bytes
}

/// A whole text message.
pub(crate) fn text(text: &str) -> Vec<u8> {
    frame(FINAL | TEXT, text.as_bytes())
}

/// The beginning of a frame that announces this length; without the mask itself.
pub(crate) fn header(first: u8, is_masked: bool, length: u64) -> Vec<u8> {
    let mask_bit = if is_masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(mask_bit | u8::try_from(length).unwrap()),
        126..0x1_0000 => {
            bytes.push(mask_bit | 0x7e);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | 0x7f);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}

/// A plugin's end of a connection, on which the test sends bytes.
pub(crate) struct RawPeer(pub(crate) TcpStream);

impl RawPeer {
    /// Connects to a path and query; must succeed.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr, target: &str) -> Self {
        let answer = Request::upgrade(target).send(address);
        assert_eq!(answer.status, 101, "{}", answer.body);
        Self(answer.stream)
    }

    /// Sends bytes; what the host does not take any more is lost.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// The next frame's first byte and payload; nothing at the end of the connection.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, length] = self.read()?;
        let length = match length {
            126 => u64::from(u16::from_be_bytes(self.read()?)),
            127 => u64::from_be_bytes(self.read()?),
            length => u64::from(length),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).ok()?;
        Some((first, payload))
    }

    /// The payload of the next frame, which must be a ping.
    #[track_caller]
    pub(crate) fn expect_ping(&mut self) -> Vec<u8> {
        let (first, payload) = self.next().expect("a ping");
        assert_eq!(first, FINAL | PING, "{}", String::from_utf8_lossy(&payload));
        payload
    }

    pub(crate) fn pong(&mut self, payload: &[u8]) {
        self.send(&frame(FINAL | PONG, payload));
    }

    /// Reads up to the close; returns its code and reason.
    #[track_caller]
    pub(crate) fn expect_close(&mut self) -> (u16, String) {
        loop {
            let (first, payload) = self.next().expect("a close");
            if first == FINAL | CLOSE {
                let (code, reason) = payload.split_first_chunk().unwrap();
                let reason = String::from_utf8_lossy(reason).into_owned();
                return (u16::from_be_bytes(*code), reason);
            }
        }
    }

    #[track_caller]
    fn read<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        match self.0.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no frame in time"),
            Err(_) => None,
        }
    }

    /// Reads until the host ends its side, and ends this side too, as a peer that behaves would;
    /// gives the close code, if there was a close with one.
    #[track_caller]
    pub(crate) fn read_to_close(mut self) -> Option<u16> {
        let mut code = None;
        while let Some((first, payload)) = self.next() {
            if first == FINAL | CLOSE {
                code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            }
        }
        code
    }
}
