//! The WebSocket transport against a peer that writes and reads raw frames.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::*;
use crate::deadline::Deadline;
use crate::duplex::{DuplexReader, DuplexWriter, Received, SendError};
use crate::error::{Disconnect, Phase};
use crate::thread::Threads;

const LONG: Duration = Duration::from_secs(30);

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
    DuplexSettings::new("test", Threads::with_limit(4))
}

/// Wire sockets of both kinds, with our end wrapped.
fn unix(settings: &DuplexSettings) -> (Halves, Peer) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    theirs.set_write_timeout(Some(LONG)).unwrap();
    let socket = WebSocket::from_upgraded(ours, Role::Server, Vec::new());
    let halves = Box::new(socket).split(settings).unwrap();
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
    let socket = WebSocket::from_upgraded(ours, Role::Server, Vec::new());
    let halves = Box::new(socket).split(settings).unwrap();
    (halves, Peer(Box::new(theirs)))
}

fn receive_text(reader: &mut dyn DuplexReader) -> String {
    loop {
        if let Received::Message(message) = reader.receive().expect("a message") {
            return message.to_string();
        }
    }
}

/// Reads until the connection ends; gives why, and the reader.
fn read_out(mut reader: Box<dyn DuplexReader>) -> JoinHandle<(Disconnect, Box<dyn DuplexReader>)> {
    thread::spawn(move || {
        loop {
            if let Err(cause) = reader.receive() {
                return (cause, reader);
            }
        }
    })
}

/// Waits for a condition that other threads bring about.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = long();
    while !condition() {
        assert!(!deadline.has_passed(), "waited for {what}");
        thread::yield_now();
    }
}

fn wait_for_threads(settings: &DuplexSettings) {
    let left = settings.threads.join_all(long());
    assert_eq!(left, 0, "{:?}", settings.threads.names());
}

/// Sends until the peer's buffers are full and a call's own time runs out. Gives the texts that
/// will arrive: all that were taken, and the begun one.
fn fill(writer: &dyn DuplexWriter) -> Vec<String> {
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

#[test]
fn messages_go_both_ways_over_both_kinds_of_socket() {
    for make in [tcp, unix] {
        let settings = settings();
        let (mut halves, mut peer) = make(&settings);
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            let text = "y".repeat(length);
            peer.send(TEXT, text.as_bytes());
            assert!(receive_text(&mut *halves.reader) == text);
            let sent = thread::spawn({
                let (writer, text) = (Arc::clone(&halves.writer), text.clone());
                move || writer.send(&text, long()).unwrap()
            });
            peer.expect_text(&text);
            sent.join().unwrap();
        }
        drop(peer);
        assert!(matches!(halves.reader.receive(), Err(Disconnect::Lost)));
        // And again, and for the writer too.
        assert!(matches!(halves.reader.receive(), Err(Disconnect::Lost)));
        let refused = halves.writer.send("late", long()).unwrap_err();
        assert_eq!(refused.to_string(), "not connected: connection lost");
        wait_for_threads(&settings);
    }
}

#[test]
fn what_was_read_with_the_handshake_comes_first() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let early = Peer::frame(TEXT, b"early");
    let (part, rest) = early.split_at(4);
    theirs.write_all(rest).unwrap();
    let socket = WebSocket::from_upgraded(ours, Role::Server, part.to_vec());
    let mut halves = Box::new(socket).split(&settings()).unwrap();
    assert_eq!(receive_text(&mut *halves.reader), "early");
}

#[test]
fn a_client_and_a_server_of_ours_understand_each_other() {
    let settings = settings();
    let (one, other) = UnixStream::pair().unwrap();
    let split = |socket, role| {
        Box::new(WebSocket::from_upgraded(socket, role, Vec::new()))
            .split(&settings)
            .unwrap()
    };
    let mut client = split(one, Role::Client);
    let mut server = split(other, Role::Server);
    client.writer.send("from the client", long()).unwrap();
    assert_eq!(receive_text(&mut *server.reader), "from the client");
    server.writer.send("from the server", long()).unwrap();
    assert_eq!(receive_text(&mut *client.reader), "from the server");
    assert!(client.writer.ping());
    assert!(matches!(server.reader.receive(), Ok(Received::Alive)));
    assert!(matches!(client.reader.receive(), Ok(Received::Alive)));

    let client_end = read_out(client.reader);
    let server_end = read_out(server.reader);
    server.writer.close(1000, "closed", long());
    let (seen, _) = client_end.join().unwrap();
    assert_eq!(seen.to_string(), "closed by the plugin (code 1000, closed)");
    let (seen, _) = server_end.join().unwrap();
    assert_eq!(seen.to_string(), "closed by the host: closed");
    wait_for_threads(&settings);
}

