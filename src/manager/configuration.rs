//! Configuration: what can be configured, what is stored, and proposing a new one to the plugin
//! ([Configuration](crate::protocol#configuration)).
//!
//! The plugin's configuration and the stored one must not differ unnoticed. So the record holds the proposal
//! before the plugin receives it; while the outcome is unknown, the plugin is sent the stored configuration
//! again whenever it connects.

use super::{Manager, ManagerInner};
use crate::error::{Error, OperationError, Phase, Result};
use crate::fault;
use crate::id::InstallationId;
use crate::protocol::configuration::{Configuration, ConfigurationField};
use crate::protocol::method::{Ack, Configure};
use crate::session::Session;
use crate::state::{PluginMode, ReportedState};
use crate::store::Record;

impl Manager {
    /// Returns the fields of the plugin's configuration schema; none if the manifest declares none.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or [the store's](crate::store::Store#errors).
    pub fn configuration_schema(&self, id: InstallationId) -> Result<Vec<ConfigurationField>> {
        let manifest = self.inner.record(id)?.manifest;
        Ok(manifest.configuration_schema.unwrap_or_default())
    }

    /// Returns the stored configuration; it is empty if none was ever stored. Integers of 64 bits
    /// and doubles are kept exactly.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or [the store's](crate::store::Store#errors).
    pub fn configuration(&self, id: InstallationId) -> Result<Configuration> {
        Ok(self.inner.record(id)?.configuration)
    }

    /// Returns the author's default values, for showing them where nothing is stored. Only the plugin itself
    /// applies them.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or [the store's](crate::store::Store#errors).
    pub fn configuration_defaults(&self, id: InstallationId) -> Result<Configuration> {
        Ok(self.inner.record(id)?.manifest.configuration_defaults())
    }

    /// Proposes a configuration to the plugin, stores it if the plugin accepts, and returns what is stored.
    /// Until then the previous one applies, also for the plugin's own requests meanwhile. Members of the
    /// previous one that the new one does not name are removed, as the protocol says; see
    /// [`merge_configuration`](Self::merge_configuration). The plugin has to be [active](Self::activate).
    ///
    /// # Blocking
    /// At most [`Timeouts::call`](crate::Timeouts::call) for the plugin's answer,
    /// at most [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it, and for
    /// the store.
    ///
    /// # Errors
    /// After an error the stored configuration is unchanged.
    /// - [`Error::NotInstalled`].
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration): members
    ///   have the wrong type; [`Error::problems`] lists them all.
    /// - [`ErrorKind::ConfigurationRefused`](crate::ErrorKind::ConfigurationRefused): the plugin refused it.
    /// - [`ErrorKind::ConfigurationUncertain`](crate::ErrorKind::ConfigurationUncertain): there was no
    ///   answer, or none that can be read.
    /// - [`ErrorKind::ConfigurationNotStored`](crate::ErrorKind::ConfigurationNotStored): the plugin
    ///   accepted it, but the store failed.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy): another operation on it is in progress.
    /// - [`ErrorKind::RecordDamaged`](crate::ErrorKind::RecordDamaged): its record is damaged.
    /// - [`Error::NotLoaded`], [`Error::State`], [`Error::Disconnected`]: the plugin is not active.
    /// - [`Error::Rpc`]: the plugin answered with an error.
    /// - Any other of [`Session::call`], or [the store's](crate::store::Store#errors): nothing was proposed
    ///   to the plugin.
    pub fn configure(&self, id: InstallationId, proposal: Configuration) -> Result<Configuration> {
        self.inner.configure(id, |_| proposal)
    }

    /// Proposes the stored configuration with these changes to the plugin, as
    /// [`configure`](Self::configure) does: each member that is named here replaces the stored one, and the
    /// rest stay.
    ///
    /// # Blocking
    /// As [`configure`](Self::configure).
    ///
    /// # Errors
    /// Those of [`configure`](Self::configure).
    pub fn merge_configuration(
        &self,
        id: InstallationId,
        changes: Configuration,
    ) -> Result<Configuration> {
        self.inner.configure(id, |stored| {
            let mut merged = stored.clone();
            merged.extend(changes);
            merged
        })
    }

    /// Stores a configuration without proposing it, for a plugin that is not active: one that does not come up
    /// without its configuration, or before anything runs at all. It gets the configuration when it asks for it, and
    /// once more when it is up.
    ///
    /// # Blocking
    /// At most [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it, and for the store.
    ///
    /// # Errors
    /// After an error the stored configuration is unchanged.
    /// - [`Error::NotInstalled`].
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration): members have the wrong type;
    ///   [`Error::problems`] lists them all.
    /// - [`Error::State`]: the plugin is active, and may refuse: [`configure`](Self::configure) asks it.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy): another operation on it is in progress.
    /// - [`ErrorKind::RecordDamaged`](crate::ErrorKind::RecordDamaged): its record is damaged.
    /// - [The store's](crate::store::Store#errors).
    pub fn store_configuration(
        &self,
        id: InstallationId,
        configuration: Configuration,
    ) -> Result<Configuration> {
        let inner = &self.inner;
        let _operation = inner.begin(id, "configure")?;
        let mut record = inner.sound_record(id)?;
        check(&record, &configuration)?;
        let session = inner.host.session(id);
        let state = session.map(|session| session.reported_state());
        if let Some(state @ ReportedState::Active) = state {
            let message = Some("the plugin decides about its configuration".into());
            return Err(Error::State { state, message });
        }
        record.configuration.clone_from(&configuration);
        // It may be on its way up, and have asked before this is stored.
        record.pending_configuration = Some(configuration.clone());
        inner.store().put(record)?;
        Ok(configuration)
    }
}

