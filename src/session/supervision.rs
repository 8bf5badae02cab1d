//! `SessionHooks`: what a session does for the reaper. Starts runs, takes over their pipes,
//! and turns the reaper's transitions into states, messages and details.

use std::sync::Arc;
use std::time::Duration;

use super::attach::{Credential, Peer};
use super::history::RunEnd;
use super::problem::Problem;
use super::shared::SharedSession;
use super::state::{RunProcess, SessionState};
use crate::auth::{SealedToken, Secret};
use crate::deadline::Deadline;
use crate::duplex::stdio::Stdio;
use crate::error::{Disconnect, Error, ErrorKind, Result, StartError};
use crate::id::InstallationId;
use crate::plugin_log::pump::{Outputs, pump};
use crate::plugin_log::queue::{LineFeed, LogQueue};
use crate::plugin_log::{LogStream, PluginLog};
use crate::process::ExitReason;
use crate::process::orphans::Tally;
use crate::protocol::manifest::Transport;
use crate::reaper::{
    Cause, ChildHooks, ChildId, ChildSpec, EndedRun, Reaper, RunId, Transition, how_to_connect,
};
use crate::runtime::interrupt::Interrupt;
use crate::runtime::{Launch, Run, RunPipes};
use crate::state::ReportedState;
use crate::text::{Foreign, PluginName};

/// The stack of a log pump's thread, in bytes.
const PUMP_STACK: usize = 256 * 1024;

/// Ends of runs that [`Session::restart_history`](super::Session::restart_history) keeps; the oldest goes first.
const KEPT_ENDS: usize = 32;

/// The hooks that the reaper holds for a session.
pub(super) struct SessionHooks(pub(super) Arc<SharedSession>);

/// Held by all readers of a run's output: the log pump and, over stdio, the connection. When the last of them
/// drops it, the reaper is told that all output is in the log.
struct Drained {
    reaper: Reaper,
    child: ChildId,
    run: RunId,
}

impl Drop for Drained {
    fn drop(&mut self) {
        self.reaper.drained(self.child, self.run);
    }
}

impl ChildHooks for SessionHooks {
    fn child_id(&self) -> ChildId {
        self.0.child
    }

    fn id(&self) -> InstallationId {
        self.0.id
    }

