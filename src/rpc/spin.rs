//! Spinning for an answer before going to sleep: when, and for how long.
//!
//! Waking a thread takes tens of microseconds if its processor has gone idle, which is longer than many
//! plugins need to answer. A caller that spins keeps its processor awake and sees the answer at once. That
//! pays for a lone caller on a machine with a processor to spare, but not with many callers, with a slow
//! plugin, or on a busy machine, where processors are not idle anyway. Which case holds is measured: most
//! calls do what was faster lately, and a few do the other.

use std::hint;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::deadline::Deadline;

/// How long a caller spins at most.
const SPIN: Duration = Duration::from_micros(50);
/// Of this many calls …
const PERIOD: u32 = 128;
/// … the first few do what is thought to be slower.
const TRIALS: u32 = 4;
/// Attempts between two readings of the clock.
const TRIES: u32 = 16;
/// Waits are taken for no longer than this, so that a slow call does not count for hundreds.
const LONGEST: Duration = Duration::from_millis(1);

/// How long a caller that waits alone spins for the answer before it sleeps, which takes longer than many
/// plugins need to answer. Zero, for not at all, where this process has one processor.
pub(crate) fn spin_limit() -> Duration {
    match thread::available_parallelism() {
        Ok(processors) if processors.get() > 1 => SPIN,
        _ => Duration::ZERO,
    }
}

/// Whether spinning pays, on one connection.
///
/// Plain loads and stores: a lost race spoils one figure of many.
#[derive(Debug)]
pub(super) struct Spin {
    /// How long a caller spins at most; zero switches it off.
    limit: Duration,
    calls: AtomicU32,
    /// How long waits took lately that began with spinning, and that did not; in nanoseconds, zero as long
    /// as nothing is known.
    spinning: AtomicU32,
    sleeping: AtomicU32,
}

/// A wait under way.
#[must_use]
pub(super) struct SpinWait {
    began: Instant,
    /// Until when to spin.
    pub(super) spin_until: Option<Instant>,
}

impl Spin {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            calls: AtomicU32::new(0),
            spinning: AtomicU32::new(0),
            sleeping: AtomicU32::new(0),
        }
    }

    /// Begins a wait until the deadline, whose end is to be reported to [`ended`](Self::ended). `None` when
    /// spinning is switched off.
    pub(super) fn begin(&self, deadline: Deadline) -> Option<SpinWait> {
        if self.limit.is_zero() {
            return None;
        }
        let call = self.calls.load(Ordering::Relaxed);
        self.calls.store(call.wrapping_add(1), Ordering::Relaxed);
        let spins = self.pays() != (call % PERIOD < TRIALS);
        let began = Instant::now();
        Some(SpinWait {
            began,
            spin_until: spins.then(|| deadline.instant().min(began + self.limit)),
        })
    }

    /// Records how long a wait took.
    pub(super) fn ended(&self, wait: &SpinWait) {
        let took = wait.began.elapsed().min(LONGEST);
        let took = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX).max(1);
        let figure = match wait.spin_until {
            Some(_) => &self.spinning,
            None => &self.sleeping,
        };
        let before = figure.load(Ordering::Relaxed);
        let after = match before {
            0 => took,
            _ => before - before / 8 + took / 8,
        };
        figure.store(after.max(1), Ordering::Relaxed);
    }

    /// Returns whether spinning is faster by enough to be worth the processor's time.
    fn pays(&self) -> bool {
        let spinning = self.spinning.load(Ordering::Relaxed);
        let sleeping = self.sleeping.load(Ordering::Relaxed);
        spinning != 0 && sleeping != 0 && spinning < sleeping / 10 * 9
    }
}

impl SpinWait {
    /// Repeats `attempt` until it returns something, `is_alone` ends or the time to spin is over.
    pub(super) fn spin<T>(
        &self,
        mut attempt: impl FnMut() -> Option<T>,
        is_alone: impl Fn() -> bool,
    ) -> Option<T> {
        let until = self.spin_until?;
        while is_alone() && Instant::now() < until {
            for _ in 0..TRIES {
                let found = attempt();
                if found.is_some() {
                    return found;
                }
                hint::spin_loop();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3600);

    /// Begins a wait that began so long ago, and ends it.
    fn wait(spin: &Spin, looking: Duration, sleeping: Duration) -> bool {
        let mut wait = spin.begin(Deadline::after(LIMIT)).unwrap();
        let spins = wait.spin_until.is_some();
        wait.began -= if spins { looking } else { sleeping };
        spin.ended(&wait);
        spins
    }

    /// How many of a period's waits look.
    fn looks(spin: &Spin, looking: Duration, sleeping: Duration) -> usize {
        let waits = (0..PERIOD).filter(|_| wait(spin, looking, sleeping));
        waits.count()
    }

    const SHORT: Duration = Duration::from_micros(100);
    const LONG: Duration = Duration::from_micros(900);

    #[test]
    fn what_is_quicker_is_done_and_the_other_tried_now_and_then() {
        let spin = Spin::new(LIMIT);
        let trials = TRIALS as usize;
        let all = PERIOD as usize;
        looks(&spin, SHORT, LONG);
        assert_eq!(looks(&spin, SHORT, LONG), all - trials);
        // The plugin has become slow, or the machine busy: both take as long.
        looks(&spin, LONG, LONG);
        assert_eq!(looks(&spin, LONG, LONG), trials);
        // And quick again.
        for _ in 0..8 {
            looks(&spin, SHORT, LONG);
        }
        assert_eq!(looks(&spin, SHORT, LONG), all - trials);
    }

    #[test]
    fn zero_switches_it_off() {
        assert!(
            Spin::new(Duration::ZERO)
                .begin(Deadline::after(LIMIT))
                .is_none()
        );
    }

    #[test]
    fn a_look_ends_with_what_is_found_with_company_and_with_its_time() {
        let wait = SpinWait {
            began: Instant::now(),
            spin_until: Some(Instant::now() + LIMIT),
        };
        let mut count = 0;
        let find = || {
            count += 1;
            (count == 100).then_some(count)
        };
        assert_eq!(wait.spin(find, || true), Some(100));
        let alone = std::cell::Cell::new(100);
        let is_alone = || alone.replace(alone.get() - 1) > 0;
        assert_eq!(wait.spin(|| None::<()>, is_alone), None);
        let over = SpinWait {
            spin_until: Some(wait.began),
            ..wait
        };
        assert_eq!(over.spin(|| None::<()>, || true), None);
    }
}
