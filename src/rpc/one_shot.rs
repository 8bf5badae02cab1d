//! Where one caller waits for the outcome of one call.
//!
//! A channel would do the same. This is one allocation, and it sleeps at once where a channel first spins,
//! which costs several microseconds of the processor that the plugin may need. `spin` decides whether
//! spinning pays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::pending::CallOutcome;
use crate::deadline::Deadline;

/// How long the answer may come after a line that seems to be it and cannot be read: plugins print what
/// they are about to send.
const DOUBT: Duration = Duration::from_secs(1);

/// A slot for one outcome: one thread sends it, one takes it.
#[derive(Default)]
pub(crate) struct OneShot {
    /// There is something to take. Set after that, and read without the lock.
    filled: AtomicBool,
    state: Mutex<OneShotState>,
    changed: Condvar,
}

#[derive(Default)]
struct OneShotState {
    outcome: Option<CallOutcome>,
    /// A line that seems to be the answer, and until when the answer itself may come.
    doubt: Option<(Arc<str>, Instant)>,
}

impl OneShotState {
    /// Takes the outcome if there is one by now.
    fn take(&mut self) -> Option<CallOutcome> {
        let outcome = self.outcome.take();
        outcome.or_else(|| {
            let over = self.doubt.take_if(|(_, until)| *until <= Instant::now());
            over.map(|(line, _)| CallOutcome::Unreadable(line))
        })
    }
}

impl OneShot {
    /// Stores the outcome and wakes the waiting caller. Never blocks.
    pub(crate) fn send(&self, outcome: CallOutcome) {
        self.state.lock().outcome = Some(outcome);
        self.filled.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Stores a line that seems to be the answer and cannot be read. It becomes the outcome in a second if
    /// there is no other by then. The first such line counts. Never blocks.
    pub(crate) fn doubt(&self, line: Arc<str>) {
        let until = Instant::now() + DOUBT;
        self.state.lock().doubt.get_or_insert((line, until));
        self.filled.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Takes the outcome if it is there. Never blocks.
    pub(crate) fn take(&self) -> Option<CallOutcome> {
        if !self.filled.load(Ordering::Acquire) {
            return None;
        }
        self.state.lock().take()
    }

    /// Waits for the outcome, at most until the deadline.
    pub(crate) fn wait(&self, deadline: Deadline) -> Option<CallOutcome> {
        let mut state = self.state.lock();
        loop {
            let outcome = state.take();
            if outcome.is_some() || deadline.has_passed() {
                return outcome;
            }
            let until = deadline.instant();
            let until = state
                .doubt
                .as_ref()
                .map_or(until, |doubt| until.min(doubt.1));
            self.changed.wait_until(&mut state, until);
        }
    }
}
