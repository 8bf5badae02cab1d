//! One connection in use: calls out, answers in, calls in. It knows JSON-RPC and nothing of
//! plugins, states or hosts; the plugin's side of the protocol (`sdk`) stands on it as well.
//!
//! Any thread calls; one thread runs [`Connection::read_until_end`] and never writes.
//!
//! What lives here: what a connection is made of, answering the peer's calls, ending it. Calling the
//! peer is in `calling`, the table of calls that wait in `pending` and where one waits in `one_shot`, what is
//! done with what arrives in `reading`, when callers read for themselves in `lending`, how they wait
//! otherwise in `spin`, what arrives and is no message in `oddities`, signs of life in `liveness`, what may
//! be written at all in `sending`. Running the peer's calls: threads in `workers`, handlers in `handling`,
//! how many a second in `rate`. What is counted is in `counters`.

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
pub use counters::RpcCounters;
pub(crate) use pending::CallOutcome;
pub(crate) use rate::Rate;
pub(crate) use spin::spin_limit;

use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::duplex::{DuplexReader, Halves, Interrupt, Message, by_host};
use crate::error::{Disconnect, Error, Result, RpcError};
use crate::protocol::access::AccessShape;
use crate::protocol::jsonrpc::{self, RemoteRequestId, ResultObject, ResultSpan};
use crate::protocol::method::object_from_text;
use crate::text::Foreign;
use hand_off::ReaderHandOff;
use liveness::SignsOfLife;
use oddities::Oddities;
use pending::PendingTable;
use sending::{Fitting, Sending};
use spin::Spin;

pub(crate) struct Connection {
    sending: Sending,
    interrupt: Arc<dyn Interrupt>,
    pending: PendingTable,
    /// Who is at the other end, for log lines.
    peer: String,
    access_shape: AccessShape,
    counters: Arc<LiveRpcCounters>,
    /// How many messages the peer may send in a second, if there is a limit.
    rate: Option<Arc<Rate>>,
    /// Whether a caller that waits alone looks for its answer before it sleeps.
    spin: Spin,
    /// The reading half, while callers read for themselves.
    hand_off: ReaderHandOff,
    /// Why the host ends it, set before anybody can see the end.
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
    /// The JSON text; `{}` when the peer sent none.
    pub fn as_json(&self) -> &str {
        self.span
            .as_ref()
            .map_or("{}", |span| span.of(&self.message))
    }

    /// Bytes that they keep in memory: those of the whole message.
    pub(crate) fn held_bytes(&self) -> usize {
        self.message.len()
    }

    /// Reads the params, which must be an object.
    ///
    /// # Errors
    /// An [`RpcError`] that says what is wrong with them, fit to be the answer.
    pub fn read<T: DeserializeOwned>(&self) -> std::result::Result<T, RpcError> {
        object_from_text(self.as_json()).map_err(|error| {
            RpcError::new(RpcError::INVALID_PARAMS, format!("invalid params: {error}"))
        })
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
    /// The JSON text of the `result`.
    pub fn as_json(&self) -> &str {
        self.span.of(&self.message)
    }

    /// Reads the result, on the calling thread.
    ///
    /// # Errors
    /// [`Error::InvalidReply`] when it does not look like a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.as_json()).map_err(|source| Error::InvalidReply {
            method: self.method.clone(),
            source: Arc::new(source),
        })
    }
}

thread_local! {
    /// Callers encode on their own thread, into one buffer that each keeps.
    static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A buffer larger than this is not kept for the next message.
const KEPT_BUFFER: usize = 256 * 1024;

/// Runs `use_buffer` with this thread's cleared buffer.
fn with_buffer<T>(use_buffer: impl FnOnce(&mut String) -> T) -> T {
    // Taken out, not borrowed: a `Serialize` of the embedder's may well make a call itself.
    let mut buffer = BUFFER.take();
    buffer.clear();
    let result = use_buffer(&mut buffer);
    if buffer.capacity() <= KEPT_BUFFER {
        BUFFER.set(buffer);
    }
    result
}

/// What a connection is told at its beginning.
pub(crate) struct ConnectionSettings {
    /// Who is at the other end, for log lines.
    pub(crate) peer: String,
    /// Calls that may wait for an answer.
    pub(crate) pending_limit: usize,
    /// How this peer expects an answer with credentials.
    pub(crate) access_shape: AccessShape,
    /// Largest message this peer accepts, in bytes.
    pub(crate) message_limit: usize,
    /// How many messages the peer may send in a second, if there is a limit.
    pub(crate) rate: Option<Arc<Rate>>,
    /// How long a caller that waits alone looks for its answer before it sleeps; zero for not at all.
    pub(crate) spin: Duration,
}

impl Connection {
    pub(crate) fn new(
        halves: Halves,
        settings: ConnectionSettings,
        counters: Arc<LiveRpcCounters>,
    ) -> (Arc<Self>, Box<dyn DuplexReader>) {
        let Halves {
            reader,
            writer,
            interrupt,
        } = halves;
        let connection = Self {
            sending: Sending::new(writer, settings.message_limit),
            interrupt,
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

    /// Answers a call from the peer, from a worker's thread. A lost connection is no error: there
    /// is nobody left to be told.
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

    /// Writes an answer that the peer accepts: if need be, an error in place of what is too large.
    /// `None` if even that is, which takes a limit of a few hundred bytes.
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

    /// Begins what [`close`](Self::close) does, and waits for nothing: all calls fail, and the peer is
    /// told as far as the transport takes it right now. Gives whether the transport can do that.
    pub(crate) fn begin_close(&self, code: u16, reason: &str) -> bool {
        let cause = self.set_close_cause(by_host(code, reason));
        self.pending.end(&cause);
        self.sending.control().begin_close(code, reason)
    }

    /// Ends the connection: tells the peer why, as far as the transport can, fails all calls, and
    /// wakes the reader. Blocks at most until the deadline.
    pub(crate) fn close(&self, code: u16, reason: &str, deadline: Deadline) {
        let cause = by_host(code, reason);
        self.close_with(cause, code, reason, deadline);
    }

    /// [`close`](Self::close) for another cause than the host's own wish.
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

    /// Ends what is sent to the peer, as far as the transport can do that alone, and lets what it still says
    /// count. Never blocks.
    pub(crate) fn hang_up(&self, code: u16, reason: &str) {
        self.set_close_cause(by_host(code, reason));
        self.sending.control().hang_up(code, reason);
    }

    /// Ends the connection at once, without a word to the peer; gives the cause that counts.
    pub(crate) fn abort(&self, cause: Disconnect) -> Arc<Disconnect> {
        let cause = self.set_close_cause(cause);
        self.ended.store(true, Ordering::Release);
        self.pending.end(&cause);
        self.interrupt.interrupt();
        cause
    }

    /// Says why the connection is about to end, whatever its end will look like; gives the cause that
    /// counts, which is the first.
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

    /// Whether the peer's messages have been read to the end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn counters(&self) -> &LiveRpcCounters {
        &self.counters
    }

    /// Who is at the other end, for log lines.
    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    /// How the peer expects an answer with credentials.
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
