//! `ProcessEnd`: all that is known about how a process ended. What that means for the plugin is the
//! reaper's to say.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::Signal;

use super::ExitReason;
use super::out_of_memory::OutOfMemoryWatch;

/// How a process ended, with what the system tells besides the status.
#[derive(Clone, Debug)]
pub(crate) struct ProcessEnd {
    pub(crate) exit: ExitReason,
    /// It left a core file, or whoever takes them got one.
    pub(crate) core_dumped: bool,
    memory: OutOfMemoryWatch,
}

impl ProcessEnd {
    /// `status` is `None` where the system kept none.
    pub(super) fn new(status: Option<ExitStatus>, memory: OutOfMemoryWatch) -> Self {
        Self {
            exit: status.map_or(ExitReason::Unknown, ExitReason::from),
            core_dumped: status.is_some_and(|status| status.core_dumped()),
            memory,
        }
    }

    /// Whether this is an end by a SIGKILL that the kernel counts as its own, for want of memory. To be
    /// asked once, and only if nobody else is known to have killed the process.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        /// How shells and other wrappers report that what they ran was ended by SIGKILL.
        const KILLED_BELOW: i32 = 128 + Signal::KILL.as_raw();
        let killed = match self.exit {
            ExitReason::Signal(signal) => signal == Signal::KILL.as_raw(),
            ExitReason::Code(code) => code == KILLED_BELOW,
            // The status is lost, but not the count.
            ExitReason::Unknown => true,
        };
        killed && self.memory.take_kill()
    }
}

impl fmt::Display for ProcessEnd {
    /// In the protocol's words; the seed adds the core as here.
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

    #[test]
    fn a_core_is_told_as_the_seed_tells_it() {
        const CORE: i32 = 0x80;
        let end = |status: Option<i32>| {
            let status = status.map(ExitStatus::from_raw);
            ProcessEnd::new(status, OutOfMemoryWatch::default()).to_string()
        };
        assert_eq!(end(Some(6 | CORE)), "signal: aborted (core dumped)");
        assert_eq!(end(Some(6)), "signal: aborted");
        assert_eq!(end(Some(3 << 8)), "exit status 3");
        assert_eq!(end(None), "exit status unknown");
    }

    #[test]
    fn an_end_without_a_counter_is_not_put_down_to_memory() {
        let status = Some(ExitStatus::from_raw(9));
        let end = ProcessEnd::new(status, OutOfMemoryWatch::default());
        assert!(!end.was_out_of_memory());
    }
}
