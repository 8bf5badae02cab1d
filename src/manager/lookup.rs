//! Finding installed plugins, and the sessions of those that are loaded.

use super::{Installation, Manager};
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::session::Session;
use crate::state::{ActiveState, PluginMode, ReportedState};
use crate::store::Record;

/// Which plugins [`Manager::list_matching`] returns: those of which all that is set is true. By default
/// all plugins match.
///
/// ```no_run
/// use plugin_runner::manager::InstallationFilter;
/// use plugin_runner::{Manager, ReportedState};
///
/// # fn errored(manager: &Manager) -> plugin_runner::Result<()> {
/// let filter = InstallationFilter::default()
///     .reported_state(ReportedState::Errored)
///     .label("team", "red");
/// for plugin in manager.list_matching(&filter)? {
///     println!("{}: {}", plugin.manifest().name, plugin.message().unwrap_or_default());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct InstallationFilter {
    state: Option<ReportedState>,
    wanted: Option<ActiveState>,
    mode: Option<PluginMode>,
    manifest_id: Option<String>,
    labels: Vec<(String, String)>,
}

impl InstallationFilter {
    /// Those in this state.
    pub fn reported_state(mut self, state: ReportedState) -> Self {
        self.state = Some(state);
        self
    }

    /// Those that are wanted in this state.
    pub fn active_state(mut self, state: ActiveState) -> Self {
        self.wanted = Some(state);
        self
    }

    /// Those that the host runs, or those that run elsewhere.
    pub fn mode(mut self, mode: PluginMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Those whose manifest has this id.
    pub fn manifest_id(mut self, id: impl Into<String>) -> Self {
        self.manifest_id = Some(id.into());
        self
    }

    /// Those that have this label with this value. Of several, all are needed.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }

    /// Whether all that is set and stored is true of this plugin.
    fn fits(&self, record: &Record) -> bool {
        let id = self.manifest_id.as_ref();
        self.wanted
            .is_none_or(|wanted| wanted == record.active_state)
            && self.mode.is_none_or(|mode| mode == record.mode())
            && id.is_none_or(|id| *id == record.manifest.id)
            && (self.labels.iter()).all(|(key, value)| record.labels.get(key) == Some(value))
    }
}

impl Manager {
    /// Returns the plugins that match, the oldest first.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [The store's](crate::store::Store#errors).
    pub fn list_matching(&self, filter: &InstallationFilter) -> Result<Vec<Installation>> {
        let records = self.inner.store().list()?;
        Ok(records
            .into_iter()
            .filter(|record| filter.fits(record))
            .map(|record| self.inner.view(record))
            .filter(|plugin| {
                filter
                    .state
                    .is_none_or(|state| state == plugin.reported_state())
            })
            .collect())
    }

    /// Returns the plugins whose manifest has this id, the oldest first: none, one, or more, since the same
    /// plugin may be installed more than once.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [The store's](crate::store::Store#errors).
    pub fn find(&self, manifest_id: &str) -> Result<Vec<Installation>> {
        self.list_matching(&InstallationFilter::default().manifest_id(manifest_id))
    }

    /// Returns the session of a plugin that is loaded. This loads and starts nothing:
    /// [`activate`](Self::activate) does.
    ///
    /// # Blocking
    /// For the store's own I/O, if it is not loaded.
    ///
    /// # Errors
    /// - [`Error::NotInstalled`].
    /// - [`Error::NotLoaded`]: it is not wanted active and was not since the host was started, or it could not
    ///   be loaded.
    /// - [The store's](crate::store::Store#errors).
    pub fn session(&self, id: InstallationId) -> Result<Session> {
        if let Some(session) = self.inner.host.session(id) {
            return Ok(session);
        }
        self.inner.record(id)?;
        Err(Error::NotLoaded(id))
    }
}
