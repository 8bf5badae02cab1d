//! Removing: a plugin goes, with what it had or without.

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

/// What is to remain of a plugin that is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remainder {
    /// Nothing.
    #[default]
    Nothing,
    /// What it wrote to its data folder, and its log.
    DataAndLogs,
}

/// What came of removing a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// The folder with what was to remain, if there is any.
    pub remains: Option<PathBuf>,
    /// Why files are left that should not be; they go when the next manager is made.
    pub left: Option<String>,
    /// What is left of the plugin's processes, if any that left its process group could not be ended in
    /// time. They are looked for on and on.
    pub descendants: Option<Descendants>,
}

impl Manager {
    /// Removes a plugin: stops it, or tells it to go away for good (close code 1008 `removed`), and
    /// deletes its record, its archive and its files. What may remain is the administrator's choice.
    ///
    /// # Blocking
    /// For other operations on it, at most
    /// [`busy_timeout`](super::ManagerSettings::busy_timeout); for its stop, at most the host's stop
    /// timeout; and for the disk, at most two minutes for each directory of the installation: what is not
    /// gone by then is [left](Removed::left). An update that waits for its new version gives that up.
    ///
    /// # Errors
    /// Then it stays installed.
    /// - [`Error::NotInstalled`].
    /// - [`Error::Timeout`] when its process could not be stopped in time.
    /// - [`Error::Operation`]: another operation on it is under way.
    /// - The store's, or [`Error::ShutDown`].
    pub fn remove(&self, id: InstallationId, remainder: Remainder) -> Result<Removed> {
        let inner = &self.inner;
        let _operation = inner.begin_stopping(id, "remove")?;
        let record = inner.record(id)?;
        let plugin = Foreign::new(&record.manifest.id);
        let host = &inner.host;
        let unload = || host.unload_with(id, close_code::POLICY_VIOLATION, REASON);
        let keep_data = remainder == Remainder::DataAndLogs;
        // First, since it may fail; it says nothing as long as there is a record.
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
                // As it was before: it runs again if that is wanted, or may connect.
                inner.load_again(id);
            }
            return Err(error);
        }
        fault::point(fault::UNRECORDED, id);
        inner.failures.lock().remove(&id);
        // Somebody may have loaded it once more meanwhile; from now on nobody can.
        if let Err(error) = unload() {
            log::warn!("plugin {plugin}: {error}");
        }
        inner.context().services.logs.remove(id);
        let root = inner.installation_dir(id);
        let removed = package::remove_installation(&root, keep_data);
        inner.collect_archives();
        intent_file.done_if(plugin, &removed);
        log::info!("plugin {plugin}: removed ({id})");
        Ok(Removed {
            remains: (keep_data && root.is_dir()).then_some(root),
            left: removed.err().map(|error| error.to_string()),
            descendants,
        })
    }
}
