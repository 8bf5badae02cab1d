//! Starting and stopping plugins, and storing which state is wanted.

use std::time::Duration;

use super::operations::Operation;
use super::{Installation, Manager, ManagerInner};
use crate::deadline::Deadline;
use crate::duplex::close_code;
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::session::Session;
use crate::state::{ActiveState, PluginMode, ReportedState};
use crate::store::Record;

impl Manager {
    /// Starts a plugin, now and at each [`boot`](Self::boot), and waits until it is active. Earlier failures
    /// do not count against this start. A plugin that is active already is not restarted.
    ///
    /// # Blocking
    /// At most `timeout` for the plugin, and at most
    /// [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it. State changes
    /// wake it.
    ///
    /// # Errors
    /// After any error but the first five below, the store's and [`Error::ShutDown`], the plugin is wanted
    /// active.
    /// - [`Error::NotInstalled`].
    /// - [`ErrorKind::RecordDamaged`](crate::ErrorKind::RecordDamaged): its record is damaged.
    /// - [`Error::Unsupported`]: the plugin is external, and so always wanted active.
    /// - [`Error::Disabled`] or [`Error::Unsupported`]: the runtime provider runs no plugins.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy): another operation on it is in progress.
    /// - [`ErrorKind::PluginFailed`](crate::ErrorKind::PluginFailed), with the reason, or
    ///   [`Error::State`]: it has errored, or was stopped meanwhile. These are returned at once.
    /// - [`Error::Timeout`], with the phase that it was in and what went wrong last, or
    ///   [`ErrorKind::DescendantsLeft`](crate::ErrorKind::DescendantsLeft) if its start waits for processes of
    ///   the previous run to end. The start continues.
    /// - Those of [`Host::load`](crate::Host::load), and [the store's](crate::store::Store#errors).
    pub fn activate(&self, id: InstallationId, timeout: Duration) -> Result<Installation> {
        // The operation is over before the wait, so that a stop can come in between.
        let (_, session) = self.inner.start(id)?;
        session.wait_for(ReportedState::Active, timeout)?;
        self.get(id)
    }

    /// Starts a plugin as [`activate`](Self::activate) does, without waiting for it.
    ///
    /// # Blocking
    /// At most [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it, and for the
    /// store.
    ///
    /// # Errors
    /// Those of [`activate`](Self::activate) that do not concern the wait.
    pub fn request_activation(&self, id: InstallationId) -> Result<Installation> {
        let (record, _) = self.inner.start(id)?;
        Ok(self.inner.view(record))
    }

    /// Stops a plugin and starts it again, and waits until it is active. Whether it is wanted active does not
    /// change, and earlier failures do not count against this start. An external plugin is disconnected with
    /// the advice to reconnect. Calls in flight fail with
    /// [`Disconnect::ByHost`](crate::error::Disconnect::ByHost), code 1012, `restarted`.
    ///
    /// # Blocking
    /// At most `timeout` for the stop and the start together, or until the external plugin has reconnected;
    /// and at most [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it. State
    /// changes wake it. Deactivating or removing the plugin ends the wait for its start.
    ///
    /// # Errors
    /// - [`Error::NotInstalled`].
    /// - [`Error::State`] with `inactive`: it is not wanted active, or was stopped meanwhile.
    /// - [`Error::Timeout`] with [`Phase::Stop`](crate::error::Phase::Stop), or
    ///   [`ErrorKind::DescendantsLeft`](crate::ErrorKind::DescendantsLeft): it could not be stopped. The host goes on
    ///   stopping it, and starts it after that.
    /// - Those of [`activate`](Self::activate), except that it is external.
    pub fn restart(&self, id: InstallationId, timeout: Duration) -> Result<Installation> {
        let deadline = Deadline::after(timeout);
        let restarted = self.inner.restart(id, deadline).and_then(|session| {
            // The operation is over before the wait, so that a stop can come in between.
            session.wait_for(ReportedState::Active, deadline.remaining())
        });
        restarted.map_err(|error| match error {
            // Its limit is what was left of the caller's.
            Error::Timeout { phase, problem, .. } => Error::Timeout {
                phase,
                limit: timeout,
                problem,
            },
            error => error,
        })?;
        self.get(id)
    }

    /// Begins a [`restart`](Self::restart): stops the plugin and requests its start.
    #[cfg(feature = "admin")]
    pub(crate) fn begin_restart(&self, id: InstallationId, timeout: Duration) -> Result<Session> {
        self.inner.restart(id, Deadline::after(timeout))
    }

    /// Stops a plugin, which then is not started at a [`boot`](Self::boot) either, and waits until all of its
    /// processes have ended.
    ///
    /// # Blocking
    /// At most `timeout` for the plugin, as [`Supervised::stop`](crate::Supervised::stop) does, and at
    /// most [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it. An update
    /// that is waiting for its new version is cancelled.
    ///
    /// # Errors
    /// - [`Error::NotInstalled`].
    /// - [`ErrorKind::RecordDamaged`](crate::ErrorKind::RecordDamaged): its record is damaged.
    /// - [`Error::Unsupported`]: the plugin is external. Remove it, or replace its token.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy): another operation on it is in progress.
    /// - [`Error::Timeout`] with [`Phase::Stop`](crate::error::Phase::Stop): its process
    ///   has not ended; [`ErrorKind::DescendantsLeft`](crate::ErrorKind::DescendantsLeft): others that left its
    ///   process group have not. The plugin is wanted inactive all the same, and the host goes on stopping it.
    /// - [The store's](crate::store::Store#errors), or [`Error::ShutDown`].
    pub fn deactivate(&self, id: InstallationId, timeout: Duration) -> Result<Installation> {
        let inner = &self.inner;
        let _operation = inner.begin_stopping(id, "deactivate")?;
        let mut record = ManagerInner::supervised(inner.sound_record(id)?)?;
        if record.active_state != ActiveState::Inactive {
            record.set_active_state(ActiveState::Inactive);
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
    /// Stores that the plugin is wanted active, and requests its start.
    fn start(&self, id: InstallationId) -> Result<(Record, Session)> {
        let _operation = self.begin(id, "activate")?;
        let mut record = Self::supervised(self.sound_record(id)?)?;
        self.check_runtime()?;
        if record.active_state != ActiveState::Active {
            record.set_active_state(ActiveState::Active);
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

    /// Stops the plugin and requests its start, or has it connect again.
    fn restart(&self, id: InstallationId, deadline: Deadline) -> Result<Session> {
        let _operation = self.begin(id, "restart")?;
        let record = self.sound_record(id)?;
        if record.active_state != ActiveState::Active {
            return Err(Error::State {
                state: ReportedState::Inactive,
                message: Some("it is not wanted active".into()),
            });
        }
        self.failures.lock().remove(&id);
        let Some(session) = self.host.session(id) else {
            // Requests the start as well.
            return self.host.load(id);
        };
        let (code, reason) = (close_code::RESTART, "restarted");
        match record.mode() {
            PluginMode::Supervised => {
                self.check_runtime()?;
                let stopped = session.stop_with(deadline.remaining(), code, reason);
                // If it could not be stopped, it starts when the host has stopped it.
                session.set_active_state(ActiveState::Active)?;
                stopped?;
            }
            PluginMode::External => {
                let limit = Deadline::after(self.context().settings.timeouts.stop);
                session.drop_connection(code, reason, deadline.min(limit));
                session.set_active_state(ActiveState::Active)?;
            }
        }
        Ok(session)
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
