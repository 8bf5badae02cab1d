//! The supervision of one plugin: a state machine that the reaper's thread drives with commands,
//! exits and the time. It is the only place that holds the plugin's process, so there is at most
//! one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::process::Signal;

use super::charge::{Cancel, Cause, Charge, Failure, OutputGuard, Run, Transition};
use super::policy::{Decision, End, History};
use super::{Command, Context, StopReport};
use crate::error::{Disconnect, StartError};
use crate::process::{ExitReason, ExitWatch, Process, ProcessCommand};

/// How long the output of an ended process may take to arrive in the log before its end is acted
/// upon all the same.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

pub(super) struct Ward {
    charge: Arc<dyn Charge>,
    run: Run,
    history: History,
    phase: Phase,
    /// A stop under way, whatever the phase.
    stop: Option<Stop>,
    /// A start was asked for after that stop.
    start_again: bool,
    forgotten: bool,
}

enum Phase {
    Idle,
    Preparing {
        cancel: Cancel,
    },
    Running(Running),
    /// The process is gone; its last output is on its way into the log.
    Ending(Ended, Instant),
    BackingOff {
        until: Instant,
    },
}

struct Running {
    process: Process,
    spawned_at: Instant,
    /// When it first became active.
    active_since: Option<Instant>,
    /// It must have connected, or ended, by then.
    patience: Option<(Instant, Cause)>,
    /// What the host did to it first.
    cause: Option<Cause>,
    /// Held until its end; `None` once all of its output is in the log.
    output: Option<OutputGuard>,
}

struct Ended {
    exit: ExitReason,
    pid: u32,
    uptime: Duration,
    active_for: Option<Duration>,
    cause: Option<Cause>,
}

struct Stop {
    since: Instant,
    terminate_at: Option<Instant>,
    kill_at: Option<Instant>,
    killed: bool,
    waiters: Vec<Sender<StopReport>>,
    exit: Option<ExitReason>,
}

