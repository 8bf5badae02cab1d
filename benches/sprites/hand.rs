//! A plain client of the service, which does no more than it must.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use crate::fake::Fake;

/// A plain client, with one connection for requests and one for the program.
pub(crate) struct Hand<'a> {
    fake: &'a Fake,
    transport: &'static str,
    requests: Vec<String>,
    connection: Option<BufReader<TcpStream>>,
    listener: TcpListener,
    socket: Option<WebSocket<TcpStream>>,
}

impl<'a> Hand<'a> {
    pub(crate) fn new(fake: &'a Fake, transport: &'static str, requests: Vec<String>) -> Self {
        Self {
            fake,
            transport,
            requests,
            connection: None,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            socket: None,
        }
    }

    /// Starts the plugin; returns how long it took until there is something of it.
    pub(crate) fn start(&mut self) -> Duration {
        let began = Instant::now();
        let requests = self.requests.clone();
        let (last, first) = requests.split_last().unwrap();
        for target in first {
            self.ask("GET", target);
        }
        let url = format!("ws://{}{last}", self.fake.address());
        let mut request = url.into_client_request().unwrap();
        let bearer = format!("Bearer {}", self.fake.token());
        request
            .headers_mut()
            .insert("Authorization", bearer.parse().unwrap());
        let stream = TcpStream::connect(self.fake.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut socket, _) = tungstenite::client(request, stream).unwrap();
        if self.transport == "stdio" {
            let ping = json!({"jsonrpc": "2.0", "id": "9m4e2mr0ui3e8a215n4g", "method": "ping"});
            let environment = "\0PLUGIN_RUNNER_TRANSPORT=stdio\0\0";
            socket.send(Message::binary(environment)).unwrap();
            socket.send(Message::binary(format!("\0{ping}\n"))).unwrap();
            loop {
                let message = socket.read().unwrap();
                if message.is_binary() && message.into_data().starts_with(b"\x01{") {
                    break;
                }
            }
        } else {
            let address = self.listener.local_addr().unwrap();
            let environment = format!("\0STORYDEN_RPC_URL=ws://{address}/rpc?token=none\0\0");
            socket.send(Message::binary(environment)).unwrap();
            socket.send(Message::binary("\x04")).unwrap();
            let (mut plugin, _) = self.listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut bytes = [0; 1024];
                let count = plugin.read(&mut bytes).unwrap();
                head.extend_from_slice(&bytes[..count]);
            }
        }
        let took = began.elapsed();
        self.socket = Some(socket);
        took
    }

    /// Ends the program, and waits until it is gone.
    pub(crate) fn end(&mut self) {
        self.socket = None;
        let target = self.requests[0].clone();
        let exec = target.trim_end_matches('?').to_owned();
        loop {
            let listed: Value = serde_json::from_slice(&self.ask("GET", &target)).unwrap();
            let Some(session) = listed["sessions"].get(0) else {
                return;
            };
            let id = session["id"].as_str().unwrap();
            self.ask("POST", &format!("{exec}/{id}/kill?signal=KILL&timeout=1s"));
            self.connection = None;
        }
    }

    /// Makes a request; returns the body of the answer.
    fn ask(&mut self, method: &str, target: &str) -> Vec<u8> {
        let address = self.fake.address();
        let connection = self.connection.get_or_insert_with(|| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            BufReader::new(stream)
        });
        let token = self.fake.token();
        // The body of the other one is in chunks.
        let connection_header = if method == "GET" {
            "keep-alive"
        } else {
            "close"
        };
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
             Connection: {connection_header}\r\nContent-Length: 0\r\n\r\n"
        );
        connection.get_mut().write_all(request.as_bytes()).unwrap();
        let mut length = None;
        loop {
            let mut line = String::new();
            connection.read_line(&mut line).unwrap();
            if line == "\r\n" {
                break;
            }
            let line = line.to_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>().unwrap());
            }
        }
        let mut body = vec![0; length.unwrap_or(0)];
        connection.read_exact(&mut body).unwrap();
        if length.is_none() {
            connection.read_to_end(&mut body).unwrap();
        }
        body
    }
}
