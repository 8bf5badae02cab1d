//! One child process: resolving its command, spawning it in a process group of its own, watching for
//! its exit, signalling the group, reaping.
//!
//! What does not live here: when any of that happens (`reaper`), what the environment consists of
//! (`runtime`), reading the pipes (`plugin_log`, `duplex::stdio`). A [`Process`] is spawned on the
//! short-lived thread that prepares a run, and then belongs to the reaper's thread, which touches no file:
//! another short-lived thread reads what files of the system say about its end ([`PostMortem`]). Where the
//! system has no pidfd, each [`ExitWatch`] has a thread that waits.

mod command;
mod cpu_time;
mod end;
mod environment;
mod exit;
mod limits;
pub(crate) mod orphans;
mod out_of_memory;
mod stat;
pub(crate) mod usage;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
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

/// A plugin's program with all that it is started with. A [`Runtime`](crate::runtime::Runtime) may change it
/// before it starts it.
#[derive(Clone)]
#[non_exhaustive]
pub struct PluginCommand {
    /// The absolute path of an executable file.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The working directory on this machine, in which the plugin's files are. A runtime whose programs do not see
    /// it copies or mounts it where they do.
    pub directory: PathBuf,
    /// The complete environment; no variable is inherited. It holds secrets of the plugin. Some are about this
    /// machine, such as `PATH`, `HOME` and `PLUGIN_DATA_DIR`, a directory whose content has to last from one run to
    /// the next ([Environment](crate::protocol#environment)): elsewhere they need other values.
    pub environment: BTreeMap<OsString, OsString>,
}

/// The host's ends of a child's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

/// A child that has not been reaped, the leader of its own process group. Dropping it kills the group and
/// waits for the child, so that no process stays behind without an owner.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    watch: ExitWatch,
    memory: OutOfMemoryWatch,
    /// The limits in force.
    limits: ProcessLimits,
    reaped: bool,
}

impl Process {
    /// Spawns the process; `stdin` says whether that is a pipe from the host, or else `/dev/null`. Without a `pre_exec` hook, because a hook would force a fork, which in a large
    /// host costs a hundred times as much. Touches the file system.
    pub(crate) fn spawn(
        command: &PluginCommand,
        stdin: bool,
        limits: &ProcessLimits,
        threads: &Threads,
    ) -> Result<(Self, Pipes), StartError> {
        let stdin = if stdin { Stdio::piped() } else { Stdio::null() };
        let mut child = Command::new(&command.program)
            .args(&command.args)
            .current_dir(&command.directory)
            .env_clear()
            .envs(&command.environment)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| spawn_error(&command.program, &command.directory, error))?;
        let pipes = Pipes {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        };
        let pid = Pid::from_child(&child);
        let watch = ExitWatch::new(pid, threads).inspect_err(|_| {
            // A process whose exit cannot be noticed cannot be supervised.
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
        // The limits come a moment late: see `ProcessLimits`. On failure `process` is dropped, which kills
        // it.
        process.limits = limits.apply(pid)?;
        Ok((process, pipes))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the counter of kills for lack of memory, and the process with which the caller has to
    /// [begin](OutOfMemoryWatch::begin) it once the run waits for nothing else.
    pub(crate) fn memory(&self) -> (OutOfMemoryWatch, Pid) {
        (self.memory.clone(), self.pid)
    }

    /// Returns the descriptor that is readable once the process has ended.
    pub(crate) fn watch(&self) -> &ExitWatch {
        &self.watch
    }

    /// Signals the whole group, unless its leader has been reaped: until then no other group can have the
    /// same id. Where the embedder ignores SIGCHLD the system reaps, and afterwards no signal is sent.
    pub(crate) fn signal_group(&self, signal: Signal) {
        if !exit::is_ours(self.pid) {
            return;
        }
        match rustix::process::kill_process_group(self.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => log::warn!("cannot send {signal:?} to group {}: {error}", self.pid()),
        }
    }

    /// Returns what has to be read before the process, which must have ended, is reaped; `None` if its exit
    /// status explains the end.
    pub(crate) fn post_mortem(&self) -> Option<PostMortem> {
        let exit = exit::status(self.pid).map_or(ExitReason::Unknown, |exit| exit);
        end::may_be_the_kernels(exit).then(|| PostMortem {
            pid: self.limits.cpu_time.is_some().then_some(self.pid),
            memory: self.memory.clone(),
        })
    }

    /// Kills what is left of the group and reaps the process, which must have ended. `before_reaping` runs
    /// in between, while no other group can have the same id.
    pub(crate) fn finish(
        mut self,
        before_reaping: impl FnOnce(),
        findings: ExitFindings,
    ) -> ProcessEnd {
        // A zombie leader still reserves the id of its group.
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
        ProcessEnd::new(status, std::mem::take(&mut self.limits), findings)
    }
}

impl fmt::Debug for PluginCommand {
    /// Without the environment's values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<_> = self.environment.keys().collect();
        f.debug_struct("PluginCommand")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("directory", &self.directory)
            .field("environment", &variables)
            .finish()
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
