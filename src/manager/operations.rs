//! `Operations`: which operation is under way on which installation, so that those on one installation
//! come one after the other and those on different ones do not wait for each other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::deadline::Deadline;
use crate::error::{OperationError, Result};
use crate::id::InstallationId;

/// All operations that are under way.
#[derive(Debug, Default)]
pub(super) struct Operations {
    running: Mutex<HashMap<InstallationId, Running>>,
    ended: Condvar,
    last: AtomicU64,
}

#[derive(Debug)]
struct Running {
    name: &'static str,
    number: u64,
    /// It only waits for the plugin, and may be told to give up.
    waits: bool,
    /// So many want it to give up.
    given_up: usize,
}

/// What an operation was told that is to give up.
#[derive(Debug)]
#[must_use]
pub(super) struct GivenUp<'a> {
    operations: &'a Operations,
    id: InstallationId,
    /// Of the operation, if there was one.
    number: Option<u64>,
    /// It waits right now, and ends its wait as soon as the plugin's state changes.
    pub(super) waits: bool,
}

/// The right to work on one installation. Dropping it lets the next operation begin.
#[derive(Debug)]
pub(super) struct Operation<'a> {
    operations: &'a Operations,
    id: InstallationId,
}

impl Operations {
    /// Begins an operation, when those before it have ended; waits at most `limit` for that.
    ///
    /// # Errors
    /// [`OperationError::Busy`].
    pub(super) fn begin(
        &self,
        id: InstallationId,
        name: &'static str,
        limit: Duration,
    ) -> Result<Operation<'_>> {
        let deadline = Deadline::after(limit);
        let mut running = self.running.lock();
        while let Some(other) = running.get(&id).map(|other| other.name) {
            let waited = self.ended.wait_until(&mut running, deadline.instant());
            if waited.timed_out() && running.contains_key(&id) {
                return Err(OperationError::Busy {
                    running: other,
                    limit,
                }
                .into());
            }
        }
        let new = Running {
            name,
            number: self.last.fetch_add(1, Ordering::Relaxed) + 1,
            waits: false,
            given_up: 0,
        };
        running.insert(id, new);
        Ok(Operation {
            operations: self,
            id,
        })
    }

    /// Tells an operation not to wait for its plugin, now or later.
    pub(super) fn give_up(&self, id: InstallationId) -> GivenUp<'_> {
        let mut running = self.running.lock();
        let mut told = GivenUp {
            operations: self,
            id,
            number: None,
            waits: false,
        };
        if let Some(other) = running.get_mut(&id) {
            other.given_up += 1;
            (told.number, told.waits) = (Some(other.number), other.waits);
        }
        told
    }
}

impl GivenUp<'_> {
    /// Whoever wanted it does not come after all: the operation may wait again.
    pub(super) fn take_back(self) {
        let mut running = self.operations.running.lock();
        if let Some(other) = running.get_mut(&self.id)
            && Some(other.number) == self.number
        {
            other.given_up -= 1;
        }
    }
}

impl Operation<'_> {
    /// From now on it only waits for the plugin, unless this gives that it is not to.
    pub(super) fn begin_wait(&self) -> bool {
        let mut running = self.operations.running.lock();
        let Some(own) = running.get_mut(&self.id) else {
            return false;
        };
        own.waits = own.given_up == 0;
        own.waits
    }

    /// The wait is over.
    pub(super) fn end_wait(&self) {
        if let Some(own) = self.operations.running.lock().get_mut(&self.id) {
            own.waits = false;
        }
    }

    /// Whether it was told to give up.
    pub(super) fn is_given_up(&self) -> bool {
        let running = self.operations.running.lock();
        running.get(&self.id).is_some_and(|own| own.given_up > 0)
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.operations.running.lock().remove(&self.id);
        self.operations.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::error::Error;
    use crate::testing::assert_matches;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn operations_on_one_installation_come_one_after_the_other() {
        let operations = Operations::default();
        let (one, other) = (InstallationId::generate(), InstallationId::generate());
        let first = operations.begin(one, "first", LONG).unwrap();
        // On another one nobody waits.
        drop(
            operations
                .begin(other, "elsewhere", Duration::ZERO)
                .unwrap(),
        );
        let busy = operations.begin(one, "second", Duration::ZERO).unwrap_err();
        assert!(busy.is_retryable());
        let Error::Operation(busy) = busy else {
            panic!("{busy}");
        };
        assert_matches!(
            *busy,
            OperationError::Busy {
                running: "first",
                ..
            }
        );
        thread::scope(|scope| {
            let second = scope.spawn(|| operations.begin(one, "second", LONG).map(drop));
            drop(first);
            second.join().unwrap().unwrap();
        });
        assert!(operations.running.lock().is_empty());
    }

    #[test]
    fn one_that_is_told_to_give_up_does_not_wait_any_more() {
        let operations = Operations::default();
        let id = InstallationId::generate();
        let give_up = || {
            let told = operations.give_up(id);
            told.waits
        };
        assert!(!give_up());
        let operation = operations.begin(id, "update", LONG).unwrap();
        assert!(!operation.is_given_up());
        assert!(operation.begin_wait());
        assert!(give_up());
        assert!(operation.is_given_up());
        operation.end_wait();
        assert!(!give_up());
        drop(operation);
        // The next one is another one.
        let operation = operations.begin(id, "update", LONG).unwrap();
        assert!(!operation.is_given_up());
        // Told before it comes to its wait.
        assert!(!give_up());
        assert!(!operation.begin_wait());
        assert!(!give_up());
    }

    #[test]
    fn one_is_not_to_give_up_for_who_does_not_come() {
        let operations = Operations::default();
        let id = InstallationId::generate();
        // Nobody was told, so nothing is taken back of the next one.
        let early = operations.give_up(id);
        let operation = operations.begin(id, "update", LONG).unwrap();
        let (one, other) = (operations.give_up(id), operations.give_up(id));
        early.take_back();
        one.take_back();
        assert!(operation.is_given_up());
        other.take_back();
        assert!(!operation.is_given_up());
        assert!(operation.begin_wait());
        let late = operations.give_up(id);
        drop(operation);
        let operation = operations.begin(id, "update", LONG).unwrap();
        let again = operations.give_up(id);
        late.take_back();
        assert!(operation.is_given_up());
        again.take_back();
        assert!(!operation.is_given_up());
    }
}
