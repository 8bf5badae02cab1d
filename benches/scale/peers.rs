//! The other process: one that holds all the plugins' ends of the connections, with two threads for
//! however many there are, so that what is measured in the host is the host's alone.
//!
//! It is told a request target a line, connects, and answers a line for each. From then on it
//! answers calls, pings and closes. It ends when its input and all connections have.

use std::collections::HashMap;
use std::io::{BufRead, PipeReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use serde_json::{Value, json};

use super::role;

/// The process, seen from the one that measures.
pub(crate) struct Peers {
    child: Child,
    targets: Option<ChildStdin>,
    answers: std::io::BufReader<ChildStdout>,
}

impl Peers {
    /// Starts the process; it connects to this address. `mute` peers take no notice of a close.
    pub(crate) fn start(address: &str, mute: bool) -> Self {
        let role = if mute { role::MUTE_PEERS } else { role::PEERS };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([role, address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let targets = child.stdin.take();
        let answers = std::io::BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            targets,
            answers,
        }
    }

    /// Connects one for each target, one after the other.
    pub(crate) fn connect(&mut self, targets: &[String]) {
        let mut input = self.targets.as_ref().unwrap();
        // Fewer at a time than fill a pipe.
        for wave in targets.chunks(64) {
            input
                .write_all((wave.join("\n") + "\n").as_bytes())
                .unwrap();
            for _ in wave {
                let mut line = String::new();
                self.answers.read_line(&mut line).unwrap();
                assert_eq!(line.trim_end(), CONNECTED);
            }
        }
    }

    /// Waits for the process, all of whose connections have been closed.
    pub(crate) fn finish(mut self) {
        drop(self.targets.take());
        assert!(self.child.wait().unwrap().success());
    }
}

const CONNECTED: &str = "connected";

/// The body of the process.
pub(crate) fn run(address: &str, mute: bool) {
    super::process::raise_descriptor_limit();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let peers = Mutex::new(HashMap::new());
    let (ended, end) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        epoll::add(
            &epoll,
            &ended,
            epoll::EventData::new_u64(LAST),
            epoll::EventFlags::IN,
        )
        .unwrap();
        let serving = scope.spawn(|| serve(&epoll, &ended, &peers, mute));
        for (number, target) in std::io::stdin().lines().enumerate() {
            let stream = connect(address, &target.unwrap());
            let key = number as u64;
            let mut peers = peers.lock().unwrap();
            let data = epoll::EventData::new_u64(key);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN).unwrap();
            peers.insert(key, Peer::new(stream));
            drop(peers);
            println!("{CONNECTED}");
        }
        drop(end);
        serving.join().unwrap();
    });
}

/// The key of no connection: the input has ended.
const LAST: u64 = u64::MAX;

fn serve(epoll: &OwnedFd, end: &PipeReader, peers: &Mutex<HashMap<u64, Peer>>, mute: bool) {
    let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
    let mut no_more = false;
    loop {
        if no_more && (mute || peers.lock().unwrap().is_empty()) {
            return;
        }
        events.clear();
        match epoll::wait(epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("epoll: {error}"),
        }
        for event in &events {
            // The structure is packed.
            let data = event.data;
            if data.u64() == LAST {
                // Said once: the pipe stays readable.
                if !std::mem::replace(&mut no_more, true) {
                    epoll::delete(epoll, end).unwrap();
                }
                continue;
            }
            let mut peers = peers.lock().unwrap();
            let Some(peer) = peers.get_mut(&data.u64()) else {
                continue;
            };
            match peer.serve(mute) {
                true => {}
                // Stays open, and is not looked at any more.
                false if mute => epoll::delete(epoll, &peer.stream).unwrap(),
                false => drop(peers.remove(&data.u64())),
            }
        }
    }
}

/// One plugin's end of a connection.
struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Answers what has come; false when the connection is over.
    fn serve(&mut self, mute: bool) -> bool {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) | Err(_) => return false,
            Ok(count) => self.received.extend_from_slice(&chunk[..count]),
        }
        while let Some((opcode, payload, rest)) = frame(&self.received) {
            let (answer, last) = match opcode {
                TEXT => (masked(TEXT, &answer(payload)), false),
                PING => (masked(PONG, payload), false),
                CLOSE if mute => return false,
                CLOSE => (masked(CLOSE, payload), true),
                other => panic!("a frame of the kind {other}"),
            };
            self.received.drain(..rest);
            // Small, so it fits.
            if self.stream.write_all(&answer).is_err() || last {
                return false;
            }
        }
        // Idle, it holds nothing.
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        true
    }
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The first frame: what it is, what it carries, and where the next begins. Servers do not mask.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let [first, second, ..] = *bytes else {
        return None;
    };
    let (start, length) = match second {
        126 => (
            4,
            u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]).into(),
        ),
        length if length < 126 => (2, usize::from(length)),
        _ => panic!("a frame too large for this bench"),
    };
    let payload = bytes.get(start..start + length)?;
    Some((first & 0x0f, payload, start + length))
}

/// A frame as clients send it, with a mask that changes nothing.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 0x7e);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The answer to a `ping`.
fn answer(call: &[u8]) -> Vec<u8> {
    let call: Value = serde_json::from_slice(call).unwrap();
    let result = json!({"method": "ping", "pong": true, "status": "ok"});
    json!({"jsonrpc": "2.0", "id": call["id"], "result": result})
        .to_string()
        .into()
}

fn connect(address: &str, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "refused");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}
