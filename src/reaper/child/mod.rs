//! The supervision of one plugin: a state machine that the reaper's thread drives with commands, exits
//! and timers. Only this state machine holds the plugin's run, so there is at most one.
//!
//! What lives here: the stages, commands and timers. `start` is the beginning of a run, `exit` its end and
//! what follows, `orphans` the scans for what it left outside of its process group.

mod exit;
mod orphans;
mod start;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::cause::Cause;
use super::cause::EndedRun;
use super::hooks::{ChildHooks, RunId, Transition};
use super::policy::Restarts;
use super::{ChildCommand, Context, StopReport, StopWaiter};
use crate::error::Disconnect;
use crate::id::InstallationId;
use crate::protocol::Transport;
use crate::runtime::interrupt::Interrupt;
use crate::runtime::{RunHandle, StopSignal};
use exit::{DRAIN_TIMEOUT_AT_STOP, EndedChild};
use orphans::{LEFT_LIMIT, ScanSchedule};

pub(super) struct Child {
    hooks: Arc<dyn ChildHooks>,
    run: RunId,
    /// When the run began, in wall-clock time for reports.
    started_at: SystemTime,
    restarts: Restarts,
    stage: Stage,
    /// The scans for orphans of ended runs.
    scans: ScanSchedule,
    /// A stop under way, whatever the stage.
    stop: Option<StopRequest>,
    /// A start was requested that has to wait for the end of the current run.
    start_again: bool,
    /// The session is gone, and no run is started any more.
    forgotten: bool,
}

enum Stage {
    Idle,
    /// A thread ends what earlier hosts have left. No run is started before it has reported.
    Clearing(Interrupt),
    /// A thread prepares and starts the run. No other is started before it has reported.
    Preparing {
        interrupt: Interrupt,
        early: EarlyEvents,
    },
    Running(RunningChild),
    /// The run has ended. Its last output and messages are awaited until the given time.
    Ending(EndedChild, Instant),
    /// Only scans for orphans are awaited; then a stop is reported or, without one, a run started.
    AwaitingScan {
        /// The run that was stopped, if there was one.
        ended: Option<EndedRun>,
        /// When a start is given up.
        until: Instant,
    },
    BackingOff {
        until: Instant,
        /// The back-off is zero: the run does not even wait for the scan for orphans, unless some have been
        /// seen.
        at_once: bool,
    },
}

/// Events of a run that arrived before the thread that started it handed it over.
#[derive(Default)]
struct EarlyEvents {
    active_since: Option<Instant>,
    /// Why its connection has already ended.
    disconnected: Option<Arc<Disconnect>>,
}

struct RunningChild {
    run: Box<dyn RunHandle>,
    spawned_at: Instant,
    /// When the plugin first became active.
    active_since: Option<Instant>,
    /// When it is killed, for this cause, unless it has connected or ended.
    deadline: Option<(Instant, Cause)>,
    /// When its log gets a hint what the plugin has to do to become active.
    hint_at: Option<Instant>,
    /// The first thing that the host did to end the run, which is then the cause of its end.
    cause: Option<Cause>,
    /// Held until the run ends; `None` once all of its output is in the log.
    output: Option<io::PipeWriter>,
    /// Whether it has a connection.
    connected: bool,
}

struct StopRequest {
    since: Instant,
    /// The signals still to be sent and when, the earliest last.
    signals: Vec<(Instant, StopSignal)>,
    waiters: Vec<StopWaiter>,
    report: StopReport,
}

impl Child {
    pub(super) fn new(hooks: Arc<dyn ChildHooks>) -> Self {
        Self {
            hooks,
            run: 0,
            started_at: SystemTime::UNIX_EPOCH,
            restarts: Restarts::default(),
            stage: Stage::Idle,
            scans: ScanSchedule::default(),
            stop: None,
            start_again: false,
            forgotten: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle) && self.scans.is_done()
    }

    /// Whether this is a child of the plugin.
    pub(super) fn is_of(&self, plugin: InstallationId) -> bool {
        self.hooks.id() == plugin
    }

    /// Whether the reaper can drop it.
    pub(super) fn is_over(&self) -> bool {
        self.forgotten && self.is_idle()
    }

    /// Ends what is left of the plugin, whose session is gone.
    fn forget(&mut self) {
        self.forgotten = true;
        self.end();
    }

    /// Kills a run without any grace.
    pub(super) fn end(&mut self) {
        if !self.is_idle() {
            self.stop(Duration::ZERO, None);
        }
    }

    /// Returns when [`tick`](Self::tick) has to be called next.
    pub(super) fn due(&self) -> Option<Instant> {
        let of_stage = match &self.stage {
            Stage::Idle | Stage::Clearing(_) | Stage::Preparing { .. } => None,
            // A stop waits for orphans without a limit; its callers have their own timeouts.
            Stage::AwaitingScan { .. } if self.stop.is_some() && !self.start_again => None,
            Stage::Ending(_, until)
            | Stage::BackingOff { until, .. }
            | Stage::AwaitingScan { until, .. } => Some(*until),
            Stage::Running(running) => {
                let signal = self.stop.as_ref().and_then(|stop| stop.signals.last());
                let times = [
                    running.deadline.as_ref().map(|(until, _)| *until),
                    running.hint_at,
                    signal.map(|(at, _)| *at),
                ];
                times.into_iter().flatten().min()
            }
        };
        of_stage.into_iter().chain(self.scans.due()).min()
    }

