//! `Launch`: one start of a plugin, as a runtime is given it: the record, where to connect to, and how it is
//! cancelled; and what the host can do for it on this machine.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::interrupt::Interrupt;
use super::local::LocalPlugins;
use super::run::Run;
use crate::error::Result;
use crate::plugin_log::PluginLog;
use crate::process::PluginCommand;
use crate::store::{Record, Store};
use crate::text::Foreign;

/// One start of a plugin.
pub struct Launch<'a> {
    pub(crate) record: &'a Record,
    /// The store that may hold its archive.
    pub(crate) store: &'a dyn Store,
    /// The URL that the plugin connects to; `None` for stdio.
    pub(crate) connection_url: Option<&'a str>,
    /// The number of the run.
    pub(crate) run: u64,
    pub(crate) interrupt: &'a Interrupt,
    /// Opens the plugin's log, if it is not open yet.
    pub(crate) log: &'a (dyn Fn() -> Result<Arc<PluginLog>> + Sync),
    pub(crate) local: &'a LocalPlugins,
}

impl Launch<'_> {
    /// Returns the record of the plugin, as it is to run.
    pub fn record(&self) -> &Record {
        self.record
    }

    /// Returns the URL that the plugin has to connect to, for the variable `STORYDEN_RPC_URL`; `None` for a
    /// stdio plugin. Its token is secret, and works once.
    pub fn connection_url(&self) -> Option<&str> {
        self.connection_url
    }

    /// Whether the start was cancelled, because the plugin is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.interrupt.is_cancelled()
    }

    /// Returns a descriptor that is readable from when the start is cancelled, for polling.
    pub fn cancelled(&self) -> BorrowedFd<'_> {
        self.interrupt.as_fd()
    }

    /// Writes a line into the plugin's log, marked as the host's: for example what a slow start is waiting for.
    ///
    /// # Blocking
    /// For the disk.
    pub fn note(&self, text: &str) {
        match (self.log)() {
            Ok(log) => log.write_note(text),
            Err(error) => log::warn!("{error}; not in it: {}", Foreign::new(text)),
        }
    }

    /// Unpacks the plugin on this machine, if it is not, and returns what to run and how: the program in its
    /// release directory with its arguments and the environment that the plugin gets.
    ///
    /// # Blocking
    /// While the archive is unpacked, which a cancelled start ends soon.
    ///
    /// # Errors
    /// Whatever makes a start fail. A runtime returns it as it is: it tells whether trying again may help.
    pub fn command(&self) -> Result<PluginCommand> {
        Ok(self.local.command(self)?)
    }

    /// Spawns a process on this machine, in the host's care: in a process group of its own, under the plugin's
    /// limits, ended with all its descendants when the run ends, and by the [keeper](crate::Keeper) when the
    /// host is killed.
    ///
    /// # Blocking
    /// For the spawn; up to 2 s while the program's file is open for writing.
    ///
    /// # Errors
    /// As those of [`command`](Self::command).
    pub fn spawn(&self, command: PluginCommand) -> Result<Run> {
        Ok(self.local.spawn(self, command)?)
    }
}

impl fmt::Debug for Launch<'_> {
    /// Without the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("plugin", &self.record.id)
            .finish_non_exhaustive()
    }
}
