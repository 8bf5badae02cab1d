//! A duplex: one connection to a peer, carrying whole text messages both ways.
//!
//! What lives here: the traits that connections use, and the transports behind them: [`websocket`],
//! [`stdio`] and [`memory`]. What does not: the meaning of the messages, request ids, and waiting for
//! answers (all in `rpc`).
//!
//! A duplex splits into two halves, which other threads use: a reader, which one thread owns and blocks in,
//! and a writer, which any number of threads share, and which also wakes the reader. **The reading thread
//! never writes**: it posts its answers, and a writer thread, started when it is needed, sends them.
//!
//! # A transport of one's own
//!
//! It implements the three traits. Of a [`DuplexWriter`], four methods are enough; the others serve
//! transports with a ping or a close of their own, and those that gain by writing messages together. This one
//! carries messages over a pair of channels, and [`Session::connect`](crate::Session::connect) attaches it:
//!
//! ```
//! use std::sync::{Arc, OnceLock};
//! use std::thread;
//! use std::time::{Duration, Instant};
//!
//! use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded, select};
//! use plugin_runner::duplex::{Duplex, DuplexReader, DuplexSettings, DuplexWriter};
//! use plugin_runner::error::Disconnect;
//! use plugin_runner::protocol::Manifest;
//! use plugin_runner::protocol::method::Ping;
//! use plugin_runner::sdk::Plugin;
//! use plugin_runner::{Host, Record};
//!
//! /// A message, or the peer's close.
//! type Packet = Result<Arc<str>, Disconnect>;
//!
//! struct Channels {
//!     outgoing: Sender<Packet>,
//!     incoming: Receiver<Packet>,
//! }
//!
//! struct Reader {
//!     incoming: Receiver<Packet>,
//!     /// Why it ended, and the channel that tells the reader to look.
//!     cause: Arc<OnceLock<Disconnect>>,
//!     wake: Receiver<()>,
//! }
//!
//! struct Writer {
//!     outgoing: Sender<Packet>,
//!     cause: Arc<OnceLock<Disconnect>>,
//!     wake: Sender<()>,
//! }
//!
//! impl Duplex for Channels {
//!     fn split(
//!         self: Box<Self>,
//!         _: &DuplexSettings,
//!     ) -> plugin_runner::Result<(Box<dyn DuplexReader>, Arc<dyn DuplexWriter>)> {
//!         let Self { outgoing, incoming } = *self;
//!         let (wake, woken) = bounded(1);
//!         let cause = Arc::new(OnceLock::new());
//!         Ok((
//!             Box::new(Reader { incoming, cause: cause.clone(), wake: woken }),
//!             Arc::new(Writer { outgoing, cause, wake }),
//!         ))
//!     }
//! }
//!
//! impl DuplexReader for Reader {
//!     fn receive(&mut self) -> Result<Option<Arc<str>>, Disconnect> {
//!         while self.cause.get().is_none() {
//!             let packet = select! {
//!                 recv(self.incoming) -> packet => packet.unwrap_or(Err(Disconnect::Lost)),
//!                 recv(self.wake) -> _ => Err(Disconnect::Lost),
//!             };
//!             match packet {
//!                 Ok(text) => return Ok(Some(text)),
//!                 // The first cause counts.
//!                 Err(cause) => drop(self.cause.set(cause)),
//!             }
//!         }
//!         Err(self.cause.get().cloned().unwrap_or(Disconnect::Lost))
//!     }
//! }
//!
//! impl Writer {
//!     fn end(&self, cause: Disconnect) {
//!         let _ = self.cause.set(cause);
//!         let _ = self.wake.try_send(());
//!     }
//! }
//!
//! impl DuplexWriter for Writer {
//!     fn send(&self, message: &str, deadline: Instant) -> Result<bool, Disconnect> {
//!         if let Some(cause) = self.cause.get() {
//!             return Err(cause.clone());
//!         }
//!         match self.outgoing.send_deadline(Ok(message.into()), deadline) {
//!             Ok(()) => Ok(true),
//!             Err(SendTimeoutError::Timeout(_)) => Ok(false),
//!             Err(SendTimeoutError::Disconnected(_)) => Err(Disconnect::Lost),
//!         }
//!     }
//!
//!     fn post(&self, message: &str) -> Result<(), Disconnect> {
//!         if self.try_send(message)? {
//!             return Ok(());
//!         }
//!         self.end(Disconnect::ControlOverflow);
//!         Err(Disconnect::ControlOverflow)
//!     }
//!
//!     fn close(&self, code: u16, reason: &str, deadline: Instant) {
//!         let close = Disconnect::ByPeer { code: Some(code), reason: reason.into() };
//!         let _ = self.outgoing.send_deadline(Err(close), deadline);
//!         self.end(Disconnect::ByHost { code, reason: reason.into() });
//!     }
//!
//!     fn interrupt(&self) {
//!         self.end(Disconnect::ByHost { code: 1006, reason: "interrupted".into() });
//!     }
//! }
//!
//! # fn main() -> plugin_runner::Result<()> {
//! let ((to_plugin, from_host), (to_host, from_plugin)) = (bounded(64), bounded(64));
//! let ours = Channels { outgoing: to_plugin, incoming: from_plugin };
//! let theirs = Channels { outgoing: to_host, incoming: from_host };
//!
//! let host = Host::builder().build()?;
//! let manifest = Manifest::parse(br#"{"id": "inside", "author": "us", "name": "Inside"}"#)?;
//! let record = Record::external(manifest)?;
//! let id = record.id;
//! host.store().put(record)?;
//! let session = host.load(id)?;
//! let plugin = thread::spawn(|| Plugin::over(theirs).run());
//! session.connect(ours, "channels")?;
//! assert!(session.call(&Ping {}, Duration::from_secs(10))?.pong);
//! host.unload(id)?;
//! plugin.join().unwrap()?;
//! # Ok(())
//! # }
//! ```

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Disconnect, Result};
use crate::thread::Threads;
pub(crate) use halves::{
    Halves, Message, ReadingHalf, Received, SendError, Ticket, WaitPolicy, WritingHalf,
    peer_address,
};

