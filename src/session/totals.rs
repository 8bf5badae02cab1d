//! `Totals`: what a host has counted since it was built, with that of sessions which are gone; for metrics, whose
//! counters must never go down.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::counters::{Counters, LiveCounters};
use crate::counters::count_by;
use crate::error::{Error, ErrorKind};
use crate::reaper::{ChildId, EndCause};

/// The upper bounds of the buckets of a [`Histogram`]: a call over a pipe takes some 15 µs, and
/// [`Timeouts::call`](crate::Timeouts::call) is 30 s by default.
const BOUNDS: [Duration; 18] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// The counts of a whole host. What each session counts is not counted here once more: it is added up when it is
/// asked for.
pub(crate) struct Totals {
    pub(crate) since: SystemTime,
    /// Calls to plugins that ended with a result.
    pub(crate) answered: Histogram,
    /// Calls to plugins that were sent and failed.
    pub(crate) failed: Histogram,
    failures: [AtomicU64; ErrorKind::ALL.len()],
    /// Calls from plugins, by whether the answer was an error.
    answers: [AtomicU64; 2],
    pub(crate) events_published: AtomicU64,
    run_ends: [AtomicU64; EndCause::ALL.len()],
    restarts: [AtomicU64; EndCause::ALL.len()],
    /// Lines that are in no log.
    pub(crate) log_lines_lost: Arc<AtomicU64>,
    sessions: Mutex<CountedSessions>,
}

/// Locked for an instant, with any lock of a session held, and around no other.
#[derive(Default)]
struct CountedSessions {
    live: HashMap<ChildId, Arc<LiveCounters>>,
    /// The sum of those that are gone.
    gone: Counters,
}

impl Totals {
    /// Counts what this session counts, until [`remove_session`](Self::remove_session) and after.
    pub(super) fn add_session(&self, session: ChildId, counters: Arc<LiveCounters>) {
        self.sessions.lock().live.insert(session, counters);
    }

    /// Takes over the counts of a session that nothing holds any more.
    pub(super) fn remove_session(&self, session: ChildId) {
        let sessions = &mut *self.sessions.lock();
        if let Some(counters) = sessions.live.remove(&session) {
            counters.add_to(&mut sessions.gone);
        }
    }

    /// Returns the sum of what all sessions have counted. Its [`log_lines_lost`](Counters::log_lines_lost) has only
    /// those of sessions that were unloaded.
    pub(crate) fn of_sessions(&self) -> Counters {
        // Cloned, because the reaper may wait for the lock.
        let (mut sum, live) = {
            let sessions = self.sessions.lock();
            let live: Vec<_> = sessions.live.values().cloned().collect();
            (sessions.gone, live)
        };
        for counters in live {
            counters.add_to(&mut sum);
        }
        sum
    }

    /// Counts a call to a plugin that failed before it was sent.
    pub(super) fn call_not_sent(&self, error: &Error) {
        count_by(&self.failures[error.kind() as usize], 1);
    }

    /// Counts a call to a plugin that has ended.
    pub(super) fn call_ended(&self, begun: Option<Instant>, error: Option<&Error>) {
        let took = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        match error {
            None => self.answered.observe(took),
            Some(error) => {
                self.failed.observe(took);
                self.call_not_sent(error);
            }
        }
    }

    /// Returns how many calls to plugins failed in this way.
    pub(crate) fn failures(&self, kind: ErrorKind) -> u64 {
        self.failures[kind as usize].load(Ordering::Relaxed)
    }

    /// Counts the answer to a call from a plugin.
    pub(super) fn count_answer(&self, is_result: bool) {
        count_by(&self.answers[usize::from(is_result)], 1);
    }

    /// Returns how many calls from plugins were answered with a result, or else with an error of a handler.
    pub(crate) fn answers(&self, are_results: bool) -> u64 {
        self.answers[usize::from(are_results)].load(Ordering::Relaxed)
    }

    pub(super) fn run_ended(&self, cause: EndCause, is_restarted: bool) {
        count_by(&self.run_ends[cause as usize], 1);
        count_by(&self.restarts[cause as usize], usize::from(is_restarted));
    }

