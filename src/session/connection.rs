//! One connection in use: calls out, answers in, calls in. It knows JSON-RPC and nothing of
//! plugins, states or hosts; the plugin's side of the protocol (`sdk`) stands on it as well.
//!
//! Any thread calls; one thread runs [`Connection::read_until_end`] and never writes.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::counters::LiveCounters;
use super::pending::{OnOutcome, Outcome, PendingTable};
use super::rate::Rate;
use crate::deadline::Deadline;
use crate::duplex::{
    DuplexReader, DuplexWriter, Halves, Interrupt, Message, Received, SendError, Ticket,
};
use crate::error::{Disconnect, Error, Phase, Result, RpcError};
use crate::id::RequestId;
use crate::protocol::jsonrpc::{self, Envelope, Incoming, PeerId, ResultObject, ResultSpan};
use crate::protocol::method::{Empty, Method, Ping, object_from_text};

pub(crate) struct Connection {
    writer: Arc<dyn DuplexWriter>,
    interrupt: Arc<dyn Interrupt>,
    pending: PendingTable,
    /// Who is at the other end, for log lines.
    peer: String,
    counters: Arc<LiveCounters>,
    /// Largest message this peer accepts, in bytes.
    message_limit: usize,
    /// How many messages the peer may send in a second, if there is a limit.
    rate: Option<Arc<Rate>>,
    /// Why the host ends it, set before anybody can see the end.
    verdict: Mutex<Option<Arc<Disconnect>>>,
    /// Nothing more is read.
    ended: AtomicBool,
    /// It was told that the peer sends what is no JSON-RPC; a flood of it must not flood the log.
    unreadable_told: AtomicBool,
    /// Something arrived since somebody last looked; and a whole message did. Set by the reading
    /// thread, taken by whoever watches the connection's health.
    heard: AtomicBool,
    heard_message: AtomicBool,
    /// Somebody waits for a sign of life.
    challenged: AtomicBool,
    challenge: Mutex<Option<Sender<()>>>,
}

