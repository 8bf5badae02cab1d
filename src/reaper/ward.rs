//! The supervision of one plugin: a state machine that the reaper's thread drives with commands,
//! exits and the time. It is the only place that holds the plugin's process, so there is at most
//! one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::process::Signal;

use super::charge::{Cancel, Cause, Charge, Failure, OutputGuard, Run, Transition};
use super::policy::{Decision, End, History};
use super::{Context, StopReport};
use crate::error::{Disconnect, StartError};
use crate::process::{ExitReason, ExitWatch, Process, ProcessCommand};

/// How long a program's file may be open for writing before that counts as a failed start.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// The wait before it is tried again.
const BUSY_WAIT: Duration = Duration::from_millis(5);
/// How long the output and the messages of an ended process may take to arrive before its end is
/// acted upon all the same.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The same when somebody waits for the plugin to be stopped.
const LAST_WORDS_AT_STOP: Duration = Duration::from_millis(150);

pub(super) struct Ward {
    charge: Arc<dyn Charge>,
    run: Run,
    history: History,
    phase: Phase,
    /// A stop under way, whatever the phase.
    stop: Option<Stop>,
    /// A start was asked for that has to wait for the end of what there is.
    start_again: bool,
    /// The session is gone: nothing is started any more.
    forgotten: bool,
}

enum Phase {
    Idle,
    Preparing {
        cancel: Cancel,
    },
    /// The program's file is open for writing; most likely in a child that is about to execute.
    Busy(Busy),
    Running(Running),
    /// The process is gone; its last output and messages are on their way.
    Ending(Ended, Instant),
    BackingOff {
        until: Instant,
    },
}

struct Busy {
    command: ProcessCommand,
    next_try: Instant,
    give_up_at: Instant,
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
    /// It has a connection.
    connected: bool,
}

/// A process that is gone, and what of it is still on its way.
struct Ended {
    output_pending: bool,
    /// What it sent last is still being read.
    connection_pending: bool,
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

    /// Whether it can be let go of.
    pub(super) fn is_over(&self) -> bool {
        self.forgotten && self.is_idle()
    }

    /// The session is gone. Whatever is left of the plugin goes too.
    pub(super) fn forget(&mut self) {
        self.forgotten = true;
        self.end();
    }

    /// Kills what runs, without any grace.
    pub(super) fn end(&mut self) {
        if !self.is_idle() {
            self.stop(Duration::ZERO, None);
        }
    }

