//! What is done with what arrives: answers go to the callers that wait for them, calls to `dispatch`. A
//! thread that reads never writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::hand_off::{Dispatch, FastReplies, LOAN, ReadHalf};
use super::one_shot::OneShot;
use super::pending::{CallOutcome, ReplyTo};
use super::{Connection, InboundRequest, Params};
use crate::counters::count_by;
use crate::duplex::{Message, ReadingHalf, Received};
use crate::error::{Disconnect, RpcError};
use crate::protocol::jsonrpc::{EnvelopeError, Incoming, ResultSpan};
use crate::text::Foreign;

impl Connection {
    /// The body of the reading thread: hands answers to callers and calls to `dispatch` until the
    /// connection ends. Then fails all waiting calls and returns the cause.
    pub(crate) fn read_until_end(
        &self,
        reader: ReadingHalf,
        dispatch: Dispatch,
    ) -> Arc<Disconnect> {
        let mut half = ReadHalf {
            reader,
            dispatch,
            unreadable: None,
        };
        let mut fast_replies = FastReplies::default();
        let seen = loop {
            let received = match half.reader.receive() {
                Ok(received) => received,
                Err(cause) => break Arc::new(cause),
            };
            match self.on_received(received, &mut half.dispatch) {
                Dispatched::SoleReply(answer) => {
                    if fast_replies.add() && half.set_timed(Some(LOAN)) {
                        let is_needed = || self.pending.len() > 0 || self.is_closing();
                        half = self.hand_off.lend(half, is_needed, || drop(answer));
                        half.set_timed(None);
                        fast_replies.reset();
                    }
                }
                Dispatched::Unreadable(message) => {
                    half.unreadable = Some(message);
                    fast_replies.reset();
                }
                Dispatched::Done => fast_replies.reset(),
            }
            if let Some(unreadable) = half.unreadable.take() {
                self.report_unreadable(&unreadable, &mut half.reader);
            }
        };
        self.ended.store(true, Ordering::Release);
        self.signs.end();
        let cause = self.close_cause.lock().get_or_insert(seen).clone();
        self.pending.end(&cause);
        cause
    }

    /// Handles something that arrived.
    pub(super) fn on_received(
        &self,
        received: Received,
        dispatch: &mut dyn FnMut(InboundRequest),
    ) -> Dispatched {
        self.signs.received();
        match received {
            Received::Message(message) => self.on_message(message, StreamKind::Messages, dispatch),
            Received::Line(line) => self.on_message(line, StreamKind::Mixed, dispatch),
            Received::Output { beginning } => {
                self.note_output(&beginning, None);
                Dispatched::Done
            }
            Received::Binary { bytes, beginning } => {
                count_by(&self.counters.bytes_received, bytes);
                count_by(&self.counters.binary, 1);
                self.count_toward_rate();
                self.fail_unreadable(&beginning);
                self.log_oddity(format_args!(
                    "skipped a binary message of {bytes} bytes; JSON-RPC goes in text messages"
                ));
                Dispatched::Done
            }
            Received::Alive => Dispatched::Done,
        }
    }

    /// Counts a message that is not answered toward the rate.
    fn count_toward_rate(&self) {
        // Over the limit there is nothing to refuse.
        let _ = self.over_rate();
    }

    /// Counts a message; returns the limit if the message is over it.
    fn over_rate(&self) -> Option<u32> {
        self.rate.as_ref()?.admit().err()
    }