pub(crate) mod close_code;
mod framed;
mod halves;
pub mod memory;
mod outgoing;
pub mod stdio;
pub mod websocket;

/// A connection that has not been taken into use. Embedders may implement it for transports of
/// their own.
pub trait Duplex: Send + 'static {
    /// Splits the connection into its halves and starts using it. Must not wait for the peer.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the system refuses what the transport needs, such as a
    /// wake descriptor.
    fn split(
        self: Box<Self>,
        settings: &DuplexSettings,
    ) -> Result<(Box<dyn DuplexReader>, Arc<dyn DuplexWriter>)>;

    /// Returns the peer's address for log lines; empty, as by default, where there is none.
    fn peer_address(&self) -> String {
        String::new()
    }
}

impl Duplex for Box<dyn Duplex> {
    fn split(
        self: Box<Self>,
        settings: &DuplexSettings,
    ) -> Result<(Box<dyn DuplexReader>, Arc<dyn DuplexWriter>)> {
        (*self).split(settings)
    }

    fn peer_address(&self) -> String {
        (**self).peer_address()
    }
}

/// What a transport is told when its connection is taken into use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DuplexSettings {
    /// Names the writer thread, and the connection in log lines.
    pub name: String,
    /// Largest message that is read, in bytes; a larger one ends the connection. Default 4 MiB.
    pub inbound_message: usize,
    /// Bytes that may wait to be written before [`DuplexWriter::send`] makes its caller wait.
    /// A single message may be larger. Default 8 MiB.
    pub outbound_bytes: usize,
    /// The connection is given up when no byte could be written for this long.
    /// Default 10 s.
    pub write_stall: Duration,
    pub(crate) threads: Threads,
}

/// Threads of a connection that is used without a host or a plugin around it.
const OWN_THREADS: usize = 16;

impl DuplexSettings {
    /// Returns the default settings, for a transport that is used without a host, as in its tests. It may
    /// have 16 threads.
    pub fn new(name: impl Into<String>) -> Self {
        Self::with_threads(name, Threads::with_limit(OWN_THREADS))
    }

    /// Returns the default settings, with threads from this budget.
    pub(crate) fn with_threads(name: impl Into<String>, threads: Threads) -> Self {
        Self {
            name: name.into(),
            inbound_message: 4 * 1024 * 1024,
            outbound_bytes: 8 * 1024 * 1024,
            write_stall: Duration::from_secs(10),
            threads,
        }
    }

    /// Starts a thread of the transport's. It counts among the threads of the host, whose shutdown waits for
    /// it. `name` is cut to 15 bytes by Linux; `stack` is in bytes.
    ///
    /// Does not wait for the thread. A panic of `body` ends that thread alone and is logged.
    ///
    /// # Errors
    /// - [`Error::ThreadLimit`](crate::Error::ThreadLimit) when the host has as many threads as it may.
    /// - [`Error::Io`](crate::Error::Io) when the system starts no thread.
    pub fn spawn(
        &self,
        name: &str,
        stack: usize,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        self.threads.spawn(name, stack, body)
    }
}

