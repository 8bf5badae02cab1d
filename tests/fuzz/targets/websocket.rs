//! WebSocket frames of a plugin: read as a plain reading of RFC 6455 has them, the same whatever
//! pieces they come in, the limit held; and what is answered is well-formed.

use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixStream;

use plugin_runner::duplex::websocket::WebSocket;
use plugin_runner::duplex::{Duplex as _, DuplexSettings};
use plugin_runner::error::Disconnect;

use super::Target;
use super::packets::{Cut, arrived};
use crate::random::Random;

pub(crate) const TARGET: Target = Target {
    name: "websocket",
    generate,
    words: &[
        b"\x81\x80\0\0\0\0",
        b"\x01\x81\0\0\0\0a",
        b"\x80\x81\0\0\0\0b",
        b"\x89\x80\0\0\0\0",
        b"\x8a\x80\0\0\0\0",
        b"\x88\x80\0\0\0\0",
        b"\x88\x82\0\0\0\0\x03\xe8",
        b"\x82\x80\0\0\0\0",
        b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
        b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
        b"\x81\xfe\xff\xff\0\0\0\0",
        b"\xc1",
        b"\x81\x05",
    ],
    longest: 8 * 1024,
    check,
    runs: 1_500,
};

/// A byte for the limit, one for how it is cut, then frames.
fn generate(random: &mut Random) -> Vec<u8> {
    let mut input = vec![random.byte(), random.byte()];
    let slips = random.pick(&[0, 0, 40, 12]);
    let mut within = false;
    for _ in 0..random.length(8) {
        let slip = slips > 0 && random.one_in(slips);
        let (opcode, last) = match random.below(12) {
            _ if slip => (random.byte() & 0x7f, random.one_in(2)),
            0 => (9, true),
            1 => (10, true),
            2 if random.one_in(3) => (8, true),
            _ if within => (0, random.one_in(2)),
            3 => (2, random.one_in(2)),
            _ => (1, !random.one_in(3)),
        };
        if opcode < 8 {
            within = !last;
        }
        let mut payload = match opcode {
            8 => {
                let code = random.pick(&[1000_u16, 1001, 1005, 1012, 1015, 3000, 4999, 0, 65535]);
                let mut payload = code.to_be_bytes().to_vec();
                let length = random.length(20);
                payload.extend(random.text(b"abc \xc3\xa4", length).bytes());
                payload.truncate(if random.one_in(4) { 0 } else { 125 });
                payload
            }
            9.. => {
                let length = random.length(if slip { 200 } else { 125 });
                random.bytes(length)
            }
            _ => {
                let most = random.pick(&[8, 100, 130, 600]);
                let length = random.length(most);
                let text: String = (0..length)
                    .map(|_| random.pick(&['a', '{', '"', 'ä', '→', '\u{1f980}']))
                    .collect();
                text.into_bytes()
            }
        };
        if slip && random.one_in(2) {
            let length = random.length(4);
            payload.extend(random.bytes(length));
        }
        frame(
            random,
            &mut input,
            u8::from(last) << 7 | opcode,
            &payload,
            slip,
        );
    }
    input
}

fn frame(random: &mut Random, input: &mut Vec<u8>, first: u8, payload: &[u8], slip: bool) {
    let masked = !(slip && random.one_in(3));
    let mut length = payload.len() as u64;
    if slip && random.one_in(4) {
        length = random.next() >> random.below(64);
    }
    input.push(first);
    let mark = u8::from(masked) << 7;
    // The shortest form, or for once a longer one.
    match length {
        0..126 if !random.one_in(10) => input.push(mark | u8::try_from(length).unwrap()),
        0..0x1_0000 => {
            input.push(mark + 126);
            input.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            input.push(mark + 127);
            input.extend(length.to_be_bytes());
        }
    }
    let mask = if masked { random.bytes(4) } else { vec![0; 4] };
    if masked {
        input.extend(&mask);
    }
    let bytes = payload.iter().zip(mask.iter().cycle());
    input.extend(bytes.map(|(byte, mask)| byte ^ mask));
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Message(String),
    Alive,
}

/// How the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Lost,
    ByPeer,
    /// Against the protocol, or over the limit.
    Fault,
    /// Against the protocol, but so cut off that it need not be noticed.
    LostOrFault,
}

fn check(input: &[u8]) -> bool {
    let [limit, cut, bytes @ ..] = input else {
        return false;
    };
    // At least what control frames may have.
    let limit = 128 << (limit % 5);
    let (events, end) = expected(bytes, limit);
    let cut = Cut::from(*cut);
    let (found, found_end) = read(bytes, cut, limit);
    assert_eq!(
        found, events,
        "cut {cut:?}, ends with {found_end:?}, {end:?}"
    );
    match end {
        End::LostOrFault => assert_ne!(found_end, End::ByPeer),
        end => assert_eq!(found_end, end, "cut {cut:?}"),
    }
    end == End::Lost && !events.is_empty()
}

