//! Per-plugin logs: what a plugin's processes print, in a file of bounded size, and following it.
//!
//! What lives here: the log itself (the rotating file, the last lines in memory, the live tap), the
//! registry that has one of them for each installation, [`Follower`] (reads such a log and waits for more,
//! across rotation), the body of the thread that drains a child's output, and a queue to it for threads that
//! must not wait.
//! What does not: starting that thread (`session`), the host's own log messages (the `log` crate).
//!
//! On disk ([Logs](crate::protocol#logs)): a directory with `output.log`, mode 0600, standard output and
//! standard error mixed, the bytes as they were printed and no time stamps. Over its size the file
//! is renamed to `output-2026-02-21T11-50-22.965.log` (UTC) and a new one begun; the newest few
//! old files are kept, for a while. Unlike in Storyden's Go host, the end of a process does not rotate the file.
//! `output.index` says where in the log each file begins, so that places in it ([`Follower::place`]) outlive the host,
//! and `output.times` when it was written ([`Follower::printed_at`]).
//!
//! Nothing here starts a thread. A log has two locks: the writer's, held while writing to the disk,
//! and inside it the view's, held for a few instructions and never across I/O; readers of the tail
//! and followers take only the view's, so a stuck disk does not block them. The tap is called
//! with neither held.

mod file;
mod follow;
mod handle;
mod index;
mod line;
mod place;
pub(crate) mod pump;
pub(crate) mod queue;
mod registry;
mod rotate;
#[cfg(test)]
mod scratch;
mod settings;
mod tail;
mod times;
mod timestamp;
#[cfg(test)]
mod traps;

pub use crate::line_splitter::CONTINUES;
pub use follow::{Followed, Follower};
pub(crate) use handle::PluginLog;
pub(crate) use line::LogTap;
pub use line::{LogLine, LogStream};
pub(crate) use registry::{LogSlot, Logs};
pub use settings::LogSettings;
