//! The state cell of a session: its state, since when and why, its connection, and waiting for a state.
//! `supervision` and `attach` decide the transitions; this keeps them consistent and wakes waiters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::history::RunHistory;
use super::problem::Problem;
use crate::auth::Secret;
use crate::deadline::Deadline;
use crate::duplex::close_code;
use crate::error::{Error, Phase, Result};
use crate::id::InstallationId;
use crate::reaper::RunId;
use crate::rpc::Connection;
use crate::state::{ActiveState, ReportedState};

pub(crate) struct StateCell {
    inner: Mutex<SessionState>,
    changed: Condvar,
}

pub(crate) struct SessionState {
    pub(super) reported: ReportedState,
    pub(super) wanted: ActiveState,
    /// The close code and the reason of the last requested stop.
    pub(super) stop_reason: (u16, Arc<str>),
    pub(super) started_at: Option<SystemTime>,
    /// What is wrong, or went wrong last.
    pub(super) problem: Option<Problem>,
    /// Why no process could be started, if that is why it is errored.
    pub(super) start_error: Option<Error>,
    /// How runs ended.
    pub(super) history: RunHistory,
    /// The run whose process may connect; 0 before the first.
    pub(super) run: RunId,
    /// The secret with which the current run's token is sealed, until it is spent.
    pub(super) secret: Option<Secret>,
    pub(super) connection: Option<Arc<Connection>>,
    /// The process of the current run, if it is one of this machine.
    pub(super) process: Option<RunProcess>,
    /// The number of the reservation for a connection that is about to be attached, and when it stops
    /// keeping others out. Removed when what it was made for is over, which voids it.
    pub(super) reserved: Option<(u64, Deadline)>,
    /// The number of the last reservation.
    pub(super) reservations: u64,
    /// Requests to start that the reaper has not acted on yet.
    pub(super) starts_pending: u64,
    /// How many threads are unloading it; until they are done, no new starts and no new connections.
    pub(super) unloading: u64,
    pub(super) unloaded: bool,
    /// Counts transitions; `entered` holds the count at which each state was last entered, so
    /// that a waiter sees also a state that has passed already.
    transitions: u64,
    entered: [u64; 7],
}

/// The process of a run. Another may have its id by now.
#[derive(Clone)]
pub(crate) struct RunProcess {
    pub(crate) pid: u32,
    /// The highest processor time that was seen of it and its group, in nanoseconds. What a process of the group has
    /// used is no longer seen once it has ended, if its parent had before.
    cpu: Arc<AtomicU64>,
}

impl RunProcess {
    pub(super) fn new(pid: u32) -> Self {
        Self {
            pid,
            cpu: Arc::default(),
        }
    }

    /// Returns the highest processor time that was seen, this one included.
    pub(crate) fn highest(&self, cpu: Duration) -> Duration {
        let now = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        let before = self.cpu.fetch_max(now, Ordering::Relaxed);
        Duration::from_nanos(before.max(now))
    }
}

impl SessionState {
    /// Goes to a state, with the problem if there is one. Returns the state it left.
    pub(super) fn enter(&mut self, to: ReportedState, problem: Option<Problem>) -> ReportedState {
        let from = self.reported;
        self.reported = to;
        self.transitions += 1;
        self.entered[to as usize] = self.transitions;
        if to == ReportedState::Active {
            self.started_at = Some(SystemTime::now());
        }
        match problem {
            Some(problem) => self.problem = Some(problem),
            // The last problem stays readable until the plugin is active or stopped.
            None if matches!(to, ReportedState::Active | ReportedState::Inactive) => {
                self.problem = None;
            }
            None => {}
        }
        from
    }

    pub(super) fn message(&self) -> Option<Arc<str>> {
        self.problem.as_ref().map(Problem::shared_message)
    }

    /// Returns why no further state can come.
    fn failure(&self) -> Error {
        match &self.start_error {
            Some(error) if self.reported == ReportedState::Errored => error.clone(),
            _ => Error::State {
                state: self.reported,
                message: self.message(),
            },
        }
    }

    /// Returns what is still waited for on the way to a state.
    fn phase_before(&self, target: ReportedState) -> Phase {
        match self.reported {
            ReportedState::Starting => Phase::Spawn,
            ReportedState::Connecting if target == ReportedState::Active => Phase::Connect,
            _ => Phase::State,
        }
    }

    /// Returns the last problem as a part of a sentence, if it still applies.
    fn last_problem(&self) -> Option<Arc<str>> {
        let problem = self.problem.as_ref()?;
        let message = problem.message();
        let is_restarted = matches!(
            self.reported,
            ReportedState::Starting | ReportedState::Connecting | ReportedState::Restarting
        );
        // An exit with 0 has words that do not follow "ended with".
        Some(if problem.is_unclean_exit() && is_restarted {
            format!("it ended with {message} and is being restarted").into()
        } else {
            format!("what went wrong last: {message}").into()
        })
    }

    /// Returns whether nothing is under way that could change the state by itself.
    fn is_settled(&self) -> bool {
        if self.starts_pending > 0 {
            return false;
        }
        match self.reported {
            // Not while a stop is on its way, which makes it inactive.
            ReportedState::Errored => self.wanted == ActiveState::Active,
            ReportedState::Inactive => self.wanted == ActiveState::Inactive,
            _ => false,
        }
    }
}

impl StateCell {
    pub(crate) fn new() -> Self {
        let state = SessionState {
            reported: ReportedState::Inactive,
            wanted: ActiveState::Inactive,
            stop_reason: (close_code::NORMAL, "closed".into()),
            started_at: None,
            problem: None,
            start_error: None,
            history: RunHistory::default(),
            run: 0,
            secret: None,
            connection: None,
            process: None,
            reserved: None,
            reservations: 0,
            starts_pending: 0,
            unloading: 0,
            unloaded: false,
            transitions: 0,
            entered: [0; 7],
        };
        Self {
            inner: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.inner.lock()
    }

    /// Wakes all waiters; to be called after a change that they wait for.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    pub(super) fn wait_for(
        &self,
        id: InstallationId,
        target: ReportedState,
        timeout: Duration,
    ) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let mut state = self.inner.lock();
        let begun_at = state.transitions;
        let mut timed_out = false;
        loop {
            if state.reported == target || state.entered[target as usize] > begun_at {
                return Ok(());
            }
            if state.unloaded {
                return Err(Error::NotLoaded(id));
            }
            if state.is_settled() {
                return Err(state.failure());
            }
            if timed_out {
                return Err(Error::Timeout {
                    phase: state.phase_before(target),
                    limit: timeout,
                    problem: state.last_problem(),
                });
            }
            // Checked once more after the time is over: the state may have come and passed.
            timed_out = self
                .changed
                .wait_until(&mut state, deadline.instant())
                .timed_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_time_of_a_run_never_goes_down() {
        let process = RunProcess::new(7);
        let seen = [3, 5, 2, 6].map(|seconds| process.highest(Duration::from_secs(seconds)));
        assert_eq!(seen.map(|time| time.as_secs()), [3, 5, 5, 6]);
    }
}