    fn on_message(
        &self,
        message: Message,
        stream: StreamKind,
        dispatch: &mut dyn FnMut(InboundRequest),
    ) -> Dispatched {
        count_by(&self.counters.bytes_received, message.len());
        let parsed = match stream {
            StreamKind::Messages => Incoming::parse(&message),
            StreamKind::Mixed => Incoming::parse_line(&message),
        };
        if stream == StreamKind::Messages || parsed.is_ok() {
            self.signs.received_message();
        }
        match parsed {
            Ok(Incoming::Response {
                id,
                outcome,
                is_unmarked,
            }) => {
                let waiter = id.and_then(|id| self.pending.take(id));
                let Some(waiter) = waiter else {
                    if id.is_some_and(|id| self.pending.take_own_ping(id)) {
                        return Dispatched::Done;
                    }
                    if is_unmarked {
                        return Dispatched::no_message(message);
                    }
                    self.note_stray(&message);
                    count_by(&self.counters.stray_replies, 1);
                    self.count_toward_rate();
                    log::debug!("dropped an answer that nobody waits for, id {id:?}");
                    return Dispatched::Done;
                };
                let outcome = match outcome {
                    Ok(result) => {
                        let span = ResultSpan::locate(&message, result);
                        CallOutcome::Reply(message, span)
                    }
                    Err(error) => CallOutcome::Refused(error),
                };
                match waiter {
                    ReplyTo::Caller(one_shot) if self.pending.len() == 0 => {
                        return Dispatched::SoleReply(SoleReply(one_shot, Some(outcome)));
                    }
                    waiter => waiter.send(outcome),
                }
            }
            // Programs print the requests they read.
            Ok(Incoming::Request { id, method, .. })
                if stream == StreamKind::Mixed && self.is_echo(id.as_json(), &method) =>
            {
                return Dispatched::no_message(message);
            }
            Ok(Incoming::Request { id, method, params }) => {
                if let Some(limit) = self.over_rate() {
                    count_by(&self.counters.inbound_calls, 1);
                    count_by(&self.counters.inbound_limited, 1);
                    let text = format!(
                        "this plugin may send {limit} messages in a second; try again later"
                    );
                    self.refuse(&id, &RpcError::new(RpcError::HANDLER_FAILED, text));
                    return Dispatched::Done;
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
                count_by(&self.counters.notifications, 1);
                self.count_toward_rate();
                let method = Foreign::new(&method);
                log::debug!("ignored a request without an id: {method}");
            }
            Err(error) => {
                return Dispatched::Unreadable(Unreadable { message, error });
            }
        }
        Dispatched::Done
    }

    /// Logs and counts a message that is not JSON-RPC, unless the transport takes it as output.
    fn report_unreadable(&self, unreadable: &Unreadable, reader: &mut ReadingHalf) {
        let Unreadable { message, error } = unreadable;
        if reader.not_a_message(message) {
            self.note_output(message.as_bytes(), Some(error));
            return;
        }
        count_by(&self.counters.unreadable, 1);
        // Not before this point: what a program prints does not count.
        self.count_toward_rate();
        self.fail_unreadable(message.as_bytes());
        self.log_oddity(format_args!(
            "ignored a message that is no JSON-RPC: {error}"
        ));
    }
}

/// What the stream carries that a message came on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamKind {
    Messages,
    Mixed,
}

/// What is left to do for the thread that read something.
#[must_use]
pub(super) enum Dispatched {
    /// Send the reply to a caller that was the only one to wait, by dropping it.
    SoleReply(SoleReply),
    /// Report what is not JSON-RPC.
    Unreadable(Unreadable),
    /// Nothing.
    Done,
}

impl Dispatched {
    /// Returns what is left to do about a line that looks like a message and is not one.
    fn no_message(message: Message) -> Self {
        let error = EnvelopeError::NotAMessage;
        Self::Unreadable(Unreadable { message, error })
    }
}

/// A caller's outcome, sent when this is dropped, also by a panic.
pub(super) struct SoleReply(Arc<OneShot>, Option<CallOutcome>);

impl Drop for SoleReply {
    fn drop(&mut self) {
        if let Some(outcome) = self.1.take() {
            self.0.send(outcome);
        }
    }
}

/// A message that is not JSON-RPC, and why.
pub(super) struct Unreadable {
    message: Message,
    error: EnvelopeError,
}
