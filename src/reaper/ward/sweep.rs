//! What a run may have left outside of its process group: descendants that moved to a group or a
//! session of their own. They are looked for and killed after every run, on a short thread, because
//! looking takes a while on a busy system; no next run and no report of a stop before that is over.

use std::time::{Duration, Instant};

use super::{Phase, Ward};
use crate::deadline::Deadline;
use crate::process::descendants::Swept;
use crate::reaper::Context;
use crate::reaper::charge::Run;

/// How long descendants may take to be found and to die.
const LIMIT: Duration = Duration::from_secs(1);
/// The same when somebody waits for the plugin to be stopped.
const LIMIT_AT_STOP: Duration = Duration::from_millis(150);
/// For the thread to begin and to report, beyond that. A stop is reported a quarter of a second after
/// the end of its grace.
const REPORT: Duration = Duration::from_millis(75);

/// A look for descendants that is under way.
pub(super) struct Sweep {
    run: Run,
    /// It is not waited for any longer than this.
    pub(super) until: Instant,
}

impl Ward {
    /// The group has been killed: its number is about to be free for others.
    pub(super) fn forget_group(&mut self, context: &Context<'_>) {
        if let Some(group) = self.group.take() {
            context.keeper.borrow_mut().forget_group(group);
        }
    }

    /// Looks for what the run left, whose process has been reaped.
    pub(super) fn begin_sweep(&mut self, context: &Context<'_>) {
        let Some(cookie) = context.cookie else { return };
        let limit = if self.stop.is_some() {
            LIMIT_AT_STOP
        } else {
            LIMIT
        };
        let (run, ward, reaper) = (self.run, self.charge.ward(), context.reaper.clone());
        let bearers = cookie.bearers_of_run(run);
        let started = context.threads.spawn("sweep", 128 * 1024, move || {
            let swept = bearers.kill(Deadline::after(limit));
            reaper.swept(ward, run, swept);
        });
        match started {
            Ok(()) => {
                let until = Instant::now() + limit + REPORT;
                self.sweep = Some(Sweep { run, until });
            }
            Err(error) => {
                log::warn!(
                    "plugin {}: one look for what it left: {error}",
                    self.charge.id()
                );
                // One look is short, and the best that can be had without a thread.
                let swept = cookie
                    .bearers_of_run(run)
                    .kill(Deadline::after(Duration::ZERO));
                self.report(swept);
            }
        }
    }

    /// The look is over.
    pub(in crate::reaper) fn swept(&mut self, context: &Context<'_>, run: Run, swept: Swept) {
        self.report(swept);
        if self.sweep.take_if(|sweep| sweep.run == run).is_some() {
            self.cleared(context);
        }
    }

    fn report(&self, Swept { killed, left }: Swept) {
        let id = self.charge.id();
        if killed > 0 {
            log::info!("plugin {id}: killed {killed} processes that had left its group");
        }
        if left > 0 {
            log::warn!("plugin {id}: {left} of them are not known to be dead");
        }
    }

    /// Gives up a look that takes too long.
    pub(super) fn attend_sweep(&mut self, context: &Context<'_>, now: Instant) {
        if self.sweep.take_if(|sweep| sweep.until <= now).is_some() {
            log::warn!(
                "plugin {}: looking for what it left takes too long",
                self.charge.id()
            );
            self.cleared(context);
        }
    }

    /// Somebody waits for the plugin to be stopped: a look that is under way has less time.
    pub(super) fn hurry_sweep(&mut self, now: Instant) {
        if let Some(sweep) = &mut self.sweep {
            sweep.until = sweep.until.min(now + LIMIT_AT_STOP + REPORT);
        }
    }

    /// Goes on with what waited for the look, if it is over.
    pub(super) fn cleared(&mut self, context: &Context<'_>) {
        if self.sweep.is_some() || !matches!(self.phase, Phase::Clearing { .. }) {
            return;
        }
        if self.stop.is_none() {
            self.begin(context);
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
