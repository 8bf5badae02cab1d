//! A duplex: one connection to a peer, carrying whole text messages both ways.
//!
//! What lives here: the traits that connections use, and the transports behind them: [`websocket`],
//! [`stdio`] and [`memory`]. What does not: the meaning of the messages, request ids, and waiting for
//! answers (all in `rpc`).
//!
//! A duplex splits into three parts, each used by another thread: a reader that one thread owns and
//! blocks in, a writer that any number of threads share, and an interrupt that wakes the reader from
//! another thread. **The reading thread never writes**: it posts its answers, and a writer thread, started
//! when it is needed, sends them.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::deadline::Deadline;
use crate::error::{Disconnect, Result};
use crate::thread::Threads;
use stdio::StdioReader;
use websocket::WebSocketReader;

pub(crate) mod close_code;
mod framed;
pub mod memory;
mod outgoing;
pub mod stdio;
pub mod websocket;

/// A connection that has not been taken into use. Embedders may implement it for transports of
/// their own.
pub trait Duplex: Send + 'static {
    /// Splits the connection into its parts and starts using it.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the system refuses what the transport needs, such as a
    /// wake descriptor.
    fn split(self: Box<Self>, settings: &DuplexSettings) -> Result<Halves>;
}

/// What a transport is told when its connection is taken into use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DuplexSettings {
    /// Names the writer thread, and the connection in log lines.
    pub name: String,
    /// Where writer threads come from.
    pub threads: Threads,
    /// Largest message that is read, in bytes; a larger one ends the connection. Default 4 MiB.
    pub inbound_message: usize,
    /// Bytes that may wait to be written before [`DuplexWriter::send`] makes its caller wait.
    /// A single message may be larger. Default 8 MiB.
    pub outbound_bytes: usize,
    /// The connection is given up when no byte could be written for this long.
    /// Default 10 s.
    pub write_stall: Duration,
}

impl DuplexSettings {
    /// Returns the default settings, with threads from this budget.
    pub fn new(name: impl Into<String>, threads: Threads) -> Self {
        Self {
            name: name.into(),
            threads,
            inbound_message: 4 * 1024 * 1024,
            outbound_bytes: 8 * 1024 * 1024,
            write_stall: Duration::from_secs(10),
        }
    }
}

/// The parts of a connection in use.
pub struct Halves {
    /// For the one reading thread.
    pub reader: Box<dyn DuplexReader>,
    /// For all threads that send.
    pub writer: Arc<dyn DuplexWriter>,
    /// Wakes the reader.
    pub interrupt: Arc<dyn Interrupt>,
}

impl fmt::Debug for Halves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Halves").finish_non_exhaustive()
    }
}

/// The reading half.
pub trait DuplexReader: Any + Send {
    /// Returns the next thing from the peer.
    ///
    /// # Blocking
    /// Without limit; the interrupt wakes it.
    ///
    /// # Errors
    /// Why the connection ended; calling again returns an error again. Where the transport can tell
    /// the peer why (a close frame), that has been sent if the peer reads; waiting for it to arrive
    /// takes a second at most. After an [`Interrupt`] without an earlier cause it
    /// is [`Disconnect::ByHost`] with the code 1006, which is never on a wire.
    fn receive(&mut self) -> std::result::Result<Received, Disconnect>;

    /// Takes back a message that is not JSON-RPC. A transport whose stream also carries other output
    /// logs it as such; others ignore it. Returns whether the transport took it.
    fn not_a_message(&mut self, message: &Message) -> bool {
        let _ = message;
        false
    }
}

/// A reading half that callers can read from for a limited time, as `rpc` has them do. Of our own transports
/// alone: an embedder's is read by one thread.
pub(crate) trait TimedReader: DuplexReader {
    /// Prepares for [`receive_within`](Self::receive_within) with deadlines mostly this far away, or with
    /// `None` for [`receive`](DuplexReader::receive). Returns whether the transport can do timed reads.
    fn set_timed(&mut self, limit: Option<Duration>) -> bool;

    /// Returns what [`receive`](DuplexReader::receive) would, if it comes in time. `None` if it does not, and
    /// at the end of the connection, which the next `receive` reports.
    ///
    /// Any thread may call it, one at a time; it blocks at most until the deadline, or the interrupt. It
    /// runs no code of the embedder's, but leaves what that is for to the next `receive`.
    fn receive_within(&mut self, policy: WaitPolicy) -> Option<Received>;
}

