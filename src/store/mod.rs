//! Where records live: what is known of each installed plugin, and the trait behind which it is
//! kept. What a record means is the business of others; nothing here starts or stops anything.

mod memory;

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Map, Value};

pub use memory::MemoryStore;

use crate::auth::ExternalToken;
use crate::error::Result;
use crate::health::Health;
use crate::id::InstallationId;
use crate::process::ProcessLimits;
use crate::protocol::access::AccessShape;
use crate::protocol::manifest::Manifest;
use crate::state::{ActiveState, PluginMode};

/// One installed plugin.
#[derive(Clone, Debug)]
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
    /// The stored configuration object; empty when never configured.
    pub configuration: Map<String, Value>,
    /// When it was installed.
    pub added_at: SystemTime,
    /// What departs from the host's defaults for this plugin.
    pub overrides: Overrides,
}

/// Who runs a plugin, and what that needs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PluginKind {
    /// The host runs it.
    Supervised(Source),
    /// It connects in with this token.
    External(ExternalToken),
}

/// Where the files of a supervised plugin are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A zip archive. It is unpacked below the data folder and runs there.
    Archive(PathBuf),
    /// A folder that it runs in as it is; for development.
    Folder(PathBuf),
}

/// What departs from the host's defaults for one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overrides {
    /// Variables added to the process's environment.
    pub environment: Vec<(String, String)>,
    /// The shape in which it gets its credentials, if not the one its user agent suggests.
    pub access_shape: Option<AccessShape>,
    /// The largest message it accepts, in bytes, if not what its user agent suggests.
    pub outgoing_message: Option<usize>,
    /// How its connection is watched for signs of life, if not as the host's are. Settings that cannot
    /// work are logged, and the host's apply.
    pub health: Option<Health>,
    /// How many messages it may send in a second, if not what the host's
    /// [`Limits::inbound_per_second`](crate::Limits::inbound_per_second) says; 0 is no limit. A
    /// change counts from the next connection on.
    pub inbound_per_second: Option<u32>,
    /// What its process may use; where it says nothing, the host's limits count.
    pub process_limits: ProcessLimits,
}

impl Record {
    /// A supervised plugin, as it is after installation: inactive, with a new id.
    pub fn supervised(manifest: Manifest, source: Source) -> Self {
        let id = InstallationId::generate();
        Self::new(id, manifest, PluginKind::Supervised(source))
    }

    /// An external plugin, as it is after installation: wanted active, with a new id and token.
    ///
    /// # Errors
    /// [`Error::Token`](crate::Error::Token) when the system gives no random bytes.
    pub fn external(manifest: Manifest) -> Result<Self> {
        let id = InstallationId::generate();
        let kind = PluginKind::External(ExternalToken::generate()?);
        Ok(Self::new(id, manifest, kind))
    }

    /// A record made of its parts, for a store that reads back what it kept: everything else is as
    /// after installation (protocol file, section 13.1), and the fields are open.
    pub fn new(id: InstallationId, manifest: Manifest, kind: PluginKind) -> Self {
        let active_state = match kind {
            PluginKind::Supervised(_) => ActiveState::Inactive,
            PluginKind::External(_) => ActiveState::Active,
        };
        Self {
            id,
            manifest,
            kind,
            active_state,
            configuration: Map::new(),
            added_at: SystemTime::now(),
            overrides: Overrides::default(),
        }
    }

    /// Sets what the administrator wants.
    #[must_use]
    pub fn with_active_state(mut self, state: ActiveState) -> Self {
        self.active_state = state;
        self
    }

    /// Sets the stored configuration.
    #[must_use]
    pub fn with_configuration(mut self, configuration: Map<String, Value>) -> Self {
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

    /// Whether it is the record of the external plugin with this token; compared in constant time.
    pub fn has_token(&self, token: &ExternalToken) -> bool {
        // Equality of tokens is in constant time.
        matches!(&self.kind, PluginKind::External(known) if known == token)
    }

    /// Who runs it.
    pub fn mode(&self) -> PluginMode {
        match self.kind {
            PluginKind::Supervised(_) => PluginMode::Supervised,
            PluginKind::External(_) => PluginMode::External,
        }
    }
}

/// Keeps records. Implementations are shared by threads and must not lose a write that they
/// acknowledged. The host asks whenever a plugin is loaded, started, connects or calls; what a method
/// waits for, those wait for.
///
/// For errors of their own, implementations make an [`Error::Io`](crate::Error::Io) with
/// [`Error::io`](crate::Error::io).
pub trait Store: Send + Sync + fmt::Debug {
    /// The record with this id. May block for the store's own I/O.
    ///
    /// # Errors
    /// What the store reports.
    fn get(&self, id: InstallationId) -> Result<Option<Record>>;

    /// All records, oldest first. May block for the store's own I/O.
    ///
    /// # Errors
    /// What the store reports.
    fn list(&self) -> Result<Vec<Record>>;

    /// Stores a record, in place of one with the same id. May block for the store's own I/O.
    ///
    /// # Errors
    /// What the store reports; then nothing has changed.
    fn put(&self, record: Record) -> Result<()>;

    /// Removes a record, if it is there. May block for the store's own I/O.
    ///
    /// # Errors
    /// What the store reports; then nothing has changed.
    fn delete(&self, id: InstallationId) -> Result<()>;

    /// The external plugin whose token this is. Tokens are compared in constant time. May block for
    /// the store's own I/O. Asked at each handshake of an external plugin. As it is, it goes through
    /// [`list`](Self::list), which takes the longer the more plugins there are.
    ///
    /// # Errors
    /// What the store reports.
    fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        let mut found = None;
        for record in self.list()? {
            if record.has_token(token) {
                found = Some(record.id);
            }
        }
        Ok(found)
    }
}
