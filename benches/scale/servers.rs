//! The two who hold connections: a host, and beside it what cannot be done with less.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use plugin_runner::listener::Listener;
use plugin_runner::protocol::method::Ping;
use plugin_runner::{Health, Host, ReportedState, Session};
use serde_json::Value;
use tungstenite::Message;
use tungstenite::protocol::{WebSocket, WebSocketConfig};

use super::stage::{Plan, Server};
use super::support::LONG;
use super::support::plugins::{Folder, builder, install_external};

/// A host with external plugins.
pub(crate) struct HostServer {
    host: Host,
    listener: Listener,
    sessions: Vec<Session>,
    _folder: Folder,
}

impl HostServer {
    pub(crate) fn new(plan: Plan) -> Self {
        let folder = Folder::new("scale");
        let health = Health::default().interval(plan.health.unwrap_or_default());
        let host = builder(&folder).health(health).build().unwrap();
        let listener = host.listen("127.0.0.1:0").unwrap();
        Self {
            host,
            listener,
            sessions: Vec::new(),
            _folder: folder,
        }
    }
}

impl Server for HostServer {
    fn address(&self) -> String {
        self.listener.address().to_string()
    }

    fn expect(&mut self, count: usize) -> Vec<String> {
        let first = self.sessions.len();
        (first..first + count)
            .map(|number| {
                let id = install_external(&self.host, &format!("plugin-{number}"));
                let record = self.host.store().get(id).unwrap().unwrap();
                let token = record.external_token().unwrap();
                self.sessions.push(self.host.load(id).unwrap());
                format!("/rpc?token={}", token.expose())
            })
            .collect()
    }

    fn await_all(&mut self) {
        for session in &self.sessions {
            session.wait_for(ReportedState::Active, LONG).unwrap();
        }
    }

    fn list(&self) -> usize {
        self.host.sessions().len()
    }

    fn call(&mut self, number: usize) {
        let reply = self.sessions[number].call(&Ping {}, LONG).unwrap();
        assert!(reply.pong);
    }

    fn pings(&self) -> u64 {
        let each = self.sessions.iter().map(Session::counters);
        each.map(|counters| counters.pings_sent).sum()
    }

    fn shut_down(self) {
        let report = self.host.shutdown(LONG);
        assert!(report.is_complete(), "{report:?}");
    }
}

/// A thread for each connection, which blocks in a read and hands what comes to who waits for it.
pub(crate) struct BareServer {
    listener: TcpListener,
    connections: Vec<Connection>,
    accepting: Option<JoinHandle<Vec<Connection>>>,
    answers: (Sender<String>, Receiver<String>),
}

/// One descriptor, and the thread that reads from it.
type Connection = (Arc<TcpStream>, JoinHandle<()>);

/// Room for the answer to a call, and little more.
const READ_BUFFER: usize = 2 * 1024;

impl BareServer {
    pub(crate) fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            connections: Vec::new(),
            accepting: None,
            answers: unbounded(),
        }
    }
}

impl Server for BareServer {
    fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    fn expect(&mut self, count: usize) -> Vec<String> {
        let listener = self.listener.try_clone().unwrap();
        let answers = self.answers.0.clone();
        let accept = move || {
            let stream = Arc::new(listener.accept().unwrap().0);
            stream.set_nodelay(true).unwrap();
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER)
                .write_buffer_size(0);
            let shared = Shared(stream.clone());
            let socket = tungstenite::accept_with_config(shared, Some(config)).unwrap();
            let answers = answers.clone();
            let thread = std::thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn(move || read(socket, &answers))
                .unwrap();
            (stream, thread)
        };
        let accept_all = move || (0..count).map(|_| accept()).collect();
        self.accepting = Some(std::thread::spawn(accept_all));
        vec!["/".to_owned(); count]
    }

    fn await_all(&mut self) {
        let accepted = self.accepting.take().unwrap().join().unwrap();
        self.connections.extend(accepted);
    }

    fn list(&self) -> usize {
        let streams: Vec<Arc<TcpStream>> = self
            .connections
            .iter()
            .map(|(stream, _)| stream.clone())
            .collect();
        streams.len()
    }

    fn call(&mut self, number: usize) {
        write(&self.connections[number].0, 1, CALL);
        let answer = self.answers.1.recv_timeout(LONG).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["result"]["pong"], true);
    }

    fn pings(&self) -> u64 {
        0
    }

    fn shut_down(self) {
        for (stream, _) in &self.connections {
            write(stream, 8, "\u{3}\u{e8}");
        }
        for (_, thread) in self.connections {
            thread.join().unwrap();
        }
    }
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":"9m4e2mr0ui3e8a215n4g","method":"ping","params":{}}"#;

/// Writes a short frame as servers do.
fn write(stream: &TcpStream, opcode: u8, payload: &str) {
    let mut frame = vec![0x80 | opcode, payload.len().try_into().unwrap()];
    frame.extend(payload.as_bytes());
    (&mut &*stream).write_all(&frame).unwrap();
}

/// Hands on what comes, until the connection ends.
fn read(mut socket: WebSocket<Shared>, answers: &Sender<String>) {
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message {
            answers.send(text.as_str().to_owned()).unwrap();
        }
    }
}

/// One descriptor, read by one thread and written by another.
struct Shared(Arc<TcpStream>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&mut &*self.0).read(buffer)
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
