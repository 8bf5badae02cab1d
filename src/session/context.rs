//! What all sessions of a host share: its settings and its services. Made by `host`, which owns
//! their ends; nothing here acts by itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use super::call_hook::CallHook;
use super::health::HealthMonitor;
use super::services::{Methods, Services};
use super::subscribers::Subscribers;
use super::totals::Totals;
use crate::config::{Limits, Timeouts};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::health::Health;
use crate::package::PackageLimits;
use crate::plugin_log::{LogLine, LogSettings, LogSlot, LogTap, Logs, PluginLog};
use crate::reaper::Reaper;
use crate::reaper::policy::RestartPolicy;
use crate::runtime::local::LocalPlugins;
use crate::runtime::{self, Runtime, RuntimeProvider};
use crate::store::{Record, Store};
use crate::text::Foreign;
use crate::thread::Threads;

/// Hears every line of output of every plugin, with the manifest's id. Runs on the log pumps'
/// threads and must not block.
pub(crate) type OutputTap = Arc<dyn Fn(crate::InstallationId, &str, &LogLine<'_>) + Send + Sync>;

pub(crate) struct HostContext {
    pub(crate) settings: HostSettings,
    pub(crate) services: HostServices,
    /// Boxed, because every call writes to it, and every call reads what stands beside it.
    pub(crate) totals: Box<Totals>,
    /// Refuses new calls from when a host is drained, or shuts down.
    pub(crate) drain: Drain,
    /// Set once, when shutdown begins.
    pub(crate) shut_down: AtomicBool,
}

/// What was settled when the host was built.
pub(crate) struct HostSettings {
    pub(crate) data_dir: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) package_limits: PackageLimits,
    /// How long a caller may spin; zero where this process has too few processors.
    pub(crate) spin: Duration,
    pub(crate) timeouts: Timeouts,
    pub(crate) policy: RestartPolicy,
    pub(crate) log: LogSettings,
    pub(crate) output_tap: Option<OutputTap>,
    pub(crate) on_call: Option<CallHook>,
    pub(crate) health: Health,
}

/// What all sessions use: the parts of the host that run, and what the embedder provides.
pub(crate) struct HostServices {
    pub(crate) threads: Threads,
    pub(crate) store: Arc<dyn Store>,
    /// `None` where supervised plugins are disabled.
    pub(crate) runtime: Option<Arc<dyn Runtime>>,
    pub(crate) local: LocalPlugins,
    pub(crate) reaper: Reaper,
    pub(crate) health: HealthMonitor,
    pub(crate) logs: Logs,
    pub(crate) subscribers: Subscribers,
    pub(crate) addresses: Addresses,
    /// What answers the protocol's calls from plugins.
    pub(crate) handlers: Arc<dyn Services>,
    /// What answers the embedder's own.
    pub(crate) methods: Methods,
    /// The manager's, called when a plugin has connected whose configuration is unsettled. Runs on a
    /// worker of the session, and may block within a deadline of its own.
    pub(crate) on_reconnect: RwLock<Option<OnReconnect>>,
}

impl HostServices {
    /// Returns where supervised plugins run.
    ///
    /// # Errors
    /// [`Error::Disabled`].
    pub(crate) fn runtime(&self) -> Result<&Arc<dyn Runtime>> {
        self.runtime.as_ref().ok_or(Error::Disabled)
    }

    pub(crate) fn runtime_name(&self) -> &'static str {
        let runtime = self.runtime.as_ref();
        runtime.map_or(RuntimeProvider::None.as_str(), |runtime| runtime.name())
    }
}

pub(crate) type OnReconnect = Arc<dyn Fn(crate::InstallationId) + Send + Sync>;

impl HostContext {
    pub(crate) fn is_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::Acquire)
    }

    /// Returns the log of the installation that has this slot, and this name to show. Opens it if needed, which
    /// waits for the disk.
    ///
    /// # Errors
    /// [`Error::NotInstalled`](crate::Error::NotInstalled) when the installation has been removed;
    /// [`Error::Io`](crate::Error::Io).
    pub(crate) fn open_log(&self, slot: &LogSlot, name: &Arc<str>) -> Result<Arc<PluginLog>> {
        slot.get_or_open(|| {
            let (settings, id) = (&self.settings, slot.id());
            let dir = runtime::local::installation_dir(&settings.data_dir, id)?.join("logs");
            let tap = settings.output_tap.as_ref().map(|tap| {
                // Weak, because a follower may keep the log when the host is gone.
                let (tap, name) = (Arc::downgrade(tap), name.clone());
                let tap: LogTap = Arc::new(move |line| {
                    if let Some(tap) = tap.upgrade() {
                        tap(id, &name, line);
                    }
                });
                tap
            });
            let log = PluginLog::open(dir, settings.log.clone(), tap)?;
            Ok(log.counting_into(self.totals.log_lines_lost.clone()))
        })
    }
}

/// Returns the name of a plugin for the embedder: the manifest's id, which is one word if it was checked; a
/// record made by hand may have any.
pub(crate) fn shown_name(record: &Record) -> Arc<str> {
    let name = Foreign::new(&record.manifest.id).limited_to(256);
    name.to_string().into()
}

/// What plugins on this machine connect to.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    /// What the builder was told; counts before any listener.
    fixed: Option<String>,
    /// The bases of the listeners that are bound, oldest first.
    listening: RwLock<Vec<String>>,
}

impl Addresses {
    pub(crate) fn new(fixed: Option<String>) -> Self {
        Self {
            fixed,
            listening: RwLock::default(),
        }
    }

    /// The base of the URL to connect to, if there is any.
    pub(crate) fn base_url(&self) -> Option<String> {
        self.fixed
            .clone()
            .or_else(|| self.listening.read().first().cloned())
    }

    pub(crate) fn add(&self, base: String) {
        self.listening.write().push(base);
    }

    pub(crate) fn remove(&self, base: &str) {
        self.listening.write().retain(|known| known != base);
    }
}

/// Refuses new calls and waits for those in flight.
#[derive(Default)]
pub(crate) struct Drain {
    draining: AtomicBool,
    lock: Mutex<()>,
    ended: Condvar,
}

impl Drain {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    pub(crate) fn begin(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Wakes a thread that waits for calls to end. Called at the end of each call.
    pub(crate) fn call_ended(&self) {
        if self.is_draining() {
            // Taken so that the waiter is either before its look at the count or in its wait.
            drop(self.lock.lock());
            self.ended.notify_all();
        }
    }

    /// Waits until `in_flight` returns zero, at most until the deadline, and returns its last value.
    pub(crate) fn wait(&self, deadline: Deadline, in_flight: impl Fn() -> u64) -> u64 {
        let mut guard = self.lock.lock();
        loop {
            let left = in_flight();
            if left == 0 || deadline.has_passed() {
                return left;
            }
            self.ended.wait_until(&mut guard, deadline.instant());
        }
    }
}

/// The part of `timeout` that a plugin may take to end by itself before it is killed: a quarter
/// of a second at least is kept for the kill.
pub(crate) fn grace_within(grace: Duration, timeout: Duration) -> Duration {
    grace.min(timeout.saturating_sub(Duration::from_millis(250)))
}
