//! Sessions: one per loaded plugin, connected or not.
//!
//! What lives here: the handle ([`Session`], [`Supervised`]), the state cell, calls both ways, the
//! thread that reads, and the states that the reaper's reports lead to. What does not: processes
//! (`process`, `reaper`), transports (`duplex`), JSON-RPC (`rpc`), and connections from outside (`listener`).
//!
//! Locks, outermost first: a session's state; then, one at a time and never around anything that
//! blocks, its readers, its log, its events, what it keeps of refusals, the subscribers to state changes. A
//! connection's own locks (pending table, writer) are taken with none of these held, but for `post`,
//! which never blocks.

mod attach;
mod call;
mod call_hook;
pub(crate) mod context;
mod counters;
mod delivery;
mod guards;
pub(crate) mod health;
mod history;
mod inbound;
pub(crate) mod management;
mod problem;
mod refusals;
mod run;
pub(crate) mod services;
mod shared;
mod state;
mod subscribers;
mod supervision;
mod totals;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{RecvTimeoutError, bounded};
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value};

pub(crate) use attach::Peer;
pub(crate) use attach::{AdmitError, Credential, Reservation};
pub use call::{Batch, PendingCall};
pub use call_hook::CallEvent;
pub(crate) use call_hook::CallHook;
pub use counters::Counters;
pub use delivery::Delivery;
pub(crate) use delivery::DeliverySender;
pub use history::RunEnd;
pub use problem::Problem;
pub(crate) use refusals::RefusalReason;
pub use services::{InboundCall, Services};
pub(crate) use state::RunProcess;
pub use subscribers::StateChange;
pub(crate) use subscribers::{Subscribers, Subscription};
pub(crate) use totals::Distribution;

use crate::deadline::Deadline;
use crate::duplex::{by_host, close_code};
use crate::error::{Descendants, Error, ErrorKind, Phase, Result};
use crate::id::InstallationId;
use crate::plugin_log::Follower;
use crate::protocol::manifest::Manifest;
use crate::reaper::{StopReport, StopWaiter, Stopped};
use crate::rpc::workers::{WorkerSettings, Workers};
use crate::state::{ActiveState, PluginMode, ReportedState};
use crate::store::Record;
use context::{HostContext, grace_within};
use refusals::Refusals;
use shared::SharedSession;
use state::StateCell;
use supervision::SessionHooks;

/// Stack of a session's thread, in bytes.
const STACK: usize = 128 * 1024;
/// How long an idle worker lives.
const WORKER_IDLE: Duration = Duration::from_secs(1);

/// A loaded plugin. A clone is another handle to the same session; handles may be used from any
/// thread, and outlive the plugin's unloading (then they say [`Error::NotLoaded`]).
#[derive(Clone)]
pub struct Session {
    shared: Arc<SharedSession>,
}

impl Session {
    /// Makes the session and starts its thread.
    pub(crate) fn load(context: Arc<HostContext>, record: Record) -> Result<Self> {
        let (id, mode) = (record.id, record.mode());
        let name = context::shown_name(&record);
        let limits = &context.settings.limits;
        let pool = |what, cap, queue| {
            Workers::new(WorkerSettings {
                name: format!("{what}-{name}"),
                threads: context.services.threads.clone(),
                stack: limits.handler_stack,
                cap,
                queue,
                idle: WORKER_IDLE,
            })
        };
        let workers = pool("call", limits.inbound_workers, limits.inbound_queue);
        let deliveries = pool("event", 1, limits.queued_events);
        // More than one waits only while the thread deals with the end of the connection before.
        let (sender, readings) = bounded(8);
        let shared = Arc::new(SharedSession {
            id,
            mode,
            child: context.services.reaper.new_child_id(),
            name,
            record: RwLock::new(Arc::new(record)),
            candidate: RwLock::default(),
            state: StateCell::new(),
            tally: Arc::default(),
            counters: Arc::default(),
            workers,
            inbound_bytes: AtomicUsize::new(0),
            rate: Arc::default(),
            deliveries,
            event_bytes: AtomicUsize::new(0),
            readers: Mutex::new(Some(sender)),
            probing: false.into(),
            log: Mutex::new(None),
            log_slot: context.services.logs.slot(id),
            refusals: Refusals::default(),
            context: context.clone(),
        });
        let counters = shared.counters.clone();
        context.totals.add_session(shared.child, counters);
        shared.learn_token_of(&shared.record());
        let body = shared.clone();
        let name = format!("sess-{}", shared.name);
        context.services.threads.spawn(&name, STACK, move || {
            run::run(&body, &readings);
        })?;
        Ok(Self { shared })
    }