/// # Errors
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration).
fn check(record: &Record, configuration: &Configuration) -> Result<()> {
    let problems = record.manifest.configuration_problems(configuration);
    if problems.is_empty() {
        return Ok(());
    }
    Err(OperationError::Configuration { problems }.into())
}

impl ManagerInner {
    /// Proposes to the plugin what `propose` makes of the stored configuration.
    fn configure(
        &self,
        id: InstallationId,
        propose: impl FnOnce(&Configuration) -> Configuration,
    ) -> Result<Configuration> {
        let _operation = self.begin(id, "configure")?;
        let mut record = self.sound_record(id)?;
        let proposed = propose(&record.configuration);
        check(&record, &proposed)?;
        let session = self.host.session(id).ok_or(Error::NotLoaded(id))?;
        session.check_active()?;

        let pending = record.pending_configuration.replace(proposed.clone());
        self.store().put(record.clone())?;
        fault::point(fault::PROPOSED, id);
        match self.ask(&session, &proposed) {
            ConfigureAnswer::Accepted => {
                fault::point(fault::AGREED, id);
                record.configuration = proposed;
                record.pending_configuration = None;
                let stored = self.store().put(record.clone());
                stored.map_err(|cause| OperationError::ConfigurationNotStored { cause })?;
                Ok(record.configuration)
            }
            ConfigureAnswer::Refused(error) => {
                // An earlier proposal may still be undecided.
                record.pending_configuration = pending;
                if let Err(error) = self.store().put(record) {
                    // The plugin is sent its configuration once more than needed.
                    let plugin = self.display_name(id);
                    log::warn!(
                        "{plugin}: cannot store that its configuration is unchanged: {error}"
                    );
                }
                Err(error)
            }
            ConfigureAnswer::Unknown(cause) => {
                Err(OperationError::ConfigurationUncertain { cause }.into())
            }
        }
    }
}

/// The plugin's answer to a proposal.
enum ConfigureAnswer {
    Accepted,
    /// The plugin does not use it.
    Refused(Error),
    /// The plugin may use it.
    Unknown(Error),
}

impl ManagerInner {
    fn ask(&self, session: &Session, proposed: &Configuration) -> ConfigureAnswer {
        let timeout = self.context().settings.timeouts.call;
        match session.call(&Configure(proposed.clone()), timeout) {
            Ok(Ack { ok: true }) => ConfigureAnswer::Accepted,
            Ok(Ack { ok: false }) => {
                ConfigureAnswer::Refused(OperationError::ConfigurationRefused.into())
            }
            Err(error) => match error {
                Error::InvalidReply { .. }
                | Error::Disconnected(_)
                | Error::Timeout {
                    phase: Phase::Reply,
                    ..
                } => ConfigureAnswer::Unknown(error),
                // The plugin refused it, or did not receive it.
                _ => ConfigureAnswer::Refused(error),
            },
        }
    }

    /// Sends the stored configuration again to a plugin that has connected while a proposal was undecided: it
    /// may have requested its configuration before that was stored.
    pub(super) fn resync_configuration(&self, id: InstallationId) {
        if let Err(error) = self.try_resync_configuration(id) {
            let plugin = self.display_name(id);
            log::warn!(
                "{plugin}: it may not have the stored configuration: {error}; sent again when it next connects"
            );
        }
    }

    fn try_resync_configuration(&self, id: InstallationId) -> Result<()> {
        let _operation = self.begin(id, "configure")?;
        let mut record = self.sound_record(id)?;
        let session = self.host.session(id).ok_or(Error::NotLoaded(id))?;
        match self.ask(&session, &record.configuration) {
            ConfigureAnswer::Accepted => {}
            // Its next process will request what is stored. A plugin that ends at each configuration must not
            // be sent it again and again: it could never run.
            ConfigureAnswer::Unknown(Error::Disconnected(_))
                if record.mode() == PluginMode::Supervised => {}
            ConfigureAnswer::Refused(error) | ConfigureAnswer::Unknown(error) => {
                return Err(error);
            }
        }
        if record.pending_configuration.take().is_some() {
            self.store().put(record)?;
        }
        let plugin = self.display_name(id);
        log::info!("{plugin}: sent the stored configuration again");
        Ok(())
    }
}
