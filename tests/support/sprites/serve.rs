//! One connection after another request, and the faults that requests meet.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use serde_json::Value;

use super::command::duration;
use super::exec::{Socket as ExecSocket, upgraded, write_head};
use super::http::{Answer, Chunks, Request};
use super::kill;
use super::service::{Service, Start, no_session, no_sprite};
use super::session::Session;
use super::stream::{Socket, Stream};
use super::switches::Fault;

/// Serves a connection until it ends.
pub(super) fn serve(
    service: &Arc<Service>,
    number: u64,
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
) {
    let Ok(socket) = Socket::new(stream) else {
        return;
    };
    service.connections.lock().insert(number, socket.clone());
    // Asked after it is known, so that it is seen either here or there.
    let is_served = !service.has_ended() && !service.switches().away;
    if is_served && let Ok(stream) = Stream::new(socket.clone(), tls) {
        let connection = Connection {
            service: service.clone(),
            stream,
            rest: Vec::new(),
        };
        // However it ends, it has ended.
        let _ = connection.run();
    }
    socket.shut_down();
    service.connections.lock().remove(&number);
}

struct Connection {
    service: Arc<Service>,
    stream: Stream,
    /// What has been read and belongs to the next request.
    rest: Vec<u8>,
}

/// What a request is, as far as it matters for how it is answered.
enum Kind {
    Plain,
    /// Of the session with this id, on this sprite.
    Kill(String, String),
    /// Of a command on this sprite.
    Start(String),
    /// To the session with this id, on this sprite.
    Attach(String, String),
}

impl Kind {
    fn of(request: &Request) -> Self {
        let segments = request.segments();
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        let is_upgrade = request.is_upgrade();
        match segments[..] {
            ["v1", "sprites", name, "exec", id, "kill"] if request.method == "POST" => {
                Self::Kill(name.to_owned(), id.to_owned())
            }
            ["v1", "sprites", name, "exec"] if is_upgrade => match request.query("id") {
                Some(id) => Self::Attach(name.to_owned(), id.to_owned()),
                None => Self::Start(name.to_owned()),
            },
            ["v1", "sprites", name, "exec", id] if is_upgrade => {
                Self::Attach(name.to_owned(), id.to_owned())
            }
            _ => Self::Plain,
        }
    }
}

impl Connection {
    fn run(mut self) -> io::Result<()> {
        while let Some(request) = Request::read(&mut self.stream, &mut self.rest)? {
            let call = self.service.calls.lock().add(&request);
            let line = format!("{} {}", request.method, request.path);
            let fault = self.service.switches().fault(&line);
            let is_last = request.header("connection") == Some("close");
            if let Some(answer) = self.before(fault.as_ref())? {
                self.write(call, &request, &answer)?;
                if is_last {
                    break;
                }
                continue;
            }
            let bearer = format!("Bearer {}", self.service.token);
            if request.header("authorization") != Some(&bearer) {
                let answer = Answer::error(401, "unauthorized", "invalid token");
                self.write(call, &request, &answer)?;
                if is_last {
                    break;
                }
                continue;
            }
            match (Kind::of(&request), fault) {
                (Kind::Plain, fault) => {
                    let answer = self.service.answer(&request);
                    self.after(call, &request, answer, fault)?;
                }
                (Kind::Kill(name, id), fault) => self.kill(call, &request, &name, &id, fault)?,
                (Kind::Start(name), fault) => {
                    let Some(rest) = self.exec(call, &request, &name, fault)? else {
                        return Ok(());
                    };
                    self = rest;
                }
                (Kind::Attach(name, id), fault) => {
                    let Some(rest) = self.attach(call, &request, &name, &id, fault)? else {
                        return Ok(());
                    };
                    self = rest;
                }
            }
            if is_last {
                break;
            }
        }
        Ok(())
    }

    fn note(&self, call: usize, status: u16) {
        self.service.calls.lock().0[call].status = Some(status);
    }

    fn date(&self) -> String {
        self.service.now().http()
    }

    fn write(&mut self, call: usize, request: &Request, answer: &Answer) -> io::Result<()> {
        self.note(call, answer.status);
        let bytes = self.bytes(request, answer);
        self.stream.write_all(&bytes)?;
        self.stream.flush()
    }

