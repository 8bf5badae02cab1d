//! The keeper: a small process beside the host that ends what the host started when the host is gone,
//! however it went, SIGKILL included.
//!
//! What lives here: which program keeps ([`Keeper`]), the host's end ([`link`], on the reaper's
//! thread), the keeper in POSIX `sh` (`keeper.sh`) and the one in Rust ([`serve`]). What does not:
//! ending plugins while the host lives (`reaper`), how descendants are found (`process`).
//!
//! The keeper runs in a session of its own, ignores SIGINT, SIGTERM and SIGHUP, and reads lines from
//! the host on its standard input:
//!
//! | line | meaning |
//! | --- | --- |
//! | `cookie HEX` | what the environment of everything bears that the host started |
//! | `+ GROUP` | a process group lives |
//! | `- GROUP` | it has been killed and is about to be reaped: its number may become somebody else's |
//! | `end` | the host ends in order, nothing is left to do |
//!
//! At the end of the input without `end`, the groups that live and all bearers of the cookie are
//! killed, and then the keeper ends.

pub(crate) mod link;
mod serve;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

pub use serve::serve;

/// What ends a host's plugins when the host is gone without having stopped them: killed, crashed, or
/// left by `exit`. One is started for each host, with its first supervised plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keeper {
    /// `/bin/sh` with a short script; about 100 kB.
    #[default]
    Shell,
    /// A program that calls [`serve`] and does nothing else, such as the embedder's own with an
    /// argument that says so. It inherits the environment.
    Command {
        /// The program, as an absolute path.
        program: PathBuf,
        /// Its arguments.
        args: Vec<OsString>,
    },
    /// None: plugins that do not look at their connection outlive a host that is killed.
    None,
}

/// What a host can promise on this system, with its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantees {
    /// Supervised plugins end with the host, also when it is killed.
    pub plugins_end_with_host: bool,
    /// Descendants of plugins that left their process group are found and killed too.
    pub descendants_are_found: bool,
    /// What is not guaranteed, and why, in words.
    pub limitations: Vec<String>,
}

impl Guarantees {
    pub(crate) fn of(keeper: &KeeperStatus, descendants_are_found: bool) -> Self {
        let problem = keeper.problem();
        let plugins_end_with_host = problem.is_none();
        let mut limitations: Vec<String> = problem
            .map(|problem| format!("plugins may outlive a host that is killed: {problem}"))
            .into_iter()
            .collect();
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
            limitations,
        }
    }
}

/// Whether this process ignores SIGCHLD, as far as the system says; then it keeps no exit statuses.
fn is_sigchld_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u64::from(rustix::process::Signal::CHILD.as_raw().unsigned_abs()) - 1;
    ignored.is_some_and(|ignored| ignored >> bit & 1 == 1)
}

/// How it is with the keeper, for all who want to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeeperStatus(Arc<Mutex<Option<String>>>);

impl KeeperStatus {
    /// Why there is no keeper, if there is none.
    pub(crate) fn problem(&self) -> Option<String> {
        self.0.lock().clone()
    }

    fn clear_problem(&self) {
        *self.0.lock() = None;
    }

    fn set_problem(&self, problem: String) {
        *self.0.lock() = Some(problem);
    }
}
