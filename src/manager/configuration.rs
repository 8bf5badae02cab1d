//! Configuration: what can be configured, what is stored, and having the plugin agree to what is to be
//! stored ([Configuration](crate::protocol#configuration)).
//!
//! What the plugin has and what is stored must not differ without anybody knowing. So before the plugin
//! is asked, the record says what it is about to be asked; as long as it is not known what came of that,
//! the plugin is told the stored configuration again when it next connects.

use super::{Manager, ManagerInner};
use crate::error::{Error, OperationError, Phase, Result};
use crate::fault;
use crate::id::InstallationId;
use crate::protocol::configuration::{Configuration, ConfigurationSchema};
use crate::protocol::method::{Configure, ConfigureReply};
use crate::session::Session;
use crate::state::PluginMode;

/// What becomes of members of the stored configuration that a new one does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigureMode {
    /// They go, as the protocol has it.
    #[default]
    Replace,
    /// They stay.
    Merge,
}

impl Manager {
    /// What of a plugin can be configured; no fields when its manifest says nothing of it.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or the store's.
    pub fn configuration_schema(&self, id: InstallationId) -> Result<ConfigurationSchema> {
        let manifest = self.inner.record(id)?.manifest;
        Ok(manifest.configuration_schema.unwrap_or_default())
    }

    /// The stored configuration; empty when there never was one. Numbers are as they were given.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or the store's.
    pub fn configuration(&self, id: InstallationId) -> Result<Configuration> {
        Ok(self.inner.record(id)?.configuration)
    }

    /// The values that the author proposes, for showing them where nothing is stored. Nobody applies
    /// them but the plugin itself.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or the store's.
    pub fn configuration_defaults(&self, id: InstallationId) -> Result<Configuration> {
        Ok(self.configuration_schema(id)?.defaults())
    }

    /// Proposes a configuration to the plugin, and stores it if the plugin agrees. Until then, and so
    /// also for what the plugin asks meanwhile, the one before counts. Gives what is stored. The plugin has
    /// to be [active](Self::activate) for that.
    ///
    /// # Blocking
    /// At most [`configure_timeout`](super::ManagerSettings::configure_timeout) for the plugin's answer,
    /// at most [`busy_timeout`](super::ManagerSettings::busy_timeout) for other operations on it, and for
    /// the store.
    ///
    /// # Errors
    /// What was stored stays stored.
    /// - [`Error::NotInstalled`].
    /// - [`Error::Operation`] with
    ///   - [`OperationError::Configuration`]: members of the wrong type, all of them;
    ///   - [`OperationError::ConfigurationRefused`]: the plugin said no;
    ///   - [`OperationError::ConfigurationUncertain`]: no answer, or none that can be read;
    ///   - [`OperationError::ConfigurationNotStored`]: the plugin agreed, the store failed;
    ///   - [`OperationError::Busy`].
    /// - [`Error::Store`]: its record is damaged.
    /// - [`Error::NotLoaded`], [`Error::State`], [`Error::Disconnected`]: the plugin is not there to be
    ///   asked.
    /// - [`Error::Rpc`]: the plugin answered with an error.
    /// - Any other of [`Session::call`]: the plugin was not asked.
    /// - The store's: the plugin was not asked.
    pub fn configure(
        &self,
        id: InstallationId,
        proposal: Configuration,
        mode: ConfigureMode,
    ) -> Result<Configuration> {
        let inner = &self.inner;
        let _operation = inner.begin(id, "configure")?;
        let mut record = inner.sound_record(id)?;
        let proposed = match mode {
            ConfigureMode::Replace => proposal,
            ConfigureMode::Merge => {
                let mut merged = record.configuration.clone();
                merged.extend(proposal);
                merged
            }
        };
        let schema = record.manifest.configuration_schema.as_ref();
        let problems = schema.map_or_else(Vec::new, |schema| schema.problems(&proposed));
        if !problems.is_empty() {
            return Err(OperationError::Configuration { problems }.into());
        }
        let session = inner.host.session(id).ok_or(Error::NotLoaded(id))?;
        session.check_active()?;

        let unsettled = record.pending_configuration.replace(proposed.clone());
        inner.store().put(record.clone())?;
        fault::point(fault::PROPOSED, id);
        match inner.ask(&session, &proposed) {
            ConfigureAnswer::Taken => {
                fault::point(fault::AGREED, id);
                record.configuration = proposed;
                record.pending_configuration = None;
                let configuration = record.configuration.clone();
                match inner.store().put(record) {
                    Ok(()) => Ok(configuration),
                    Err(cause) => Err(OperationError::ConfigurationNotStored { cause }.into()),
                }
            }
            ConfigureAnswer::NotTaken(error) => {
                // It may still have one from before.
                record.pending_configuration = unsettled;
                if let Err(error) = inner.store().put(record) {
                    // The plugin is told once more than it needs to be.
                    let plugin = inner.display_name(id);
                    log::warn!("{plugin}: cannot store that its configuration stays: {error}");
                }
                Err(error)
            }
            ConfigureAnswer::Unknown(cause) => {
                Err(OperationError::ConfigurationUncertain { cause }.into())
            }
        }
    }
}

/// What a proposal came to.
enum ConfigureAnswer {
    Taken,
    /// The plugin does not have it.
    NotTaken(Error),
    /// The plugin may have it.
    Unknown(Error),
}

impl ManagerInner {
    fn ask(&self, session: &Session, proposed: &Configuration) -> ConfigureAnswer {
        let timeout = self.settings.configure_timeout;
        match session.call::<Configure>(proposed, timeout) {
            Ok(ConfigureReply { ok: true }) => ConfigureAnswer::Taken,
            Ok(ConfigureReply { ok: false }) => {
                ConfigureAnswer::NotTaken(OperationError::ConfigurationRefused.into())
            }
            Err(error) => match error {
                Error::InvalidReply { .. }
                | Error::Disconnected(_)
                | Error::Timeout {
                    phase: Phase::Reply,
                    ..
                } => ConfigureAnswer::Unknown(error),
                // It said no, or was not asked.
                _ => ConfigureAnswer::NotTaken(error),
            },
        }
    }

    /// Tells a plugin that has connected the stored configuration again: when it connected, it was not
    /// known which one that would be, and it may have asked for it then.
    pub(super) fn resync_configuration(&self, id: InstallationId) {
        if let Err(error) = self.try_resync_configuration(id) {
            let plugin = self.display_name(id);
            log::warn!(
                "{plugin}: it is not certain that it has the configuration that is stored: {error}; tried again at its next connect"
            );
        }
    }

    fn try_resync_configuration(&self, id: InstallationId) -> Result<()> {
        let _operation = self.begin(id, "configure")?;
        let mut record = self.sound_record(id)?;
        let session = self.host.session(id).ok_or(Error::NotLoaded(id))?;
        match self.ask(&session, &record.configuration) {
            ConfigureAnswer::Taken => {}
            // With its process goes whatever it had taken; what it asks for from now on is what is stored.
            // Asking again and again one that ends at each configuration would keep it from ever running.
            ConfigureAnswer::Unknown(Error::Disconnected(_))
                if record.mode() == PluginMode::Supervised => {}
            ConfigureAnswer::NotTaken(error) | ConfigureAnswer::Unknown(error) => {
                return Err(error);
            }
        }
        if record.pending_configuration.take().is_some() {
            self.store().put(record)?;
        }
        let plugin = self.display_name(id);
        log::info!("{plugin}: told the stored configuration again");
        Ok(())
    }
}
