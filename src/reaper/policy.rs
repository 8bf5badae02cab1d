//! Restart and back-off as pure functions of the restarts so far and the run that just ended. There are
//! no clock and no threads here: the reaper passes durations.

use std::time::Duration;

use crate::error::{Result, StartError};
use crate::settings::{require, settings};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

settings! {
    /// Whether and when a supervised plugin is restarted after its run ended: see
    /// [Restart](crate::protocol#restart).
    pub struct RestartPolicy {
        /// Restarts in a row before giving up. Default 3: after the fourth end the plugin is `errored`. With
        /// 0 it is restarted only after a good run.
        max_restart_attempts: u32 = 3;
        /// The greatest back-off. The wait is 1, 2, 4, 8 … seconds, but never longer than this, which may be
        /// less than a second. Default 60 s.
        max_backoff: Duration = Duration::from_secs(60);
        /// A run that was active for at least this long was a good one: the count of restarts starts again
        /// at zero. Default 30 s.
        crash_threshold: Duration = Duration::from_secs(30);
        /// The wait after the crash of a good run. Default 5 s.
        crash_backoff: Duration = Duration::from_secs(5);
        /// The wait after an exit by which the plugin asks to be restarted. Default 250 ms.
        requested_restart_delay: Duration = Duration::from_millis(250);
    }
}

impl RestartPolicy {
    pub(crate) fn validate(&self) -> Result<()> {
        let waits = [
            ("max_backoff", self.max_backoff),
            ("crash_backoff", self.crash_backoff),
            ("requested_restart_delay", self.requested_restart_delay),
        ];
        for (name, wait) in waits {
            require(wait <= DAY, name, "is longer than a day")?;
        }
        Ok(())
    }

    /// Returns the wait before restart number `restarts + 1` in a row.
    fn backoff(&self, restarts: u32) -> Duration {
        let seconds = 1_u64.checked_shl(restarts).unwrap_or(u64::MAX);
        Duration::from_secs(seconds).min(self.max_backoff)
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunOutcome {
    /// The plugin asked to be restarted: it exited with status 0 by itself after it had been active.
    Requested,
    /// Any other end that was not requested.
    Crash,
    /// The place where plugins run failed, and the plugin did not.
    Passing,
    /// The next run can only end in the same way.
    Permanent,
}

impl RunOutcome {
    /// Returns what a start means that has failed with this error.
    pub(super) fn of_start(error: &StartError) -> Self {
        if error.is_permanent() {
            Self::Permanent
        } else if error.is_passing() {
            Self::Passing
        } else {
            Self::Crash
        }
    }
}

/// What to do after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Restart after this wait.
    Restart(Duration),
    /// Give up.
    GiveUp,
}

/// The counted restarts in a row, which is all that the policy remembers of earlier runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restarts {
    pub(crate) count: u32,
    /// How many of the most recent of them the plugin had asked for, without a crash in between.
    pub(crate) requested: u32,
    /// How many failures in a row were passing ones. They are not among `count`.
    pub(crate) passing: u32,
}

