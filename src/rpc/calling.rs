//! Calls out: registered, encoded on the caller's thread, sent, and waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::Error as _;

use super::hand_off::CallerRead;
use super::one_shot::OneShot;
use super::pending::{CallOutcome, OnOutcome, ReplyTo};
use super::sending::Fitting;
use super::{Connection, Reply, with_buffer};
use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::duplex::{SendError, Ticket};
use crate::error::{Error, Phase, Result};
use crate::id::RequestId;
use crate::protocol::jsonrpc;

/// When the caller of [`Connection::start`] waits for the answer, and so how its request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// It waits right away, and may read for itself.
    Awaited,
    /// It may wait much later, or never.
    Later,
    /// As `Later`; the request goes out with others, at [`Connection::flush`] or when it is waited for.
    Queued,
}

impl Connection {
    /// Calls a method and waits for the answer, all within `timeout`.
    pub(crate) fn call(
        self: &Arc<Self>,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<Reply> {
        let id = RequestId::generate();
        self.start(id, method, params, timeout, Start::Awaited)?
            .wait()
    }

    /// Sends a request; the answer is waited for with [`AwaitedReply::wait`], until `timeout` from now.
    ///
    /// Blocks for the write alone, at most until the timeout.
    pub(crate) fn start(
        self: &Arc<Self>,
        id: RequestId,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
        start: Start,
    ) -> Result<AwaitedReply> {
        if start != Start::Awaited {
            // Nobody reads for a caller that does not wait.
            self.hand_off.recall();
        }
        let deadline = Deadline::after(timeout);
        let mut waiting = AwaitedReply {
            connection: self.clone(),
            id,
            method: method.into(),
            one_shot: Arc::default(),
            deadline,
            timeout,
            ticket: None,
            queued: start == Start::Queued,
            registered: false,
        };
        with_buffer(|buffer| {
            let message = self.encode(buffer, id, method, params)?;
            let waiter = ReplyTo::Caller(waiting.one_shot.clone());
            let method = waiting.method.clone();
            self.pending.register(id, method, waiter, Some(deadline))?;
            waiting.registered = true;
            count_by(&self.counters.calls, 1);
            let sent = match start {
                Start::Awaited | Start::Later => message.send(deadline),
                Start::Queued => message.queue(deadline),
            };
            waiting.ticket = Some(sent.map_err(|error| match error {
                SendError::Timeout { withdrawn: true } => Error::timeout(Phase::Write, timeout),
                // Begun, so another thread finishes it and the peer acts on it.
                SendError::Timeout { withdrawn: false } => Error::timeout(Phase::Reply, timeout),
                SendError::Closed(cause) => Error::Disconnected(self.true_cause(cause)),
            })?);
            count_by(&self.counters.bytes_sent, message.len());
            Ok::<(), Error>(())
        })?;
        Ok(waiting)
    }

    /// Writes what is queued, as far as the transport takes it right now; a writer thread writes the rest.
    pub(crate) fn flush(&self) {
        self.sending.control().flush();
    }

    /// Sends a request without blocking, for threads that must not; `on_outcome` runs on the reading
    /// thread.
    pub(crate) fn post_call(
        &self,
        method: &str,
        params: &(impl Serialize + ?Sized),
        on_outcome: OnOutcome,
    ) -> Result<()> {
        let id = RequestId::generate();
        with_buffer(|buffer| {
            let message = self.encode(buffer, id, method, params)?;
            let waiter = ReplyTo::Callback(on_outcome);
            self.pending.register(id, method.into(), waiter, None)?;
            message.post().map_err(|cause| {
                drop(self.pending.take(id));
                Error::Disconnected(self.true_cause(Arc::new(cause)))
            })
        })
    }

    pub(super) fn encode<'a>(
        &'a self,
        buffer: &'a mut String,
        id: RequestId,
        method: &str,
        params: &(impl Serialize + ?Sized),
    ) -> Result<Fitting<'a>> {
        jsonrpc::encode_request(buffer, id, method, params)?;
        self.sending.fit(buffer)
    }
}

/// The reply to a request that was sent. Dropping it gives the call up: a late answer is dropped too.
pub(crate) struct AwaitedReply {
    connection: Arc<Connection>,
    id: RequestId,
    method: Arc<str>,
    one_shot: Arc<OneShot>,
    deadline: Deadline,
    timeout: Duration,
    ticket: Option<Ticket>,
    /// The request may lie in the queue with no thread to write it.
    queued: bool,
    registered: bool,
}

