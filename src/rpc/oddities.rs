//! What arrives and is not a message: whether it may be the answer to a waiting call, and what is kept of it
//! for the error of a call whose answer never comes.
//!
//! On a stream that carries other output too, a line never fails a call at once because it has the call's
//! id: plugins print the requests that they get and the answers that they are about to send.

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
    /// The last line that looked like a message and was not one, and when it came.
    last: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Connection {
    /// Examines a line that was printed between the messages, if an answer is expected.
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

    /// Keeps an answer that no waiting call has the id of, if an answer is expected.
    pub(super) fn note_stray(&self, answer: &str) {
        if !self.pending.expects_nothing() {
            self.remember(answer, Some(&"no call that waits has its id"));
        }
    }

    /// Returns whether a request is one of our own that was printed: a call of this method waits under this
    /// id. The id alone does not tell: a plugin may use the id of the call it handles for one of its own.
    pub(super) fn is_echo(&self, id: &str, method: &str) -> bool {
        let id: Option<RequestId> = serde_json::from_str(id).ok();
        id.is_some_and(|id| self.pending.expects_of(id, method))
    }

    /// Fails the call whose id is in a message that cannot be read, on a stream of messages alone.
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

    /// Warns of the first thing that is not a message; later ones are logged at the debug level.
    pub(super) fn log_oddity(&self, what: fmt::Arguments<'_>) {
        let peer = &self.peer;
        if self.oddities.warned.swap(true, Ordering::Relaxed) {
            log::debug!("{peer}: {what}");
        } else {
            log::warn!("{peer}: {what}; more of them on this connection are only counted");
        }
    }

    /// Describes the last line that looked like a message and was not one, or answered nothing, if it came
    /// at `since` or later.
    pub(crate) fn oddity(&self, since: Option<Instant>) -> Option<Arc<str>> {
        let oddity = self.oddities.last.lock();
        let (at, line) = oddity.as_ref()?;
        let is_new = since.is_none_or(|since| *at >= since);
        is_new.then(|| format!("this came and is no answer to it: {line}").into())
    }

    /// Keeps the beginning of a line, with what is wrong with it if that is known.
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
