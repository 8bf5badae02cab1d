//! What the transports of this crate can do beyond the public traits, and the two kinds in one: a
//! [`ReadingHalf`] and a [`WritingHalf`] are those of any transport, an embedder's included.

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::framed::FramedWriter;
use super::stdio::{Lines, StdioReader, WritePipe};
use super::websocket::{Role, Socket, WebSocketReader};
use super::{Duplex, DuplexReader, DuplexSettings, DuplexWriter};
use crate::deadline::Deadline;
use crate::error::{Disconnect, Error, Result};
use crate::thread::panic_text;

/// The parts of a connection in use.
#[derive(Debug)]
pub(crate) struct Halves {
    /// For the one reading thread.
    pub(crate) reader: ReadingHalf,
    /// For all threads that send.
    pub(crate) writer: WritingHalf,
}

impl Halves {
    /// Takes a connection into use.
    ///
    /// # Errors
    /// The transport's; [`Error::Io`] if it panics.
    pub(crate) fn of(duplex: impl Duplex, settings: &DuplexSettings) -> Result<Self> {
        let split = caught(|| Box::new(duplex).split(settings))
            .map_err(|panic| Error::io("take the connection into use", io::Error::other(&*panic)));
        let (reader, writer) = split.flatten()?;
        let panicked = Arc::default();
        let writer = WritingHalf::of(writer, &panicked);
        let reader = ReadingHalf { reader, panicked };
        Ok(Self { reader, writer })
    }
}

/// Returns the peer's address; empty also if the transport panics.
pub(crate) fn peer_address(duplex: &dyn Duplex) -> String {
    caught(|| duplex.peer_address()).unwrap_or_default()
}

/// Runs code of an embedder's transport. A panic is returned, as text.
fn caught<T>(run: impl FnOnce() -> T) -> std::result::Result<T, Arc<str>> {
    panic::catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = format!("the transport panicked: {}", panic_text(&*panic));
        // Dropping what it carried may panic too.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(panic)));
        text.into()
    })
}

/// A reading half of one of our own transports. Callers can read from it for a limited time, as `rpc` has
/// them do; an embedder's is read by one thread.
pub(crate) trait OwnReader: DuplexReader {
    /// As [`receive`](DuplexReader::receive), with everything that comes told apart.
    fn receive_any(&mut self) -> std::result::Result<Received, Disconnect>;

    /// Takes back a line that is not JSON-RPC. A transport whose stream also carries other output logs it as
    /// such; others ignore it. Returns whether the transport took it.
    fn not_a_message(&mut self, message: &Message) -> bool {
        let _ = message;
        false
    }

    /// Prepares for [`receive_within`](Self::receive_within) with deadlines mostly this far away, or with
    /// `None` for [`receive_any`](Self::receive_any). Returns whether the transport can do timed reads.
    fn set_timed(&mut self, limit: Option<Duration>) -> bool;

    /// Returns what [`receive_any`](Self::receive_any) would, if it comes in time. `None` if it does not, and
    /// at the end of the connection, which the next `receive_any` reports.
    ///
    /// Any thread may call it, one at a time; it blocks at most until the deadline, or the interrupt. It
    /// runs no code of the embedder's, but leaves what that is for to the next `receive_any`.
    fn receive_within(&mut self, policy: WaitPolicy) -> Option<Received>;
}

/// How long a timed read waits, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitPolicy {
    /// Until then the transport tries again and again, without sleeping.
    pub(crate) spin_until: Option<Instant>,
    /// Until then it sleeps. However much keeps coming, nothing more is read after it.
    pub(crate) deadline: Deadline,
    /// The deadline may be missed by a few milliseconds, where that is cheaper.
    pub(crate) is_coarse: bool,
}

/// Something from the peer.
#[derive(Debug)]
pub(crate) enum Received {
    /// A whole text message.
    Message(Message),
    /// A line of a stream that carries other output too. It may be a message, if it says
    /// `"jsonrpc": "2.0"`. One that is not comes back by [`not_a_message`](OwnReader::not_a_message).
    Line(Message),
    /// A line that is not a message, which the transport has handled.
    Output {
        /// Its first bytes, at most 64 KiB.
        beginning: Box<[u8]>,
    },
    /// A whole message that is not text. It was skipped, as Storyden's Go host does
    /// ([WebSocket](crate::protocol#websocket)).
    Binary {
        /// Its length.
        bytes: usize,
        /// Its first bytes, at most 64 KiB.
        beginning: Box<[u8]>,
    },
    /// A sign of life that carries nothing, such as a pong.
    Alive,
}

/// Returns as much of something that is not a message as is examined.
pub(super) fn beginning(bytes: &[u8]) -> Box<[u8]> {
    const BEGINNING: usize = 64 * 1024;
    bytes.get(..BEGINNING).unwrap_or(bytes).into()
}

