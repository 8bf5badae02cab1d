//! A duplex: one connection to a peer, carrying whole text messages both ways.
//!
//! What lives here: the traits that sessions use, and the transports behind them: [`websocket`],
//! [`stdio`] and [`memory`]. What does not: the meaning of the messages, request ids, waiting for
//! answers (all in `session`).
//!
//! A duplex splits into three parts, each used by another thread: a reader that one thread owns
//! and blocks in, a writer that any number of threads share, and an interrupt that wakes the
//! reader from elsewhere. **The reading thread never writes**: what it must answer it posts, and a
//! writer thread, made when it is needed, sends it.

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

/// What a connection needs to know of the one who uses it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DuplexSettings {
    /// Names the writer thread, and the connection in log lines.
    pub name: String,
    /// Where writer threads come from.
    pub threads: Threads,
    /// Largest message that is read, in bytes; a larger one ends the connection. Default 4 MiB.
    pub read_limit: usize,
    /// Bytes that may wait to be written before [`DuplexWriter::send`] makes its caller wait.
    /// A single message may be larger. Default 8 MiB.
    pub outgoing_limit: usize,
    /// The connection is given up after this long without one byte of progress in writing.
    /// Default 10 s.
    pub write_stall_timeout: Duration,
}

impl DuplexSettings {
    /// Default settings, with threads from this budget.
    pub fn new(name: impl Into<String>, threads: Threads) -> Self {
        Self {
            name: name.into(),
            threads,
            read_limit: 4 * 1024 * 1024,
            outgoing_limit: 8 * 1024 * 1024,
            write_stall_timeout: Duration::from_secs(10),
        }
    }
}

/// The parts of a connection in use.
pub struct Halves {
    /// For the one reading thread.
    pub reader: Box<dyn DuplexReader>,
    /// For everybody who sends.
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
    /// The next thing from the peer. Blocks without limit; the interrupt wakes it.
    ///
    /// # Errors
    /// The connection ended, and why. Calling again gives an error again. Where the transport has
    /// a way to tell the peer why (a close frame), that has been sent if the peer reads; waiting
    /// for it to arrive takes a second at most. After an [`Interrupt`] without an earlier cause it
    /// is [`Disconnect::ByHost`] with the code 1006, which is never on a wire.
    fn receive(&mut self) -> std::result::Result<Received, Disconnect>;

    /// Takes back a message that is not JSON-RPC. A transport whose stream also carries other
    /// output logs it as such; others ignore it. Returns whether it was taken care of.
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

/// The reader as one that can do timed reads, if it is of our own transports.
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

/// The cause of an end that the host wanted.
pub(crate) fn by_host(code: u16, reason: &str) -> Disconnect {
    Disconnect::ByHost {
        code,
        reason: reason.into(),
    }
}

/// As much of what is no message as is looked at.
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
    /// A line that is no message. The transport has taken care of it.
    Output {
        /// Its first bytes, at most 64 KiB.
        beginning: Box<[u8]>,
    },
    /// A whole message that is no text. It was skipped, as the seed's host does
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

/// The writing half, shared by all who send. Whole messages, never mixed.
pub trait DuplexWriter: Send + Sync {
    /// Sends one message: writes it, or hands it to the thread that is writing already.
    ///
    /// Blocks until then, at most until the deadline. The deadline ends only this caller's wait
    /// and never harms the connection: a message not yet begun is withdrawn, a begun one is
    /// finished by others.
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

    /// Queues one message without writing it: [`flush`](Self::flush) does, or whoever sends next, so
    /// that several go out together. Where nothing can be gained by that it is sent at once, which is
    /// what this does unless a transport knows better.
    ///
    /// Blocks only while there is no room, at most until the deadline.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn queue(&self, message: &str, deadline: Deadline) -> std::result::Result<Ticket, SendError> {
        self.send(message, deadline)
    }

    /// Writes what is queued, as far as the transport takes it right now, and has somebody else write
    /// the rest. Never blocks.
    fn flush(&self) {}

    /// Takes a message back that was handed over and is not yet begun. Gives whether that was
    /// still possible: then the peer sees nothing of it.
    fn withdraw(&self, ticket: Ticket) -> bool {
        let _ = ticket;
        false
    }

    /// Queues one message without ever blocking; for the reading thread. The queue is small: a
    /// peer that makes it overflow (it asks and does not read) loses its connection.
    ///
    /// # Errors
    /// [`SendError::Closed`]: the connection has ended, or ended just now for overflow.
    fn post(&self, message: &str) -> std::result::Result<(), SendError>;

    /// Sends a transport-level ping, if the transport has one: writes it as far as the transport
    /// takes it right now, or queues it in place of one that has not gone out. Never blocks. Not for
    /// the reading thread. The answer shows as [`Received::Alive`]. Gives false where there is no
    /// such thing.
    fn ping(&self) -> bool {
        false
    }

    /// Whether [`ping`](Self::ping) does anything. Only then is the connection watched with it for
    /// signs of life.
    fn has_ping(&self) -> bool {
        false
    }

    /// Whether bytes have come from the peer since this was asked last, also such as do not make up a
    /// message yet: a large one on a slow line is a sign of life too. False where that is not known.
    fn take_progress(&self) -> bool {
        false
    }

    /// Begins to [`close`](Self::close), and leaves the waiting to it: sends the close as far as the
    /// transport takes it right now. Gives whether it did; by default it does nothing. `close` follows
    /// either way. Never blocks.
    ///
    /// Who closes many connections begins with all of them, so that their peers answer at the same time.
    fn begin_close(&self, code: u16, reason: &str) -> bool {
        let _ = (code, reason);
        false
    }

    /// Ends what is sent to the peer, which reads to the end of it, where the transport can do that without
    /// ending what is received: what is queued is dropped, what is begun is not finished, later sends fail.
    /// By default it does nothing. [`close`](Self::close) may follow. Never blocks.
    fn hang_up(&self, code: u16, reason: &str) {
        let _ = (code, reason);
    }

    /// Closes: what is queued and not begun is dropped, the close is sent to the peer (by the deadline
    /// if the peer reads), and then the reader is made to end with [`Disconnect::ByHost`], also if
    /// the peer never answers. Later sends fail. Idempotent; the first close counts. Blocks at
    /// most until the deadline: until the close is written, and then up to a second for the peer
    /// to end its side and the reader to notice. Not for the reading thread, which would wait for
    /// itself.
    fn close(&self, code: u16, reason: &str, deadline: Deadline);
}

/// Wakes the reader of a connection for good: its current and every later
/// [`receive`](DuplexReader::receive) fails.
pub trait Interrupt: Send + Sync {
    /// Never blocks; may be called often and from any thread.
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

/// A whole text message. It holds as much memory as it is long: what limits messages in bytes counts
/// on that. Cloning is cheap.
#[derive(Clone)]
pub struct Message(Arc<str>);

impl Message {
    /// The text.
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
