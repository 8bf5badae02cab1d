//! When to scan for the orphans of a child: descendants that moved to a process group or session of their
//! own. After every run they are found and killed on a short-lived thread, because a scan takes a while on
//! a busy system.
//!
//! A run that has to wait anyway does not begin before the scan is over, since an orphan may hold a port
//! or a lock that the plugin needs. With a back-off of zero, or after a request to start, the run begins
//! meanwhile; the scan does not hit it, because orphans carry the number of their own run. But once a scan
//! has found orphans that it could not kill, no run begins until they are gone, and no stop is reported.
//!
//! A plugin has one scan at a time. While a caller waits for the result, scans follow each other at once;
//! otherwise they become rarer, and those of all plugins together use a small share of a processor.

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Child, Stage, after};
use crate::deadline::Deadline;
use crate::error::Descendants;
use crate::fault;
use crate::process::orphans::{READ_TIMEOUT, SCAN_STACK, ScanProgress, ScanResult};
use crate::reaper::cause::{Cause, EndedRun};
use crate::reaper::hooks::{RunId, Transition};
use crate::reaper::{ChildCommand, Context};

/// How long a start waits for the orphans of the previous run to be gone. After that the plugin is errored
/// with [`EndCause::DescendantsLeft`](crate::report::EndCause::DescendantsLeft).
pub(super) const LEFT_LIMIT: Duration = Duration::from_secs(30);

/// How long one scan may take.
const LIMIT: Duration = Duration::from_secs(1);
/// How long a scan is held back at most while its child is busy.
const HOLD_BACK: Duration = Duration::from_millis(10);
/// The pause between scans that a caller waits for; without it a scan that ends at once would spin.
const BETWEEN: Duration = Duration::from_millis(5);
/// The first and the longest pause between scans that no caller waits for.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// A background scan is followed by a pause of this many times its processor time without another, for
/// all plugins of the host: together they use a fiftieth of one processor.
const REST: u32 = 49;

/// The scans for one child.
#[derive(Default)]
pub(super) struct ScanSchedule {
    /// The ended runs that may have left orphans.
    runs: BTreeSet<RunId>,
    state: ScanState,
    /// A scan has found orphans that it could not kill.
    has_leftovers: bool,
    /// The last pause before a scan that no caller waited for.
    back_off: Option<Duration>,
    /// The number of the last scan.
    last: u64,
}

#[derive(Default)]
enum ScanState {
    #[default]
    Idle,
    /// The scan is due at `at`, and begins at `by` even if its child is busy.
    Planned { at: Instant, by: Instant },
    /// Its thread is running. `check_at` is when to see whether it is stuck.
    Begun {
        progress: Arc<ScanProgress>,
        check_at: Instant,
        /// No caller waits for it.
        in_background: bool,
    },
}

impl ScanSchedule {
    /// Whether no orphan is left, as far as can be known.
    pub(super) fn is_done(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether a run may begin now, after the run `last`.
    pub(super) fn may_start(&self, last: RunId) -> bool {
        !self.has_leftovers && self.runs.iter().all(|run| *run == last)
    }

    /// Returns when the next timer is due.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            ScanState::Idle => None,
            ScanState::Planned { at, by } => Some(if at > Instant::now() { at } else { by }),
            ScanState::Begun { check_at, .. } => Some(check_at),
        }
    }

    /// Makes a planned scan due now, because a caller waits for it.
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

    /// Plans the next scan, after a longer pause each time.
    fn plan_later(&mut self, now: Instant) {
        let longer = self.back_off.map(|last| BACK_OFF.1.min(last * 2));
        let wait = *self.back_off.insert(longer.unwrap_or(BACK_OFF.0));
        self.plan(now + wait);
    }
}

impl Child {
    /// Plans the scan for the orphans of the current run, whose process has ended. It begins at the end of
    /// this loop iteration of the reaper, or once the next run is under way.
    pub(super) fn plan_scan(&mut self, context: &Context) {
        if context.scanner.is_none() {
            return;
        }
        self.scans.runs.insert(self.run);
        let now = Instant::now();
        match self.scans.state {
            ScanState::Idle => self.scans.plan(now),
            ScanState::Planned { .. } => self.scans.expedite(now),
            // The next scan follows when this one ends.
            ScanState::Begun { .. } => {}
        }
    }

    /// Whether [`begin_scan`](Self::begin_scan) has to be called.
    pub(in crate::reaper) fn is_scan_due(&self, now: Instant) -> bool {
        matches!(self.scans.state, ScanState::Planned { at, .. } if at <= now)
    }

    /// Whether a caller, or a start, waits for the result of a scan.
    fn is_scan_awaited(&self, now: Instant) -> bool {
        if !self.scans.has_leftovers || self.start_again {
            return true;
        }
        match &self.stop {
            Some(stop) => stop.waiters.iter().any(|waiter| waiter.until > now),
            None => matches!(self.stage, Stage::AwaitingScan { .. }),
        }
    }

