//! `Installation`: an installed plugin as the manager shows it, and how an admin API may show it too.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Manager, ManagerInner};
use crate::error::{Error, Result};
use crate::health::Health;
use crate::id::InstallationId;
use crate::protocol::AccessShape;
use crate::protocol::configuration::Configuration;
use crate::protocol::manifest::Manifest;
use crate::session::{Problem, Session};
use crate::shown::unix_seconds;
use crate::state::{ActiveState, PluginMode, ReportedState};
use crate::store::{Overrides, PluginKind, Record, Source};

/// An installed plugin, as it was when this was made: its record, and the state of its session.
///
/// It serialises as what an admin API may show to people, with these members:
///
/// | member | what |
/// | --- | --- |
/// | `id`, `manifest`, `mode`, `added_at`, `added_by`, `labels` | of the [record](Self::record) |
/// | `active_state` | the state that the administrator wants |
/// | `reported_state`, `since`, `message` | as the methods return them |
/// | `details` | of the [problem](Self::problem), as [`Problem::to_json`] returns them |
/// | `source` | `{"kind": "stored", "sha256": …, "size": …}` for a package, `archive` or `directory` for the embedder's own; `null` for an external plugin |
/// | `environment` | the names of the variables that the record adds |
/// | `overrides` | all other settings of its own, by the names of their setters |
/// | `damage` | the parts of the record that could not be read, or `null` |
/// | `warnings` | as the method returns them |
/// | `configuration` | only after [`show_configuration`](Self::show_configuration) |
///
/// Times are seconds since 1970, and durations seconds. `details` quotes what the plugin printed last. Tokens
/// and the values of variables are in neither the serialised form nor the [`Debug`](std::fmt::Debug) text; the
/// configuration is in the former only where it was asked for.
#[derive(Clone)]
pub struct Installation {
    record: Record,
    state: ReportedState,
    since: SystemTime,
    message: Option<String>,
    problem: Option<Problem>,
    warnings: Vec<String>,
    shows_configuration: bool,
}

impl Installation {
    /// Returns the host's id for it.
    pub fn id(&self) -> InstallationId {
        self.record.id
    }

    /// Returns the stored record, with everything that is secret in it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns the plugin's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.record.manifest
    }

    /// Returns the plugin's state: `inactive` if it is not loaded, `errored` if its record is damaged.
    pub fn reported_state(&self) -> ReportedState {
        self.state
    }

    /// Returns when the plugin became active; in any other state, when the wanted state last changed, as in
    /// Storyden's HTTP API.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// Returns what is wrong, or went wrong most recently.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns what the [message](Self::message) is about, unless that is a damaged record or why the plugin
    /// could not be loaded.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// Returns what the author of the package may not have meant, each in a sentence.
    /// [`install`](Manager::install) and [`update_package`](Manager::update_package) find, log and return
    /// it; otherwise there is nothing.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Shows the stored configuration too when this is serialised. It may hold secrets: a password for some
    /// other service, say.
    #[must_use]
    pub fn show_configuration(mut self) -> Self {
        self.shows_configuration = true;
        self
    }

    pub(super) fn warned(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }
}

/// An installation as it is serialised.
#[derive(Serialize)]
struct Shown<'a> {
    id: InstallationId,
    manifest: &'a Manifest,
    mode: PluginMode,
    active_state: ActiveState,
    reported_state: ReportedState,
    since: f64,
    message: Option<&'a str>,
    details: Map<String, Value>,
    added_at: f64,
    added_by: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    source: Option<ShownSource<'a>>,
    environment: Vec<&'a str>,
    overrides: ShownOverrides,
    damage: Option<&'a str>,
    warnings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<&'a Configuration>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum ShownSource<'a> {
    Archive,
    Directory,
    Stored { sha256: &'a str, size: u64 },
}

/// What a plugin has been given for itself, but for its environment. The form of the store has other names and
/// other times.
#[derive(Serialize)]
pub(crate) struct ShownOverrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_shape: Option<AccessShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outbound_message: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<ShownHealth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inbound_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    process_limits: Map<String, Value>,
}

#[derive(Serialize)]
struct ShownHealth {
    interval: f64,
    timeout: f64,
    misses_allowed: u32,
    rpc_ping: bool,
    busy_limit: f64,
}

