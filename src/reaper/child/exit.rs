//! How a run ends: its connection, its output and the run itself; and what follows.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Child, RunningChild, Stage, after};
use crate::error::Disconnect;
use crate::fault;
use crate::process::ExitReason;
use crate::reaper::cause::{Cause, EndedRun};
use crate::reaper::hooks::{RunId, Transition};
use crate::reaper::policy::{Decision, RunOutcome};
use crate::reaper::{ChildCommand, Context, StopReport};
use crate::runtime::{ExitFinding, RunExit, RunHandle, StopSignal};

/// How long the last output and messages of an ended run are awaited.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The same while the plugin is being stopped.
pub(super) const DRAIN_TIMEOUT_AT_STOP: Duration = Duration::from_millis(150);

/// The stack of the thread that runs an examination, which may be an embedder's, in bytes.
const EXAMINATION_STACK: usize = 512 * 1024;

/// A run that has ended, and what is still awaited from it.
pub(super) struct EndedChild {
    output_pending: bool,
    /// Its last messages are still being read.
    pub(super) connection_pending: bool,
    /// `None` once it is finished. Until then it is being found out how it ended.
    run: Option<Box<dyn RunHandle>>,
    /// Set once it is finished.
    exit: Option<RunExit>,
    uptime: Duration,
    at: SystemTime,
    pub(super) active_for: Option<Duration>,
    /// The first thing that the host did to end the run.
    cause: Option<Cause>,
}

impl Child {
    /// Handles the end of the run's connection, after all that came over it has been read.
    pub(super) fn disconnected(&mut self, context: &Context, run: RunId, cause: Arc<Disconnect>) {
        if run != self.run {
            return;
        }
        let grace = self.hooks.spec().disconnect_grace;
        let blamed = |was_active| Cause::of_connection(&cause, was_active);
        match &mut self.stage {
            Stage::Running(running) => {
                running.connected = false;
                let was_active = running.active_since.is_some();
                running.cause = running.cause.take().or_else(|| blamed(was_active));
                if self.stop.is_none() {
                    // An unresponsive plugin has had its time already.
                    let hangs = matches!(*cause, Disconnect::Unresponsive { .. });
                    let grace = if hangs { Duration::ZERO } else { grace };
                    let until = after(Instant::now(), grace);
                    running.deadline = Some((until, Cause::ConnectionLost { cause, grace }));
                }
            }
            Stage::Preparing { early, .. } => early.disconnected = Some(cause),
            Stage::Ending(ended, _) => {
                ended.connection_pending = false;
                let was_active = ended.active_for.is_some();
                ended.cause = ended.cause.take().or_else(|| blamed(was_active));
                self.end_if_complete(context);
            }
            _ => {}
        }
    }

    /// Handles the end of the run's output, after all of it is in the log.
    pub(super) fn drained(&mut self, context: &Context, run: RunId) {
        if run != self.run {
            return;
        }
        match &mut self.stage {
            Stage::Ending(ended, _) => {
                ended.output_pending = false;
                self.end_if_complete(context);
            }
            // It closed its output and keeps running: its exit will not have to wait for output.
            Stage::Running(running) => running.output = None,
            _ => {}
        }
    }

    pub(super) fn end_if_complete(&mut self, context: &Context) {
        let Stage::Ending(ended, _) = &self.stage else {
            return;
        };
        if ended.exit.is_some() && !ended.output_pending && !ended.connection_pending {
            self.ended(context);
        }
    }

    /// Handles the end of the examination.
    pub(super) fn examined(&mut self, context: &Context, run: RunId) {
        // A late one changes nothing: the run is finished by then.
        if run == self.run {
            self.finish();
            self.end_if_complete(context);
        }
    }

    /// Finishes the run, unless that is done.
    fn finish(&mut self) {
        if let Stage::Ending(ended, _) = &mut self.stage
            && let Some(run) = ended.run.take()
        {
            let pid = run.pid();
            let exit = run.finish();
            ended.exit = Some(RunExit { pid, ..exit });
        }
    }

