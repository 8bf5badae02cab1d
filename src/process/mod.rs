//! One child process: resolving its command, spawning it in a process group of its own, noticing
//! its end, signalling the group, reaping.
//!
//! What does not live here: when any of that happens (`reaper`), what the environment is made of
//! (`runtime`), who reads the pipes (`plugin_log`, `duplex::stdio`). A [`Process`] is spawned on the
//! short thread that prepares a run, and then belongs to the reaper's, which touches no file: what the
//! system's files say of its end is read on a short thread too ([`PostMortem`]). Where the system has no
//! pidfd each [`ExitWatch`] has a thread that waits.

mod command;
mod cpu_time;
mod end;
mod environment;
mod exit;
mod limits;
pub(crate) mod orphans;
mod out_of_memory;
mod stat;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal};

pub(crate) use command::{resolve, spawn_error};
pub(crate) use end::{ExitFindings, PostMortem, ProcessEnd};
pub(crate) use environment::Environment;
pub use exit::ExitReason;
pub(crate) use exit::ExitWatch;
pub use limits::ProcessLimits;
pub(crate) use out_of_memory::OutOfMemoryWatch;

use crate::error::StartError;
use crate::thread::Threads;

/// Everything that is needed to spawn a process.
#[derive(Clone, Debug)]
pub(crate) struct ProcessCommand {
    /// Resolved: absolute, and known to be an executable file.
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) working_directory: PathBuf,
    /// The whole environment; nothing is inherited.
    pub(crate) environment: BTreeMap<OsString, OsString>,
    /// Whether stdin is a pipe of ours; else it is null.
    pub(crate) stdin: bool,
    pub(crate) limits: ProcessLimits,
}

/// The host's ends of a child's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

/// A child that has not been reaped. Its process group has the id of its pid. Dropping it kills the
/// group and waits for the child: nothing may stay behind whose owner is gone.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    watch: ExitWatch,
    memory: OutOfMemoryWatch,
    /// Those in force.
    limits: ProcessLimits,
    reaped: bool,
}

impl Process {
    /// Spawns the process with the standard library's fast path: a `pre_exec` hook would force a
    /// fork, which in a large host costs a hundred times as much. Touches the file system.
    pub(crate) fn spawn(
        command: &ProcessCommand,
        threads: &Threads,
    ) -> Result<(Self, Pipes), StartError> {
        let stdin = if command.stdin {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let mut child = Command::new(&command.program)
            .args(&command.args)
            .current_dir(&command.working_directory)
            .env_clear()
            .envs(&command.environment)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| spawn_error(&command.program, &command.working_directory, error))?;
        let pipes = Pipes {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        };
        let pid = Pid::from_child(&child);
        let watch = ExitWatch::new(pid, threads).inspect_err(|_| {
            // Without a way to notice its end it cannot be supervised.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            let _ = child.wait();
        })?;
        let mut process = Self {
            child,
            pid,
            watch,
            memory: OutOfMemoryWatch::default(),
            limits: ProcessLimits::default(),
            reaped: false,
        };
        // From outside, and so a moment late: see `ProcessLimits`. On failure the process is killed by
        // being dropped.
        process.limits = command.limits.apply(pid)?;
        Ok((process, pipes))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn id(&self) -> Pid {
        self.pid
    }

    /// Its count of kills for want of memory, which is to [begin](OutOfMemoryWatch::begin) when nobody
    /// waits for the process any more.
    pub(crate) fn memory(&self) -> OutOfMemoryWatch {
        self.memory.clone()
    }

    /// Readable once the process has ended.
    pub(crate) fn watch(&self) -> &ExitWatch {
        &self.watch
    }

    /// Signals the whole group, while its leader is ours to reap: then the id cannot belong to
    /// anybody else. Where the embedder ignores SIGCHLD the system reaps by itself, and once it has,
    /// the group is left alone.
    pub(crate) fn signal_group(&self, signal: Signal) {
        if !exit::is_ours(self.pid) {
            return;
        }
        match rustix::process::kill_process_group(self.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => log::warn!("cannot send {signal:?} to group {}: {error}", self.pid()),
        }
    }

    /// What has to be found out before the process, which must have ended, is reaped; `None` when its
    /// exit status says all.
    pub(crate) fn post_mortem(&self) -> Option<PostMortem> {
        let exit = exit::status(self.pid).map_or(ExitReason::Unknown, |exit| exit);
        end::may_be_the_kernels(exit).then(|| PostMortem {
            pid: self.limits.cpu_time.is_some().then_some(self.pid),
            memory: self.memory.clone(),
        })
    }

    /// Kills what is left of the group and reaps the process, which must have ended. What has to be
    /// done while the id of the group cannot be somebody else's is done in between.
    pub(crate) fn finish(
        mut self,
        before_reaping: impl FnOnce(),
        findings: ExitFindings,
    ) -> ProcessEnd {
        // A zombie leader still holds the id of its group.
        self.signal_group(Signal::KILL);
        before_reaping();
        self.reap(findings)
    }

    fn reap(&mut self, findings: ExitFindings) -> ProcessEnd {
        self.reaped = true;
        let status = match self.child.wait() {
            Ok(status) => Some(status),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::CHILD.raw_os_error()) => {
                None
            }
            Err(error) => {
                log::warn!("cannot wait for process {}: {error}", self.pid());
                None
            }
        };
        ProcessEnd::new(
            self.pid(),
            status,
            std::mem::take(&mut self.limits),
            findings,
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal_group(Signal::KILL);
            self.reap(ExitFindings::default());
        }
    }
}
