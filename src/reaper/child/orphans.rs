//! What a run may have left outside of its process group: descendants that moved to a group or a
//! session of their own. They are looked for and killed after every run, on a short thread, because
//! looking takes a while on a busy system.
//!
//! A run that has to wait anyway does not begin before the look is over: what is found may hold a port
//! or a lock that the plugin needs. With a back-off of zero, or when a start is asked for, it begins
//! meanwhile: what is looked for bears the number of its own run, so nothing of the next is hit. But
//! once a look has seen some that it could not end, nothing begins until they are gone. No stop is
//! reported before that.
//!
//! A plugin has one look at a time. While somebody waits for its outcome one follows upon the other;
//! else they become rarer, and all plugins together take no more than their share of a processor.

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ChildPhase, SupervisedChild, after};
use crate::deadline::Deadline;
use crate::error::Descendants;
use crate::fault;
use crate::process::orphans::{READ_TIMEOUT, SCAN_STACK, ScanProgress, ScanResult};
use crate::reaper::cause::{Cause, EndedRun};
use crate::reaper::hooks::{RunId, Transition};
use crate::reaper::{ChildCommand, Context};

/// For how long a start waits for what the run before left to be gone, 30 seconds. After that the plugin
/// is errored with [`EndCause::DescendantsLeft`](crate::EndCause::DescendantsLeft).
pub(super) const LEFT_LIMIT: Duration = Duration::from_secs(30);

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(1);
/// For how long a look is held back at most.
const HOLD_BACK: Duration = Duration::from_millis(10);
/// The wait between looks that somebody waits for: one may have come to its end at once.
const BETWEEN: Duration = Duration::from_millis(5);
/// The waits between looks for what could not be ended, when nobody waits for them.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// After a look that nobody waits for comes so many times its processor time without one, whichever
/// plugin it was for: a fiftieth of one processor.
const REST: u32 = 49;

/// The looks for one plugin.
#[derive(Default)]
pub(super) struct ScanSchedule {
    /// The runs that have ended, of which something may be left.
    runs: BTreeSet<RunId>,
    state: ScanState,
    /// A look has seen some that it could not end.
    has_leftovers: bool,
    /// The last wait before a look that nobody waited for.
    back_off: Option<Duration>,
    /// The number of the last look.
    last: u64,
}

#[derive(Default)]
enum ScanState {
    #[default]
    Idle,
    /// To be begun at `at`; by `by` however much else there is to do.
    Planned { at: Instant, by: Instant },
    /// Its thread runs, or was to. When it is looked after next.
    Begun {
        progress: Arc<ScanProgress>,
        check_at: Instant,
        /// Nobody waits for it.
        in_background: bool,
    },
}

impl ScanSchedule {
    /// Whether nothing is left, as far as can be known.
    pub(super) fn is_done(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether a run may begin now, of which `last` is the one before.
    pub(super) fn may_start(&self, last: RunId) -> bool {
        !self.has_leftovers && self.runs.iter().all(|run| *run == last)
    }

    /// When there is something to do though nothing happened.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            ScanState::Idle => None,
            ScanState::Planned { at, by } => Some(if at > Instant::now() { at } else { by }),
            ScanState::Begun { check_at, .. } => Some(check_at),
        }
    }

    /// Somebody waits: the next look comes at once.
    pub(super) fn expedite(&mut self, now: Instant) {
        self.back_off = None;
        if let ScanState::Planned { at, .. } = &mut self.state {
            *at = now.min(*at);
        }
    }

    fn plan(&mut self, at: Instant) {
        let by = at + HOLD_BACK;
        self.state = ScanState::Planned { at, by };
    }

    /// Plans the next look, later each time.
    fn plan_later(&mut self, now: Instant) {
        let longer = self.back_off.map(|last| BACK_OFF.1.min(last * 2));
        let wait = *self.back_off.insert(longer.unwrap_or(BACK_OFF.0));
        self.plan(now + wait);
    }
}

impl SupervisedChild {
    /// Has what this run left looked for, whose process has ended: at the end of the reaper's round, or
    /// when the next run is under way.
    pub(super) fn plan_scan(&mut self, context: &Context) {
        if context.scanner.is_none() {
            return;
        }
        self.scans.runs.insert(self.run);
        let now = Instant::now();
        match self.scans.state {
            ScanState::Idle => self.scans.plan(now),
            ScanState::Planned { .. } => self.scans.expedite(now),
            // Its end brings the next.
            ScanState::Begun { .. } => {}
        }
    }

    /// Whether [`begin_scan`](Self::begin_look) may have something to do.
    pub(in crate::reaper) fn is_scan_due(&self, now: Instant) -> bool {
        matches!(self.scans.state, ScanState::Planned { at, .. } if at <= now)
    }