impl Ward {
    pub(super) fn new(charge: Arc<dyn Charge>) -> Self {
        Self {
            charge,
            run: 0,
            history: History::default(),
            phase: Phase::Idle,
            stop: None,
            start_again: false,
            forgotten: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.forgotten && self.is_idle()
    }

    pub(super) fn forget(&mut self) {
        self.forgotten = true;
    }

    /// When [`attend`](Self::attend) has something to do though nothing happened.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle | Phase::Preparing { .. } => None,
            Phase::Ending(_, until) | Phase::BackingOff { until } => Some(*until),
            Phase::Running(running) => {
                let stop = self.stop.as_ref();
                let times = [
                    running.patience.as_ref().map(|(until, _)| *until),
                    stop.and_then(|stop| stop.terminate_at),
                    stop.and_then(|stop| stop.kill_at),
                ];
                times.into_iter().flatten().min()
            }
        }
    }

    /// The descriptor that tells of the process's end.
    pub(super) fn watch(&self) -> Option<&ExitWatch> {
        match &self.phase {
            Phase::Running(running) => Some(running.process.watch()),
            _ => None,
        }
    }

    pub(super) fn start(&mut self, context: &Context<'_>) {
        match self.phase {
            Phase::Idle => {
                self.history = History::default();
                self.begin(context);
            }
            // Somebody does not want to wait; the counting goes on.
            Phase::BackingOff { .. } => self.begin(context),
            Phase::Preparing { .. } | Phase::Running(_) | Phase::Ending(..) => {
                self.start_again = self.stop.is_some();
            }
        }
    }

    pub(super) fn stop(&mut self, grace: Duration, done: Option<Sender<StopReport>>) {
        self.start_again = false;
        let now = Instant::now();
        let first = self.stop.is_none();
        let stop = self.stop.get_or_insert_with(|| Stop {
            since: now,
            terminate_at: Some(now + grace / 2),
            kill_at: Some(now + grace),
            killed: false,
            waiters: Vec::new(),
            exit: None,
        });
        stop.waiters.extend(done);
        if !first {
            // A second stop may be in more of a hurry than the first.
            if let Some(kill_at) = &mut stop.kill_at {
                *kill_at = (*kill_at).min(now + grace);
            }
            return;
        }
        match &mut self.phase {
            Phase::Idle | Phase::BackingOff { .. } => self.stopped(),
            Phase::Preparing { cancel } => {
                cancel.cancel();
                self.charge.transition(Transition::Stopping);
            }
            Phase::Running(running) => {
                running.patience = None;
                running.process.signal_group(Signal::INT);
                self.charge.transition(Transition::Stopping);
            }
            Phase::Ending(..) => self.charge.transition(Transition::Stopping),
        }
    }

    /// Starts a run: prepares it on a thread of its own.
    fn begin(&mut self, context: &Context<'_>) {
        self.run = context.reaper.next_run();
        let (id, run) = (self.charge.id(), self.run);
        self.charge.transition(Transition::Starting { run });
        let cancel = Cancel::default();
        self.phase = Phase::Preparing {
            cancel: cancel.clone(),
        };
        let (charge, reaper) = (self.charge.clone(), context.reaper.clone());
        let started = context.threads.spawn("prepare", 512 * 1024, move || {
            // A preparation that panics must not leave the plugin waiting for it.
            let prepare = std::panic::AssertUnwindSafe(|| charge.prepare(run, &cancel));
            let result = std::panic::catch_unwind(prepare).unwrap_or_else(|panic| {
                let text = crate::thread::panic_text(&*panic);
                let error = std::io::Error::other(format!("panicked: {text}"));
                Err(StartError::Prepare(Box::new(crate::Error::io(
                    "prepare", error,
                ))))
            });
            reaper.send(Command::Prepared { id, run, result });
        });
        if let Err(error) = started {
            self.could_not_start(StartError::Prepare(Box::new(error)));
        }
    }

    pub(super) fn prepared(
        &mut self,
        context: &Context<'_>,
        run: Run,
        result: Result<ProcessCommand, StartError>,
    ) {
        if run != self.run || !matches!(self.phase, Phase::Preparing { .. }) {
            return;
        }
        if self.stop.is_some() {
            self.stopped();
            if self.start_again {
                self.begin_again(context);
            }
            return;
        }
        match result.and_then(|command| Process::spawn(&command, context.threads)) {
            Ok((process, pipes)) => {
                let pid = process.pid();
                let now = Instant::now();
                let limit = self.charge.settings().connect_timeout;
                let mut running = Running {
                    process,
                    spawned_at: now,
                    active_since: None,
                    patience: Some((now + limit, Cause::NeverConnected { limit })),
                    cause: None,
                    output: None,
                };
                self.charge.transition(Transition::Connecting { run, pid });
                match self.charge.spawned(run, pipes) {
                    Ok(output) => running.output = Some(output),
                    Err(error) => {
                        running.cause = Some(Cause::Start(StartError::Prepare(Box::new(error))));
                        running.patience = None;
                        running.process.signal_group(Signal::KILL);
                    }
                }
                self.phase = Phase::Running(running);
            }
            Err(error) => self.could_not_start(error),
        }
    }

    pub(super) fn connected(&mut self, run: Run) {
        if run != self.run {
            return;
        }
        match &mut self.phase {
            Phase::Running(running) => {
                running.active_since.get_or_insert_with(Instant::now);
                running.patience = None;
            }
            // It was active, for so short a time that its end was seen in the same round.
            Phase::Ending(ended, _) => {
                ended.active_for.get_or_insert(Duration::ZERO);
            }
            _ => {}
        }
    }

    pub(super) fn disconnected(&mut self, run: Run, cause: Arc<Disconnect>) {
        if run != self.run || self.stop.is_some() {
            return;
        }
        let grace = self.charge.settings().disconnect_grace;
        if let Phase::Running(running) = &mut self.phase {
            if is_plugins_fault(&cause) {
                running
                    .cause
                    .get_or_insert(Cause::Misbehaved(cause.clone()));
            }
            running.patience = Some((
                Instant::now() + grace,
                Cause::ConnectionLost { cause, grace },
            ));
        }
    }

    /// The last output of this run is in the log.
    pub(super) fn drained(&mut self, context: &Context<'_>, run: Run) {
        if run != self.run {
            return;
        }
        match &mut self.phase {
            Phase::Ending(..) => self.ended(context),
            // It closed its output and lives on: at its end there will be nothing to wait for.
            Phase::Running(running) => running.output = None,
            _ => {}
        }
    }

    /// Looks at the clock.
    pub(super) fn attend(&mut self, context: &Context<'_>, now: Instant) {
        match &mut self.phase {
            Phase::Idle | Phase::Preparing { .. } => {}
            Phase::BackingOff { until } => {
                if *until <= now {
                    self.begin(context);
                }
            }
            Phase::Ending(_, until) => {
                if *until <= now {
                    log::debug!(
                        "plugin {}: output still open after the end",
                        self.charge.id()
                    );
                    self.ended(context);
                }
            }
            Phase::Running(running) => {
                if let Some((_, cause)) = running.patience.take_if(|(until, _)| *until <= now) {
                    running.cause.get_or_insert(cause);
                    running.process.signal_group(Signal::KILL);
                }
                let Some(stop) = &mut self.stop else { return };
                if stop.kill_at.take_if(|at| *at <= now).is_some() {
                    stop.terminate_at = None;
                    stop.killed = true;
                    running.process.signal_group(Signal::KILL);
                } else if stop.terminate_at.take_if(|at| *at <= now).is_some() {
                    // A host started in the background may have handed down an ignored SIGINT.
                    running.process.signal_group(Signal::TERM);
                }
            }
        }
    }

    /// The process has ended: kills its group, reaps it, and waits for the rest of its output.
    pub(super) fn exited(&mut self) {
        let now = Instant::now();
        let running = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Running(running) => running,
            other => {
                self.phase = other;
                return;
            }
        };
        let pid = running.process.pid();
        let exit = running.process.finish();
        // Tells the pump to take what is there and end, also if a stranger holds the pipe open.
        let until = if running.output.is_some() {
            now + OUTPUT_GRACE
        } else {
            now
        };
        drop(running.output);
        let ended = Ended {
            exit,
            pid,
            uptime: now.saturating_duration_since(running.spawned_at),
            active_for: running
                .active_since
                .map(|since| now.saturating_duration_since(since)),
            cause: running.cause,
        };
        if let Some(stop) = &mut self.stop {
            stop.exit = Some(exit);
        }
        self.phase = Phase::Ending(ended, until);
    }

    /// Everything of the run is over: decides what follows.
    fn ended(&mut self, context: &Context<'_>) {
        let Phase::Ending(ended, _) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        self.charge.ended(self.run, ended.exit);
        if self.stop.is_some() {
            self.stopped();
            if self.start_again {
                self.begin_again(context);
            }
            return;
        }
        let requested =
            ended.cause.is_none() && ended.exit.is_clean() && ended.active_for.is_some();
        let end = if requested {
            End::Requested
        } else {
            End::Crash
        };
        let failure = Failure {
            cause: ended.cause.unwrap_or(Cause::Exited),
            exit: Some(ended.exit),
            pid: Some(ended.pid),
            uptime: Some(ended.uptime),
            restarts: self.history.restarts(),
        };
        self.decide(end, ended.active_for, failure);
    }

    fn could_not_start(&mut self, error: StartError) {
        let permanent = error.is_permanent();
        let failure = Failure {
            cause: Cause::Start(error),
            exit: None,
            pid: None,
            uptime: None,
            restarts: self.history.restarts(),
        };
        if permanent {
            self.phase = Phase::Idle;
            self.charge.transition(Transition::Errored { failure });
        } else {
            self.decide(End::Crash, None, failure);
        }
    }

    fn decide(&mut self, end: End, active_for: Option<Duration>, failure: Failure) {
        match self
            .history
            .decide(&self.charge.settings().policy, end, active_for)
        {
            Decision::Restart(after) => {
                self.phase = Phase::BackingOff {
                    until: Instant::now() + after,
                };
                self.charge
                    .transition(Transition::Restarting { failure, after });
            }
            Decision::GiveUp => {
                self.phase = Phase::Idle;
                self.charge.transition(Transition::Errored { failure });
            }
        }
    }

    /// Nothing is left: tells those who wait.
    fn stopped(&mut self) {
        self.phase = Phase::Idle;
        self.charge.transition(Transition::Inactive);
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

    fn begin_again(&mut self, context: &Context<'_>) {
        self.start_again = false;
        self.history = History::default();
        self.begin(context);
    }
}

/// Whether a connection ended because of what the plugin did on it, so that its exit, whatever
/// the status, is not a request to be started again.
fn is_plugins_fault(cause: &Disconnect) -> bool {
    matches!(
        cause,
        Disconnect::Stalled { .. }
            | Disconnect::Unresponsive { .. }
            | Disconnect::TooLarge { .. }
            | Disconnect::NotUtf8
            | Disconnect::Violation(_)
            | Disconnect::ControlOverflow
    )
}
