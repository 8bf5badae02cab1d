//! `Probe`: the runtime that is checked, with its handles watched, and started in ways in which the host starts
//! plugins only when something goes wrong.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};

use super::Limits;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::id::InstallationId;
use crate::poll;
use crate::runtime::interrupt::Interrupt;
use crate::runtime::{Launch, Run, RunExit, RunHandle, Runtime, StopSignal};
use crate::store::{Record, Store};

/// How the next run is started.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    /// It is dropped when it is up.
    Dropped,
    /// It was cancelled before.
    Cancelled,
    /// What earlier hosts left is ended, and nothing is started.
    Cleared,
}

/// What the probe is to do, and what it has found.
#[derive(Debug, Default)]
pub(super) struct Notes {
    plan: Mutex<Option<Plan>>,
    finding: Mutex<Option<std::result::Result<(), String>>>,
    /// The first method of a handle's that took too long.
    blocked: Mutex<Option<String>>,
}

impl Notes {
    pub(super) fn plan(&self, plan: Plan) {
        *self.plan.lock() = Some(plan);
    }

    pub(super) fn take_finding(&self) -> Option<std::result::Result<(), String>> {
        self.finding.lock().take()
    }

    pub(super) fn blocked(&self) -> Option<String> {
        self.blocked.lock().clone()
    }

    /// Calls a method that must not block.
    fn time<T>(&self, limit: Duration, method: &str, call: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = call();
        let took = began.elapsed();
        if took > limit {
            let text = format!("{method} takes {took:?}, and must not block");
            self.blocked.lock().get_or_insert(text);
        }
        result
    }
}

#[derive(Debug)]
pub(super) struct Probe {
    runtime: Arc<dyn Runtime>,
    notes: Arc<Notes>,
    limits: Limits,
}

impl Probe {
    pub(super) fn new(runtime: Arc<dyn Runtime>, notes: Arc<Notes>, limits: Limits) -> Self {
        Self {
            runtime,
            notes,
            limits,
        }
    }

    /// Starts a run, and drops it once it is up: its program has to end.
    fn drop_run(&self, launch: &Launch<'_>) -> std::result::Result<(), String> {
        let run = self
            .runtime
            .start(launch)
            .map_err(|error| error.to_string())?;
        let limit = self.limits.step;
        let (Some(stderr), Some(_)) = (&run.pipes.stderr, &run.pipes.stdout) else {
            return Err("the run has no pipes for its standard output and error".to_owned());
        };
        let stderr = stderr.try_clone().map_err(|error| error.to_string())?;
        let Run { handle, pipes, .. } = run;
        if !read_until(&stderr, b"is up\n", Deadline::after(limit)) {
            return Err(format!("the plugin prints nothing within {limit:?}"));
        }
        let notes = &self.notes;
        notes.time(self.limits.instant, "dropping a handle", || drop(handle));
        // It is not asked to end by the end of its input.
        let ended = read_until(&stderr, b"", Deadline::after(limit));
        drop(pipes);
        if ended {
            Ok(())
        } else {
            Err(format!(
                "a run lives for longer than {limit:?} after its handle was dropped"
            ))
        }
    }

    /// Has a start that was cancelled before it began return.
    fn cancelled(&self, launch: &Launch<'_>) -> std::result::Result<(), String> {
        let interrupt = Interrupt::new().map_err(|error| error.to_string())?;
        interrupt.cancel();
        let launch = Launch {
            interrupt: &interrupt,
            ..*launch
        };
        self.in_time("start", || self.runtime.start(&launch).map(drop))?;
        self.in_time("clear", || self.runtime.clear(&launch))
    }

    fn in_time(
        &self,
        method: &str,
        call: impl FnOnce() -> Result<()>,
    ) -> std::result::Result<(), String> {
        let (began, limit) = (Instant::now(), self.limits.soon);
        let result = call();
        let took = began.elapsed();
        if took > limit {
            return Err(format!(
                "`{method}` returns {took:?} after it was cancelled; allowed are {limit:?}"
            ));
        }
        match result {
            Err(error) if error.kind() != ErrorKind::Cancelled => Err(format!(
                "a cancelled `{method}` fails with {:?} instead of `cancelled`: {error}",
                error.kind()
            )),
            _ => Ok(()),
        }
    }
}