    /// Whether somebody waits for what a look comes to.
    fn is_scan_awaited(&self, now: Instant) -> bool {
        if !self.scans.has_leftovers || self.start_again {
            return true;
        }
        match &self.stop {
            Some(stop) => stop.waiters.iter().any(|waiter| waiter.until > now),
            None => matches!(self.phase, ChildPhase::AwaitingScan { .. }),
        }
    }

    /// Begins the look that is planned. Not one that would take the processor from an end that is about
    /// to be told or a run that is about to begin, for as long as these are quick.
    pub(in crate::reaper) fn begin_scan(&mut self, context: &Context) {
        let now = Instant::now();
        let ScanState::Planned { at, by } = self.scans.state else {
            return;
        };
        let is_busy = self.stop.is_none()
            && matches!(
                self.phase,
                ChildPhase::Ending(..)
                    | ChildPhase::BackingOff { at_once: true, .. }
                    | ChildPhase::Preparing { .. }
            );
        if now < at || (is_busy && now < by) {
            return;
        }
        let in_background = !self.is_scan_awaited(now);
        let turn = context.next_background_scan.get();
        if in_background && now < turn {
            self.scans.plan(turn);
            return;
        }
        let Some(scanner) = &context.scanner else {
            return;
        };
        let id = self.hooks.id();
        let is_harmless = fault::is_lost(fault::LOOKING, id);
        let Some(progress) = scanner.begin(self.hooks.tally(), is_harmless) else {
            self.scan_failed(now, "too many scans are stuck reading a process");
            return;
        };
        self.scans.last += 1;
        let (child, number, runs) = (
            self.hooks.child_id(),
            self.scans.last,
            self.scans.runs.clone(),
        );
        let (matching, reaper) = (scanner.cookie.match_runs(&runs), context.reaper.clone());
        let watched = progress.clone();
        let started = context.threads.spawn("scan-orphans", SCAN_STACK, move || {
            let result = matching.kill(Deadline::after(LIMIT), Duration::ZERO, &watched);
            let command = ChildCommand::Scanned {
                number,
                runs,
                result,
            };
            reaper.tell(child, command);
        });
        match started {
            Ok(()) => {
                self.scans.state = ScanState::Begun {
                    progress,
                    check_at: now + READ_TIMEOUT,
                    in_background,
                };
            }
            Err(error) => self.scan_failed(now, &error.to_string()),
        }
    }

    /// A look could not be begun, so what it would find is there for all that is known.
    fn scan_failed(&mut self, now: Instant, why: &str) {
        self.scans.plan_later(now);
        self.saw(Descendants::default());
        let plugin = self.hooks.name();
        guarded(|| log::warn!("{plugin}: cannot look for what it left: {why}"));
    }

    /// A look is over.
    pub(super) fn scanned(
        &mut self,
        context: &Context,
        number: u64,
        runs: BTreeSet<RunId>,
        result: ScanResult,
    ) {
        let now = Instant::now();
        let found = result.found;
        let in_background = match self.scans.state {
            ScanState::Begun { in_background, .. } if number == self.scans.last => in_background,
            // One that was given up. It came back, so the process that it read can be looked at now.
            _ => {
                if !found.is_clear() || result.killed > 0 {
                    self.scans.runs.extend(runs);
                    if matches!(self.scans.state, ScanState::Idle) {
                        self.scans.plan(now);
                    }
                }
                return;
            }
        };
        self.scans.state = ScanState::Idle;
        if in_background {
            let turn = &context.next_background_scan;
            turn.set(turn.get().max(now) + result.cost * REST);
        }
        let was_seen = self.scans.has_leftovers;
        if found.is_clear() {
            self.scans.runs.retain(|run| !runs.contains(run));
            self.scans.has_leftovers = false;
            self.scans.back_off = None;
            self.hooks.tally().set(found);
            if !self.scans.runs.is_empty() {
                self.scans.plan(now);
            }
        } else {
            if let Some(scanner) = &context.scanner {
                scanner.add_escaped(found.escaped);
            }
            self.saw(found);
            if self.is_scan_awaited(now) {
                self.scans.plan(now + BETWEEN);
            } else {
                self.scans.plan_later(now);
            }
        }
        self.report(&result, was_seen);
        if found.is_clear() {
            self.scan_finished(context);
        }
    }

    fn saw(&mut self, found: Descendants) {
        self.scans.has_leftovers = true;
        self.hooks.tally().set(found);
    }

