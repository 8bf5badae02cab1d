//! `ProcessEnd`: what is known about how a process ended, and [`PostMortem`]: reading what only files of
//! the system say about it. A short-lived thread reads them before the process is reaped, because a read
//! may have to wait for locks in the kernel. What the end means for the plugin is decided in `reaper`.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::cpu_time::cpu_time;
use super::{ExitReason, OutOfMemoryWatch, ProcessLimits};

/// How a process ended: its status, and what else the system says.
#[derive(Clone, Debug)]
pub(crate) struct ProcessEnd {
    pub(crate) exit: ExitReason,
    /// Whether it left a core file, or handed one to a crash handler.
    pub(crate) core_dumped: bool,
    /// The limits in force when it ended.
    pub(crate) limits: ProcessLimits,
    findings: ExitFindings,
}

/// Shells and other wrappers exit with this plus the signal's number when a signal ended their command.
const WRAPPED: i32 = 128;

impl ProcessEnd {
    /// `status` is `None` if the system kept none.
    pub(super) fn new(
        status: Option<ExitStatus>,
        limits: ProcessLimits,
        findings: ExitFindings,
    ) -> Self {
        Self {
            exit: status.map_or(ExitReason::Unknown, ExitReason::from),
            core_dumped: status.is_some_and(|status| status.core_dumped()),
            limits,
            findings,
        }
    }

    /// Whether the kernel ended the process because its processor time was used up, under a limit of ours
    /// or an inherited one. Call it only if the host did not kill the process.
    pub(crate) fn was_out_of_cpu_time(&self) -> bool {
        const LIMIT: i32 = Signal::XCPU.as_raw();
        const KILL: i32 = Signal::KILL.as_raw();
        match self.exit {
            ExitReason::Signal(LIMIT) => true,
            ExitReason::Code(code) => code == WRAPPED + LIMIT,
            // A program that ignores SIGXCPU gets SIGKILL a second later. The time used is compared with the
            // limit, not with that second: the kernel enforces by a different account than it shows.
            ExitReason::Signal(KILL) | ExitReason::Unknown => {
                let used = self.findings.cpu_time.zip(self.limits.cpu_time);
                used.is_some_and(|(used, limit)| used >= limit)
            }
            ExitReason::Signal(_) => false,
        }
    }

    /// Whether the process was killed and the kernel counted a kill for lack of memory. Call it only if the
    /// host did not kill the process.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        may_be_the_kernels(self.exit) && self.findings.killed_for_memory
    }
}

/// Whether the kernel may have sent the SIGKILL that ended the process.
pub(super) fn may_be_the_kernels(exit: ExitReason) -> bool {
    const KILL: i32 = Signal::KILL.as_raw();
    match exit {
        ExitReason::Signal(signal) => signal == KILL,
        ExitReason::Code(code) => code == WRAPPED + KILL,
        // The status is lost, but the kernel's counters are not.
        ExitReason::Unknown => true,
    }
}

/// What to read about a process that has ended and is not reaped.
#[derive(Debug)]
pub(crate) struct PostMortem {
    /// Set if there is a limit on processor time; without one the time explains nothing.
    pub(super) pid: Option<Pid>,
    pub(super) memory: OutOfMemoryWatch,
}

/// The result of a [`PostMortem`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExitFindings {
    pub(super) cpu_time: Option<Duration>,
    /// The kernel counted a kill for lack of memory that is not attributed to another exit.
    pub(super) killed_for_memory: bool,
}

impl PostMortem {
    /// Reads the files. A kill that is found is attributed to this exit and to no other.
    pub(crate) fn run(self) -> ExitFindings {
        ExitFindings {
            cpu_time: self.pid.and_then(cpu_time),
            killed_for_memory: self.memory.take_kill(),
        }
    }
}

impl fmt::Display for ProcessEnd {
    /// In the protocol's words; the core is mentioned as Storyden's Go host does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.exit)?;
        if self.core_dumped {
            f.write_str(" (core dumped)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end with this raw status.
    fn end(status: Option<i32>, limits: ProcessLimits, used: Option<Duration>) -> ProcessEnd {
        let findings = ExitFindings {
            cpu_time: used,
            ..ExitFindings::default()
        };
        ProcessEnd::new(status.map(ExitStatus::from_raw), limits, findings)
    }

    #[test]
    fn a_core_is_told_as_the_seed_tells_it() {
        const CORE: i32 = 0x80;
        let text = |status| end(status, ProcessLimits::default(), None).to_string();
        assert_eq!(text(Some(6 | CORE)), "signal: aborted (core dumped)");
        assert_eq!(text(Some(6)), "signal: aborted");
        assert_eq!(text(Some(3 << 8)), "exit status 3");
        assert_eq!(text(None), "exit status unknown");
    }

    #[test]
    fn an_end_without_a_counter_is_not_put_down_to_memory() {
        assert!(!end(Some(9), ProcessLimits::default(), None).was_out_of_memory());
    }

    #[test]
    fn a_kill_is_put_down_to_processor_time_only_when_that_was_used_up() {
        let limits = ProcessLimits::default().cpu_time(Duration::from_secs(1));
        let used_up = |status, used| end(Some(status), limits.clone(), used).was_out_of_cpu_time();
        assert!(used_up(24, None));
        assert!(used_up((128 + 24) << 8, None));
        assert!(used_up(9, Some(Duration::from_millis(1990))));
        assert!(!used_up(9, Some(Duration::from_millis(990))));
        assert!(!used_up(15, Some(Duration::from_millis(1990))));
        assert!(!used_up(1 << 8, Some(Duration::from_millis(1990))));
        let unlimited = end(Some(9), ProcessLimits::default(), None);
        assert!(!unlimited.was_out_of_cpu_time());
    }
}
