//! What the reaper supervises, seen from the reaper: a trait that sessions implement, and the
//! words in which the reaper tells them what happened.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::policy::RestartPolicy;
use crate::error::{Disconnect, StartError};
use crate::id::InstallationId;
use crate::process::{ExitReason, Pipes, ProcessCommand};
use crate::protocol::Transport;

/// Numbers the runs of all plugins of a host, from 1, so that what is late from one run is never
/// taken for the next, also when its plugin was unloaded and loaded in between.
pub(crate) type Run = u64;

/// Names one session's place with the reaper. Not the installation: that may be unloaded and loaded
/// again, and what is late from the session before must not be taken for the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WardId(pub(super) u64);

/// A plugin in the reaper's charge.
///
/// All but `prepare` are called on the reaper's thread, which serves every plugin: none may block.
pub(crate) trait Charge: Send + Sync {
    /// The session's own place with the reaper.
    fn ward(&self) -> WardId;

    /// For log lines.
    fn id(&self) -> InstallationId;

    /// The reaper has acted on a request to start.
    fn start_obeyed(&self);

    fn settings(&self) -> ChargeSettings;

    /// Makes everything ready for a run. Called on a short thread of its own, since unpacking takes
    /// its time; gives up soon after `cancel` is set.
    fn prepare(&self, run: Run, cancel: &Cancel) -> Result<ProcessCommand, StartError>;

    /// The process runs: takes over its pipes. The guard, when dropped, makes whoever drains the
    /// output finish and call [`Reaper::drained`](super::Reaper::drained).
    fn spawned(&self, run: Run, pipes: Pipes) -> crate::Result<OutputGuard>;

    /// The process of this run has ended and all of its output is in the log.
    fn ended(&self, run: Run, exit: ExitReason);

    fn transition(&self, transition: Transition);
}

/// Times and policy of one plugin.
#[derive(Clone, Debug)]
pub(crate) struct ChargeSettings {
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
    Starting { run: Run },
    Connecting { run: Run, pid: u32 },
    Stopping,
    Inactive,
    Restarting { failure: Failure, after: Duration },
    Errored { failure: Failure },
}

/// Why a run did not come to be or ended, with what is known about it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// `None` when there never was a process.
    pub(crate) exit: Option<ExitReason>,
    pub(crate) pid: Option<u32>,
    /// How long the process lived.
    pub(crate) uptime: Option<Duration>,
    /// Restarts in a row before this end.
    pub(crate) restarts: u32,
}

/// Why a run ended. The first cause wins: if the host closed, gave up or killed, that is it,
/// whatever the exit status.
#[derive(Clone, Debug)]
pub(crate) enum Cause {
    /// No process came to be.
    Start(StartError),
    /// The process ended by itself.
    Exited,
    /// It did not connect, or over stdio answer the first ping, in time, and was killed.
    NeverConnected {
        limit: Duration,
        transport: Transport,
    },
    /// Its connection ended while it lived on, and it was killed.
    ConnectionLost {
        cause: Arc<Disconnect>,
        grace: Duration,
    },
    /// The host closed the connection because of what the plugin did.
    Misbehaved(Arc<Disconnect>),
}

impl fmt::Display for Failure {
    /// The text of `error_message`; for an exit, the seed's words (protocol file, section 13.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cause, self.exit) {
            (Cause::Start(error), _) => write!(f, "{error}"),
            (Cause::Exited, Some(exit)) => write!(f, "{exit}"),
            (Cause::Exited, None) => f.write_str("ended"),
            (Cause::NeverConnected { limit, transport }, _) => {
                let missing = match transport {
                    Transport::WebSocket => "connect",
                    Transport::Stdio => "answer the first ping on its standard output",
                };
                write!(f, "did not {missing} within {limit:?} and was killed")
            }
            (Cause::ConnectionLost { cause, grace }, _) => write!(
                f,
                "{cause}, but the process did not end within {grace:?} and was killed"
            ),
            (Cause::Misbehaved(cause), _) => write!(f, "{cause}"),
        }
    }
}
