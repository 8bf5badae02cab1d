//! Whether everything is alive that must be: the reaper answers, and the store can be written.
//!
//! One check is in progress at a time, on a thread of its own, because a store may not return from a disk that
//! hangs. Whoever asks meanwhile waits for the same one, each until its own deadline, and its result is
//! remembered for a moment: however many ask, the store is written once a second at most.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};

use super::{Manager, ManagerInner};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::id::InstallationId;
use crate::reaper::Reaper;
use crate::store::Store;
use crate::thread::panic_text;

/// How long the result of a check stands.
const REMEMBERED: Duration = Duration::from_secs(1);
/// How long a check waits for the reaper, whoever still waits for the check.
const REAPER_LIMIT: Duration = Duration::from_secs(60);
/// The stack of the thread that checks, in bytes: a store of the embedder's may need some.
const STACK: usize = 512 * 1024;
/// The key of the note that a check writes.
const NOTE: &str = "check";

impl Manager {
    /// Checks that everything is alive that must be: the host's reaper thread answers, the store can be written,
    /// and the host is not shut down. For a health endpoint and for a watchdog; a plugin that is down is no reason
    /// for an error.
    ///
    /// The store is written by keeping a [note](Store#notes) with the key `check`. A store that keeps no notes is
    /// only read. All callers share one check at a time, and its result stands for a second: it may have been
    /// found so long before, but any number of callers at once costs one write.
    ///
    /// # Blocking
    /// At most `timeout`. The end of the check that is in progress wakes it.
    ///
    /// # Errors
    /// - [`Error::Timeout`] with [`Phase::Reaper`] or [`Phase::Store`]: that part has not answered in time.
    /// - [The store's](Store#errors), when it cannot be written, such as
    ///   [`ErrorKind::ReadOnly`] or [`ErrorKind::StorageFull`];
    ///   [`ErrorKind::StoreFailed`] also when it panicked.
    /// - [`Error::ThreadLimit`] or [`Error::Io`]: no thread can be started to check.
    /// - [`Error::ShutDown`].
    pub fn check(&self, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let inner = &self.inner;
        if inner.context().is_shut_down() {
            return Err(Error::ShutDown);
        }
        let result = match inner.checks.enter(Instant::now()) {
            Entered::Known(result) => result,
            Entered::Joined(number) => inner.checks.wait(number, deadline, timeout),
            Entered::Begun(number) => {
                inner.begin_check();
                inner.checks.wait(number, deadline, timeout)
            }
        };
        if inner.context().is_shut_down() {
            return Err(Error::ShutDown);
        }
        result
    }

    /// Returns whether [`boot`](Self::boot) has returned without an error, and the host is not shut down: whether
    /// what is installed is there to be used. With [`check`](Self::check) this is whether a server is ready.
    pub fn is_booted(&self) -> bool {
        self.inner.booted.load(Ordering::Acquire) && !self.inner.context().is_shut_down()
    }
}

impl ManagerInner {
    /// Starts the thread that checks.
    fn begin_check(&self) {
        let services = &self.context().services;
        // Neither the manager nor the host: this may be the last thread of either.
        let checks = self.checks.clone();
        let (reaper, store) = (services.reaper.clone(), services.store.clone());
        let started = services.threads.spawn("check", STACK, move || {
            let checked = AssertUnwindSafe(|| checks.perform(&reaper, &*store));
            let result = panic::catch_unwind(checked).unwrap_or_else(|panic| {
                let text = format!("the store panicked: {}", panic_text(&*panic));
                Err(Error::new(ErrorKind::StoreFailed, text))
            });
            checks.end(result);
        });
        if let Err(error) = started {
            self.checks.end(Err(error));
        }
    }
}

/// The check that is in progress, and the result of the last one.
#[derive(Debug, Default)]
pub(super) struct Checks {
    progress: Mutex<Progress>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    /// What the check in progress waits for.
    at: Option<Phase>,
    /// How many have ended.
    ended: u64,
    last: Option<(Instant, Result<()>)>,
}

/// What a caller is to do.
#[derive(Debug)]
enum Entered {
    /// The last result still stands.
    Known(Result<()>),
    /// Wait for the check with this number, which is in progress.
    Joined(u64),
    /// Begin that check, and wait for it.
    Begun(u64),
}

impl Checks {
    fn enter(&self, now: Instant) -> Entered {
        let mut progress = self.progress.lock();
        let number = progress.ended + 1;
        if progress.at.is_some() {
            return Entered::Joined(number);
        }
        match &progress.last {
            Some((at, result)) if now.saturating_duration_since(*at) < REMEMBERED => {
                Entered::Known(result.clone())
            }
            _ => {
                progress.at = Some(Phase::Reaper);
                Entered::Begun(number)
            }
        }
    }

    /// Waits for the end of the check with this number, until the deadline of this timeout.
    fn wait(&self, number: u64, deadline: Deadline, timeout: Duration) -> Result<()> {
        let mut progress = self.progress.lock();
        while progress.ended < number {
            let timed_out = self
                .ended
                .wait_until(&mut progress, deadline.instant())
                .timed_out();
            if timed_out && progress.ended < number {
                let phase = progress.at.unwrap_or(Phase::Reaper);
                return Err(Error::timeout(phase, timeout));
            }
        }
        // If another has ended since, its result is newer.
        progress
            .last
            .as_ref()
            .map_or(Ok(()), |(_, result)| result.clone())
    }

    fn perform(&self, reaper: &Reaper, store: &dyn Store) -> Result<()> {
        reaper.expect_answer(REAPER_LIMIT)?;
        self.progress.lock().at = Some(Phase::Store);
        write(store)
    }

    fn end(&self, result: Result<()>) {
        let mut progress = self.progress.lock();
        progress.at = None;
        progress.ended += 1;
        progress.last = Some((Instant::now(), result));
        self.ended.notify_all();
    }
}

/// Writes something small, which is different each time.
fn write(store: &dyn Store) -> Result<()> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    match store.set_note(NOTE, Some(&now.as_millis().to_string())) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            // An id that no cache can know.
            store.get(InstallationId::generate()).map(drop)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_matches;

    #[test]
    fn one_is_in_progress_and_its_result_stands_for_a_second() {
        let checks = Checks::default();
        let now = Instant::now();
        assert_matches!(checks.enter(now), Entered::Begun(1));
        assert_matches!(checks.enter(now), Entered::Joined(1));
        let wait = |number| checks.wait(number, Deadline::after(Duration::ZERO), Duration::ZERO);
        let at = || wait(1).unwrap_err();
        assert_matches!(
            at(),
            Error::Timeout {
                phase: Phase::Reaper,
                ..
            }
        );
        checks.progress.lock().at = Some(Phase::Store);
        assert_matches!(
            at(),
            Error::Timeout {
                phase: Phase::Store,
                ..
            }
        );
        let failed = Err(Error::new(ErrorKind::StoreFailed, "no"));
        checks.end(failed);
        let result = wait(1).unwrap_err();
        assert_eq!(result.kind(), ErrorKind::StoreFailed);
        let (ended, _) = checks.progress.lock().last.clone().unwrap();
        assert_matches!(checks.enter(ended), Entered::Known(Err(_)));
        let late = ended + Duration::from_millis(999);
        assert_matches!(checks.enter(late), Entered::Known(Err(_)));
        assert_matches!(checks.enter(ended + REMEMBERED), Entered::Begun(2));
        checks.end(Ok(()));
        assert_matches!(wait(2), Ok(()));
    }
}
