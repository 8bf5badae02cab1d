//! A plugin played by the test over a real socket, with another implementation's frames.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

use super::http::{Answer, Request};

/// The plugin's end of a connection.
pub(crate) struct Peer<S = TcpStream> {
    pub(crate) socket: WebSocket<S>,
}

impl Peer {
    /// Connects to a path and query; must succeed.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr, target: &str) -> Self {
        Self::upgraded(Request::upgrade(target).send(address))
    }
}

impl<S: Read + Write> Peer<S> {
    /// Takes over the connection of an answer, which must be a 101.
    #[track_caller]
    pub(crate) fn upgraded(answer: Answer<S>) -> Self {
        assert_eq!(answer.status, 101, "{}", answer.body);
        // From the example of the WebSocket standard, whose key we sent.
        assert_eq!(
            answer.header("Sec-WebSocket-Accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        let config = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None);
        Self {
            socket: WebSocket::from_raw_socket(answer.stream, Role::Client, Some(config)),
        }
    }

    pub(crate) fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).unwrap();
    }

    /// The next text message; pings in between are answered.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.socket.read().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// Answers the next call with its own params under `echo`, and gives the call.
    #[track_caller]
    pub(crate) fn answer_one(&mut self) -> Value {
        let call = self.receive();
        let answer = json!({
            "jsonrpc": "2.0",
            "id": call["id"],
            "result": {"method": call["method"], "echo": call["params"]},
        });
        self.send(answer.to_string());
        call
    }

    /// Reads until the connection ends; gives the close code, if there was a close.
    #[track_caller]
    pub(crate) fn read_to_close(&mut self) -> Option<u16> {
        let mut code = None;
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => code = frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the connection did not end in time")
                }
                Err(_) => return code,
            }
        }
    }
}
