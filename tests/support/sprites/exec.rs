//! The client's socket of a session: upgrades, frames, announcements.

use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::http::{Answer, Request};
use super::kill;
use super::service::Service;
use super::session::{Attached, Event, STDOUT};
use super::stream::Stream;
use super::switches::{Exit, Info, SocketFault, frame};
use super::wake;

/// The largest message from a client.
const LARGEST: usize = 64 * 1024 * 1024;

/// The answer to an upgrade. `None` for one that is no right upgrade.
pub(super) fn upgraded(request: &Request, has_capability: bool, is_wrong: bool) -> Option<Answer> {
    let key = request.header("sec-websocket-key")?;
    if request.header("sec-websocket-version") != Some("13") {
        return None;
    }
    let key = if is_wrong { "another key" } else { key };
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let answer = Answer::empty(101)
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Accept", &accept);
    Some(if has_capability {
        answer.with("X-Sprite-Capabilities", "other, signal")
    } else {
        answer
    })
}

/// Whether the socket goes on.
enum Next {
    GoOn,
    /// It has been closed, or is cut.
    Ended,
}

/// An upgraded connection.
pub(super) struct Socket<'a> {
    service: &'a Service,
    web: WebSocket<Stream>,
    fault: SocketFault,
    sent: usize,
    received: usize,
}

impl<'a> Socket<'a> {
    pub(super) fn new(service: &'a Service, stream: Stream, rest: Vec<u8>) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(LARGEST))
            .max_frame_size(Some(LARGEST));
        let fault = service.switches().sockets.pop_front();
        Self {
            service,
            web: WebSocket::from_partially_read(stream, rest, Role::Server, Some(config)),
            fault: fault.unwrap_or(SocketFault::None),
            sent: 0,
            received: 0,
        }
    }

    /// Says that a command could not be started.
    pub(super) fn refuse(mut self, text: Option<&str>, code: Option<u8>) {
        if let Some(text) = text {
            let _ = self.send_text(&json!({"type": "error", "message": text}));
        }
        if let Some(code) = code {
            let _ = self.web.send(Message::binary(vec![3, code]));
        }
        let _ = self.web.close(None);
        self.hold(None);
    }

    /// Serves the socket until it ends.
    pub(super) fn run(mut self, attached: &Attached, replayed: &[(u8, u8)], is_owner: bool) {
        let served = self.serve(attached, replayed, is_owner);
        // Whatever is in the way of a proper end is an end as well.
        drop(served);
        self.web.get_ref().socket().shut_down();
    }

    fn serve(
        &mut self,
        attached: &Attached,
        replayed: &[(u8, u8)],
        is_owner: bool,
    ) -> tungstenite::Result<()> {
        if let Next::Ended = self.meet_fault()? {
            return Ok(());
        }
        if let Next::Ended = self.announce(attached, is_owner)? {
            return Ok(());
        }
        for part in replayed.chunk_by(|one, other| one.0 == other.0) {
            let bytes: Vec<_> = part.iter().map(|&(_, byte)| byte).collect();
            self.send_output(attached, part[0].0, bytes)?;
        }
        match std::mem::replace(&mut self.fault, SocketFault::None) {
            SocketFault::Inject(bytes) => self.web.get_mut().write_all(&bytes)?,
            SocketFault::Flood(bytes) => loop {
                self.web.get_mut().write_all(&bytes)?;
            },
            other => self.fault = other,
        }
        while !self.service.has_ended() {
            if self.service.switches().silence {
                // Nothing is read, but the end of the connection is told all the same: that of a session that
                // is not there any more is found in no other way.
                let stream = self.web.get_ref().as_fd();
                let mut descriptors = [
                    PollFd::new(&attached.sleeper, PollFlags::IN),
                    PollFd::from_borrowed_fd(stream, PollFlags::empty()),
                ];
                wake::wait(&mut descriptors, None);
                if !descriptors[1].revents().is_empty() {
                    return Ok(());
                }
                attached.sleeper.clear();
                continue;
            }
            if let Next::Ended = self.receive(Some(attached))? {
                return Ok(());
            }
            while let Some(event) = attached.next() {
                if let Next::Ended = self.tell(attached, event)? {
                    return Ok(());
                }
            }
            self.wait(Some(attached), None);
        }
        Ok(())
    }

    fn wait(&self, attached: Option<&Attached>, until: Option<Instant>) {
        let stream = self.web.get_ref().as_fd();
        let mut descriptors = vec![PollFd::from_borrowed_fd(stream, PollFlags::IN)];
        if let Some(attached) = attached {
            descriptors.push(PollFd::new(&attached.sleeper, PollFlags::IN));
        }
        wake::wait(&mut descriptors, until);
        if let Some(attached) = attached {
            attached.sleeper.clear();
        }
    }

    fn announce(&mut self, attached: &Attached, is_owner: bool) -> tungstenite::Result<Next> {
        let (session, info) = (&attached.session, self.service.switches().info);
        if info == Info::Missing && !session.asked.tty {
            return Ok(Next::GoOn);
        }
        let id = match info {
            Info::Number => session.id.parse::<u32>().expect("a process id").into(),
            _ => Value::from(session.id.clone()),
        };
        let (cols, rows) = if session.asked.tty {
            session.asked.size
        } else {
            (0, 0)
        };
        self.send_text(&json!({
            "type": "session_info", "session_id": id, "command": session.asked.text(),
            "created": session.created.unix(), "cols": cols, "rows": rows,
            "is_owner": is_owner, "tty": session.asked.tty,
        }))
    }

