//! The keeper: a small process beside the host that kills the host's plugins when the host is gone without
//! having stopped them, even after SIGKILL.
//!
//! What lives here: which program is the keeper ([`Keeper`]), the host's end (`link`; `handle` is the
//! process), the keeper in POSIX `sh` (`keeper.sh`) and the one in Rust ([`serve()`]). What does not:
//! ending plugins while the host is running (`reaper`), how orphans are found (`process`).
//!
//! The keeper runs in a session of its own, ignores SIGINT, SIGTERM and SIGHUP, and reads lines from
//! the host on its standard input:
//!
//! | line | meaning |
//! | --- | --- |
//! | `cookie HEX` | the cookie that all processes of the host's plugins carry in their environment |
//! | `+ GROUP` | a process group was started |
//! | `- GROUP` | it was killed and is about to be reaped, after which its id may be reused |
//! | `end` | the host shuts down, and nothing is left to do |
//!
//! At the end of the input without `end`, the keeper kills the running groups and all processes with the
//! cookie, and then ends. The keeper in Rust scans as the host does, and for at least a second, because a
//! process that the host was just spawning shows the cookie a moment later. The one in `sh` kills what it
//! finds, without stopping it first, for at most five seconds.

mod handle;
pub(crate) mod link;
mod serve;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use serve::serve;

use serde::Serialize;

use crate::process::orphans::OrphanScanner;
use handle::KeeperHandle;
use link::KeeperLink;

/// The program that ends a host's plugins when the host is gone without having stopped them: killed,
/// crashed, or ended by `exit`. One is started for each host, with its first supervised plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keeper {
    /// `/bin/sh` with a short script; about 100 kB. Of the processes that left their plugin's process group
    /// it kills those that it finds within five seconds. It may miss a chain of processes in which each
    /// forks the next one and ends.
    #[default]
    Shell,
    /// A program that calls [`serve()`] and does nothing else, such as the embedder's own with a special
    /// argument. It inherits the environment, and finds all processes that the host itself would find.
    Command {
        /// The program, as an absolute path.
        program: PathBuf,
        /// Its arguments.
        args: Vec<OsString>,
    },
    /// No keeper: plugins that do not notice the end of their connection outlive a host that is killed.
    None,
}

/// What a host guarantees on this system with its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Guarantees {
    /// Supervised plugins end with the host, even if it is killed.
    pub plugins_end_with_host: bool,
    /// Descendants of plugins that left the plugin's process group are found and killed too.
    pub descendants_are_found: bool,
    /// How many processes of plugins were seen since the host was built, and escaped before they could be
    /// stopped. They, or processes that they started, may still be running.
    pub escaped: u64,
    /// What is not guaranteed and why, one sentence each.
    pub limitations: Vec<String>,
}

impl Guarantees {
    /// `outlives_host` says why runs in another place than this machine go on when the host is killed.
    pub(crate) fn of(
        keeper: &KeeperLink,
        scanner: Option<&OrphanScanner>,
        outlives_host: Option<&str>,
    ) -> Self {
        let descendants_are_found = scanner.is_some();
        let escaped = scanner.map_or(0, OrphanScanner::escaped);
        let problem = outlives_host
            .map(str::to_owned)
            .or_else(|| keeper.problem());
        let plugins_end_with_host = problem.is_none();
        let mut limitations: Vec<String> = problem
            .map(|problem| format!("plugins may outlive a host that is killed: {problem}"))
            .into_iter()
            .collect();
        if escaped > 0 {
            limitations.push(format!(
                "{escaped} times a process of a plugin that was to be killed got away"
            ));
        }
        if plugins_end_with_host && descendants_are_found && keeper.is_shell() {
            limitations.push(
                "a chain of forks outside of its plugin's process group may outlive a host that is \
                 killed: the keeper is /bin/sh"
                    .to_owned(),
            );
        }
        if !descendants_are_found {
            limitations.push(
                "descendants of plugins that leave their process group are not found".to_owned(),
            );
        }
        if is_sigchld_ignored() {
            let mut limitation = "SIGCHLD is ignored, so how plugins end is not known".to_owned();
            if !descendants_are_found {
                limitation.push_str(", and what is left of their groups is not killed");
            }
            limitations.push(limitation);
        }
        Self {
            plugins_end_with_host,
            descendants_are_found,
            escaped,
            limitations,
        }
    }
}

