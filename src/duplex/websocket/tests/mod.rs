//! The WebSocket transport against a peer that writes and reads raw frames. What the tests share is
//! here; the tests are in the files beside this one, named after what they are about.

mod client;
mod closing;
mod control;
mod messages;
mod waiting;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::*;
use crate::deadline::Deadline;
use crate::duplex::{Halves, Message, ReadingHalf, Received, SendError, WaitPolicy, WritingHalf};
use crate::error::{Disconnect, Phase};
use crate::testing::{LONG, wait_until};
use crate::thread::Threads;

fn long() -> Deadline {
    Deadline::after(LONG)
}

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A stream that both kinds of socket are.
trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// The other side, a client: frames as they are on the wire.
struct Peer(Box<dyn Stream>);

impl Peer {
    fn header(first: u8, mask_bit: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(mask_bit | u8::try_from(length).unwrap()),
            126..65_536 => {
                bytes.push(mask_bit | 0x7e);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask_bit | 0x7f);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Self::header(first, 0x80, payload.len());
        let mask = [0x12, 0x34, 0x56, 0x78];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
        bytes
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        self.0.write_all(&Self::frame(first, payload)).unwrap();
    }

    /// The next frame; none at the end of the stream.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.0.read_exact(&mut length).unwrap();
                usize::try_from(u64::from_be_bytes(length)).unwrap()
            }
            length => {
                assert!(length < 126, "a server must not mask");
                usize::from(length)
            }
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        Some((head[0], payload))
    }

    fn expect_text(&mut self, text: &str) {
        let (first, payload) = self.next().expect("a frame");
        assert_eq!((first, payload.len()), (TEXT, text.len()));
        assert!(payload == text.as_bytes(), "another text");
    }

    fn expect_close(&mut self) -> (u16, String) {
        loop {
            let (first, payload) = self.next().expect("a close frame before the end");
            if first == CLOSE {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                return (code, String::from_utf8(payload[2..].to_vec()).unwrap());
            }
        }
    }
}

fn settings() -> DuplexSettings {
    DuplexSettings::new("test")
}

/// Wire sockets of both kinds, with our end wrapped.
fn unix(settings: &DuplexSettings) -> (Halves, Peer) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    theirs.set_write_timeout(Some(LONG)).unwrap();
    let socket = WebSocket::server(ours, Vec::new());
    let halves = Halves::of(socket, settings).unwrap();
    (halves, Peer(Box::new(theirs)))
}

fn tcp_streams() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    theirs.set_write_timeout(Some(LONG)).unwrap();
    (ours, theirs)
}

fn tcp(settings: &DuplexSettings) -> (Halves, Peer) {
    let (ours, theirs) = tcp_streams();
    let socket = WebSocket::server(ours, Vec::new());
    let halves = Halves::of(socket, settings).unwrap();
    (halves, Peer(Box::new(theirs)))
}

fn receive_text(reader: &mut ReadingHalf) -> String {
    loop {
        if let Received::Message(message) = reader.receive().expect("a message") {
            return message.to_string();
        }
    }
}

/// Reads until the connection ends; gives why, and the reader.
fn read_out(mut reader: ReadingHalf) -> JoinHandle<(Disconnect, ReadingHalf)> {
    thread::spawn(move || {
        loop {
            if let Err(cause) = reader.receive() {
                return (cause, reader);
            }
        }
    })
}

fn wait_for_threads(settings: &DuplexSettings) {
    let left = settings.threads.join_all(long());
    assert_eq!(left, 0, "{:?}", settings.threads.names());
}

/// Sends until the peer's buffers are full and a call's own time runs out. Gives the texts that
/// will arrive: all that were taken, and the begun one.
fn fill(writer: &WritingHalf) -> Vec<String> {
    let mut begun = Vec::new();
    loop {
        let text = format!("{:04}{}", begun.len(), "x".repeat(300_000));
        match writer.send(&text, Deadline::after(Duration::from_millis(50))) {
            Ok(_) => begun.push(text),
            Err(SendError::Timeout { withdrawn }) => {
                if !withdrawn {
                    begun.push(text);
                }
                return begun;
            }
            Err(other) => panic!("{other}"),
        }
    }
}
