//! Installing, updating, configuring and removing plugins, and having them back after a restart: [`Manager`], on
//! top of a host and its store, with what its operations take and return. Each takes place completely or not at
//! all, also if the process is killed in the middle.
//!
//! The manager does not run plugins (`session`, `reaper`), read or unpack archives (`package`), or keep records
//! (`store`).

// | file | operations |
// | `source`, `received` | where a package comes from, and receiving it |
// | `install`, `removal` | installing and removing a plugin |
// | `update`, `versions` | replacing one version by another; which are kept, and going back to one |
// | `external` | manifest and token of an external plugin |
// | `activation`, `boot` | starting and stopping |
// | `logs` | following what a plugin prints |
// | `check` | whether everything is alive |
// | `configuration` | what is proposed to the plugin and what is stored |
// | `overrides` | a plugin's own settings; the embedder's labels |
// | `installation` | what is shown of a plugin, and how that is serialised |
// | `lookup` | finding plugins and sessions |
// | `metrics` | what a host and its plugins have done, as text for Prometheus |
// | `intent` | the intent log: what is in progress on disk, for cleaning up after a crash |
// | `operations`, `quota` | one at a time on each installation; limits on all, and unneeded archives |
//
// Locks: two for the operations in progress and one for what they will store, for an instant each. The last
// is held during I/O while archives that no record names are removed.

mod activation;
mod boot;
mod check;
mod configuration;
mod external;
mod install;
mod installation;
mod intent;
mod logs;
mod lookup;
mod metrics;
mod operations;
mod overrides;
mod quota;
mod received;
mod removal;
mod settings;
mod source;
mod update;
mod versions;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

pub use boot::BootReport;
pub use installation::Installation;
#[cfg(feature = "admin")]
pub(crate) use installation::ShownOverrides;
pub use lookup::InstallationFilter;
#[cfg(feature = "admin")]
pub(crate) use metrics::{PluginUsage, ProcessUsage, Usage};
pub use removal::RemoveReport;
pub use settings::ManagerSettings;
pub use source::PackageSource;
pub use update::UpdateReport;
pub use versions::Version;

use crate::error::{Error, Result, StoreError};
#[cfg(feature = "fetch")]
use crate::fetch::Fetcher;
use crate::host::Host;
use crate::id::InstallationId;
use crate::owner_lock::OwnerLock;
use crate::session::context::HostContext;
use crate::state::PluginMode;
use crate::store::{Record, Store};
use crate::text::PluginName;
use check::Checks;
use operations::{Operation, Operations};
use quota::Quota;

/// The file that the one manager of a data directory locks.
const LOCK: &str = "manager.lock";

/// Installs plugins and manages them: the layer between an embedder, or an administrator, and a host.
/// Cloning returns another handle to the same manager. A manager keeps its host from being dropped, also for
/// as long as it is sending a plugin its configuration again. So handlers and services that belong to that
/// host must not hold one: they take a [`Weak`](std::sync::Weak) to an `Arc<Manager>`.
///
/// Operations on one installation run one after the other; those on different installations do not wait for
/// each other. An operation that failed, or that a crash interrupted, leaves nothing behind; one that has
/// returned survives a crash, as far as the store's records do.
///
/// ```no_run
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use plugin_runner::manager::PackageSource;
/// use plugin_runner::{Host, Manager, SqliteStore};
///
/// # fn main() -> plugin_runner::Result<()> {
/// let store = Arc::new(SqliteStore::open("data")?);
/// let host = Host::builder().data_dir("data").store(store).build()?;
/// let _listener = host.listen("127.0.0.1:0")?;
/// let manager = Manager::new(host)?;
/// manager.boot(Duration::from_secs(60))?;
///
/// let plugin = manager.install(PackageSource::file("fire-bot.zip"))?;
/// let plugin = manager.activate(plugin.id(), Duration::from_secs(60))?;
/// println!("{} is {}", plugin.manifest().name, plugin.reported_state());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Manager {
    inner: Arc<ManagerInner>,
}

struct ManagerInner {
    host: Host,
    settings: ManagerSettings,
    operations: Operations,
    /// What is being installed or updated, by the manifest's id.
    deployments: Operations<String>,
    quota: Quota,
    #[cfg(feature = "fetch")]
    fetcher: Fetcher,
    /// Why plugins that should be loaded are not.
    failures: Mutex<HashMap<InstallationId, Arc<str>>>,
    /// Whether a boot has succeeded.
    booted: AtomicBool,
    checks: Arc<Checks>,
    /// How often a plugin was installed, replaced by another version, or removed.
    revision: AtomicU64,
    /// Only one manager may clean up after crashes. Last, so that the directory is unlocked after the host
    /// has ended, if it ends with this.
    _owner: OwnerLock,
}

impl Manager {
    /// Creates the manager of this host's plugins, with the default settings, and cleans up what
    /// interrupted operations have left. A host has one manager at a time.
    ///
    /// # Blocking
    /// For the store and the disk.
    ///
    /// # Errors
    /// - [`ErrorKind::StoreInUse`](crate::ErrorKind::StoreInUse): the data directory already has a manager, of
    ///   this host or another one.
    /// - [`Error::Io`]: the data directory cannot be created or locked.
    /// - [The store's](crate::store::Store#errors).
    ///
    /// What cannot be cleaned up is logged, and left for the next manager.
    pub fn new(host: Host) -> Result<Self> {
        Self::with_settings(host, ManagerSettings::default())
    }

