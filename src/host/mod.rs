//! The host: the registry of sessions, loading and unloading, draining, ordered shutdown. It owns
//! every thread through its [`Threads`] budget. `builder` makes the settings; connections are accepted
//! in `listener`, events published in `bus`.

mod access_log;
mod builder;
mod handshakes;
mod listener_stop;
mod shutdown;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::Receiver;
use parking_lot::{Mutex, RwLock};

pub(crate) use access_log::AccessLog;
pub use builder::HostBuilder;
pub use handshakes::HandshakeCounters;
pub(crate) use handshakes::{HandshakeInProgress, LiveHandshakes};
pub(crate) use listener_stop::ListenerStop;
pub use shutdown::ShutdownReport;

use crate::deadline::Deadline;
use crate::duplex::{Duplex, close_code};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::id::InstallationId;
use crate::keeper::Guarantees;
use crate::process::ProcessLimits;
use crate::runtime::RuntimeProvider;
use crate::session::context::HostContext;
use crate::session::{Session, StateChange};
use crate::settings::require;
use crate::state::{ActiveState, PluginMode};
use crate::store::Store;
use crate::thread::Threads;

/// State changes that may wait for one subscriber.
pub(crate) const QUEUED_STATE_CHANGES: usize = 1024;

/// A plugin host. Clones are handles to the same host.
///
/// When the last handle is dropped, everything that the host started is stopped, within
/// [`Timeouts::stop`](crate::Timeouts::stop); [`Host::shutdown`] does the same and reports.
///
/// # Signals
/// The host installs no signal handlers and waits only for its own children; the embedder's handlers
/// interrupt none of its waits. Plugins inherit which signals are ignored. An embedder that ignores SIGCHLD, or
/// reaps children that are not its own, keeps the host from knowing how a plugin ended: its status is
/// unknown, which counts as a crash. Where SIGINT is ignored, a stop ends plugins with SIGTERM, after half
/// of the grace. An embedder that restores the default action of SIGPIPE, which Rust programs start without,
/// dies when a stdio plugin closes its input, or when the keeper is killed.
#[derive(Clone)]
pub struct Host {
    owner: Arc<Owner>,
}

/// A handle that does not keep the host alive, for handlers and services that belong to it: a [`Host`]
/// inside them would never be dropped. They exist before the host does, so they receive it afterwards:
///
/// ```
/// use std::sync::{Arc, OnceLock};
///
/// use plugin_runner::error::RpcError;
/// use plugin_runner::{Host, WeakHost};
/// use serde_json::{Map, Value};
///
/// # fn main() -> plugin_runner::Result<()> {
/// let own_host = Arc::new(OnceLock::<WeakHost>::new());
/// let in_handler = own_host.clone();
/// let host = Host::builder()
///     .method("announce", move |_call, payload: Map<String, Value>| {
///         if let Some(host) = in_handler.get().and_then(WeakHost::upgrade) {
///             host.publish("Announced", &payload)
///                 .map_err(|error| RpcError::new(RpcError::HANDLER_FAILED, error.to_string()))?;
///         }
///         Ok(Map::new())
///     })
///     .build()?;
/// own_host.set(host.downgrade()).unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WeakHost {
    owner: Weak<Owner>,
}

impl WeakHost {
    /// The host, unless its last handle has been dropped.
    pub fn upgrade(&self) -> Option<Host> {
        Some(Host {
            owner: self.owner.upgrade()?,
        })
    }
}

/// Shuts the host down when the last handle is dropped. The host's threads hold the shared part, never
/// the owner itself.
struct Owner {
    shared: Arc<HostShared>,
}

