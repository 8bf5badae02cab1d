//! `Usage`: what each installed plugin does and uses now, for the HTTP API.

use std::time::Duration;

use super::used_by;
use crate::error::Result;
use crate::manager::{Installation, Manager};

use crate::session::{Counters, Distribution, Session};

/// What the plugins of a host do and use.
pub(crate) struct Usage {
    /// How long the calls to all plugins took that were answered, and those that were sent and failed. There is none
    /// of these for each plugin: it would cost every call, and memory for every plugin.
    pub(crate) calls: [Distribution; 2],
    /// In the order of the list.
    pub(crate) plugins: Vec<PluginUsage>,
}

/// What one plugin does and uses. Counts are those since it was loaded.
pub(crate) struct PluginUsage {
    pub(crate) installation: Installation,
    pub(crate) restarts: u64,
    pub(crate) counters: Counters,
    /// Of its present process and the group of that, where the system shows it.
    pub(crate) process: Option<ProcessUsage>,
}

pub(crate) struct ProcessUsage {
    /// The highest that was seen.
    pub(crate) cpu: Duration,
    /// In bytes.
    pub(crate) memory: u64,
    pub(crate) processes: u64,
}

impl Manager {
    /// Returns what the plugins do and use now, as [`metrics`](Self::metrics) shows it and with its limits.
    ///
    /// # Errors
    /// [The store's](crate::store::Store#errors).
    pub(crate) fn usage(&self) -> Result<Usage> {
        let installations = self.list()?;
        let totals = &self.host().shared().context.totals;
        let sessions = self.host().sessions();
        let used = used_by(&sessions);
        let plugins = installations.into_iter().map(|installation| {
            let id = installation.id();
            let session = self.host().session(id);
            let used = used.get(&id);
            PluginUsage {
                restarts: session.as_ref().map_or(0, Session::restarts),
                counters: session.as_ref().map(Session::counters).unwrap_or_default(),
                process: used.map(|(process, usage)| ProcessUsage {
                    cpu: process.highest(usage.cpu),
                    memory: usage.resident,
                    processes: usage.processes,
                }),
                installation,
            }
        });
        Ok(Usage {
            plugins: plugins.collect(),
            calls: [totals.answered.distribution(), totals.failed.distribution()],
        })
    }
}
