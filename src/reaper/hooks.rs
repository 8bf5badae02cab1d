//! What the reaper supervises, seen from the reaper: a trait that sessions implement, and what it is
//! told. Why a run ended is in `cause`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::cause::EndedRun;
use super::policy::RestartPolicy;
use crate::error::StartError;
use crate::id::InstallationId;
use crate::process::orphans::Tally;
use crate::process::{ExitReason, Pipes, Process, ProcessCommand};
use crate::protocol::Transport;
use crate::text::PluginName;

/// Numbers the runs of all plugins of a host, from 1, so that what is late from one run is never
/// taken for the next, also when its plugin was unloaded and loaded in between.
pub(crate) type RunId = u64;

/// Names one session's place with the reaper. Not the installation: that may be unloaded and loaded
/// again, and what is late from the session before must not be taken for the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChildId(pub(super) u64);

/// A plugin in the reaper's charge.
///
/// All but `prepare` are called on the reaper's thread, which serves every plugin: none may block.
pub(crate) trait ChildHooks: Send + Sync {
    /// The session's own place with the reaper.
    fn child_id(&self) -> ChildId;

    fn id(&self) -> InstallationId;

    /// For log lines.
    fn name(&self) -> PluginName<'_>;

    /// The reaper has acted on a request to start.
    fn start_handled(&self);

    fn spec(&self) -> ChildSpec;

    /// Where those who wait for the plugin learn what was found of its descendants.
    fn tally(&self) -> &Arc<Tally>;

    /// Makes everything ready for a run. Called on a short thread of its own, since unpacking takes
    /// its time; gives up soon after `cancel` is set.
    fn prepare(&self, run: RunId, cancel: &Cancel) -> Result<ProcessCommand, StartError>;

    /// The process runs: takes over its pipes. The guard, when dropped, makes whoever drains the
    /// output finish and call [`Reaper::drained`](super::Reaper::drained).
    fn spawned(&self, run: RunId, pipes: Pipes) -> crate::Result<OutputGuard>;

    /// The process of this run has not connected for so long, or over stdio not answered: who reads its log
    /// is told what is waited for.
    fn waited(&self, run: RunId, time: Duration);

    /// The process of this run has ended and all of its output is in the log.
    fn ended(&self, run: RunId, exit: ExitReason);

    fn transition(&self, transition: Transition);
}

/// A process that has just been spawned.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(super) process: Process,
    pub(super) pipes: Pipes,
}

/// Times and policy of one plugin.
#[derive(Clone, Debug)]
pub(crate) struct ChildSpec {
    pub(crate) policy: RestartPolicy,
    pub(crate) transport: Transport,
    pub(crate) connect_timeout: Duration,
    pub(crate) disconnect_grace: Duration,
}

/// Asks a preparation to give up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Held while a process's output is wanted: the writing end of a pipe that the log pump polls.
#[derive(Debug)]
pub(crate) struct OutputGuard(
    #[expect(dead_code, reason = "held to be dropped")] pub(crate) io::PipeWriter,
);

/// A change of state that the reaper brought about.
#[derive(Clone, Debug)]
pub(crate) enum Transition {
    Starting(RunId),
    Connecting {
        run: RunId,
        pid: u32,
    },
    Stopping,
    /// Nothing of it runs. With the end of the run that was stopped, if there was one.
    Inactive(Option<EndedRun>),
    /// A run was stopped; what comes next is told next.
    Ended(EndedRun),
    /// Another run follows after this wait.
    Restarting(EndedRun, Duration),
    Errored(EndedRun),
}