pub(crate) struct HostShared {
    pub(crate) context: Arc<HostContext>,
    /// Ordered by id, as they are listed.
    pub(crate) sessions: RwLock<BTreeMap<InstallationId, Session>>,
    pub(crate) listeners: Mutex<Vec<ListenerStop>>,
    pub(crate) handshakes: LiveHandshakes,
    pub(crate) access: AccessLog,
    /// Plugins that a shutdown in progress still waits for.
    stopping: Mutex<Vec<InstallationId>>,
    /// The report of the shutdown, once it is complete.
    ended: Mutex<Option<ShutdownReport>>,
}

impl Host {
    /// A builder with the default settings.
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }

    pub(crate) fn shared(&self) -> &Arc<HostShared> {
        &self.owner.shared
    }

    fn context(&self) -> &Arc<HostContext> {
        &self.shared().context
    }

    /// A handle that does not keep the host alive.
    pub fn downgrade(&self) -> WeakHost {
        WeakHost {
            owner: Arc::downgrade(&self.owner),
        }
    }

    /// Where the host's records are.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.context().services.store
    }

    /// Returns the [name](crate::runtime::Runtime::name) of where supervised plugins run; `none` where they are
    /// disabled.
    pub fn runtime_name(&self) -> &'static str {
        self.context().services.runtime_name()
    }

    /// What this host can promise about the processes that it starts, as things are now.
    ///
    /// A missing keeper may go unnoticed until the first supervised plugin starts.
    pub fn guarantees(&self) -> Guarantees {
        let services = &self.context().services;
        let runtime = services.runtime.as_ref();
        let outlives_host = runtime.and_then(|runtime| runtime.outlives_host());
        Guarantees::of(
            &services.local.keeper,
            services.local.scanner.as_ref(),
            outlives_host,
        )
    }

    /// Returns how many threads the host has now, those of its plugins included.
    pub fn thread_count(&self) -> usize {
        self.threads().count()
    }

    /// Returns how many threads it may have. What needs one more fails with [`Error::ThreadLimit`].
    pub fn thread_limit(&self) -> usize {
        self.threads().limit()
    }

    pub(crate) fn threads(&self) -> &Threads {
        &self.context().services.threads
    }

    /// Loads the plugin of this record, and requests its start if the record says active. Loading a
    /// plugin that is loaded already returns its session and changes nothing.
    ///
    /// # Blocking
    /// For the store's I/O, and while the runtime looks whether the plugin [can run](crate::runtime::Runtime::accept)
    /// there, for which `sprites` reads the package. It never waits for the plugin.
    ///
    /// # Errors
    /// - [`Error::NotInstalled`] when the store has no such record; or [the store's](Store#errors).
    /// - [`Error::Disabled`] when supervised plugins are disabled; and what the
    ///   [runtime refuses](crate::runtime::Runtime::accept).
    /// - [`Error::ThreadLimit`] or [`Error::Io`] when no thread can be started for it.
    /// - [`Error::NotLoaded`] when another thread unloaded it meanwhile.
    /// - [`Error::ShutDown`].
    pub fn load(&self, id: InstallationId) -> Result<Session> {
        let shared = self.shared();
        if let Some(session) = self.session(id) {
            return Ok(session);
        }
        let context = &shared.context;
        if context.is_shut_down() {
            return Err(Error::ShutDown);
        }
        let record = context
            .services
            .store
            .get(id)?
            .ok_or(Error::NotInstalled(id))?;
        if record.mode() == PluginMode::Supervised {
            let runtime = context.services.runtime()?;
            runtime.accept(&record, &*context.services.store)?;
        }
        let session = Session::load(context.clone(), record)?;
        {
            let mut sessions = shared.sessions.write();
            // Looked at under the lock: shutdown sets it first and takes the lock second.
            let refused = if context.is_shut_down() {
                Some(Err(Error::ShutDown))
            } else {
                let loaded = sessions.get(&id).cloned();
                loaded.filter(|loaded| !loaded.is_unloaded()).map(Ok)
            };
            if let Some(result) = refused {
                drop(sessions);
                session.discard();
                return result;
            }
            sessions.insert(id, session.clone());
        }
        // Read again: a removal that ran before the session was registered did not find it.
        let wanted = match context.services.store.get(id) {
            Ok(Some(record)) => record.active_state,
            gone => {
                self.unload(id)?;
                return Err(gone.err().unwrap_or(Error::NotInstalled(id)));
            }
        };
        if wanted == ActiveState::Active {
            session.set_active_state(ActiveState::Active)?;
        } else {
            session.clear();
        }
        Ok(session)
    }

    /// Stops a plugin and forgets its session; its handles return [`Error::NotLoaded`] from then on.
    /// Unloading an unknown plugin does nothing.
    ///
    /// # Blocking
    /// As [`Supervised::stop`](crate::Supervised::stop), at most [`Timeouts::stop`](crate::Timeouts::stop).
    /// It does not wait for the embedder's handlers of calls from this plugin.
    ///
    /// # Errors
    /// - [`Error::Timeout`] with [`Phase::Stop`] when it could not be stopped in time; then it stays loaded.
    /// - [`ErrorKind::DescendantsLeft`] when its process has ended and others that left its process group have
    ///   not. The plugin is unloaded all the same, and the host goes on trying to end them.
    /// - [`Error::ShutDown`] when the host ended meanwhile, and the plugin with it.
    pub fn unload(&self, id: InstallationId) -> Result<()> {
        self.unload_with(id, close_code::NORMAL, "closed")
    }

    /// As [`unload`](Self::unload), with the close code and reason for the plugin and for calls in flight.
    pub(crate) fn unload_with(&self, id: InstallationId, code: u16, reason: &str) -> Result<()> {
        let Some(session) = self.session(id) else {
            return Ok(());
        };
        let timeout = self.context().settings.timeouts.stop;
        let unloaded = match session.unload(timeout, code, reason) {
            Ok(_) => Ok(()),
            // Another thread was quicker.
            Err(Error::NotLoaded(_)) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::DescendantsLeft => Err(error),
            Err(error) => return Err(error),
        };
        let mut sessions = self.shared().sessions.write();
        // It may have been loaded again meanwhile.
        if sessions
            .get(&id)
            .is_some_and(|current| Arc::ptr_eq(current.shared(), session.shared()))
        {
            sessions.remove(&id);
        }
        unloaded
    }

    /// The session of a loaded plugin.
    pub fn session(&self, id: InstallationId) -> Option<Session> {
        self.shared().session(id)
    }

    /// The sessions of all loaded plugins, ordered by id.
    pub fn sessions(&self) -> Vec<Session> {
        self.shared().all_sessions()
    }

    /// Attaches a connection to a loaded plugin; see [`Session::connect`].
    ///
    /// # Blocking
    /// As [`Session::connect`].
    ///
    /// # Errors
    /// [`Error::NotLoaded`], and those of [`Session::connect`].
    pub fn connect(&self, id: InstallationId, duplex: impl Duplex, user_agent: &str) -> Result<()> {
        self.session(id)
            .ok_or(Error::NotLoaded(id))?
            .connect(duplex, user_agent)
    }

    /// Subscribes to every state change from now on. The receiver holds 1,024 of them; when it is full, the
    /// newest are dropped and the next one that fits says how many were. The receiver is disconnected when the
    /// last handle to the host and to its sessions is dropped.
    ///
    /// ```no_run
    /// # fn main() -> plugin_runner::Result<()> {
    /// # let host = plugin_runner::Host::builder().build()?;
    /// let changes = host.subscribe();
    /// std::thread::spawn(move || {
    ///     for change in changes {
    ///         println!("{}: {} -> {}", change.manifest_id, change.from, change.to);
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe(&self) -> Receiver<StateChange> {
        let context = self.context();
        context.services.subscribers.subscribe(QUEUED_STATE_CHANGES)
    }

    /// Replaces the limits of [`HostBuilder::process_limits`]. They apply to each plugin from its next start on.
    /// Does not block.
    ///
    /// # Errors
    /// [`Error::Setting`] names a limit that is invalid; or on [sprites](HostBuilder::sprites), where there are
    /// none, `process_limits`. Then nothing has changed.
    pub fn set_process_limits(&self, limits: ProcessLimits) -> Result<()> {
        limits.validate()?;
        let services = &self.shared().context.services;
        let is_elsewhere = services.runtime_name() == RuntimeProvider::Sprites.as_str();
        require(
            !is_elsewhere || limits == ProcessLimits::default(),
            "process_limits",
            "cannot be set on sprites, which are limited by the service",
        )?;
        *services.local.process_limits.write() = limits;
        Ok(())
    }

    /// What became of the handshakes of this host: those of its listeners, and those on streams that
    /// the embedder accepted.
    pub fn handshake_counters(&self) -> HandshakeCounters {
        self.shared().handshakes.snapshot()
    }

    /// Refuses new calls to plugins, for good, and waits for those in flight, in both directions. Events
    /// are calls too: publishing fails from now on, and so do queued events. Plugins go on running; their
    /// calls are still answered, but not waited for. [`shutdown`](Self::shutdown) usually comes next.
    ///
    /// # Blocking
    /// At most `timeout`; the end of the last call wakes it. Called from a handler it always times out: it
    /// waits for that handler's own call.
    ///
    /// # Errors
    /// [`Error::Timeout`] with [`Phase::Drain`] when calls are still in flight.
    pub fn drain(&self, timeout: Duration) -> Result<()> {
        let shared = self.shared();
        shared.context.drain.begin();
        let in_flight = || {
            shared
                .sessions
                .read()
                .values()
                .map(Session::in_flight)
                .sum()
        };
        match shared
            .context
            .drain
            .wait(Deadline::after(timeout), in_flight)
        {
            0 => Ok(()),
            _ => Err(Error::timeout(Phase::Drain, timeout)),
        }
    }

    /// Stops everything, in order: it refuses new loads, calls and connections, stops the listeners, then
    /// all plugins at once, then the threads. External plugins are told to come back later (close code
    /// 1012: [Refused or disconnected](crate::protocol#refused-or-disconnected)) and share one
    /// second to end their side. A second call returns the report of the first.
    ///
    /// # Blocking
    /// At most `timeout`, and a quarter of a second more while threads still end. The end of the last
    /// process and of the last thread wake it. The stop grace is shortened, if need be, to a quarter of a
    /// second less than `timeout`. When another thread is already shutting the host down, this call waits
    /// for it, and reports what is left if that takes longer. A handler may call it: its own thread is not
    /// waited for.
    pub fn shutdown(&self, timeout: Duration) -> ShutdownReport {
        self.shared().shut_down(timeout)
    }
}

impl HostShared {
    pub(crate) fn session(&self, id: InstallationId) -> Option<Session> {
        let session = self.sessions.read().get(&id).cloned();
        // An unloaded session stays in the registry for a moment.
        session.filter(|session| !session.is_unloaded())
    }

    pub(crate) fn all_sessions(&self) -> Vec<Session> {
        self.sessions.read().values().cloned().collect()
    }
}

/// Joins the items to text for a log line.
fn listed(items: impl Iterator<Item = String>) -> String {
    let text = items.collect::<Vec<_>>().join(", ");
    if text.is_empty() {
        "none".to_owned()
    } else {
        text
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let report = self
            .shared
            .shut_down(self.shared.context.settings.timeouts.stop);
        if !report.is_complete() {
            let ids = report.unfinished.iter().map(ToString::to_string);
            log::warn!(
                "the host was dropped, and {:.1?} later not everything has ended; plugins: {}; threads: {}",
                report.took,
                listed(ids),
                listed(report.threads.iter().cloned())
            );
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("sessions", &self.shared().sessions.read().len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").finish_non_exhaustive()
    }
}
