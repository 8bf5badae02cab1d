//! What arrives and is no message: whether a call waits for it, and what is remembered of it for the error
//! of a call that waits in vain.
//!
//! Where other output is carried too, a line never fails a call at once by holding its id: plugins print
//! the requests that they get and the answers that they are about to send.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::Connection;
use super::pending::CallOutcome;
use crate::id::RequestId;
use crate::protocol::jsonrpc::{EnvelopeError, find_answer, find_id, resembles_message};
use crate::text;

/// Bytes of an odd line that are kept.
const KEPT: usize = 256;

/// What a connection remembers of such things.
#[derive(Default)]
pub(super) struct Oddities {
    /// The first of them was logged as a warning; a flood of them must not flood the log.
    warned: AtomicBool,
    /// The last line that looked like a message and was none, and when it came.
    last: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Connection {
    /// Looks at a line that was printed stream the messages, if anybody waits for an answer.
    pub(super) fn note_output(&self, line: &[u8], problem: Option<&EnvelopeError>) {
        if self.pending.expects_nothing() {
            return;
        }
        let line = String::from_utf8_lossy(line);
        let answered = find_answer(&line, |id| self.pending.expects(id));
        if answered.is_none() && !resembles_message(&line) {
            return;
        }
        let kept = self.remember(&line, problem.map(|problem| problem as _));
        if let Some(id) = answered {
            self.pending.doubt(id, &kept);
        }
    }

    /// Looks at an answer that nobody waits for, or not under this id.
    pub(super) fn note_stray(&self, answer: &str) {
        if !self.pending.expects_nothing() {
            self.remember(answer, Some(&"no call that waits has its id"));
        }
    }

    /// Whether a request is one of our own, printed: a call of this method waits under this id. Both ends
    /// number their calls as they like, so a plugin may use the id of what it handles for a call of its own.
    pub(super) fn is_echo(&self, id: &str, method: &str) -> bool {
        let id: Option<RequestId> = serde_json::from_str(id).ok();
        id.is_some_and(|id| self.pending.expects_of(id, method))
    }

    /// Fails the call whose id is in a message that cannot be read, where nothing else is carried.
    pub(super) fn fail_unreadable(&self, message: &[u8]) {
        if self.pending.expects_nothing() {
            return;
        }
        let message = String::from_utf8_lossy(message);
        let kept = self.remember(&message, None);
        let waiter =
            find_id(&message, |id| self.pending.expects(id)).and_then(|id| self.pending.take(id));
        if let Some(waiter) = waiter {
            waiter.send(CallOutcome::Unreadable(kept));
        }
    }

    /// Warns of the first thing that is no message; a flood of them must not flood the log.
    pub(super) fn log_oddity(&self, what: fmt::Arguments<'_>) {
        let peer = &self.peer;
        if self.oddities.warned.swap(true, Ordering::Relaxed) {
            log::debug!("{peer}: {what}");
        } else {
            log::warn!("{peer}: {what}; more of them on this connection are only counted");
        }
    }

    /// Says what came last, and since then, that looked like a message and was none, or answered nothing.
    pub(crate) fn oddity(&self, since: Option<Instant>) -> Option<Arc<str>> {
        let oddity = self.oddities.last.lock();
        let (at, line) = oddity.as_ref()?;
        let is_new = since.is_none_or(|since| *at >= since);
        is_new.then(|| format!("this came and is no answer to it: {line}").into())
    }

    /// Keeps the beginning of a line, with what is wrong with it as far as that is known.
    fn remember(&self, line: &str, problem: Option<&dyn fmt::Display>) -> Arc<str> {
        let line = text::cut(line.trim(), KEPT);
        let line: Arc<str> = match problem {
            Some(problem) => format!("{line} ({problem})").into(),
            None => line.into(),
        };
        *self.oddities.last.lock() = Some((Instant::now(), line.clone()));
        line
    }
}