/// A whole text message. It holds as much memory as it is long, which the limits in bytes rely on.
/// Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Message(Arc<str>);

impl Message {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns it as the public traits have it.
    pub(super) fn into_text(self) -> Arc<str> {
        self.0
    }
}

impl From<Arc<str>> for Message {
    fn from(text: Arc<str>) -> Self {
        Self(text)
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Deref for Message {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payloads are never shown: they may hold secrets.
        write!(f, "Message({} bytes)", self.as_str().len())
    }
}

/// The reading half of any transport.
pub(crate) struct ReadingHalf {
    reader: Box<dyn DuplexReader>,
    /// Why the connection ended, if its writer panicked.
    panicked: Arc<OnceLock<Disconnect>>,
}

impl ReadingHalf {
    /// Returns the next thing from the peer; see [`DuplexReader::receive`].
    pub(crate) fn receive(&mut self) -> std::result::Result<Received, Disconnect> {
        let received = match self.own() {
            Some(own) => own.receive_any(),
            None => caught(|| self.reader.receive())
                .unwrap_or_else(|text| Err(Disconnect::Violation(text)))
                .map(|text| text.map_or(Received::Alive, |text| Received::Message(text.into()))),
        };
        received.map_err(|cause| self.panicked.get().cloned().unwrap_or(cause))
    }

    /// See [`OwnReader::not_a_message`].
    pub(crate) fn not_a_message(&mut self, message: &Message) -> bool {
        self.own().is_some_and(|own| own.not_a_message(message))
    }

    /// Returns the reader as one of our own, if it is.
    pub(crate) fn own(&mut self) -> Option<&mut dyn OwnReader> {
        let reader: &mut dyn Any = &mut *self.reader;
        if reader.is::<WebSocketReader>() {
            let reader = reader.downcast_mut::<WebSocketReader>();
            return reader.map(|reader| reader as _);
        }
        let reader = reader.downcast_mut::<StdioReader>();
        reader.map(|reader| reader as _)
    }
}

impl fmt::Debug for ReadingHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadingHalf").finish_non_exhaustive()
    }
}

/// A writing half of one of our own transports, which can take a message back.
pub(crate) trait OwnWriter: DuplexWriter {
    /// [`send`](DuplexWriter::send).
    fn send_ticketed(
        &self,
        message: &str,
        deadline: Deadline,
    ) -> std::result::Result<Ticket, SendError>;

    /// [`try_send`](DuplexWriter::try_send).
    fn try_send_ticketed(&self, message: &str) -> std::result::Result<Ticket, SendError>;

    /// [`queue`](DuplexWriter::queue).
    fn queue_ticketed(
        &self,
        message: &str,
        deadline: Deadline,
    ) -> std::result::Result<Ticket, SendError>;

    /// Takes a message back that was handed over and is not yet begun. Returns whether that was still
    /// possible: then the peer sees nothing of it.
    fn withdraw(&self, ticket: Ticket) -> bool;
}

/// A message on its way, for [`OwnWriter::withdraw`]; a number within its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(pub(super) u64);

/// Why a message was not sent.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The deadline passed first.
    #[error("writing timed out")]
    Timeout {
        /// Whether the message was withdrawn whole, so that the peer sees nothing of it. If not,
        /// it had been begun and will arrive if the peer reads on.
        withdrawn: bool,
    },
    /// The connection has ended.
    #[error("not connected: {0}")]
    Closed(Arc<Disconnect>),
}

/// Returns what became of a message as the public trait says it.
pub(super) fn taken(
    sent: std::result::Result<Ticket, SendError>,
) -> std::result::Result<bool, Disconnect> {
    match sent {
        // Begun, so it arrives.
        Ok(_) | Err(SendError::Timeout { withdrawn: false }) => Ok(true),
        Err(SendError::Timeout { withdrawn: true }) => Ok(false),
        Err(SendError::Closed(cause)) => Err(Disconnect::clone(&cause)),
    }
}

/// The writing half of any transport.
#[derive(Clone)]
pub(crate) enum WritingHalf {
    Own(Arc<dyn OwnWriter>),
    /// An embedder's, or one in memory.
    Plain(Arc<Guarded>),
}

impl WritingHalf {
    fn of(writer: Arc<dyn DuplexWriter>, panicked: &Arc<OnceLock<Disconnect>>) -> Self {
        let any: Arc<dyn Any + Send + Sync> = writer.clone();
        let any = match any.downcast::<FramedWriter<Role, Socket>>() {
            Ok(own) => return Self::Own(own),
            Err(any) => any,
        };
        if let Ok(own) = any.downcast::<FramedWriter<Lines, WritePipe>>() {
            return Self::Own(own);
        }
        let panicked = panicked.clone();
        Self::Plain(Arc::new(Guarded { writer, panicked }))
    }

