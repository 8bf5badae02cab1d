//! How a run ends: its connection, its output, its process; and what follows.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use super::{ChildPhase, RunningChild, SupervisedChild, after};
use crate::error::Disconnect;
use crate::fault;
use crate::process::{ExitFindings, ExitReason, PostMortem, Process, ProcessEnd};
use crate::reaper::cause::{Cause, EndedProcess, EndedRun};
use crate::reaper::hooks::{RunId, Transition};
use crate::reaper::policy::{Decision, RunOutcome};
use crate::reaper::{ChildCommand, Context, StopReport};

/// How long the output and the messages of an ended process may take to arrive before its end is
/// acted upon all the same.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The same when somebody waits for the plugin to be stopped.
pub(super) const DRAIN_TIMEOUT_AT_STOP: Duration = Duration::from_millis(150);

/// The stack of the thread that reads what the system's files say of an end.
const POST_MORTEM_STACK: usize = 64 * 1024;

/// A process that has ended, and what of it is still on its way.
pub(super) struct EndedChild {
    output_pending: bool,
    /// What it sent last is still being read.
    pub(super) connection_pending: bool,
    /// Until it is reaped: what the system's files say of its end is being read.
    process: Option<Process>,
    /// Once it is reaped.
    end: Option<ProcessEnd>,
    uptime: Duration,
    at: SystemTime,
    pub(super) active_for: Option<Duration>,
    /// What the host did to it first.
    cause: Option<Cause>,
}

impl SupervisedChild {
    /// The connection of this run has ended, and all that came over it has been read.
    pub(super) fn disconnected(&mut self, context: &Context, run: RunId, cause: Arc<Disconnect>) {
        if run != self.run {
            return;
        }
        let grace = self.hooks.spec().disconnect_grace;
        let blamed = |was_active| Cause::of_connection(&cause, was_active);
        match &mut self.phase {
            ChildPhase::Running(running) => {
                running.connected = false;
                let was_active = running.active_since.is_some();
                running.cause = running.cause.take().or_else(|| blamed(was_active));
                if self.stop.is_none() {
                    // Who showed no sign of life for so long needs no time to end by itself.
                    let hangs = matches!(*cause, Disconnect::Unresponsive { .. });
                    let grace = if hangs { Duration::ZERO } else { grace };
                    let until = after(Instant::now(), grace);
                    running.deadline = Some((until, Cause::ConnectionLost { cause, grace }));
                }
            }
            ChildPhase::Preparing { early, .. } => early.disconnected = Some(cause),
            ChildPhase::Ending(ended, _) => {
                ended.connection_pending = false;
                let was_active = ended.active_for.is_some();
                ended.cause = ended.cause.take().or_else(|| blamed(was_active));
                self.end_if_complete(context);
            }
            _ => {}
        }
    }

    /// The last output of this run is in the log.
    pub(super) fn drained(&mut self, context: &Context, run: RunId) {
        if run != self.run {
            return;
        }
        match &mut self.phase {
            ChildPhase::Ending(ended, _) => {
                ended.output_pending = false;
                self.end_if_complete(context);
            }
            // It closed its output and lives on: at its end there will be nothing to wait for.
            ChildPhase::Running(running) => running.output = None,
            _ => {}
        }
    }

    pub(super) fn end_if_complete(&mut self, context: &Context) {
        let ChildPhase::Ending(ended, _) = &self.phase else {
            return;
        };
        if ended.end.is_some() && !ended.output_pending && !ended.connection_pending {
            self.ended(context);
        }
    }

    /// What the system's files say of the end of this run has been read.
    pub(super) fn examined(&mut self, context: &Context, run: RunId, findings: ExitFindings) {
        // It may come too late for what was decided without it.
        if run == self.run {
            self.reap(context, findings);
            self.end_if_complete(context);
        }
    }

    /// The group has been killed: its number is about to be free for others.
    fn forget_group(group: &mut Option<u32>, context: &Context) {
        if let Some(group) = group.take() {
            context.keeper.forget_group(group);
        }
    }

    /// Reaps the process of the run that is ending, unless that is done.
    fn reap(&mut self, context: &Context, findings: ExitFindings) {
        if let ChildPhase::Ending(ended, _) = &mut self.phase
            && let Some(process) = ended.process.take()
        {
            let group = &mut self.group;
            let end = process.finish(|| Self::forget_group(group, context), findings);
            fault::point(fault::REAPED, self.hooks.id());
            ended.end = Some(end);
        }
    }

    /// The process has ended: kills its group, reaps it, and waits for the rest of its output.
    pub(in crate::reaper) fn exited(&mut self, context: &Context) {
        let now = Instant::now();
        let running = match std::mem::replace(&mut self.phase, ChildPhase::Idle) {
            ChildPhase::Running(running) => running,
            other => {
                self.phase = other;
                return;
            }
        };
        fault::point(fault::EXITED, self.hooks.id());
        self.plan_scan(context);
        let cause = running
            .cause
            .or_else(|| self.stop.is_some().then_some(Cause::Stopped));
        let process = running.process;
        // Who knows why it ended need not ask the system.
        let post_mortem = if cause.is_none() {
            process.post_mortem()
        } else {
            None
        };
        let is_awaited =
            post_mortem.is_some_and(|post_mortem| self.start_post_mortem(context, post_mortem));
        if is_awaited {
            // While its leader is a zombie nobody else can have the number of the group.
            process.signal_group(Signal::KILL);
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
            process: Some(process),
            end: None,
            cause,
        };
        self.phase = ChildPhase::Ending(ended, now + drain_timeout);
        if !is_awaited {
            self.reap(context, ExitFindings::default());
        }
        // Tells the pump to take what is there and end, also if a stranger holds the pipe open.
        drop(running.output);
        self.end_if_complete(context);
    }