    fn from_shared(shared: Arc<SharedSession>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<SharedSession> {
        &self.shared
    }

    /// Returns the installation's id.
    pub fn id(&self) -> InstallationId {
        self.shared.id
    }

    /// Returns whether the host runs the plugin, or it runs elsewhere.
    pub fn mode(&self) -> PluginMode {
        self.shared.mode
    }

    /// Returns the plugin's manifest, as the store had it when the plugin was loaded, or later when it was
    /// last started (supervised) or last connected (external).
    pub fn manifest(&self) -> Manifest {
        self.shared.record.read().manifest.clone()
    }

    /// Returns the handle that starts and stops the plugin; `None` for an external plugin.
    pub fn supervised(&self) -> Option<Supervised> {
        (self.shared.mode == PluginMode::Supervised).then(|| Supervised {
            session: self.clone(),
        })
    }

    /// Returns when the plugin last became active; `None` if it never did.
    pub fn started_at(&self) -> Option<SystemTime> {
        self.shared.state.lock().started_at
    }

    /// Returns the plugin's state right now.
    pub fn reported_state(&self) -> ReportedState {
        self.shared.state.lock().reported
    }

    /// Returns what is wrong, or went wrong last, until the plugin is active or stopped.
    pub fn problem(&self) -> Option<Problem> {
        self.shared.state.lock().problem.clone()
    }

    /// Returns the message of the [`problem`](Self::problem), if there is one.
    pub fn error_message(&self) -> Option<String> {
        self.problem().map(|problem| problem.message().to_owned())
    }

    /// Returns the [`problem`](Self::problem) as [`Problem::to_json`] does. A key that does not apply is absent;
    /// there are none for a lost connection whose process lives.
    ///
    /// The protocol's keys ([Supervised states](crate::protocol#supervised-states)):
    ///
    /// | key | what |
    /// | --- | --- |
    /// | `runtime_provider` | where it runs: its name, such as `local` or `sprites` |
    /// | `stage` | `start`: it could not be started; `exit`: it ended |
    /// | `error` | the message |
    /// | `exit_code` | of a process that ended otherwise than with 0; -1 if a signal ended it, or the status is unknown |
    ///
    /// And besides:
    ///
    /// | key | what |
    /// | --- | --- |
    /// | `cause` | the word of an [`EndCause`](crate::report::EndCause), which lists them all |
    /// | `spawn_error` | with `could_not_spawn`: `not_found`, `not_on_path`, `not_a_file`, `not_executable`, `not_for_this_user`, `not_searchable`, `noexec`, `wrong_format`, `permission_denied`, `interpreter_not_found`, `loader_not_found`, `no_working_directory`, `too_long`, `busy`, `no_command` or `other` |
    /// | `limit` | with `could_not_limit`: the one that could not be had, by its name in [`ProcessLimits`](crate::ProcessLimits) |
    /// | `limits` | the limits that were in force, by these names; `cpu_time` in seconds |
    /// | `exit_status` | how the process ended, in words, whatever the cause was |
    /// | `signal` | the number of the signal that ended it |
    /// | `signal_name` | its name, such as `SIGSEGV` |
    /// | `core_dumped` | `true` when it left a core |
    /// | `pid` | the process |
    /// | `uptime_seconds` | how long the process lived |
    /// | `active_seconds` | from when it first was active until its end |
    /// | `attempts` | starts in a row, this one included |
    /// | `restarts` | restarts in a row before this end |
    /// | `restarting_after_seconds` | the wait before the next start; not there when given up |
    /// | `output` | the last lines of its output, at most 20, each cut to 1 KiB |
    pub fn error_details(&self) -> Map<String, Value> {
        self.problem()
            .map(|problem| problem.to_json())
            .unwrap_or_default()
    }

    /// Returns how the plugin's runs ended since it was loaded, the newest last; at most the
    /// newest 32. A run is in it before its end shows in any state. Always empty for an external plugin.
    pub fn restart_history(&self) -> Vec<RunEnd> {
        self.shared.state.lock().history.ends()
    }

    /// Returns the counts since the plugin was loaded.
    pub fn counters(&self) -> Counters {
        let mut counters = self.shared.counters.snapshot();
        // Taken over from the log when that goes.
        if let Some(log) = &*self.shared.log.lock() {
            counters.log_lines_lost = log.lost_lines();
        }
        counters
    }

    /// Waits until the plugin is in a state, or has been in it since the call began.
    ///
    /// # Blocking
    /// At most `timeout`. State changes wake it.
    ///
    /// # Errors
    /// - [`Error::State`], at once, when the state can come only after another start: the plugin has
    ///   errored or is stopped.
    /// - [`Error::NotLoaded`] when it is unloaded.
    /// - [`ErrorKind::PluginFailed`], at once, with the reason, when it has errored because no process came to
    ///   be.
    /// - [`Error::Timeout`] with what it was still at: [`Phase::Spawn`], [`Phase::Connect`] or
    ///   [`Phase::State`]; and with what went wrong last, if something did since it was started.
    /// - [`ErrorKind::DescendantsLeft`], also when time ran out: it waits for processes of the run before to be
    ///   gone.
    pub fn wait_for(&self, state: ReportedState, timeout: Duration) -> Result<()> {
        let shared = &self.shared;
        let waited = shared.state.wait_for(shared.id, state, timeout);
        waited.map_err(|error| match (&error, shared.tally.awaited()) {
            (Error::Timeout { .. }, Some(left)) => left.into(),
            _ => error,
        })
    }

    /// Starts or stops the plugin, and stores nothing.
    ///
    /// # Blocking
    /// Starting does not wait for anything. Stopping takes as long as [`Supervised::stop`], at most
    /// [`Timeouts::stop`](crate::Timeouts::stop); with an external plugin, until the close is written and the
    /// plugin has ended its side, for which it is given a second.
    ///
    /// # Errors
    /// As [`Supervised::start`] and [`Supervised::stop`].
    pub fn set_active_state(&self, state: ActiveState) -> Result<()> {
        match state {
            ActiveState::Active => self.start(),
            ActiveState::Inactive => self
                .stop(self.shared.context.settings.timeouts.stop)
                .map(drop),
        }
    }

    /// Follows the plugin's output from the oldest line that is kept, or from where
    /// [`Follower::last`] says. The follower goes on when the plugin is unloaded and loaded again, and ends when
    /// it is removed. [`Manager::follow_log`](crate::Manager::follow_log) takes the id of any installed plugin.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use plugin_runner::plugin_log::Followed;
    ///
    /// # fn main() -> plugin_runner::Result<()> {
    /// # let session = plugin_runner::Host::builder().build()?.sessions().remove(0);
    /// let mut follower = session.follow_log()?;
    /// loop {
    ///     match follower.next(Duration::from_secs(60)) {
    ///         Ok(Followed::Line(line)) => println!("{line}"),
    ///         Ok(other) => println!("… {other} here"),
    ///         Err(error) if error.is_timeout() => break,
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Blocking
    /// Before the first start, while it creates the log's directory and file; [`Follower::next`] is what
    /// waits for lines.
    ///
    /// # Errors
    /// - [`Error::Unsupported`] for an external plugin, whose output the host does not see.
    /// - [`Error::Io`] when the log cannot be opened.
    /// - [`Error::NotLoaded`] when the plugin is unloaded. A follower from before goes on once it is loaded.
    pub fn follow_log(&self) -> Result<Follower> {
        if self.shared.mode == PluginMode::External {
            return Err(Error::Unsupported("an external plugin has no log here"));
        }
        if self.is_unloaded() {
            return Err(Error::NotLoaded(self.shared.id));
        }
        Ok(self.shared.open_log()?.follow())
    }

    fn start(&self) -> Result<()> {
        let shared = &self.shared;
        let context = &shared.context;
        if shared.mode == PluginMode::Supervised {
            context.services.runtime()?;
        }
        let mut state = shared.state.lock();
        // Checked under the lock: shutdown sets it first and stops everything second.
        if context.is_shut_down() {
            return Err(Error::ShutDown);
        }
        if state.unloading > 0 {
            return Err(Error::NotLoaded(shared.id));
        }
        state.wanted = ActiveState::Active;
        let at_rest = matches!(
            state.reported,
            ReportedState::Inactive | ReportedState::Errored
        );
        match shared.mode {
            PluginMode::Supervised => {
                // Already here, so that a wait from now on does not see an old error.
                if at_rest {
                    state.problem = None;
                    shared.enter(&mut state, ReportedState::Starting, None);
                }
                // Under the lock, so that the reaper receives requests in the order of `wanted`.
                state.starts_pending += 1;
                context
                    .services
                    .reaper
                    .request_start(Arc::new(SessionHooks(shared.clone())));
            }
            PluginMode::External => {
                if at_rest {
                    shared.enter(&mut state, ReportedState::Connecting, None);
                }
            }
        }
        Ok(())
    }

    fn stop(&self, timeout: Duration) -> Result<StopReport> {
        self.stop_with(timeout, close_code::NORMAL, "closed")
    }

    pub(crate) fn stop_with(
        &self,
        timeout: Duration,
        code: u16,
        reason: &str,
    ) -> Result<StopReport> {
        let deadline = Deadline::after(timeout);
        match self.request_stop(timeout, code, reason)? {
            Stopping::Process(report) => {
                match report.recv_deadline(deadline.instant()) {
                    Ok(stopped) => stopped.map_err(Error::from),
                    Err(RecvTimeoutError::Timeout) => Err(match self.shared.tally.awaited() {
                        Some(left) => left.into(),
                        None => Error::timeout(Phase::Stop, timeout),
                    }),
                    // The reaper has ended, and before that everything in its charge.
                    Err(RecvTimeoutError::Disconnected) => Err(Error::ShutDown),
                }
            }
            Stopping::Connection(connection) => {
                let began = std::time::Instant::now();
                if let Some(connection) = connection {
                    connection.close(code, reason, deadline);
                }
                Ok(StopReport {
                    exit: None,
                    killed: false,
                    took: began.elapsed(),
                })
            }
        }
    }

    /// Asks for the stop without waiting for it. `code` and `reason` are what calls in flight fail
    /// with, and the close of a connection.
    pub(crate) fn request_stop(
        &self,
        timeout: Duration,
        code: u16,
        reason: &str,
    ) -> Result<Stopping> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        if state.unloaded {
            return Err(Error::NotLoaded(shared.id));
        }
        state.wanted = ActiveState::Inactive;
        match shared.mode {
            PluginMode::Supervised => {
                let (done, report) = bounded(1);
                let hooks = Arc::new(SessionHooks(shared.clone()));
                let until = Deadline::after(timeout).instant();
                let grace = grace_within(shared.context.settings.timeouts.stop_grace, timeout);
                state.stop_reason = (code, reason.into());
                let waiter = Some(StopWaiter { until, done });
                shared
                    .context
                    .services
                    .reaper
                    .request_stop(hooks, grace, waiter);
                Ok(Stopping::Process(report))
            }
            PluginMode::External => {
                state.reserved = None;
                let connection = state.connection.take();
                if connection.is_some() {
                    shared.drop_events();
                }
                if state.reported != ReportedState::Inactive {
                    shared.enter(&mut state, ReportedState::Inactive, None);
                }
                Ok(Stopping::Connection(connection))
            }
        }
    }

