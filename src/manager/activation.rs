//! Starting and stopping, and storing what is wanted.

use std::time::Duration;

use super::operations::Operation;
use super::{Installation, Manager, ManagerInner};
use crate::duplex::close_code;
use crate::error::Result;
use crate::id::InstallationId;
use crate::session::Session;
use crate::state::{ActiveState, ReportedState};
use crate::store::Record;

impl Manager {
    /// Has a plugin run, now and after each [`boot`](Self::boot), and waits until it does. It is judged
    /// by this start: what was wrong before does not count. One that runs already stays as it is.
    ///
    /// # Blocking
    /// At most `timeout` for the plugin, and at most
    /// [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it. State changes
    /// wake it.
    ///
    /// # Errors
    /// Unless it is one of the first four, or the store's, the plugin is wanted active from now on.
    /// - [`Error::NotInstalled`](crate::Error::NotInstalled).
    /// - [`Error::Store`](crate::Error::Store): its record is damaged.
    /// - [`Error::Unsupported`](crate::Error::Unsupported) for an external plugin, which is always
    ///   wanted active.
    /// - [`Error::Disabled`](crate::Error::Disabled) or [`Error::Unsupported`](crate::Error::Unsupported):
    ///   the runtime provider runs no plugins.
    /// - [`Error::Operation`](crate::Error::Operation): another operation on it is under way.
    /// - [`Error::State`](crate::Error::State) or [`Error::Start`](crate::Error::Start), at once, when it
    ///   has errored, with the reason; or was stopped meanwhile.
    /// - [`Error::Timeout`](crate::Error::Timeout) with what it was still at and what went wrong last, or
    ///   [`Error::DescendantsLeft`](crate::Error::DescendantsLeft) when it waits for processes of the run before
    ///   to be gone; it goes on starting.
    /// - Those of [`Host::load`](crate::Host::load), and the store's.
    pub fn activate(&self, id: InstallationId, timeout: Duration) -> Result<Installation> {
        // Waited for when the operation is over: a stop must be able to come in between.
        let (_, session) = self.inner.start(id)?;
        session.wait_for(ReportedState::Active, timeout)?;
        self.get(id)
    }

    /// As [`activate`](Self::activate), without waiting for the plugin.
    ///
    /// # Blocking
    /// At most [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it.
    ///
    /// # Errors
    /// Those of [`activate`](Self::activate) that do not concern the wait.
    pub fn request_activation(&self, id: InstallationId) -> Result<Installation> {
        let (record, _) = self.inner.start(id)?;
        Ok(self.inner.view(record))
    }

    /// Has a plugin stop, and stay stopped after each [`boot`](Self::boot); waits until nothing of it
    /// is left.
    ///
    /// # Blocking
    /// At most `timeout` for the plugin, as [`Supervised::stop`](crate::Supervised::stop) does, and at
    /// most [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it. An update
    /// that waits for its new version gives that up.
    ///
    /// # Errors
    /// - [`Error::NotInstalled`](crate::Error::NotInstalled).
    /// - [`Error::Unsupported`](crate::Error::Unsupported) for an external plugin: remove it, or replace
    ///   its token.
    /// - [`Error::Operation`](crate::Error::Operation): another operation on it is under way.
    /// - [`Error::Timeout`](crate::Error::Timeout) with [`Phase::Stop`](crate::error::Phase::Stop) when
    ///   its process is left, [`Error::DescendantsLeft`](crate::Error::DescendantsLeft) when others are that
    ///   left its process group; it is wanted inactive all the same, and goes on being stopped.
    /// - The store's, or [`Error::ShutDown`](crate::Error::ShutDown).
    pub fn deactivate(&self, id: InstallationId, timeout: Duration) -> Result<Installation> {
        let inner = &self.inner;
        let _operation = inner.begin_stopping(id, "deactivate")?;
        let mut record = ManagerInner::supervised(inner.sound_record(id)?)?;
        if record.active_state != ActiveState::Inactive {
            record = record.with_active_state(ActiveState::Inactive);
            inner.store().put(record.clone())?;
        }
        inner.failures.lock().remove(&id);
        if let Some(session) = inner.host.session(id) {
            session.stop_with(timeout, close_code::NORMAL, "closed")?;
        }
        Ok(inner.view(record))
    }
}

impl ManagerInner {
    /// Stores that the plugin is wanted active, and asks for its start.
    fn start(&self, id: InstallationId) -> Result<(Record, Session)> {
        let _operation = self.begin(id, "activate")?;
        let mut record = Self::supervised(self.sound_record(id)?)?;
        self.check_runtime()?;
        if record.active_state != ActiveState::Active {
            record = record.with_active_state(ActiveState::Active);
            self.store().put(record.clone())?;
        }
        self.failures.lock().remove(&id);
        let session = match self.host.session(id) {
            Some(session) => {
                session.set_active_state(ActiveState::Active)?;
                session
            }
            // Requests the start as well.
            None => self.host.load(id)?,
        };
        Ok((record, session))
    }

    /// Begins an operation that ends the plugin: an update that is waiting for its new version is
    /// cancelled. If this fails, an update that has not reached its wait may wait again.
    pub(super) fn begin_stopping(
        &self,
        id: InstallationId,
        name: &'static str,
    ) -> Result<Operation<'_>> {
        // Dropped when the other operation has ended, or when this one does not come after all.
        let cancel = self.operations.cancel_wait(id);
        if cancel.was_waiting
            && let Some(session) = self.host.session(id)
        {
            let timeout = self.context().settings.timeouts.stop;
            // Its stop ends the update's wait; the update reports the outcome.
            let _ = session.request_stop(timeout, close_code::NORMAL, "closed");
        }
        self.begin(id, name)
    }
}