    /// When [`attend`](Self::attend) has something to do though nothing happened.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle | Phase::Preparing { .. } => None,
            Phase::Busy(busy) => Some(busy.next_try),
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
        match &self.phase {
            Phase::Idle => self.begin_anew(context),
            // Somebody does not want to wait; the counting goes on.
            Phase::BackingOff { .. } => self.begin(context),
            // What is there lives and is wanted.
            Phase::Preparing { .. } | Phase::Busy(_) if self.stop.is_none() => {}
            Phase::Running(running) if self.stop.is_none() && running.cause.is_none() => {}
            // It is ending, or about to.
            Phase::Preparing { .. } | Phase::Busy(_) | Phase::Running(_) | Phase::Ending(..) => {
                self.start_again = true;
            }
        }
    }

    pub(super) fn stop(&mut self, grace: Duration, done: Option<Sender<StopReport>>) {
        self.start_again = false;
        let now = Instant::now();
        let first = self.stop.is_none();
        let stop = self.stop.get_or_insert_with(|| Stop {
            since: now,
            terminate_at: Some(after(now, grace / 2)),
            kill_at: Some(after(now, grace)),
            killed: false,
            waiters: Vec::new(),
            exit: None,
        });
        stop.waiters.extend(done);
        if !first {
            // A second stop may be in more of a hurry than the first.
            if let Some(kill_at) = &mut stop.kill_at {
                *kill_at = (*kill_at).min(after(now, grace));
            }
            return;
        }
        match &mut self.phase {
            Phase::Idle | Phase::Busy(_) | Phase::BackingOff { .. } => self.stopped(),
            Phase::Preparing { cancel } => {
                cancel.cancel();
                self.charge.transition(Transition::Stopping);
            }
            Phase::Running(running) => {
                running.patience = None;
                // Told before the process is, whose last words come after it then.
                self.charge.transition(Transition::Stopping);
                running.process.signal_group(Signal::INT);
            }
            Phase::Ending(_, until) => {
                *until = (*until).min(now + LAST_WORDS_AT_STOP);
                self.charge.transition(Transition::Stopping);
            }
        }
    }

    /// Starts a run after a stop, an explicit start or giving up: the counting begins anew.
    fn begin_anew(&mut self, context: &Context<'_>) {
        self.start_again = false;
        self.history = History::default();
        self.begin(context);
    }

    /// Starts a run: prepares it on a thread of its own.
    fn begin(&mut self, context: &Context<'_>) {
        if context.shutting_down || self.forgotten {
            self.phase = Phase::Idle;
            self.charge.transition(Transition::Inactive);
            return;
        }
        self.run = context.reaper.next_run();
        let (ward, run) = (self.charge.ward(), self.run);
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
            reaper.prepared(ward, run, result);
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
                self.begin_anew(context);
            }
            return;
        }
        match result {
            Ok(command) => self.spawn(context, command, after(Instant::now(), BUSY_LIMIT)),
            Err(error) => self.could_not_start(error),
        }
    }

    fn spawn(&mut self, context: &Context<'_>, command: ProcessCommand, give_up_at: Instant) {
        let run = self.run;
        match Process::spawn(&command, context.threads) {
            Ok((process, pipes)) => {
                let pid = process.pid();
                let now = Instant::now();
                let settings = self.charge.settings();
                let (limit, transport) = (settings.connect_timeout, settings.transport);
                let mut running = Running {
                    process,
                    spawned_at: now,
                    active_since: None,
                    patience: Some((
                        after(now, limit),
                        Cause::NeverConnected { limit, transport },
                    )),
                    cause: None,
                    output: None,
                    connected: false,
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
            Err(error) if error.is_busy() && Instant::now() < give_up_at => {
                self.phase = Phase::Busy(Busy {
                    command,
                    next_try: after(Instant::now(), BUSY_WAIT),
                    give_up_at,
                });
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
                // In time, so what it did on the connection before is not what ends it.
                if running.patience.take().is_some() {
                    running.cause = None;
                    self.start_again = false;
                }
                running.connected = true;
            }
            // It was active, for so short a time that its end was seen in the same round.
            Phase::Ending(ended, _) => {
                ended.active_for.get_or_insert(Duration::ZERO);
                ended.connection_pending = true;
            }
            _ => {}
        }
    }

    /// The connection of this run has ended, and all that came over it has been read.
    pub(super) fn disconnected(&mut self, context: &Context<'_>, run: Run, cause: Arc<Disconnect>) {
        if run != self.run {
            return;
        }
        let grace = self.charge.settings().disconnect_grace;
        let blamed = || is_plugins_fault(&cause).then(|| Cause::Misbehaved(cause.clone()));
        match &mut self.phase {
            Phase::Running(running) => {
                running.connected = false;
                running.cause = running.cause.take().or_else(blamed);
                if self.stop.is_none() {
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
    pub(super) fn drained(&mut self, context: &Context<'_>, run: Run) {
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

    fn end_if_complete(&mut self, context: &Context<'_>) {
        if matches!(&self.phase, Phase::Ending(ended, _) if !ended.output_pending && !ended.connection_pending)
        {
            self.ended(context);
        }
    }

    /// Looks at the clock.
    pub(super) fn attend(&mut self, context: &Context<'_>, now: Instant) {
        match &mut self.phase {
            Phase::Idle | Phase::Preparing { .. } => {}
            Phase::Busy(busy) => {
                if busy.next_try <= now
                    && let Phase::Busy(busy) = std::mem::replace(&mut self.phase, Phase::Idle)
                {
                    self.spawn(context, busy.command, busy.give_up_at);
                }
            }
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
    pub(super) fn exited(&mut self, context: &Context<'_>) {
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
        let patience = if self.stop.is_some() {
            LAST_WORDS_AT_STOP
        } else {
            LAST_WORDS
        };
        let ended = Ended {
            output_pending: running.output.is_some(),
            connection_pending: running.connected,
            exit,
            pid,
            uptime: now.saturating_duration_since(running.spawned_at),
            active_for: running
                .active_since
                .map(|since| now.saturating_duration_since(since)),
            cause: running.cause,
        };
        // Tells the pump to take what is there and end, also if a stranger holds the pipe open.
        drop(running.output);
        if let Some(stop) = &mut self.stop {
            stop.exit = Some(exit);
        }
        self.phase = Phase::Ending(ended, now + patience);
        self.end_if_complete(context);
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
                self.begin_anew(context);
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
        if self.start_again {
            // It is told as any other end, so that nobody wonders where the process went.
            self.charge.transition(Transition::Restarting {
                failure,
                after: Duration::ZERO,
            });
            self.begin_anew(context);
            return;
        }
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
            Decision::Restart(wait) => {
                self.phase = Phase::BackingOff {
                    until: after(Instant::now(), wait),
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

    /// Something in here panicked: nothing of the plugin may stay behind, nor anybody wait for it.
    pub(super) fn give_up(&mut self, panic: &str) {
        // Dropping a process that has not been reaped kills its group and reaps it.
        self.phase = Phase::Idle;
        self.start_again = false;
        self.charge.ended(self.run, ExitReason::Unknown);
        let error = std::io::Error::other(format!("supervision panicked: {panic}"));
        let failure = Failure {
            cause: Cause::Start(StartError::Prepare(Box::new(crate::Error::io(
                "supervise",
                error,
            )))),
            exit: None,
            pid: None,
            uptime: None,
            restarts: self.history.restarts(),
        };
        if self.stop.is_some() {
            self.stopped();
        } else {
            self.charge.transition(Transition::Errored { failure });
        }
    }
}

/// `now` and so much later; anything over a year is a year, so that no setting can overflow.
fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(Duration::from_secs(365 * 24 * 60 * 60))
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
