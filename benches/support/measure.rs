//! Taking times, processor time, and a processor away.

use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use super::{Sample, Unit};

/// Does something so many times and takes the time of each, in microseconds, and the processor time of
/// this process for all.
pub(crate) fn latencies(operations: usize, mut operation: impl FnMut()) -> Sample {
    let cpu = cpu_time();
    let times: Vec<Duration> = (0..operations)
        .map(|_| {
            let began = Instant::now();
            operation();
            began.elapsed()
        })
        .collect();
    let cpu = cpu_time().saturating_sub(cpu);
    Sample::of_times(Unit::Microseconds, &times).with_cpu(cpu, operations)
}

/// Processor time of this process so far, all threads, user and system.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap(),
        time.tv_nsec.try_into().unwrap(),
    )
}

/// Runs something with one processor alone: this thread, and the threads and processes that it starts
/// meanwhile.
pub(crate) fn pinned<T>(run: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).unwrap();
    let one = (0..CpuSet::MAX_CPU)
        .rfind(|cpu| before.is_set(*cpu))
        .unwrap();
    let mut only = CpuSet::new();
    only.set(one);
    sched_setaffinity(None, &only).unwrap();
    let result = run();
    sched_setaffinity(None, &before).unwrap();
    result
}