    /// See [`DuplexWriter::send`].
    pub(crate) fn send(
        &self,
        message: &str,
        deadline: Deadline,
    ) -> std::result::Result<Ticket, SendError> {
        match self {
            Self::Own(writer) => writer.send_ticketed(message, deadline),
            Self::Plain(writer) => ticketed(writer.send(message, deadline.instant())),
        }
    }

    /// See [`DuplexWriter::try_send`].
    pub(crate) fn try_send(&self, message: &str) -> std::result::Result<Ticket, SendError> {
        match self {
            Self::Own(writer) => writer.try_send_ticketed(message),
            Self::Plain(writer) => ticketed(writer.try_send(message)),
        }
    }

    /// See [`DuplexWriter::queue`].
    pub(crate) fn queue(
        &self,
        message: &str,
        deadline: Deadline,
    ) -> std::result::Result<Ticket, SendError> {
        match self {
            Self::Own(writer) => writer.queue_ticketed(message, deadline),
            Self::Plain(writer) => ticketed(writer.queue(message, deadline.instant())),
        }
    }

    /// See [`OwnWriter::withdraw`]; an embedder's transport takes nothing back.
    pub(crate) fn withdraw(&self, ticket: Ticket) -> bool {
        match self {
            Self::Own(writer) => writer.withdraw(ticket),
            Self::Plain(_) => false,
        }
    }

    /// See [`DuplexWriter::close`].
    pub(crate) fn close(&self, code: u16, reason: &str, deadline: Deadline) {
        (**self).close(code, reason, deadline.instant());
    }
}

/// Everything else is as the public trait has it.
impl Deref for WritingHalf {
    type Target = dyn DuplexWriter;

    fn deref(&self) -> &(dyn DuplexWriter + 'static) {
        match self {
            Self::Own(writer) => &**writer,
            Self::Plain(writer) => &**writer,
        }
    }
}

/// The writing half of an embedder's transport. If that panics, the connection ends, and the caller, which may
/// be about to stop other plugins, goes on.
pub(crate) struct Guarded {
    writer: Arc<dyn DuplexWriter>,
    /// The first panic, for the reader.
    panicked: Arc<OnceLock<Disconnect>>,
}

impl Guarded {
    fn run<T>(
        &self,
        run: impl FnOnce(&dyn DuplexWriter) -> T,
    ) -> std::result::Result<T, Disconnect> {
        caught(|| run(&*self.writer)).map_err(|text| {
            let cause = Disconnect::Violation(text);
            let _ = self.panicked.set(cause.clone());
            // If that panics too, nothing can be done: the reader ends with the peer.
            let _ = caught(|| self.writer.interrupt());
            cause
        })
    }
}

impl DuplexWriter for Guarded {
    fn send(&self, message: &str, deadline: Instant) -> std::result::Result<bool, Disconnect> {
        self.run(|writer| writer.send(message, deadline)).flatten()
    }

    fn try_send(&self, message: &str) -> std::result::Result<bool, Disconnect> {
        self.run(|writer| writer.try_send(message)).flatten()
    }

    fn queue(&self, message: &str, deadline: Instant) -> std::result::Result<bool, Disconnect> {
        self.run(|writer| writer.queue(message, deadline)).flatten()
    }

    fn flush(&self) {
        let _ = self.run(DuplexWriter::flush);
    }

    fn post(&self, message: &str) -> std::result::Result<(), Disconnect> {
        self.run(|writer| writer.post(message)).flatten()
    }

    /// Its panic is the health check's.
    fn ping(&self) -> bool {
        self.writer.ping()
    }

    fn has_ping(&self) -> bool {
        self.run(DuplexWriter::has_ping).unwrap_or_default()
    }

    /// Its panic is the health check's.
    fn take_progress(&self) -> bool {
        self.writer.take_progress()
    }

    fn begin_close(&self, code: u16, reason: &str) -> bool {
        self.run(|writer| writer.begin_close(code, reason))
            .unwrap_or_default()
    }

    fn hang_up(&self, code: u16, reason: &str) {
        let _ = self.run(|writer| writer.hang_up(code, reason));
    }

    fn close(&self, code: u16, reason: &str, deadline: Instant) {
        let _ = self.run(|writer| writer.close(code, reason, deadline));
    }

    fn interrupt(&self) {
        let _ = self.run(DuplexWriter::interrupt);
    }
}

fn ticketed(sent: std::result::Result<bool, Disconnect>) -> std::result::Result<Ticket, SendError> {
    match sent {
        Ok(true) => Ok(Ticket(0)),
        Ok(false) => Err(SendError::Timeout { withdrawn: true }),
        Err(cause) => Err(SendError::Closed(Arc::new(cause))),
    }
}

impl fmt::Debug for WritingHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WritingHalf").finish_non_exhaustive()
    }
}
