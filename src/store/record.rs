//! `Record`: what is stored of one installed plugin. No behaviour; a [`Store`](super::Store) keeps it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::overrides::Overrides;
use crate::auth::{ExternalCredential, ExternalToken};
use crate::error::Result;
use crate::health::Health;
use crate::id::InstallationId;
use crate::process::ProcessLimits;
use crate::protocol::access::AccessShape;
use crate::protocol::configuration::Configuration;
use crate::protocol::manifest::Manifest;
use crate::state::{ActiveState, PluginMode};

/// One installed plugin.
///
/// It serialises completely, so that a store may keep it whole, for example as JSON. The output contains
/// the token of an external plugin if the record does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// The host's id for this installation.
    pub id: InstallationId,
    /// The plugin's manifest.
    pub manifest: Manifest,
    /// How the plugin is run, and what that takes.
    pub kind: PluginKind,
    /// The state that the administrator wants.
    pub active_state: ActiveState,
    /// When `active_state` last changed.
    pub active_state_changed_at: SystemTime,
    /// The stored configuration; empty if the plugin was never configured.
    pub configuration: Configuration,
    /// A configuration that was sent to the plugin and not stored, of which it is unknown whether the
    /// plugin has applied it. As long as it is set, the stored configuration is sent again when the
    /// plugin next connects.
    // Stored by the name that it had first, here and in the database.
    #[serde(
        rename = "unsettled_configuration",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub pending_configuration: Option<Configuration>,
    /// The time of the installation.
    pub added_at: SystemTime,
    /// Settings of this plugin that replace the host's.
    #[serde(default)]
    pub overrides: Overrides,
    /// The parts of the record that the store could not read, and why. Their fields have stand-ins, and
    /// the plugin is not started. Never stored.
    #[serde(skip)]
    pub damage: Option<Arc<str>>,
}

/// How a plugin is run, and what that takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PluginKind {
    /// The host runs the plugin as a child process.
    Supervised(Source),
    /// The plugin runs elsewhere, and connects with the token of this credential.
    External(ExternalCredential),
}

/// Where the files of a supervised plugin are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// A zip archive of the embedder's. It is unpacked below the data directory and runs there.
    Archive(PathBuf),
    /// A directory that the plugin runs in as it is, for development.
    #[serde(rename = "folder")]
    Directory(PathBuf),
    /// A zip archive in the store. It is unpacked below the data directory and runs there.
    Stored {
        /// Its SHA-256, in lower-case hexadecimal.
        sha256: String,
        /// Its size in bytes.
        size: u64,
    },
}

impl Record {
    /// Makes the record of a newly installed supervised plugin: inactive, with a new id.
    pub fn supervised(manifest: Manifest, source: Source) -> Self {
        let id = InstallationId::generate();
        Self::new(id, manifest, PluginKind::Supervised(source))
    }

    /// Makes the record of a newly installed external plugin: wanted active, with a new id and token. The
    /// token stays in the record, so that it can be handed to the plugin
    /// ([`external_token`](Self::external_token)); see [`ExternalCredential::from_digest`].
    ///
    /// # Errors
    /// [`Error::Token`](crate::Error::Token) if the system returns no random bytes.
    pub fn external(manifest: Manifest) -> Result<Self> {
        let id = InstallationId::generate();
        let kind = PluginKind::External(ExternalCredential::new(ExternalToken::generate()?));
        Ok(Self::new(id, manifest, kind))
    }

    /// Makes a record of its parts, for a store that reads back what it kept: all other fields are as
    /// after installation ([State names](crate::protocol#state-names)), and can be set.
    pub fn new(id: InstallationId, manifest: Manifest, kind: PluginKind) -> Self {
        let active_state = match kind {
            PluginKind::Supervised(_) => ActiveState::Inactive,
            PluginKind::External(_) => ActiveState::Active,
        };
        let now = SystemTime::now();
        Self {
            id,
            manifest,
            kind,
            active_state,
            active_state_changed_at: now,
            configuration: Configuration::new(),
            pending_configuration: None,
            added_at: now,
            overrides: Overrides::default(),
            damage: None,
        }
    }

    /// Sets the state that the administrator wants; a change is dated now.
    #[must_use]
    pub fn with_active_state(mut self, state: ActiveState) -> Self {
        if self.active_state != state {
            self.active_state = state;
            self.active_state_changed_at = SystemTime::now();
        }
        self
    }

    /// Sets the stored configuration.
    #[must_use]
    pub fn with_configuration(mut self, configuration: Configuration) -> Self {
        self.configuration = configuration;
        self
    }

    /// Adds a variable to the process's environment.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.overrides.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the shape in which the plugin receives its credentials.
    #[must_use]
    pub fn with_access_shape(mut self, shape: AccessShape) -> Self {
        self.overrides.access_shape = Some(shape);
        self
    }

    /// Sets the largest message that the plugin accepts, in bytes.
    #[must_use]
    pub fn with_outgoing_message_limit(mut self, bytes: usize) -> Self {
        self.overrides.outgoing_message = Some(bytes);
        self
    }

    /// Sets how the plugin's connection is checked for signs of life.
    #[must_use]
    pub fn with_health(mut self, health: Health) -> Self {
        self.overrides.health = Some(health);
        self
    }

    /// Sets how many messages the plugin may send in a second; 0 means no limit.
    #[must_use]
    pub fn with_inbound_per_second(mut self, messages: u32) -> Self {
        self.overrides.inbound_per_second = Some(messages);
        self
    }

    /// Sets the resources that the process may use.
    #[must_use]
    pub fn with_process_limits(mut self, limits: ProcessLimits) -> Self {
        self.overrides.process_limits = limits;
        self
    }

    /// Whether this is the record of the external plugin with this token. The time that the answer takes
    /// reveals nothing of the token: digests are compared, and no token can be computed from those.
    pub fn has_token(&self, token: &ExternalToken) -> bool {
        matches!(&self.kind, PluginKind::External(known) if known.digest() == token.digest())
    }

    /// The token of an external plugin, if it is kept.
    pub fn external_token(&self) -> Option<&ExternalToken> {
        match &self.kind {
            PluginKind::External(credential) => credential.token(),
            PluginKind::Supervised(_) => None,
        }
    }

    /// The SHA-256 of the plugin's archive, if that is in the store.
    pub fn stored_archive(&self) -> Option<&str> {
        match &self.kind {
            PluginKind::Supervised(Source::Stored { sha256, .. }) => Some(sha256),
            _ => None,
        }
    }

    /// Whether the plugin is supervised or external.
    pub fn mode(&self) -> PluginMode {
        match self.kind {
            PluginKind::Supervised(_) => PluginMode::Supervised,
            PluginKind::External(_) => PluginMode::External,
        }
    }
}
