//! How a run ends: its connection, its output, its process; and what follows.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Phase, Ward, after};
use crate::error::Disconnect;
use crate::fault;
use crate::process::ExitReason;
use crate::reaper::cause::{Cause, EndedProcess, Failure};
use crate::reaper::charge::{Run, Transition};
use crate::reaper::policy::{Decision, End};
use crate::reaper::{Context, StopReport};

/// How long the output and the messages of an ended process may take to arrive before its end is
/// acted upon all the same.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The same when somebody waits for the plugin to be stopped.
pub(super) const LAST_WORDS_AT_STOP: Duration = Duration::from_millis(150);

/// A process that is gone, and what of it is still on its way.
pub(super) struct Ended {
    output_pending: bool,
    /// What it sent last is still being read.
    pub(super) connection_pending: bool,
    process: EndedProcess,
    at: SystemTime,
    pub(super) active_for: Option<Duration>,
    /// What the host did to it first.
    cause: Option<Cause>,
}

impl Ward {
    /// The connection of this run has ended, and all that came over it has been read.
    pub(in crate::reaper) fn disconnected(
        &mut self,
        context: &Context<'_>,
        run: Run,
        cause: Arc<Disconnect>,
    ) {
        if run != self.run {
            return;
        }
        let grace = self.charge.settings().disconnect_grace;
        let blamed = || Cause::of_connection(&cause);
        match &mut self.phase {
            Phase::Running(running) => {
                running.connected = false;
                running.cause = running.cause.take().or_else(blamed);
                if self.stop.is_none() {
                    // Who showed no sign of life for so long needs no time to end by itself.
                    let hangs = matches!(*cause, Disconnect::Unresponsive { .. });
                    let grace = if hangs { Duration::ZERO } else { grace };
                    let until = after(Instant::now(), grace);
                    running.patience = Some((until, Cause::ConnectionLost { cause, grace }));
                }
            }
            Phase::Ending(ended, _) => {
                ended.connection_pending = false;
                ended.cause = ended.cause.take().or_else(blamed);
                self.end_if_complete(context);
            }
            _ => {}
        }
    }

    /// The last output of this run is in the log.
    pub(in crate::reaper) fn drained(&mut self, context: &Context<'_>, run: Run) {
        if run != self.run {
            return;
        }
        match &mut self.phase {
            Phase::Ending(ended, _) => {
                ended.output_pending = false;
                self.end_if_complete(context);
            }
            // It closed its output and lives on: at its end there will be nothing to wait for.
            Phase::Running(running) => running.output = None,
            _ => {}
        }
    }

    pub(super) fn end_if_complete(&mut self, context: &Context<'_>) {
        if matches!(&self.phase, Phase::Ending(ended, _) if !ended.output_pending && !ended.connection_pending)
        {
            self.ended(context);
        }
    }

