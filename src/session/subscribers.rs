//! Publishing state changes to subscribers. One lock, taken under a session's state lock and held for
//! non-blocking sends alone, so that the order of delivery is that of the changes.

use std::sync::Arc;
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use serde::Serialize;

use super::problem::Problem;

use crate::id::InstallationId;
use crate::shown;
use crate::state::ReportedState;

/// A plugin went from one state to another. Serialised with the time in seconds since 1970.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct StateChange {
    /// Numbers the changes of the whole host, from 1, without gaps.
    pub sequence: u64,
    /// The installation.
    pub plugin: InstallationId,
    /// The manifest's id, [escaped](crate::text::escape) and cut to 256 characters: a record made by
    /// hand may have any.
    #[serde(serialize_with = "shown::text")]
    pub manifest_id: Arc<str>,
    /// The state it left.
    pub from: ReportedState,
    /// The state it went to.
    pub to: ReportedState,
    /// What went wrong, if this change is about that; not an earlier problem.
    pub problem: Option<Problem>,
    /// When it changed.
    #[serde(serialize_with = "shown::time")]
    pub at: SystemTime,
    /// Changes that this subscriber missed right before this one, because its queue was full.
    pub missed: u64,
}

impl StateChange {
    /// Returns the message of the problem, if this change is about one.
    pub fn message(&self) -> Option<&str> {
        self.problem.as_ref().map(Problem::message)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    inner: Mutex<SubscriberList>,
}

#[derive(Debug, Default)]
struct SubscriberList {
    last: u64,
    subscribers: Vec<Subscriber>,
    /// How many subscribed so far.
    number: u64,
}

impl SubscriberList {
    fn add(&mut self, sender: Sender<StateChange>) -> u64 {
        self.number += 1;
        let number = self.number;
        self.subscribers.push(Subscriber {
            sender,
            number,
            missed: 0,
        });
        number
    }
}

#[derive(Debug)]
struct Subscriber {
    sender: Sender<StateChange>,
    /// How many subscribed before it.
    number: u64,
    missed: u64,
}

/// A receiver that is forgotten when this is dropped. One without this is found to be gone by the next change,
/// and its queue takes memory until then, however long that is.
#[derive(Debug)]
pub(crate) struct Subscription<'s> {
    pub(crate) changes: Receiver<StateChange>,
    /// The number of the last change before the first that comes.
    pub(crate) last: u64,
    subscribers: &'s Subscribers,
    number: u64,
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        let mut inner = self.subscribers.inner.lock();
        let place = (inner.subscribers.iter()).position(|other| other.number == self.number);
        let forgotten = place.map(|place| inner.subscribers.swap_remove(place));
        drop(inner);
        // With what waits in its queue, which is freed without the lock.
        drop(forgotten);
    }
}

impl Subscribers {
    /// Returns a receiver of all changes from now on. While `capacity` of them wait, the newest are dropped
    /// and counted.
    pub(crate) fn subscribe(&self, capacity: usize) -> Receiver<StateChange> {
        let (sender, receiver) = bounded(capacity);
        self.inner.lock().add(sender);
        receiver
    }

    /// Subscribes as [`subscribe`](Self::subscribe) does, until the subscription is dropped.
    pub(crate) fn subscription(&self, capacity: usize) -> Subscription<'_> {
        let (sender, changes) = bounded(capacity);
        let mut inner = self.inner.lock();
        let number = inner.add(sender);
        Subscription {
            changes,
            last: inner.last,
            subscribers: self,
            number,
        }
    }

    /// Returns the number of the last change. Every subscriber has been sent those up to it, or has missed them.
    pub(crate) fn last(&self) -> u64 {
        self.inner.lock().last
    }

    /// Numbers the change and sends it to every subscriber. Never blocks.
    pub(crate) fn publish(&self, mut change: StateChange) {
        let mut inner = self.inner.lock();
        inner.last += 1;
        change.sequence = inner.last;
        inner.subscribers.retain_mut(|subscriber| {
            let change = StateChange {
                missed: subscriber.missed,
                ..change.clone()
            };
            match subscriber.sender.try_send(change) {
                Ok(()) => {
                    subscriber.missed = 0;
                    true
                }
                Err(TrySendError::Full(_)) => {
                    subscriber.missed += 1;
                    true
                }
                Err(TrySendError::Disconnected(_)) => false,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> StateChange {
        StateChange {
            sequence: 0,
            plugin: InstallationId::generate(),
            manifest_id: "p".into(),
            from: ReportedState::Inactive,
            to: ReportedState::Starting,
            problem: None,
            at: SystemTime::now(),
            missed: 0,
        }
    }

    #[test]
    fn a_full_subscriber_misses_the_newest_and_hears_how_many() {
        let subscribers = Subscribers::default();
        let (slow, quick) = (subscribers.subscribe(1), subscribers.subscribe(10));
        for _ in 0..3 {
            subscribers.publish(change());
        }
        assert_eq!(slow.try_recv().unwrap().sequence, 1);
        subscribers.publish(change());
        let next = slow.try_recv().unwrap();
        assert_eq!((next.sequence, next.missed), (4, 2));
        let numbers: Vec<_> = quick
            .try_iter()
            .map(|change| (change.sequence, change.missed))
            .collect();
        assert_eq!(numbers, [(1, 0), (2, 0), (3, 0), (4, 0)]);
        assert_eq!(subscribers.subscription(1).last, 4);
        assert_eq!(subscribers.last(), 4);
    }

    #[test]
    fn a_subscriber_that_left_is_forgotten() {
        let subscribers = Subscribers::default();
        drop(subscribers.subscribe(1));
        subscribers.publish(change());
        assert!(subscribers.inner.lock().subscribers.is_empty());
    }

    #[test]
    fn a_subscription_that_ends_is_forgotten_though_nothing_changes() {
        let subscribers = Subscribers::default();
        let stays = subscribers.subscription(1);
        drop(subscribers.subscription(1));
        assert_eq!(subscribers.inner.lock().subscribers.len(), 1);
        subscribers.publish(change());
        assert_eq!(stays.changes.try_recv().unwrap().sequence, 1);
        drop(stays);
        assert!(subscribers.inner.lock().subscribers.is_empty());
    }

    #[test]
    fn a_change_serialises_with_its_problem_and_the_time_in_seconds() {
        let change = StateChange {
            at: SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1500),
            problem: Some(Problem::lost("connection lost")),
            ..change()
        };
        let expected = serde_json::json!({
            "sequence": 0, "plugin": change.plugin, "manifest_id": "p", "from": "inactive",
            "to": "starting",
            "problem": {"error": "connection lost"}, "at": 1.5, "missed": 0,
        });
        assert_eq!(serde_json::to_value(&change).unwrap(), expected);
    }
}