impl Runtime for Probe {
    fn name(&self) -> &'static str {
        self.runtime.name()
    }

    fn accept(&self, record: &Record, store: &dyn Store) -> Result<()> {
        self.runtime.accept(record, store)
    }

    fn start(&self, launch: &Launch<'_>) -> Result<Run> {
        let Some(plan) = self.notes.plan.lock().take() else {
            let mut run = self.runtime.start(launch)?;
            run.handle = Box::new(Watched {
                handle: Some(run.handle),
                notes: self.notes.clone(),
                limit: self.limits.instant,
            });
            return Ok(run);
        };
        let found = match plan {
            Plan::Dropped => self.drop_run(launch),
            Plan::Cancelled => self.cancelled(launch),
            Plan::Cleared => self
                .runtime
                .clear(launch)
                .map_err(|error| format!("`clear` fails: {error}")),
        };
        *self.notes.finding.lock() = Some(found);
        let text = "it was started for a check alone";
        Err(Error::new(ErrorKind::RuntimeRefused, text))
    }

    fn outlives_host(&self) -> Option<&'static str> {
        self.runtime.outlives_host()
    }

    fn clear(&self, launch: &Launch<'_>) -> Result<()> {
        self.runtime.clear(launch)
    }

    fn removing(&self, id: InstallationId, keep_data: bool) -> Result<()> {
        self.runtime.removing(id, keep_data)
    }

    fn removed(&self, id: InstallationId, is_gone: bool) -> Option<String> {
        self.runtime.removed(id, is_gone)
    }

    fn shut_down(&self) {
        self.runtime.shut_down();
    }
}

/// A handle whose methods are timed.
#[derive(Debug)]
struct Watched {
    /// Always there, but while it is finished or dropped.
    handle: Option<Box<dyn RunHandle>>,
    notes: Arc<Notes>,
    limit: Duration,
}

impl Watched {
    fn time<'a, T>(&'a self, method: &str, call: impl FnOnce(&'a dyn RunHandle) -> T) -> T {
        // INVARIANT: only `finish` and `drop` take it, and they consume the run.
        #[allow(clippy::expect_used)]
        let handle = self.handle.as_deref().expect("not finished");
        self.notes.time(self.limit, method, || call(handle))
    }
}

impl RunHandle for Watched {
    fn describe(&self) -> String {
        self.time("describe", RunHandle::describe)
    }

    fn pid(&self) -> Option<u32> {
        self.time("pid", RunHandle::pid)
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.time("ended", |handle| handle.ended())
    }

    fn signal(&self, signal: StopSignal, kill_in: Duration) {
        self.time("signal", |handle| handle.signal(signal, kill_in));
    }

    fn examine(&self) -> Option<Box<dyn FnOnce() + Send>> {
        self.time("examine", RunHandle::examine)
    }

    fn finish(mut self: Box<Self>) -> RunExit {
        let notes = self.notes.clone();
        let handle = self.handle.take();
        let finish = || handle.map(RunHandle::finish);
        let exit = notes.time(self.limit, "finish", finish);
        exit.unwrap_or_else(|| RunExit::new(crate::process::ExitReason::Unknown))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let handle = self.handle.take();
        self.notes
            .time(self.limit, "dropping a handle", || drop(handle));
    }
}

/// Reads until the bytes end with `end`, or, if that is empty, until there are no more; returns whether that
/// happened in time.
fn read_until(pipe: &OwnedFd, end: &[u8], deadline: Deadline) -> bool {
    let Ok(copy) = pipe.try_clone() else {
        return false;
    };
    let mut file = File::from(copy);
    let mut found = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let mut watched = [PollFd::new(pipe, PollFlags::IN)];
        if poll::wait(&mut watched, Some(deadline)).is_err() || watched[0].revents().is_empty() {
            return false;
        }
        match file.read(&mut buffer) {
            // A socket whose other end was dropped may be reset.
            Ok(0) | Err(_) => return end.is_empty(),
            Ok(read) => found.extend_from_slice(&buffer[..read]),
        }
        if !end.is_empty() && found.ends_with(end) {
            return true;
        }
    }
}
