//! `Inquest`: what only the system's files say of how a process ended. They are read on a short thread,
//! before the process is reaped: reading them may have to wait for locks of the kernel's.

use std::time::Duration;

use rustix::process::Pid;

use super::cpu_time::cpu_time;
use super::out_of_memory::OutOfMemoryWatch;

/// Questions about a process that has ended.
#[derive(Debug)]
pub(crate) struct Inquest {
    /// Whose processor time is asked for; nobody asks for it without a limit.
    pub(super) pid: Option<Pid>,
    pub(super) memory: OutOfMemoryWatch,
}

/// What the files said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Findings {
    pub(super) cpu_time: Option<Duration>,
    /// The kernel counts a kill for want of memory that explains no other end.
    pub(super) killed_for_memory: bool,
}

impl Inquest {
    /// Reads the files. A kill that is found explains this end and no other.
    pub(crate) fn hold(self) -> Findings {
        Findings {
            cpu_time: self.pid.and_then(cpu_time),
            killed_for_memory: self.memory.take_kill(),
        }
    }
}