    /// Stops the plugin and ends its thread; the latter also when what has left the plugin's process
    /// group is not gone in time, which is the error then.
    pub(crate) fn unload(&self, timeout: Duration, code: u16, reason: &str) -> Result<StopReport> {
        let shared = &self.shared;
        {
            let mut state = shared.state.lock();
            if state.unloaded {
                return Err(Error::NotLoaded(shared.id));
            }
            // No start can come in between the stop and the end.
            state.unloading += 1;
        }
        let stopped = self.stop_with(timeout, code, reason);
        match &stopped {
            Err(error) if error.kind() != ErrorKind::DescendantsLeft => {
                shared.state.lock().unloading -= 1;
            }
            _ => self.discard(),
        }
        stopped
    }

    /// Returns what is left of the plugin, if only that is waited for.
    pub(crate) fn descendants(&self) -> Option<Descendants> {
        self.shared.tally.awaited()
    }

    /// Ends the session's thread and all waits, without stopping the plugin.
    pub(crate) fn discard(&self) {
        let shared = &self.shared;
        let connection = {
            let mut state = shared.state.lock();
            state.unloading += 1;
            state.unloaded = true;
            state.connection.take()
        };
        shared.state.notify();
        if let Some(connection) = connection {
            connection.abort(by_host(close_code::NORMAL, "closed"));
        }
        shared.deliveries.close();
        shared.workers.close();
        // The session's thread ends when there is no more to read.
        drop(shared.readers.lock().take());
        // Followers keep it open, should the plugin be loaded again.
        let log = shared.log.lock().take();
        if let Some(log) = log {
            let lost = &shared.counters.log_lines_lost;
            lost.store(log.take_lost_lines(), Ordering::Relaxed);
        }
        if shared.mode == PluginMode::Supervised {
            shared.context.services.reaper.forget(shared.child);
        }
    }