#[test]
fn a_callers_deadline_harms_nobody() {
    for make in [tcp, unix] {
        let settings = settings();
        let (halves, mut peer) = make(&settings);
        let mut expected = fill(&*halves.writer);
        // The writer thread is at it now, so these are only queued.
        let later = halves.writer.send("later", long()).unwrap();
        let withdrawn = halves.writer.send("withdrawn", long()).unwrap();
        halves.writer.send("last", long()).unwrap();
        assert!(halves.writer.withdraw(withdrawn));
        assert!(!halves.writer.withdraw(withdrawn), "only once");
        expected.push("later".to_owned());
        expected.push("last".to_owned());

        for text in &expected {
            peer.expect_text(text);
        }
        assert!(!halves.writer.withdraw(later), "it has arrived");
        drop(halves);
        assert!(peer.next().is_none(), "nothing else was sent");
        wait_for_threads(&settings);
    }
}

#[test]
fn a_caller_waits_for_room_only_until_its_deadline() {
    let mut settings = settings();
    settings.outgoing_limit = 1000;
    let (halves, mut peer) = unix(&settings);
    let mut expected = fill(&*halves.writer);
    let large = "l".repeat(900);
    halves.writer.send(&large, long()).unwrap();
    expected.push(large);
    let no_room = halves
        .writer
        .send(&"n".repeat(200), Deadline::after(Duration::from_millis(50)));
    assert!(matches!(
        no_room,
        Err(SendError::Timeout { withdrawn: true })
    ));
    // This one waits until the peer reads.
    let waiting = thread::spawn({
        let writer = Arc::clone(&halves.writer);
        move || writer.send(&"w".repeat(2000), long())
    });
    expected.push("w".repeat(2000));
    for text in &expected {
        peer.expect_text(text);
    }
    waiting.join().unwrap().unwrap();
}

#[test]
fn callers_in_line_for_room_are_all_served() {
    let mut settings = settings();
    settings.outgoing_limit = 1000;
    let (halves, mut peer) = tcp(&settings);
    let senders: Vec<_> = (0..6)
        .map(|_| {
            let writer = Arc::clone(&halves.writer);
            thread::spawn(move || {
                let text = "t".repeat(700);
                for _ in 0..2000 {
                    writer.send(&text, long()).unwrap();
                }
            })
        })
        .collect();
    for _ in 0..6 * 2000 {
        assert_eq!(peer.next().expect("a frame").1.len(), 700);
    }
    for sender in senders {
        sender.join().unwrap();
    }
}

