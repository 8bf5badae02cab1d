//! Threads: the one place that starts them.
//!
//! Every thread has a name and comes from a host-wide budget, because each costs four memory maps
//! and running out of maps aborts the process from inside the standard library. Threads are
//! registered while they live, so the owner can wait for all of them to end.

use std::collections::HashMap;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};

use parking_lot::{Condvar, Mutex};

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::text::Foreign;

/// A budget of threads, and the threads that were started from it. A clone is another handle to
/// the same budget.
#[derive(Clone)]
pub(crate) struct Threads {
    shared: Arc<ThreadsInner>,
}

struct ThreadsInner {
    limit: usize,
    live: Mutex<LiveThreads>,
    changed: Condvar,
}

#[derive(Default)]
struct LiveThreads {
    next: u64,
    /// Threads that run or are about to, from before the spawn; without the handle until it is known.
    handles: HashMap<u64, Option<JoinHandle<()>>>,
    /// Ended; joining them waits for the last few instructions at most.
    finished: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Returns a budget of `limit` threads, for a transport that is used without a host.
    pub(crate) fn with_limit(limit: usize) -> Self {
        let shared = ThreadsInner {
            limit,
            live: Mutex::default(),
            changed: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Returns the default number of threads: a fifth of the memory maps that a process may have (a thread
    /// takes four, so a fifth of the maps is left for the rest of it), or half of what the limits on
    /// processes and threads allow, whichever is least.
    pub(crate) fn default_limit() -> usize {
        let read = |path: &str| -> Option<usize> {
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        let maps = read("/proc/sys/vm/max_map_count").unwrap_or(65_530) / 5;
        let control_group = read("/sys/fs/cgroup/pids.max").unwrap_or(usize::MAX) / 2;
        let system = read("/proc/sys/kernel/threads-max").unwrap_or(usize::MAX) / 2;
        let user = rustix::process::getrlimit(rustix::process::Resource::Nproc)
            .current
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(usize::MAX)
            / 2;
        maps.min(control_group).min(system).min(user).max(16)
    }

    /// Returns how many threads may live at once.
    pub(crate) fn limit(&self) -> usize {
        self.shared.limit
    }

    /// Returns how many threads live now.
    pub(crate) fn count(&self) -> usize {
        self.shared.live.lock().handles.len()
    }

    /// Starts a thread. Those of an embedder's own transport belong here too: a shutdown of the host then waits
    /// for them. `name` is cut to 15 bytes by Linux; `stack` is in bytes.
    ///
    /// Does not wait for the thread. A panic of `body` ends that thread alone and is logged.
    ///
    /// # Errors
    /// - [`Error::ThreadLimit`] when the budget is used up.
    /// - [`Error::Io`] when the system starts no thread.
    pub(crate) fn spawn(
        &self,
        name: &str,
        stack: usize,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let id = {
            let mut live = self.shared.live.lock();
            if live.handles.len() >= self.shared.limit {
                return Err(Error::ThreadLimit {
                    limit: self.shared.limit,
                    name: name.into(),
                });
            }
            live.next += 1;
            let id = live.next;
            live.handles.insert(id, None);
            id
        };
        let end = ExitGuard {
            threads: self.clone(),
            id,
        };
        let started = thread::Builder::new()
            // The standard library panics over a name with a NUL in it, and names come from
            // manifests.
            .name(name.replace('\0', "?"))
            .stack_size(stack)
            .spawn(move || {
                let _end = end;
                if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(body)) {
                    let name = thread::current().name().unwrap_or("?").to_owned();
                    log::error!("thread {name} panicked: {}", panic_text(&*panic));
                }
            });
        // If this failed, the closure was dropped, and `end` with it.
        let handle = started.map_err(|error| Error::io(format!("start thread {name}"), error))?;
        let mut live = self.shared.live.lock();
        match live.handles.get_mut(&id) {
            Some(place) => *place = Some(handle),
            None => live.finished.push(handle),
        }
        Ok(())
    }

    /// Waits until every thread has ended, except for the calling one. Returns how many still live at
    /// the deadline.
    pub(crate) fn join_all(&self, deadline: Deadline) -> usize {
        let mut live = self.shared.live.lock();
        let own = thread::current().id();
        let own = usize::from(live.known().any(|thread| thread.id() == own));
        while live.handles.len() > own {
            if self
                .shared
                .changed
                .wait_until(&mut live, deadline.instant())
                .timed_out()
            {
                break;
            }
        }
        let left = live.handles.len().saturating_sub(own);
        let finished = std::mem::take(&mut live.finished);
        drop(live);
        join_finished(finished);
        left
    }

    /// Returns the names of the threads that live now, for reports.
    pub(crate) fn names(&self) -> Vec<String> {
        let live = self.shared.live.lock();
        live.known()
            .filter_map(|thread| thread.name().map(str::to_owned))
            .collect()
    }
}

impl LiveThreads {
    fn known(&self) -> impl Iterator<Item = &Thread> {
        self.handles.values().flatten().map(JoinHandle::thread)
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads")
            .field("limit", &self.shared.limit)
            .field("count", &self.count())
            .finish()
    }
}

/// Returns the message of a panic, for a log line or an error. It may quote what a plugin has sent.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> Foreign<'_> {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Foreign::new(text)
}

fn join_finished(finished: Vec<JoinHandle<()>>) {
    for handle in finished {
        // The last finished thread may be the calling one.
        if handle.thread().id() != thread::current().id() {
            // Its panic was caught and logged by the thread itself.
            let _ = handle.join();
        }
    }
}

/// Dropped as a thread's last act.
struct ExitGuard {
    threads: Threads,
    id: u64,
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        let shared = &self.threads.shared;
        let mut live = shared.live.lock();
        // Only those that have ended entirely: a thread that is still in the destructor of a
        // thread-local of the embedder's must not hold up all that end after it.
        let finished = live
            .finished
            .extract_if(.., |handle| handle.is_finished())
            .collect();
        // If the handle is not known yet, `spawn` finds that the thread has ended.
        let handle = live.handles.remove(&self.id).flatten();
        live.finished.extend(handle);
        // The thread that waits for all of them may be one of them. Earlier ends tell it nothing, and with
        // thousands of threads waking it for each would cost as much as they do.
        let may_be_all = live.handles.len() <= 1;
        drop(live);
        if may_be_all {
            shared.changed.notify_all();
        }
        // Here, and not where the next is started: the caller there would have to wait until the system
        // has run these once more.
        join_finished(finished);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_budget_is_kept_and_given_back() {
        let threads = Threads::with_limit(1);
        let (release, wait) = crossbeam_channel::bounded::<()>(0);
        threads
            .spawn("one", 64 * 1024, move || {
                let _ = wait.recv();
            })
            .unwrap();
        let refused = threads.spawn("two", 64 * 1024, || ()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "all 1 threads of the host's budget are in use, none is left for two"
        );
        drop(release);
        assert_eq!(
            threads.join_all(Deadline::after(Duration::from_secs(30))),
            0
        );
        threads.spawn("three", 64 * 1024, || ()).unwrap();
        assert_eq!(
            threads.join_all(Deadline::after(Duration::from_secs(30))),
            0
        );
    }

    #[test]
    fn any_name_will_do() {
        let threads = Threads::with_limit(1);
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let body = move || sender.send(thread::current().name().map(str::to_owned));
        threads
            .spawn("a\0b", 64 * 1024, move || drop(body()))
            .unwrap();
        assert_eq!(receiver.recv().unwrap().as_deref(), Some("a?b"));
        assert_eq!(
            threads.join_all(Deadline::after(Duration::from_secs(30))),
            0
        );
    }

    #[test]
    fn a_panic_ends_only_its_thread() {
        let threads = Threads::with_limit(2);
        threads
            .spawn("panics", 64 * 1024, || panic!("on purpose"))
            .unwrap();
        assert_eq!(
            threads.join_all(Deadline::after(Duration::from_secs(30))),
            0
        );
    }
}
