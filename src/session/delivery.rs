//! Events for one plugin: a bounded queue, and the worker that delivers them one after the other.
//! Which plugin gets which event is decided in `bus`.

use std::sync::{Arc, Weak};

use crossbeam_channel::Sender;
use serde::Serialize;
use serde_json::value::RawValue;

use super::guards::HeldBytes;
use super::shared::SharedSession;
use crate::counters::count_by;
use crate::error::Result;
use crate::id::{InstallationId, RequestId};
use crate::protocol::method::{Ack, Event, Method};
use crate::rpc::{Connection, Start};
use crate::state::ReportedState;

/// What became of an event at one plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Delivery {
    /// The plugin answered that it accepts it.
    Delivered,
    /// The plugin refused it, or did not answer within [`Timeouts::call`](crate::Timeouts::call) or before
    /// its connection ended. It may have acted on it.
    Failed,
    /// The plugin never received it: its queue was full, its connection ended first, or no thread was
    /// left.
    Dropped,
    /// None of these has happened yet; it may still be delivered.
    Unanswered,
}

/// Where a publisher that waits receives what became of its event at each plugin.
pub(crate) type DeliverySender = Sender<(InstallationId, Delivery)>;

/// An event for the connection there was when it was published: it must not reach the plugin on its
/// next one, however late its turn comes. When it is dropped, what became of it is counted, and sent to the
/// publisher if that waits.
struct QueuedEvent {
    shared: Arc<SharedSession>,
    connection: Weak<Connection>,
    params: Arc<RawValue>,
    outcome: Delivery,
    publisher: Option<DeliverySender>,
}

impl SharedSession {
    /// Queues an event if the plugin is active and consumes it. Returns `None` when it is not for this
    /// plugin, else whether there was room; the publisher receives what became of it in both cases. Never
    /// blocks.
    pub(crate) fn enqueue_event(
        self: &Arc<Self>,
        name: &str,
        params: &Arc<RawValue>,
        publisher: Option<&DeliverySender>,
    ) -> Option<bool> {
        if !self.record.read().manifest.consumes(name) {
            return None;
        }
        let connection = {
            let state = self.state.lock();
            if state.reported != ReportedState::Active {
                return None;
            }
            Arc::downgrade(state.connection.as_ref()?)
        };
        let event = QueuedEvent {
            shared: self.clone(),
            connection,
            params: params.clone(),
            outcome: Delivery::Dropped,
            publisher: publisher.cloned(),
        };
        let limit = self.context.settings.limits.queued_event_bytes;
        let size = params.get().len();
        if size > limit {
            return Some(false);
        }
        let held = HeldBytes::take(self, |shared| &shared.event_bytes, size, limit);
        let Some(held) = held else {
            return Some(false);
        };
        let job = move || {
            // Only events that wait count.
            drop(held);
            event.deliver();
        };
        Some(self.deliveries.submit(Box::new(job)).is_ok())
    }

    /// Drops the events that wait: those published while a plugin is away are lost to it
    /// ([Sessions](crate::protocol#sessions)).
    pub(super) fn drop_events(&self) {
        self.deliveries.clear();
    }
}

impl QueuedEvent {
    fn deliver(mut self) {
        let connection = self.connection.upgrade();
        let Some(connection) = connection.filter(|connection| !connection.has_ended()) else {
            return;
        };
        self.outcome = Delivery::Failed;
        let name = &self.shared.name;
        match self.call(&connection) {
            Ok(Ack { ok: true }) => self.outcome = Delivery::Delivered,
            Ok(Ack { ok: false }) => log::warn!("plugin {name}: did not accept an event"),
            Err(error) => log::warn!("plugin {name}: event not delivered: {error}"),
        }
    }

    fn call(&self, connection: &Arc<Connection>) -> Result<Ack> {
        let (id, timeout) = (
            RequestId::generate(),
            self.shared.context.settings.timeouts.call,
        );
        let pending = self.shared.start_call(Event::NAME, || {
            connection.start(id, Event::NAME, &*self.params, timeout, Start::Later)
        })?;
        pending.reading::<Event>().wait()
    }
}

impl Drop for QueuedEvent {
    fn drop(&mut self) {
        let counters = &self.shared.counters;
        let counter = match self.outcome {
            Delivery::Delivered => &counters.events_delivered,
            Delivery::Failed => &counters.events_failed,
            Delivery::Dropped | Delivery::Unanswered => &counters.events_dropped,
        };
        count_by(counter, 1);
        if let Some(publisher) = &self.publisher {
            // It may have stopped waiting.
            let _ = publisher.send((self.shared.id, self.outcome));
        }
    }
}
