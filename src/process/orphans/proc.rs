//! `ProcReader`: reads what `/proc` shows of processes. Reads are bounded: nothing that a process does to
//! its memory, its threads or its arguments makes them larger, or much longer.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::param::clock_ticks_per_second;
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

use super::matcher::CookieMatcher;
use super::{CookieMatch, ScanProgress};
use crate::deadline::Deadline;
use crate::process::stat::StatFields;

/// How much of an environment is read, in bytes. A program starts with at most 6 MiB of arguments and
/// environment; a process that shows more has overwritten its own.
const ENVIRONMENT_LIMIT: usize = 8 * 1024 * 1024;
/// Bytes that are read at a time. Nearly all files read here are shorter.
const READ: usize = 64 * 1024;
/// An ended process that was younger than this may be part of a chain of forks.
const YOUNG: Duration = Duration::from_secs(1);
/// How many threads are inspected of a process whose first thread has ended.
const THREADS_LIMIT: usize = 64;

/// What the environment of a process shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inspection {
    Cookie,
    NoCookie,
    /// The process is just executing another program, or ending.
    Nothing,
    /// Its environment cannot be read, or is larger than that of any program at its start.
    Unreadable,
    /// The process has ended and is not reaped.
    Ended {
        /// It was started less than a second ago.
        is_young: bool,
    },
    /// The process does not exist any more.
    Gone,
    /// The host could not read it: it has no descriptor or no memory left.
    Unknown,
}

/// Inspects processes one after the other, with one buffer.
pub(super) struct ProcReader<'a> {
    matcher: CookieMatcher<'a>,
    progress: &'a ScanProgress,
    deadline: Deadline,
    buffer: Vec<u8>,
}

impl<'a> ProcReader<'a> {
    pub(super) fn new(
        matching: &'a CookieMatch,
        progress: &'a ScanProgress,
        deadline: Deadline,
    ) -> Self {
        Self {
            matcher: CookieMatcher::new(matching),
            progress,
            deadline,
            buffer: vec![0; READ],
        }
    }

    /// Inspects the environment of a process.
    pub(super) fn inspect(&mut self, pid: Pid) -> Inspection {
        let number = pid.as_raw_pid();
        if self.progress.is_stuck(number) {
            return Inspection::Unreadable;
        }
        self.progress.begin_reading(number);
        let inspection = self.inspect_process(number);
        self.progress.end_reading(number);
        inspection
    }

