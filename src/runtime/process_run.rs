//! `ProcessRun`: a run that is a process of this machine, announced to the keeper. When it has ended, its
//! whole process group is killed while its leader is a zombie, the keeper is told, and it is reaped: no id is
//! used after that.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;

use super::run::{Afterwards, Run, RunExit, RunHandle, RunPipes, StopSignal};
use crate::fault;
use crate::id::InstallationId;
use crate::keeper::link::KeeperLink;
use crate::process::{ExitFindings, Pipes, Process};

pub(super) struct ProcessRun {
    /// `None` once it is reaped.
    process: Option<Process>,
    keeper: KeeperLink,
    /// For fault points.
    plugin: InstallationId,
    /// What was found out about its end. Held for an instant only.
    findings: Arc<Mutex<ExitFindings>>,
}

/// Returns the run of a process that has just been spawned.
pub(super) fn run(
    (process, pipes): (Process, Pipes),
    keeper: KeeperLink,
    plugin: InstallationId,
) -> Run {
    keeper.watch_group(process.pid());
    // No part of the start waits for it.
    let (memory, pid) = process.memory();
    let afterwards = Afterwards(Box::new(move || memory.begin(pid)));
    let handle = ProcessRun {
        process: Some(process),
        keeper,
        plugin,
        findings: Arc::default(),
    };
    Run {
        handle: Box::new(handle),
        pipes: RunPipes {
            stdin: pipes.stdin.map(Into::into),
            stdout: pipes.stdout.map(Into::into),
            stderr: pipes.stderr.map(Into::into),
        },
        afterwards: Some(afterwards),
    }
}

impl ProcessRun {
    fn reap(&mut self) -> Option<RunExit> {
        let process = self.process.take()?;
        let (findings, pid) = (std::mem::take(&mut *self.findings.lock()), process.pid());
        // The keeper has to be told before the id can be used again.
        let end = process.finish(|| self.keeper.forget_group(pid), findings);
        fault::point(fault::REAPED, self.plugin);
        Some(end.into())
    }
}

impl RunHandle for ProcessRun {
    fn describe(&self) -> String {
        let pid = self.pid().unwrap_or_default();
        format!("process {pid}")
    }

    fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    fn ended(&self) -> BorrowedFd<'_> {
        let process = self.process.as_ref();
        // INVARIANT: only `finish` and `drop` take the process, and they consume the run.
        #[allow(clippy::expect_used)]
        process.expect("not reaped").watch().as_fd()
    }

    fn signal(&self, signal: StopSignal, _kill_in: Duration) {
        // Fault injection in tests can drop the signal.
        if fault::is_lost(fault::SIGNALLING, self.plugin) {
            return;
        }
        if let Some(process) = &self.process {
            process.signal_group(match signal {
                StopSignal::Interrupt => Signal::INT,
                StopSignal::Terminate => Signal::TERM,
                StopSignal::Kill => Signal::KILL,
            });
        }
    }

    fn examine(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let post_mortem = self.process.as_ref()?.post_mortem()?;
        let (findings, plugin) = (self.findings.clone(), self.plugin);
        Some(Box::new(move || {
            fault::point(fault::INQUEST, plugin);
            let found = post_mortem.run();
            *findings.lock() = found;
        }))
    }

    fn finish(mut self: Box<Self>) -> RunExit {
        let exit = self.reap();
        exit.unwrap_or_else(|| RunExit::new(crate::process::ExitReason::Unknown))
    }
}

impl fmt::Debug for ProcessRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Drop for ProcessRun {
    fn drop(&mut self) {
        self.reap();
    }
}
