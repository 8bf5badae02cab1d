//! What the manager needs of a session: a candidate record, ending a connection so that its plugin
//! reconnects, and a call when a plugin connects whose configuration must be sent again.

use std::sync::Arc;
use std::time::SystemTime;

use super::Session;
use super::problem::Problem;
use super::shared::SharedSession;
use super::state::RunProcess;
use super::supervision::SessionHooks;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::state::{PluginMode, ReportedState};
use crate::store::Record;

impl SharedSession {
    /// Returns the record that counts now: the candidate, else the stored one, which may have changed since
    /// the plugin was loaded; `None` when it is no longer stored.
    pub(super) fn current_record(&self) -> Result<Option<Arc<Record>>> {
        if let Some(candidate) = self.candidate.read().clone() {
            return Ok(Some(candidate));
        }
        Ok(self.context.services.store.get(self.id)?.map(Arc::new))
    }

    /// Re-sends the stored configuration if the plugin's copy may differ. Never blocks.
    pub(super) fn resync_configuration(self: &Arc<Self>) {
        if self.record().pending_configuration.is_none() {
            return;
        }
        let Some(on_reconnect) = self.context.services.on_reconnect.read().clone() else {
            return;
        };
        let id = self.id;
        if self
            .workers
            .submit(Box::new(move || on_reconnect(id)))
            .is_err()
        {
            log::warn!(
                "plugin {}: busy, its configuration is settled at its next connect",
                self.name
            );
        }
    }
}

/// A session's state and what goes with it, all of one moment.
pub(crate) struct Snapshot {
    pub(crate) state: ReportedState,
    /// When the plugin last became active.
    pub(crate) started_at: Option<SystemTime>,
    pub(crate) problem: Option<Problem>,
}

impl Session {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.shared().state.lock();
        Snapshot {
            state: state.reported,
            started_at: state.started_at,
            problem: state.problem.clone(),
        }
    }

    /// Returns the process of the plugin, if it has one on this machine.
    pub(crate) fn process(&self) -> Option<RunProcess> {
        self.shared().state.lock().process.clone()
    }

    /// Returns how many runs since it was loaded another one followed, or was to follow.
    #[cfg(feature = "admin")]
    pub(crate) fn restarts(&self) -> u64 {
        self.shared().state.lock().history.restarts()
    }

    /// Returns how many events wait for the plugin or are being delivered.
    pub(crate) fn queued_events(&self) -> usize {
        self.shared().deliveries.jobs()
    }

    /// Checks that the plugin can be called.
    ///
    /// # Errors
    /// Those of a call.
    pub(crate) fn check_active(&self) -> Result<()> {
        self.shared().active_connection().map(drop)
    }

    /// Ends, in the background, what earlier hosts have left of the plugin, where something may be left.
    pub(crate) fn clear(&self) {
        let shared = self.shared();
        let services = &shared.context.services;
        let runtime = services.runtime.as_ref();
        let is_needed = runtime.is_some_and(|runtime| runtime.outlives_host().is_some());
        if shared.mode == PluginMode::Supervised && is_needed {
            let hooks = Arc::new(SessionHooks(shared.clone()));
            services.reaper.request_clear(hooks);
        }
    }

    /// Makes the plugin run with this record from its next start on, whatever is stored; `None` goes back
    /// to the stored one.
    pub(crate) fn set_candidate(&self, record: Option<Record>) {
        *self.shared().candidate.write() = record.map(Arc::new);
    }

    /// Ends the connection of an external plugin, and one that is being attached, with a close code that
    /// says whether to reconnect. The plugin stays wanted.
    ///
    /// Blocks until the close is written and the plugin has ended its side, at most until `deadline`.
    pub(crate) fn drop_connection(&self, code: u16, reason: &str, deadline: Deadline) {
        let shared = self.shared();
        // A new token may be the reason, and the plugin may still connect with the one before.
        if let Ok(Some(record)) = shared.current_record() {
            shared.learn_token_of(&record);
        }
        let connection = {
            let mut state = shared.state.lock();
            // It may have been admitted with a token that no longer counts.
            state.reserved = None;
            let connection = state.connection.take();
            if connection.is_some() {
                shared.drop_events();
                if state.reported == ReportedState::Active {
                    shared.enter(&mut state, ReportedState::Connecting, None);
                }
            }
            connection
        };
        if let Some(connection) = connection {
            connection.close(code, reason, deadline);
        }
    }
}