impl Restarts {
    /// Decides what follows a run that was active for `active_for`; `None` if it never was.
    pub(crate) fn decide(
        &mut self,
        policy: &RestartPolicy,
        outcome: RunOutcome,
        active_for: Option<Duration>,
    ) -> Decision {
        if outcome == RunOutcome::Permanent {
            return Decision::GiveUp;
        }
        // A run that never became active does not reset the count, however long it took.
        if active_for.is_some_and(|active_for| active_for >= policy.crash_threshold) {
            *self = Self::default();
            match outcome {
                RunOutcome::Requested => {
                    return Decision::Restart(policy.requested_restart_delay);
                }
                RunOutcome::Crash => return Decision::Restart(policy.crash_backoff),
                RunOutcome::Passing | RunOutcome::Permanent => {}
            }
        }
        let Self {
            count,
            requested,
            passing,
        } = *self;
        if outcome == RunOutcome::Passing {
            self.passing = passing.saturating_add(1);
            return Decision::Restart(policy.backoff(passing));
        }
        if count >= policy.max_restart_attempts {
            return Decision::GiveUp;
        }
        let wait = match outcome {
            RunOutcome::Requested if requested == 0 => policy.requested_restart_delay,
            _ => policy.backoff(count),
        };
        *self = Self {
            count: count + 1,
            requested: match outcome {
                RunOutcome::Requested => requested + 1,
                _ => 0,
            },
            passing: 0,
        };
        Decision::Restart(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Option<Duration> = Some(Duration::from_secs(29));
    const LONG: Option<Duration> = Some(Duration::from_secs(30));

    fn restart(seconds: f64) -> Decision {
        Decision::Restart(Duration::from_secs_f64(seconds))
    }

    #[track_caller]
    fn check(policy: &RestartPolicy, runs: &[(RunOutcome, Option<Duration>, Decision)]) {
        let mut restarts = Restarts::default();
        for (number, (end, active_for, expected)) in runs.iter().enumerate() {
            assert_eq!(
                restarts.decide(policy, *end, *active_for),
                *expected,
                "run {number}"
            );
        }
    }

    #[test]
    fn a_crash_loop_backs_off_and_ends_at_the_fourth_end() {
        check(
            &RestartPolicy::default(),
            &[
                (RunOutcome::Crash, None, restart(1.0)),
                (RunOutcome::Crash, SHORT, restart(2.0)),
                (RunOutcome::Crash, None, restart(4.0)),
                (RunOutcome::Crash, None, Decision::GiveUp),
            ],
        );
    }

    #[test]
    fn the_backoff_is_capped_also_below_a_second_and_never_overflows() {
        let policy = RestartPolicy::default()
            .max_restart_attempts(u32::MAX)
            .max_backoff(Duration::from_millis(50));
        check(
            &policy,
            &[
                (RunOutcome::Crash, None, restart(0.05)),
                (RunOutcome::Crash, None, restart(0.05)),
            ],
        );
        let mut restarts = Restarts {
            count: 200,
            ..Restarts::default()
        };
        assert_eq!(
            restarts.decide(
                &policy.max_backoff(Duration::from_secs(60)),
                RunOutcome::Crash,
                None
            ),
            restart(60.0)
        );
    }

    #[test]
    fn a_good_run_resets_and_its_restart_does_not_count() {
        check(
            &RestartPolicy::default(),
            &[
                (RunOutcome::Crash, None, restart(1.0)),
                (RunOutcome::Crash, None, restart(2.0)),
                (RunOutcome::Crash, LONG, restart(5.0)),
                (RunOutcome::Crash, None, restart(1.0)),
                (RunOutcome::Crash, None, restart(2.0)),
                (RunOutcome::Crash, None, restart(4.0)),
                (RunOutcome::Crash, None, Decision::GiveUp),
            ],
        );
    }

    #[test]
    fn what_cannot_get_better_is_given_up_at_once_whatever_was_before() {
        for active_for in [None, SHORT, LONG] {
            let policy = RestartPolicy::default();
            let permanent = (RunOutcome::Permanent, active_for, Decision::GiveUp);
            check(&policy, &[permanent]);
        }
    }

    #[test]
    fn a_run_that_never_became_active_resets_nothing() {
        let policy = RestartPolicy::default()
            .crash_threshold(Duration::ZERO)
            .max_restart_attempts(1);
        check(
            &policy,
            &[
                (RunOutcome::Crash, None, restart(1.0)),
                (RunOutcome::Crash, None, Decision::GiveUp),
            ],
        );
    }

    #[test]
    fn asking_for_a_restart_is_quick_once_then_backs_off_and_counts() {
        check(
            &RestartPolicy::default(),
            &[
                (RunOutcome::Requested, SHORT, restart(0.25)),
                (RunOutcome::Requested, SHORT, restart(2.0)),
                (RunOutcome::Requested, SHORT, restart(4.0)),
                (RunOutcome::Requested, SHORT, Decision::GiveUp),
            ],
        );
    }

    #[test]
    fn asking_after_a_long_run_never_counts() {
        check(
            &RestartPolicy::default(),
            &[
                (RunOutcome::Requested, LONG, restart(0.25)),
                (RunOutcome::Requested, LONG, restart(0.25)),
                (RunOutcome::Requested, LONG, restart(0.25)),
                (RunOutcome::Requested, LONG, restart(0.25)),
                (RunOutcome::Requested, LONG, restart(0.25)),
            ],
        );
    }

    #[test]
    fn what_was_asked_for_is_counted_since_the_last_crash() {
        let policy = RestartPolicy::default().max_restart_attempts(5);
        let mut restarts = Restarts::default();
        for (end, count, requested) in [
            (RunOutcome::Requested, 1, 1),
            (RunOutcome::Crash, 2, 0),
            (RunOutcome::Requested, 3, 1),
            (RunOutcome::Requested, 4, 2),
        ] {
            restarts.decide(&policy, end, SHORT);
            assert_eq!((restarts.count, restarts.requested), (count, requested));
        }
        restarts.decide(&policy, RunOutcome::Requested, LONG);
        assert_eq!(restarts, Restarts::default());
    }

    #[test]
    fn passing_failures_use_up_no_restarts_and_have_a_ladder_of_their_own() {
        let crash = (RunOutcome::Crash, None);
        let passing = |seconds| (RunOutcome::Passing, None, restart(seconds));
        check(
            &RestartPolicy::default(),
            &[
                (crash.0, crash.1, restart(1.0)),
                passing(1.0),
                passing(2.0),
                passing(4.0),
                passing(8.0),
                passing(16.0),
                passing(32.0),
                passing(60.0),
                passing(60.0),
                (crash.0, crash.1, restart(2.0)),
                passing(1.0),
                (crash.0, crash.1, restart(4.0)),
                (RunOutcome::Passing, LONG, restart(1.0)),
                // That run was a good one.
                (crash.0, crash.1, restart(1.0)),
            ],
        );
    }

    #[test]
    fn asking_between_crashes_is_still_quick() {
        check(
            &RestartPolicy::default(),
            &[
                (RunOutcome::Crash, None, restart(1.0)),
                (RunOutcome::Requested, SHORT, restart(0.25)),
                (RunOutcome::Crash, SHORT, restart(4.0)),
                (RunOutcome::Requested, SHORT, Decision::GiveUp),
            ],
        );
    }

    #[test]
    fn zero_attempts_never_restart_a_crash() {
        check(
            &RestartPolicy::default().max_restart_attempts(0),
            &[(RunOutcome::Crash, None, Decision::GiveUp)],
        );
    }

    #[test]
    fn what_no_wait_can_be_is_refused_by_name() {
        RestartPolicy::default().validate().unwrap();
        let policy = RestartPolicy::default().max_backoff(Duration::from_secs(24 * 60 * 60 + 1));
        assert_eq!(
            policy.validate().unwrap_err().to_string(),
            "setting max_backoff: is longer than a day"
        );
    }

    #[test]
    fn a_long_run_ends_a_row_of_requests_too() {
        check(
            &RestartPolicy::default(),
            &[
                (RunOutcome::Requested, SHORT, restart(0.25)),
                (RunOutcome::Requested, LONG, restart(0.25)),
                (RunOutcome::Requested, SHORT, restart(0.25)),
                (RunOutcome::Requested, SHORT, restart(2.0)),
            ],
        );
    }
}
