//! The restart history of a supervised plugin: how its last runs ended and what came of it. Only
//! keeps; what it keeps is made by `supervision`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::process::ExitReason;
use crate::reaper::EndCause;

/// How a run of a supervised plugin ended. A run begins when the plugin is prepared to be started, and
/// ends when nothing of it is left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunEnd {
    /// Which run of this session it was, from 1.
    pub run: u64,
    /// When it began, with its preparation.
    pub started_at: SystemTime,
    /// When its process ended; where there was none, when that was known.
    pub ended_at: SystemTime,
    /// From when it first became active until the end of its process; `None` if it never was active.
    pub active_for: Option<Duration>,
    /// Why it ended.
    pub cause: EndCause,
    /// The same in words, as [`Session::error_message`](crate::Session::error_message) had it.
    pub message: Arc<str>,
    /// How its process ended; `None` when there never was one.
    pub exit: Option<ExitReason>,
    /// The process's id, which may be somebody else's by now; `None` when there never was one.
    pub pid: Option<u32>,
    /// What was decided then.
    pub decision: RestartDecision,
}

/// What was decided after the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestartDecision {
    /// To start it again.
    Restart {
        /// The wait before that; somebody's start or stop may have cut it short.
        after: Duration,
    },
    /// To leave it, because it had failed too often, or can only fail the same way again.
    GiveUp,
    /// To leave it, because somebody had asked for the end.
    Stay,
}

/// The last ends, oldest first.
#[derive(Debug, Default)]
pub(super) struct RunHistory {
    ends: VecDeque<RunEnd>,
    /// How many there ever were.
    count: u64,
}

impl RunHistory {
    /// Takes one more, and numbers it. Lets go of the oldest when there are more than `limit`.
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
