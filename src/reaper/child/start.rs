//! How a run begins: its process is prepared and spawned on a separate thread, handed over, and connects.

use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use super::{Child, EarlyEvents, HINT_AFTER, RunningChild, Stage, after, signal};
use crate::deadline::Deadline;
use crate::error::{Error, StartError};
use crate::fault;
use crate::keeper::link::KeeperLink;
use crate::poll;
use crate::process::{ExitFindings, Pipes, Process};
use crate::protocol::Transport;
use crate::reaper::cause::{Cause, EndedRun};
use crate::reaper::hooks::{Cancel, ChildHooks, RunId, Transition};
use crate::reaper::policy::{Restarts, RunOutcome};
use crate::reaper::{ChildCommand, Context};
use crate::thread::Threads;

/// How long a spawn is retried while the program's file is open for writing.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// The pause between these retries.
const BUSY_WAIT: Duration = Duration::from_millis(5);

impl Child {
    /// Starts a run after a stop, an explicit start or giving up, with the count of restarts at zero.
    pub(super) fn start_fresh(&mut self, context: &Context) {
        self.start_again = false;
        self.restarts = Restarts::default();
        self.start_after_scan(context);
    }

    /// Starts a requested run once the scan for orphans of the previous one is over, which may take only a
    /// moment.
    pub(super) fn start_after_scan(&mut self, context: &Context) {
        if self.scans.is_done() {
            self.start_run(context);
        } else {
            self.wait_for_scan(None);
        }
    }

    /// Starts a run: prepares and spawns it on a separate thread.
    pub(super) fn start_run(&mut self, context: &Context) {
        if context.shutting_down || self.forgotten {
            let ended = self.leave_awaiting_scan();
            self.stage = Stage::Idle;
            self.hooks.transition(Transition::Inactive(ended));
            return;
        }
        if !self.scans.may_start(self.run) {
            if !matches!(self.stage, Stage::AwaitingScan { .. }) {
                self.wait_for_scan(None);
            }
            return;
        }
        self.leave_awaiting_scan();
        self.run = context.reaper.next_id();
        self.started_at = SystemTime::now();
        let (child, run) = (self.hooks.child_id(), self.run);
        self.hooks.transition(Transition::Starting(run));
        let cancel = Cancel::default();
        self.stage = Stage::Preparing {
            cancel: cancel.clone(),
            early: EarlyEvents::default(),
        };
        let (hooks, reaper) = (self.hooks.clone(), context.reaper.clone());
        let (keeper, threads) = (context.keeper.clone(), context.threads.clone());
        let started = context.threads.spawn("prepare", 512 * 1024, move || {
            // A preparation that panics must be reported too, or the plugin would wait for it forever.
            let prepare = std::panic::AssertUnwindSafe(|| {
                fault::point(fault::PREPARING, hooks.id());
                prepare_and_spawn(&*hooks, run, &cancel, &keeper, &threads)
            });
            let result = std::panic::catch_unwind(prepare).unwrap_or_else(|panic| {
                let text = crate::thread::panic_text(&*panic);
                let error = std::io::Error::other(format!("panicked: {text}"));
                Err(Error::io("prepare the start", error).into())
            });
            let memory = result.as_ref().ok().map(|spawned| spawned.0.memory());
            reaper.tell(child, ChildCommand::Prepared(run, result));
            // Last, because no part of the start waits for it.
            if let Some((memory, pid)) = memory {
                memory.begin(pid);
            }
        });
        if let Err(error) = started {
            self.could_not_start(error.into());
        }
    }

    /// Handles the result of preparing and spawning.
    pub(super) fn prepared(
        &mut self,
        context: &Context,
        run: RunId,
        result: Result<Box<(Process, Pipes)>, StartError>,
    ) {
        let early = match &mut self.stage {
            Stage::Preparing { early, .. } if run == self.run => std::mem::take(early),
            _ => {
                // The supervision panicked meanwhile and gave this run up.
                if let Ok(spawned) = result {
                    let (process, _) = *spawned;
                    let pid = process.pid();
                    let forget = || context.keeper.forget_group(pid);
                    process.finish(forget, ExitFindings::default());
                }
                return;
            }
        };
        match result {
            Ok(spawned) => self.spawned(context, *spawned, early),
            Err(_) if self.stop.is_some() => {
                self.finish_after_scan(context, Some(self.unstarted(Cause::Stopped)));
            }
            Err(error) => self.could_not_start(error),
        }
    }