    /// Returns the descriptor that is readable once the run has ended.
    pub(super) fn watch(&self) -> Option<BorrowedFd<'_>> {
        match &self.stage {
            Stage::Running(running) => Some(running.run.ended()),
            _ => None,
        }
    }

    pub(super) fn handle(&mut self, context: &Context, command: ChildCommand) {
        match command {
            ChildCommand::Forget => self.forget(),
            ChildCommand::Prepared(run, result) => self.prepared(context, run, result),
            ChildCommand::Cleared => self.cleared(context),
            ChildCommand::Connected(run) => self.connected(run),
            ChildCommand::Disconnected(run, cause) => self.disconnected(context, run, cause),
            ChildCommand::Drained(run) => self.drained(context, run),
            ChildCommand::Examined(run) => self.examined(context, run),
            ChildCommand::Scanned {
                number,
                runs,
                result,
            } => self.scanned(context, number, runs, result),
        }
    }

    pub(super) fn start(&mut self, context: &Context) {
        match &self.stage {
            Stage::Idle => self.start_fresh(context),
            // The request cuts the back-off short. Restarts in a row go on being counted.
            Stage::BackingOff { .. } => self.start_after_scan(context),
            // A run is under way already, and nothing is about to end it.
            Stage::Preparing { .. } | Stage::AwaitingScan { .. } if self.stop.is_none() => {}
            Stage::Running(running) if self.stop.is_none() && running.cause.is_none() => {}
            // The run is ending, or about to; or something before it is.
            Stage::Clearing(_)
            | Stage::Preparing { .. }
            | Stage::Running(_)
            | Stage::Ending(..) => {
                self.start_again = true;
            }
            Stage::AwaitingScan { .. } => {
                self.start_again = true;
                let now = Instant::now();
                self.scans.expedite(now);
                if let Stage::AwaitingScan { until, .. } = &mut self.stage {
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
                (after(now, grace), StopSignal::Kill),
                (
                    after(now, wait_for(StopSignal::Terminate, grace)),
                    StopSignal::Terminate,
                ),
            ],
            waiters: Vec::new(),
            report: StopReport::default(),
        });
        stop.waiters.extend(waiter);
        self.scans.expedite(now);
        if !first {
            // A second stop may have a shorter grace than the first.
            for (at, signal) in &mut stop.signals {
                *at = (*at).min(after(now, wait_for(*signal, grace)));
            }
            return;
        }
        match &mut self.stage {
            Stage::Idle | Stage::BackingOff { .. } | Stage::AwaitingScan { .. } => {
                if self.scans.is_done() {
                    self.stopped(None);
                } else {
                    self.wait_for_scan(None);
                    self.hooks.transition(Transition::Stopping);
                }
            }
            // If the run is started all the same, it is killed on arrival.
            Stage::Clearing(interrupt) | Stage::Preparing { interrupt, .. } => {
                interrupt.cancel();
                self.hooks.transition(Transition::Stopping);
            }
            Stage::Running(running) => {
                running.deadline = None;
                running.hint_at = None;
                // Reported before the signal is sent, so that the plugin's last messages follow it. For a
                // stdio plugin this ends its standard input, which makes most plugins exit.
                self.hooks.transition(Transition::Stopping);
                match self.hooks.spec().transport {
                    Transport::Stdio => {
                        let at = after(now, wait_for(StopSignal::Interrupt, grace));
                        stop.signals.push((at, StopSignal::Interrupt));
                    }
                    Transport::WebSocket => running.run.signal(StopSignal::Interrupt, grace),
                }
            }
            Stage::Ending(_, until) => {
                *until = (*until).min(now + DRAIN_TIMEOUT_AT_STOP);
                self.hooks.transition(Transition::Stopping);
            }
        }
    }

    /// Runs the timers that are due.
    pub(super) fn tick(&mut self, context: &Context, now: Instant) {
        self.tick_scan(now);
        match &mut self.stage {
            Stage::BackingOff { until, at_once } if *until <= now => {
                if *at_once {
                    self.start_run(context);
                } else {
                    self.start_after_scan(context);
                }
            }
            Stage::Ending(_, until) if *until <= now => {
                log::debug!(
                    "{}: its output is still open after its end",
                    self.hooks.name()
                );
                self.ended(context);
            }
            Stage::Running(running) => {
                if let Some((_, cause)) = running.deadline.take_if(|(until, _)| *until <= now) {
                    running.cause.get_or_insert(cause);
                    running.run.signal(StopSignal::Kill, Duration::ZERO);
                }
                if running.hint_at.take_if(|at| *at <= now).is_some() {
                    self.hooks.waited(self.run, HINT_AFTER);
                }
                let Some(stop) = &mut self.stop else { return };
                if matches!(stop.signals.first(), Some((at, _)) if *at <= now) {
                    // The kill is due, and the earlier signals are skipped.
                    stop.signals.truncate(1);
                }
                // SIGTERM follows SIGINT because plugins of a host started in the background may have
                // inherited an ignored SIGINT.
                while let Some((_, due)) = stop.signals.pop_if(|(at, _)| *at <= now) {
                    stop.report.killed |= due == StopSignal::Kill;
                    let kill_at = stop.signals.first().map_or(now, |(at, _)| *at);
                    let kill_in = kill_at.saturating_duration_since(now);
                    running.run.signal(due, kill_in);
                }
            }
            _ => {}
        }
    }
}

/// How long a run may take to connect before its log gets a hint.
pub(super) const HINT_AFTER: Duration = Duration::from_secs(5);

/// Returns `now + wait`. A wait over a year counts as a year, so that no setting can overflow.
fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(Duration::from_secs(365 * 24 * 60 * 60))
}

/// How long after the beginning of a stop this signal is sent. Of a stdio plugin's signals alone SIGINT
/// waits too, since the end of its standard input asks it first.
fn wait_for(signal: StopSignal, grace: Duration) -> Duration {
    match signal {
        StopSignal::Interrupt => grace / 3,
        StopSignal::Terminate => grace / 2,
        StopSignal::Kill => grace,
    }
}