    /// Creates a manager as [`new`](Self::new) does, with other settings.
    ///
    /// # Blocking
    /// For the store and the disk.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and [`Error::Setting`] with the setting that is invalid.
    pub fn with_settings(host: Host, settings: ManagerSettings) -> Result<Self> {
        settings.validate()?;
        #[cfg(feature = "fetch")]
        let fetcher = Fetcher::new(settings.fetch(), host.threads().clone())?;
        let context = host.shared().context.clone();
        let owner = lock_data_dir(&context.settings.data_dir)?;
        let inner = Arc::new(ManagerInner {
            host,
            settings,
            operations: Operations::default(),
            deployments: Operations::default(),
            quota: Quota::default(),
            #[cfg(feature = "fetch")]
            fetcher,
            failures: Mutex::default(),
            booted: AtomicBool::new(false),
            checks: Arc::default(),
            revision: AtomicU64::new(0),
            _owner: owner,
        });
        let weak = Arc::downgrade(&inner);
        *context.services.on_reconnect.write() = Some(Arc::new(move |id| {
            if let Some(inner) = weak.upgrade() {
                inner.resync_configuration(id);
            }
        }));
        inner.clean_up()?;
        Ok(Self { inner })
    }

    /// Returns the host whose plugins it manages.
    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    /// Returns the settings.
    pub fn settings(&self) -> &ManagerSettings {
        &self.inner.settings
    }

    /// Returns a number that grows whenever a plugin was installed, replaced by another version, or removed.
    pub(crate) fn revision(&self) -> u64 {
        self.inner.revision.load(Ordering::Acquire)
    }
}

impl ManagerInner {
    fn context(&self) -> &Arc<HostContext> {
        &self.host.shared().context
    }

    fn store(&self) -> &dyn Store {
        &*self.context().services.store
    }

    /// Counts what [`Manager::revision`] tells, once it is stored.
    fn revised(&self) {
        self.revision.fetch_add(1, Ordering::Release);
    }

    /// Begins an operation on an installation.
    fn begin(&self, id: InstallationId, name: &'static str) -> Result<Operation<'_>> {
        self.begin_within(id, name, self.settings.busy_timeout)
    }

    /// Begins an operation that waits at most `limit` for another one.
    fn begin_within(
        &self,
        id: InstallationId,
        name: &'static str,
        limit: Duration,
    ) -> Result<Operation<'_>> {
        let operation = self.operations.begin(id, name, limit)?;
        // Checked after the wait: the other operation may have ended because of the shutdown.
        if self.context().is_shut_down() {
            return Err(Error::ShutDown);
        }
        Ok(operation)
    }

    /// Reads a record that may be changed and stored again. A damaged one may not: that would store the
    /// placeholders of what could not be read.
    fn sound_record(&self, id: InstallationId) -> Result<Record> {
        let record = self.record(id)?;
        match &record.damage {
            None => Ok(record),
            Some(problem) => {
                let problem = problem.clone();
                Err(StoreError::DamagedRecord { id, problem }.into())
            }
        }
    }

    /// Returns the record if the host runs the plugin.
    fn supervised(record: Record) -> Result<Record> {
        match record.mode() {
            PluginMode::Supervised => Ok(record),
            PluginMode::External => Err(Error::Unsupported(
                "not possible with an external plugin, which the host does not run",
            )),
        }
    }

    /// Returns the record if the plugin runs elsewhere.
    fn external(record: Record) -> Result<Record> {
        match record.mode() {
            PluginMode::External => Ok(record),
            PluginMode::Supervised => Err(Error::Unsupported(
                "only possible with an external plugin, and the host runs this one",
            )),
        }
    }

    /// Checks that this host runs plugins from packages.
    fn check_runtime(&self) -> Result<()> {
        self.context().services.runtime().map(drop)
    }

    /// Checks that a plugin whose archive is in the store can run where this host runs plugins.
    ///
    /// # Errors
    /// What the [runtime refuses](crate::runtime::Runtime::accept).
    fn check_accepted(&self, record: &Record) -> Result<()> {
        let services = &self.context().services;
        services.runtime()?.accept(record, &*services.store)
    }

    /// Returns the directory of an installation, which need not exist.
    fn installation_dir(&self, id: InstallationId) -> PathBuf {
        self.context().settings.data_dir.join(id.to_string())
    }

    /// Returns the name of a plugin for a log line, if only its id is at hand. Reads the store.
    fn display_name(&self, id: InstallationId) -> String {
        let record = self.store().get(id).ok().flatten();
        let manifest_id = record.as_ref().map_or("", |record| &record.manifest.id);
        PluginName { manifest_id, id }.to_string()
    }
}

impl Drop for ManagerInner {
    fn drop(&mut self) {
        *self.context().services.on_reconnect.write() = None;
    }
}

/// Creates the data directory, and locks it for this manager.
fn lock_data_dir(data: &Path) -> Result<OwnerLock> {
    let path = data.join(LOCK);
    let failed =
        |action: &'static str, error| Error::io(format!("{action} {}", path.display()), error);
    std::fs::create_dir_all(data).map_err(|error| failed("create the directory of", error))?;
    OwnerLock::take(&path, &failed)
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("host", &self.inner.host)
            .finish_non_exhaustive()
    }
}
