//! Threads that run jobs which may block: started when they are needed, capped, and ending when they
//! have been idle for a while. Knows nothing of what the jobs do.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use parking_lot::Mutex;

use crate::thread::{Threads, panic_text};

type Job = Box<dyn FnOnce() + Send>;

/// A capped pool of threads for one owner. Dropping it closes it.
pub(crate) struct Workers {
    settings: WorkerSettings,
    pool: Arc<Mutex<Pool>>,
}

#[derive(Clone, Debug)]
pub(crate) struct WorkerSettings {
    pub(crate) name: String,
    pub(crate) threads: Threads,
    /// Stack of a thread, in bytes.
    pub(crate) stack: usize,
    /// Jobs that run at once.
    pub(crate) cap: usize,
    /// Jobs that may wait beyond that.
    pub(crate) queue: usize,
    /// A thread ends after this long without a job.
    pub(crate) idle: Duration,
}

#[derive(Default)]
struct Pool {
    // Created with the first job, and unbounded: a bounded channel would reserve room for all its jobs at
    // once, in each of thousands of sessions. `submit` holds the bound.
    channel: Option<(Sender<Job>, Receiver<Job>)>,
    closed: bool,
    /// Threads that live.
    live: usize,
    /// Jobs that wait or run.
    jobs: usize,
}

/// No worker was free and no more may wait, or the pool is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

impl Workers {
    pub(crate) fn new(settings: WorkerSettings) -> Self {
        Self {
            settings,
            pool: Arc::default(),
        }
    }

    /// Hands over a job; never blocks.
    ///
    /// # Errors
    /// [`Busy`]; the job is dropped, and never run.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Busy> {
        let WorkerSettings {
            name,
            threads,
            stack,
            cap,
            queue,
            idle,
        } = &self.settings;
        let jobs = {
            let pool = &mut *self.pool.lock();
            if pool.closed || pool.jobs >= cap + queue {
                return Err(Busy);
            }
            let (sender, receiver) = pool.channel.get_or_insert_with(unbounded);
            // Cannot fail: the receiver is here.
            let _ = sender.send(job);
            pool.jobs += 1;
            // Each live thread sees to one job, the one it runs or the next that it takes.
            if pool.jobs <= pool.live || pool.live >= *cap {
                return Ok(());
            }
            pool.live += 1;
            receiver.clone()
        };
        let (pool, idle) = (self.pool.clone(), *idle);
        let started = threads.spawn(name, *stack, move || work(&pool, &jobs, idle));
        if let Err(error) = started {
            let mut pool = self.pool.lock();
            pool.live -= 1;
            if pool.live == 0 {
                let waiting = pool.take_waiting();
                drop(pool);
                drop(waiting);
                log::warn!("{name}: {error}");
                return Err(Busy);
            }
        }
        Ok(())
    }

    /// Returns how many jobs wait or run.
    pub(crate) fn jobs(&self) -> usize {
        self.pool.lock().jobs
    }

    /// Drops the jobs that wait.
    pub(crate) fn clear(&self) {
        let waiting = self.pool.lock().take_waiting();
        drop(waiting);
    }

    /// Ends idle threads at once and busy ones after their job; jobs that wait are dropped.
    pub(crate) fn close(&self) {
        let mut pool = self.pool.lock();
        pool.closed = true;
        let waiting = pool.take_waiting();
        // Which the threads see.
        pool.channel = None;
        drop(pool);
        drop(waiting);
    }
}

impl Pool {
    /// Removes the jobs that wait. The caller drops them when it has released the lock: jobs own what they
    /// work for, and dropping one may come back here.
    fn take_waiting(&mut self) -> Vec<Job> {
        let jobs = self.channel.iter().flat_map(|(_, jobs)| jobs.try_iter());
        let waiting: Vec<_> = jobs.collect();
        self.jobs -= waiting.len();
        waiting
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.close();
    }
}

fn work(pool: &Mutex<Pool>, jobs: &Receiver<Job>, idle: Duration) {
    loop {
        match jobs.recv_timeout(idle) {
            Ok(job) => {
                let run = AssertUnwindSafe(|| {
                    if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(job)) {
                        log::error!("a job panicked: {}", panic_text(&*panic));
                    }
                });
                // A panic of the embedder's logger must not end the thread, which others wait for and count.
                let _ = panic::catch_unwind(run);
                pool.lock().jobs -= 1;
            }
            Err(reason) => {
                let mut pool = pool.lock();
                // Jobs are sent under this lock, so none is left lying.
                if jobs.is_empty() || reason == RecvTimeoutError::Disconnected {
                    pool.live -= 1;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::deadline::Deadline;
    use crate::testing::LONG;

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

    /// Panics when it is dropped.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose, again");
        }
    }

    #[test]
    fn a_panic_while_a_panic_is_logged_leaves_the_thread_to_the_next_job() {
        let threads = Threads::with_limit(10);
        let workers = workers(&threads, 1, 1);
        workers.submit(Box::new(|| panic::panic_any(Bomb))).unwrap();
        let (done, finished) = bounded(1);
        let next = workers.submit(Box::new(move || done.send(()).unwrap()));
        assert_eq!(next, Ok(()));
        finished.recv_timeout(LONG).unwrap();
        drop(workers);
        assert_eq!(threads.join_all(Deadline::after(LONG)), 0);
    }
}
