//! The supervision of one plugin: a state machine that the reaper's thread drives with commands,
//! exits and the time. It is the only place that holds the plugin's process, so there is at most
//! one.
//!
//! What lives here: the phases, commands and timers. How a run begins is in `start`, how it ends
//! and what follows in `exit`, and what it may have left outside of its group in `orphans`.

mod exit;
mod orphans;
mod start;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use super::cause::Cause;
use super::cause::EndedRun;
use super::hooks::{Cancel, ChildHooks, OutputGuard, RunId, Transition};
use super::policy::Restarts;
use super::{ChildCommand, Context, StopReport, StopWaiter};
use crate::error::Disconnect;
use crate::fault;
use crate::id::InstallationId;
use crate::process::{ExitWatch, Process};
use crate::protocol::Transport;
use exit::{DRAIN_TIMEOUT_AT_STOP, EndedChild};
use orphans::{LEFT_LIMIT, ScanSchedule};

pub(super) struct SupervisedChild {
    hooks: Arc<dyn ChildHooks>,
    run: RunId,
    /// When the run began, for people.
    started_at: SystemTime,
    restarts: Restarts,
    phase: ChildPhase,
    /// The process group that the keeper was told of.
    group: Option<u32>,
    /// What runs before left outside of their group is being looked for.
    scans: ScanSchedule,
    /// A stop under way, whatever the phase.
    stop: Option<StopRequest>,
    /// A start was asked for that has to wait for the end of what there is.
    start_again: bool,
    /// The session is gone: nothing is started any more.
    forgotten: bool,
}

enum ChildPhase {
    Idle,
    /// A thread prepares the run and spawns its process; there is one at most until it has come back.
    Preparing {
        cancel: Cancel,
        early: EarlyEvents,
    },
    Running(RunningChild),
    /// The process is gone; its last output and messages are on their way.
    Ending(EndedChild, Instant),
    /// Nothing but looks is waited for: then it is stopped, or, if nobody asked for that, started.
    AwaitingScan {
        /// The run that was stopped, if there was one.
        ended: Option<EndedRun>,
        /// A start does not wait for longer.
        until: Instant,
    },
    BackingOff {
        until: Instant,
        /// Without any wait, not even for what the run before left to be looked for; unless some of it
        /// has been seen.
        at_once: bool,
    },
}

/// What was heard of a process before the thread that spawned it handed it over.
#[derive(Default)]
struct EarlyEvents {
    active_since: Option<Instant>,
    /// Why its connection has ended already.
    disconnected: Option<Arc<Disconnect>>,
}

struct RunningChild {
    process: Process,
    spawned_at: Instant,
    /// When it first became active.
    active_since: Option<Instant>,
    /// It must have connected, or ended, by then.
    deadline: Option<(Instant, Cause)>,
    /// When those who wonder why it is not active are told what is waited for.
    hint_at: Option<Instant>,
    /// What the host did to it first.
    cause: Option<Cause>,
    /// Held until its end; `None` once all of its output is in the log.
    output: Option<OutputGuard>,
    /// It has a connection.
    connected: bool,
}

struct StopRequest {
    since: Instant,
    /// The signals that are still to be sent, and when. The first in time is the last here.
    signals: Vec<(Instant, Signal)>,
    waiters: Vec<StopWaiter>,
    report: StopReport,
}

impl SupervisedChild {
    pub(super) fn new(hooks: Arc<dyn ChildHooks>) -> Self {
        Self {
            hooks,
            run: 0,
            started_at: SystemTime::UNIX_EPOCH,
            restarts: Restarts::default(),
            phase: ChildPhase::Idle,
            group: None,
            scans: ScanSchedule::default(),
            stop: None,
            start_again: false,
            forgotten: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, ChildPhase::Idle) && self.scans.is_done()
    }

    /// Whether it is this plugin's.
    pub(super) fn is_of(&self, plugin: InstallationId) -> bool {
        self.hooks.id() == plugin
    }

    /// Whether it can be let go of.
    pub(super) fn is_over(&self) -> bool {
        self.forgotten && self.is_idle()
    }

    /// The session is gone. Whatever is left of the plugin goes too.
    fn forget(&mut self) {
        self.forgotten = true;
        self.end();
    }

    /// Kills what runs, without any grace.
    pub(super) fn end(&mut self) {
        if !self.is_idle() {
            self.stop(Duration::ZERO, None);
        }
    }

    /// When [`tick`](Self::attend) has something to do though nothing happened.
    pub(super) fn due(&self) -> Option<Instant> {
        let of_phase = match &self.phase {
            ChildPhase::Idle | ChildPhase::Preparing { .. } => None,
            // A stop has no such limit: its waiters have their own.
            ChildPhase::AwaitingScan { .. } if self.stop.is_some() && !self.start_again => None,
            ChildPhase::Ending(_, until)
            | ChildPhase::BackingOff { until, .. }
            | ChildPhase::AwaitingScan { until, .. } => Some(*until),
            ChildPhase::Running(running) => {
                let signal = self.stop.as_ref().and_then(|stop| stop.signals.last());
                let times = [
                    running.deadline.as_ref().map(|(until, _)| *until),
                    running.hint_at,
                    signal.map(|(at, _)| *at),
                ];
                times.into_iter().flatten().min()
            }
        };
        of_phase.into_iter().chain(self.scans.due()).min()
    }

    /// The descriptor that tells of the process's end.
    pub(super) fn watch(&self) -> Option<&ExitWatch> {
        match &self.phase {
            ChildPhase::Running(running) => Some(running.process.watch()),
            _ => None,
        }
    }

