//! The limits: what a call costs when nothing is done but sending a frame and waiting for a frame.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::ioctl_fionbio;
use serde_json::{Value, json};
use tungstenite::WebSocket;

use super::peer::{self, Answers};
use super::support::{Sample, latencies};

/// Whether a wait begins by looking again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spin {
    No,
    /// For as long as the host does by default.
    Brief,
}

impl Spin {
    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::No => Duration::ZERO,
            Self::Brief => Duration::from_micros(50),
        }
    }
}

/// What the params of a large call are before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Params {
    /// JSON.
    Ready,
    /// A value that each call encodes.
    Encoded,
}

const ID: &str = "9m4e2mr0ui3e8a215n4g";

fn request() -> String {
    json!({"jsonrpc": "2.0", "id": ID, "method": "ping", "params": {}}).to_string()
}

/// A way to send a message and to wait for one.
pub(crate) struct Wire(Box<dyn Messages>);

trait Messages {
    fn send(&mut self, message: String);
    fn receive(&mut self) -> String;
}

impl Wire {
    pub(crate) fn web_socket(answers: Answers, spin: Spin) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let program = std::env::current_exe().unwrap();
        let child = Command::new(program)
            .args(peer::arguments(answers, Some(&url)))
            .spawn()
            .unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let socket = tungstenite::accept(stream).unwrap();
        let socket = swap(socket, |stream| Spinning::new(stream, spin));
        Self(Box::new(OverWebSocket {
            socket: Some(socket),
            child,
        }))
    }

    pub(crate) fn pipes(answers: Answers, spin: Spin) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .args(peer::arguments(answers, None))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().unwrap();
        Self(Box::new(OverPipes {
            stdin,
            stdout: BufReader::new(Spinning::new(stdout, spin)),
            child,
        }))
    }

    /// Two threads of this process.
    pub(crate) fn channels() -> Self {
        let (to, from_us) = bounded::<String>(64);
        let (to_us, from) = bounded::<String>(64);
        let peer = std::thread::spawn(move || {
            for request in from_us {
                let request: Value = serde_json::from_str(&request).unwrap();
                let result = json!({"method": "ping", "pong": true});
                let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
                to_us.send(answer.to_string()).unwrap();
            }
        });
        Self(Box::new(OverChannels {
            to: Some(to),
            from,
            peer: Some(peer),
        }))
    }

    /// Round trips, one at a time.
    pub(crate) fn ping(&mut self, calls: usize) -> Sample {
        latencies(calls, || {
            self.0.send(request());
            check(&self.0.receive());
        })
    }

    /// So many in flight all the time; operations in a second.
    pub(crate) fn pipeline(&mut self, in_flight: usize, calls: usize) -> Sample {
        let began = Instant::now();
        for _ in 0..in_flight {
            self.0.send(request());
        }
        for done in 0..calls {
            check(&self.0.receive());
            if done + in_flight < calls {
                self.0.send(request());
            }
        }
        Sample::rate(calls, began.elapsed())
    }

    /// Round trips with params of so many bytes; nobody looks at those that come back.
    pub(crate) fn echo(&mut self, bytes: usize, params: Params, calls: usize) -> Sample {
        let data = json!({"data": "x".repeat(bytes)});
        let whole = |params: &Value| {
            let request = json!({"jsonrpc": "2.0", "id": ID, "method": "echo", "params": params});
            request.to_string()
        };
        let ready = whole(&data);
        latencies(calls, || {
            self.0.send(match params {
                Params::Ready => ready.clone(),
                Params::Encoded => {
                    let params = data.to_string();
                    format!(r#"{{"jsonrpc":"2.0","id":"{ID}","method":"echo","params":{params}}}"#)
                }
            });
            assert!(self.0.receive().len() > bytes);
        })
    }
}

fn check(answer: &str) {
    let answer: Value = serde_json::from_str(answer).unwrap();
    assert_eq!(answer["result"]["pong"], true);
}

struct OverWebSocket {
    socket: Option<WebSocket<Spinning<TcpStream>>>,
    child: Child,
}

impl Messages for OverWebSocket {
    fn send(&mut self, message: String) {
        self.socket.as_mut().unwrap().send(message.into()).unwrap();
    }

    fn receive(&mut self) -> String {
        let message = self.socket.as_mut().unwrap().read().unwrap();
        message.into_text().unwrap().as_str().to_owned()
    }
}

impl Drop for OverWebSocket {
    fn drop(&mut self) {
        drop(self.socket.take());
        self.child.wait().unwrap();
    }
}

struct OverPipes {
    stdin: Option<ChildStdin>,
    stdout: BufReader<Spinning<ChildStdout>>,
    child: Child,
}

impl Messages for OverPipes {
    fn send(&mut self, mut message: String) {
        message.push('\n');
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(message.as_bytes()).unwrap();
    }

    fn receive(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for OverPipes {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
    }
}

struct OverChannels {
    to: Option<Sender<String>>,
    from: Receiver<String>,
    peer: Option<std::thread::JoinHandle<()>>,
}

impl Messages for OverChannels {
    fn send(&mut self, message: String) {
        self.to.as_ref().unwrap().send(message).unwrap();
    }

    fn receive(&mut self) -> String {
        self.from.recv().unwrap()
    }
}

impl Drop for OverChannels {
    fn drop(&mut self) {
        drop(self.to.take());
        self.peer.take().unwrap().join().unwrap();
    }
}

/// A stream whose reads try for a while before they wait.
struct Spinning<S> {
    stream: S,
    spin: Duration,
}

impl<S: AsFd> Spinning<S> {
    fn new(stream: S, spin: Spin) -> Self {
        let spin = spin.duration();
        if !spin.is_zero() {
            ioctl_fionbio(&stream, true).unwrap();
        }
        Self { stream, spin }
    }
}

impl<S: Read + AsFd> Read for Spinning<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let until = Instant::now() + self.spin;
        loop {
            let read = self.stream.read(buffer);
            if !read.as_ref().is_err_and(is_would_block) {
                return read;
            }
            if Instant::now() >= until {
                poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], None)?;
            }
        }
    }
}

impl<S: Write> Write for Spinning<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn is_would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// The same socket over another stream. Nothing has been read beyond the handshake: the peer waits to
/// be asked.
fn swap<S, T: Read + Write>(socket: WebSocket<S>, change: impl FnOnce(S) -> T) -> WebSocket<T> {
    let role = tungstenite::protocol::Role::Server;
    WebSocket::from_raw_socket(change(socket.into_inner()), role, None)
}

/// A process that calls.
pub(crate) struct Caller {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    server: Option<std::thread::JoinHandle<()>>,
}

impl Caller {
    pub(crate) fn start(url: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .args(peer::caller_arguments(url))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            server: None,
        }
    }

    /// Calls a thread that reads a frame and answers it.
    pub(crate) fn of_bare_server() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut socket = tungstenite::accept(stream).unwrap();
            while let Ok(message) = socket.read() {
                let Ok(text) = message.to_text() else { break };
                let Ok(request) = serde_json::from_str::<Value>(text) else {
                    break;
                };
                let result = json!({"method": "bench", "done": true});
                let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
                socket.send(answer.to_string().into()).unwrap();
            }
        });
        let mut caller = Self::start(&url);
        caller.server = Some(server);
        caller
    }

    pub(crate) fn calls(&mut self, calls: usize) -> Sample {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{calls}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let [p50, p90, p99, min, max] = serde_json::from_str(&line).unwrap();
        Sample {
            p50,
            p90,
            p99,
            min,
            max,
            cpu: None,
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}