    fn spawned(
        &mut self,
        context: &Context,
        (process, pipes): (Process, Pipes),
        early: EarlyEvents,
    ) {
        let (run, pid) = (self.run, process.pid());
        self.group = Some(pid);
        let now = Instant::now();
        let mut running = RunningChild {
            process,
            spawned_at: now,
            active_since: early.active_since,
            deadline: None,
            hint_at: None,
            cause: None,
            output: None,
            connected: early.active_since.is_some() && early.disconnected.is_none(),
        };
        if self.stop.is_some() {
            // The stop was requested while it was being prepared.
            signal(&*self.hooks, &running.process, Signal::KILL);
            self.stage = Stage::Running(running);
            return;
        }
        let spec = self.hooks.spec();
        let (limit, transport) = (spec.connect_timeout, spec.transport);
        let never_connected = Cause::NeverConnected { limit, transport };
        if early.active_since.is_none() {
            running.deadline = Some((after(now, limit), never_connected));
            running.hint_at = Some(now + HINT_AFTER);
        }
        self.hooks.transition(Transition::Connecting { run, pid });
        match self.hooks.spawned(run, pipes) {
            Ok(output) => {
                running.output = Some(output);
                // Over stdio its pipes are the connection, whose end may explain the exit.
                running.connected |= transport == Transport::Stdio;
            }
            Err(error) => {
                running.cause = Some(Cause::Start(error.into()));
                running.deadline = None;
                signal(&*self.hooks, &running.process, Signal::KILL);
            }
        }
        self.stage = Stage::Running(running);
        if let Some(cause) = early.disconnected {
            self.disconnected(context, run, cause);
        }
    }

    pub(super) fn connected(&mut self, run: RunId) {
        if run != self.run {
            return;
        }
        match &mut self.stage {
            Stage::Running(running) => {
                running.active_since.get_or_insert_with(Instant::now);
                running.hint_at = None;
                // It reconnected in time, so the end of the previous connection is not the cause of its end.
                if running.deadline.take().is_some() {
                    running.cause = None;
                    self.start_again = false;
                }
                running.connected = true;
            }
            Stage::Preparing { early, .. } => {
                early.active_since.get_or_insert_with(Instant::now);
                early.disconnected = None;
            }
            // It was active for so short a time that its exit was seen in the same loop iteration.
            Stage::Ending(ended, _) => {
                ended.active_for.get_or_insert(Duration::ZERO);
                ended.connection_pending = true;
            }
            _ => {}
        }
    }

    pub(super) fn could_not_start(&mut self, error: StartError) {
        let permanent = error.is_permanent();
        let failure = self.unstarted(Cause::Start(error));
        if permanent {
            self.stage = Stage::Idle;
            self.hooks.transition(Transition::Errored(failure));
        } else {
            self.decide(RunOutcome::Crash, failure);
        }
    }

    /// Returns the record of a run that never had a process.
    pub(super) fn unstarted(&self, cause: Cause) -> EndedRun {
        EndedRun {
            cause,
            process: None,
            uptime: Duration::ZERO,
            started_at: self.started_at,
            ended_at: SystemTime::now(),
            active_for: None,
            restarts: self.restarts,
        }
    }
}

/// Prepares a run and spawns its process, which is announced to the keeper at once. Waits for the disk.
fn prepare_and_spawn(
    hooks: &dyn ChildHooks,
    run: RunId,
    cancel: &Cancel,
    keeper: &KeeperLink,
    threads: &Threads,
) -> Result<Box<(Process, Pipes)>, StartError> {
    let command = hooks.prepare(run, cancel)?;
    let give_up_at = Deadline::after(BUSY_LIMIT);
    loop {
        if cancel.is_cancelled() {
            return Err(StartError::Cancelled);
        }
        keeper.ensure_started();
        match Process::spawn(&command, threads) {
            Ok(spawned) => {
                keeper.watch_group(spawned.0.pid());
                fault::point(fault::SPAWNED, hooks.id());
                return Ok(Box::new(spawned));
            }
            // The program's file is open for writing, most likely inherited by a child of another plugin that
            // has been forked and has not executed yet.
            Err(error) if error.is_busy() && !give_up_at.has_passed() => {
                let _ = poll::wait(&mut [], Some(Deadline::after(BUSY_WAIT)));
            }
            Err(error) => return Err(error),
        }
    }
}