    pub(crate) fn run_ends(&self, cause: EndCause) -> u64 {
        self.run_ends[cause as usize].load(Ordering::Relaxed)
    }

    /// Returns how many of those ends another run followed, or was to follow.
    pub(crate) fn restarts(&self, cause: EndCause) -> u64 {
        self.restarts[cause as usize].load(Ordering::Relaxed)
    }
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            since: SystemTime::now(),
            answered: Histogram::default(),
            failed: Histogram::default(),
            failures: [const { AtomicU64::new(0) }; ErrorKind::ALL.len()],
            answers: Default::default(),
            events_published: AtomicU64::new(0),
            run_ends: Default::default(),
            restarts: Default::default(),
            log_lines_lost: Arc::default(),
            sessions: Mutex::default(),
        }
    }
}

/// Counts durations by size.
#[derive(Default)]
pub(crate) struct Histogram {
    /// One for each of the [`BOUNDS`], and the last for what is longer.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// What a [`Histogram`] has counted.
pub(crate) struct Distribution {
    /// Upper bounds, and how many durations are up to them.
    pub(crate) buckets: Vec<(Duration, u64)>,
    pub(crate) count: u64,
    pub(crate) sum: Duration,
}

impl Histogram {
    fn observe(&self, duration: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < duration);
        count_by(&self.buckets[bucket], 1);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn distribution(&self) -> Distribution {
        let mut count = 0;
        let mut up_to = |bucket: &AtomicU64| {
            count += bucket.load(Ordering::Relaxed);
            count
        };
        let buckets = BOUNDS.iter().zip(&self.buckets);
        Distribution {
            buckets: buckets
                .map(|(bound, bucket)| (*bound, up_to(bucket)))
                .collect(),
            count: up_to(&self.buckets[BOUNDS.len()]),
            sum: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn a_sum_never_goes_down_while_sessions_come_and_go() {
        const SESSIONS: u64 = 30_000;
        let totals = Totals::default();
        let come_and_go = &|thread: u64| {
            for number in 0..SESSIONS {
                let id = ChildId::for_test(thread * SESSIONS + number);
                let counters = Arc::<LiveCounters>::default();
                totals.add_session(id, counters.clone());
                count_by(&counters.connections, 1);
                count_by(&counters.rpc.replies, 2);
                totals.remove_session(id);
            }
        };
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = totals.of_sessions();
                while !is_over.load(Ordering::Relaxed) {
                    let sum = totals.of_sessions();
                    assert!(sum.connections >= last.connections);
                    assert!(sum.replies >= last.replies);
                    last = sum;
                }
            });
            let sessions = [0, 1, 2].map(|thread| scope.spawn(move || come_and_go(thread)));
            for one in sessions {
                one.join().unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
        let sum = totals.of_sessions();
        assert_eq!(sum.connections, 3 * SESSIONS);
        assert_eq!(sum.replies, 6 * SESSIONS);
        assert!(totals.sessions.lock().live.is_empty());
    }

    #[test]
    fn a_duration_is_in_the_bucket_of_its_bound_and_in_all_above() {
        assert!(BOUNDS.is_sorted());
        let histogram = Histogram::default();
        let times = [
            Duration::ZERO,
            Duration::from_micros(100),
            Duration::from_nanos(100_001),
            Duration::from_secs(60),
            Duration::from_secs(61),
        ];
        for time in times {
            histogram.observe(time);
        }
        let found = histogram.distribution();
        let up_to = |bound| found.buckets.iter().find(|(is, _)| *is == bound).unwrap().1;
        assert_eq!(up_to(Duration::from_micros(100)), 2);
        assert_eq!(up_to(Duration::from_micros(250)), 3);
        assert_eq!(up_to(Duration::from_secs(30)), 3);
        assert_eq!(up_to(Duration::from_secs(60)), 4);
        assert_eq!(found.count, 5);
        assert_eq!(found.sum, times.iter().sum::<Duration>());
    }
}
