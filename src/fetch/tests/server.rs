//! A server on loopback that answers as it is told, right or wrong, one connection after the other.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::testing::LONG;

/// Ends, and its thread with it, when dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers each connection, once the head of its request is there. The path is given.
    pub(super) fn start(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> Self {
        Self::listen(move |heads, stream| {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    return;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            heads.lock().push(head);
            answer(&path, stream);
        })
    }

    /// Answers each connection, whatever comes over it.
    pub(super) fn raw(answer: impl Fn(&mut TcpStream) + Send + 'static) -> Self {
        Self::listen(move |heads, stream| {
            heads.lock().push(String::new());
            answer(stream);
        })
    }

    /// Answers every request with the same bytes, and closes.
    pub(super) fn with(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_, stream| write(stream, &answer))
    }

    fn listen(serve: impl Fn(&Mutex<Vec<String>>, &mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let ending = Arc::<AtomicBool>::default();
        let thread = std::thread::spawn({
            let (heads, ending) = (heads.clone(), ending.clone());
            move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    if ending.load(Ordering::SeqCst) {
                        break;
                    }
                    stream.set_read_timeout(Some(LONG)).unwrap();
                    stream.set_write_timeout(Some(LONG)).unwrap();
                    serve(&heads, &mut stream);
                    finish(&mut stream);
                }
            }
        });
        Self {
            address,
            heads,
            ending,
            thread: Some(thread),
        }
    }

    /// Its host and port.
    pub(super) fn host_port(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The heads of the requests so far; empty ones for connections of a raw server.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
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

/// Writes, unless the peer has had enough.
pub(super) fn write(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// Waits until the peer has closed the connection.
pub(super) fn wait_for_end(stream: &mut TcpStream) {
    let mut bytes = [0; 1024];
    while let Ok(1..) = stream.read(&mut bytes) {}
}

/// Closes so that the peer gets all that was written: without a reset for what was not read.
fn finish(stream: &mut TcpStream) {
    if stream.shutdown(Shutdown::Write).is_ok() {
        wait_for_end(stream);
    }
}
