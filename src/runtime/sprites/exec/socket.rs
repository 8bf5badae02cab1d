//! An exec socket: one thread reads it, and any others write and close.
//!
//! The connection is non-blocking, and one lock guards it with the state of its WebSocket. It is held only
//! while bytes that are there are read, or bytes that find room are written; a thread that has to wait polls the
//! socket without it. What a writer leaves unwritten (and pongs, which tungstenite queues while it reads) goes
//! out when the reader sees room for it: the writer wakes the reader through a pipe, so that it polls for
//! room too. Closing shuts the socket down, which ends every wait.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tungstenite::{Message, WebSocket};

use super::frame::{self, ExecEvent};
use crate::deadline::Deadline;
use crate::error::{SpritesError, SpritesProblem};
use crate::poll;
use crate::runtime::sprites::client::Client;
use crate::runtime::sprites::interrupt::{Interrupt, Within};
use crate::runtime::sprites::link::Link;

/// The most bytes of a message from the service. It splits what a program prints as it likes.
pub(super) const MESSAGE_LIMIT: usize = 8 * 1024 * 1024;

/// The most bytes of standard input in one message, and of messages that are not yet written.
const PIECE: usize = 64 * 1024;
const UNWRITTEN_LIMIT: usize = 256 * 1024;

/// How often the service is asked for a sign of life, and how long it may be without one.
const PING: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(45);

const ACTION: &str = "follow the program on the sprite";

struct ExecShared {
    client: Client,
    websocket: Mutex<WebSocket<Link>>,
    socket: Arc<TcpStream>,
    /// A byte in it makes the reader look whether there is something to be written.
    wake: io::PipeWriter,
    has_closed: AtomicBool,
}

/// The reading half. Dropping it closes the socket.
pub(crate) struct ExecReader {
    shared: Arc<ExecShared>,
    woken: io::PipeReader,
    /// Bytes received when the service was last heard, and when that was.
    received: u64,
    heard: Instant,
    /// When the caller was last told something: time that it takes itself is no silence.
    left: Instant,
    ping_at: Instant,
    ping: Duration,
    silence: Duration,
    has_ended: bool,
}

/// The writing half; a clone writes to the same socket.
#[derive(Clone)]
pub(crate) struct ExecWriter {
    shared: Arc<ExecShared>,
}

/// Takes over a connection after its upgrade.
pub(super) fn open(
    client: Client,
    link: Link,
    already_read: Vec<u8>,
) -> io::Result<(ExecReader, ExecWriter)> {
    let (woken, wake) = io::pipe()?;
    rustix::io::ioctl_fionbio(&woken, true)?;
    rustix::io::ioctl_fionbio(&wake, true)?;
    let configuration = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(UNWRITTEN_LIMIT)
        .max_message_size(Some(MESSAGE_LIMIT))
        .max_frame_size(Some(MESSAGE_LIMIT));
    let socket = link.socket();
    let websocket =
        WebSocket::from_partially_read(link, already_read, Role::Client, Some(configuration));
    let shared = Arc::new(ExecShared {
        client,
        websocket: Mutex::new(websocket),
        socket,
        wake,
        has_closed: AtomicBool::new(false),
    });
    let now = Instant::now();
    let reader = ExecReader {
        shared: shared.clone(),
        woken,
        received: 0,
        heard: now,
        left: now,
        ping_at: now + PING,
        ping: PING,
        silence: SILENCE,
        has_ended: false,
    };
    Ok((reader, ExecWriter { shared }))
}

impl ExecReader {
    /// Waits for what the service says next; `None` when the deadline has passed. Without a deadline it
    /// waits for as long as the service gives signs of life; [`ExecWriter::close`] ends the wait.
    ///
    /// # Errors
    /// [`Broken`](SpritesProblem::Broken): the connection ended, in whatever way, without the program's exit;
    /// or the service was silent. [`Cancelled`](SpritesProblem::Cancelled): it was closed here.
    /// [`TooLarge`](SpritesProblem::TooLarge) and [`Protocol`](SpritesProblem::Protocol): the service sent
    /// what cannot be read. In each case nothing follows, and the connection is closed.
    pub(crate) fn next(
        &mut self,
        deadline: Option<Deadline>,
    ) -> Result<Option<ExecEvent>, SpritesError> {
        self.heard += self.left.elapsed();
        let next = self.wait_next(deadline, None);
        self.left = Instant::now();
        if matches!(next, Err(_) | Ok(Some(ExecEvent::Exit(_)))) {
            self.has_ended = true;
            self.shared.close();
        }
        next.map_err(error)
    }

