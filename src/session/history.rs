//! The restart history of a supervised plugin: how its last runs ended and what was decided then.
//! `supervision` fills it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::process::ExitReason;
use crate::reaper::EndCause;

/// How a run of a supervised plugin ended. A run begins with its preparation, and ends when nothing of it
/// is left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunEnd {
    /// The number of the run in this session, from 1.
    pub run: u64,
    /// When its preparation began.
    pub started_at: SystemTime,
    /// When its process ended, or when it was known that there would be none.
    pub ended_at: SystemTime,
    /// The time from when it first became active until its process ended; `None` if it never was active.
    pub active_for: Option<Duration>,
    /// Why it ended.
    pub cause: EndCause,
    /// The same in words, as in [`Session::error_message`](crate::Session::error_message).
    pub message: Arc<str>,
    /// How its process ended; `None` if there never was one.
    pub exit: Option<ExitReason>,
    /// The id of its process, which may have been reused; `None` if there never was one.
    pub pid: Option<u32>,
    /// What was decided after it.
    pub decision: RestartDecision,
}

/// What the restart policy decided after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestartDecision {
    /// The plugin is restarted.
    Restart {
        /// The wait before that. A request to start or to stop may have cut it short.
        after: Duration,
    },
    /// It is not restarted, because it failed too often or can only fail the same way again.
    GiveUp,
    /// It is not restarted, because a stop was requested.
    Stay,
}

/// The most recent runs, oldest first.
#[derive(Debug, Default)]
pub(super) struct RunHistory {
    ends: VecDeque<RunEnd>,
    /// How many runs there have been in all.
    count: u64,
}

impl RunHistory {
    /// Adds a run and numbers it. Drops the oldest if there are more than `limit`.
    pub(super) fn push(&mut self, mut end: RunEnd, limit: usize) {
        self.count += 1;
        end.run = self.count;
        self.ends.push_back(end);
        let excess = self.ends.len().saturating_sub(limit);
        self.ends.drain(..excess);
    }

    pub(super) fn last(&self) -> Option<&RunEnd> {
        self.ends.back()
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
            active_for: None,
            cause: EndCause::Exited,
            message: "exit status 3".into(),
            exit: Some(ExitReason::Code(3)),
            pid: Some(7),
            decision: RestartDecision::GiveUp,
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
    }
}
