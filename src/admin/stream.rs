//! The stream of state changes, as server-sent events.
//!
//! It begins with a `snapshot`: all plugins and their states, and the number of the last change before it. After
//! that come `change` events, whose numbers follow it without gaps, so that a client that has the snapshot and
//! applies the changes misses nothing. A snapshot may show some of the changes behind it already.
//!
//! Another snapshot comes when plugins were installed, replaced by other versions or removed; and when the client
//! has read so slowly that changes were lost, with their number as `missed`. A snapshot replaces all that came
//! before it.
//!
//! No event has an id, because there is nothing to go on from: whoever connects again gets a snapshot, whatever
//! `Last-Event-ID` says.

use std::io;
use std::time::Instant;

use crossbeam_channel::RecvTimeoutError;
use serde::Serialize;

use super::call::{Call, LOOK};
use super::installation::rfc3339;
use super::logs::HEARTBEAT;
use super::problem::Problem;
use crate::error::Error;
use crate::host::QUEUED_STATE_CHANGES;
use crate::http::{Event, EventStream, Response};
use crate::id::InstallationId;
use crate::manager::{Installation, Manager};

use crate::session::{self, StateChange, Subscription};
use crate::state::{PluginMode, ReportedState};

#[derive(Serialize)]
struct Snapshot<'a> {
    /// The number of the last change that it shows for certain.
    sequence: u64,
    #[serde(skip_serializing_if = "is_zero")]
    missed: u64,
    plugins: Vec<PluginState<'a>>,
}

#[derive(Serialize)]
struct PluginState<'a> {
    id: InstallationId,
    manifest_id: &'a str,
    name: &'a str,
    version: &'a str,
    mode: PluginMode,
    state: ReportedState,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Serialize)]
struct Change<'a> {
    sequence: u64,
    id: InstallationId,
    manifest_id: &'a str,
    from: ReportedState,
    to: ReportedState,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a session::Problem>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) fn stream(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let manager = call.manager().clone();
    // A store that fails is an answer of its own as long as there is none.
    manager.list()?;
    Ok(Response::events(move |events| {
        // The end of the stream is all that a client can be told from here on.
        if let Err(error) = Client::new(&manager).send(events) {
            log::debug!("a stream of state changes has ended: {error}");
        }
    }))
}

/// A client of the stream, and what it has been told.
struct Client<'m> {
    manager: &'m Manager,
    subscription: Subscription<'m>,
    /// The number of the last change that it was told.
    last: u64,
    /// The manager's revision at the last snapshot, and when that was taken: many installations make one.
    revision: u64,
    taken: Instant,
}

impl<'m> Client<'m> {
    /// Subscribes, which is done before any state is looked at.
    fn new(manager: &'m Manager) -> Self {
        let subscribers = &manager.host().shared().context.services.subscribers;
        let subscription = subscribers.subscription(QUEUED_STATE_CHANGES);
        Self {
            manager,
            last: subscription.last,
            subscription,
            revision: 0,
            taken: Instant::now(),
        }
    }

    /// Sends a snapshot and changes until the client has gone or the server stops.
    fn send(mut self, events: &mut EventStream<'_>) -> io::Result<()> {
        self.send_snapshot(events, 0)?;
        let mut heartbeat = Instant::now() + HEARTBEAT;
        while events.is_open() {
            match self.subscription.changes.recv_timeout(LOOK) {
                Ok(change) => {
                    let missed = change.sequence - self.last - 1;
                    self.last = change.sequence;
                    if missed > 0 {
                        self.send_snapshot(events, missed)?;
                    } else {
                        send(events, "change", &shown(&change))?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.look_for_missed(events)?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let is_old = self.manager.revision() != self.revision;
            if is_old && self.taken.elapsed() >= LOOK {
                self.send_snapshot(events, 0)?;
            }
            if Instant::now() >= heartbeat {
                events.comment("still here")?;
                heartbeat = Instant::now() + HEARTBEAT;
            }
        }
        Ok(())
    }

    /// Sends a snapshot if the last changes were lost. No change that comes later tells that they were.
    fn look_for_missed(&mut self, events: &mut EventStream<'_>) -> io::Result<()> {
        let context = &self.manager.host().shared().context;
        // Read first: those up to it are in the queue, or lost.
        let last = context.services.subscribers.last();
        if last == self.last || !self.subscription.changes.is_empty() {
            return Ok(());
        }
        let missed = last - self.last;
        self.last = last;
        self.send_snapshot(events, missed)
    }

    fn send_snapshot(&mut self, events: &mut EventStream<'_>, missed: u64) -> io::Result<()> {
        // Read first: what comes during the listing is told once more.
        self.revision = self.manager.revision();
        self.taken = Instant::now();
        let installations = self.manager.list().map_err(io::Error::other)?;
        let snapshot = Snapshot {
            sequence: self.last,
            missed,
            plugins: installations.iter().map(PluginState::of).collect(),
        };
        send(events, "snapshot", &snapshot)
    }
}

impl<'a> PluginState<'a> {
    fn of(installation: &'a Installation) -> Self {
        let manifest = installation.manifest();
        Self {
            id: installation.id(),
            manifest_id: &manifest.id,
            name: &manifest.name,
            version: &manifest.version,
            mode: installation.record().mode(),
            state: installation.reported_state(),
            message: installation.message(),
        }
    }
}

fn shown(change: &StateChange) -> Change<'_> {
    Change {
        sequence: change.sequence,
        id: change.plugin,
        manifest_id: &change.manifest_id,
        from: change.from,
        to: change.to,
        at: rfc3339(change.at),
        problem: change.problem.as_ref(),
    }
}

fn send(events: &mut EventStream<'_>, name: &str, what: &impl Serialize) -> io::Result<()> {
    let data = serde_json::to_string(what)
        .map_err(|error| io::Error::other(Error::encode("event", error)))?;
    events.send(&Event {
        id: None,
        name: Some(name),
        data: &data,
    })
}
