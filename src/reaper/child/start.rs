//! How a run begins: it is prepared and started on a separate thread, handed over, and connects. And what
//! precedes the first of them, where runs may outlive their host: what earlier hosts have left is ended.

use std::time::{Duration, Instant, SystemTime};

use super::{Child, EarlyEvents, HINT_AFTER, RunningChild, Stage, after};
use crate::error::{Error, StartError};
use crate::fault;
use crate::protocol::Transport;
use crate::reaper::cause::{Cause, EndedRun};
use crate::reaper::hooks::{RunId, Transition};
use crate::reaper::policy::{Restarts, RunOutcome};
use crate::reaper::{ChildCommand, Context};
use crate::runtime::interrupt::Interrupt;
use crate::runtime::{Run, StopSignal};

/// The stack of the thread that prepares a run, in bytes.
const PREPARE_STACK: usize = 512 * 1024;

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

    /// Ends what earlier hosts have left, on a separate thread, unless something is under way already; returns
    /// whether [`Cleared`](ChildCommand::Cleared) will follow.
    pub(in crate::reaper) fn clear(&mut self, context: &Context) -> bool {
        if !matches!(self.stage, Stage::Idle) || context.shutting_down || self.forgotten {
            return false;
        }
        // Without a thread or a descriptor for it, the next start does it.
        let Ok(interrupt) = Interrupt::new() else {
            return false;
        };
        let (child, hooks, reaper) = (
            self.hooks.child_id(),
            self.hooks.clone(),
            context.reaper.clone(),
        );
        let cleared = interrupt.clone();
        let started = context.threads.spawn("clear", PREPARE_STACK, move || {
            let clear = std::panic::AssertUnwindSafe(|| {
                if let Err(error) = hooks.clear(&cleared) {
                    let plugin = hooks.name();
                    log::warn!("{plugin}: what earlier hosts left of it may be running: {error}");
                }
            });
            // A panic has been logged, and whatever has happened, something has to follow.
            let _ = std::panic::catch_unwind(clear);
            reaper.tell(child, ChildCommand::Cleared);
        });
        if started.is_ok() {
            self.stage = Stage::Clearing(interrupt);
        }
        started.is_ok()
    }

    pub(super) fn cleared(&mut self, context: &Context) {
        if !matches!(self.stage, Stage::Clearing(_)) {
            return;
        }
        self.stage = Stage::Idle;
        if self.stop.is_some() {
            self.finish_after_scan(context, None);
        } else if self.start_again {
            self.start_fresh(context);
        }
    }

    /// Starts a run: prepares and starts it on a separate thread.
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
        let interrupt = match Interrupt::new() {
            Ok(interrupt) => interrupt,
            Err(error) => {
                let error = Error::io("create a pipe to cancel the start", error);
                return self.could_not_start(error.into());
            }
        };
        self.stage = Stage::Preparing {
            interrupt: interrupt.clone(),
            early: EarlyEvents::default(),
        };
        let (hooks, reaper) = (self.hooks.clone(), context.reaper.clone());
        let started = context.threads.spawn("prepare", PREPARE_STACK, move || {
            // A preparation that panics must be reported too, or the plugin would wait for it forever.
            let prepare = std::panic::AssertUnwindSafe(|| {
                fault::point(fault::PREPARING, hooks.id());
                hooks.start_run(run, &interrupt)
            });
            let result = std::panic::catch_unwind(prepare).unwrap_or_else(|panic| {
                let text = crate::thread::panic_text(&*panic);
                let error = std::io::Error::other(format!("panicked: {text}"));
                Err(Error::io("prepare the start", error).into())
            });
            let mut result = result.map(Box::new);
            let afterwards = result.as_mut().ok().and_then(|run| run.take_afterwards());
            reaper.tell(child, ChildCommand::Prepared(run, result));
            if let Some(work) = afterwards {
                work();
            }
        });
        if let Err(error) = started {
            self.could_not_start(error.into());
        }
    }

    /// Handles the result of preparing and starting.
    pub(super) fn prepared(
        &mut self,
        context: &Context,
        run: RunId,
        result: Result<Box<Run>, StartError>,
    ) {
        let early = match &mut self.stage {
            Stage::Preparing { early, .. } if run == self.run => std::mem::take(early),
            // The supervision panicked meanwhile and gave this run up; dropping it ends it.
            _ => return,
        };
        match result {
            Ok(started) => self.spawned(context, *started, early),
            Err(_) if self.stop.is_some() => {
                self.finish_after_scan(context, Some(self.unstarted(Cause::Stopped)));
            }
            Err(error) => self.could_not_start(error),
        }
    }

    fn spawned(&mut self, context: &Context, started: Run, early: EarlyEvents) {
        let run = self.run;
        let Run { handle, pipes, .. } = started;
        let now = Instant::now();
        let mut running = RunningChild {
            run: handle,
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
            running.run.signal(StopSignal::Kill, Duration::ZERO);
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
        let (what, pid) = (running.run.describe(), running.run.pid());
        self.hooks
            .transition(Transition::Connecting { run, what, pid });
        match self.hooks.spawned(run, pipes) {
            Ok(output) => {
                running.output = Some(output);
                // Over stdio its pipes are the connection, whose end may explain the exit.
                running.connected |= transport == Transport::Stdio;
            }
            Err(error) => {
                running.cause = Some(Cause::Start(error.into()));
                running.deadline = None;
                running.run.signal(StopSignal::Kill, Duration::ZERO);
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
        let outcome = RunOutcome::of_start(&error);
        let failure = self.unstarted(Cause::Start(error));
        self.decide(outcome, failure);
    }

    /// Returns the record of a run that was never started.
    pub(super) fn unstarted(&self, cause: Cause) -> EndedRun {
        EndedRun {
            cause,
            exit: None,
            uptime: Duration::ZERO,
            started_at: self.started_at,
            ended_at: SystemTime::now(),
            active_for: None,
            restarts: self.restarts,
        }
    }
}
