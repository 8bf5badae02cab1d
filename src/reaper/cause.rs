//! Why a run ended, in the words that details, history and log lines use. Finding out which of them
//! it was is the ward's part and, for what the kernel did, `process`'s.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::hooks::ChildSpec;
use super::policy::Restarts;
use crate::error::{Descendants, Disconnect, StartError};
use crate::process::{ExitReason, ProcessEnd};
use crate::protocol::Transport;
use crate::protocol::environment::URL_VARIABLE;

/// Why a run of a supervised plugin ended, or why there was none. The first cause wins: if the host
/// closed, gave up or killed, that is it, whatever the exit status.
///
/// [`as_str`](Self::as_str) gives the words that stand under `cause` in
/// [`Session::error_details`](crate::Session::error_details). They do not change from version to
/// version; new ones may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndCause {
    /// `could_not_unpack`: the archive is missing, broken or refused. No process was started.
    CouldNotUnpack,
    /// `could_not_spawn`: the system did not start the process; `spawn_error` in the details says why.
    CouldNotSpawn,
    /// `could_not_prepare`: anything else that was missing for a run, such as a folder, a thread or an
    /// address to connect to.
    CouldNotPrepare,
    /// `could_not_limit`: one of its [`ProcessLimits`](crate::ProcessLimits) could not be had, and the
    /// process was killed at once; `limit` in the details names it.
    CouldNotLimit,
    /// `exited`: the process ended by itself, with an exit code, or with a status that the system did
    /// not keep.
    Exited,
    /// `killed_by_signal`: a signal that the host did not send ended the process.
    KilledBySignal,
    /// `out_of_memory`: the process was killed, and the kernel counts that it killed for want of
    /// memory.
    OutOfMemory,
    /// `cpu_time`: the process had used up the processor time that its limit gave it.
    CpuTime,
    /// `never_connected`: the process was not connected within the connect timeout, or over stdio had
    /// not answered the first ping, and was killed.
    NeverConnected,
    /// `connection_lost`: the connection ended, the process lived on past the disconnect grace, and was
    /// killed.
    ConnectionLost,
    /// `unresponsive`: it gave no sign of life, or read nothing, for too long.
    Unresponsive,
    /// `protocol_violation`: the host closed the connection because of what came over it.
    ProtocolViolation,
    /// `descendants_left`: it was not started, because processes of the run before are still there that
    /// left its process group and could not be killed within
    /// 30 seconds. They are still being looked for.
    DescendantsLeft,
    /// `stopped`: somebody asked for the end. Never in error details, for nothing is wrong.
    Stopped,
    /// `internal_error`: the supervision itself failed, and ended what it had in its charge.
    InternalError,
}

impl EndCause {
    /// The word for details and logs, such as `never_connected`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CouldNotUnpack => "could_not_unpack",
            Self::CouldNotSpawn => "could_not_spawn",
            Self::CouldNotPrepare => "could_not_prepare",
            Self::CouldNotLimit => "could_not_limit",
            Self::Exited => "exited",
            Self::KilledBySignal => "killed_by_signal",
            Self::OutOfMemory => "out_of_memory",
            Self::CpuTime => "cpu_time",
            Self::NeverConnected => "never_connected",
            Self::ConnectionLost => "connection_lost",
            Self::Unresponsive => "unresponsive",
            Self::ProtocolViolation => "protocol_violation",
            Self::DescendantsLeft => "descendants_left",
            Self::Stopped => "stopped",
            Self::InternalError => "internal_error",
        }
    }
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a run ended, with what is known about it.
#[derive(Clone, Debug)]
pub(crate) struct EndedRun {
    pub(crate) cause: Cause,
    /// `None` when there never was a process.
    pub(crate) process: Option<EndedProcess>,
    /// When the run began, with its preparation.
    pub(crate) started_at: SystemTime,
    pub(crate) ended_at: SystemTime,
    /// How long it had been active; `None` if it never was.
    pub(crate) active_for: Option<Duration>,
    /// Restarts in a row before this end.
    pub(crate) restarts: Restarts,
}

/// The process of a run that is over.
#[derive(Clone, Debug)]
pub(crate) struct EndedProcess {
    /// How long it lived.
    pub(crate) uptime: Duration,
    pub(crate) end: ProcessEnd,
}

/// Why a run ended.
#[derive(Clone, Debug)]
pub(crate) enum Cause {
    /// No process came to be.
    Start(StartError),
    /// The process ended by itself.
    Exited,
    /// The kernel killed it for want of memory.
    OutOfMemory,
    /// The kernel ended it because its processor time was used up.
    CpuTime,
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
    /// The host closed the connection because nothing came, or nothing was read.
    Unresponsive(Arc<Disconnect>),
    /// The host closed the connection because of what the plugin sent.
    Violation(Arc<Disconnect>),
    /// What the run before left in other process groups does not go.
    DescendantsLeft(Descendants),
    /// Somebody asked for it.
    Stopped,
    /// The supervision panicked, and said this.
    Panicked(String),
}

impl Cause {
    /// What the plugin is to blame for, if its connection ended thus; its exit, whatever the status,
    /// is then not a request to be started again.
    ///
    /// An answer without a line end is told to a plugin that `was_active` nowhere but to its callers: it
    /// knows how answers end, and its exit says more.
    pub(super) fn of_connection(cause: &Arc<Disconnect>, was_active: bool) -> Option<Self> {
        match **cause {
            Disconnect::NoLineEnd if was_active => None,
            Disconnect::Stalled { .. } | Disconnect::Unresponsive { .. } => {
                Some(Self::Unresponsive(cause.clone()))
            }
            Disconnect::TooLarge { .. }
            | Disconnect::NotUtf8
            | Disconnect::NoLineEnd
            | Disconnect::Violation(_)
            | Disconnect::ControlOverflow => Some(Self::Violation(cause.clone())),
            _ => None,
        }
    }
}