/// A call from the peer.
pub(crate) struct InboundRequest {
    pub(crate) id: PeerId,
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
    pub(super) fn held_bytes(&self) -> usize {
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
const KEPT_BUFFER: usize = 64 * 1024;

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

impl Connection {
    pub(crate) fn new(
        halves: Halves,
        peer: String,
        pending_limit: usize,
        message_limit: usize,
        rate: Option<Arc<Rate>>,
        counters: Arc<LiveCounters>,
    ) -> (Arc<Self>, Box<dyn DuplexReader>) {
        let Halves {
            reader,
            writer,
            interrupt,
        } = halves;
        let connection = Self {
            writer,
            interrupt,
            peer,
            pending: PendingTable::new(pending_limit),
            counters,
            message_limit,
            rate,
            verdict: Mutex::new(None),
            ended: AtomicBool::new(false),
            unreadable_told: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            heard_message: AtomicBool::new(false),
            challenged: AtomicBool::new(false),
            challenge: Mutex::new(None),
        };
        (Arc::new(connection), reader)
    }

    /// Calls a method and waits for the answer, all within `timeout`.
    pub(crate) fn call(
        self: &Arc<Self>,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<Reply> {
        self.start(RequestId::generate(), method, params, timeout)?
            .wait()
    }

    /// Sends a request; the answer is waited for with [`Waiting::wait`], until `timeout` from now.
    ///
    /// Blocks for the write alone, at most until the timeout.
    pub(crate) fn start(
        self: &Arc<Self>,
        id: RequestId,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<Waiting> {
        self.start_with(id, method, params, timeout, |message, deadline| {
            self.writer.send(message, deadline)
        })
    }

    /// [`start`](Self::start) without waiting for the write: what the transport has no room for is
    /// refused.
    pub(crate) fn try_start(
        self: &Arc<Self>,
        id: RequestId,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<Waiting> {
        self.start_with(id, method, params, timeout, |message, _| {
            self.writer.try_send(message)
        })
    }

    fn start_with(
        self: &Arc<Self>,
        id: RequestId,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
        send: impl FnOnce(&str, Deadline) -> std::result::Result<Ticket, SendError>,
    ) -> Result<Waiting> {
        let deadline = Deadline::after(timeout);
        let (sender, outcome) = bounded(1);
        let mut waiting = Waiting {
            connection: self.clone(),
            id,
            method: method.into(),
            outcome,
            deadline,
            timeout,
            ticket: None,
            registered: false,
        };
        with_buffer(|buffer| {
            self.encode(buffer, id, method, params)?;
            // The receiver may be gone: its caller ran out of time.
            let on_outcome = Box::new(move |outcome| drop(sender.send(outcome)));
            self.pending.register(id, on_outcome, Some(deadline))?;
            waiting.registered = true;
            LiveCounters::add(&self.counters.calls, 1);
            let ticket = send(buffer, deadline).map_err(|error| match error {
                SendError::Timeout { withdrawn: true } => Error::timeout(Phase::Write, timeout),
                // Begun, so others finish it and the peer acts on it.
                SendError::Timeout { withdrawn: false } => Error::timeout(Phase::Reply, timeout),
                SendError::Closed(cause) => Error::Disconnected(self.true_cause(cause)),
            })?;
            waiting.ticket = Some(ticket);
            LiveCounters::add(&self.counters.bytes_sent, buffer.len());
            Ok::<(), Error>(())
        })?;
        Ok(waiting)
    }

    /// Sends a request without ever blocking, for threads that must not; `on_outcome` is run by
    /// the reading thread.
    pub(crate) fn post_call(
        &self,
        method: &str,
        params: &(impl Serialize + ?Sized),
        on_outcome: OnOutcome,
    ) -> Result<()> {
        let id = RequestId::generate();
        with_buffer(|buffer| {
            self.encode(buffer, id, method, params)?;
            self.pending.register(id, on_outcome, None)?;
            self.writer.post(buffer).map_err(|error| {
                drop(self.pending.take(id));
                match error {
                    SendError::Closed(cause) => Error::Disconnected(self.true_cause(cause)),
                    SendError::Timeout { .. } => Error::timeout(Phase::Write, Duration::ZERO),
                }
            })
        })
    }

    fn encode(
        &self,
        buffer: &mut String,
        id: RequestId,
        method: &str,
        params: &(impl Serialize + ?Sized),
    ) -> Result<()> {
        jsonrpc::encode_request(buffer, id, method, params)?;
        if buffer.len() > self.message_limit {
            return Err(Error::MessageTooLarge {
                size: buffer.len(),
                limit: self.message_limit,
            });
        }
        Ok(())
    }

    /// Answers a call from the peer, from a worker's thread. A lost connection is no error: there
    /// is nobody left to be told.
    pub(crate) fn answer(
        &self,
        id: &PeerId,
        method: &str,
        answer: std::result::Result<&ResultObject, &RpcError>,
        deadline: Deadline,
    ) {
        with_buffer(|buffer| {
            match answer {
                Ok(result) => {
                    jsonrpc::encode_result(buffer, id, method, result);
                    if buffer.len() > self.message_limit {
                        let size = buffer.len();
                        buffer.clear();
                        let text = format!(
                            "the result of {size} bytes is over the limit of {} bytes",
                            self.message_limit
                        );
                        jsonrpc::encode_error(buffer, id, &RpcError::new(RpcError::INTERNAL, text));
                    }
                }
                Err(error) => jsonrpc::encode_error(buffer, id, error),
            }
            match self.writer.send(buffer, deadline) {
                Ok(_) => LiveCounters::add(&self.counters.bytes_sent, buffer.len()),
                Err(error) => log::debug!("answer to {method} not sent: {error}"),
            }
        });
    }

    /// Refuses a call from the peer without blocking, from the reading thread.
    pub(crate) fn refuse(&self, id: &PeerId, error: &RpcError) {
        with_buffer(|buffer| {
            jsonrpc::encode_error(buffer, id, error);
            // Too many of them unread end the connection, which the reader then reports.
            let _ = self.writer.post(buffer);
        });
    }

    /// Ends the connection: tells the peer why, as far as the transport can, fails all calls, and
    /// wakes the reader. Blocks at most until the deadline.
    pub(crate) fn close(&self, code: u16, reason: &str, deadline: Deadline) {
        let cause = Disconnect::ByHost {
            code,
            reason: reason.into(),
        };
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
        let cause = self.blame(cause);
        self.pending.end(&cause);
        self.writer.close(code, reason, deadline);
    }

    /// Ends the connection at once, without a word to the peer; gives the cause that counts.
    pub(crate) fn abort(&self, cause: Disconnect) -> Arc<Disconnect> {
        let cause = self.blame(cause);
        self.ended.store(true, Ordering::Release);
        self.pending.end(&cause);
        self.interrupt.interrupt();
        cause
    }

    /// Says why the connection is about to end, whatever its end will look like; gives the cause that
    /// counts, which is the first.
    pub(crate) fn blame(&self, cause: Disconnect) -> Arc<Disconnect> {
        let mut verdict = self.verdict.lock();
        verdict.get_or_insert_with(|| Arc::new(cause)).clone()
    }

    /// Whether the peer's messages have been read to the end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Asks the peer for a sign of life, with a transport-level ping. Anything that arrives is
    /// one. Gives whether it came in time; true where the transport has no ping.
    pub(crate) fn is_alive(&self, deadline: Deadline) -> bool {
        let (sender, receiver) = bounded(1);
        *self.challenge.lock() = Some(sender);
        self.challenged.store(true, Ordering::Release);
        if self.has_ended() {
            return false;
        }
        if !self.writer.ping() {
            return true;
        }
        // An error is the end of the connection: then it is not alive.
        receiver.recv_deadline(deadline.instant()).is_ok()
    }

    /// Whether anything arrived since the last look; with `messages_only`, a whole message.
    pub(super) fn take_heard(&self, messages_only: bool) -> bool {
        let any = self.heard.swap(false, Ordering::Relaxed);
        let message = self.heard_message.swap(false, Ordering::Relaxed);
        if messages_only { message } else { any }
    }

    /// Whether the peer may be inside a call, and answer nothing meanwhile: somebody waits for its
    /// answer, or it waits for ours.
    pub(super) fn is_in_call(&self, now: Instant) -> bool {
        self.counters.inbound_in_flight.load(Ordering::Relaxed) > 0
            || self.pending.has_calls_within_time(now)
    }

    /// Whether the transport has a ping of its own.
    pub(super) fn has_transport_ping(&self) -> bool {
        self.writer.has_ping()
    }

    /// Sends the transport's own ping, without waiting for anything. False where there is none.
    pub(super) fn ping_transport(&self) -> bool {
        self.writer.ping()
    }

    /// Sends the protocol's `ping` on the host's own behalf, without waiting for anything. Whatever
    /// arrives shows in [`take_heard`](Self::take_heard). False when there is no room for it now.
    pub(super) fn ping_peer(&self) -> bool {
        let id = RequestId::generate();
        with_buffer(|buffer| {
            if self.encode(buffer, id, Ping::NAME, &Empty {}).is_err() {
                return false;
            }
            // First, because the answer may be quick.
            self.pending.expect_own_ping(id);
            let sent = self.writer.try_send(buffer).is_ok();
            if sent {
                LiveCounters::add(&self.counters.bytes_sent, buffer.len());
            } else {
                self.pending.take_own_ping(id);
            }
            sent
        })
    }

    /// Whether the answer to the last of those pings has not come.
    pub(super) fn expects_own_ping(&self) -> bool {
        self.pending.expects_own_ping()
    }

    pub(super) fn counters(&self) -> &LiveCounters {
        &self.counters
    }

    /// Who is at the other end, for log lines.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    fn true_cause(&self, seen: Arc<Disconnect>) -> Arc<Disconnect> {
        self.verdict.lock().clone().unwrap_or(seen)
    }

    /// The body of the reading thread: hands answers to those who wait and calls to `dispatch`,
    /// until the connection ends. Fails all waiting calls then, and gives the cause.
    pub(crate) fn read_until_end(
        &self,
        mut reader: Box<dyn DuplexReader>,
        dispatch: &mut dyn FnMut(InboundRequest),
    ) -> Arc<Disconnect> {
        let seen = loop {
            match reader.receive() {
                Ok(received) => {
                    raise(&self.heard);
                    if self.challenged.load(Ordering::Acquire) {
                        self.challenged.store(false, Ordering::Release);
                        if let Some(waiter) = self.challenge.lock().take() {
                            // Room for one is kept; a waiter whose time ran out is gone.
                            let _ = waiter.try_send(());
                        }
                    }
                    match received {
                        Received::Message(message) => {
                            raise(&self.heard_message);
                            LiveCounters::add(&self.counters.bytes_received, message.len());
                            self.take_in(&mut *reader, message, dispatch);
                        }
                        Received::Binary { bytes } => {
                            LiveCounters::add(&self.counters.bytes_received, bytes);
                            LiveCounters::add(&self.counters.binary, 1);
                            self.count_toward_rate();
                            log::debug!("{}: skipped a binary message of {bytes} bytes", self.peer);
                        }
                        Received::Alive => {}
                    }
                }
                Err(cause) => break Arc::new(cause),
            }
        };
        self.ended.store(true, Ordering::Release);
        self.challenge.lock().take();
        let cause = self.verdict.lock().get_or_insert(seen).clone();
        self.pending.end(&cause);
        cause
    }

    /// Counts a message that asks nothing, or is no answer to anything.
    fn count_toward_rate(&self) {
        // Over the limit there is nothing to refuse: it was not going to be answered.
        let _ = self.over_rate();
    }

    /// Counts a message; gives the limit if it is over it.
    fn over_rate(&self) -> Option<u32> {
        self.rate.as_ref()?.admit().err()
    }

    fn take_in(
        &self,
        reader: &mut dyn DuplexReader,
        message: Message,
        dispatch: &mut dyn FnMut(InboundRequest),
    ) {
        match Envelope::parse(&message) {
            Ok(Incoming::Response { id, outcome }) => {
                let waiter = id.and_then(|id| self.pending.take(id));
                let Some(on_outcome) = waiter else {
                    if id.is_some_and(|id| self.pending.take_own_ping(id)) {
                        return;
                    }
                    LiveCounters::add(&self.counters.stray_replies, 1);
                    self.count_toward_rate();
                    log::debug!("dropped an answer that nobody waits for, id {id:?}");
                    return;
                };
                let outcome = match outcome {
                    Ok(result) => {
                        let span = ResultSpan::locate(&message, result);
                        Outcome::Reply(message, span)
                    }
                    Err(error) => Outcome::Refused(error),
                };
                on_outcome(outcome);
            }
            Ok(Incoming::Request { id, method, params }) => {
                if let Some(limit) = self.over_rate() {
                    LiveCounters::add(&self.counters.inbound_calls, 1);
                    LiveCounters::add(&self.counters.inbound_limited, 1);
                    let text = format!(
                        "this plugin may send {limit} messages in a second; try again later"
                    );
                    self.refuse(&id, &RpcError::new(RpcError::HANDLER_FAILED, text));
                    return;
                }
                let span = params.map(|params| ResultSpan::locate(&message, params));
                let method = method.into_owned();
                dispatch(InboundRequest {
                    id,
                    method,
                    params: Params { message, span },
                });
            }
            Ok(Incoming::Notification { method, .. }) => {
                LiveCounters::add(&self.counters.notifications, 1);
                self.count_toward_rate();
                log::debug!("ignored a request without an id: {method}");
            }
            Err(error) => {
                LiveCounters::add(&self.counters.unreadable, 1);
                if reader.not_a_message(&message) {
                    return;
                }
                // Not before: what a program prints is no message that it sends.
                self.count_toward_rate();
                let peer = &self.peer;
                if self.unreadable_told.swap(true, Ordering::Relaxed) {
                    log::debug!("{peer}: ignored a message that is no JSON-RPC: {error}");
                } else {
                    log::warn!(
                        "{peer}: ignored a message that is no JSON-RPC: {error}; more of them on \
                         this connection are only counted"
                    );
                }
            }
        }
    }
}

/// Sets a flag that mostly is set already, without taking its cache line from who else looks at it.
fn raise(flag: &AtomicBool) {
    if !flag.load(Ordering::Relaxed) {
        flag.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

/// A call on its way. Dropping it gives the call up: a late answer is dropped too.
pub(crate) struct Waiting {
    connection: Arc<Connection>,
    id: RequestId,
    method: Arc<str>,
    outcome: Receiver<Outcome>,
    deadline: Deadline,
    timeout: Duration,
    ticket: Option<Ticket>,
    registered: bool,
}

impl Waiting {
    /// Waits for the answer, at most until the deadline that the call was begun with.
    pub(crate) fn wait(mut self) -> Result<Reply> {
        let outcome = self.outcome.recv_deadline(self.deadline.instant());
        self.finish(outcome)
    }

    /// The answer if it is there, or if the time is over.
    pub(crate) fn try_wait(&mut self) -> Option<Result<Reply>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(self.finish(Ok(outcome))),
            Err(_) if !self.registered => None,
            Err(_) if self.deadline.has_passed() => {
                Some(self.finish(Err(RecvTimeoutError::Timeout)))
            }
            Err(_) => None,
        }
    }

    fn finish(&mut self, outcome: std::result::Result<Outcome, RecvTimeoutError>) -> Result<Reply> {
        if outcome.is_ok() {
            self.registered = false;
        }
        match outcome {
            Ok(Outcome::Reply(message, span)) => Ok(Reply {
                message,
                span,
                method: self.method.clone(),
            }),
            Ok(Outcome::Refused(error)) => Err(error.into()),
            Ok(Outcome::Ended(cause)) => Err(Error::Disconnected(cause)),
            Err(_) => {
                self.give_up();
                Err(Error::timeout(Phase::Reply, self.timeout))
            }
        }
    }

    fn give_up(&mut self) {
        if std::mem::take(&mut self.registered) {
            drop(self.connection.pending.take(self.id));
            if let Some(ticket) = self.ticket {
                self.connection.writer.withdraw(ticket);
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.give_up();
    }
}
