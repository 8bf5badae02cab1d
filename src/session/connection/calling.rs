//! Calls out: registered, encoded on the caller's thread, sent, and waited for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use serde::Serialize;

use super::{Connection, Reply, with_buffer};
use crate::deadline::Deadline;
use crate::duplex::{SendError, Ticket};
use crate::error::{Error, Phase, Result};
use crate::id::RequestId;
use crate::protocol::jsonrpc;
use crate::session::counters::LiveCounters;
use crate::session::pending::{OnOutcome, Outcome};

impl Connection {
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

    pub(super) fn encode(
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
                if !self.give_up() {
                    self.connection.overdue.store(true, Ordering::Relaxed);
                }
                Err(Error::timeout(Phase::Reply, self.timeout))
            }
        }
    }

    /// Gives whether the peer sees nothing of the call.
    fn give_up(&mut self) -> bool {
        if !std::mem::take(&mut self.registered) {
            return false;
        }
        drop(self.connection.pending.take(self.id));
        self.ticket
            .is_none_or(|ticket| self.connection.writer.withdraw(ticket))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.give_up();
    }
}