    /// The process has ended: kills its group, reaps it, and waits for the rest of its output.
    pub(in crate::reaper) fn exited(&mut self, context: &Context<'_>) {
        let now = Instant::now();
        let running = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Running(running) => running,
            other => {
                self.phase = other;
                return;
            }
        };
        let pid = running.process.pid();
        fault::point(fault::EXITED, self.charge.id());
        let end = running.process.finish(|| self.forget_group(context));
        fault::point(fault::REAPED, self.charge.id());
        self.plan_sweep(context);
        if self.stop.is_some() {
            self.sweeps.hurry(now);
        }
        let patience = if self.stop.is_some() {
            LAST_WORDS_AT_STOP
        } else {
            LAST_WORDS
        };
        let ended = Ended {
            output_pending: running.output.is_some(),
            connection_pending: running.connected,
            at: SystemTime::now(),
            active_for: running
                .active_since
                .map(|since| now.saturating_duration_since(since)),
            cause: running
                .cause
                .or_else(|| self.stop.is_some().then_some(Cause::Stopped)),
            process: EndedProcess {
                pid,
                uptime: now.saturating_duration_since(running.spawned_at),
                end,
            },
        };
        // Tells the pump to take what is there and end, also if a stranger holds the pipe open.
        drop(running.output);
        if let Some(stop) = &mut self.stop {
            stop.exit = Some(ended.process.end.exit);
        }
        self.phase = Phase::Ending(ended, now + patience);
        self.end_if_complete(context);
    }

    /// Everything of the run is over: decides what follows.
    pub(super) fn ended(&mut self, context: &Context<'_>) {
        let Phase::Ending(ended, _) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        let exit = ended.process.end.exit;
        self.charge.ended(self.run, exit);
        let requested = ended.cause.is_none() && exit.is_clean() && ended.active_for.is_some();
        let end = if requested {
            End::Requested
        } else {
            End::Crash
        };
        let by_itself = || {
            if ended.process.end.was_out_of_cpu_time() {
                Cause::CpuTime
            } else if ended.process.end.was_out_of_memory() {
                Cause::OutOfMemory
            } else {
                Cause::Exited
            }
        };
        let active_for = ended.active_for;
        let failure = Failure {
            cause: ended.cause.unwrap_or_else(by_itself),
            process: Some(ended.process),
            started_at: self.begun_at,
            ended_at: ended.at,
            active_for,
            restarts: self.history.restarts(),
        };
        if self.stop.is_some() {
            self.clear(context, Some(failure));
            return;
        }
        if self.start_again {
            // It is told as any other end, so that nobody wonders where the process went.
            self.charge.transition(Transition::Restarting {
                failure,
                after: Duration::ZERO,
            });
            self.begin_anew(context);
            return;
        }
        self.decide(end, active_for, failure);
    }

    pub(super) fn decide(&mut self, end: End, active_for: Option<Duration>, failure: Failure) {
        let policy = self.charge.settings().policy;
        match self.history.decide(&policy, end, active_for) {
            Decision::Restart(wait) => {
                let wait = policy.jittered(wait, chance());
                self.phase = Phase::BackingOff {
                    until: after(Instant::now(), wait),
                    at_once: wait.is_zero(),
                };
                self.charge.transition(Transition::Restarting {
                    failure,
                    after: wait,
                });
            }
            Decision::GiveUp => {
                self.phase = Phase::Idle;
                self.charge.transition(Transition::Errored { failure });
            }
        }
    }

    /// Nothing is left: tells those who wait. With the end of the run that was stopped, if there was
    /// one.
    pub(super) fn stopped(&mut self, ended: Option<Failure>) {
        self.phase = Phase::Idle;
        self.charge.transition(Transition::Inactive { ended });
        if let Some(stop) = self.stop.take() {
            let report = StopReport {
                exit: stop.exit,
                killed: stop.killed,
                took: stop.since.elapsed(),
            };
            for waiter in stop.waiters {
                // Room for one is kept in each; a waiter whose time ran out is gone.
                let _ = waiter.try_send(report.clone());
            }
        }
    }

    /// Something in here panicked: nothing of the plugin may stay behind, nor anybody wait for it.
    pub(in crate::reaper) fn give_up(&mut self, context: &Context<'_>, panic: &str) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            // Kills the group, and waits for the process.
            Phase::Running(running) => {
                running.process.finish(|| self.forget_group(context));
            }
            Phase::Preparing { cancel } => cancel.cancel(),
            _ => {}
        }
        // If the process was let go of by the panic itself.
        self.forget_group(context);
        self.plan_sweep(context);
        self.start_again = false;
        self.charge.ended(self.run, ExitReason::Unknown);
        let failure = self.unstarted(Cause::Panicked(panic.to_owned()));
        if self.stop.is_some() {
            self.clear(context, Some(failure));
        } else {
            self.charge.transition(Transition::Errored { failure });
        }
    }
}

/// Anything from 0 up to, and without, 1. A system without random numbers only has no jitter.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / 2_f64.powi(32)
}
