//! The table of calls that wait for an answer on one connection. No I/O.
//!
//! Registering checks 'ended' under the same lock that ending uses to empty the table, so no call
//! can slip in and wait forever.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::one_shot::OneShot;
use crate::deadline::Deadline;
use crate::duplex::Message;
use crate::error::{Disconnect, Error, Result, RpcError};
use crate::id::RequestId;
use crate::protocol::jsonrpc::ResultSpan;
use crate::protocol::method::{Method as _, Ping};

/// The outcome of a call.
pub(crate) enum CallOutcome {
    /// The plugin answered; the span is that of the `result` in the message.
    Reply(Message, ResultSpan),
    /// The plugin answered with an error.
    Refused(RpcError),
    /// What seems to be the plugin's answer cannot be read; this is its beginning.
    Unreadable(Arc<str>),
    /// The connection ended first.
    Ended(Arc<Disconnect>),
}

/// Called with a call's outcome, on the thread that learns of it. Must not block.
pub(crate) type OnOutcome = Box<dyn FnOnce(CallOutcome) + Send>;

/// Where a call's outcome goes.
pub(crate) enum ReplyTo {
    /// To a caller, which may have given up.
    Caller(Arc<OneShot>),
    Callback(OnOutcome),
}

impl ReplyTo {
    /// Delivers the outcome. Never blocks.
    pub(crate) fn send(self, outcome: CallOutcome) {
        match self {
            Self::Caller(one_shot) => one_shot.send(outcome),
            Self::Callback(on_outcome) => on_outcome(outcome),
        }
    }
}

pub(crate) struct PendingTable {
    limit: usize,
    /// How many calls wait; changed under the lock, read without.
    count: AtomicUsize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    ended: Option<Arc<Disconnect>>,
    waiting: HashMap<RequestId, Call>,
    /// The id of the newest health ping. Not a call: no caller waits for it, and it does not count toward
    /// the limit.
    own_ping: Option<RequestId>,
}

struct Call {
    waiter: ReplyTo,
    method: Arc<str>,
    /// Until when its caller waits; `None` for a call that only the end of the connection ends.
    deadline: Option<Deadline>,
}