    /// Begins the planned scan. It is held back for a moment while a run is about to end or to begin, so as
    /// not to compete with it for the processor.
    pub(in crate::reaper) fn begin_scan(&mut self, context: &Context) {
        let now = Instant::now();
        let ScanState::Planned { at, by } = self.scans.state else {
            return;
        };
        let is_busy = self.stop.is_none()
            && matches!(
                self.stage,
                Stage::Ending(..)
                    | Stage::BackingOff { at_once: true, .. }
                    | Stage::Preparing { .. }
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

    /// Handles a scan that could not begin: orphans have to be assumed.
    fn scan_failed(&mut self, now: Instant, why: &str) {
        self.scans.plan_later(now);
        self.saw(Descendants::default());
        let plugin = self.hooks.name();
        log_guarded(|| log::warn!("{plugin}: cannot scan for orphans: {why}"));
    }

    /// Handles the result of a scan.
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
            // This scan was given up, and its read has returned: that process can be scanned again.
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
        log_guarded(|| {
            if result.killed > 0 {
                let killed = result.killed;
                log::info!("{plugin}: killed {killed} processes that had left its process group");
            }
            if result.unclear > 0 {
                let unclear = result.unclear;
                log::debug!("{plugin}: the environment of {unclear} processes cannot be read");
            }
            match (found.is_clear(), was_seen) {
                (false, false) => log::warn!("{plugin}: {found}; scanning again"),
                (false, true) => log::debug!("{plugin}: {found}"),
                (true, true) => log::info!("{plugin}: no orphan is left"),
                (true, false) => {}
            }
        });
    }

    /// Gives up a scan that is stuck, and a start that has waited too long for orphans.
    pub(super) fn tick_scan(&mut self, now: Instant) {
        if let ScanState::Begun {
            progress, check_at, ..
        } = &mut self.scans.state
            && *check_at <= now
        {
            if progress.give_up(READ_TIMEOUT) {
                // The next scan skips that process.
                self.scans.plan(now);
                let plugin = self.hooks.name();
                log_guarded(|| {
                    log::warn!(
                        "{plugin}: a scan is stuck reading a process, which is skipped from now on"
                    );
                });
            } else {
                *check_at = now + READ_TIMEOUT;
            }
        }
        if let Stage::AwaitingScan { until, .. } = &self.stage
            && *until <= now
            && (self.stop.is_none() || self.start_again)
        {
            self.give_up_start();
        }
    }

    /// Begins to wait for scans only. `ended` is the run that was stopped, if there was one.
    pub(super) fn wait_for_scan(&mut self, ended: Option<EndedRun>) {
        let until = after(Instant::now(), LEFT_LIMIT);
        self.stage = Stage::AwaitingScan { ended, until };
        self.scans.expedite(Instant::now());
        self.hooks.tally().set_awaited(true);
    }

    /// Waits for the scans after a run that was stopped, if there was one, and then reports the stop.
    pub(super) fn finish_after_scan(&mut self, context: &Context, ended: Option<EndedRun>) {
        self.wait_for_scan(ended);
        self.scan_finished(context);
    }

    /// Continues the stop or the start that waited for scans, if they are done.
    fn scan_finished(&mut self, context: &Context) {
        if !matches!(self.stage, Stage::AwaitingScan { .. }) {
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

    /// Stops waiting for scans; returns the run that was stopped, if there was one.
    pub(super) fn leave_awaiting_scan(&mut self) -> Option<EndedRun> {
        self.hooks.tally().set_awaited(false);
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::AwaitingScan { ended, .. } => ended,
            other => {
                self.stage = other;
                None
            }
        }
    }

    /// Gives up a start because orphans of the previous run are left. Scans continue.
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

    /// Reports to the callers that wait for a stop what is left.
    fn give_up_stop(&mut self, found: Descendants) {
        for waiter in self.stop.take().into_iter().flat_map(|stop| stop.waiters) {
            // A caller whose timeout has passed does not receive it.
            let _ = waiter.done.try_send(Err(found));
        }
    }

    /// Takes over the scans of an `old` child of the same plugin, whose session is gone and of which nothing
    /// but orphans is left.
    pub(in crate::reaper) fn inherit(&mut self, old: &mut Self) {
        let found = old.hooks.tally().descendants();
        let is_at_rest = matches!(old.stage, Stage::Idle | Stage::AwaitingScan { .. });
        if old.scans.is_done() || !is_at_rest {
            return;
        }
        // The result of a scan under way goes to the old child, where at most it plans another scan.
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

/// Logs. A panic of the embedder's logger must not disturb the child's state.
fn log_guarded(log: impl FnOnce()) {
    let _ = panic::catch_unwind(AssertUnwindSafe(log));
}
