//! `ExitReason`: a process's exit status, and [`ExitWatch`]: a descriptor that reports the exit.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::thread::Threads;

/// How a process ended. Shown in the protocol's words: `exit status 3`, `signal: killed`. Serialised as
/// `{"code": 3}`, `{"signal": 9}` or `"unknown"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitReason {
    /// The process exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It ended, and how is not known: the system kept no status because the embedder ignores SIGCHLD, or the
    /// connection to the place where it ran was lost.
    Unknown,
}

impl ExitReason {
    /// Returns the exit code as the protocol shows it: -1 if a signal ended the process
    /// ([Supervised states](crate::protocol#supervised-states)).
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(_) | Self::Unknown => -1,
        }
    }

    /// Returns the name of the signal that ended the process, such as `SIGSEGV`; `None` if no signal did,
    /// and for uncommon signals.
    pub fn signal_name(self) -> Option<&'static str> {
        match self {
            Self::Signal(signal) => signal_names(signal).map(|(name, _)| name),
            Self::Code(_) | Self::Unknown => None,
        }
    }

    /// Whether the process exited with status 0.
    pub fn is_clean(self) -> bool {
        self == Self::Code(0)
    }
}

impl From<ExitStatus> for ExitReason {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(0) => f.write_str("process exited cleanly"),
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => match signal_names(signal) {
                Some((_, words)) => write!(f, "signal: {words}"),
                None => write!(f, "signal: signal {signal}"),
            },
            Self::Unknown => f.write_str("exit status unknown"),
        }
    }
}

/// Returns a signal's name and its description, which is the one that Storyden's Go host shows.
fn signal_names(signal: i32) -> Option<(&'static str, &'static str)> {
    use rustix::process::Signal;
    let names = [
        (Signal::HUP, "SIGHUP", "hangup"),
        (Signal::INT, "SIGINT", "interrupt"),
        (Signal::QUIT, "SIGQUIT", "quit"),
        (Signal::ILL, "SIGILL", "illegal instruction"),
        (Signal::TRAP, "SIGTRAP", "trace/breakpoint trap"),
        (Signal::ABORT, "SIGABRT", "aborted"),
        (Signal::BUS, "SIGBUS", "bus error"),
        (Signal::FPE, "SIGFPE", "floating point exception"),
        (Signal::KILL, "SIGKILL", "killed"),
        (Signal::USR1, "SIGUSR1", "user defined signal 1"),
        (Signal::SEGV, "SIGSEGV", "segmentation fault"),
        (Signal::USR2, "SIGUSR2", "user defined signal 2"),
        (Signal::PIPE, "SIGPIPE", "broken pipe"),
        (Signal::ALARM, "SIGALRM", "alarm clock"),
        (Signal::TERM, "SIGTERM", "terminated"),
        (Signal::XCPU, "SIGXCPU", "CPU time limit exceeded"),
        (Signal::XFSZ, "SIGXFSZ", "file size limit exceeded"),
        (Signal::VTALARM, "SIGVTALRM", "virtual timer expired"),
        (Signal::PROF, "SIGPROF", "profiling timer expired"),
        (Signal::SYS, "SIGSYS", "bad system call"),
    ];
    names
        .iter()
        .find(|(known, ..)| known.as_raw() == signal)
        .map(|(_, name, words)| (*name, *words))
}

/// A descriptor that becomes readable when a process has ended. It is for polling, not for reading.
///
/// On Linux it is a pidfd. Elsewhere, and if no pidfd can be opened, it is the reading end of a pipe whose
/// writing end belongs to a thread that waits for the process without reaping it.
#[derive(Debug)]
pub(crate) struct ExitWatch(OwnedFd);

impl ExitWatch {
    pub(crate) fn new(pid: Pid, threads: &Threads) -> Result<Self> {
        #[cfg(target_os = "linux")]
        match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            Ok(descriptor) => return Ok(Self(descriptor)),
            Err(error) => log::debug!("no pidfd, waiting on a thread instead: {error}"),
        }
        Self::on_thread(pid, threads)
    }

    fn on_thread(pid: Pid, threads: &Threads) -> Result<Self> {
        let (reader, writer) = io::pipe().map_err(|error| Error::io("create a pipe", error))?;
        threads.spawn("wait-child", 64 * 1024, move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(
                waitid(WaitId::Pid(pid), options),
                Err(rustix::io::Errno::INTR)
            ) {}
            drop(writer);
        })?;
        Ok(Self(reader.into()))
    }
}

impl AsFd for ExitWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether this child is running, or has ended and is not reaped.
pub(crate) fn is_ours(pid: Pid) -> bool {
    peek(pid).is_ok()
}

/// Returns how this child has ended, without reaping it; `None` if it is running or the system kept no
/// status.
pub(super) fn status(pid: Pid) -> Option<ExitReason> {
    let status = peek(pid).ok()??;
    let code = status.exit_status().map(ExitReason::Code);
    code.or_else(|| status.terminating_signal().map(ExitReason::Signal))
}

/// Asks for a child's status without waiting for it or reaping it.
fn peek(pid: Pid) -> rustix::io::Result<Option<WaitIdStatus>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    loop {
        match waitid(WaitId::Pid(pid), options) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::deadline::Deadline;

    #[test]
    fn reasons_read_as_in_the_protocol() {
        assert_eq!(ExitReason::Code(3).to_string(), "exit status 3");
        assert_eq!(ExitReason::Code(0).to_string(), "process exited cleanly");
        assert_eq!(ExitReason::Signal(9).to_string(), "signal: killed");
        assert_eq!(ExitReason::Signal(9).code(), -1);
        assert_eq!(ExitReason::Signal(63).to_string(), "signal: signal 63");
        assert_eq!(ExitReason::Signal(11).signal_name(), Some("SIGSEGV"));
        assert_eq!(ExitReason::Signal(63).signal_name(), None);
        assert_eq!(ExitReason::Code(9).signal_name(), None);
    }

    fn is_ready(watch: &ExitWatch) -> bool {
        let mut descriptors = [PollFd::new(watch, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut descriptors, Some(&now)).unwrap() > 0
    }

    /// The way that systems without pidfd go, exercised here on every system.
    #[test]
    fn the_waiter_thread_notices_an_exit_and_leaves_the_zombie() {
        let threads = Threads::with_limit(4);
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let watch = ExitWatch::on_thread(pid, &threads).unwrap();
        assert!(!is_ready(&watch));
        assert!(peek(pid).unwrap().is_none(), "it runs");
        drop(child.stdin.take());
        assert_eq!(
            threads.join_all(Deadline::after(Duration::from_secs(30))),
            0
        );
        assert!(is_ready(&watch));
        assert_eq!(status(pid), Some(ExitReason::Code(0)), "it is a zombie");
        assert!(is_ours(pid));
        assert!(child.wait().unwrap().success());
        assert!(!is_ours(pid));
    }
}