    fn name(&self) -> PluginName<'_> {
        PluginName {
            manifest_id: &self.0.name,
            id: self.0.id,
        }
    }

    fn start_handled(&self) {
        self.0.state.lock().starts_pending -= 1;
        self.0.state.notify();
    }

    fn spec(&self) -> ChildSpec {
        let context = &self.0.context;
        ChildSpec {
            policy: context.settings.policy.clone(),
            transport: self.0.record().manifest.transport,
            connect_timeout: context.settings.timeouts.connect,
            disconnect_grace: context.settings.timeouts.disconnect_grace,
        }
    }

    fn tally(&self) -> &Arc<Tally> {
        &self.0.tally
    }

    fn start_run(&self, run: RunId, interrupt: &Interrupt) -> Result<Run, StartError> {
        let shared = &self.0;
        let context = &shared.context;
        // The log is opened before the spawn, because the reaper must not wait for the disk.
        let log = shared.open_log()?;
        // Error details show the output of this run only.
        log.clear_tail();
        let record = shared.refreshed_record()?;
        let runtime = context.services.runtime()?;
        let url = match record.manifest.transport {
            Transport::Stdio => None,
            Transport::WebSocket => Some(self.seal_url(run)?),
        };
        let started = runtime.start(&Launch {
            record: &record,
            store: &*context.services.store,
            connection_url: url.as_deref(),
            run,
            interrupt,
            log: &|| Ok(log.clone()),
            local: &context.services.local,
        })?;
        Ok(started)
    }

    fn clear(&self, interrupt: &Interrupt) -> Result<()> {
        let shared = &self.0;
        let services = &shared.context.services;
        services.runtime()?.clear(&Launch {
            record: &shared.record(),
            store: &*services.store,
            connection_url: None,
            run: 0,
            interrupt,
            // A plugin that never runs has none.
            log: &|| shared.open_log(),
            local: &services.local,
        })
    }

    fn spawned(&self, run: RunId, pipes: RunPipes) -> Result<std::io::PipeWriter> {
        let shared = &self.0;
        let context = &shared.context;
        // The log was opened by `prepare`; it is gone only if the plugin is being unloaded.
        let log = shared
            .log
            .lock()
            .clone()
            .ok_or(Error::NotLoaded(shared.id))?;
        let (stop, guard) =
            std::io::pipe().map_err(|error| Error::io("create the log pump's stop pipe", error))?;
        let RunPipes {
            stdin,
            stdout,
            stderr,
        } = pipes;
        let queue =
            LogQueue::new().map_err(|error| Error::io("create a queue to the log", error))?;
        let mut outputs = Outputs {
            stdout: None,
            stderr,
            queue: queue.clone(),
        };
        let mut stdio = None;
        match (self.spec().transport, stdin, stdout) {
            (Transport::Stdio, Some(stdin), Some(stdout)) => {
                let feed = LineFeed::new(log.clone(), queue, LogStream::Stdout);
                stdio = Some((stdin, stdout, feed));
            }
            (Transport::Stdio, ..) => {
                let name = context.services.runtime_name();
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the runtime {name} has no standard input and output for a stdio plugin"
                    ),
                ));
            }
            (Transport::WebSocket, _, stdout) => outputs.stdout = stdout,
        }
        let drained = Arc::new(Drained {
            reaper: context.services.reaper.clone(),
            child: shared.child,
            run,
        });
        let pump_drained = drained.clone();
        context
            .services
            .threads
            .spawn(&format!("log-{}", shared.name), PUMP_STACK, move || {
                pump(outputs, &log, stop.into());
                drop(pump_drained);
            })?;
        if let Some((stdin, stdout, feed)) = stdio {
            let duplex = Stdio::new(stdout, stdin).on_output(move |line| {
                // Dropped, together with the feed, when the connection has been read to its end.
                let _held = &drained;
                feed.put(line);
            });
            let refused = |state| Error::State {
                state,
                message: None,
            };
            let reservation = shared
                .reserve(&Credential::Trusted, Deadline::after(Duration::MAX))
                .map_err(|_| refused(self.0.state.lock().reported))?;
            reservation.attach(Box::new(duplex), &Peer::default(), true)?;
        }
        Ok(guard)
    }

    fn waited(&self, run: RunId, time: Duration) {
        let shared = &self.0;
        let connection = {
            let state = shared.state.lock();
            if state.run != run || state.reported != ReportedState::Connecting {
                return;
            }
            state.connection.clone()
        };
        let transport = self.spec().transport;
        let missing = match transport {
            Transport::Stdio => "no answer to the first ping",
            Transport::WebSocket => "not connected",
        };
        let mut hint = format!("{missing} after {time:?}; {}", how_to_connect(transport));
        if let Some(oddity) = connection.and_then(|connection| connection.oddity(None)) {
            hint.push_str("; ");
            hint.push_str(&oddity);
        }
        let hint = Foreign::new(&hint).to_string();
        let log = shared.log.lock().clone();
        if !log.is_some_and(|log| log.note(&hint)) {
            log::warn!("plugin {}: {hint}", shared.name);
        }
    }

    fn ended(&self, run: RunId, exit: ExitReason) {
        let connection = {
            let mut state = self.0.state.lock();
            if state.run != run {
                return;
            }
            state.secret = None;
            state.reserved = None;
            state.process = None;
            // Removed here, so that the connection of the next run is not refused because of it.
            let connection = state.connection.take();
            if connection.is_some() {
                self.0.drop_events();
            }
            connection
        };
        if let Some(connection) = connection {
            // An orphan may hold the socket open.
            connection.abort(Disconnect::ProcessEnded(exit.to_string().into()));
        }
    }

    fn transition(&self, transition: Transition) {
        let shared = &self.0;
        if let Transition::Connecting { what, .. } = &transition {
            log::info!("plugin {}: started, {what}", shared.name);
        }
        match transition {
            Transition::Starting(run) => self.starting(run),
            Transition::Connecting { run, pid, .. } => {
                let mut state = shared.state.lock();
                if state.run == run {
                    state.process = pid.map(RunProcess::new);
                }
                // It may be connected already.
                if state.run == run && state.reported == ReportedState::Starting {
                    shared.enter(&mut state, ReportedState::Connecting, None);
                }
            }
            Transition::Stopping => self.stopping(),
            Transition::Inactive(ended) => {
                let mut state = shared.state.lock();
                state.secret = None;
                if let Some(ended) = ended {
                    self.remember(&mut state, &ended, &self.stopped(&ended), false);
                }
                if state.reported != ReportedState::Inactive {
                    shared.enter(&mut state, ReportedState::Inactive, None);
                }
            }
            Transition::Ended(ended) => {
                let mut state = shared.state.lock();
                self.remember(&mut state, &ended, &self.stopped(&ended), false);
            }
            Transition::Restarting(failure, after) => self.failed(failure, Some(after)),
            Transition::Errored(failure) => self.failed(failure, None),
        }
    }
}

