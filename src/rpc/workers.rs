//! Threads that run jobs which may block, made when they are needed, capped, and ending when they
//! have been idle for a while. Knows nothing of what the jobs do.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::deadline::Deadline;
use crate::thread::{Threads, panic_text};

type Job = Box<dyn FnOnce() + Send>;

/// A capped pool of threads for one owner. Dropping it closes it.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    settings: WorkerSettings,
}

#[derive(Clone, Debug)]
pub(crate) struct WorkerSettings {
    pub(crate) name: String,
    pub(crate) threads: Threads,
    pub(crate) stack: usize,
    /// Jobs that run at once.
    pub(crate) cap: usize,
    /// Jobs that may wait beyond that.
    pub(crate) queue: usize,
    pub(crate) idle: Duration,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// Threads that live.
    live: usize,
    /// Threads that wait for a job.
    idle: usize,
    /// Jobs being run.
    running: usize,
    closed: bool,
}

/// No worker was free and no more may wait, or the pool is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

impl Workers {
    pub(crate) fn new(settings: WorkerSettings) -> Self {
        Self {
            shared: Arc::default(),
            settings,
        }
    }

    /// Hands over a job; never blocks.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Busy> {
        {
            let mut state = self.shared.state.lock();
            let full = state.running + state.queue.len() >= self.settings.cap + self.settings.queue;
            if full || state.closed {
                return Err(Busy);
            }
            state.queue.push_back(job);
            if state.idle >= state.queue.len() {
                self.shared.work.notify_one();
                return Ok(());
            }
            if state.live >= self.settings.cap {
                return Ok(());
            }
            state.live += 1;
        }
        let (shared, idle) = (self.shared.clone(), self.settings.idle);
        let started =
            self.settings
                .threads
                .spawn(&self.settings.name, self.settings.stack, move || {
                    work(&shared, idle);
                });
        if let Err(error) = started {
            let mut state = self.shared.state.lock();
            state.live -= 1;
            if state.live == 0 {
                log::warn!("{}: {error}", self.settings.name);
                state.queue.clear();
                return Err(Busy);
            }
        }
        Ok(())
    }

    /// Ends idle threads at once and busy ones after their job; jobs that wait are dropped.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            std::mem::take(&mut state.queue)
        };
        self.shared.work.notify_all();
        // Not under the lock: jobs own what they work for.
        drop(waiting);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.close();
    }
}

fn work(shared: &Shared, idle: Duration) {
    let mut state = shared.state.lock();
    loop {
        if let Some(job) = state.queue.pop_front() {
            state.running += 1;
            drop(state);
            if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(job)) {
                log::error!("a job panicked: {}", panic_text(&*panic));
            }
            state = shared.state.lock();
            state.running -= 1;
            continue;
        }
        if state.closed {
            break;
        }
        state.idle += 1;
        let until = Deadline::after(idle);
        let mut timed_out = false;
        while state.queue.is_empty() && !state.closed && !timed_out {
            timed_out = shared
                .work
                .wait_until(&mut state, until.instant())
                .timed_out();
        }
        state.idle -= 1;
        if state.queue.is_empty() {
            break;
        }
    }
    state.live -= 1;
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{bounded, unbounded};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn workers(threads: &Threads, cap: usize, queue: usize) -> Workers {
        Workers::new(WorkerSettings {
            name: "test-work".into(),
            threads: threads.clone(),
            stack: 128 * 1024,
            cap,
            queue,
            idle: Duration::from_millis(1),
        })
    }

    #[test]
    fn over_the_cap_jobs_wait_and_over_the_queue_they_are_refused() {
        let threads = Threads::with_limit(10);
        let workers = workers(&threads, 2, 1);
        let (release, gate) = bounded::<()>(0);
        let (done, finished) = unbounded();
        let job = |number: usize| -> Job {
            let (gate, done) = (gate.clone(), done.clone());
            Box::new(move || {
                let _ = gate.recv();
                done.send(number).unwrap();
            })
        };
        assert_eq!(workers.submit(job(0)), Ok(()));
        assert_eq!(workers.submit(job(1)), Ok(()));
        assert_eq!(workers.submit(job(2)), Ok(()));
        // Whether the two threads have taken their jobs yet or not, there is room for three.
        assert_eq!(workers.submit(job(3)), Err(Busy));
        drop(release);
        let mut numbers: Vec<_> = (0..3)
            .map(|_| finished.recv_timeout(LONG).unwrap())
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2]);
        drop(workers);
        assert_eq!(threads.join_all(Deadline::after(LONG)), 0);
    }

    #[test]
    fn idle_threads_end_and_new_ones_come() {
        let threads = Threads::with_limit(10);
        let workers = workers(&threads, 1, 0);
        for _ in 0..3 {
            let (done, finished) = bounded(1);
            workers
                .submit(Box::new(move || done.send(()).unwrap()))
                .unwrap();
            finished.recv_timeout(LONG).unwrap();
            assert_eq!(
                threads.join_all(Deadline::after(LONG)),
                0,
                "the idle thread has not ended"
            );
        }
    }

    #[test]
    fn closing_ends_idle_threads_and_drops_what_waits() {
        let threads = Threads::with_limit(10);
        let mut settings = workers(&threads, 1, 8).settings.clone();
        settings.idle = LONG * 100;
        let workers = Workers::new(settings);
        let (started, has_started) = bounded(1);
        let (release, gate) = bounded::<()>(0);
        let blocked = Box::new(move || {
            started.send(()).unwrap();
            let _ = gate.recv();
        });
        workers.submit(blocked).unwrap();
        let (kept, dropped) = bounded::<()>(0);
        workers.submit(Box::new(move || drop(kept))).unwrap();
        has_started.recv_timeout(LONG).unwrap();
        workers.close();
        // The job is gone already, while the one before it still runs.
        assert!(dropped.try_recv().unwrap_err().is_disconnected());
        assert_eq!(workers.submit(Box::new(|| ())), Err(Busy));
        drop(release);
        assert_eq!(threads.join_all(Deadline::after(LONG)), 0);
    }

    #[test]
    fn a_panicking_job_costs_nothing_but_itself() {
        let threads = Threads::with_limit(10);
        let workers = workers(&threads, 1, 8);
        workers.submit(Box::new(|| panic!("on purpose"))).unwrap();
        assert_eq!(threads.join_all(Deadline::after(LONG)), 0);
        let (done, finished) = bounded(1);
        workers
            .submit(Box::new(move || done.send(()).unwrap()))
            .unwrap();
        finished.recv_timeout(LONG).unwrap();
        drop(workers);
        assert_eq!(threads.join_all(Deadline::after(LONG)), 0);
    }
}
