//! Following the log of an installed plugin, whether or not it is loaded.

use super::Manager;
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::plugin_log::Follower;
use crate::session::context::shown_name;
use crate::state::PluginMode;

impl Manager {
    /// Follows what a plugin prints, from the oldest line that is kept; [`Follower::last`] and
    /// [`Follower::from_end`] begin later, and [`Follower::after`] where another one ended. The plugin need not be
    /// loaded, nor have printed anything yet: the follower waits for what it will print, goes on when it is
    /// unloaded, loaded and updated, and ends when it is removed. This starts and loads nothing, and waits for no
    /// operation on the plugin.
    ///
    /// # Blocking
    /// For the store and the disk, where it creates the log's directory and file if need be;
    /// [`Follower::next`] is what waits for lines.
    ///
    /// # Errors
    /// - [`Error::NotInstalled`].
    /// - [`Error::Unsupported`] for an external plugin, whose output the host does not see.
    /// - [`Error::Io`]: the log cannot be opened.
    /// - [The store's](crate::store::Store#errors).
    pub fn follow_log(&self, id: InstallationId) -> Result<Follower> {
        let context = self.inner.context();
        // Taken before the record is read: a removal from then on ends the log of this slot.
        let slot = context.services.logs.slot(id);
        let record = self.inner.record(id)?;
        if record.mode() == PluginMode::External {
            return Err(Error::Unsupported("an external plugin has no log here"));
        }
        Ok(context.open_log(&slot, &shown_name(&record))?.follow())
    }
}
