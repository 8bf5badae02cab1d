//! `ProcReader`: what processes show of themselves under `/proc`, read within bounds. What a process does
//! to its memory, its threads or its arguments makes a read no larger, and little longer.

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

/// So much of an environment is read. Executing a program takes 6 MiB of arguments and environment at
/// most; who presents more has written over its own.
const ENVIRONMENT_LIMIT: usize = 8 * 1024 * 1024;
/// Bytes that are read at a time: more than nearly all that is read here.
const READ: usize = 64 * 1024;
/// A process that has ended and was younger may be one of a chain.
const YOUNG: Duration = Duration::from_secs(1);
/// Of a process whose first thread has ended so many others are asked.
const THREADS_LIMIT: usize = 64;

/// What a process shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inspection {
    Cookie,
    NoCookie,
    /// It is just executing another program, or ending.
    Nothing,
    /// It keeps its environment from being read, or presents one that no program is started with.
    Unreadable,
    /// It has ended and is not reaped.
    Ended {
        /// It had begun less than a second before.
        is_young: bool,
    },
    /// There is no such process any more.
    Gone,
    /// The host could not look: it has no descriptor or no memory left.
    Unknown,
}

/// When a process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartTime {
    /// In clock ticks since the system started: two that had the same number began at different times.
    At(u64),
    /// It has ended.
    Ended,
    /// The host could not look.
    Unknown,
}

/// Reads processes, one after the other, into one buffer.
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

    /// What a process shows now.
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
            // However often it is tried.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Inspection::NoCookie;
            }
            // Not ESRCH: that says that it has no memory, or its first thread none any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Inspection::Gone,
            Err(error) if is_want(&error) => return Inspection::Unknown,
            Ok(None) | Err(_) => {}
        }
        // On most systems that is every second process: the kernel's threads, and those that have
        // ended. So it is found out in one go.
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
            // Or the environment was just being put in place; then it shows by now.
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

    /// For a process whose first thread has ended before the others. All share one memory, so the first
    /// that shows any will do.
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

    /// Reads an environment and looks for the cookie meanwhile; `None` when it is empty.
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

    /// When a process began that has not ended, whatever it shows.
    pub(super) fn start_time(&mut self, pid: Pid) -> StartTime {
        let line = match self.stat(pid.as_raw_pid()) {
            Ok(line) => line,
            Err(error) if is_want(&error) => return StartTime::Unknown,
            Err(_) => return StartTime::Ended,
        };
        match ProcessStatus::parse(line) {
            None | Some(ProcessStatus::Ended { .. }) => StartTime::Ended,
            Some(_) => StatFields::of(line)
                .and_then(|fields| fields.started_at())
                .map_or(StartTime::Ended, StartTime::At),
        }
    }

    /// Whether the process that began then has ended, so that its number may be another's.
    pub(super) fn has_ended(&mut self, pid: Pid, started_at: u64) -> bool {
        match self.start_time(pid) {
            StartTime::At(found) => found != started_at,
            StartTime::Ended => true,
            StartTime::Unknown => false,
        }
    }

    fn status(&mut self, pid: i32) -> io::Result<Option<ProcessStatus>> {
        Ok(ProcessStatus::parse(self.stat(pid)?))
    }

    /// Reads `/proc/<pid>/stat`, which is a line of a few hundred bytes.
    fn stat(&mut self, pid: i32) -> io::Result<&[u8]> {
        let mut file = File::open(format!("/proc/{pid}/stat"))?;
        let count = file.read(&mut self.buffer)?;
        Ok(&self.buffer[..count])
    }
}

/// Whether an error is the host's own want of something, and says nothing of the process.
fn is_want(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM]
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == number)
}

/// The processes there are, the youngest first, without this one.
pub(super) fn processes() -> io::Result<Vec<Pid>> {
    let own = rustix::process::getpid();
    let mut processes: Vec<Pid> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| *pid != own)
        .collect();
    processes.reverse();
    Ok(processes)
}

/// The number that was given last to a process or a thread, if the system says so.
pub(super) fn last_number() -> Option<i32> {
    let mut text = [0; 128];
    let count = File::open("/proc/loadavg").ok()?.read(&mut text).ok()?;
    let text = std::str::from_utf8(&text[..count]).ok()?;
    text.split_whitespace().nth(4)?.parse().ok()
}

/// For how long a process has been there that began then.
fn age(started_at: u64) -> Option<Duration> {
    let now = Duration::try_from(clock_gettime(ClockId::Boottime)).ok()?;
    let milliseconds = started_at.saturating_mul(1000) / clock_ticks_per_second().max(1);
    Some(now.saturating_sub(Duration::from_millis(milliseconds)))
}

/// What is known of a process that shows no environment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProcessStatus {
    /// A thread of the kernel's.
    KernelThread,
    /// Its memory is gone, and its files may be open yet.
    Ending,
    /// It has ended.
    Ended {
        /// In clock ticks since the system started.
        started_at: u64,
    },
    /// It was started without any variable.
    NoEnvironment,
    /// The first of its threads has ended, and others have not.
    FirstThreadEnded,
    /// It is just executing another program: nothing is in place yet.
    Executing,
    /// It has one, whether or not it can be read.
    Environment,
}

impl ProcessStatus {
    /// Reads the line of `/proc/<pid>/stat`.
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
        // Where the environment begins and ends in its memory.
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
