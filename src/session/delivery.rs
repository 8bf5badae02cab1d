//! Events for one plugin: a bounded queue, and the worker that delivers them one after the other.
//! Who gets which event is the bus's business.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};
use serde_json::value::RawValue;

use super::shared::Shared;
use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::id::RequestId;
use crate::protocol::method::{Event, EventReply, Method, decode_reply};
use crate::rpc::{Connection, Start};
use crate::state::ReportedState;

#[derive(Default)]
pub(crate) struct EventQueue {
    inner: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Queued>,
    bytes: usize,
    /// A worker is there to take events.
    delivering: bool,
    closed: bool,
}

/// An event for whoever was connected when it was published. It must not reach the plugin on its
/// next connection, however late the worker comes to it.
struct Queued {
    connection: Weak<Connection>,
    params: Arc<RawValue>,
}

impl EventQueue {
    /// Drops what waits; gives how many that were.
    pub(super) fn clear(&self) -> usize {
        let mut queue = self.inner.lock();
        queue.bytes = 0;
        std::mem::take(&mut queue.events).len()
    }

    /// Ends the worker, and drops what waits.
    pub(super) fn close(&self) {
        let mut queue = self.inner.lock();
        queue.closed = true;
        queue.events.clear();
        drop(queue);
        self.changed.notify_all();
    }
}

impl Shared {
    /// Queues an event if the plugin is active and consumes it. `None` when it is not for this
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
        let limits = &self.context.settings.limits;
        let size = params.get().len();
        {
            let mut queue = self.events.inner.lock();
            let full = queue.events.len() >= limits.queued_events
                || queue.bytes + size > limits.queued_event_bytes;
            if full || queue.closed {
                drop(queue);
                count_by(&self.counters.events_dropped, 1);
                return Some(false);
            }
            queue.events.push_back(Queued {
                connection,
                params: params.clone(),
            });
            queue.bytes += size;
            if std::mem::replace(&mut queue.delivering, true) {
                drop(queue);
                self.events.changed.notify_one();
                return Some(true);
            }
        }
        let shared = self.clone();
        let name = format!("event-{}", self.name);
        let started = self
            .context
            .services
            .threads
            .spawn(&name, limits.handler_stack, move || deliver(&shared));
        if let Err(error) = started {
            log::warn!("plugin {}: event not delivered: {error}", self.name);
            self.events.inner.lock().delivering = false;
            count_by(&self.counters.events_dropped, self.events.clear());
            return Some(false);
        }
        Some(true)
    }
}

/// The worker's body: one event at a time, in order, until there has been none for a while.
fn deliver(shared: &Arc<Shared>) {
    let timeouts = &shared.context.settings.timeouts;
    let unwinding = Unwinding(&shared.events);
    loop {
        let Queued { connection, params } = {
            let mut queue = shared.events.inner.lock();
            let until = Deadline::after(timeouts.worker_idle);
            let mut timed_out = false;
            while queue.events.is_empty() && !queue.closed && !timed_out {
                timed_out = shared
                    .events
                    .changed
                    .wait_until(&mut queue, until.instant())
                    .timed_out();
            }
            let Some(event) = queue.events.pop_front() else {
                // Under the lock that those who publish take, so that none is left lying.
                queue.delivering = false;
                std::mem::forget(unwinding);
                return;
            };
            queue.bytes -= event.params.get().len();
            event
        };
        let connection = connection
            .upgrade()
            .filter(|connection| !connection.has_ended());
        let Some(connection) = connection else {
            count_by(&shared.counters.events_dropped, 1);
            continue;
        };
        let id = RequestId::generate();
        let answer = shared
            .start_call_on(&connection, |connection| {
                connection.start(id, Event::NAME, &*params, timeouts.call, Start::Later)
            })
            .and_then(super::PendingReply::wait)
            .and_then(|reply| decode_reply::<Event>(reply.as_json()));
        match answer {
            Ok(EventReply { ok: true }) => count_by(&shared.counters.events_delivered, 1),
            Ok(EventReply { ok: false }) => {
                count_by(&shared.counters.events_failed, 1);
                log::warn!("plugin {}: did not accept an event", shared.name);
            }
            Err(error) => {
                count_by(&shared.counters.events_failed, 1);
                log::warn!("plugin {}: event not delivered: {error}", shared.name);
            }
        }
    }
}

/// Lets a next worker be made when this one panics, in the embedder's logger say.
struct Unwinding<'a>(&'a EventQueue);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.0.inner.lock().delivering = false;
    }
}