    fn report(&self, result: &ScanResult, was_seen: bool) {
        let plugin = self.hooks.name();
        let found = result.found;
        guarded(|| {
            if result.killed > 0 {
                let killed = result.killed;
                log::info!("{plugin}: killed {killed} processes that had left its group");
            }
            if result.unclear > 0 {
                let unclear = result.unclear;
                log::debug!("{plugin}: the environment of {unclear} processes cannot be read");
            }
            match (found.is_clear(), was_seen) {
                (false, false) => log::warn!("{plugin}: {found}; looking for more"),
                (false, true) => log::debug!("{plugin}: {found}"),
                (true, true) => log::info!("{plugin}: nothing of it is left"),
                (true, false) => {}
            }
        });
    }

    /// Looks after a look that is under way, and for what a start has waited too long.
    pub(super) fn tick_scan(&mut self, now: Instant) {
        if let ScanState::Begun {
            progress, check_at, ..
        } = &mut self.scans.state
            && *check_at <= now
        {
            if progress.give_up(READ_TIMEOUT) {
                // The next one passes that process over.
                self.scans.plan(now);
                let plugin = self.hooks.name();
                guarded(|| {
                    log::warn!("{plugin}: reading a process does not come back, passing it over");
                });
            } else {
                *check_at = now + READ_TIMEOUT;
            }
        }
        if let ChildPhase::AwaitingScan { until, .. } = &self.phase
            && *until <= now
            && (self.stop.is_none() || self.start_again)
        {
            self.give_up_start();
        }
    }

    /// Waits for nothing but looks. With the end of the run that was stopped, if there was one.
    pub(super) fn wait_for_scan(&mut self, ended: Option<EndedRun>) {
        let until = after(Instant::now(), LEFT_LIMIT);
        self.phase = ChildPhase::AwaitingScan { ended, until };
        self.scans.expedite(Instant::now());
        self.hooks.tally().set_awaited(true);
    }

    /// The run that was stopped is over, if there was one: reports the stop once nothing is looked for
    /// any more.
    pub(super) fn finish_after_scan(&mut self, context: &Context, ended: Option<EndedRun>) {
        self.wait_for_scan(ended);
        self.scan_finished(context);
    }

    /// Goes on with what waited for a look, if that is over.
    fn scan_finished(&mut self, context: &Context) {
        if !matches!(self.phase, ChildPhase::AwaitingScan { .. }) {
            return;
        }
        if self.stop.is_none() {
            if self.scans.may_start(self.run) {
                self.start_run(context);
            }
            return;
        }
        if !self.scans.is_done() {
            return;
        }
        let ended = self.leave_awaiting_scan();
        self.stopped(ended);
        if self.start_again {
            self.start_fresh(context);
        }
    }

    /// Waits for looks no longer; returns the end of the run that was stopped, if there was one.
    pub(super) fn leave_awaiting_scan(&mut self) -> Option<EndedRun> {
        self.hooks.tally().set_awaited(false);
        match std::mem::replace(&mut self.phase, ChildPhase::Idle) {
            ChildPhase::AwaitingScan { ended, .. } => ended,
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// What the run before left does not go: the plugin is not started. The looks go on.
    fn give_up_start(&mut self) {
        let found = self.hooks.tally().descendants();
        let ended = self.leave_awaiting_scan();
        self.start_again = false;
        self.give_up_stop(found);
        if let Some(ended) = ended {
            self.hooks.transition(Transition::Ended(ended));
        }
        let failure = self.unstarted(Cause::DescendantsLeft(found));
        self.hooks.transition(Transition::Errored(failure));
    }

    /// Tells those who wait for a stop that this is left.
    fn give_up_stop(&mut self, found: Descendants) {
        for waiter in self.stop.take().into_iter().flat_map(|stop| stop.waiters) {
            // A waiter whose time ran out is gone.
            let _ = waiter.done.try_send(Err(found));
        }
    }

    /// Takes over what is looked for from another, whose session is gone and of which nothing else is
    /// left.
    pub(in crate::reaper) fn inherit(&mut self, old: &mut Self) {
        let found = old.hooks.tally().descendants();
        let is_at_rest = matches!(
            old.phase,
            ChildPhase::Idle | ChildPhase::AwaitingScan { .. }
        );
        if old.scans.is_done() || !is_at_rest {
            return;
        }
        // A look that is under way comes back to it, and brings no more than another one.
        let ScanSchedule {
            runs,
            has_leftovers,
            ..
        } = std::mem::take(&mut old.scans);
        let ended = old.leave_awaiting_scan();
        old.give_up_stop(found);
        old.hooks.transition(Transition::Inactive(ended));
        self.scans.runs.extend(runs);
        self.scans.plan(Instant::now());
        if has_leftovers {
            self.saw(found);
        }
    }
}

/// A panic of the logger's over one run must not cost the next.
fn guarded(log: impl FnOnce()) {
    let _ = panic::catch_unwind(AssertUnwindSafe(log));
}
