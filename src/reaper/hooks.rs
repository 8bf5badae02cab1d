//! `ChildHooks`: what the reaper needs of a plugin that it supervises, as a trait that sessions implement.
//! Why a run ended is in `cause`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::cause::EndedRun;
use super::policy::RestartPolicy;
use crate::error::StartError;
use crate::id::InstallationId;
use crate::process::ExitReason;
use crate::process::orphans::Tally;
use crate::protocol::Transport;
use crate::runtime::interrupt::Interrupt;
use crate::runtime::{Run, RunPipes};
use crate::text::PluginName;

/// Identifies a run among those of all plugins of a host. A late event of one run is never taken for the
/// next, even if its plugin was unloaded and loaded in between.
pub(crate) type RunId = u64;

/// Identifies one session to the reaper. Installation ids would not do: an installation may be unloaded and
/// loaded again, and a late event of the old session must not reach the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChildId(pub(super) u64);

#[cfg(test)]
impl ChildId {
    /// Returns an id for a test that has no reaper.
    pub(crate) const fn for_test(number: u64) -> Self {
        Self(number)
    }
}

/// What the reaper calls for one plugin.
///
/// All methods but `start_run` and `clear` are called on the reaper's thread, which serves every plugin: they must not
/// block.
pub(crate) trait ChildHooks: Send + Sync {
    fn child_id(&self) -> ChildId;

    fn id(&self) -> InstallationId;

    /// Returns the name for log lines.
    fn name(&self) -> PluginName<'_>;

    /// Called once the reaper has handled a request to start.
    fn start_handled(&self);

    fn spec(&self) -> ChildSpec;

    /// Returns the count of orphans that callers waiting for the plugin can see.
    fn tally(&self) -> &Arc<Tally>;

    /// Prepares and starts a run. Called on a short-lived thread, because it may unpack an archive; returns
    /// soon after it is interrupted.
    fn start_run(&self, run: RunId, interrupt: &Interrupt) -> Result<Run, StartError>;

    /// Ends what earlier hosts have left of the plugin. Called on a short-lived thread; returns soon after it is
    /// interrupted.
    fn clear(&self, interrupt: &Interrupt) -> crate::Result<()>;

    /// Takes over the pipes of the run. Dropping the returned end of a pipe makes the log pump
    /// finish and call [`Reaper::drained`](super::Reaper::drained).
    fn spawned(&self, run: RunId, pipes: RunPipes) -> crate::Result<io::PipeWriter>;

    /// Called when the run has not connected, or over stdio not answered, for `time`: writes a
    /// hint to its log.
    fn waited(&self, run: RunId, time: Duration);

    /// Called when the run has ended and all of its output is in the log.
    fn ended(&self, run: RunId, exit: ExitReason);

    fn transition(&self, transition: Transition);
}

/// The times and the restart policy of one plugin.
#[derive(Clone, Debug)]
pub(crate) struct ChildSpec {
    pub(crate) policy: RestartPolicy,
    pub(crate) transport: Transport,
    pub(crate) connect_timeout: Duration,
    pub(crate) disconnect_grace: Duration,
}

/// A change of a plugin's state.
#[derive(Clone, Debug)]
pub(crate) enum Transition {
    Starting(RunId),
    Connecting {
        run: RunId,
        /// What it is, for log lines.
        what: String,
        /// Its process's id, if it is a process of this machine.
        pid: Option<u32>,
    },
    Stopping,
    /// No process is running. With the run that was stopped, if there was one.
    Inactive(Option<EndedRun>),
    /// A run was stopped, and another transition follows at once.
    Ended(EndedRun),
    /// A run has ended, and another starts after this wait.
    Restarting(EndedRun, Duration),
    Errored(EndedRun),
}
