//! Where one caller waits for the outcome of one call.
//!
//! A channel would do the same. This is one allocation, and it sleeps at once where a channel first
//! looks for a while, which costs several microseconds of the processor that the plugin may need;
//! whether looking pays is `spin`'s to say.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use super::pending::Outcome;
use crate::deadline::Deadline;

/// A place for one outcome: one thread puts it there, one takes it.
#[derive(Default)]
pub(crate) struct Slot {
    /// Something was put there. Set after that, and read without the lock.
    filled: AtomicBool,
    outcome: Mutex<Option<Outcome>>,
    changed: Condvar,
}

impl Slot {
    /// Puts the outcome there and wakes who waits. Never blocks.
    pub(crate) fn fill(&self, outcome: Outcome) {
        *self.outcome.lock() = Some(outcome);
        self.filled.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Takes the outcome if it is there.
    pub(crate) fn take(&self) -> Option<Outcome> {
        if !self.filled.load(Ordering::Acquire) {
            return None;
        }
        self.outcome.lock().take()
    }

    /// Waits for the outcome, at most until the deadline.
    pub(crate) fn wait(&self, deadline: Deadline) -> Option<Outcome> {
        let mut outcome = self.outcome.lock();
        while outcome.is_none() {
            let timed_out = self
                .changed
                .wait_until(&mut outcome, deadline.instant())
                .timed_out();
            if timed_out {
                break;
            }
        }
        outcome.take()
    }
}
