//! `Operations`: which operation is in progress on which installation. Operations on one installation run one
//! after the other; those on different installations do not wait for each other.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::deadline::Deadline;
use crate::error::{OperationError, Result};
use crate::id::InstallationId;

/// All operations that are in progress: on an installation each, or on whatever else `K` names.
#[derive(Debug)]
pub(super) struct Operations<K = InstallationId> {
    running: Mutex<HashMap<K, Arc<Running>>>,
    ended: Condvar,
}

#[derive(Debug)]
struct Running {
    name: &'static str,
    wait: Mutex<PluginWait>,
}

/// An operation's wait for its plugin.
#[derive(Debug, Default)]
struct PluginWait {
    in_progress: bool,
    /// How many callers want it to end.
    cancels: usize,
}

/// Keeps an operation from waiting for its plugin, until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct WaitCancel {
    /// The operation, if there was one.
    running: Option<Arc<Running>>,
    /// Whether it was waiting: it ends its wait as soon as the plugin's state changes.
    pub(super) was_waiting: bool,
}

/// The right to work on one installation. Dropping it lets the next operation begin.
#[derive(Debug)]
pub(super) struct Operation<'a, K: Eq + Hash = InstallationId> {
    operations: &'a Operations<K>,
    id: K,
    running: Arc<Running>,
}

impl<K> Default for Operations<K> {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            ended: Condvar::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Operations<K> {
    /// Begins an operation when those before it have ended; waits at most `limit` for that.
    ///
    /// # Errors
    /// [`OperationError::Busy`].
    pub(super) fn begin(
        &self,
        id: K,
        name: &'static str,
        limit: Duration,
    ) -> Result<Operation<'_, K>> {
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
        let own = Arc::new(Running {
            name,
            wait: Mutex::default(),
        });
        running.insert(id.clone(), own.clone());
        Ok(Operation {
            operations: self,
            id,
            running: own,
        })
    }
}

impl Operations {
    /// Keeps the operation in progress from waiting for its plugin, now or later.
    pub(super) fn cancel_wait(&self, id: InstallationId) -> WaitCancel {
        let running = self.running.lock().get(&id).cloned();
        let was_waiting = running.as_ref().is_some_and(|running| {
            let mut wait = running.wait.lock();
            wait.cancels += 1;
            wait.in_progress
        });
        WaitCancel {
            running,
            was_waiting,
        }
    }
}

impl Drop for WaitCancel {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.wait.lock().cancels -= 1;
        }
    }
}

impl Operation<'_> {
    /// Marks the start of the wait for the plugin; returns false if the operation is not to wait.
    pub(super) fn begin_wait(&self) -> bool {
        let mut wait = self.running.wait.lock();
        wait.in_progress = wait.cancels == 0;
        wait.in_progress
    }

    /// Marks the end of the wait.
    pub(super) fn end_wait(&self) {
        self.running.wait.lock().in_progress = false;
    }

    /// Whether the operation is not to wait for its plugin.
    pub(super) fn is_wait_cancelled(&self) -> bool {
        self.running.wait.lock().cancels > 0
    }
}

impl<K: Eq + Hash> Drop for Operation<'_, K> {
    fn drop(&mut self) {
        self.operations.running.lock().remove(&self.id);
        self.operations.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::error::ErrorKind;
    use crate::testing::LONG;

    #[test]
    fn operations_on_one_installation_come_one_after_the_other() {
        let operations = Operations::default();
        let (one, other) = (InstallationId::generate(), InstallationId::generate());
        let first = operations.begin(one, "first", LONG).unwrap();
        // An operation on another installation does not wait.
        drop(
            operations
                .begin(other, "elsewhere", Duration::ZERO)
                .unwrap(),
        );
        let busy = operations.begin(one, "second", Duration::ZERO).unwrap_err();
        assert!(busy.is_retryable());
        assert_eq!(busy.kind(), ErrorKind::Busy);
        assert!(
            busy.to_string().starts_with("first is in progress"),
            "{busy}"
        );
        thread::scope(|scope| {
            let second = scope.spawn(|| operations.begin(one, "second", LONG).map(drop));
            drop(first);
            second.join().unwrap().unwrap();
        });
        assert!(operations.running.lock().is_empty());
    }

    #[test]
    fn an_operation_does_not_wait_while_its_wait_is_cancelled() {
        let operations = Operations::default();
        let id = InstallationId::generate();
        assert!(!operations.cancel_wait(id).was_waiting);
        let operation = operations.begin(id, "update", LONG).unwrap();
        assert!(!operation.is_wait_cancelled());
        assert!(operation.begin_wait());
        let cancel = operations.cancel_wait(id);
        assert!(cancel.was_waiting);
        assert!(operation.is_wait_cancelled());
        operation.end_wait();
        assert!(!operations.cancel_wait(id).was_waiting);
        // Cancelled before it comes to its wait.
        assert!(!operation.begin_wait());
        drop(operation);
        // The next operation is another one.
        let operation = operations.begin(id, "update", LONG).unwrap();
        assert!(!operation.is_wait_cancelled());
        drop(cancel);
        assert!(operation.begin_wait());
    }

    #[test]
    fn a_cancel_ends_when_it_is_dropped_and_concerns_one_operation() {
        let operations = Operations::default();
        let id = InstallationId::generate();
        // There was no operation yet, so nothing is taken back of the next one.
        let early = operations.cancel_wait(id);
        let operation = operations.begin(id, "update", LONG).unwrap();
        let (one, other) = (operations.cancel_wait(id), operations.cancel_wait(id));
        drop((early, one));
        assert!(operation.is_wait_cancelled());
        drop(other);
        assert!(!operation.is_wait_cancelled());
        assert!(operation.begin_wait());
        let late = operations.cancel_wait(id);
        drop(operation);
        let operation = operations.begin(id, "update", LONG).unwrap();
        let again = operations.cancel_wait(id);
        drop(late);
        assert!(operation.is_wait_cancelled());
        drop(again);
        assert!(!operation.is_wait_cancelled());
    }
}
