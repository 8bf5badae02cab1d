//! Why a run ended, in the words of details, history and log lines. Which cause it was is found out in
//! `child` and, for what the kernel did, in `process`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::hooks::ChildSpec;
use super::policy::Restarts;
use crate::error::{Descendants, Disconnect, StartError};
use crate::process::ExitReason;
use crate::protocol::Transport;
use crate::protocol::environment::URL_VARIABLE;
use crate::runtime::RunExit;
use crate::text::Foreign;

macro_rules! causes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the word for details and logs, such as `never_connected`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

causes! {
    /// Why a run of a supervised plugin ended, or could not start. The first cause wins: if the host closed
    /// the connection, gave up or killed the process, that is the cause, whatever the exit status.
    ///
    /// [`as_str`](Self::as_str) returns the word under `cause` in
    /// [`Session::error_details`](crate::Session::error_details). These words do not change from version to
    /// version; new ones may be added.
    EndCause {
        /// `could_not_unpack`: the archive is missing, broken or refused. No process was started.
        CouldNotUnpack = "could_not_unpack",
        /// `could_not_spawn`: the system did not start the process; `spawn_error` in the details says why.
        CouldNotSpawn = "could_not_spawn",
        /// `could_not_prepare`: anything else that kept a run from starting, such as a missing directory or thread, no
        /// address to connect to, or an error of the place where plugins run.
        CouldNotPrepare = "could_not_prepare",
        /// `could_not_limit`: one of its [`ProcessLimits`](crate::ProcessLimits) could not be set, and the
        /// process was killed at once; `limit` in the details names it.
        CouldNotLimit = "could_not_limit",
        /// `exited`: the process exited by itself, or the system did not keep its status.
        Exited = "exited",
        /// `killed_by_signal`: a signal that the host did not send ended the process.
        KilledBySignal = "killed_by_signal",
        /// `out_of_memory`: the process was killed, and the kernel counted a kill for lack of memory.
        OutOfMemory = "out_of_memory",
        /// `cpu_time`: the process had used up its limit of processor time.
        CpuTime = "cpu_time",
        /// `never_connected`: within [`Timeouts::connect`](crate::Timeouts::connect) the process was not
        /// connected, or over stdio had not answered the first ping, and was killed.
        NeverConnected = "never_connected",
        /// `connection_lost`: the connection ended, the process lived on for longer than
        /// [`Timeouts::disconnect_grace`](crate::Timeouts::disconnect_grace), and was killed; or the host has lost
        /// the connection to the place where it ran.
        ConnectionLost = "connection_lost",
        /// `unresponsive`: it gave no sign of life, or read nothing, for too long.
        Unresponsive = "unresponsive",
        /// `protocol_violation`: the host closed the connection because of what came over it.
        ProtocolViolation = "protocol_violation",
        /// `descendants_left`: it was not started, because processes of the previous run that had left its
        /// process group could not be killed within 30 seconds. The host goes on trying.
        DescendantsLeft = "descendants_left",
        /// `stopped`: a stop was requested. Not found in error details, because nothing is wrong.
        Stopped = "stopped",
        /// `internal_error`: the supervision itself panicked, and ended the run.
        InternalError = "internal_error",
    }
}

impl Serialize for EndCause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A run that has ended, and what is known about its end.
#[derive(Clone, Debug)]
pub(crate) struct EndedRun {
    pub(crate) cause: Cause,
    /// How it ended; `None` if it was never started.
    pub(crate) exit: Option<RunExit>,
    /// How long it had been running.
    pub(crate) uptime: Duration,
    /// When the preparation of the run began.
    pub(crate) started_at: SystemTime,
    pub(crate) ended_at: SystemTime,
    /// How long the plugin had been active; `None` if it never was.
    pub(crate) active_for: Option<Duration>,
    /// Restarts in a row before this end.
    pub(crate) restarts: Restarts,
}

