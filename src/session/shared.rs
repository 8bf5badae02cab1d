//! What the parts of one session share: its record, its state cell, its connection, its counts.
//! The handle (`Session`), the session thread and the reaper's hooks all use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::SystemTime;

use crossbeam_channel::Sender;
use parking_lot::{Mutex, RwLock};

use super::Session;
use super::context::HostContext;
use super::counters::LiveCounters;
use super::problem::Problem;
use super::refusals::Refusals;
use super::run::NewConnection;
use super::state::{SessionState, StateCell};
use super::subscribers::StateChange;
use crate::error::{Disconnect, Error, Result};
use crate::id::InstallationId;
use crate::plugin_log::{LogSlot, PluginLog};
use crate::process::orphans::Tally;
use crate::reaper::ChildId;
use crate::rpc::Connection;
use crate::rpc::Rate;
use crate::rpc::workers::Workers;
use crate::state::{PluginMode, ReportedState};
use crate::store::Record;

pub(crate) struct SharedSession {
    pub(super) id: InstallationId,
    pub(super) mode: PluginMode,
    /// Its place with the reaper.
    pub(super) child: ChildId,
    /// The manifest's id, for log lines and state changes.
    pub(crate) name: Arc<str>,
    pub(super) context: Arc<HostContext>,
    pub(super) record: RwLock<Arc<Record>>,
    /// A record that counts instead of the stored one.
    pub(super) candidate: RwLock<Option<Arc<Record>>>,
    pub(super) state: StateCell,
    /// What was found of its process's descendants.
    pub(super) tally: Arc<Tally>,
    pub(super) counters: Arc<LiveCounters>,
    pub(super) workers: Workers,
    /// Bytes held by calls from the plugin that are not answered yet.
    pub(super) inbound_bytes: AtomicUsize,
    /// Limits how many messages the plugin may send in a second.
    pub(super) rate: Arc<Rate>,
    /// Events that wait for delivery, or are being delivered; one worker, so that they stay in order.
    pub(super) deliveries: Workers,
    /// Bytes of events that wait.
    pub(super) event_bytes: AtomicUsize,
    /// Where the session thread gets the reading halves of connections; `None` once unloaded.
    pub(super) readers: Mutex<Option<Sender<NewConnection>>>,
    /// A [`LivenessProbe`](super::attach::LivenessProbe) is under way.
    pub(super) probing: AtomicBool,
    /// Opened at the first start of a supervised plugin. Held for an instant only.
    pub(super) log: Mutex<Option<Arc<PluginLog>>>,
    /// Where the log is found, whichever session of the installation opened it.
    pub(super) log_slot: Arc<LogSlot>,
    /// What is kept of connections that were refused.
    pub(super) refusals: Refusals,
}

impl SharedSession {
    pub(super) fn record(&self) -> Arc<Record> {
        self.record.read().clone()
    }

    /// Reads the record again and returns it; the one known before if it is no longer stored.
    pub(super) fn refreshed_record(&self) -> Result<Arc<Record>> {
        if let Some(record) = self.current_record()? {
            *self.record.write() = record.clone();
            return Ok(record);
        }
        Ok(self.record())
    }

    pub(super) fn session(self: &Arc<Self>) -> Session {
        Session::from_shared(self.clone())
    }

    /// Goes to another state and publishes that. Under the state lock, so that subscribers see changes in
    /// the order in which they happened; publishing never blocks.
    pub(super) fn enter(
        &self,
        state: &mut SessionState,
        to: ReportedState,
        problem: Option<Problem>,
    ) {
        // A change carries its own reason alone. What went wrong before stays readable on the session.
        let from = state.enter(to, problem.clone());
        self.state.notify();
        self.context.services.subscribers.publish(StateChange {
            sequence: 0,
            plugin: self.id,
            manifest_id: self.name.clone(),
            from,
            to,
            problem,
            at: SystemTime::now(),
            missed: 0,
        });
    }

    /// Returns the connection to call on.
    pub(super) fn active_connection(&self) -> Result<Arc<Connection>> {
        let state = self.state.lock();
        if self.context.is_shut_down() {
            return Err(Error::ShutDown);
        }
        if state.unloaded {
            return Err(Error::NotLoaded(self.id));
        }
        if state.reported != ReportedState::Active {
            return Err(Error::State {
                state: state.reported,
                message: state.message(),
            });
        }
        state
            .connection
            .clone()
            .ok_or_else(|| Error::Disconnected(Arc::new(Disconnect::NotYet)))
    }
}

impl Drop for SharedSession {
    fn drop(&mut self) {
        self.context.totals.remove_session(self.child);
    }
}

impl std::fmt::Debug for SharedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