    /// Has the system's files read; returns whether that is to be waited for.
    fn start_post_mortem(&self, context: &Context, post_mortem: PostMortem) -> bool {
        let (child, run, reaper) = (self.hooks.child_id(), self.run, context.reaper.clone());
        let id = self.hooks.id();
        let started = context
            .threads
            .spawn("post-mortem", POST_MORTEM_STACK, move || {
                fault::point(fault::INQUEST, id);
                let findings = post_mortem.run();
                reaper.tell(child, ChildCommand::Examined(run, findings));
            });
        if let Err(error) = &started {
            log::debug!("plugin {id}: why it was killed is not looked at: {error}");
        }
        started.is_ok()
    }

    /// Everything of the run is over: decides what follows.
    pub(super) fn ended(&mut self, context: &Context) {
        // If its time is over before the files were read.
        self.reap(context, ExitFindings::default());
        let ChildPhase::Ending(ended, _) = std::mem::replace(&mut self.phase, ChildPhase::Idle)
        else {
            return;
        };
        let Some(end) = ended.end else { return };
        let exit = end.exit;
        if let Some(stop) = &mut self.stop {
            stop.report.exit = Some(exit);
        }
        self.hooks.ended(self.run, exit);
        let requested = ended.cause.is_none() && exit.is_clean() && ended.active_for.is_some();
        let policy_end = if requested {
            RunOutcome::Requested
        } else {
            RunOutcome::Crash
        };
        let by_itself = || {
            if end.was_out_of_cpu_time() {
                Cause::CpuTime
            } else if end.was_out_of_memory() {
                Cause::OutOfMemory
            } else {
                Cause::Exited
            }
        };
        let active_for = ended.active_for;
        let cause = ended.cause.unwrap_or_else(by_itself);
        let failure = EndedRun {
            cause,
            process: Some(EndedProcess {
                uptime: ended.uptime,
                end,
            }),
            started_at: self.started_at,
            ended_at: ended.at,
            active_for,
            restarts: self.restarts,
        };
        if self.stop.is_some() {
            self.finish_after_scan(context, Some(failure));
            return;
        }
        if self.start_again {
            // It is told as any other end, so that nobody wonders where the process went.
            self.hooks
                .transition(Transition::Restarting(failure, Duration::ZERO));
            self.start_fresh(context);
            return;
        }
        self.decide(policy_end, active_for, failure);
    }

    pub(super) fn decide(
        &mut self,
        outcome: RunOutcome,
        active_for: Option<Duration>,
        failure: EndedRun,
    ) {
        let policy = self.hooks.spec().policy;
        match self.restarts.decide(&policy, outcome, active_for) {
            Decision::Restart(wait) => {
                let wait = policy.jittered(wait, chance());
                self.phase = ChildPhase::BackingOff {
                    until: after(Instant::now(), wait),
                    at_once: wait.is_zero(),
                };
                self.hooks.transition(Transition::Restarting(failure, wait));
            }
            Decision::GiveUp => {
                self.phase = ChildPhase::Idle;
                self.hooks.transition(Transition::Errored(failure));
            }
        }
    }

    /// Nothing is left: tells those who wait. With the end of the run that was stopped, if there was
    /// one.
    pub(super) fn stopped(&mut self, ended: Option<EndedRun>) {
        self.phase = ChildPhase::Idle;
        self.hooks.transition(Transition::Inactive(ended));
        if let Some(stop) = self.stop.take() {
            let report = StopReport {
                took: stop.since.elapsed(),
                ..stop.report
            };
            for waiter in stop.waiters {
                // Room for one is kept in each; a waiter whose time ran out is gone.
                let _ = waiter.done.try_send(Ok(report.clone()));
            }
        }
    }

    /// Something in here panicked: nothing of the plugin may stay behind, nor anybody wait for it.
    pub(in crate::reaper) fn give_up(&mut self, context: &Context, panic: &str) {
        let group = &mut self.group;
        match std::mem::replace(&mut self.phase, ChildPhase::Idle) {
            // Kills the group, and waits for the process.
            ChildPhase::Running(RunningChild { process, .. })
            | ChildPhase::Ending(
                EndedChild {
                    process: Some(process),
                    ..
                },
                _,
            ) => drop(process.finish(
                || Self::forget_group(group, context),
                ExitFindings::default(),
            )),
            ChildPhase::Preparing { cancel, .. } => cancel.cancel(),
            ChildPhase::AwaitingScan { .. } => self.hooks.tally().set_awaited(false),
            _ => {}
        }
        // If the process was let go of by the panic itself.
        Self::forget_group(&mut self.group, context);
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

/// Anything from 0 up to, and without, 1. A system without random numbers only has no jitter.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / 2_f64.powi(32)
}
