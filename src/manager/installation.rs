//! `Installation`: an installed plugin as the manager shows it: its record and its status.

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::{Manager, ManagerInner};
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::package::PackageWarning;
use crate::state::ReportedState;
use crate::store::Record;

/// An installed plugin: its record and its present status.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Installation {
    /// The stored record.
    pub record: Record,
    /// The present status.
    pub status: Status,
    /// What the author of the package may not have meant. [`install`](Manager::install) and
    /// [`update_package`](Manager::update_package) find, log and return it; empty otherwise.
    pub warnings: Vec<PackageWarning>,
}

/// The present status of an installed plugin.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// Its state: `inactive` if it is not loaded, `errored` if its record is damaged.
    pub state: ReportedState,
    /// When it became active; in any other state, when the wanted state last changed, as in Storyden's HTTP
    /// API.
    pub since: SystemTime,
    /// What is wrong, or went wrong most recently.
    pub message: Option<String>,
    /// Details of that; see [`Session::error_details`](crate::Session::error_details).
    pub details: Map<String, Value>,
}

impl Installation {
    /// Returns the host's id for it.
    pub fn id(&self) -> InstallationId {
        self.record.id
    }
}

impl Manager {
    /// Returns an installed plugin.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or the store's.
    pub fn get(&self, id: InstallationId) -> Result<Installation> {
        self.inner.get(id)
    }

    /// Returns all installed plugins, the oldest first, including those with damaged records.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// The store's.
    pub fn list(&self) -> Result<Vec<Installation>> {
        let records = self.inner.store().list()?;
        Ok(records
            .into_iter()
            .map(|record| self.inner.view(record))
            .collect())
    }
}

impl ManagerInner {
    pub(super) fn get(&self, id: InstallationId) -> Result<Installation> {
        Ok(self.view(self.record(id)?))
    }

    pub(super) fn record(&self, id: InstallationId) -> Result<Record> {
        self.store().get(id)?.ok_or(Error::NotInstalled(id))
    }

    /// Returns this record with the present status of its plugin.
    pub(super) fn view(&self, record: Record) -> Installation {
        // If the record is damaged, the session may wait for a connection that cannot come.
        let is_sound = record.damage.is_none();
        let session = self.host.session(record.id).filter(|_| is_sound);
        let status = match session.map(|session| session.snapshot()) {
            Some(now) => Status {
                state: now.state,
                since: (now.started_at)
                    .filter(|_| now.state == ReportedState::Active)
                    .unwrap_or(record.active_state_changed_at),
                message: now.message.as_deref().map(str::to_owned),
                details: Map::clone(&now.details),
            },
            None => self.stored_status(&record),
        };
        Installation {
            record,
            status,
            warnings: Vec::new(),
        }
    }

    fn stored_status(&self, record: &Record) -> Status {
        let message = match &record.damage {
            Some(problem) => Some(format!("its record is damaged: {problem}")),
            None => (self.failures.lock().get(&record.id)).map(ToString::to_string),
        };
        Status {
            state: match message {
                Some(_) => ReportedState::Errored,
                None => ReportedState::Inactive,
            },
            since: record.active_state_changed_at,
            message,
            details: Map::new(),
        }
    }
}