    fn inspect_process(&mut self, pid: i32) -> Inspection {
        match self.environment(format!("/proc/{pid}/environ")) {
            Ok(Some(inspection)) => return inspection,
            // Trying again would not help.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Inspection::NoCookie;
            }
            // ESRCH is different: the process has no memory, or its first thread has none any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Inspection::Gone,
            Err(error) if is_want(&error) => return Inspection::Unknown,
            Ok(None) | Err(_) => {}
        }
        // On most systems this is every second process, a thread of the kernel or one that has ended. So a
        // single read decides what it is.
        let status = match self.status(pid) {
            Ok(status) => status,
            Err(error) if is_want(&error) => return Inspection::Unknown,
            Err(_) => return Inspection::Gone,
        };
        match status {
            None | Some(ProcessStatus::KernelThread) => Inspection::NoCookie,
            Some(ProcessStatus::Ended { started_at }) => Inspection::Ended {
                is_young: age(started_at).is_none_or(|age| age < YOUNG),
            },
            Some(ProcessStatus::Executing | ProcessStatus::Ending) => Inspection::Nothing,
            Some(ProcessStatus::FirstThreadEnded) => self.inspect_threads(pid),
            // Unless the environment was just being set up; then it can be read by now.
            Some(ProcessStatus::NoEnvironment) => self.once_more(pid, Inspection::NoCookie),
            Some(ProcessStatus::Environment) => self.once_more(pid, Inspection::Unreadable),
        }
    }

    fn once_more(&mut self, pid: i32, otherwise: Inspection) -> Inspection {
        match self.environment(format!("/proc/{pid}/environ")) {
            Ok(Some(inspection @ (Inspection::Cookie | Inspection::NoCookie))) => inspection,
            _ => otherwise,
        }
    }

    /// Inspects a process whose first thread has ended before the others. Threads share their memory, so
    /// any that shows an environment will do.
    fn inspect_threads(&mut self, pid: i32) -> Inspection {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten().take(THREADS_LIMIT) {
            let path = task.path().join("environ");
            if let Ok(Some(inspection)) = self.environment(&path) {
                return inspection;
            }
            if self.deadline.has_passed() {
                break;
            }
        }
        Inspection::Unreadable
    }

    /// Reads an environment and searches it for the cookie; `None` if it is empty.
    fn environment(&mut self, path: impl AsRef<Path>) -> io::Result<Option<Inspection>> {
        let mut file = File::open(path)?;
        let (mut kept, mut total) = (0, 0);
        loop {
            let count = match file.read(&mut self.buffer[kept..]) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let (is_first, is_last) = (total == kept, count == 0);
            total += count;
            let window = &self.buffer[..kept + count];
            if self.matcher.finds(window, is_first, is_last) {
                return Ok(Some(Inspection::Cookie));
            }
            if is_last {
                return Ok((total > 0).then_some(Inspection::NoCookie));
            }
            if total >= ENVIRONMENT_LIMIT || self.deadline.has_passed() {
                return Ok(Some(Inspection::Unreadable));
            }
            let length = window.len();
            let cut = length.saturating_sub(self.matcher.overlap());
            self.buffer.copy_within(cut..length, 0);
            kept = length - cut;
        }
    }

    /// Returns when a process was started, in clock ticks since the system started; `None` if it has ended.
    /// The time tells apart processes that had the same id.
    ///
    /// # Errors
    /// The host lacks a resource to read it.
    pub(super) fn start_time(&mut self, pid: Pid) -> io::Result<Option<u64>> {
        let line = match self.stat(pid.as_raw_pid()) {
            Ok(line) => line,
            Err(error) if is_want(&error) => return Err(error),
            Err(_) => return Ok(None),
        };
        Ok(match ProcessStatus::parse(line) {
            None | Some(ProcessStatus::Ended { .. }) => None,
            Some(_) => StatFields::of(line).and_then(|fields| fields.started_at()),
        })
    }

    /// Whether the process started at that time is known to have ended, so that another may have its id.
    pub(super) fn has_ended(&mut self, pid: Pid, started_at: u64) -> bool {
        matches!(self.start_time(pid), Ok(found) if found != Some(started_at))
    }

    fn status(&mut self, pid: i32) -> io::Result<Option<ProcessStatus>> {
        Ok(ProcessStatus::parse(self.stat(pid)?))
    }

    /// Reads `/proc/<pid>/stat`, a line of a few hundred bytes.
    fn stat(&mut self, pid: i32) -> io::Result<&[u8]> {
        let mut file = File::open(format!("/proc/{pid}/stat"))?;
        let count = file.read(&mut self.buffer)?;
        Ok(&self.buffer[..count])
    }
}

/// Whether an error means that the host lacks a resource, and so says nothing about the process.
fn is_want(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM]
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == number)
}

/// Returns the id given to the newest process or thread, if the system says so.
pub(super) fn last_number() -> Option<i32> {
    let mut text = [0; 128];
    let count = File::open("/proc/loadavg").ok()?.read(&mut text).ok()?;
    let text = std::str::from_utf8(&text[..count]).ok()?;
    text.split_whitespace().nth(4)?.parse().ok()
}

/// Returns the age of a process from its start in clock ticks.
fn age(started_at: u64) -> Option<Duration> {
    let now = Duration::try_from(clock_gettime(ClockId::Boottime)).ok()?;
    let milliseconds = started_at.saturating_mul(1000) / clock_ticks_per_second().max(1);
    Some(now.saturating_sub(Duration::from_millis(milliseconds)))
}

