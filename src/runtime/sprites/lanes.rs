//! Doing many things at once on a sprite, on a few threads.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::PollFlags;

use super::deploy::DeployError;
use super::interrupt::{Interrupt, Within};
use crate::deadline::Deadline;
use crate::error::{SpritesError, SpritesProblem};
use crate::poll;
use crate::thread::Threads;

/// The most threads.
pub(super) const LANES: usize = 4;

/// The work of one: a request over TLS, and unpacking a file.
const STACK: usize = 1024 * 1024;

/// The time for the threads to notice that they are to end, which they poll for.
const END: Duration = Duration::from_secs(10);

struct Lanes<W> {
    next: AtomicUsize,
    count: usize,
    work: W,
    /// What failed first.
    failure: Mutex<Option<DeployError>>,
    /// Ends the work of all; the caller's own interrupt is not to be cancelled here.
    stop: Interrupt,
    deadline: Deadline,
    limit: Duration,
}

/// Does `work` for each number below `count`, on up to four threads of the budget. The first failure ends the
/// others, which are soon over, and is returned.
///
/// # Errors
/// The first failure; [`SpritesProblem::Thread`]: not one thread can be started. `action` is for errors of
/// its own.
pub(super) fn for_each(
    action: &'static str,
    count: usize,
    threads: &Threads,
    within: Within<'_>,
    work: impl Fn(usize, Within<'_>) -> Result<(), DeployError> + Send + Sync + 'static,
) -> Result<(), DeployError> {
    if count == 0 {
        return Ok(());
    }
    let failed = |problem| SpritesError { action, problem };
    let broken = |error: io::Error| failed(SpritesProblem::Broken(error));
    let lanes = Arc::new(Lanes {
        next: AtomicUsize::new(0),
        count,
        work,
        failure: Mutex::new(None),
        stop: Interrupt::new().map_err(broken)?,
        deadline: within.deadline,
        limit: within.limit,
    });
    // Closed by the last thread when it ends, in whatever way.
    let (ended, running) = io::pipe().map_err(broken)?;
    let mut started = 0;
    for _ in 0..count.min(LANES) {
        let (lanes, running) = (lanes.clone(), running.try_clone());
        let spawned = running.map_err(broken).and_then(|running| {
            let run = move || {
                let _running = running;
                lanes.run();
            };
            let spawned = threads.spawn("upload", STACK, run);
            spawned.map_err(|error| failed(SpritesProblem::Thread(error.into())))
        });
        match spawned {
            Ok(()) => started += 1,
            Err(_) if started > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    drop(running);
    if let Err(problem) = within.wait(ended.as_fd(), PollFlags::IN) {
        lanes.fail(failed(problem).into());
        let _ = poll::readable(ended.as_fd(), Deadline::after(END));
    }
    lanes.failure.lock().take().map_or(Ok(()), Err)
}

impl<W: Fn(usize, Within<'_>) -> Result<(), DeployError>> Lanes<W> {
    fn run(&self) {
        let within = Within {
            deadline: self.deadline,
            limit: self.limit,
            interrupt: &self.stop,
        };
        while !self.stop.is_cancelled() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return;
            }
            if let Err(error) = (self.work)(number, within) {
                return self.fail(error);
            }
        }
    }
}

impl<W> Lanes<W> {
    fn fail(&self, error: DeployError) {
        self.failure.lock().get_or_insert(error);
        self.stop.cancel();
    }
}