/// The reading half.
pub trait DuplexReader: Any + Send {
    /// Returns the next text message from the peer; `None` for anything else that shows that the peer is
    /// alive, such as the answer to a [`ping`](DuplexWriter::ping).
    ///
    /// # Blocking
    /// Without limit; [`DuplexWriter::interrupt`] wakes it.
    ///
    /// # Errors
    /// Why the connection ended; calling again returns an error again. Where the transport can tell
    /// the peer why (a close frame), that has been sent if the peer reads; waiting for it to arrive
    /// takes a second at most. After an interrupt without an earlier cause it
    /// is [`Disconnect::ByHost`] with the code 1006, which is never on a wire.
    fn receive(&mut self) -> std::result::Result<Option<Arc<str>>, Disconnect>;
}

/// Returns the cause for an end that this side wanted.
pub(crate) fn by_host(code: u16, reason: &str) -> Disconnect {
    Disconnect::ByHost {
        code,
        reason: reason.into(),
    }
}

/// The writing half, shared by all threads that send. Messages are written whole, never mixed.
///
/// A method that panics ends the connection, and is as if it had failed. One that does not return by its deadline
/// keeps its caller waiting, and with it a stop or a shutdown.
pub trait DuplexWriter: Any + Send + Sync {
    /// Sends one message: writes it, or hands it to the thread that is writing already. Returns false when
    /// the deadline passed first and the peer sees nothing of the message.
    ///
    /// # Blocking
    /// Until then, at most until the deadline. The deadline ends only this caller's wait and never
    /// harms the connection: a message not yet begun is withdrawn, a begun one is finished by
    /// another thread and counts as sent.
    ///
    /// # Errors
    /// Why the connection has ended.
    fn send(&self, message: &str, deadline: Instant) -> std::result::Result<bool, Disconnect>;

    /// Sends one message without waiting: writes it as far as the transport takes it right now, or
    /// hands it over. Returns false when there is no room for it now; the peer sees nothing of it then. By
    /// default it [`send`](Self::send)s with a deadline that has passed. Never blocks.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn try_send(&self, message: &str) -> std::result::Result<bool, Disconnect> {
        self.send(message, Instant::now())
    }

    /// Queues one message, so that several go out together when [`flush`](Self::flush) or the next send
    /// writes them. A transport that gains nothing by that sends it at once, which is the default. Returns
    /// as [`send`](Self::send).
    ///
    /// # Blocking
    /// Only while there is no room, at most until the deadline.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn queue(&self, message: &str, deadline: Instant) -> std::result::Result<bool, Disconnect> {
        self.send(message, deadline)
    }

    /// Writes what is queued, as far as the transport takes it right now, and has another thread write
    /// the rest. Never blocks.
    fn flush(&self) {}

    /// Queues one message without blocking; for the reading thread. The queue is small: a peer that
    /// makes it overflow, by asking and not reading, loses its connection.
    ///
    /// # Errors
    /// Why the connection has ended, perhaps just now for overflow ([`Disconnect::ControlOverflow`]).
    fn post(&self, message: &str) -> std::result::Result<(), Disconnect>;

    /// Sends a transport-level ping, if the transport has one: writes it as far as the transport
    /// takes it right now, or queues it in place of one that has not gone out. Never blocks. Not for
    /// the reading thread. The reader returns `None` for the answer. Returns false where there is no
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
    fn close(&self, code: u16, reason: &str, deadline: Instant);

    /// Wakes the reader for good: its current and every later [`receive`](DuplexReader::receive) fails. Never
    /// blocks; may be called often and from any thread.
    fn interrupt(&self);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::testing::{LONG, assert_matches};

    #[test]
    fn a_transport_starts_threads_from_the_budget_that_it_was_given() {
        let threads = Threads::with_limit(1);
        let settings = DuplexSettings::with_threads("test", threads.clone());
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let body = move || {
            let _ = ended.recv();
        };
        settings.spawn("own", 64 * 1024, body).unwrap();
        assert_eq!(threads.count(), 1);
        let refused = settings.spawn("one-more", 64 * 1024, || ());
        assert_matches!(refused, Err(Error::ThreadLimit { limit: 1, .. }));
        drop(end);
        assert_eq!(threads.join_all(crate::deadline::Deadline::after(LONG)), 0);
    }
}