impl ShownOverrides {
    pub(crate) fn of(overrides: &Overrides) -> Self {
        // Destructured, so that a new setting cannot be forgotten here.
        let Overrides {
            environment: _,
            access_shape,
            outbound_message,
            health,
            inbound_per_second,
            process_limits,
        } = overrides;
        Self {
            access_shape: *access_shape,
            outbound_message: *outbound_message,
            health: health.as_ref().map(ShownHealth::of),
            inbound_per_second: *inbound_per_second,
            process_limits: process_limits.to_json(),
        }
    }
}

impl ShownHealth {
    fn of(health: &Health) -> Self {
        let Health {
            interval,
            timeout,
            misses_allowed,
            rpc_ping,
            busy_limit,
        } = health;
        Self {
            interval: interval.as_secs_f64(),
            timeout: timeout.as_secs_f64(),
            misses_allowed: *misses_allowed,
            rpc_ping: *rpc_ping,
            busy_limit: busy_limit.as_secs_f64(),
        }
    }
}

impl Serialize for Installation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = &self.record;
        let environment = &record.overrides.environment;
        let source = match &record.kind {
            PluginKind::Supervised(Source::Archive(_)) => Some(ShownSource::Archive),
            PluginKind::Supervised(Source::Directory(_)) => Some(ShownSource::Directory),
            PluginKind::Supervised(Source::Stored { sha256, size }) => Some(ShownSource::Stored {
                sha256,
                size: *size,
            }),
            PluginKind::External { .. } => None,
        };
        let shown = Shown {
            id: record.id,
            manifest: &record.manifest,
            mode: record.mode(),
            active_state: record.active_state,
            reported_state: self.state,
            since: unix_seconds(self.since),
            message: self.message(),
            details: (self.problem.as_ref())
                .map(Problem::to_json)
                .unwrap_or_default(),
            added_at: unix_seconds(record.added_at),
            added_by: record.added_by.as_deref(),
            labels: &record.labels,
            source,
            environment: environment.iter().map(|(name, _)| &**name).collect(),
            overrides: ShownOverrides::of(&record.overrides),
            damage: record.damage.as_deref(),
            warnings: &self.warnings,
            configuration: self.shows_configuration.then_some(&record.configuration),
        };
        shown.serialize(serializer)
    }
}

impl fmt::Debug for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installation")
            .field("id", &self.id())
            .field("name", &self.record.manifest.id)
            .field("version", &self.record.manifest.version)
            .field("active_state", &self.record.active_state)
            .field("reported_state", &self.state)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// Returns an installed plugin.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or [the store's](crate::store::Store#errors).
    pub fn get(&self, id: InstallationId) -> Result<Installation> {
        self.inner.get(id)
    }

    /// Returns all installed plugins, the oldest first, including those with damaged records.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [The store's](crate::store::Store#errors).
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

    /// Returns this record with the present state of its plugin.
    pub(super) fn view(&self, record: Record) -> Installation {
        // If the record is damaged, the session may wait for a connection that cannot come.
        let is_sound = record.damage.is_none();
        let session = self.host.session(record.id).filter(|_| is_sound);
        let mut shown = Installation {
            state: ReportedState::Inactive,
            since: record.active_state_changed_at,
            message: None,
            problem: None,
            warnings: Vec::new(),
            shows_configuration: false,
            record,
        };
        if let Some(now) = session.as_ref().map(Session::snapshot) {
            shown.state = now.state;
            if let (ReportedState::Active, Some(since)) = (now.state, now.started_at) {
                shown.since = since;
            }
            let message = now.problem.as_ref().map(Problem::message);
            shown.message = message.map(str::to_owned);
            shown.problem = now.problem;
        } else if let Some(problem) = self.stored_problem(&shown.record) {
            shown.state = ReportedState::Errored;
            shown.message = Some(problem);
        }
        shown
    }

    /// Returns why a plugin that is not loaded could not be.
    fn stored_problem(&self, record: &Record) -> Option<String> {
        match &record.damage {
            Some(problem) => Some(format!("its record is damaged: {problem}")),
            None => (self.failures.lock().get(&record.id)).map(ToString::to_string),
        }
    }
}
