//! The restart history of a supervised plugin: how its last runs ended and what was decided then.
//! `supervision` fills it.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde::Serialize;

use super::problem::Problem;
use crate::shown;

/// How a run of a supervised plugin ended. A run begins with its preparation, and ends when nothing of it
/// is left. Serialised with times in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RunEnd {
    /// The number of the run in this session, from 1.
    pub run: u64,
    /// When its preparation began.
    #[serde(serialize_with = "shown::time")]
    pub started_at: SystemTime,
    /// When its process ended, or when it was known that there would be none.
    #[serde(serialize_with = "shown::time")]
    pub ended_at: SystemTime,
    /// Why it ended, without its output. Its [cause](Problem::cause) is never `None`, and is
    /// [`EndCause::Stopped`](crate::report::EndCause::Stopped) if nothing is wrong.
    pub problem: Problem,
    /// Whether the plugin is not started again because it failed too often or can only fail the same way. If
    /// not, and there is no [wait for the next start](Problem::restart_after), a stop was requested.
    pub given_up: bool,
}

/// The most recent runs, oldest first.
#[derive(Debug, Default)]
pub(super) struct RunHistory {
    ends: VecDeque<RunEnd>,
    /// How many runs there have been in all.
    count: u64,
    /// How many of them another one followed, or was to follow.
    restarts: u64,
}

impl RunHistory {
    /// Adds a run and numbers it. Drops the oldest if there are more than `limit`.
    pub(super) fn push(&mut self, mut end: RunEnd, limit: usize) {
        self.count += 1;
        self.restarts += u64::from(end.problem.restart_after().is_some());
        end.run = self.count;
        self.ends.push_back(end);
        let excess = self.ends.len().saturating_sub(limit);
        self.ends.drain(..excess);
    }

    #[cfg(feature = "admin")]
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    pub(super) fn ends(&self) -> Vec<RunEnd> {
        self.ends.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> RunEnd {
        RunEnd {
            run: 0,
            started_at: SystemTime::UNIX_EPOCH,
            ended_at: SystemTime::UNIX_EPOCH,
            problem: Problem::lost("exit status 3"),
            given_up: true,
        }
    }

    #[test]
    fn the_newest_ends_are_kept_and_go_on_being_numbered() {
        let mut history = RunHistory::default();
        for _ in 0..5 {
            history.push(end(), 3);
        }
        let runs: Vec<u64> = history.ends().iter().map(|end| end.run).collect();
        assert_eq!(runs, [3, 4, 5]);
        history.push(end(), 0);
        assert_eq!(history.ends(), []);
        assert_eq!(history.restarts, 0, "all were given up");
    }

    #[test]
    fn an_end_serialises_with_its_times_in_seconds() {
        let expected = serde_json::json!({
            "run": 0, "started_at": 0.0, "ended_at": 0.0, "problem": {"error": "exit status 3"}, "given_up": true,
        });
        assert_eq!(serde_json::to_value(end()).unwrap(), expected);
    }
}
