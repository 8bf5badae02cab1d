//! How a run begins: prepared and spawned on a thread of its own, handed over, and connected.

use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use super::{ChildPhase, EarlyEvents, HINT_AFTER, RunningChild, SupervisedChild, after, signal};
use crate::deadline::Deadline;
use crate::error::{Error, StartError};
use crate::fault;
use crate::keeper::link::KeeperLink;
use crate::poll;
use crate::process::{ExitFindings, Process};
use crate::protocol::Transport;
use crate::reaper::cause::{Cause, EndedRun};
use crate::reaper::hooks::{Cancel, ChildHooks, RunId, Spawned, Transition};
use crate::reaper::policy::{Restarts, RunOutcome};
use crate::reaper::{ChildCommand, Context};
use crate::thread::Threads;

/// How long a program's file may be open for writing before that counts as a failed start.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// The wait before it is tried again.
const BUSY_WAIT: Duration = Duration::from_millis(5);

impl SupervisedChild {
    /// Starts a run after a stop, an explicit start or giving up: the counting begins anew.
    pub(super) fn start_fresh(&mut self, context: &Context) {
        self.start_again = false;
        self.restarts = Restarts::default();
        self.start_after_scan(context);
    }

    /// Starts a run that somebody asks for, once it is known what the one before left: that may be less
    /// than a look away.
    pub(super) fn start_after_scan(&mut self, context: &Context) {
        if self.scans.is_done() {
            self.start_run(context);
        } else {
            self.wait_for_scan(None);
        }
    }

    /// Starts a run: has it prepared and spawned on a thread of its own.
    pub(super) fn start_run(&mut self, context: &Context) {
        if context.shutting_down || self.forgotten {
            let ended = self.leave_awaiting_scan();
            self.phase = ChildPhase::Idle;
            self.hooks.transition(Transition::Inactive(ended));
            return;
        }
        if !self.scans.may_start(self.run) {
            if !matches!(self.phase, ChildPhase::AwaitingScan { .. }) {
                self.wait_for_scan(None);
            }
            return;
        }
        self.leave_awaiting_scan();
        self.run = context.reaper.next_run();
        self.started_at = SystemTime::now();
        let (child, run) = (self.hooks.child_id(), self.run);
        self.hooks.transition(Transition::Starting(run));
        let cancel = Cancel::default();
        self.phase = ChildPhase::Preparing {
            cancel: cancel.clone(),
            early: EarlyEvents::default(),
        };
        let (hooks, reaper) = (self.hooks.clone(), context.reaper.clone());
        let (keeper, threads) = (context.keeper.clone(), context.threads.clone());
        let started = context.threads.spawn("prepare", 512 * 1024, move || {
            // A preparation that panics must not leave the plugin waiting for it.
            let prepare = std::panic::AssertUnwindSafe(|| {
                fault::point(fault::PREPARING, hooks.id());
                prepare_and_spawn(&*hooks, run, &cancel, &keeper, &threads)
            });
            let result = std::panic::catch_unwind(prepare).unwrap_or_else(|panic| {
                let text = crate::thread::panic_text(&*panic);
                let error = std::io::Error::other(format!("panicked: {text}"));
                Err(Error::io("prepare", error).into())
            });
            let spawned = result.as_ref().ok();
            let memory = spawned.map(|spawned| (spawned.process.memory(), spawned.process.id()));
            reaper.tell(child, ChildCommand::Prepared(run, result));
            // Nobody waits for this.
            if let Some((memory, pid)) = memory {
                memory.begin(pid);
            }
        });
        if let Err(error) = started {
            self.could_not_start(error.into());
        }
    }

    /// The thread that prepares and spawns has come back.
    pub(super) fn prepared(
        &mut self,
        context: &Context,
        run: RunId,
        result: Result<Box<Spawned>, StartError>,
    ) {
        let early = match &mut self.phase {
            ChildPhase::Preparing { early, .. } if run == self.run => std::mem::take(early),
            _ => {
                // The supervision panicked meanwhile, and let go of all that it had.
                if let Ok(spawned) = result {
                    let pid = spawned.process.pid();
                    let forget = || context.keeper.forget_group(pid);
                    spawned.process.finish(forget, ExitFindings::default());
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

    fn spawned(&mut self, context: &Context, spawned: Spawned, early: EarlyEvents) {
        let Spawned { process, pipes } = spawned;
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
            // It arrives too late.
            signal(&*self.hooks, &running.process, Signal::KILL);
            self.phase = ChildPhase::Running(running);
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
                // Over stdio its pipes are the connection, whose end may say why it ended.
                running.connected |= transport == Transport::Stdio;
            }
            Err(error) => {
                running.cause = Some(Cause::Start(error.into()));
                running.deadline = None;
                signal(&*self.hooks, &running.process, Signal::KILL);
            }
        }
        self.phase = ChildPhase::Running(running);
        if let Some(cause) = early.disconnected {
            self.disconnected(context, run, cause);
        }
    }

    pub(super) fn connected(&mut self, run: RunId) {
        if run != self.run {
            return;
        }
        match &mut self.phase {
            ChildPhase::Running(running) => {
                running.active_since.get_or_insert_with(Instant::now);
                running.hint_at = None;
                // In time, so what it did on the connection before is not what ends it.
                if running.deadline.take().is_some() {
                    running.cause = None;
                    self.start_again = false;
                }
                running.connected = true;
            }
            ChildPhase::Preparing { early, .. } => {
                early.active_since.get_or_insert_with(Instant::now);
                early.disconnected = None;
            }
            // It was active, for so short a time that its end was seen in the same round.
            ChildPhase::Ending(ended, _) => {
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
            self.phase = ChildPhase::Idle;
            self.hooks.transition(Transition::Errored(failure));
        } else {
            self.decide(RunOutcome::Crash, None, failure);
        }
    }

    /// The end of a run that never had a process.
    pub(super) fn unstarted(&self, cause: Cause) -> EndedRun {
        EndedRun {
            cause,
            process: None,
            started_at: self.started_at,
            ended_at: SystemTime::now(),
            active_for: None,
            restarts: self.restarts,
        }
    }
}

/// Gets a run ready and spawns its process, of which the keeper hears before anything else happens. Waits
/// for the disk.
fn prepare_and_spawn(
    hooks: &dyn ChildHooks,
    run: RunId,
    cancel: &Cancel,
    keeper: &KeeperLink,
    threads: &Threads,
) -> Result<Box<Spawned>, StartError> {
    let command = hooks.prepare(run, cancel)?;
    let give_up_at = Deadline::after(BUSY_LIMIT);
    loop {
        if cancel.is_cancelled() {
            return Err(StartError::Cancelled);
        }
        keeper.ensure_started();
        match Process::spawn(&command, threads) {
            Ok((process, pipes)) => {
                keeper.watch_group(process.pid());
                fault::point(fault::SPAWNED, hooks.id());
                return Ok(Box::new(Spawned { process, pipes }));
            }
            // The program's file is open for writing; most likely in a child that is about to execute.
            Err(error) if error.is_busy() && !give_up_at.has_passed() => {
                let _ = poll::wait(&mut [], Some(Deadline::after(BUSY_WAIT)));
            }
            Err(error) => return Err(error),
        }
    }
}