impl EndedRun {
    pub(crate) fn exit(&self) -> Option<ExitReason> {
        self.process.as_ref().map(|process| process.end.exit)
    }

    /// The text of `error_message`, for a plugin with these settings that is started again, or given up.
    ///
    /// An exit with status 0 is told in more than the protocol's words, which sound as if nothing were
    /// wrong.
    pub(crate) fn message(&self, spec: &ChildSpec, given_up: bool) -> String {
        if !matches!(self.cause, Cause::Exited) || !self.exit().is_some_and(ExitReason::is_clean) {
            return self.to_string();
        }
        if self.active_for.is_some() {
            return if given_up {
                self.asked_too_often(spec.policy.crash_threshold)
            } else {
                self.to_string()
            };
        }
        let missing = match spec.transport {
            Transport::WebSocket => "it connected",
            Transport::Stdio => "it answered its first ping",
        };
        format!(
            "ended (exit status 0) before {missing}; {}",
            how_to_connect(spec.transport)
        )
    }

    /// No run of those was active for as long as this.
    fn asked_too_often(&self, threshold: Duration) -> String {
        let Restarts { count, requested } = self.restarts;
        // This end asks too.
        let often = match requested {
            0 => String::new(),
            _ => format!(" {} times, each", requested + 1),
        };
        let others = match count - requested {
            0 => String::new(),
            1 => ", after another restart".to_owned(),
            others => format!(", after {others} other restarts"),
        };
        format!("asked to be started again{often} within {threshold:?} (exit status 0){others}")
    }

    /// The cause in the public's words.
    pub(crate) fn end_cause(&self) -> EndCause {
        match &self.cause {
            Cause::Start(StartError::Unpack(_)) => EndCause::CouldNotUnpack,
            Cause::Start(StartError::Spawn { .. } | StartError::NoCommand) => {
                EndCause::CouldNotSpawn
            }
            Cause::Start(StartError::Limit { .. }) => EndCause::CouldNotLimit,
            Cause::Start(_) => EndCause::CouldNotPrepare,
            Cause::Exited => match self.exit() {
                Some(ExitReason::Signal(_)) => EndCause::KilledBySignal,
                _ => EndCause::Exited,
            },
            Cause::OutOfMemory => EndCause::OutOfMemory,
            Cause::CpuTime => EndCause::CpuTime,
            Cause::NeverConnected { .. } => EndCause::NeverConnected,
            Cause::ConnectionLost { .. } => EndCause::ConnectionLost,
            Cause::Unresponsive(_) => EndCause::Unresponsive,
            Cause::Violation(_) => EndCause::ProtocolViolation,
            Cause::DescendantsLeft(_) => EndCause::DescendantsLeft,
            Cause::Stopped => EndCause::Stopped,
            Cause::Panicked(_) => EndCause::InternalError,
        }
    }
}

/// What a plugin has to do to become active, for its author.
pub(crate) fn how_to_connect(transport: Transport) -> String {
    match transport {
        Transport::WebSocket => format!(
            "it must connect to the URL in {URL_VARIABLE}, or have \"transport\": \"stdio\" in its \
             manifest and answer on its standard output"
        ),
        Transport::Stdio => "it must read requests from its standard input until that ends; each answer \
                             must be one JSON object on a line of its own on standard output, and be \
                             flushed"
            .to_owned(),
    }
}

impl fmt::Display for EndedRun {
    /// How the run ended; for an exit, the seed's words (protocol file, section 13.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.process.as_ref().map(|process| &process.end);
        match (&self.cause, end) {
            (Cause::Start(error), _) => write!(f, "{error}"),
            (Cause::Exited, Some(end)) => write!(f, "{end}"),
            (Cause::OutOfMemory, Some(end)) => {
                write!(f, "out of memory: killed by the kernel ({end})")
            }
            (Cause::CpuTime, Some(end)) => match end.limits.cpu_time {
                Some(limit) => write!(f, "used up its processor time of {limit:?} ({end})"),
                None => write!(f, "used up its processor time ({end})"),
            },
            // Without a process none of these comes about.
            (Cause::Exited | Cause::OutOfMemory | Cause::CpuTime, None) => f.write_str("ended"),
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
            (Cause::Unresponsive(cause) | Cause::Violation(cause), _) => write!(f, "{cause}"),
            (Cause::DescendantsLeft(found), _) => {
                write!(
                    f,
                    "not started while the run before is not all gone: {found}"
                )
            }
            (Cause::Stopped, Some(end)) => write!(f, "stopped ({end})"),
            (Cause::Stopped, None) => f.write_str("stopped before there was a process"),
            (Cause::Panicked(text), _) => write!(f, "the supervision panicked: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_too_often_is_told_with_its_numbers() {
        let text = |count, requested| {
            let failure = EndedRun {
                cause: Cause::Exited,
                process: None,
                started_at: SystemTime::UNIX_EPOCH,
                ended_at: SystemTime::UNIX_EPOCH,
                active_for: Some(Duration::ZERO),
                restarts: Restarts { count, requested },
            };
            failure.asked_too_often(Duration::from_secs(30))
        };
        assert_eq!(
            text(3, 3),
            "asked to be started again 4 times, each within 30s (exit status 0)"
        );
        assert_eq!(
            text(0, 0),
            "asked to be started again within 30s (exit status 0)"
        );
        assert_eq!(
            text(3, 0),
            "asked to be started again within 30s (exit status 0), after 3 other restarts"
        );
        assert_eq!(
            text(3, 2),
            "asked to be started again 3 times, each within 30s (exit status 0), after another restart"
        );
    }
}