/// Whether this process ignores SIGCHLD, as far as the system says. The system then keeps no exit statuses.
fn is_sigchld_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u64::from(rustix::process::Signal::CHILD.as_raw().unsigned_abs()) - 1;
    ignored.is_some_and(|ignored| ignored >> bit & 1 == 1)
}

/// A keeper that is stopped this often within a minute is reported as a problem.
const STOPS: usize = 5;
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// Whether the keeper works.
#[derive(Debug, Default)]
struct KeeperStatus {
    /// Why there is no keeper, if there is none.
    problem: Option<String>,
    /// The running keeper.
    keeper: Option<Arc<KeeperHandle>>,
    /// When keepers were stopped, the last few times.
    stops: VecDeque<Instant>,
    /// How one was stopped last.
    stopped: String,
}

impl KeeperStatus {
    /// Returns why the keeper does not work, if it does not.
    fn problem(&self) -> Option<String> {
        let problem = self.problem.clone();
        let problem = problem.or_else(|| self.stops_problem(Instant::now()));
        problem.or_else(|| {
            let changed = self.keeper.as_ref()?.has_changed()?;
            Some(format!("the keeper {changed}, another is being started"))
        })
    }

    fn set_keeper(&mut self, keeper: Arc<KeeperHandle>) {
        self.problem = None;
        self.keeper = Some(keeper);
    }

    /// Records why there is no keeper.
    fn set_problem(&mut self, problem: String) {
        self.problem = Some(problem);
        self.keeper = None;
    }

    /// Records that a signal stopped the keeper; returns the problem if that happens too often.
    fn add_stop(&mut self, now: Instant, how: &str) -> Option<String> {
        self.stops.push_back(now);
        if self.stops.len() > STOPS {
            self.stops.pop_front();
        }
        how.clone_into(&mut self.stopped);
        self.stops_problem(now)
    }

    fn stops_problem(&self, now: Instant) -> Option<String> {
        let recent = |at: &&Instant| now.saturating_duration_since(**at) < STOPS_WITHIN;
        let count = self.stops.iter().filter(recent).count();
        (count >= STOPS).then(|| {
            let stopped = &self.stopped;
            format!("the keeper {stopped}, {count} times or more within a minute")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guarantees_are_shown_by_the_names_of_their_fields() {
        let guarantees = Guarantees {
            plugins_end_with_host: true,
            descendants_are_found: false,
            escaped: 2,
            limitations: vec!["a sentence".to_owned()],
        };
        assert_eq!(
            serde_json::to_value(guarantees).unwrap(),
            serde_json::json!({
                "plugins_end_with_host": true, "descendants_are_found": false, "escaped": 2,
                "limitations": ["a sentence"],
            })
        );
    }

    #[test]
    fn a_keeper_that_is_stopped_too_often_is_a_problem_for_a_minute() {
        let mut status = KeeperStatus::default();
        let begin = Instant::now();
        for second in 0..4 {
            let now = begin + Duration::from_secs(second);
            assert_eq!(status.add_stop(now, "was stopped by signal 19"), None);
        }
        let problem = status.add_stop(begin + Duration::from_secs(59), "was stopped by signal 19");
        let problem = problem.unwrap();
        assert!(
            problem.starts_with("the keeper was stopped by signal 19, 5 times"),
            "{problem}"
        );
        let later = begin + Duration::from_secs(60);
        assert!(status.stops_problem(later).is_none());
    }
}
