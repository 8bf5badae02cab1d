//! What the manager needs of a session: a record on trial, ending a connection so that its plugin
//! comes back, and hearing of a plugin that has to be told its configuration again.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::Session;
use super::shared::SharedSession;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::state::ReportedState;
use crate::store::Record;

impl SharedSession {
    /// The record as it is to be taken now: the one on trial, else the stored one, which may have
    /// changed since the plugin was loaded; `None` when it is not stored any more.
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

/// What a session is in, all of one moment.
pub(crate) struct Snapshot {
    pub(crate) state: ReportedState,
    /// When it last became active.
    pub(crate) started_at: Option<SystemTime>,
    pub(crate) message: Option<Arc<str>>,
    pub(crate) details: Arc<Map<String, Value>>,
}

impl Session {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.shared().state.lock();
        Snapshot {
            state: state.reported,
            started_at: state.started_at,
            message: state.message.clone(),
            details: state.details.clone(),
        }
    }

    /// Whether the plugin can be called.
    ///
    /// # Errors
    /// As a call's.
    pub(crate) fn check_active(&self) -> Result<()> {
        self.shared().active_connection().map(drop)
    }

    /// Has the plugin run with this record from its next start on, whatever is stored; `None` goes
    /// back to the stored one.
    pub(crate) fn set_candidate(&self, record: Option<Record>) {
        *self.shared().candidate.write() = record.map(Arc::new);
    }

    /// Ends the connection of an external plugin, and the attempt of one that is being let in, with a
    /// close code that says whether to come back. It stays wanted.
    ///
    /// Blocks until the close is written and the plugin has ended its side, at most until `deadline`.
    pub(crate) fn drop_connection(&self, code: u16, reason: &str, deadline: Deadline) {
        let shared = self.shared();
        // Its token may be the reason, and the plugin may yet come with the one before.
        if let Ok(Some(record)) = shared.current_record() {
            shared.learn_token_of(&record);
        }
        let connection = {
            let mut state = shared.state.lock();
            // It may have been let in with what does not count any more.
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
