//! A server on loopback that answers as it is told, right or wrong, one connection after the other; over
//! TLS if it is given a certificate.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tungstenite::handshake::derive_accept_key;

use crate::testing::LONG;

/// What a test's answers go over.
pub(super) trait Peer: Read + Write {}

impl<T: Read + Write> Peer for T {}

/// A request, read to the end of its head.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// Ends, and its thread with it, when dropped.
pub(super) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers each request, of which it gets the number and the content; then closes the connection
    /// unless the answer says to keep it.
    pub(super) fn start(
        answer: impl Fn(usize, &Seen, &mut dyn Peer) -> Then + Send + 'static,
    ) -> Self {
        Self::listen(None, answer)
    }

    pub(super) fn secure(
        config: ServerConfig,
        answer: impl Fn(usize, &Seen, &mut dyn Peer) -> Then + Send + 'static,
    ) -> Self {
        Self::listen(Some(Arc::new(config)), answer)
    }

    /// Answers the requests with these bytes, one after the other, and the last one again and again.
    pub(super) fn with<const N: usize>(answers: [String; N]) -> Self {
        Self::start(move |number, _, peer| {
            write(peer, answers[number.min(N - 1)].as_bytes());
            Then::Close
        })
    }

    fn listen(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(usize, &Seen, &mut dyn Peer) -> Then + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let connections = Arc::<Mutex<usize>>::default();
        let ending = Arc::<AtomicBool>::default();
        let thread = std::thread::spawn({
            let (seen, ending) = (seen.clone(), ending.clone());
            let connections = connections.clone();
            move || {
                for stream in listener.incoming() {
                    let stream = stream.unwrap();
                    if ending.load(Ordering::SeqCst) {
                        break;
                    }
                    *connections.lock() += 1;
                    stream.set_read_timeout(Some(LONG)).unwrap();
                    stream.set_write_timeout(Some(LONG)).unwrap();
                    let end = stream.try_clone().unwrap();
                    let mut peer: Box<dyn Peer> = match &tls {
                        None => Box::new(stream),
                        Some(config) => {
                            let connection = ServerConnection::new(config.clone()).unwrap();
                            Box::new(StreamOwned::new(connection, stream))
                        }
                    };
                    while let Some(request) = read_request(&mut *peer) {
                        let number = {
                            let mut seen = seen.lock();
                            seen.push(request.clone());
                            seen.len() - 1
                        };
                        match answer(number, &request, &mut *peer) {
                            Then::Keep => {}
                            Then::Close => break,
                            Then::Drop => {
                                let _ = end.shutdown(Shutdown::Both);
                                break;
                            }
                        }
                    }
                    let _ = peer.flush();
                    // So that the peer gets all that was written, without a reset for what was not read.
                    if end.shutdown(Shutdown::Write).is_ok() {
                        let _ = io::copy(&mut &end, &mut io::sink());
                    }
                }
            }
        });
        Self {
            address,
            seen,
            connections,
            ending,
            thread: Some(thread),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub(super) fn connections(&self) -> usize {
        *self.connections.lock()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // Wakes it.
        drop(TcpStream::connect(self.address));
        let ended = self.thread.take().unwrap().join();
        assert!(
            ended.is_ok() || std::thread::panicking(),
            "the server panicked"
        );
    }
}

/// What becomes of a connection after an answer.
pub(super) enum Then {
    Keep,
    Close,
    Drop,
}

/// Reads a request, and its body if its length is said.
fn read_request(peer: &mut dyn Peer) -> Option<Seen> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if peer.read(&mut byte).unwrap_or(0) == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut words = head.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let length = header(&head, "content-length").map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    peer.read_exact(&mut body).ok()?;
    Some(Seen {
        method,
        target,
        head,
        body,
    })
}

/// Returns the value of a header.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim())
}

/// An answer after which the connection is closed.
pub(super) fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

pub(super) fn json(status: u16, body: &str) -> String {
    answer(status, "Content-Type: application/json\r\n", body)
}

/// The same answer, without a word on what becomes of the connection.
pub(super) fn kept(answer: &str) -> String {
    answer.replace("Connection: close\r\n", "")
}

/// The answer that upgrades the request to WebSocket.
pub(super) fn upgraded(request: &Seen) -> String {
    let key = header(&request.head, "sec-websocket-key").expect("a request for WebSocket");
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nX-Sprite-Capabilities: signal\r\n\r\n"
    )
}

/// Writes, unless the peer has had enough; returns whether it took it.
pub(super) fn write(peer: &mut dyn Peer, bytes: &[u8]) -> bool {
    peer.write_all(bytes).and_then(|()| peer.flush()).is_ok()
}

/// Waits until the peer has closed the connection.
pub(super) fn wait_for_end(peer: &mut dyn Peer) {
    let mut bytes = [0; 1024];
    while let Ok(1..) = peer.read(&mut bytes) {}
}