    pub(super) fn handle(&mut self, context: &Context, command: ChildCommand) {
        match command {
            ChildCommand::Forget => self.forget(),
            ChildCommand::Prepared(run, result) => self.prepared(context, run, result),
            ChildCommand::Connected(run) => self.connected(run),
            ChildCommand::Disconnected(run, cause) => self.disconnected(context, run, cause),
            ChildCommand::Drained(run) => self.drained(context, run),
            ChildCommand::Examined(run, findings) => self.examined(context, run, findings),
            ChildCommand::Scanned {
                number,
                runs,
                result,
            } => self.scanned(context, number, runs, result),
        }
    }

    pub(super) fn start(&mut self, context: &Context) {
        match &self.phase {
            ChildPhase::Idle => self.start_fresh(context),
            // Somebody does not want to wait; the counting goes on.
            ChildPhase::BackingOff { .. } => self.start_after_scan(context),
            // What is there lives and is wanted.
            ChildPhase::Preparing { .. } | ChildPhase::AwaitingScan { .. }
                if self.stop.is_none() => {}
            ChildPhase::Running(running) if self.stop.is_none() && running.cause.is_none() => {}
            // It is ending, or about to.
            ChildPhase::Preparing { .. } | ChildPhase::Running(_) | ChildPhase::Ending(..) => {
                self.start_again = true;
            }
            ChildPhase::AwaitingScan { .. } => {
                self.start_again = true;
                let now = Instant::now();
                self.scans.expedite(now);
                if let ChildPhase::AwaitingScan { until, .. } = &mut self.phase {
                    *until = after(now, LEFT_LIMIT);
                }
            }
        }
    }

    pub(super) fn stop(&mut self, grace: Duration, waiter: Option<StopWaiter>) {
        self.start_again = false;
        let now = Instant::now();
        let first = self.stop.is_none();
        let stop = self.stop.get_or_insert_with(|| StopRequest {
            since: now,
            signals: vec![
                (after(now, grace), Signal::KILL),
                (after(now, grace / 2), Signal::TERM),
            ],
            waiters: Vec::new(),
            report: StopReport::default(),
        });
        stop.waiters.extend(waiter);
        self.scans.expedite(now);
        if !first {
            // A second stop may be in more of a hurry than the first.
            for (at, signal) in &mut stop.signals {
                let wait = match *signal {
                    Signal::INT => grace / 3,
                    Signal::TERM => grace / 2,
                    _ => grace,
                };
                *at = (*at).min(after(now, wait));
            }
            return;
        }
        match &mut self.phase {
            ChildPhase::Idle | ChildPhase::BackingOff { .. } | ChildPhase::AwaitingScan { .. } => {
                if self.scans.is_done() {
                    self.stopped(None);
                } else {
                    self.wait_for_scan(None);
                    self.hooks.transition(Transition::Stopping);
                }
            }
            // What arrives all the same is killed.
            ChildPhase::Preparing { cancel, .. } => {
                cancel.cancel();
                self.hooks.transition(Transition::Stopping);
            }
            ChildPhase::Running(running) => {
                running.deadline = None;
                running.hint_at = None;
                // Told before the process is, whose last words come after it then. A stdio plugin is at
                // the end of its standard input with that, and most end by themselves.
                self.hooks.transition(Transition::Stopping);
                match self.hooks.spec().transport {
                    Transport::Stdio => stop.signals.push((after(now, grace / 3), Signal::INT)),
                    Transport::WebSocket => {
                        signal(&*self.hooks, &running.process, Signal::INT);
                    }
                }
            }
            ChildPhase::Ending(_, until) => {
                *until = (*until).min(now + DRAIN_TIMEOUT_AT_STOP);
                self.hooks.transition(Transition::Stopping);
            }
        }
    }

    /// Looks at the clock.
    pub(super) fn tick(&mut self, context: &Context, now: Instant) {
        self.tick_scan(now);
        match &mut self.phase {
            ChildPhase::Idle | ChildPhase::Preparing { .. } | ChildPhase::AwaitingScan { .. } => {}
            ChildPhase::BackingOff { until, at_once } => {
                if *until <= now {
                    if *at_once {
                        self.start_run(context);
                    } else {
                        self.start_after_scan(context);
                    }
                }
            }
            ChildPhase::Ending(_, until) => {
                if *until <= now {
                    log::debug!("{}: output still open after the end", self.hooks.name());
                    self.ended(context);
                }
            }
            ChildPhase::Running(running) => {
                if let Some((_, cause)) = running.deadline.take_if(|(until, _)| *until <= now) {
                    running.cause.get_or_insert(cause);
                    signal(&*self.hooks, &running.process, Signal::KILL);
                }
                if running.hint_at.take_if(|at| *at <= now).is_some() {
                    self.hooks.waited(self.run, HINT_AFTER);
                }
                let Some(stop) = &mut self.stop else { return };
                if matches!(stop.signals.first(), Some((at, _)) if *at <= now) {
                    // The kill is due, and nothing else counts any more.
                    stop.signals.truncate(1);
                }
                // SIGTERM besides SIGINT: a host started in the background may have handed down an
                // ignored SIGINT.
                while let Some((_, due)) = stop.signals.pop_if(|(at, _)| *at <= now) {
                    stop.report.killed |= due == Signal::KILL;
                    signal(&*self.hooks, &running.process, due);
                }
            }
        }
    }
}

/// How long a process may take to connect before it is told in its log what is waited for.
pub(super) const HINT_AFTER: Duration = Duration::from_secs(5);

/// `now` and so much later; anything over a year is a year, so that no setting can overflow.
fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(Duration::from_secs(365 * 24 * 60 * 60))
}

/// Signals the process's group. A test may have it that the signal does nothing.
fn signal(hooks: &dyn ChildHooks, process: &Process, signal: Signal) {
    if !fault::is_lost(fault::SIGNALLING, hooks.id()) {
        process.signal_group(signal);
    }
}