    /// Waits as [`next`](Self::next) does, until something came or the time is over.
    ///
    /// # Errors
    /// Those of [`next`](Self::next), and of what bounds it, after which the connection is closed too.
    pub(crate) fn next_within(&mut self, within: Within<'_>) -> Result<ExecEvent, SpritesError> {
        let next = self.wait_next(Some(within.deadline), Some(within.interrupt));
        let next = next.and_then(|next| match (within.check(), next) {
            (_, Some(event)) => Ok(event),
            (Err(problem), None) => Err(problem),
            // The deadline has passed, or it would have waited on.
            (Ok(()), None) => Err(SpritesProblem::Timeout {
                limit: within.limit,
            }),
        });
        if matches!(next, Err(_) | Ok(ExecEvent::Exit(_))) {
            self.has_ended = true;
            self.shared.close();
        }
        next.map_err(error)
    }

    /// Sets how often it pings and how long it bears silence, from now on.
    #[cfg(test)]
    pub(in crate::runtime::sprites) fn hurry(&mut self, ping: Duration, silence: Duration) {
        self.ping = ping;
        self.silence = silence;
        self.ping_at = Instant::now() + ping;
    }

    fn wait_next(
        &mut self,
        deadline: Option<Deadline>,
        interrupt: Option<&Interrupt>,
    ) -> Result<Option<ExecEvent>, SpritesProblem> {
        loop {
            if self.has_ended {
                return Err(ended("it has ended"));
            }
            let (message, is_unwritten) = self.step();
            if let Some(message) = message {
                // First what was there already: the exit may be in it.
                if let Some(event) = self.event(message)? {
                    return Ok(Some(event));
                }
            }
            if self.shared.has_closed.load(Ordering::Acquire) {
                return Err(SpritesProblem::Cancelled);
            }
            let is_cancelled = interrupt.is_some_and(Interrupt::is_cancelled);
            if is_cancelled || deadline.is_some_and(Deadline::has_passed) {
                return Ok(None);
            }
            let silent_at = self.heard + self.silence;
            if Instant::now() >= silent_at {
                let limit = self.silence;
                return Err(ended(&format!("no sign of life for {limit:?}")));
            }
            let Some(is_unwritten) = is_unwritten else {
                // A message came; there may be more.
                continue;
            };
            let until = Deadline::at(self.ping_at.min(silent_at));
            let until = deadline.map_or(until, |deadline| deadline.min(until));
            let flags = if is_unwritten {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            };
            // Without an interrupt, the second stands there twice.
            let interrupt = interrupt.map_or(self.woken.as_fd(), AsFd::as_fd);
            let mut descriptors = [
                PollFd::from_borrowed_fd(self.shared.socket.as_fd(), flags),
                PollFd::from_borrowed_fd(self.woken.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(interrupt, PollFlags::IN),
            ];
            poll::wait(&mut descriptors, Some(until)).map_err(SpritesProblem::Broken)?;
            let woken = !descriptors[1].revents().is_empty();
            if woken {
                // However many bytes there are, one look is enough.
                while let Ok(64) = self.woken.read(&mut [0; 64]) {}
            }
        }
    }

    /// Reads what is there and writes what finds room. Returns a message or why there is none; and, if
    /// there is none for now, whether something is left to be written.
    fn step(&mut self) -> (Option<tungstenite::Result<Message>>, Option<bool>) {
        let mut websocket = self.shared.websocket.lock();
        let read = websocket.read();
        let now = Instant::now();
        let received = websocket.get_ref().received;
        if received > self.received {
            self.received = received;
            self.heard = now;
        }
        match read {
            Err(tungstenite::Error::Io(error)) if would_block(&error) => {}
            read => return (Some(read), None),
        }
        if now >= self.ping_at {
            self.ping_at = now + self.ping;
            // If it finds no room, what is there already asks for an answer.
            let _ = websocket.write(Message::Ping(tungstenite::Bytes::new()));
        }
        match websocket.flush() {
            Ok(()) => (None, Some(false)),
            Err(tungstenite::Error::Io(error)) if would_block(&error) => (None, Some(true)),
            Err(error) => (Some(Err(error)), None),
        }
    }

    /// Returns what a message means; `None` for one to be ignored.
    fn event(
        &self,
        message: tungstenite::Result<Message>,
    ) -> Result<Option<ExecEvent>, SpritesProblem> {
        use tungstenite::Error;
        // However the end of what was closed here looks.
        let has_closed = self.shared.has_closed.load(Ordering::Acquire);
        match message {
            Ok(Message::Binary(bytes)) => Ok(frame::read_binary(&bytes)),
            Ok(Message::Text(text)) => Ok(frame::read_text(&text).map(|event| match event {
                ExecEvent::Problem(said) => {
                    ExecEvent::Problem(self.shared.client.without_token(&said))
                }
                event => event,
            })),
            Ok(Message::Close(_)) | Err(_) if has_closed => Err(SpritesProblem::Cancelled),
            Ok(Message::Close(close)) => {
                let code = close.map_or(1005, |close| u16::from(close.code));
                Err(ended(&format!(
                    "closed with code {code} before the program's exit"
                )))
            }
            Ok(_) => Ok(None),
            Err(Error::Io(error)) => Err(SpritesProblem::Broken(error)),
            Err(Error::Capacity(_)) => Err(SpritesProblem::TooLarge {
                limit: MESSAGE_LIMIT,
            }),
            Err(
                Error::ConnectionClosed
                | Error::AlreadyClosed
                | Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake),
            ) => Err(ended("it ended before the program's exit")),
            Err(error) => Err(SpritesProblem::Protocol(error.to_string().into())),
        }
    }
}

