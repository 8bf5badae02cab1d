//! The JSON-RPC endpoint: one connection in use, with calls out, answers in and calls in. It knows nothing
//! of plugins, states or hosts; both `session` and `sdk` stand on it.
//!
//! Any thread may call. One thread runs [`Connection::read_until_end`], and never writes.
//!
//! This file has what a connection is made of, how it answers the peer's calls and how it ends. The rest:
//!
//! - `calling`: calls to the peer; `pending`: the table of those that wait; `one_shot`: where one waits;
//!   `spin`: whether it spins before it sleeps; `sending`: the size limit on everything that is sent.
//! - `reading`: what is done with what arrives; `hand_off`: when callers read for themselves; `oddities`:
//!   what arrives and is not a message; `liveness`: signs of life.
//! - `workers`: threads for the peer's calls; `handling`: their handlers; `rate`: how many a second.
//! - `counters`: what is counted.

mod calling;
pub(crate) mod counters;
mod hand_off;
pub(crate) mod handling;
mod liveness;
mod oddities;
mod one_shot;
mod pending;
mod rate;
mod reading;
mod sending;
mod spin;
pub(crate) mod workers;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;

pub(crate) use calling::{AwaitedReply, Start};
pub(crate) use counters::LiveRpcCounters;
pub(crate) use pending::CallOutcome;
pub(crate) use rate::Rate;
pub(crate) use spin::spin_limit;

use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::duplex::{Halves, Message, ReadingHalf, by_host};
use crate::error::{Disconnect, Error, Result, RpcError};
use crate::protocol::access::AccessShape;
use crate::protocol::jsonrpc::{self, RemoteRequestId, ResultObject, ResultSpan};
use crate::protocol::method::decode_params;
use crate::protocol::unquoted::unquoted;
use crate::text::Foreign;
use hand_off::ReaderHandOff;
use liveness::SignsOfLife;
use oddities::Oddities;
use pending::PendingTable;
use sending::{Fitting, Sending};
use spin::Spin;

pub(crate) struct Connection {
    sending: Sending,
    pending: PendingTable,
    /// Names the peer in log lines.
    peer: String,
    access_shape: AccessShape,
    counters: Arc<LiveRpcCounters>,
    /// Limits how many messages the peer may send in a second.
    rate: Option<Arc<Rate>>,
    /// Decides whether a caller that waits alone spins before it sleeps.
    spin: Spin,
    /// Holds the reading half while callers read for themselves.
    hand_off: ReaderHandOff,
    /// Why this side ends the connection, set before the end can be seen.
    close_cause: Mutex<Option<Arc<Disconnect>>>,
    /// Nothing more is read.
    ended: AtomicBool,
    oddities: Oddities,
    signs: SignsOfLife,
}

/// A call from the peer.
pub(crate) struct InboundRequest {
    pub(crate) id: RemoteRequestId,
    pub(crate) method: String,
    pub(crate) params: Params,
}

/// The params of a call, kept in the message they came in.
#[derive(Clone, Debug)]
pub struct Params {
    message: Message,
    span: Option<ResultSpan>,
}

impl Params {
    /// Returns the JSON text; `{}` when the peer sent none.
    pub fn as_json(&self) -> &str {
        self.span
            .as_ref()
            .map_or("{}", |span| span.of(&self.message))
    }

    /// Returns the bytes they keep in memory: those of the whole message.
    pub(crate) fn held_bytes(&self) -> usize {
        self.message.len()
    }

    /// Decodes the params, which must be an object.
    ///
    /// # Errors
    /// An [`RpcError`] with code [`INVALID_PARAMS`](RpcError::INVALID_PARAMS) that says what is wrong, and
    /// in which field, for use as the answer.
    pub fn read<T: DeserializeOwned>(&self) -> std::result::Result<T, RpcError> {
        decode_params(self.as_json())
    }
}

/// The answer to a call, not yet read.
#[derive(Clone, Debug)]
pub struct Reply {
    message: Message,
    span: ResultSpan,
    method: Arc<str>,
}