/// Why a run ended.
#[derive(Clone, Debug)]
pub(crate) enum Cause {
    /// No process was started.
    Start(StartError),
    /// The process ended by itself.
    Exited,
    /// The kernel killed the process for lack of memory.
    OutOfMemory,
    /// The kernel ended the process because its processor time was used up.
    CpuTime,
    /// The plugin did not connect, or over stdio answer the first ping, in time, and was killed.
    NeverConnected {
        limit: Duration,
        transport: Transport,
    },
    /// The connection ended while the process kept running, and it was killed.
    ConnectionLost {
        cause: Arc<Disconnect>,
        grace: Duration,
    },
    /// The host closed the connection because the plugin sent nothing, or read nothing.
    Unresponsive(Arc<Disconnect>),
    /// The host closed the connection because of what the plugin sent.
    Violation(Arc<Disconnect>),
    /// Orphans of the previous run could not be killed.
    DescendantsLeft(Descendants),
    /// The host has lost the run, for this reason, and the plugin is not to blame.
    Lost(Arc<str>),
    /// A stop was requested.
    Stopped,
    /// The supervision panicked, with this message.
    Panicked(String),
}

impl Cause {
    /// Returns the cause if the plugin is to blame for the end of its connection; then its exit is not a
    /// request to be restarted, whatever the status.
    ///
    /// An unfinished line at the end does not count for a plugin that `was_active`: it knows how lines end, so
    /// its exit explains more. Its callers still get the error.
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
    pub(crate) fn reason(&self) -> Option<ExitReason> {
        self.exit.as_ref().map(|exit| exit.reason)
    }

    /// Returns the text of `error_message` for a plugin that is restarted or given up.
    ///
    /// An exit with status 0 gets more than the protocol's words, which sound as if nothing were wrong.
    pub(crate) fn message(&self, spec: &ChildSpec, given_up: bool) -> String {
        if !matches!(self.cause, Cause::Exited) || !self.reason().is_some_and(ExitReason::is_clean)
        {
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

    /// Describes requests to be restarted by runs that were all active for less than `threshold`.
    fn asked_too_often(&self, threshold: Duration) -> String {
        let Restarts {
            count, requested, ..
        } = self.restarts;
        // This exit is a request too.
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

    /// Returns the public form of the cause.
    pub(crate) fn end_cause(&self) -> EndCause {
        match &self.cause {
            Cause::Start(StartError::Unpack(_)) => EndCause::CouldNotUnpack,
            Cause::Start(StartError::Spawn { .. } | StartError::NoCommand) => {
                EndCause::CouldNotSpawn
            }
            Cause::Start(StartError::Limit { .. }) => EndCause::CouldNotLimit,
            Cause::Start(_) => EndCause::CouldNotPrepare,
            Cause::Exited => match self.reason() {
                Some(ExitReason::Signal(_)) => EndCause::KilledBySignal,
                _ => EndCause::Exited,
            },
            Cause::OutOfMemory => EndCause::OutOfMemory,
            Cause::CpuTime => EndCause::CpuTime,
            Cause::NeverConnected { .. } => EndCause::NeverConnected,
            Cause::ConnectionLost { .. } | Cause::Lost(_) => EndCause::ConnectionLost,
            Cause::Unresponsive(_) => EndCause::Unresponsive,
            Cause::Violation(_) => EndCause::ProtocolViolation,
            Cause::DescendantsLeft(_) => EndCause::DescendantsLeft,
            Cause::Stopped => EndCause::Stopped,
            Cause::Panicked(_) => EndCause::InternalError,
        }
    }
}

/// Tells a plugin's author what the plugin has to do to become active.
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
    /// Describes the end; for an exit, in the words of Storyden's Go host
    /// ([Supervised states](crate::protocol#supervised-states)).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cause, &self.exit) {
            (Cause::Start(error), _) => write!(f, "{error}"),
            (Cause::Exited, Some(end)) => write!(f, "{end}"),
            (Cause::OutOfMemory, Some(end)) => {
                write!(f, "out of memory: killed by the kernel ({end})")
            }
            (Cause::CpuTime, Some(end)) => match end.limits.cpu_time {
                Some(limit) => write!(f, "used up its processor time of {limit:?} ({end})"),
                None => write!(f, "used up its processor time ({end})"),
            },
            // These causes always have a process.
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
            (Cause::Lost(why), _) => write!(f, "{}", Foreign::new(why)),
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
                exit: None,
                uptime: Duration::ZERO,
                started_at: SystemTime::UNIX_EPOCH,
                ended_at: SystemTime::UNIX_EPOCH,
                active_for: Some(Duration::ZERO),
                restarts: Restarts {
                    count,
                    requested,
                    passing: 0,
                },
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
