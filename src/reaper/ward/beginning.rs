//! How a run begins: prepared on a thread of its own, spawned, and connected.

use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use super::{Phase, Running, Ward, after, signal};
use crate::error::StartError;
use crate::fault;
use crate::process::{Process, ProcessCommand};
use crate::reaper::Context;
use crate::reaper::cause::{Cause, Failure};
use crate::reaper::charge::{Cancel, Run, Transition};
use crate::reaper::policy::{End, History};

/// How long a program's file may be open for writing before that counts as a failed start.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// The wait before it is tried again.
const BUSY_WAIT: Duration = Duration::from_millis(5);

pub(super) struct Busy {
    pub(super) command: ProcessCommand,
    pub(super) next_try: Instant,
    pub(super) give_up_at: Instant,
}

impl Ward {
    /// Starts a run after a stop, an explicit start or giving up: the counting begins anew.
    pub(super) fn begin_anew(&mut self, context: &Context<'_>) {
        self.start_again = false;
        self.history = History::default();
        self.begin(context);
    }

    /// Starts a run: prepares it on a thread of its own.
    pub(super) fn begin(&mut self, context: &Context<'_>) {
        if context.shutting_down || self.forgotten {
            self.phase = Phase::Idle;
            self.charge.transition(Transition::Inactive { ended: None });
            return;
        }
        if !self.sweeps.let_begin(self.run) {
            self.phase = Phase::Clearing { ended: None };
            return;
        }
        self.run = context.reaper.next_run();
        self.begun_at = SystemTime::now();
        let (ward, run) = (self.charge.ward(), self.run);
        self.charge.transition(Transition::Starting { run });
        let cancel = Cancel::default();
        self.phase = Phase::Preparing {
            cancel: cancel.clone(),
        };
        let (charge, reaper) = (self.charge.clone(), context.reaper.clone());
        let started = context.threads.spawn("prepare", 512 * 1024, move || {
            // A preparation that panics must not leave the plugin waiting for it.
            let prepare = std::panic::AssertUnwindSafe(|| {
                fault::point(fault::PREPARING, charge.id());
                charge.prepare(run, &cancel)
            });
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

    pub(in crate::reaper) fn prepared(
        &mut self,
        context: &Context<'_>,
        run: Run,
        result: Result<ProcessCommand, StartError>,
    ) {
        if run != self.run || !matches!(self.phase, Phase::Preparing { .. }) {
            return;
        }
        if self.stop.is_some() {
            self.clear(context, Some(self.unstarted(Cause::Stopped)));
            return;
        }
        match result {
            Ok(command) => self.spawn(context, command, after(Instant::now(), BUSY_LIMIT)),
            Err(error) => self.could_not_start(error),
        }
    }

    pub(super) fn spawn(
        &mut self,
        context: &Context<'_>,
        command: ProcessCommand,
        give_up_at: Instant,
    ) {
        let run = self.run;
        context.keeper.borrow_mut().ensure_started();
        match Process::spawn(&command, context.threads) {
            Ok((process, pipes)) => {
                fault::point(fault::SPAWNED, self.charge.id());
                let pid = process.pid();
                context.keeper.borrow_mut().watch_group(pid);
                self.group = Some(pid);
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
                        signal(&*self.charge, &running.process, Signal::KILL);
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

    pub(in crate::reaper) fn connected(&mut self, run: Run) {
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

    pub(super) fn could_not_start(&mut self, error: StartError) {
        let permanent = error.is_permanent();
        let failure = self.unstarted(Cause::Start(error));
        if permanent {
            self.phase = Phase::Idle;
            self.charge.transition(Transition::Errored { failure });
        } else {
            self.decide(End::Crash, None, failure);
        }
    }

    /// The end of a run that never had a process.
    pub(super) fn unstarted(&self, cause: Cause) -> Failure {
        Failure {
            cause,
            process: None,
            started_at: self.begun_at,
            ended_at: SystemTime::now(),
            active_for: None,
            restarts: self.history.restarts(),
        }
    }
}
