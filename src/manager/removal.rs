//! Removing a plugin, with its data or without.

use std::path::PathBuf;

use super::Manager;
use super::intent::Intent;
use crate::duplex::close_code;
use crate::error::{Descendants, Error, Result};
use crate::fault;
use crate::id::InstallationId;
use crate::package;
use crate::text::Foreign;

const REASON: &str = "removed";

/// Whether a plugin's data is kept when it is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepData {
    /// Nothing is kept.
    #[default]
    No,
    /// The plugin's data directory and its log are kept.
    Yes,
}

/// The outcome of removing a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoveReport {
    /// The directory with the data that was kept, if there is any.
    pub kept: Option<PathBuf>,
    /// Why some files could not be removed; the next manager removes them when it is created.
    pub left: Option<String>,
    /// What is left of the plugin's processes, if any that left its process group could not be ended in
    /// time. The host goes on trying to end them.
    pub descendants: Option<Descendants>,
}

impl Manager {
    /// Removes a plugin: stops it, or disconnects it for good (close code 1008 `removed`), and deletes its
    /// record, its archive and its files, except for data that is to be kept.
    ///
    /// # Blocking
    /// For other operations on it, at most
    /// [`busy_timeout`](super::ManagerSettings::busy_timeout); for its stop, at most the host's stop
    /// timeout; and for the disk, at most two minutes for each directory of the installation: what is not
    /// removed by then is [left](RemoveReport::left). An update that is waiting for its new version is
    /// cancelled.
    ///
    /// # Errors
    /// After any of them the plugin is still installed.
    /// - [`Error::NotInstalled`].
    /// - [`Error::Timeout`]: its process could not be stopped in time.
    /// - [`Error::Operation`]: another operation on it is in progress.
    /// - The store's, or [`Error::ShutDown`].
    pub fn remove(&self, id: InstallationId, keep_data: KeepData) -> Result<RemoveReport> {
        let inner = &self.inner;
        let _operation = inner.begin_stopping(id, "remove")?;
        let record = inner.record(id)?;
        let plugin = Foreign::new(&record.manifest.id);
        let host = &inner.host;
        let unload = || host.unload_with(id, close_code::POLICY_VIOLATION, REASON);
        let keep_data = keep_data == KeepData::Yes;
        // Written first, since that may fail. It has no meaning as long as there is a record.
        let intent_file = inner.write_intent(id, &Intent::Remove { keep_data })?;
        let was_loaded = host.session(id).is_some();
        let descendants = match unload() {
            Ok(()) => None,
            Err(Error::DescendantsLeft(left)) => Some(left),
            Err(error) => {
                intent_file.done();
                return Err(error);
            }
        };
        fault::point(fault::UNLOADED, id);
        if let Err(error) = inner.store().delete(id) {
            intent_file.done();
            if was_loaded {
                // Back to how it was: it runs again if that is wanted, or may connect.
                inner.load_again(id);
            }
            return Err(error);
        }
        fault::point(fault::UNRECORDED, id);
        inner.failures.lock().remove(&id);
        // Another thread may have loaded it again meanwhile. Without a record that is no longer possible.
        if let Err(error) = unload() {
            log::warn!("plugin {plugin}: {error}");
        }
        inner.context().services.logs.remove(id);
        let root = inner.installation_dir(id);
        let removed = package::remove_installation(&root, keep_data);
        inner.collect_archives();
        intent_file.done_if(plugin, &removed);
        log::info!("plugin {plugin}: removed ({id})");
        Ok(RemoveReport {
            kept: (keep_data && root.is_dir()).then_some(root),
            left: removed.err().map(|error| error.to_string()),
            descendants,
        })
    }
}
