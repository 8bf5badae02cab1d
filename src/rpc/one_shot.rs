//! Where one caller waits for the outcome of one call.
//!
//! A channel would do the same. This is one allocation, and it sleeps at once where a channel first
//! looks for a while, which costs several microseconds of the processor that the plugin may need;
//! whether looking pays is `spin`'s to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::pending::CallOutcome;
use crate::deadline::Deadline;

/// How long after a line that seems to be the answer and cannot be read the answer itself may come:
/// plugins print what they are about to send.
const DOUBT: Duration = Duration::from_secs(1);

/// A place for one outcome: one thread puts it there, one takes it.
#[derive(Default)]
pub(crate) struct OneShot {
    /// Something was put there. Set after that, and read without the lock.
    filled: AtomicBool,
    place: Mutex<Place>,
    changed: Condvar,
}

#[derive(Default)]
struct Place {
    outcome: Option<CallOutcome>,
    /// What seems to be the answer, and until when that itself may come.
    doubt: Option<(Arc<str>, Instant)>,
}

impl Place {
    /// The outcome, if there is one by now.
    fn take(&mut self) -> Option<CallOutcome> {
        let outcome = self.outcome.take();
        outcome.or_else(|| {
            let over = self.doubt.take_if(|(_, until)| *until <= Instant::now());
            over.map(|(line, _)| CallOutcome::Unreadable(line))
        })
    }
}

impl OneShot {
    /// Puts the outcome there and wakes who waits. Never blocks.
    pub(crate) fn send(&self, outcome: CallOutcome) {
        self.place.lock().outcome = Some(outcome);
        self.filled.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Says that this line seems to be the answer and cannot be read, which is the outcome in a second if
    /// there is no other by then. The first such line counts. Never blocks.
    pub(crate) fn doubt(&self, line: Arc<str>) {
        let until = Instant::now() + DOUBT;
        self.place.lock().doubt.get_or_insert((line, until));
        self.filled.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Takes the outcome if it is there.
    pub(crate) fn take(&self) -> Option<CallOutcome> {
        if !self.filled.load(Ordering::Acquire) {
            return None;
        }
        self.place.lock().take()
    }

    /// Waits for the outcome, at most until the deadline.
    pub(crate) fn wait(&self, deadline: Deadline) -> Option<CallOutcome> {
        let mut place = self.place.lock();
        loop {
            let outcome = place.take();
            if outcome.is_some() || deadline.has_passed() {
                return outcome;
            }
            let until = deadline.instant();
            let until = place
                .doubt
                .as_ref()
                .map_or(until, |doubt| until.min(doubt.1));
            self.changed.wait_until(&mut place, until);
        }
    }
}
