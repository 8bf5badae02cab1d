//! The processor time that a process has used, readable until it is reaped.

use std::ops::RangeInclusive;
use std::time::Duration;

use rustix::process::Pid;

use super::stat::StatFields;

/// Returns the time used by all threads of the process, without its children; `None` where the system
/// does not say.
pub(super) fn cpu_time(pid: Pid) -> Option<Duration> {
    let line = std::fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    parse(&line, rustix::param::clock_ticks_per_second())
}

fn parse(line: &[u8], ticks_per_second: u64) -> Option<Duration> {
    // Fields 14 and 15 are the time in user mode and in the kernel.
    sum(&StatFields::of(line)?, 14..=15, ticks_per_second)
}

/// Returns the sum of the times in these fields.
pub(super) fn sum(
    fields: &StatFields<'_>,
    which: RangeInclusive<usize>,
    ticks_per_second: u64,
) -> Option<Duration> {
    let ticks = which
        .map(|field| fields.number(field))
        .sum::<Option<u64>>()?;
    let nanoseconds = ticks.checked_mul(1_000_000_000)?;
    Some(Duration::from_nanos(
        nanoseconds.checked_div(ticks_per_second)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_read_whatever_the_programs_name() {
        let line = b"7 (a) (b c) S 1 7 7 0 -1 4194560 104 20 0 0 150 30 9 9 20 0 1 0 94 3 4";
        assert_eq!(parse(line, 100), Some(Duration::from_millis(1800)));
        assert_eq!(parse(b"7 (x) S 1 2", 100), None);
        assert_eq!(parse(b"", 100), None);
        assert_eq!(parse(line, 0), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_used_some_time() {
        assert!(cpu_time(rustix::process::getpid()).is_some());
    }
}