/// Why a process shows no environment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProcessStatus {
    /// It is a thread of the kernel.
    KernelThread,
    /// It is ending: its memory is gone, and its files may still be open.
    Ending,
    /// It has ended and is not reaped.
    Ended {
        /// In clock ticks since the system started.
        started_at: u64,
    },
    /// It was started with an empty environment.
    NoEnvironment,
    /// Its first thread has ended, and others have not.
    FirstThreadEnded,
    /// It is just executing another program, whose environment is not set up yet.
    Executing,
    /// It has an environment, which may be unreadable.
    Environment,
}

impl ProcessStatus {
    /// Parses the line of `/proc/<pid>/stat`.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        const KERNEL_THREAD: u64 = 0x0020_0000;
        const EXITING: u64 = 0x0000_0004;
        let fields = StatFields::of(line)?;
        let flags = fields.number(9)?;
        if flags & KERNEL_THREAD != 0 {
            return Some(Self::KernelThread);
        }
        let has_ended = matches!(fields.state()?, "Z" | "X");
        if has_ended || flags & EXITING != 0 {
            return Some(match fields.number(20) {
                Some(0 | 1) if has_ended => Self::Ended {
                    started_at: fields.started_at()?,
                },
                Some(0 | 1) => Self::Ending,
                _ => Self::FirstThreadEnded,
            });
        }
        // Fields 50 and 51 are the addresses at which the environment begins and ends.
        Some(match (fields.number(50), fields.number(51)) {
            (Some(0) | None, Some(0) | None) => Self::Executing,
            (from, to) if from == to => Self::NoEnvironment,
            _ => Self::Environment,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::stat::processes;

    #[test]
    fn why_a_process_shows_no_environment_is_told_apart() {
        let status = |state: &str, flags: u32, threads: u32, from: u64, to: u64| {
            let zeros = |count| vec!["0"; count].join(" ");
            let line = format!(
                "12 (a) b) {state} {} {flags} {} {threads} {} {from} {to} 0\n",
                zeros(5),
                zeros(10),
                zeros(29)
            );
            ProcessStatus::parse(line.as_bytes()).unwrap()
        };
        assert_eq!(
            status("I", 0x0020_8040, 1, 0, 0),
            ProcessStatus::KernelThread
        );
        let ended = ProcessStatus::Ended { started_at: 0 };
        assert_eq!(status("Z", 0x0040_0044, 1, 0, 0), ended);
        assert_eq!(status("R", 0x0040_0004, 1, 0, 0), ProcessStatus::Ending);
        assert_eq!(
            status("Z", 0x0040_0044, 3, 0, 0),
            ProcessStatus::FirstThreadEnded
        );
        assert_eq!(
            status("S", 0x0040_0000, 1, 7, 7),
            ProcessStatus::NoEnvironment
        );
        assert_eq!(status("R", 0x0040_0000, 1, 0, 0), ProcessStatus::Executing);
        assert_eq!(
            status("R", 0x0040_0000, 1, 7, 9),
            ProcessStatus::Environment
        );
        assert_eq!(ProcessStatus::parse(b"12 (a"), None);
    }

    #[test]
    fn the_age_of_a_process_is_told() {
        let status = fs::read_to_string("/proc/self/stat").unwrap();
        let (_, fields) = status.rsplit_once(')').unwrap();
        let started_at = fields.split_whitespace().nth(19).unwrap();
        let age = age(started_at.parse().unwrap()).unwrap();
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert!(super::age(0).unwrap() > age);
    }

    #[test]
    fn this_process_is_about_as_young_as_the_youngest() {
        assert!(last_number().is_some());
        let all = processes().unwrap();
        assert!(!all.contains(&rustix::process::getpid()));
        assert!(all.is_sorted_by(|younger, older| younger.as_raw_pid() > older.as_raw_pid()));
    }
}
