//! `Record`: what is known of one installed plugin. What it means is the business of others; where it
//! is kept is behind [`Store`](super::Store).

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
/// Serialises with all there is, so that a store may keep a record whole, as JSON, say: what is
/// written holds the token of an external plugin where the record does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// The host's id for this installation.
    pub id: InstallationId,
    /// What the author says about the plugin.
    pub manifest: Manifest,
    /// Who runs it, and what that needs.
    pub kind: PluginKind,
    /// What the administrator wants.
    pub active_state: ActiveState,
    /// When `active_state` last changed.
    pub active_state_changed_at: SystemTime,
    /// The stored configuration object; empty when never configured.
    pub configuration: Configuration,
    /// A configuration that was sent to the plugin and has not become the stored one, while it is not
    /// known whether the plugin has taken it. As long as there is one, the plugin is told the stored
    /// one again when it next connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_configuration: Option<Configuration>,
    /// When it was installed.
    pub added_at: SystemTime,
    /// What departs from the host's defaults for this plugin.
    #[serde(default)]
    pub overrides: Overrides,
    /// What of the record the store could not read, in its words; then the field that it was has a
    /// stand-in, and the plugin is not started. Never stored.
    #[serde(skip)]
    pub damage: Option<Arc<str>>,
}

/// Who runs a plugin, and what that needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PluginKind {
    /// The host runs it.
    Supervised(Source),
    /// It connects in with the token that this proves.
    External(ExternalCredential),
}

/// Where the files of a supervised plugin are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// A zip archive of the embedder's. It is unpacked below the data folder and runs there.
    Archive(PathBuf),
    /// A folder that it runs in as it is; for development.
    Directory(PathBuf),
    /// A zip archive in the store. It is unpacked below the data folder and runs there.
    Stored {
        /// Its SHA-256, in lower-case hexadecimal.
        sha256: String,
        /// Its size in bytes.
        size: u64,
    },
}

impl Record {
    /// A supervised plugin, as it is after installation: inactive, with a new id.
    pub fn supervised(manifest: Manifest, source: Source) -> Self {
        let id = InstallationId::generate();
        Self::new(id, manifest, PluginKind::Supervised(source))
    }

    /// An external plugin, as it is after installation: wanted active, with a new id and token. The
    /// token is kept in the record, for handing it to the plugin with
    /// [`external_token`](Self::external_token); see [`ExternalCredential::from_digest`].
    ///
    /// # Errors
    /// [`Error::Token`](crate::Error::Token) when the system gives no random bytes.
    pub fn external(manifest: Manifest) -> Result<Self> {
        let id = InstallationId::generate();
        let kind = PluginKind::External(ExternalCredential::new(ExternalToken::generate()?));
        Ok(Self::new(id, manifest, kind))
    }

    /// A record made of its parts, for a store that reads back what it kept: everything else is as
    /// after installation ([State names](crate::protocol#state-names)), and the fields are open.
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

    /// Sets what the administrator wants, from now on if that is something else.
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

    /// Sets the shape in which the plugin gets its credentials.
    #[must_use]
    pub fn with_access_shape(mut self, shape: AccessShape) -> Self {
        self.overrides.access_shape = Some(shape);
        self
    }

    /// Sets the largest message the plugin accepts, in bytes.
    #[must_use]
    pub fn with_outgoing_message_limit(mut self, bytes: usize) -> Self {
        self.overrides.outgoing_message = Some(bytes);
        self
    }

    /// Sets how the plugin's connection is watched for signs of life.
    #[must_use]
    pub fn with_health(mut self, health: Health) -> Self {
        self.overrides.health = Some(health);
        self
    }

    /// Sets how many messages the plugin may send in a second; 0 is no limit.
    #[must_use]
    pub fn with_inbound_per_second(mut self, messages: u32) -> Self {
        self.overrides.inbound_per_second = Some(messages);
        self
    }

    /// Sets what the process may use.
    #[must_use]
    pub fn with_process_limits(mut self, limits: ProcessLimits) -> Self {
        self.overrides.process_limits = limits;
        self
    }

    /// Whether it is the record of the external plugin with this token. How long the answer takes says
    /// nothing of the token: digests are compared, and no token can be made from those.
    pub fn has_token(&self, token: &ExternalToken) -> bool {
        matches!(&self.kind, PluginKind::External(known) if known.digest() == token.digest())
    }

    /// The token of an external plugin, where it is kept.
    pub fn external_token(&self) -> Option<&ExternalToken> {
        match &self.kind {
            PluginKind::External(credential) => credential.token(),
            PluginKind::Supervised(_) => None,
        }
    }

    /// The SHA-256 of the plugin's archive in the store, if that is where it is.
    pub fn stored_archive(&self) -> Option<&str> {
        match &self.kind {
            PluginKind::Supervised(Source::Stored { sha256, .. }) => Some(sha256),
            _ => None,
        }
    }

    /// Who runs it.
    pub fn mode(&self) -> PluginMode {
        match self.kind {
            PluginKind::Supervised(_) => PluginMode::Supervised,
            PluginKind::External(_) => PluginMode::External,
        }
    }
}