    fn bytes(&self, request: &Request, answer: &Answer) -> Vec<u8> {
        let mut answer = answer.clone();
        if answer.status == 429 {
            let reset = self.service.now().unix() + 60;
            answer = answer.with("X-RateLimit-Reset", &reset.to_string());
        }
        answer.to_bytes(&self.date(), request.method == "HEAD")
    }

    /// Meets a fault because of which nothing is done, or not yet; gives what to answer in place of that.
    fn before(&mut self, fault: Option<&Fault>) -> io::Result<Option<Answer>> {
        let date = self.date();
        match fault {
            Some(Fault::Answer(answer)) => return Ok(Some(answer.clone())),
            Some(Fault::Delay(time)) => self.service.pause(*time),
            Some(Fault::Hang) => {
                // Until the client gives up, or the fake ends.
                while self.stream.read_waiting(&mut [0; 1024])? > 0 {}
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Some(Fault::Drop) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Some(Fault::Garbage) => {
                self.stream.write_all(b"\0\x01 this is no HTTP\r\n\r\n")?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Some(Fault::EndlessHead) => {
                self.stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
                self.repeat(b"X-More: and more and more and more\r\n")?;
            }
            Some(Fault::EndlessBody) => {
                let head = Answer::new(200, "application/json", "");
                let mut chunks = Chunks::begin(&mut self.stream, &head, &date);
                chunks.send(b"[")?;
                while !self.service.has_ended() {
                    chunks.send(&b"[],".repeat(1024))?;
                }
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Some(Fault::VastBody) => {
                let mut head = Answer::new(200, "application/json", "").head(&date);
                head.extend(format!("Content-Length: {}\r\n\r\n", i64::MAX).bytes());
                self.stream.write_all(&head)?;
                self.repeat(&[b' '; 4096])?;
            }
            _ => {}
        }
        Ok(None)
    }

    fn repeat(&mut self, bytes: &[u8]) -> io::Result<()> {
        while !self.service.has_ended() {
            self.stream.write_all(bytes)?;
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Answers what has been done, with the fault that it meets.
    fn after(
        &mut self,
        call: usize,
        request: &Request,
        answer: Answer,
        fault: Option<Fault>,
    ) -> io::Result<()> {
        match fault {
            Some(Fault::Done(other)) => self.write(call, request, &other),
            Some(Fault::DoneDrop) => Err(io::ErrorKind::ConnectionAborted.into()),
            Some(Fault::Pad(size)) => self.write(call, request, &answer.padded(size)),
            Some(Fault::Cut(length)) => {
                let bytes = self.bytes(request, &answer);
                self.stream.write_all(&bytes[..length.min(bytes.len())])?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Some(Fault::Trickle(time)) => {
                self.note(call, answer.status);
                for byte in self.bytes(request, &answer) {
                    self.service.pause(time);
                    self.stream.write_all(&[byte])?;
                }
                Ok(())
            }
            _ => self.write(call, request, &answer),
        }
    }

    fn kill(
        &mut self,
        call: usize,
        request: &Request,
        name: &str,
        id: &str,
        fault: Option<Fault>,
    ) -> io::Result<()> {
        let woken = self.service.with(name, super::sprite::Sprite::wake);
        let refused = if woken.is_none() {
            Some(no_sprite())
        } else if self.service.session(name, id).is_none() {
            Some(if self.service.was_there(name, id) {
                Answer::error(410, "gone", "session has already exited")
            } else {
                no_session(id)
            })
        } else {
            None
        };
        let asked = request.query("signal").unwrap_or("SIGTERM");
        let time = request.query("timeout").unwrap_or("10s");
        let (session, signal, time) = match (
            refused,
            self.service.session(name, id),
            kill::signal(asked),
            duration(time),
        ) {
            (Some(answer), ..) => return self.after(call, request, answer, fault),
            (None, Some(session), Some(signal), Some(time)) => (session, signal, time),
            (None, None, ..) => {
                let answer = Answer::error(410, "gone", "session has already exited");
                return self.after(call, request, answer, fault);
            }
            _ => {
                let answer = Answer::error(400, "bad_request", "invalid signal or timeout");
                return self.after(call, request, answer, fault);
            }
        };
        self.tell_kill(call, request, (&session, asked, signal, time), fault)
    }

    fn tell_kill(
        &mut self,
        call: usize,
        request: &Request,
        (session, name, signal, time): (&Session, &str, rustix::process::Signal, Duration),
        fault: Option<Fault>,
    ) -> io::Result<()> {
        let kind = "application/x-ndjson";
        if fault.is_some() {
            let mut body = String::new();
            kill::kill(session, name, signal, time, |line: Value| {
                body.push_str(&line.to_string());
                body.push('\n');
            });
            return self.after(call, request, Answer::new(200, kind, body), fault);
        }
        self.note(call, 200);
        let date = self.date();
        let head = Answer::new(200, kind, "");
        let mut chunks = Chunks::begin(&mut self.stream, &head, &date);
        let mut told = Ok(());
        // Whoever asked may have gone: it is done all the same.
        kill::kill(session, name, signal, time, |line: Value| {
            if told.is_ok() {
                told = chunks.send(format!("{line}\n").as_bytes());
            }
        });
        told.and_then(|()| chunks.end())
    }

    /// The answer to an upgrade, if it may go on.
    fn upgrade(
        &mut self,
        call: usize,
        request: &Request,
        fault: Option<&Fault>,
    ) -> io::Result<bool> {
        let is_wrong = matches!(fault, Some(Fault::WrongAccept));
        let has_capability = self.service.switches().signal_capability;
        let Some(answer) = upgraded(request, has_capability, is_wrong) else {
            let answer = Answer::error(400, "bad_request", "no right upgrade");
            self.write(call, request, &answer)?;
            return Ok(false);
        };
        let answer = answer.with("Sprite-Version", &self.service.switches().version.clone());
        self.note(call, 101);
        let date = self.date();
        write_head(&mut self.stream, &answer, &date)?;
        Ok(true)
    }

    /// Starts a command. Gives itself back if the connection is none of a session.
    fn exec(
        mut self,
        call: usize,
        request: &Request,
        name: &str,
        fault: Option<Fault>,
    ) -> io::Result<Option<Self>> {
        if upgraded(request, false, false).is_none() {
            self.upgrade(call, request, None)?;
            return Ok(Some(self));
        }
        match self.service.start(name, request) {
            Start::Answer(answer) => {
                self.after(call, request, answer, fault)?;
                Ok(Some(self))
            }
            Start::Unstartable(text, code) => {
                self.upgrade(call, request, fault.as_ref())?;
                let socket = ExecSocket::new(&self.service, self.stream, self.rest);
                socket.refuse(text.as_deref(), code);
                Ok(None)
            }
            Start::Session(session, work) => {
                // Attached before anything can be printed.
                let (attached, replayed) = session.attach();
                self.service.spawn(move || work.run());
                match fault {
                    Some(Fault::Done(answer)) => {
                        drop(attached);
                        self.write(call, request, &answer)?;
                        return Ok(Some(self));
                    }
                    Some(Fault::DoneDrop) => return Ok(None),
                    Some(Fault::DoneDelay(time)) => self.service.pause(time),
                    _ => {}
                }
                self.upgrade(call, request, fault.as_ref())?;
                let socket = ExecSocket::new(&self.service, self.stream, self.rest);
                socket.run(&attached, &replayed, true);
                Ok(None)
            }
        }
    }

    fn attach(
        mut self,
        call: usize,
        request: &Request,
        name: &str,
        id: &str,
        fault: Option<Fault>,
    ) -> io::Result<Option<Self>> {
        let woken = self.service.with(name, super::sprite::Sprite::wake);
        let session = self.service.session(name, id);
        let (Some(()), Some(session)) = (woken, session) else {
            let answer = woken.map_or_else(no_sprite, |()| no_session(id));
            self.after(call, request, answer, fault)?;
            return Ok(Some(self));
        };
        let is_owner = session.clients() == 0;
        // Attached before the client can know of it: what is printed from then on is not lost.
        let (attached, replayed) = session.attach();
        if !self.upgrade(call, request, fault.as_ref())? {
            return Ok(Some(self));
        }
        let socket = ExecSocket::new(&self.service, self.stream, self.rest);
        socket.run(&attached, &replayed, is_owner);
        Ok(None)
    }
}