    /// Handles the end of the run: ends what is left of it, and waits for the rest of its output.
    pub(in crate::reaper) fn exited(&mut self, context: &Context) {
        let now = Instant::now();
        let running = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Running(running) => running,
            other => {
                self.stage = other;
                return;
            }
        };
        fault::point(fault::EXITED, self.hooks.id());
        self.plan_scan(context);
        let cause = running
            .cause
            .or_else(|| self.stop.is_some().then_some(Cause::Stopped));
        let run = running.run;
        // If the host ended it, there is nothing to find out.
        let is_awaited = cause.is_none()
            && run
                .examine()
                .is_some_and(|examine| self.start_examination(context, examine));
        if is_awaited {
            // What is left of it does not outlive it until that is found out.
            run.signal(StopSignal::Kill, Duration::ZERO);
        }
        let drain_timeout = if self.stop.is_some() {
            DRAIN_TIMEOUT_AT_STOP
        } else {
            DRAIN_TIMEOUT
        };
        let ended = EndedChild {
            output_pending: running.output.is_some(),
            connection_pending: running.connected,
            uptime: now.saturating_duration_since(running.spawned_at),
            at: SystemTime::now(),
            active_for: running
                .active_since
                .map(|since| now.saturating_duration_since(since)),
            run: Some(run),
            exit: None,
            cause,
        };
        self.stage = Stage::Ending(ended, now + drain_timeout);
        if !is_awaited {
            self.finish();
        }
        // Tells the log pump to read what is there and to end, even if another process holds the pipe open.
        drop(running.output);
        self.end_if_complete(context);
    }

    /// Finds out on a separate thread how the run ended; returns whether the result will follow.
    fn start_examination(&self, context: &Context, examine: Box<dyn FnOnce() + Send>) -> bool {
        let (child, run, reaper) = (self.hooks.child_id(), self.run, context.reaper.clone());
        let id = self.hooks.id();
        let started = context
            .threads
            .spawn("post-mortem", EXAMINATION_STACK, move || {
                examine();
                reaper.tell(child, ChildCommand::Examined(run));
            });
        if let Err(error) = &started {
            log::debug!("plugin {id}: cannot find out why it was killed: {error}");
        }
        started.is_ok()
    }

    /// Handles the complete end of the run: decides what follows.
    pub(super) fn ended(&mut self, context: &Context) {
        // Unless the drain timeout has passed before it was found out how it ended, it is finished already.
        self.finish();
        let Stage::Ending(ended, _) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return;
        };
        let Some(exit) = ended.exit else { return };
        if let Some(stop) = &mut self.stop {
            stop.report.exit = Some(exit.reason);
            stop.report.killed |= exit.was_killed;
        }
        self.hooks.ended(self.run, exit.reason);
        let (cause, outcome) = judge(ended.cause, &exit, ended.active_for.is_some());
        let failure = EndedRun {
            cause,
            exit: Some(exit),
            uptime: ended.uptime,
            started_at: self.started_at,
            ended_at: ended.at,
            active_for: ended.active_for,
            restarts: self.restarts,
        };
        if self.stop.is_some() {
            self.finish_after_scan(context, Some(failure));
            return;
        }
        if self.start_again {
            // Reported like any other end, so that the history shows why the process changed.
            self.hooks
                .transition(Transition::Restarting(failure, Duration::ZERO));
            self.start_fresh(context);
            return;
        }
        self.decide(outcome, failure);
    }

    pub(super) fn decide(&mut self, outcome: RunOutcome, failure: EndedRun) {
        let policy = self.hooks.spec().policy;
        match self.restarts.decide(&policy, outcome, failure.active_for) {
            Decision::Restart(wait) => {
                self.stage = Stage::BackingOff {
                    until: after(Instant::now(), wait),
                    at_once: wait.is_zero(),
                };
                self.hooks.transition(Transition::Restarting(failure, wait));
            }
            Decision::GiveUp => {
                self.stage = Stage::Idle;
                self.hooks.transition(Transition::Errored(failure));
            }
        }
    }

    /// Reports a stop after which nothing is left. `ended` is the run that was stopped, if there was one.
    pub(super) fn stopped(&mut self, ended: Option<EndedRun>) {
        self.stage = Stage::Idle;
        self.hooks.transition(Transition::Inactive(ended));
        if let Some(stop) = self.stop.take() {
            let report = StopReport {
                took: stop.since.elapsed(),
                ..stop.report
            };
            for waiter in stop.waiters {
                // Each channel has room for one; a caller whose timeout has passed does not receive it.
                let _ = waiter.done.try_send(Ok(report.clone()));
            }
        }
    }

    /// Cleans up after a panic in the supervision: ends the run and reports the end, so that no caller
    /// waits in vain.
    pub(in crate::reaper) fn give_up(&mut self, context: &Context, panic: &str) {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Running(RunningChild { run, .. })
            | Stage::Ending(EndedChild { run: Some(run), .. }, _) => {
                // A second panic must not keep the end from being reported.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(run.finish())));
            }
            Stage::Clearing(interrupt) | Stage::Preparing { interrupt, .. } => interrupt.cancel(),
            Stage::AwaitingScan { .. } => self.hooks.tally().set_awaited(false),
            _ => {}
        }
        self.plan_scan(context);
        self.start_again = false;
        self.hooks.ended(self.run, ExitReason::Unknown);
        let failure = self.unstarted(Cause::Panicked(panic.to_owned()));
        if self.stop.is_some() {
            self.finish_after_scan(context, Some(failure));
        } else {
            self.hooks.transition(Transition::Errored(failure));
        }
    }
}

/// Returns why a run ended, and what that means. `cause` is the first thing that the host did to end it.
fn judge(cause: Option<Cause>, exit: &RunExit, was_active: bool) -> (Cause, RunOutcome) {
    match (cause, &exit.finding) {
        // A plugin that the host has lost can neither connect nor answer.
        (
            None
            | Some(
                Cause::ConnectionLost { .. }
                | Cause::NeverConnected { .. }
                | Cause::Unresponsive(_),
            ),
            Some(ExitFinding::Lost(why)),
        ) => (Cause::Lost(why.clone()), RunOutcome::Passing),
        (Some(Cause::Start(error)), _) => {
            let outcome = RunOutcome::of_start(&error);
            (Cause::Start(error), outcome)
        }
        (Some(cause), _) => (cause, RunOutcome::Crash),
        (None, Some(ExitFinding::CpuTime)) => (Cause::CpuTime, RunOutcome::Crash),
        (None, Some(ExitFinding::OutOfMemory)) => (Cause::OutOfMemory, RunOutcome::Crash),
        (None, _) if was_active && exit.reason.is_clean() => (Cause::Exited, RunOutcome::Requested),
        (None, _) => (Cause::Exited, RunOutcome::Crash),
    }
}
