//! What a run may have left outside of its process group: descendants that moved to a group or a
//! session of their own. They are looked for and killed after every run, on a short thread, because
//! looking takes a while on a busy system.
//!
//! A run that has to wait anyway does not begin before the look is over: what is found may hold a port
//! or a lock that the plugin needs. With a back-off of zero, or when somebody asks for a start, it
//! begins meanwhile: what is looked for bears the number of its own run, so nothing of the next is
//! hit. It begins beside the look for the run before it at most, so there are never more than two
//! looks. No stop is reported before all are over.

use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use super::{Phase, Ward};
use crate::deadline::Deadline;
use crate::process::descendants::Swept;
use crate::reaper::Context;
use crate::reaper::cause::Failure;
use crate::reaper::charge::Run;

/// How long descendants may take to be found and to die.
const LIMIT: Duration = Duration::from_secs(1);
/// The same when somebody waits for the plugin to be stopped.
const LIMIT_AT_STOP: Duration = Duration::from_millis(150);
/// For the thread to begin and to report, beyond that. A stop is reported a quarter of a second after
/// the end of its grace.
const REPORT: Duration = Duration::from_millis(75);

/// For how long a look is held back at most.
const HOLD_BACK: Duration = Duration::from_millis(10);

/// A look for descendants.
struct Sweep {
    run: Run,
    state: State,
}

enum State {
    /// To be begun by then, however much else there is to do.
    Planned(Instant),
    /// Its thread runs, or was to; it is not waited for any longer than this.
    Begun(Instant),
}

/// The looks that are planned or under way, for one plugin.
#[derive(Default)]
pub(super) struct Sweeps(Vec<Sweep>);

impl Sweeps {
    pub(super) fn are_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn are_planned(&self) -> bool {
        let planned = |sweep: &Sweep| matches!(sweep.state, State::Planned(_));
        self.0.iter().any(planned)
    }

    /// Whether a run may begin now, of which `last` is the one before.
    pub(super) fn let_begin(&self, last: Run) -> bool {
        self.0.iter().all(|sweep| sweep.run == last)
    }

    /// When one of them must be begun, or is given up.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = |sweep: &Sweep| match sweep.state {
            State::Planned(by) => by,
            State::Begun(until) => until,
        };
        self.0.iter().map(due).min()
    }

    /// Somebody waits for the plugin to be stopped: what is under way has less time.
    pub(super) fn hurry(&mut self, now: Instant) {
        for sweep in &mut self.0 {
            if let State::Begun(until) = &mut sweep.state {
                *until = (*until).min(now + LIMIT_AT_STOP + REPORT);
            }
        }
    }

    /// Takes out the look for what this run left; gives whether it was waited for.
    fn end(&mut self, run: Run) -> bool {
        let found = self.0.iter().position(|sweep| sweep.run == run);
        found.map(|position| self.0.swap_remove(position)).is_some()
    }

    /// Takes out those whose time is up; gives how many there were.
    fn give_up(&mut self, now: Instant) -> usize {
        let before = self.0.len();
        self.0
            .retain(|sweep| !matches!(sweep.state, State::Begun(until) if until <= now));
        before - self.0.len()
    }
}

impl Ward {
    /// The group has been killed: its number is about to be free for others.
    pub(super) fn forget_group(&mut self, context: &Context<'_>) {
        if let Some(group) = self.group.take() {
            context.keeper.borrow_mut().forget_group(group);
        }
    }

    /// Has what the run left looked for, whose process has been reaped: at the end of the reaper's
    /// round, or when the next run is under way.
    pub(super) fn plan_sweep(&mut self, context: &Context<'_>) {
        if context.cookie.is_some() {
            self.sweeps.0.push(Sweep {
                run: self.run,
                state: State::Planned(Instant::now() + HOLD_BACK),
            });
        }
    }

    /// Begins the looks that are planned. Not those that would take the processor from an end that is
    /// about to be told or a run that is about to begin, for as long as these are quick.
    pub(in crate::reaper) fn begin_sweeps(&mut self, context: &Context<'_>) {
        let now = Instant::now();
        let is_busy = self.stop.is_none()
            && matches!(
                self.phase,
                Phase::Ending(..)
                    | Phase::BackingOff { at_once: true, .. }
                    | Phase::Preparing { .. }
                    | Phase::Busy(_)
            );
        let limit = if self.stop.is_some() {
            LIMIT_AT_STOP
        } else {
            LIMIT
        };
        let is_due = |sweep: &&mut Sweep| match sweep.state {
            State::Planned(by) => !is_busy || by <= now,
            State::Begun(_) => false,
        };
        while let Some(sweep) = self.sweeps.0.iter_mut().find(is_due) {
            sweep.state = State::Begun(now + limit + REPORT);
            let run = sweep.run;
            self.begin_sweep(context, run, limit);
        }
    }

    fn begin_sweep(&mut self, context: &Context<'_>, run: Run, limit: Duration) {
        let Some(cookie) = context.cookie else { return };
        let (ward, reaper) = (self.charge.ward(), context.reaper.clone());
        let bearers = cookie.bearers_of_run(run);
        let started = context.threads.spawn("sweep", 128 * 1024, move || {
            let swept = bearers.kill(Deadline::after(limit));
            reaper.swept(ward, run, swept);
        });
        if let Err(error) = started {
            log::warn!(
                "plugin {}: one look for what it left: {error}",
                self.charge.id()
            );
            // One look is short, and the best that can be had without a thread.
            let bearers = cookie.bearers_of_run(run);
            let swept = bearers.kill(Deadline::after(Duration::ZERO));
            self.swept(context, run, swept);
        }
    }

    /// The look is over.
    pub(in crate::reaper) fn swept(&mut self, context: &Context<'_>, run: Run, swept: Swept) {
        if self.sweeps.end(run) {
            self.cleared(context);
        }
        self.report(swept);
    }

    /// Guarded, because a panic of the logger's over one run must not cost the next.
    fn report(&self, Swept { killed, left }: Swept) {
        let id = self.charge.id();
        let report = || {
            if killed > 0 {
                log::info!("plugin {id}: killed {killed} processes that had left its group");
            }
            if left > 0 {
                log::warn!("plugin {id}: {left} of them are not known to be dead");
            }
        };
        let _ = panic::catch_unwind(AssertUnwindSafe(report));
    }

    /// Gives up a look that takes too long.
    pub(super) fn attend_sweeps(&mut self, context: &Context<'_>, now: Instant) {
        if self.sweeps.give_up(now) > 0 {
            self.cleared(context);
            let id = self.charge.id();
            let report = || log::warn!("plugin {id}: looking for what it left takes too long");
            let _ = panic::catch_unwind(AssertUnwindSafe(report));
        }
    }

    /// The run that was stopped is over, if there was one: reports the stop once nothing is looked for
    /// any more.
    pub(super) fn clear(&mut self, context: &Context<'_>, ended: Option<Failure>) {
        self.sweeps.hurry(Instant::now());
        self.phase = Phase::Clearing { ended };
        self.cleared(context);
    }

    /// Goes on with what waited for a look, if that is over.
    fn cleared(&mut self, context: &Context<'_>) {
        if !matches!(self.phase, Phase::Clearing { .. }) {
            return;
        }
        if self.stop.is_none() {
            if self.sweeps.let_begin(self.run) {
                self.begin(context);
            }
            return;
        }
        if !self.sweeps.are_over() {
            return;
        }
        let ended = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Clearing { ended } => ended,
            _ => None,
        };
        self.stopped(ended);
        if self.start_again {
            self.begin_anew(context);
        }
    }
}
