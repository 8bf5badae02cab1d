//! The manager: operations on installations, over a host and its store. Each happens wholly or not at
//! all, also when the process is killed in the middle.
//!
//! What lives here: installing, updating, activating, configuring, removing, starting at boot, and
//! cleaning up after a crash. What does not: running plugins (`session`, `reaper`), archives and what
//! is unpacked of them (`package`), and keeping records (`store`).
//!
//! | file | operations |
//! | --- | --- |
//! | `source`, `received` | where a package comes from, and receiving it |
//! | `install`, `removal` | a plugin comes and goes |
//! | `update` | another version in the place of one |
//! | `external` | manifest and token of an external plugin |
//! | `activation`, `boot` | starting and stopping |
//! | `configuration` | what the plugin is told and what is stored |
//! | `intent` | what is under way on disk, so that a crash can be cleaned up after |
//! | `operations`, `quota` | one at a time on each installation; limits on all, and unneeded archives |
//!
//! Locks: which operations are in progress, and what they will store, for an instant each. The second is held
//! over I/O while archives that no record names are removed.

mod activation;
mod boot;
mod configuration;
mod external;
mod install;
mod installation;
mod intent;
mod operations;
mod quota;
mod received;
mod removal;
mod settings;
mod source;
mod update;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

pub use boot::BootReport;
pub use configuration::ConfigureMode;
pub use external::InstalledExternal;
pub use installation::{Installation, Status};
pub use removal::{KeepData, RemoveReport};
pub use settings::ManagerSettings;
pub use source::PackageSource;
pub use update::{UpdateOptions, UpdateReport};

use crate::error::{Error, Result, StoreError};
#[cfg(feature = "fetch")]
use crate::fetch::Fetcher;
use crate::host::Host;
use crate::id::InstallationId;
use crate::owner_lock::OwnerLock;
use crate::runtime::{self, RuntimeProvider};
use crate::session::context::HostContext;
use crate::state::PluginMode;
use crate::store::{Record, Store};
use crate::text::PluginName;
use operations::{Operation, Operations};
use quota::Quota;

/// What is locked by the one manager of a data folder.
const LOCK: &str = "manager.lock";

/// Installs plugins and keeps them: the layer between an embedder, or an administrator, and a host.
/// Cloning gives another handle to the same one. It keeps its host from being dropped, and for a moment
/// longer while a plugin is being told its configuration again.
///
/// Operations on one installation come one after the other, those on different ones do not wait for
/// each other. Of an operation that failed, or that a crash cut short, nothing is left; one that was
/// reported done survives a crash, as far as the store's records do.
///
/// ```no_run
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use plugin_runner::store::SqliteStore;
/// use plugin_runner::{Host, Manager, PackageSource};
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
/// println!("{} is {}", plugin.record.manifest.name, plugin.status.state);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Manager {
    inner: Arc<ManagerInner>,
}

/// A handle that does not keep the manager, and with it the host, from being dropped: for handlers and
/// services that belong to that host. See [`WeakHost`](crate::WeakHost).
#[derive(Clone)]
pub struct WeakManager {
    inner: Weak<ManagerInner>,
}

impl WeakManager {
    /// The manager, unless its last handle has been dropped.
    pub fn upgrade(&self) -> Option<Manager> {
        let inner = self.inner.upgrade()?;
        Some(Manager { inner })
    }
}

impl fmt::Debug for WeakManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakManager").finish_non_exhaustive()
    }
}

struct ManagerInner {
    host: Host,
    settings: ManagerSettings,
    operations: Operations,
    quota: Quota,
    #[cfg(feature = "fetch")]
    fetcher: Fetcher,
    /// Why plugins are not loaded that should be.
    failures: Mutex<HashMap<InstallationId, Arc<str>>>,
    /// Whoever cleans up after crashes must be the only one at work. Last, so that the folder is given up
    /// after the host has ended, if it ends with this.
    _owner: OwnerLock,
}

impl Manager {
    /// A manager of this host's plugins, with the default settings; cleans up what operations have
    /// left that a crash cut short. A host has one manager at a time.
    ///
    /// # Blocking
    /// For the store and the disk.
    ///
    /// # Errors
    /// - [`Error::Store`] with [`StoreError::InUse`]: the data folder has a manager already, this host's or
    ///   another's.
    /// - [`Error::Io`]: the data folder cannot be made, or not be locked.
    /// - The store's.
    ///
    /// What cannot be cleaned up is logged, and tried again by the next manager.
    pub fn new(host: Host) -> Result<Self> {
        Self::with_settings(host, ManagerSettings::default())
    }

    /// As [`new`](Self::new), with other settings.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and [`Error::Setting`] with the one that cannot work.
    pub fn with_settings(host: Host, settings: ManagerSettings) -> Result<Self> {
        settings.validate()?;
        #[cfg(feature = "fetch")]
        let fetcher = Fetcher::new(settings.fetch.clone(), host.threads().clone())?;
        let context = host.shared().context.clone();
        let owner = lock_data_dir(&context.settings.data_dir)?;
        let inner = Arc::new(ManagerInner {
            host,
            settings,
            operations: Operations::default(),
            quota: Quota::default(),
            #[cfg(feature = "fetch")]
            fetcher,
            failures: Mutex::default(),
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

    /// The host whose plugins these are.
    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    /// A handle that does not keep the manager alive.
    pub fn downgrade(&self) -> WeakManager {
        WeakManager {
            inner: Arc::downgrade(&self.inner),
        }
    }

    /// The settings.
    pub fn settings(&self) -> &ManagerSettings {
        &self.inner.settings
    }
}

impl ManagerInner {
    fn context(&self) -> &Arc<HostContext> {
        &self.host.shared().context
    }

    fn store(&self) -> &dyn Store {
        &*self.context().services.store
    }

    /// Begins an operation on an installation.
    fn begin(&self, id: InstallationId, name: &'static str) -> Result<Operation<'_>> {
        self.begin_within(id, name, self.settings.busy_timeout)
    }

    /// As [`begin`](Self::begin), for who waits no longer than this for another one.
    fn begin_within(
        &self,
        id: InstallationId,
        name: &'static str,
        limit: Duration,
    ) -> Result<Operation<'_>> {
        let operation = self.operations.begin(id, name, limit)?;
        // After the wait: the one before may have ended because of that.
        if self.context().is_shut_down() {
            return Err(Error::ShutDown);
        }
        Ok(operation)
    }

    /// A record that may be stored again with changes: of a damaged one that would keep the stand-ins.
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

    /// Whether this host runs plugins from packages.
    fn check_runtime(&self) -> Result<()> {
        match self.context().settings.provider {
            RuntimeProvider::Local => Ok(()),
            provider => Err(runtime::unavailable(provider)),
        }
    }

    /// The folder of an installation, which need not be there.
    fn installation_dir(&self, id: InstallationId) -> PathBuf {
        self.context().settings.data_dir.join(id.to_string())
    }

    /// How a plugin is named in a log line, for who has only its id. Asks the store.
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

/// Makes the data folder, and makes it this manager's own.
fn lock_data_dir(data: &Path) -> Result<OwnerLock> {
    let path = data.join(LOCK);
    let failed =
        |action: &'static str, error| Error::io(format!("{action} {}", path.display()), error);
    std::fs::create_dir_all(data).map_err(|error| failed("make the folder of", error))?;
    OwnerLock::take(&path, &failed)
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("host", &self.inner.host)
            .finish_non_exhaustive()
    }
}