    /// Returns whether it has been unloaded.
    pub(crate) fn is_unloaded(&self) -> bool {
        self.shared.state.lock().unloaded
    }

    /// Returns the number of calls in flight, both ways.
    pub(crate) fn in_flight(&self) -> u64 {
        use std::sync::atomic::Ordering::SeqCst;
        let counters = &self.shared.counters;
        counters.rpc.calls_in_flight.load(SeqCst) + counters.rpc.inbound_in_flight.load(SeqCst)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

/// What a requested stop has to wait for.
pub(crate) enum Stopping {
    Process(crossbeam_channel::Receiver<Stopped>),
    Connection(Option<Arc<crate::rpc::Connection>>),
}

/// Starting and stopping of a plugin that the host runs.
#[derive(Clone, Debug)]
pub struct Supervised {
    session: Session,
}

impl Supervised {
    /// Asks for the plugin to run. Never blocks: it returns when the request is accepted; use
    /// [`Session::wait_for`] to wait for the outcome. Running already is fine; of a start and a stop
    /// the last wins. Leaves [`ReportedState::Errored`], and starts the counting of restarts over; but
    /// a start in [`ReportedState::Restarting`] only ends the wait, and the counting goes on.
    ///
    /// # Errors
    /// - [`Error::Disabled`] when supervised plugins are disabled.
    /// - [`Error::NotLoaded`], [`Error::ShutDown`].
    pub fn start(&self) -> Result<()> {
        self.session.start()
    }

    /// Stops the plugin: SIGINT to its process group, SIGTERM after half of the stop grace, SIGKILL
    /// after all of it. For a stdio plugin its standard input is closed first, even in the middle of a
    /// message that it does not read, and SIGINT follows after a third of the grace; what it answers and
    /// prints meanwhile still counts. Stopped already is fine.
    ///
    /// # Blocking
    /// Until nothing of it is left, at most `timeout`. The end of the process wakes it. The grace is
    /// shortened, if need be, to a quarter of a second less than `timeout`.
    ///
    /// # Errors
    /// - [`Error::Timeout`] with [`Phase::Stop`] when its process is not gone in time, and
    ///   [`ErrorKind::DescendantsLeft`] with how many when it is, and others that have left its process group
    ///   are not. The plugin stays `stopping`, and goes on being stopped; another stop waits again, a start
    ///   waits for what is left, for 30 seconds.
    /// - [`Error::NotLoaded`] when it is unloaded.
    /// - [`Error::ShutDown`] when the host ended meanwhile, and the plugin with it.
    pub fn stop(&self, timeout: Duration) -> Result<StopReport> {
        self.session.stop(timeout)
    }
}