#[test]
fn every_message_arrives_as_its_sender_was_told() {
    const WRITERS: usize = 6;
    for threads in [0, 4] {
        let mut settings = settings();
        settings.threads = Threads::with_limit(threads);
        settings.outgoing_limit = 200_000;
        let (halves, mut peer) = unix(&settings);
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let writer = Arc::clone(&halves.writer);
                thread::spawn(move || {
                    let mut expected = Vec::new();
                    let mut random = number as u64 + 1;
                    for message in 0..300 {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let length = usize::try_from(random % 60_000).unwrap();
                        let text = format!("{number} {message} {}", "r".repeat(length));
                        let time = Duration::from_micros(random % 5_000);
                        match writer.send(&text, Deadline::after(time)) {
                            Ok(ticket) if random.is_multiple_of(5) && writer.withdraw(ticket) => {}
                            Ok(_) | Err(SendError::Timeout { withdrawn: false }) => {
                                expected.push(text);
                            }
                            Err(SendError::Timeout { withdrawn: true }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    expected
                })
            })
            .collect();
        let reading = thread::spawn(move || {
            let mut arrived = vec![Vec::new(); WRITERS];
            loop {
                let text = String::from_utf8(peer.next().expect("a frame").1).unwrap();
                if text == "end" {
                    return arrived;
                }
                let writer: usize = text[..1].parse().unwrap();
                arrived[writer].push(text);
            }
        });
        let expected: Vec<_> = writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect();
        halves.writer.send("end", long()).unwrap();
        let arrived = reading.join().unwrap();
        for (arrived, expected) in arrived.iter().zip(&expected) {
            assert!(
                arrived == expected,
                "{} and {}",
                arrived.len(),
                expected.len()
            );
        }
        drop(halves);
        wait_for_threads(&settings);
    }
}

#[test]
fn a_peer_that_never_reads_is_given_up_for_everybody() {
    let mut settings = settings();
    settings.write_stall_timeout = Duration::from_millis(300);
    settings.outgoing_limit = 500_000;
    let (halves, _peer) = tcp(&settings);
    let reading = read_out(halves.reader);
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let writer = Arc::clone(&halves.writer);
            thread::spawn(move || {
                let text = "s".repeat(100_000);
                loop {
                    if let Err(error) = writer.send(&text, long()) {
                        return error.to_string();
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        assert_eq!(
            sender.join().unwrap(),
            "not connected: the plugin read nothing for 300ms"
        );
    }
    let (cause, _reader) = reading.join().unwrap();
    assert!(matches!(cause, Disconnect::Stalled { .. }), "{cause}");
    wait_for_threads(&settings);
}

#[test]
fn a_stall_is_noticed_when_all_callers_have_gone() {
    let mut settings = settings();
    settings.write_stall_timeout = Duration::from_millis(300);
    let (mut halves, _peer) = unix(&settings);
    fill(&*halves.writer);
    let cause = halves.reader.receive().unwrap_err();
    assert!(matches!(cause, Disconnect::Stalled { .. }), "{cause}");
    wait_for_threads(&settings);
}

#[test]
fn a_slow_peer_is_not_a_stalled_one() {
    let mut settings = settings();
    settings.write_stall_timeout = Duration::from_millis(200);
    let (halves, mut peer) = unix(&settings);
    let text = "s".repeat(3_000_000);
    let sending = thread::spawn({
        let (writer, text) = (Arc::clone(&halves.writer), text.clone());
        move || writer.send(&text, long())
    });
    // Takes three times the stall timeout for it all, a little at a time.
    let mut piece = vec![0; 20_000];
    let started = Instant::now();
    for part in 0..150 {
        let due = started + Duration::from_millis(4) * part;
        let _ = crossbeam_channel::at(due).recv();
        peer.0.read_exact(&mut piece).unwrap();
    }
    peer.0.read_exact(&mut [0; 10]).unwrap();
    sending.join().unwrap().unwrap();
}

#[test]
fn many_writers_never_mix_and_keep_their_order() {
    const WRITERS: usize = 8;
    const MESSAGES: usize = 2000;
    for make in [tcp, unix] {
        let settings = settings();
        let (halves, mut peer) = make(&settings);
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let writer = Arc::clone(&halves.writer);
                thread::spawn(move || {
                    for message in 0..MESSAGES {
                        let length = match message % 97 {
                            0 => 65_536,
                            7 => 4_000,
                            other => other * 3,
                        };
                        let filler = char::from(b'a' + u8::try_from(message % 26).unwrap());
                        let filler = String::from(filler).repeat(length);
                        let text = format!("{number} {message} {filler}");
                        writer.send(&text, long()).unwrap();
                    }
                })
            })
            .collect();
        let mut next = [0; WRITERS];
        for _ in 0..WRITERS * MESSAGES {
            let (first, payload) = peer.next().expect("a frame");
            assert_eq!(first, TEXT);
            let text = String::from_utf8(payload).unwrap();
            let mut parts = text.split(' ');
            let writer: usize = parts.next().unwrap().parse().unwrap();
            let message: usize = parts.next().unwrap().parse().unwrap();
            assert_eq!(message, next[writer], "of writer {writer}");
            next[writer] += 1;
            let length = match message % 97 {
                0 => 65_536,
                7 => 4_000,
                other => other * 3,
            };
            let filler = parts.next().unwrap();
            assert_eq!(filler.len(), length);
            let letter = b'a' + u8::try_from(message % 26).unwrap();
            assert!(filler.bytes().all(|byte| byte == letter));
        }
        for writer in writers {
            writer.join().unwrap();
        }
        drop(halves);
        wait_for_threads(&settings);
    }
}

#[test]
fn pings_are_answered_while_nobody_writes() {
    let settings = settings();
    let (mut halves, mut peer) = tcp(&settings);
    for payload in ["", "one", "two"] {
        peer.send(PING, payload.as_bytes());
        assert!(matches!(halves.reader.receive(), Ok(Received::Alive)));
        assert_eq!(peer.next(), Some((PONG, payload.as_bytes().to_vec())));
    }
    // The writer thread does not stay.
    wait_until("the writer thread to end", || settings.threads.count() == 0);
}

#[test]
fn a_pong_overtakes_what_is_queued_but_not_what_is_begun() {
    let settings = settings();
    let (mut halves, mut peer) = unix(&settings);
    let begun = fill(&*halves.writer);
    halves.writer.send("queued", long()).unwrap();
    for payload in ["1", "2", "3"] {
        peer.send(PING, payload.as_bytes());
        assert!(matches!(halves.reader.receive(), Ok(Received::Alive)));
    }
    for text in &begun {
        peer.expect_text(text);
    }
    // The newest answers for all.
    assert_eq!(peer.next(), Some((PONG, b"3".to_vec())));
    peer.expect_text("queued");
}

#[test]
fn a_flood_of_pings_from_a_peer_that_does_not_read_stays_bounded() {
    const PINGS: usize = 50_000;
    let settings = settings();
    let (mut halves, mut peer) = unix(&settings);
    let begun = fill(&*halves.writer);
    let flood = thread::spawn(move || {
        for number in 0..PINGS {
            peer.send(PING, format!("{number:0100}").as_bytes());
        }
        peer
    });
    for _ in 0..PINGS {
        assert!(matches!(halves.reader.receive(), Ok(Received::Alive)));
    }
    let mut peer = flood.join().unwrap();
    for text in &begun {
        peer.expect_text(text);
    }
    let newest = format!("{:0100}", PINGS - 1).into_bytes();
    assert_eq!(peer.next(), Some((PONG, newest)), "one pong for all");
}

#[test]
fn posts_that_are_not_read_end_the_connection() {
    let settings = settings();
    let (mut halves, mut peer) = unix(&settings);
    halves.writer.post("answered").unwrap();
    peer.expect_text("answered");
    fill(&*halves.writer);
    let refused = (0..100_000).find_map(|_| halves.writer.post("answer").err());
    assert!(matches!(
        refused,
        Some(SendError::Closed(cause)) if matches!(*cause, Disconnect::ControlOverflow)
    ));
    let cause = halves.reader.receive().unwrap_err();
    assert!(matches!(cause, Disconnect::ControlOverflow), "{cause}");
    wait_for_threads(&settings);
}

#[test]
fn a_peer_that_overflows_us_and_then_reads_learns_why() {
    let settings = settings();
    let (halves, mut peer) = unix(&settings);
    fill(&*halves.writer);
    while halves.writer.post("answer").is_ok() {}
    let reading = read_out(halves.reader);
    assert_eq!(peer.expect_close().0, 1008);
    drop(peer);
    let (cause, _) = reading.join().unwrap();
    assert!(matches!(cause, Disconnect::ControlOverflow), "{cause}");
}

#[test]
fn a_close_reaches_a_peer_that_is_sending() {
    for make in [tcp, unix] {
        let settings = settings();
        let (halves, mut peer) = make(&settings);
        // Unread when the close begins: nobody reads yet.
        peer.send(TEXT, "u".repeat(50_000).as_bytes());
        peer.send(TEXT, "u".repeat(50_000).as_bytes());
        let closing = thread::spawn({
            let writer = Arc::clone(&halves.writer);
            move || writer.close(1012, "package updated", long())
        });
        assert_eq!(peer.expect_close(), (1012, "package updated".to_owned()));
        assert!(peer.next().is_none(), "our direction ends");
        peer.send(CLOSE, &1012_u16.to_be_bytes());
        let reading = read_out(halves.reader);
        drop(peer);
        let (cause, mut reader) = reading.join().unwrap();
        assert!(matches!(cause, Disconnect::ByHost { code: 1012, .. }));
        assert!(matches!(
            reader.receive(),
            Err(Disconnect::ByHost { code: 1012, .. })
        ));
        closing.join().unwrap();
        let refused = halves.writer.send("late", long()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "not connected: closed by the host: package updated"
        );
        wait_for_threads(&settings);
    }
}

#[test]
fn a_close_ends_in_time_with_a_peer_that_neither_reads_nor_stops() {
    let settings = settings();
    let (halves, mut peer) = unix(&settings);
    fill(&*halves.writer);
    let reading = read_out(halves.reader);
    let flood = thread::spawn(move || {
        let frame = Peer::frame(TEXT, &[b'f'; 1000]);
        while peer.0.write_all(&frame).is_ok() {}
    });
    let started = Instant::now();
    halves
        .writer
        .close(1000, "closed", Deadline::after(Duration::from_millis(400)));
    assert!(started.elapsed() < Duration::from_secs(10));
    let (cause, _) = reading.join().unwrap();
    assert!(matches!(cause, Disconnect::ByHost { code: 1000, .. }));
    flood.join().unwrap();
    // Again: nothing to do any more, and the first counts.
    halves.writer.close(1012, "again", long());
    assert!(
        halves
            .writer
            .send("late", long())
            .unwrap_err()
            .to_string()
            .ends_with("closed")
    );
    wait_for_threads(&settings);
}

#[test]
fn a_close_drops_what_is_queued_and_finishes_what_is_begun() {
    let settings = settings();
    let (halves, mut peer) = unix(&settings);
    let begun = fill(&*halves.writer);
    halves.writer.send("queued", long()).unwrap();
    let reading = read_out(halves.reader);
    let closing = thread::spawn({
        let writer = Arc::clone(&halves.writer);
        move || writer.close(1000, "closed", long())
    });
    // Closing has begun when others are refused.
    wait_until("the close to begin", || halves.writer.post("p").is_err());
    for text in &begun {
        peer.expect_text(text);
    }
    let (first, _) = peer.next().unwrap();
    assert_eq!(first, CLOSE);
    drop(peer);
    closing.join().unwrap();
    reading.join().unwrap();
}

#[test]
fn the_peers_close_is_answered_and_reported() {
    for make in [tcp, unix] {
        let settings = settings();
        let (mut halves, mut peer) = make(&settings);
        let mut payload = 1001_u16.to_be_bytes().to_vec();
        payload.extend(b"going");
        peer.send(CLOSE, &payload);
        let reading = thread::spawn(move || halves.reader.receive().unwrap_err());
        assert_eq!(peer.expect_close(), (1001, "going".to_owned()));
        assert!(peer.next().is_none());
        drop(peer);
        let cause = reading.join().unwrap();
        assert_eq!(cause.to_string(), "closed by the plugin (code 1001, going)");
        wait_for_threads(&settings);
    }
}

#[test]
fn a_close_without_a_code_has_none() {
    let settings = settings();
    let (mut halves, mut peer) = tcp(&settings);
    peer.send(CLOSE, b"");
    let reading = thread::spawn(move || halves.reader.receive().unwrap_err());
    assert_eq!(peer.next(), Some((CLOSE, Vec::new())));
    drop(peer);
    assert!(matches!(
        reading.join().unwrap(),
        Disconnect::ByPeer { code: None, .. }
    ));
}

#[test]
fn the_peers_close_counts_though_a_write_failed_first() {
    let settings = settings();
    let (mut halves, mut peer) = unix(&settings);
    peer.send(CLOSE, &1000_u16.to_be_bytes());
    drop(peer);
    let refused = halves.writer.send("too late", long()).unwrap_err();
    assert_eq!(refused.to_string(), "not connected: connection lost");
    let cause = halves.reader.receive().unwrap_err();
    assert!(
        matches!(
            cause,
            Disconnect::ByPeer {
                code: Some(1000),
                ..
            }
        ),
        "{cause}"
    );
    let refused = halves.writer.send("later still", long()).unwrap_err();
    assert!(refused.to_string().contains("closed by the plugin"));
}

/// Sends frames that must end the connection; gives the cause and the code the peer saw.
fn offend(settings: &DuplexSettings, bytes: &[u8]) -> (Disconnect, u16) {
    let (mut halves, mut peer) = tcp(settings);
    peer.0.write_all(bytes).unwrap();
    let reading = thread::spawn(move || {
        loop {
            if let Err(cause) = halves.reader.receive() {
                return cause;
            }
        }
    });
    let (code, _) = peer.expect_close();
    drop(peer);
    let cause = reading.join().unwrap();
    wait_for_threads(settings);
    (cause, code)
}

#[test]
fn the_read_limit_is_exact() {
    let mut settings = settings();
    settings.read_limit = 1000;
    let (mut halves, mut peer) = tcp(&settings);
    peer.send(TEXT, &[b'a'; 1000]);
    assert_eq!(receive_text(&mut *halves.reader).len(), 1000);
    peer.send(0x01, &[b'a'; 600]);
    peer.send(0x80, &[b'a'; 400]);
    assert_eq!(receive_text(&mut *halves.reader).len(), 1000);

    let one_over = Peer::frame(TEXT, &[b'a'; 1001]);
    let mut in_fragments = Peer::frame(0x01, &[b'a'; 600]);
    in_fragments.extend(Peer::frame(0x80, &[b'a'; 401]));
    // The header alone is enough, and makes nobody reserve a terabyte.
    let mut announced = Peer::header(TEXT, 0x80, 1 << 40);
    announced.extend([0; 4]);
    for bytes in [one_over, in_fragments, announced] {
        let (cause, code) = offend(&settings, &bytes);
        assert!(matches!(cause, Disconnect::TooLarge { limit: 1000 }));
        assert_eq!(code, 1009);
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let whole = Peer::frame(TEXT, b"\xff\xfe");
    let mut split = Peer::frame(0x01, b"\xe2\x82");
    split.extend(Peer::frame(0x80, b"x"));
    for bytes in [whole, split] {
        let (cause, code) = offend(&settings(), &bytes);
        assert!(matches!(cause, Disconnect::NotUtf8));
        assert_eq!(code, 1007);
    }
}

#[test]
fn breaches_of_the_protocol_are_refused() {
    let mut unmasked = Peer::header(TEXT, 0, 2);
    unmasked.extend(b"hi");
    let cases = [
        ("unmasked", unmasked),
        ("reserved bits", Peer::frame(0xc1, b"compressed")),
        ("reserved opcode", Peer::frame(0x83, b"")),
        ("stray continuation", Peer::frame(0x80, b"more")),
        ("long ping", Peer::frame(PING, &[0; 126])),
        ("half a close code", Peer::frame(CLOSE, b"x")),
    ];
    for (name, bytes) in cases {
        let (cause, code) = offend(&settings(), &bytes);
        assert!(matches!(cause, Disconnect::Violation(_)), "{name}: {cause}");
        assert_eq!(code, 1002, "{name}");
    }
}

#[test]
fn an_offender_that_floods_and_never_reads_is_cut_off() {
    let settings = settings();
    let (halves, mut peer) = unix(&settings);
    fill(&*halves.writer);
    peer.send(TEXT, b"\xff");
    let flood = thread::spawn(move || {
        let frame = Peer::frame(TEXT, &[b'f'; 1000]);
        while peer.0.write_all(&frame).is_ok() {}
    });
    let (cause, _reader) = read_out(halves.reader).join().unwrap();
    assert!(matches!(cause, Disconnect::NotUtf8), "{cause}");
    flood.join().unwrap();
    wait_for_threads(&settings);
}

#[test]
fn fragments_are_joined_and_binary_is_skipped() {
    let settings = settings();
    let (mut halves, mut peer) = tcp(&settings);
    peer.send(0x82, b"binary");
    assert!(matches!(halves.reader.receive(), Ok(Received::Alive)));
    peer.send(0x01, b"one ");
    peer.send(PING, b"between");
    peer.send(0x00, b"two ");
    peer.send(0x80, b"three");
    assert!(matches!(halves.reader.receive(), Ok(Received::Alive)));
    assert_eq!(receive_text(&mut *halves.reader), "one two three");
    peer.send(PONG, b"unasked");
    assert!(matches!(halves.reader.receive(), Ok(Received::Alive)));
}

#[test]
fn an_interrupt_wakes_the_reader_and_the_writers() {
    for make in [tcp, unix] {
        let settings = settings();
        let (halves, _peer) = make(&settings);
        let reading = read_out(halves.reader);
        let sending = thread::spawn({
            let writer = Arc::clone(&halves.writer);
            move || {
                let text = "b".repeat(100_000);
                loop {
                    if let Err(error) = writer.send(&text, long()) {
                        return error;
                    }
                }
            }
        });
        halves.interrupt.interrupt();
        let (_, mut reader) = reading.join().unwrap();
        assert!(reader.receive().is_err());
        assert!(matches!(sending.join().unwrap(), SendError::Closed(_)));
        halves.interrupt.interrupt();
        wait_for_threads(&settings);
    }
}

#[test]
fn nothing_is_lost_without_a_single_thread_to_be_had() {
    let mut settings = settings();
    settings.threads = Threads::with_limit(0);
    settings.outgoing_limit = 1000;
    let (mut halves, mut peer) = unix(&settings);
    let mut expected = fill(&*halves.writer);
    peer.send(PING, b"patience");
    assert!(matches!(halves.reader.receive(), Ok(Received::Alive)));
    halves.writer.post("posted").unwrap();
    // Nobody can write on, so this caller tries, and takes its message back.
    let late = halves
        .writer
        .send("late", Deadline::after(Duration::from_millis(50)));
    assert!(matches!(late, Err(SendError::Timeout { withdrawn: true })));
    let sending = thread::spawn({
        let writer = Arc::clone(&halves.writer);
        move || writer.send("last", long())
    });
    for text in expected.drain(..) {
        peer.expect_text(&text);
    }
    assert_eq!(peer.next(), Some((PONG, b"patience".to_vec())));
    peer.expect_text("posted");
    peer.expect_text("last");
    sending.join().unwrap().unwrap();
}

#[test]
fn a_stall_is_noticed_without_a_single_thread_to_be_had() {
    let mut settings = settings();
    settings.threads = Threads::with_limit(0);
    settings.write_stall_timeout = Duration::from_millis(200);
    let (mut halves, _peer) = unix(&settings);
    fill(&*halves.writer);
    let stalled = halves.writer.send("next", long()).unwrap_err();
    assert_eq!(
        stalled.to_string(),
        "not connected: the plugin read nothing for 200ms"
    );
    assert!(matches!(
        halves.reader.receive(),
        Err(Disconnect::Stalled { .. })
    ));
}

#[cfg(target_os = "linux")]
#[test]
fn the_descriptor_is_the_only_one_and_is_closed_with_the_last_part() {
    use std::os::fd::AsRawFd;

    let (ours, theirs) = tcp_streams();
    let link = |number: &std::path::Path| std::fs::read_link(number).ok();
    let socket = link(format!("/proc/self/fd/{}", ours.as_raw_fd()).as_ref()).unwrap();
    let open = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        descriptors
            .filter(|entry| link(&entry.as_ref().unwrap().path()).as_ref() == Some(&socket))
            .count()
    };
    let settings = settings();
    let ours = WebSocket::from_upgraded(ours, Role::Server, Vec::new());
    let mut halves = Box::new(ours).split(&settings).unwrap();
    halves.writer.send("bye", long()).unwrap();
    let mut peer = Peer(Box::new(theirs));
    peer.expect_text("bye");
    peer.send(PING, b"");
    assert!(matches!(halves.reader.receive(), Ok(Received::Alive)));
    assert_eq!(open(), 1);
    drop(halves);
    wait_for_threads(&settings);
    assert_eq!(open(), 0);
}

/// Accepts one connection and does what `serve` says.
fn serve(serve: impl FnOnce(TcpStream) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || serve(listener.accept().unwrap().0));
    (format!("ws://localhost:{port}/rpc?token=secret"), serving)
}

fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn accept(request: &str) -> String {
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .unwrap();
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

#[test]
fn a_client_connects_and_loses_nothing_sent_early() {
    let (url, serving) = serve(|mut stream| {
        let request = head(&mut stream);
        assert!(request.starts_with("GET /rpc?token=secret HTTP/1.1\r\n"));
        let agent = format!(
            "User-Agent: plugin-runner/{}\r\n",
            env!("CARGO_PKG_VERSION")
        );
        assert!(request.contains(&agent), "{request}");
        // In one piece with the answer.
        let mut bytes = accept(&request).into_bytes();
        bytes.extend(b"\x81\x05early");
        stream.write_all(&bytes).unwrap();
        let mut answer = [0; 2 + 4 + 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..2], [0x81, 0x84]);
    });
    let socket = WebSocket::connect(&url, LONG).unwrap();
    let mut halves = Box::new(socket).split(&settings()).unwrap();
    assert_eq!(receive_text(&mut *halves.reader), "early");
    halves.writer.send("pong", long()).unwrap();
    serving.join().unwrap();
    assert!(matches!(halves.reader.receive(), Err(Disconnect::Lost)));
}

#[test]
fn a_client_connects_over_a_unix_socket() {
    let directory = std::env::temp_dir().join(format!("plugin-runner-{}-ws", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = head(&mut stream);
        stream.write_all(accept(&request).as_bytes()).unwrap();
        stream.write_all(b"\x81\x02hi").unwrap();
    });
    let socket = WebSocket::connect_unix(&path, "ws://localhost/rpc", LONG).unwrap();
    let mut halves = Box::new(socket).split(&settings()).unwrap();
    assert_eq!(receive_text(&mut *halves.reader), "hi");
    serving.join().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_refused_handshake_names_the_status() {
    let (url, serving) = serve(|mut stream| {
        head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    });
    let error = WebSocket::connect(&url, LONG).unwrap_err();
    assert_eq!(
        error.to_string(),
        "not connected: the handshake was refused with HTTP status 401"
    );
    serving.join().unwrap();
}

#[test]
fn a_handshake_that_takes_too_long_ends_in_time() {
    // Connects, thanks to the queue of the listener; then nothing.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("ws://{}/rpc", listener.local_addr().unwrap());
    let error = WebSocket::connect(&url, Duration::from_millis(100)).unwrap_err();
    assert!(matches!(
        error,
        Error::Timeout {
            phase: Phase::Handshake,
            ..
        }
    ));
}

#[test]
fn what_cannot_be_connected_to_says_why() {
    let error = |url: &str| WebSocket::connect(url, LONG).unwrap_err().to_string();
    assert!(error("wss://localhost/rpc").contains("TLS"));
    assert!(error("http://localhost/rpc").contains("not a ws:// URL"));
    assert!(!error("ws://[::1/rpc?token=secret").contains("secret"));
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    assert!(error(&format!("ws://{address}/rpc")).starts_with("connect to 127.0.0.1:"));
    let (url, serving) = serve(|mut stream| {
        head(&mut stream);
    });
    assert!(error(&url).contains("connection lost"));
    serving.join().unwrap();
    let (url, serving) = serve(|mut stream| {
        let request = head(&mut stream).replace("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: x");
        stream.write_all(accept(&request).as_bytes()).unwrap();
    });
    assert!(error(&url).contains("did not read our handshake"));
    serving.join().unwrap();
    let (url, serving) = serve(|mut stream| {
        head(&mut stream);
        stream.write_all(b"SSH-2.0-not-a-web-server\r\n").unwrap();
    });
    assert!(error(&url).contains("broke the protocol"));
    serving.join().unwrap();
}