impl SessionHooks {
    fn starting(&self, run: RunId) {
        let shared = &self.0;
        let mut state = shared.state.lock();
        state.run = run;
        state.secret = None;
        state.reserved = None;
        state.process = None;
        // A connection from before this run cannot be to its process.
        let stale = state.connection.take();
        // A request to start may have set the state already.
        if state.reported != ReportedState::Starting {
            shared.enter(&mut state, ReportedState::Starting, None);
        }
        // Aborting fails a pending first ping, which takes the state lock.
        drop(state);
        if let Some(connection) = stale {
            connection.abort(Disconnect::NotYet);
        }
    }

    fn stopping(&self) {
        let shared = &self.0;
        let mut state = shared.state.lock();
        let connection = state.connection.clone();
        let (code, reason) = state.stop_reason.clone();
        // Calls in flight may still be answered; otherwise they fail with this reason.
        if let Some(connection) = &connection {
            let reason = reason.clone();
            connection.set_close_cause(Disconnect::ByHost { code, reason });
        }
        shared.drop_events();
        // The state is set already if the stop coincided with the plugin's last crash.
        if state.reported != ReportedState::Stopping {
            shared.enter(&mut state, ReportedState::Stopping, None);
        }
        // `hang_up` takes the transport's locks, with no lock of the session held.
        drop(state);
        if let Some(connection) = connection {
            connection.hang_up(code, &reason);
        }
    }

    /// Reports a failed run. Another follows after `restarting_after`, or none.
    fn failed(&self, failure: EndedRun, restarting_after: Option<Duration>) {
        let shared = &self.0;
        let problem = self.problem(&failure, restarting_after);
        let (name, message) = (&shared.name, problem.message());
        let reported = if let Some(after) = restarting_after {
            log::warn!("plugin {name}: {message}; starting again in {after:?}");
            ReportedState::Restarting
        } else {
            log::error!("plugin {name}: {message}; giving up");
            ReportedState::Errored
        };
        let mut state = shared.state.lock();
        self.remember(&mut state, &failure, &problem, restarting_after.is_none());
        state.start_error = match failure.cause {
            Cause::Start(error) => Some(error.into()),
            _ => None,
        };
        shared.enter(&mut state, reported, Some(problem));
    }

    /// Returns the URL with a token for this run, sealed with a new secret.
    fn seal_url(&self, run: RunId) -> Result<String, StartError> {
        let shared = &self.0;
        let base = shared
            .context
            .services
            .addresses
            .base_url()
            .ok_or(StartError::NoAddress)?;
        let secret = Secret::generate().map_err(Error::from)?;
        let token = SealedToken::seal(&secret, shared.id).map_err(Error::from)?;
        let digest = token.digest();
        let url = token
            .connection_url(&base, shared.id)
            .map_err(Error::from)?;
        let mut state = shared.state.lock();
        if state.run == run {
            state.secret = Some(secret);
            drop(state);
            shared.learn_token(digest);
        }
        Ok(url)
    }

    /// Returns what is known about a failure.
    fn problem(&self, failure: &EndedRun, restarting_after: Option<Duration>) -> Problem {
        let output = self.0.log.lock().as_ref().map(|log| log.tail());
        let output = output.unwrap_or_default();
        let message = failure.message(&self.spec(), restarting_after.is_none());
        let provider = self.0.context.services.runtime_name();
        Problem::of_run(failure, message, provider, restarting_after, output)
    }

    /// Returns what is known about the end of a run after a stop was requested.
    fn stopped(&self, ended: &EndedRun) -> Problem {
        let provider = self.0.context.services.runtime_name();
        Problem::of_run(ended, ended.to_string(), provider, None, Vec::new())
    }

    /// Adds an ended run to the session's history.
    fn remember(
        &self,
        state: &mut SessionState,
        ended: &EndedRun,
        problem: &Problem,
        given_up: bool,
    ) {
        let end = RunEnd {
            run: 0,
            started_at: ended.started_at,
            ended_at: ended.ended_at,
            problem: problem.without_output(),
            given_up,
        };
        let is_restarted = problem.restart_after().is_some();
        let totals = &self.0.context.totals;
        totals.run_ended(ended.end_cause(), is_restarted);
        state.history.push(end, KEPT_ENDS);
    }
}

impl SharedSession {
    /// Returns the plugin's log. Opens it if needed, which waits for the disk.
    pub(super) fn open_log(&self) -> Result<Arc<PluginLog>> {
        let log = self.context.open_log(&self.log_slot, &self.name)?;
        *self.log.lock() = Some(log.clone());
        Ok(log)
    }
}