impl PendingTable {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            count: AtomicUsize::new(0),
            entries: Mutex::default(),
        }
    }

    /// Enters a call.
    ///
    /// # Errors
    /// - [`Error::Disconnected`] once the connection has ended.
    /// - [`Error::TooManyPending`] over the cap.
    /// - [`Error::IdInUse`] when a call with this id waits already.
    pub(crate) fn register(
        &self,
        id: RequestId,
        method: Arc<str>,
        waiter: ReplyTo,
        deadline: Option<Deadline>,
    ) -> Result<()> {
        let mut entries = self.entries.lock();
        if let Some(cause) = &entries.ended {
            return Err(Error::Disconnected(cause.clone()));
        }
        if entries.waiting.len() >= self.limit {
            return Err(Error::TooManyPending { limit: self.limit });
        }
        match entries.waiting.entry(id) {
            Entry::Vacant(place) => {
                place.insert(Call {
                    waiter,
                    method,
                    deadline,
                });
                self.count.store(entries.waiting.len(), Ordering::SeqCst);
                Ok(())
            }
            // The answer could be meant for either call.
            Entry::Occupied(_) => Err(Error::IdInUse(id)),
        }
    }

    /// Removes a call that is answered or given up; `None` for an unknown, late or duplicate id.
    pub(crate) fn take(&self, id: RequestId) -> Option<ReplyTo> {
        let mut entries = self.entries.lock();
        let call = entries.waiting.remove(&id)?;
        self.count.store(entries.waiting.len(), Ordering::SeqCst);
        Some(call.waiter)
    }

    /// Returns whether this is the id of a waiting call or of the newest health ping.
    pub(crate) fn expects(&self, id: RequestId) -> bool {
        let entries = self.entries.lock();
        entries.waiting.contains_key(&id) || entries.own_ping == Some(id)
    }

    /// Returns whether a call of this method, or the newest health ping, has this id.
    pub(crate) fn expects_of(&self, id: RequestId, method: &str) -> bool {
        let entries = self.entries.lock();
        let call = entries.waiting.get(&id);
        call.is_some_and(|call| *call.method == *method)
            || entries.own_ping == Some(id) && method == Ping::NAME
    }

    /// Returns whether no answer is expected at all.
    pub(crate) fn expects_nothing(&self) -> bool {
        self.len() == 0 && !self.expects_own_ping()
    }

    /// Hands the caller a line that seems to be its answer and cannot be read. The caller waits a second
    /// longer for the answer itself.
    pub(crate) fn doubt(&self, id: RequestId, line: &Arc<str>) {
        if let Some(Call {
            waiter: ReplyTo::Caller(one_shot),
            ..
        }) = self.entries.lock().waiting.get(&id)
        {
            one_shot.doubt(line.clone());
        }
    }

    /// Expects the answer to a health ping, in place of that to the one before.
    pub(crate) fn expect_own_ping(&self, id: RequestId) {
        self.entries.lock().own_ping = Some(id);
    }

    /// Returns whether the answer to the newest health ping is outstanding.
    pub(crate) fn expects_own_ping(&self) -> bool {
        self.entries.lock().own_ping.is_some()
    }

    /// Returns whether this is the answer to the newest health ping, and stops expecting it.
    pub(crate) fn take_own_ping(&self, id: RequestId) -> bool {
        self.entries
            .lock()
            .own_ping
            .take_if(|own| *own == id)
            .is_some()
    }

    /// Returns whether a call waits whose deadline is after `now`.
    pub(crate) fn has_calls_within_time(&self, now: Instant) -> bool {
        let entries = self.entries.lock();
        let within = |call: &Call| call.deadline.is_some_and(|until| now < until.instant());
        entries.waiting.values().any(within)
    }

    /// Fails every waiting call and every later one with this cause. The first cause counts.
    pub(crate) fn end(&self, cause: &Arc<Disconnect>) {
        let waiting = {
            let mut entries = self.entries.lock();
            entries.ended.get_or_insert_with(|| cause.clone());
            self.count.store(0, Ordering::SeqCst);
            std::mem::take(&mut entries.waiting)
        };
        for call in waiting.into_values() {
            call.waiter.send(CallOutcome::Ended(cause.clone()));
        }
    }

    /// Returns how many calls wait; may be off by those that come and go meanwhile.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{Receiver, bounded};

    use super::*;

    fn register(table: &PendingTable) -> (RequestId, Result<Receiver<CallOutcome>>) {
        let (sender, receiver) = bounded(1);
        let id = RequestId::generate();
        let waiter = ReplyTo::Callback(Box::new(move |outcome| drop(sender.send(outcome))));
        let registered = table.register(id, "x".into(), waiter, None);
        (id, registered.map(|()| receiver))
    }

    fn nobody() -> ReplyTo {
        ReplyTo::Callback(Box::new(|_| ()))
    }

    #[test]
    fn the_end_fails_all_that_wait_and_all_that_come_later() {
        let table = PendingTable::new(10);
        let (_, first) = register(&table);
        let (_, second) = register(&table);
        table.end(&Arc::new(Disconnect::Lost));
        for receiver in [first.unwrap(), second.unwrap()] {
            let outcome = receiver.try_recv().unwrap();
            assert!(
                matches!(outcome, CallOutcome::Ended(cause) if matches!(*cause, Disconnect::Lost))
            );
        }
        table.end(&Arc::new(Disconnect::NotYet));
        let refused = register(&table).1.unwrap_err();
        assert_eq!(refused.to_string(), "not connected: connection lost");
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn an_answer_counts_once() {
        let table = PendingTable::new(10);
        let (id, receiver) = register(&table);
        table
            .take(id)
            .unwrap()
            .send(CallOutcome::Refused(RpcError::new(1, "no")));
        assert!(matches!(
            receiver.unwrap().try_recv(),
            Ok(CallOutcome::Refused(_))
        ));
        assert!(table.take(id).is_none());
        assert!(table.take(RequestId::generate()).is_none());
    }

    #[test]
    fn an_id_is_used_by_one_call_at_a_time() {
        let table = PendingTable::new(10);
        let (id, receiver) = register(&table);
        let refused = table.register(id, "x".into(), nobody(), None).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("a call with the id {id} is waiting for its answer already")
        );
        table
            .take(id)
            .unwrap()
            .send(CallOutcome::Refused(RpcError::new(1, "no")));
        assert!(
            receiver.unwrap().try_recv().is_ok(),
            "the first call lost its answer"
        );
        assert!(table.register(id, "x".into(), nobody(), None).is_ok());
    }

    #[test]
    fn the_cap_has_its_own_error_and_is_freed_by_answers() {
        let table = PendingTable::new(1);
        let (id, _receiver) = register(&table);
        let refused = register(&table).1.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "1 calls to this plugin are already waiting for an answer"
        );
        assert!(refused.is_retryable());
        drop(table.take(id));
        assert!(register(&table).1.is_ok());
    }

    #[test]
    fn a_call_counts_as_outstanding_until_it_is_answered_or_its_time_is_over() {
        let table = PendingTable::new(10);
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        assert!(!table.has_calls_within_time(now));
        // Without a limit of its own it says nothing.
        register(&table).1.unwrap();
        assert!(!table.has_calls_within_time(now));
        let id = RequestId::generate();
        let deadline = Some(Deadline::at(later));
        table.register(id, "x".into(), nobody(), deadline).unwrap();
        assert!(table.has_calls_within_time(now));
        assert!(!table.has_calls_within_time(later));
        drop(table.take(id));
        assert!(!table.has_calls_within_time(now));
    }

    #[test]
    fn a_ping_of_the_hosts_own_takes_no_place_and_only_the_newest_counts() {
        let table = PendingTable::new(1);
        let (first, second) = (RequestId::generate(), RequestId::generate());
        table.expect_own_ping(first);
        table.expect_own_ping(second);
        assert!(register(&table).1.is_ok());
        assert!(!table.take_own_ping(first));
        assert!(table.expects_own_ping());
        assert!(table.take_own_ping(second));
        assert!(!table.expects_own_ping());
        assert!(!table.take_own_ping(second), "it is answered once");
    }
}