impl ExecWriter {
    /// Writes to the program's standard input what finds room right now; `WouldBlock` if nothing does. What
    /// is taken is written as soon as there is room for it, if the reading half is being read.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        if !piece.is_empty() {
            self.send(frame::stdin(piece))?;
        }
        Ok(piece.len())
    }

    /// Writes all of it to the program's standard input. After a failure some of it may have been written,
    /// or may still be.
    pub(crate) fn write(&self, mut bytes: &[u8], within: Within<'_>) -> Result<(), SpritesError> {
        while !bytes.is_empty() {
            let step = self.try_write(bytes);
            bytes = &bytes[self.settle(step, within)?..];
        }
        Ok(())
    }

    /// Ends the program's standard input. Its output keeps coming.
    pub(crate) fn end_stdin(&self, within: Within<'_>) -> Result<(), SpritesError> {
        loop {
            let step = self.send(frame::stdin_end()).map(|()| 1);
            if self.settle(step, within)? > 0 {
                return Ok(());
            }
        }
    }

    /// Closes the socket; the reading half ends. Never blocks. The service lets the program run on for as
    /// long as it was told at its start.
    pub(crate) fn close(&self) {
        self.shared.close();
    }

    /// Returns the outcome of a step, or waits until another is worth trying and returns 0.
    fn settle(&self, step: io::Result<usize>, within: Within<'_>) -> Result<usize, SpritesError> {
        let problem = match step {
            Ok(count) => return within.check().map(|()| count).map_err(error),
            Err(error) if would_block(&error) => {
                let socket = self.shared.socket.as_fd();
                match within.wait(socket, PollFlags::OUT) {
                    Ok(()) => return Ok(0),
                    Err(problem) => problem,
                }
            }
            Err(_) if self.shared.has_closed.load(Ordering::Acquire) => SpritesProblem::Cancelled,
            Err(error) => SpritesProblem::Broken(error),
        };
        Err(error(problem))
    }

    fn send(&self, message: Vec<u8>) -> io::Result<()> {
        if self.shared.has_closed.load(Ordering::Acquire) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let mut websocket = self.shared.websocket.lock();
        // Not until the last one is out: what has been taken is bounded so.
        websocket.flush().map_err(into_io)?;
        match websocket.write(Message::Binary(message.into())) {
            Ok(()) => {}
            // It is in the buffer.
            Err(tungstenite::Error::Io(error)) if would_block(&error) => {}
            Err(error) => return Err(into_io(error)),
        }
        match websocket.flush() {
            Ok(()) => Ok(()),
            Err(tungstenite::Error::Io(error)) if would_block(&error) => {
                drop(websocket);
                self.shared.wake_reader();
                Ok(())
            }
            Err(error) => Err(into_io(error)),
        }
    }
}

impl ExecShared {
    fn wake_reader(&self) {
        // If it is full, the reader is about to wake anyway; if it has ended, there is nobody to wake.
        let _ = (&self.wake).write(&[0]);
    }

    fn close(&self) {
        if self.has_closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut websocket = self.websocket.lock();
        let close = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        // The service needs no farewell, and keeps the socket open for seconds after one: so this goes out
        // if it finds room, and no answer is waited for.
        let _ = websocket.close(Some(close));
        let _ = websocket.flush();
        drop(websocket);
        let _ = self.socket.shutdown(Shutdown::Both);
        self.wake_reader();
    }
}

impl Drop for ExecReader {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for ExecReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecReader").finish_non_exhaustive()
    }
}

impl fmt::Debug for ExecWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecWriter").finish_non_exhaustive()
    }
}

const fn error(problem: SpritesProblem) -> SpritesError {
    SpritesError {
        action: ACTION,
        problem,
    }
}

fn ended(how: &str) -> SpritesProblem {
    SpritesProblem::Broken(io::Error::new(io::ErrorKind::UnexpectedEof, how))
}

fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn into_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::WriteBufferFull(_) => io::ErrorKind::WouldBlock.into(),
        other => io::Error::other(other),
    }
}