/// Returns the reader as one that can do timed reads, if it is of our own transports.
pub(crate) fn timed(reader: &mut dyn DuplexReader) -> Option<&mut dyn TimedReader> {
    let reader: &mut dyn Any = reader;
    if reader.is::<WebSocketReader>() {
        let reader = reader.downcast_mut::<WebSocketReader>();
        return reader.map(|reader| reader as _);
    }
    let reader = reader.downcast_mut::<StdioReader>();
    reader.map(|reader| reader as _)
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

/// Returns the cause for an end that this side wanted.
pub(crate) fn by_host(code: u16, reason: &str) -> Disconnect {
    Disconnect::ByHost {
        code,
        reason: reason.into(),
    }
}

/// Returns as much of something that is not a message as is examined.
pub(crate) fn beginning(bytes: &[u8]) -> Box<[u8]> {
    const BEGINNING: usize = 64 * 1024;
    bytes.get(..BEGINNING).unwrap_or(bytes).into()
}

/// Something from the peer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Received {
    /// A whole text message.
    Message(Message),
    /// A line of a stream that carries other output too. It may be a message, if it says
    /// `"jsonrpc": "2.0"`. One that is not comes back by
    /// [`not_a_message`](DuplexReader::not_a_message).
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

/// The writing half, shared by all threads that send. Messages are written whole, never mixed.
pub trait DuplexWriter: Send + Sync {
    /// Sends one message: writes it, or hands it to the thread that is writing already.
    ///
    /// # Blocking
    /// Until then, at most until the deadline. The deadline ends only this caller's wait and never
    /// harms the connection: a message not yet begun is withdrawn, a begun one is finished by
    /// another thread.
    ///
    /// # Errors
    /// - [`SendError::Timeout`]: the deadline passed.
    /// - [`SendError::Closed`]: the connection has ended.
    fn send(&self, message: &str, deadline: Deadline) -> std::result::Result<Ticket, SendError>;

    /// Sends one message without waiting: writes it as far as the transport takes it right now, or
    /// hands it over. Never blocks.
    ///
    /// # Errors
    /// - [`SendError::Timeout`]: there is no room for it now; the peer sees nothing of it.
    /// - [`SendError::Closed`]: the connection has ended.
    fn try_send(&self, message: &str) -> std::result::Result<Ticket, SendError>;

    /// Queues one message, so that several go out together when [`flush`](Self::flush) or the next send
    /// writes them. A transport that gains nothing by that sends it at once, which is the default.
    ///
    /// # Blocking
    /// Only while there is no room, at most until the deadline.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn queue(&self, message: &str, deadline: Deadline) -> std::result::Result<Ticket, SendError> {
        self.send(message, deadline)
    }

    /// Writes what is queued, as far as the transport takes it right now, and has another thread write
    /// the rest. Never blocks.
    fn flush(&self) {}

    /// Takes a message back that was handed over and is not yet begun. Returns whether that was still
    /// possible: then the peer sees nothing of it.
    fn withdraw(&self, ticket: Ticket) -> bool {
        let _ = ticket;
        false
    }

    /// Queues one message without blocking; for the reading thread. The queue is small: a peer that
    /// makes it overflow, by asking and not reading, loses its connection.
    ///
    /// # Errors
    /// [`SendError::Closed`]: the connection has ended, or ended just now for overflow.
    fn post(&self, message: &str) -> std::result::Result<(), SendError>;

    /// Sends a transport-level ping, if the transport has one: writes it as far as the transport
    /// takes it right now, or queues it in place of one that has not gone out. Never blocks. Not for
    /// the reading thread. The answer shows as [`Received::Alive`]. Returns false where there is no
    /// such ping.
    fn ping(&self) -> bool {
        false
    }

    /// Returns whether [`ping`](Self::ping) does anything. Only then is it used for health checks.
    fn has_ping(&self) -> bool {
        false
    }

    /// Returns whether bytes have come from the peer since the last call, also a part of a message: a
    /// large one on a slow line is a sign of life too. False where that is not known.
    fn take_progress(&self) -> bool {
        false
    }

    /// Begins a [`close`](Self::close) without its waiting: sends the close as far as the transport takes
    /// it right now. Returns whether it did; by default it does nothing. `close` follows either way.
    /// Never blocks.
    ///
    /// A caller that closes many connections begins them all first, so that their peers answer at the
    /// same time.
    fn begin_close(&self, code: u16, reason: &str) -> bool {
        let _ = (code, reason);
        false
    }

    /// Ends only what is sent to the peer, which then reads to the end of the stream: what is queued is
    /// dropped, what is begun is not finished, later sends fail. Does nothing by default, and where the
    /// transport cannot end one direction alone. [`close`](Self::close) may follow. Never blocks.
    fn hang_up(&self, code: u16, reason: &str) {
        let _ = (code, reason);
    }

    /// Closes: what is queued and not begun is dropped, the close is sent to the peer (by the deadline
    /// if the peer reads), and then the reader is made to end with [`Disconnect::ByHost`], also if
    /// the peer never answers. Later sends fail. Idempotent; the first close counts. Not for the
    /// reading thread, which would wait for itself.
    ///
    /// # Blocking
    /// At most until the deadline: until the close is written, and then up to a second for the peer
    /// to end its side and the reader to notice.
    fn close(&self, code: u16, reason: &str, deadline: Deadline);
}

/// Wakes the reader of a connection for good: its current and every later
/// [`receive`](DuplexReader::receive) fails.
pub trait Interrupt: Send + Sync {
    /// Wakes the reader. Never blocks; may be called often and from any thread.
    fn interrupt(&self);
}

/// A message on its way, for [`DuplexWriter::withdraw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    /// Names a message within its connection, by a number of the transport's.
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

/// Why a message was not sent.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
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

/// A whole text message. It holds as much memory as it is long, which the limits in bytes rely on.
/// Cloning is cheap.
#[derive(Clone)]
pub struct Message(Arc<str>);

impl Message {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self(text.into())
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