    /// Reads what has come, or `Ended` if the client has gone.
    fn receive(&mut self, attached: Option<&Attached>) -> tungstenite::Result<Next> {
        loop {
            let message = match self.web.read() {
                Ok(message) => message,
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Next::GoOn);
                }
                Err(error) => return Err(error),
            };
            if !(message.is_text() || message.is_binary()) {
                continue;
            }
            self.received += 1;
            if let Some(attached) = attached {
                self.take(attached, &message);
            }
            if let Next::Ended = self.meet_fault()? {
                return Ok(Next::Ended);
            }
        }
    }

    /// Does what a client's message says.
    fn take(&self, attached: &Attached, message: &Message) {
        let session = &attached.session;
        match message {
            Message::Binary(bytes) if session.asked.tty => session.input(bytes),
            Message::Binary(bytes) => match bytes.split_first() {
                Some((0, bytes)) => session.input(bytes),
                Some((4, [])) => session.end_input(),
                _ => {}
            },
            Message::Text(text) => {
                let text: Value = serde_json::from_str(text).unwrap_or_default();
                let size = |name: &str| text[name].as_u64().and_then(|size| size.try_into().ok());
                match (text["type"].as_str(), text["signal"].as_str()) {
                    (Some("signal"), Some(name)) if self.service.switches().signal_capability => {
                        if let Some(signal) = kill::signal(name) {
                            session.signal(signal);
                        }
                    }
                    (Some("resize"), _) => {
                        if let (Some(cols), Some(rows)) = (size("cols"), size("rows")) {
                            session.resize((cols, rows));
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Tells the client what has happened.
    fn tell(&mut self, attached: &Attached, event: Event) -> tungstenite::Result<Next> {
        match event {
            Event::Output(stream, bytes) => self.send_output(attached, stream, bytes),
            Event::Dropped => Ok(Next::Ended),
            Event::Ended(code) => self.send_exit(attached.session.asked.tty, code),
        }
    }

    fn send_output(
        &mut self,
        attached: &Attached,
        stream: u8,
        bytes: Vec<u8>,
    ) -> tungstenite::Result<Next> {
        if attached.session.asked.tty {
            return self.send(Message::binary(bytes));
        }
        let mut framed = vec![stream.max(STDOUT)];
        framed.extend(bytes);
        self.send(Message::binary(framed))
    }

    fn send_exit(&mut self, is_tty: bool, code: u8) -> tungstenite::Result<Next> {
        let how = self.service.switches().exit;
        let how = match how {
            Exit::Close | Exit::Drop => how,
            _ if is_tty => Exit::Text,
            _ => how,
        };
        let normal = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        match how {
            Exit::Drop => return Ok(Next::Ended),
            Exit::Close => {
                self.web.close(Some(normal))?;
                self.hold(None);
                return Ok(Next::Ended);
            }
            Exit::Frame | Exit::Both | Exit::EmptyFrame => {
                let mut bytes = vec![3, code];
                if code == 0 && how == Exit::EmptyFrame {
                    bytes.pop();
                }
                if let Next::Ended = self.send(Message::binary(bytes))? {
                    return Ok(Next::Ended);
                }
            }
            Exit::Text => {}
        }
        if matches!(how, Exit::Text | Exit::Both) {
            self.send_text(&json!({"type": "exit", "exit_code": code}))?;
        }
        let hold = self.service.switches().hold;
        self.hold(Some(Instant::now() + hold));
        let _ = self.web.close(Some(normal));
        Ok(Next::Ended)
    }

    /// Reads until the client has gone, or until a moment.
    fn hold(&mut self, until: Option<Instant>) {
        let until = until.unwrap_or_else(|| Instant::now() + self.service.switches().hold);
        while !self.service.has_ended() && Instant::now() < until {
            if !matches!(self.receive(None), Ok(Next::GoOn)) {
                return;
            }
            self.wait(None, Some(until));
        }
    }

    fn send_text(&mut self, text: &Value) -> tungstenite::Result<Next> {
        self.send(Message::text(text.to_string()))
    }

    fn send(&mut self, message: Message) -> tungstenite::Result<Next> {
        self.sent += 1;
        if let SocketFault::CutWithin(at) = self.fault
            && self.sent == at
        {
            let first = if message.is_text() { 0x81 } else { 0x82 };
            let bytes = frame(first, &message.into_data());
            self.web.get_mut().write_all(&bytes[..bytes.len() / 2])?;
            return Ok(Next::Ended);
        }
        self.web.send(message)?;
        self.meet_fault()
    }

    /// Ends the connection if that is due.
    fn meet_fault(&mut self) -> tungstenite::Result<Next> {
        match self.fault {
            SocketFault::CutAfterSent(count) if self.sent >= count => Ok(Next::Ended),
            SocketFault::CutAfterReceived(count) if self.received >= count => Ok(Next::Ended),
            SocketFault::CloseAfterSent(count, code) if self.sent >= count => {
                self.fault = SocketFault::None;
                let code = code.into();
                let reason = "".into();
                self.web.close(Some(CloseFrame { code, reason }))?;
                self.hold(None);
                Ok(Next::Ended)
            }
            _ => Ok(Next::GoOn),
        }
    }
}

/// Writes the answer to an upgrade.
pub(super) fn write_head(stream: &mut Stream, answer: &Answer, date: &str) -> io::Result<()> {
    let mut bytes = answer.head(date);
    bytes.extend(b"\r\n");
    stream.write_all(&bytes)
}
