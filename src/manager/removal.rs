//! Removing a plugin, with its data or without.

use std::path::PathBuf;

use serde::Serialize;

use super::intent::Intent;
use super::{Manager, ManagerInner};
use crate::duplex::close_code;
use crate::error::{FailureCause, Result};
use crate::fault;
use crate::id::InstallationId;
use crate::package;
use crate::shown;
use crate::state::PluginMode;
use crate::text::Foreign;

const REASON: &str = "removed";

/// The outcome of removing a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemoveReport {
    /// The directory with the data that was kept, if there is any.
    #[serde(serialize_with = "shown::optional_path")]
    pub kept: Option<PathBuf>,
    /// Why some files could not be removed, which the next manager does when it is created; or else what the
    /// runtime could not delete yet, which the host goes on to do.
    pub left: Option<String>,
    /// How many of the plugin's processes are left, in words, if any that left its process group could not
    /// be ended in time. The host goes on trying to end them.
    pub descendants: Option<String>,
}

impl Manager {
    /// Removes a plugin: stops it, or disconnects it for good (close code 1008 `removed`), and deletes its
    /// record, its archive and its files.
    ///
    /// # Blocking
    /// For other operations on it, at most [`busy_timeout`](super::ManagerSettings::busy_timeout); for its
    /// stop, at most [`Timeouts::stop`](crate::Timeouts::stop); and for the disk, at most two minutes for
    /// each directory of the installation: what is not removed by then is [left](RemoveReport::left). An
    /// update that is waiting for its new version is cancelled.
    ///
    /// # Errors
    /// After any of them the plugin is still installed.
    /// - [`Error::NotInstalled`](crate::Error::NotInstalled).
    /// - [`Error::Timeout`](crate::Error::Timeout) with [`Phase::Stop`](crate::error::Phase::Stop): its process
    ///   could not be stopped in time.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy): another operation on it is in progress.
    /// - [`Error::Io`](crate::Error::Io): the data directory cannot be written to.
    /// - [The store's](crate::store::Store#errors), or [`Error::ShutDown`](crate::Error::ShutDown).
    pub fn remove(&self, id: InstallationId) -> Result<RemoveReport> {
        self.inner.remove(id, false)
    }

    /// Removes a plugin as [`remove`](Self::remove) does, except for its data directory and its log.
    ///
    /// # Blocking
    /// As [`remove`](Self::remove).
    ///
    /// # Errors
    /// Those of [`remove`](Self::remove).
    pub fn remove_keeping_data(&self, id: InstallationId) -> Result<RemoveReport> {
        self.inner.remove(id, true)
    }
}

impl ManagerInner {
    fn remove(&self, id: InstallationId, keep_data: bool) -> Result<RemoveReport> {
        let _operation = self.begin_stopping(id, "remove")?;
        let record = self.record(id)?;
        let plugin = Foreign::new(&record.manifest.id);
        let host = &self.host;
        let unload = || host.unload_with(id, close_code::POLICY_VIOLATION, REASON);
        // Written first, since that may fail. It has no meaning as long as there is a record.
        let intent_file = self.write_intent(id, &Intent::Remove { keep_data })?;
        let was_loaded = host.session(id).is_some();
        let descendants = match unload() {
            Ok(()) => None,
            Err(error) => {
                let Some(FailureCause::DescendantsLeft(left)) = error.cause() else {
                    intent_file.done();
                    return Err(error);
                };
                Some(left.to_string())
            }
        };
        fault::point(fault::UNLOADED, id);
        let runtime = self.context().services.runtime.as_ref();
        let runtime = runtime.filter(|_| record.mode() == PluginMode::Supervised);
        let told = runtime.map_or(Ok(()), |runtime| runtime.removing(id, keep_data));
        let deleted = told.and_then(|()| self.store().delete(id));
        if let Err(error) = deleted {
            if let Some(runtime) = runtime {
                runtime.removed(id, false);
            }
            intent_file.done();
            if was_loaded {
                // Back to how it was: it runs again if that is wanted, or may connect.
                self.load_again(id);
            }
            return Err(error);
        }
        fault::point(fault::UNRECORDED, id);
        self.revised();
        self.failures.lock().remove(&id);
        // Another thread may have loaded it again meanwhile. Without a record that is no longer possible.
        if let Err(error) = unload() {
            log::warn!("plugin {plugin}: {error}");
        }
        self.context().services.logs.remove(id);
        let root = self.installation_dir(id);
        let removed = package::remove_installation(&root, keep_data);
        self.collect_archives();
        intent_file.done_if(plugin, &removed);
        let left_elsewhere = runtime.and_then(|runtime| runtime.removed(id, true));
        log::info!("plugin {plugin}: removed ({id})");
        Ok(RemoveReport {
            kept: (keep_data && root.is_dir()).then_some(root),
            left: removed
                .err()
                .map(|error| error.to_string())
                .or(left_elsewhere),
            descendants,
        })
    }
}