impl Reply {
    /// Returns the JSON text of the `result`: of an object, if the plugin keeps to the protocol; `null` if there
    /// was none.
    pub fn as_json(&self) -> &str {
        self.span.of(&self.message)
    }

    /// Decodes the result, on the calling thread.
    ///
    /// # Errors
    /// [`Error::InvalidReply`] when it does not decode to a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.as_json()).map_err(|source| Error::InvalidReply {
            method: self.method.clone(),
            source: Arc::new(unquoted(source)),
        })
    }
}

thread_local! {
    /// Callers encode on their own thread, each into a buffer that is kept between calls.
    static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A buffer larger than this is not kept for the next message.
const KEPT_BUFFER: usize = 256 * 1024;

/// Runs `use_buffer` with this thread's cleared buffer.
fn with_buffer<T>(use_buffer: impl FnOnce(&mut String) -> T) -> T {
    // Taken out, not borrowed: an embedder's `Serialize` may make a call itself.
    let mut buffer = BUFFER.take();
    buffer.clear();
    let result = use_buffer(&mut buffer);
    if buffer.capacity() <= KEPT_BUFFER {
        BUFFER.set(buffer);
    }
    result
}

/// How a connection is set up.
pub(crate) struct ConnectionSettings {
    /// Names the peer in log lines.
    pub(crate) peer: String,
    /// Calls that may wait for an answer.
    pub(crate) pending_limit: usize,
    /// How this peer expects an answer with credentials.
    pub(crate) access_shape: AccessShape,
    /// Largest message this peer accepts, in bytes.
    pub(crate) message_limit: usize,
    /// Limits how many messages the peer may send in a second.
    pub(crate) rate: Option<Arc<Rate>>,
    /// How long a caller that waits alone may spin before it sleeps; zero for not at all.
    pub(crate) spin: Duration,
}

impl Connection {
    pub(crate) fn new(
        halves: Halves,
        settings: ConnectionSettings,
        counters: Arc<LiveRpcCounters>,
    ) -> (Arc<Self>, ReadingHalf) {
        let Halves { reader, writer } = halves;
        let connection = Self {
            sending: Sending::new(writer, settings.message_limit),
            peer: settings.peer,
            access_shape: settings.access_shape,
            pending: PendingTable::new(settings.pending_limit),
            counters,
            rate: settings.rate,
            spin: Spin::new(settings.spin),
            hand_off: ReaderHandOff::default(),
            close_cause: Mutex::new(None),
            ended: AtomicBool::new(false),
            oddities: Oddities::default(),
            signs: SignsOfLife::default(),
        };
        (Arc::new(connection), reader)
    }

    /// Answers a call from the peer, from a worker's thread. A lost connection is not an error: nobody
    /// is left to receive the answer.
    pub(crate) fn answer(
        &self,
        id: &RemoteRequestId,
        method: &str,
        answer: std::result::Result<&ResultObject, &RpcError>,
        deadline: Deadline,
    ) {
        with_buffer(|buffer| {
            let Some(fitting) = self.encode_answer(buffer, id, method, answer) else {
                return;
            };
            match fitting.send(deadline) {
                Ok(_) => count_by(&self.counters.bytes_sent, fitting.len()),
                Err(error) => {
                    let method = Foreign::new(method);
                    log::debug!("answer to {method} not sent: {error}");
                }
            }
        });
    }

    /// Refuses a call from the peer without blocking, from the reading thread.
    pub(crate) fn refuse(&self, id: &RemoteRequestId, error: &RpcError) {
        with_buffer(|buffer| {
            if let Some(fitting) = self.encode_answer(buffer, id, "", Err(error)) {
                // Too many of them unread end the connection, which the reader then reports.
                let _ = fitting.post();
            }
        });
    }

    /// Encodes an answer within the peer's limit: an error in place of one that is too large. Returns
    /// `None` if that error is too large as well, which takes a limit of a few hundred bytes.
    fn encode_answer<'a>(
        &'a self,
        buffer: &'a mut String,
        id: &RemoteRequestId,
        method: &str,
        answer: std::result::Result<&ResultObject, &RpcError>,
    ) -> Option<Fitting<'a>> {
        match answer {
            Ok(result) => {
                jsonrpc::encode_result(buffer, id, method, result);
                if let Err(Error::MessageTooLarge { size, limit }) = self.sending.fit(buffer) {
                    let text =
                        format!("the result of {size} bytes is over the limit of {limit} bytes");
                    jsonrpc::encode_error(buffer, id, &RpcError::new(RpcError::INTERNAL, text));
                }
            }
            Err(error) => jsonrpc::encode_error(buffer, id, error),
        }
        if self.sending.fit(buffer).is_err() {
            let code = answer.err().map_or(RpcError::INTERNAL, |error| error.code);
            jsonrpc::encode_error(buffer, id, &RpcError::new(code, "too large to be sent"));
        }
        self.sending
            .fit(buffer)
            .inspect_err(|error| log::warn!("{}: a call is not answered: {error}", self.peer))
            .ok()
    }

    /// Begins a [`close`](Self::close) without blocking: fails all calls, and sends the close as far as the
    /// transport takes it right now. Returns whether the transport can begin a close.
    pub(crate) fn begin_close(&self, code: u16, reason: &str) -> bool {
        let cause = self.set_close_cause(by_host(code, reason));
        self.pending.end(&cause);
        self.sending.control().begin_close(code, reason)
    }

    /// Ends the connection: sends the close, if the transport has one, fails all calls, and wakes the
    /// reader. Blocks at most until the deadline.
    pub(crate) fn close(&self, code: u16, reason: &str, deadline: Deadline) {
        let cause = by_host(code, reason);
        self.close_with(cause, code, reason, deadline);
    }

    /// As [`close`](Self::close), with another cause than [`Disconnect::ByHost`].
    pub(crate) fn close_with(
        &self,
        cause: Disconnect,
        code: u16,
        reason: &str,
        deadline: Deadline,
    ) {
        let cause = self.set_close_cause(cause);
        self.pending.end(&cause);
        self.sending.control().close(code, reason, deadline);
    }

    /// Ends only what is sent to the peer, if the transport can do that; what the peer still sends counts.
    /// Never blocks.
    pub(crate) fn hang_up(&self, code: u16, reason: &str) {
        self.set_close_cause(by_host(code, reason));
        self.sending.control().hang_up(code, reason);
    }

    /// Ends the connection at once, without sending a close; returns the cause that counts.
    pub(crate) fn abort(&self, cause: Disconnect) -> Arc<Disconnect> {
        let cause = self.set_close_cause(cause);
        self.ended.store(true, Ordering::Release);
        self.pending.end(&cause);
        self.sending.control().interrupt();
        cause
    }

    /// Sets why the connection is about to end, however its end will look. Returns the cause that counts,
    /// which is the first one set.
    pub(crate) fn set_close_cause(&self, cause: Disconnect) -> Arc<Disconnect> {
        let cause = self
            .close_cause
            .lock()
            .get_or_insert_with(|| Arc::new(cause))
            .clone();
        // Not under the lock, which the reading thread takes while it lends.
        self.hand_off.recall();
        cause
    }

    /// Returns whether the peer's messages have been read to the end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn counters(&self) -> &LiveRpcCounters {
        &self.counters
    }

    /// Returns the name of the peer for log lines.
    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    /// Returns how the peer expects an answer with credentials.
    pub(crate) fn access_shape(&self) -> AccessShape {
        self.access_shape
    }

    fn is_closing(&self) -> bool {
        self.close_cause.lock().is_some()
    }

    fn true_cause(&self, seen: Arc<Disconnect>) -> Arc<Disconnect> {
        self.close_cause.lock().clone().unwrap_or(seen)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}
