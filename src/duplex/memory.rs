//! The in-memory transport: two ends in one process, for tests and for plugins that are threads.
//!
//! No threads and no descriptors: each direction is a bounded channel. Messages that were handed
//! over before the connection ended are still received, unless the receiving end itself ended it.
//!
//! A plugin that is a thread of its host's process:
//!
//! ```
//! use std::thread;
//! use std::time::Duration;
//!
//! use plugin_runner::duplex::memory;
//! use plugin_runner::protocol::Manifest;
//! use plugin_runner::protocol::method::Ping;
//! use plugin_runner::sdk::Plugin;
//! use plugin_runner::{Host, Record};
//!
//! # fn main() -> plugin_runner::Result<()> {
//! let host = Host::builder().build()?;
//! let manifest = Manifest::parse(br#"{"id": "inside", "author": "us", "name": "Inside"}"#)?;
//! let record = Record::external(manifest)?;
//! let id = record.id;
//! host.store().put(record)?;
//! let session = host.load(id)?;
//!
//! let (ours, theirs) = memory::pair(16);
//! let plugin = thread::spawn(|| Plugin::over(theirs).run());
//! session.connect(ours, "inside")?;
//! let pong = session.call(&Ping {}, Duration::from_secs(10))?;
//! assert!(pong.pong);
//!
//! host.unload(id)?;
//! plugin.join().unwrap()?;
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError};
use parking_lot::Mutex;

use super::{Duplex, DuplexReader, DuplexSettings, DuplexWriter, by_host, close_code};
use crate::error::{Disconnect, Result};

/// Posts that may wait; one more ends the connection.
const POSTS: usize = 1024;

/// Creates a connection; what is sent at one end is received at the other.
///
/// `capacity` is the number of messages that may wait in each direction before
/// [`DuplexWriter::send`] makes its caller wait; at least 1.
pub fn pair(capacity: usize) -> (impl Duplex + fmt::Debug, impl Duplex + fmt::Debug) {
    ends(capacity)
}

fn ends(capacity: usize) -> (Memory, Memory) {
    let (stop, stopped) = crossbeam_channel::bounded(0);
    let link = Arc::new(MemoryLink {
        stop: Mutex::new(Some(stop)),
        stopped,
        causes: [OnceLock::new(), OnceLock::new()],
    });
    let (one, from_one) = Lane::pair(capacity);
    let (other, from_other) = Lane::pair(capacity);
    let end = |side, outgoing, incoming| Memory {
        side: Side {
            link: Arc::clone(&link),
            side,
        },
        outgoing,
        incoming,
    };
    (end(0, one, from_other), end(1, other, from_one))
}

/// A message.
type Text = Arc<str>;

/// One end of an in-memory connection.
struct Memory {
    side: Side,
    outgoing: Lane<Sender<Text>>,
    incoming: Lane<Receiver<Text>>,
}

