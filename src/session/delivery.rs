//! Events for one plugin: a bounded queue, and the worker that delivers them one after the other.
//! Which plugin gets which event is decided in `bus`.

use std::sync::{Arc, Weak};

use serde_json::value::RawValue;

use super::call::PendingCall;
use super::guards::HeldBytes;
use super::shared::SharedSession;
use crate::counters::count_by;
use crate::error::Result;
use crate::id::RequestId;
use crate::protocol::method::{Event, EventReply, Method};
use crate::rpc::{Connection, Start};
use crate::state::ReportedState;

/// An event for the connection there was when it was published: it must not reach the plugin on its
/// next one, however late its turn comes. Counted as dropped unless it is delivered.
struct QueuedEvent {
    shared: Arc<SharedSession>,
    connection: Weak<Connection>,
    params: Arc<RawValue>,
    is_begun: bool,
}

impl SharedSession {
    /// Queues an event if the plugin is active and consumes it. Returns `None` when it is not for this
    /// plugin, else whether there was room. Never blocks.
    pub(crate) fn enqueue_event(
        self: &Arc<Self>,
        name: &str,
        params: &Arc<RawValue>,
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
            is_begun: false,
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
        self.is_begun = true;
        let SharedSession { counters, name, .. } = &*self.shared;
        match self.call(&connection) {
            Ok(EventReply { ok: true }) => count_by(&counters.events_delivered, 1),
            Ok(EventReply { ok: false }) => {
                count_by(&counters.events_failed, 1);
                log::warn!("plugin {name}: did not accept an event");
            }
            Err(error) => {
                count_by(&counters.events_failed, 1);
                log::warn!("plugin {name}: event not delivered: {error}");
            }
        }
    }

    fn call(&self, connection: &Arc<Connection>) -> Result<EventReply> {
        let (id, timeout) = (
            RequestId::generate(),
            self.shared.context.settings.timeouts.call,
        );
        let pending = self.shared.start_call(Event::NAME, || {
            connection.start(id, Event::NAME, &*self.params, timeout, Start::Later)
        })?;
        PendingCall::<Event>::new(pending).wait()
    }
}

impl Drop for QueuedEvent {
    fn drop(&mut self) {
        if !self.is_begun {
            count_by(&self.shared.counters.events_dropped, 1);
        }
    }
}