fn expected(mut bytes: &[u8], limit: usize) -> (Vec<Event>, End) {
    let mut events = Vec::new();
    // Whether it is text, and what has come of it.
    let mut message: Option<(bool, Vec<u8>)> = None;
    loop {
        let Some(frame) = Frame::read(&mut bytes) else {
            return (events, End::Lost);
        };
        let opcode = frame.first & 0x0f;
        let last = frame.first & 0x80 != 0;
        let control = opcode >= 8;
        let so_far = message.as_ref().map_or(0, |(_, content)| content.len());
        let fault = frame.first & 0x70 != 0
            || matches!(opcode, 3..=7 | 11..)
            || control && (!last || frame.length > 125)
            || frame.mask.is_none()
            || matches!(opcode, 1 | 2) && message.is_some()
            || opcode == 0 && message.is_none()
            || frame
                .length
                .saturating_add(if control { 0 } else { so_far })
                > limit;
        if fault {
            let whole = frame.payload.is_some();
            return (events, if whole { End::Fault } else { End::LostOrFault });
        }
        let Some(payload) = frame.payload else {
            return (events, End::Lost);
        };
        match opcode {
            8 => {
                let good = payload.len() != 1
                    && std::str::from_utf8(payload.get(2..).unwrap_or_default()).is_ok();
                return (events, if good { End::ByPeer } else { End::Fault });
            }
            9 | 10 => events.push(Event::Alive),
            _ => {
                let (text, content) = message.get_or_insert((opcode == 1, Vec::new()));
                content.extend(payload);
                let text = *text;
                let utf8 = std::str::from_utf8(content);
                if text && utf8.is_err_and(|error| last || error.error_len().is_some()) {
                    return (events, End::Fault);
                }
                if last {
                    let (_, content) = message.take().unwrap();
                    events.push(if text {
                        Event::Message(String::from_utf8(content).unwrap())
                    } else {
                        Event::Alive
                    });
                }
            }
        }
    }
}

/// A frame as it stands on the wire.
struct Frame {
    first: u8,
    length: usize,
    mask: Option<[u8; 4]>,
    /// Nothing when the stream ends before it does.
    payload: Option<Vec<u8>>,
}

impl Frame {
    /// Nothing when the stream ends before the header does.
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut take = |length: usize| {
            let (taken, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Some(taken)
        };
        let head = take(2)?;
        let (first, second) = (head[0], head[1]);
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(take(2)?.try_into().unwrap())),
            127 => u64::from_be_bytes(take(8)?.try_into().unwrap()),
            short => u64::from(short),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mask = match second & 0x80 {
            0 => None,
            _ => Some(<[u8; 4]>::try_from(take(4)?).unwrap()),
        };
        let payload = take(length).map(|payload| {
            let mask = mask.unwrap_or_default();
            let bytes = payload.iter().zip(mask.iter().cycle());
            bytes.map(|(byte, mask)| byte ^ mask).collect()
        });
        Some(Self {
            first,
            length,
            mask,
            payload,
        })
    }
}

fn read(bytes: &[u8], cut: Cut, limit: usize) -> (Vec<Event>, End) {
    let (ours, theirs) = arrived(bytes, cut);
    let mut settings = DuplexSettings::new("fuzz");
    settings.inbound_message = limit;
    let socket = WebSocket::server(UnixStream::from(ours), Vec::new());
    let (mut reader, writer) = Box::new(socket).split(&settings).expect("split");
    let mut events = Vec::new();
    let end = loop {
        match reader.receive() {
            Ok(Some(message)) => {
                assert!(message.len() <= limit);
                events.push(Event::Message(message.to_string()));
            }
            Ok(None) => events.push(Event::Alive),
            Err(Disconnect::Lost) => break End::Lost,
            Err(Disconnect::ByPeer { .. }) => break End::ByPeer,
            Err(Disconnect::TooLarge { .. } | Disconnect::NotUtf8 | Disconnect::Violation(_)) => {
                break End::Fault;
            }
            Err(other) => panic!("{other:?}"),
        }
    };
    assert!(reader.receive().is_err(), "it has ended");
    drop((reader, writer));
    answers(&sent(UnixStream::from(theirs)), end);
    (events, end)
}

/// All that we sent.
fn sent(mut theirs: UnixStream) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match theirs.read(&mut buffer) {
            Ok(0) => return sent,
            Ok(count) => sent.extend(&buffer[..count]),
            // What nobody read is lost with the connection.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return sent,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Pongs, and a close at the end where there was somebody to close to.
fn answers(mut bytes: &[u8], end: End) {
    let mut closed = false;
    while !bytes.is_empty() {
        assert!(!closed, "nothing comes after the close");
        let frame = Frame::read(&mut bytes).expect("whole frames");
        assert!(matches!(frame.first, 0x88 | 0x8a), "{:#x}", frame.first);
        assert!(frame.length <= 125 && frame.mask.is_none());
        let payload = frame.payload.expect("whole frames");
        closed = frame.first == 0x88;
        if closed {
            assert_ne!(payload.len(), 1);
            let reason = payload.get(2..).unwrap_or_default();
            assert!(std::str::from_utf8(reason).is_ok());
        }
    }
    assert_eq!(closed, matches!(end, End::ByPeer | End::Fault), "{end:?}");
}