impl Duplex for Memory {
    fn split(
        self: Box<Self>,
        settings: &DuplexSettings,
    ) -> Result<(Box<dyn DuplexReader>, Arc<dyn DuplexWriter>)> {
        let Self {
            side,
            outgoing,
            incoming,
        } = *self;
        let reader = MemoryReader {
            side: side.clone(),
            incoming,
            limit: settings.inbound_message,
        };
        Ok((Box::new(reader), Arc::new(MemoryWriter { side, outgoing })))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

/// One direction: messages, and the posts that go beside them.
struct Lane<C> {
    messages: C,
    posts: C,
}

impl Lane<()> {
    fn pair(capacity: usize) -> (Lane<Sender<Text>>, Lane<Receiver<Text>>) {
        let (messages, from_messages) = crossbeam_channel::bounded(capacity.max(1));
        let (posts, from_posts) = crossbeam_channel::bounded(POSTS);
        (
            Lane { messages, posts },
            Lane {
                messages: from_messages,
                posts: from_posts,
            },
        )
    }
}

/// What both ends share.
struct MemoryLink {
    /// Dropped when the connection ends, which wakes every thread that waits on `stopped`.
    stop: Mutex<Option<Sender<()>>>,
    stopped: Receiver<()>,
    /// Why it ended, as each end sees it. Set for both at once, by the end that was first.
    causes: [OnceLock<Arc<Disconnect>>; 2],
}

#[derive(Clone)]
struct Side {
    link: Arc<MemoryLink>,
    side: usize,
}

impl Side {
    /// Ends the connection for both; the first cause wins.
    fn end(&self, own: Disconnect, peer: Disconnect) {
        let mut stop = self.link.stop.lock();
        if stop.take().is_some() {
            // Cannot fail: the thread that took the sender sets both.
            let _ = self.link.causes[self.side].set(Arc::new(own));
            let _ = self.link.causes[1 - self.side].set(Arc::new(peer));
        }
    }

    fn is_over(&self) -> bool {
        matches!(
            self.link.stopped.try_recv(),
            Err(TryRecvError::Disconnected)
        )
    }

    fn cause(&self) -> Arc<Disconnect> {
        // The lock is held while the causes are being set.
        let _stop = self.link.stop.lock();
        self.link.causes[self.side]
            .get()
            .cloned()
            .unwrap_or_else(|| Arc::new(Disconnect::Lost))
    }

    fn closed(&self) -> Disconnect {
        Disconnect::clone(&self.cause())
    }
}

struct MemoryReader {
    side: Side,
    incoming: Lane<Receiver<Text>>,
    limit: usize,
}

impl MemoryReader {
    fn checked(&self, message: Arc<str>) -> Result<Option<Arc<str>>, Disconnect> {
        if message.len() > self.limit {
            let own = Disconnect::TooLarge { limit: self.limit };
            let peer = Disconnect::ByPeer {
                code: Some(close_code::TOO_LARGE),
                reason: own.to_string(),
            };
            self.side.end(own, peer);
            return Err(Disconnect::clone(&self.side.cause()));
        }
        Ok(Some(message))
    }
}

impl DuplexReader for MemoryReader {
    fn receive(&mut self) -> Result<Option<Arc<str>>, Disconnect> {
        if !self.side.is_over() {
            crossbeam_channel::select_biased! {
                recv(self.side.link.stopped) -> _ => {}
                recv(self.incoming.posts) -> message => if let Ok(message) = message {
                    return self.checked(message);
                },
                recv(self.incoming.messages) -> message => if let Ok(message) = message {
                    return self.checked(message);
                },
            }
        }
        if !self.side.is_over() {
            // The other end was dropped.
            self.side.end(Disconnect::Lost, Disconnect::Lost);
        }
        let cause = self.side.cause();
        if matches!(*cause, Disconnect::ByPeer { .. } | Disconnect::Lost) {
            let left = self.incoming.posts.try_recv();
            let left = left.or_else(|_| self.incoming.messages.try_recv());
            if let Some(message) = left.ok().filter(|message| message.len() <= self.limit) {
                return Ok(Some(message));
            }
        }
        Err(Disconnect::clone(&cause))
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        self.side.end(Disconnect::Lost, Disconnect::Lost);
    }
}

struct MemoryWriter {
    side: Side,
    outgoing: Lane<Sender<Text>>,
}

impl DuplexWriter for MemoryWriter {
    fn send(&self, message: &str, deadline: Instant) -> Result<bool, Disconnect> {
        if self.side.is_over() {
            return Err(self.side.closed());
        }
        // The common case, without setting up a wait for two channels.
        let message = match self.outgoing.messages.try_send(Arc::from(message)) {
            Ok(()) => return Ok(true),
            Err(TrySendError::Disconnected(_)) => return Err(self.side.closed()),
            Err(TrySendError::Full(message)) => message,
        };
        let mut select = crossbeam_channel::Select::new();
        let stopped = select.recv(&self.side.link.stopped);
        select.send(&self.outgoing.messages);
        match select.select_deadline(deadline) {
            Err(_) => Ok(false),
            Ok(ready) if ready.index() == stopped => {
                let _ = ready.recv(&self.side.link.stopped);
                Err(self.side.closed())
            }
            Ok(ready) => match ready.send(&self.outgoing.messages, message) {
                Ok(()) => Ok(true),
                Err(_) => Err(self.side.closed()),
            },
        }
    }

    fn post(&self, message: &str) -> Result<(), Disconnect> {
        if self.side.is_over() {
            return Err(self.side.closed());
        }
        match self.outgoing.posts.try_send(Arc::from(message)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(self.side.closed()),
            Err(TrySendError::Full(_)) => {
                let own = Disconnect::ControlOverflow;
                let peer = Disconnect::ByPeer {
                    code: Some(close_code::TRY_AGAIN_LATER),
                    reason: own.to_string(),
                };
                self.side.end(own, peer);
                Err(self.side.closed())
            }
        }
    }

    fn interrupt(&self) {
        let own = by_host(close_code::ABNORMAL, "interrupted");
        self.side.end(own, Disconnect::Lost);
    }

    fn close(&self, code: u16, reason: &str, _deadline: Instant) {
        let own = by_host(code, reason);
        let peer = Disconnect::ByPeer {
            code: Some(code),
            reason: reason.to_owned(),
        };
        self.side.end(own, peer);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::deadline::Deadline;
    use crate::duplex::{Halves, Received, SendError};
    use crate::testing::assert_matches;

    fn long() -> Deadline {
        Deadline::after(Duration::from_secs(30))
    }

    fn split(memory: Memory) -> Halves {
        Halves::of(memory, &DuplexSettings::new("test")).unwrap()
    }

    fn halves(capacity: usize) -> (Halves, Halves) {
        let (one, other) = ends(capacity);
        (split(one), split(other))
    }

    fn text(halves: &mut Halves) -> String {
        match halves.reader.receive() {
            Ok(Received::Message(message)) => message.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_go_both_ways_in_order() {
        let (mut one, mut other) = halves(4);
        for number in 0..4 {
            one.writer.send(&number.to_string(), long()).unwrap();
        }
        other.writer.send("back", long()).unwrap();
        for number in 0..4 {
            assert_eq!(text(&mut other), number.to_string());
        }
        assert_eq!(text(&mut one), "back");
    }

    #[test]
    fn a_full_channel_makes_the_caller_wait_until_its_deadline() {
        let (one, mut other) = halves(1);
        one.writer.send("first", long()).unwrap();
        let late = one
            .writer
            .send("late", Deadline::after(Duration::from_millis(20)));
        assert_matches!(late, Err(SendError::Timeout { withdrawn: true }));
        let waiting = thread::spawn({
            let writer = one.writer.clone();
            move || writer.send("second", long())
        });
        assert_eq!(text(&mut other), "first");
        assert_eq!(text(&mut other), "second");
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn a_close_tells_both_ends_after_what_was_sent() {
        let (mut one, mut other) = halves(4);
        one.writer.send("before", long()).unwrap();
        one.writer.close(1000, "closed", long());
        one.writer.close(1012, "again", long());
        assert_eq!(text(&mut other), "before");
        assert_eq!(
            other.reader.receive().unwrap_err().to_string(),
            "closed by the plugin (code 1000, closed)"
        );
        assert_eq!(
            one.reader.receive().unwrap_err().to_string(),
            "closed by the host: closed"
        );
        assert_matches!(other.writer.send("late", long()), Err(SendError::Closed(_)));
    }

    #[test]
    fn an_interrupt_wakes_the_reader_and_a_waiting_sender() {
        let (one, mut other) = halves(1);
        one.writer.send("fills it", long()).unwrap();
        let Halves { mut reader, writer } = one;
        let waiting = writer.clone();
        let reading = thread::spawn(move || reader.receive().unwrap_err());
        let sending = thread::spawn(move || waiting.send("waits", long()).unwrap_err());
        writer.interrupt();
        assert_matches!(reading.join().unwrap(), Disconnect::ByHost { .. });
        assert_matches!(sending.join().unwrap(), SendError::Closed(_));
        assert_eq!(text(&mut other), "fills it");
        assert_matches!(other.reader.receive(), Err(Disconnect::Lost));
    }

    #[test]
    fn an_end_that_is_dropped_is_lost_to_the_other() {
        let (one, other) = ends(1);
        let mut one = split(one);
        drop(other);
        assert_matches!(one.reader.receive(), Err(Disconnect::Lost));
        let (mut one, other) = halves(1);
        drop(other.reader);
        assert_matches!(one.reader.receive(), Err(Disconnect::Lost));
    }

    #[test]
    fn posts_never_wait_and_overflow_ends_the_connection() {
        let (mut one, mut other) = halves(1);
        let refused = (0..=POSTS).find_map(|_| one.writer.post("answer").err());
        assert_matches!(refused, Some(Disconnect::ControlOverflow));
        assert_matches!(one.reader.receive(), Err(Disconnect::ControlOverflow));
        for _ in 0..POSTS {
            assert_eq!(text(&mut other), "answer");
        }
        assert_matches!(
            other.reader.receive(),
            Err(Disconnect::ByPeer {
                code: Some(1013),
                ..
            })
        );
    }

    #[test]
    fn the_read_limit_is_exact() {
        let (one, other) = ends(2);
        let mut one = split(one);
        let mut settings = DuplexSettings::new("test");
        settings.inbound_message = 10;
        let mut other = Halves::of(other, &settings).unwrap();
        one.writer.send("0123456789", long()).unwrap();
        one.writer.send("0123456789x", long()).unwrap();
        assert_eq!(text(&mut other), "0123456789");
        assert_matches!(
            other.reader.receive(),
            Err(Disconnect::TooLarge { limit: 10 })
        );
        assert_matches!(
            one.reader.receive(),
            Err(Disconnect::ByPeer {
                code: Some(1009),
                ..
            })
        );
    }
}