impl AwaitedReply {
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Returns when the call was started.
    pub(crate) fn begun(&self) -> Option<Instant> {
        self.deadline.begun(self.timeout)
    }

    /// Waits for the answer, at most until the deadline that the call was started with.
    pub(crate) fn wait(&mut self) -> Result<Reply> {
        let waited = self.wait_until(self.deadline);
        waited.unwrap_or_else(|| self.finish(None))
    }

    /// Waits for the answer as [`wait`](Self::wait) does, but not beyond this deadline. Returns `None` if that
    /// came first.
    pub(crate) fn wait_until(&mut self, deadline: Deadline) -> Option<Result<Reply>> {
        let result = self.try_wait();
        if result.is_some() {
            return result;
        }
        let deadline = deadline.min(self.deadline);
        let outcome = match self.connection.read_for(&self.one_shot, deadline) {
            CallerRead::Outcome(outcome) => Some(outcome),
            CallerRead::NotReady => None,
            CallerRead::Unavailable => self.spin_or_wait(deadline),
        };
        let outcome = outcome.or_else(|| self.one_shot.wait(deadline));
        (outcome.is_some() || self.deadline.has_passed()).then(|| self.finish(outcome))
    }

    /// Spins until the outcome comes, if the caller is alone and that pays, and sleeps after that. Returns
    /// `None` at once if the caller is not alone.
    fn spin_or_wait(&self, deadline: Deadline) -> Option<CallOutcome> {
        let connection = &self.connection;
        let is_alone = || connection.pending.len() == 1;
        let wait = if is_alone() {
            connection.spin.begin(deadline)
        } else {
            None
        }?;
        let found = wait.spin(|| self.one_shot.take(), is_alone);
        let outcome = found.or_else(|| self.one_shot.wait(deadline));
        connection.spin.ended(&wait);
        outcome
    }

    /// Returns the answer if it is there, or the timeout if the time is over.
    pub(crate) fn try_wait(&mut self) -> Option<Result<Reply>> {
        if let Some(outcome) = self.one_shot.take() {
            return Some(self.finish(Some(outcome)));
        }
        if std::mem::take(&mut self.queued) {
            // It may lie in the queue with no thread to write it.
            self.connection.flush();
            return self.try_wait();
        }
        // An outcome is returned once.
        (self.registered && self.deadline.has_passed()).then(|| self.finish(None))
    }

    /// Turns the outcome, or the timeout if there is none, into the result, and counts it.
    fn finish(&mut self, outcome: Option<CallOutcome>) -> Result<Reply> {
        let result = self.result(outcome);
        let counters = self.connection.counters();
        match &result {
            Ok(_) => count_by(&counters.replies, 1),
            Err(error) => counters.count_failure(error),
        }
        result
    }

    fn result(&mut self, outcome: Option<CallOutcome>) -> Result<Reply> {
        if outcome.is_some() {
            self.registered = false;
        }
        match outcome {
            Some(CallOutcome::Reply(message, span)) => Ok(Reply {
                message,
                span,
                method: self.method.clone(),
            }),
            Some(CallOutcome::Refused(error)) => Err(error.into()),
            Some(CallOutcome::Ended(cause)) => Err(Error::Disconnected(cause)),
            Some(CallOutcome::Unreadable(line)) => {
                drop(self.connection.pending.take(self.id));
                let source =
                    serde_json::Error::custom(format!("it is no JSON-RPC message: {line}"));
                Err(Error::InvalidReply {
                    method: self.method.clone(),
                    source: Arc::new(source),
                })
            }
            None => {
                if !self.give_up() {
                    self.connection.signs.call_overdue();
                }
                Err(Error::Timeout {
                    phase: Phase::Reply,
                    limit: self.timeout,
                    problem: self.problem(),
                })
            }
        }
    }

    /// Returns what came since the call was started and may have been meant as its answer.
    fn problem(&self) -> Option<Arc<str>> {
        self.connection.oddity(self.begun())
    }

    /// Stops waiting. Returns whether the peer sees nothing of the call.
    fn give_up(&mut self) -> bool {
        if !std::mem::take(&mut self.registered) {
            return false;
        }
        drop(self.connection.pending.take(self.id));
        self.ticket
            .is_none_or(|ticket| self.connection.sending.control().withdraw(ticket))
    }
}

impl Drop for AwaitedReply {
    fn drop(&mut self) {
        // Without a ticket it was never sent, and has failed.
        if self.registered && self.ticket.is_some() {
            count_by(&self.connection.counters().abandoned, 1);
        }
        self.give_up();
    }
}
