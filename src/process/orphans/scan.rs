//! One scan: stops the processes that carry the cookie, and kills them once no new one is found.
//!
//! A stopped process cannot fork. So a scan that stops every match, until a whole pass finds no new one,
//! gets all of them, however fast they fork; killing them one by one would miss those forked meanwhile.
//! In a chain, where each process forks the next and ends, only one process exists at a time: the scan
//! searches for it among the newest process ids.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use rustix::time::{ClockId, clock_gettime};

use super::proc::{Inspection, ProcReader, last_number};
use super::{CookieMatch, ScanProgress, ScanResult};
use crate::deadline::Deadline;
use crate::error::Descendants;
use crate::poll;
use crate::process::stat::processes;

/// Stopped processes are killed after this time even if new ones are still being found.
const STOPPED_LIMIT: Duration = Duration::from_millis(100);
/// How many killed processes are waited for at a time, with a descriptor each.
const AT_ONCE: usize = 64;
/// The first and the longest pause between passes.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// How long a process is inspected again that is executing a program or ending, which may take a while on
/// a busy machine.
const EXECUTING_LIMIT: Duration = Duration::from_millis(250);
/// How many passes in a row must find nothing if processes ended before they could be inspected.
const PASSES_AFTER_STRANGERS: u32 = 4;
/// The same if processes with the cookie escaped.
const PASSES_AFTER_ESCAPE: u32 = 10;
/// How long the newest processes are inspected between two of these passes.
const CHASE: Duration = Duration::from_millis(2);
/// How many of the newest ids are inspected: the newest process of a chain may not be visible yet.
const YOUNGEST: i32 = 4;

pub(super) fn kill(
    matching: &CookieMatch,
    deadline: Deadline,
    quiet: Duration,
    progress: &ScanProgress,
) -> ScanResult {
    let began = processor_time();
    let mut scan = OrphanScan {
        reader: ProcReader::new(matching, progress, deadline),
        progress,
        deadline,
        executing_limit: EXECUTING_LIMIT.max(quiet),
        known: HashMap::new(),
        pass: 0,
        stopped_since: None,
        dying: Vec::new(),
        executing: Vec::new(),
        strange: HashSet::new(),
        ended: HashSet::new(),
        unreadable: HashSet::new(),
        got_away: 0,
        killed: 0,
        has_seen_all: false,
    };
    let is_clear = scan.until_clear(quiet);
    // No process is left stopped, whatever happened.
    scan.kill_stopped();
    scan.recount();
    let mut found = scan.found();
    if is_clear {
        found.escaped = 0;
    }
    ScanResult {
        killed: scan.killed,
        found,
        unclear: scan.unreadable.len(),
        cost: processor_time().saturating_sub(began),
    }
}

struct OrphanScan<'a> {
    reader: ProcReader<'a>,
    progress: &'a ScanProgress,
    deadline: Deadline,
    executing_limit: Duration,
    /// Processes with the cookie that are not known to be dead.
    known: HashMap<Pid, KnownProcess>,
    /// The number of the current pass.
    pass: u32,
    /// Since when a process is stopped.
    stopped_since: Option<Instant>,
    /// Descriptors of killed processes, as far as they could be opened.
    dying: Vec<OwnedFd>,
    /// Processes that may show the cookie in a moment, or be gone.
    executing: Vec<Pid>,
    /// Processes without the cookie. While a process is stopped these are not read again, so that it is
    /// killed sooner; afterwards they are.
    strange: HashSet<Pid>,
    /// Processes that had ended in the last pass.
    ended: HashSet<Pid>,
    /// Processes that this scan does not read again, because it would cost as much as the first time.
    unreadable: HashSet<Pid>,
    /// How many were seen and were gone before they could be stopped.
    got_away: usize,
    killed: usize,
    /// The last complete pass found no new process.
    has_seen_all: bool,
}

struct KnownProcess {
    /// Tells it apart from a later process with its id. Its environment does not: it may have executed a
    /// program with another one just when it was stopped.
    started_at: u64,
    is_killed: bool,
    /// The last pass that saw it.
    pass: u32,
}

/// The result of one pass over all processes.
#[derive(Default)]
struct Pass {
    new: usize,
    /// Processes that ended before they could be inspected.
    strangers: usize,
    /// Processes that could not be inspected because the host lacks a resource.
    unknown: usize,
}

impl OrphanScan<'_> {
    /// Makes passes until no process is found any more; returns whether that was reached in time.
    fn until_clear(&mut self, quiet: Duration) -> bool {
        let (mut passes, mut required) = (0, 1);
        let (mut quiet_since, mut pause) = (None, PAUSES.0);
        loop {
            let away_before = self.got_away;
            let mut pass = match self.pass() {
                Ok(Some(pass)) => pass,
                Ok(None) => return false,
                Err(error) => {
                    log::warn!("cannot scan for orphans: {error}");
                    return false;
                }
            };
            self.settle_executing(&mut pass);
            let new = pass.new;
            if new == 0
                || self
                    .stopped_since
                    .is_some_and(|at| at.elapsed() >= STOPPED_LIMIT)
            {
                self.kill_stopped();
            }
            let got_away = self.got_away > away_before;
            if got_away {
                required = PASSES_AFTER_ESCAPE;
            } else if pass.strangers > 0 {
                // In the first pass they may be the plugin's own children, which it has reaped.
                let is_first = self.pass == 1;
                required = required.max(if is_first { 2 } else { PASSES_AFTER_STRANGERS });
            }
            self.has_seen_all =
                new == 0 && pass.unknown == 0 && !got_away && self.executing.is_empty();
            self.tell();
            if self.has_seen_all && self.known.is_empty() {
                passes += 1;
                let since = *quiet_since.get_or_insert_with(Instant::now);
                if passes >= required && since.elapsed() >= quiet {
                    return true;
                }
            } else {
                passes = 0;
                quiet_since = None;
            }
            if self.deadline.has_passed() || self.progress.is_abandoned() {
                return false;
            }
            if passes < required && required > 1 && self.chase() {
                continue;
            }
            // A new process may have forked just before it was stopped, so the next pass follows at once.
            let must_wait = !self.known.is_empty() || pass.unknown > 0 || passes >= required;
            if new == 0 && must_wait {
                self.wait_for_ends(pause);
                pause = PAUSES.1.min(pause * 2);
            } else {
                pause = PAUSES.0;
            }
        }
    }

    /// Inspects every process and stops those with the cookie. `None` if time ran out meanwhile.
    fn pass(&mut self) -> io::Result<Option<Pass>> {
        self.pass += 1;
        self.executing.clear();
        if self.stopped_since.is_none() {
            self.strange.clear();
        }
        let mut pass = Pass::default();
        let ended_before = std::mem::take(&mut self.ended);
        for pid in processes()? {
            if self.is_known(pid) || self.unreadable.contains(&pid) || self.strange.contains(&pid) {
                continue;
            }
            match self.reader.inspect(pid) {
                Inspection::Cookie => pass.new += usize::from(self.stop(pid)),
                Inspection::NoCookie => drop(self.strange.insert(pid)),
                Inspection::Gone => pass.strangers += 1,
                Inspection::Ended { is_young } => {
                    self.ended.insert(pid);
                    if is_young && !ended_before.contains(&pid) {
                        pass.strangers += 1;
                    }
                }
                Inspection::Unknown => pass.unknown += 1,
                Inspection::Nothing => self.executing.push(pid),
                Inspection::Unreadable => drop(self.unreadable.insert(pid)),
            }
            // The first pass is always completed: the time may be enough for one only.
            if self.progress.is_abandoned() || (self.pass > 1 && self.deadline.has_passed()) {
                return Ok(None);
            }
        }
        let this = self.pass;
        self.known.retain(|_, known| known.pass == this);
        Ok(Some(pass))
    }

    /// Whether this process was found before and is alive.
    fn is_known(&mut self, pid: Pid) -> bool {
        let this = self.pass;
        let Some(known) = self.known.get_mut(&pid) else {
            return false;
        };
        known.pass = this;
        if !self.reader.has_ended(pid, known.started_at) {
            return true;
        }
        self.known.remove(&pid);
        // It is listed as ended, so that it does not count as a stranger.
        self.ended.insert(pid);
        false
    }

    /// Stops a process that has just shown the cookie; returns whether it is stopped.
    fn stop(&mut self, pid: Pid) -> bool {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => {
                // Inspected again, because only from now on the id cannot be reused unnoticed.
                match self.reader.inspect(pid) {
                    Inspection::Cookie => self.stop_by(Some(&process), pid),
                    Inspection::Gone | Inspection::Ended { .. } | Inspection::NoCookie => {
                        self.got_away += 1;
                        false
                    }
                    Inspection::Nothing | Inspection::Unreadable | Inspection::Unknown => {
                        self.executing.push(pid);
                        false
                    }
                }
            }
            Err(Errno::SRCH) => {
                self.got_away += 1;
                false
            }
            // The kernel has no pidfd, or no descriptor is left.
            Err(_) => self.stop_by(None, pid),
        }
    }

    /// Stops a process by its descriptor, or else by its id; returns whether it is stopped.
    fn stop_by(&mut self, process: Option<&OwnedFd>, pid: Pid) -> bool {
        match self.signal(process, pid, Signal::STOP) {
            Ok(()) => {}
            Err(Errno::SRCH) => {
                self.got_away += 1;
                return false;
            }
            // It has changed its user, and may not be signalled any more.
            Err(_) => return false,
        }
        match self.reader.start_time(pid) {
            // Its environment does not matter here: it may just have executed a program with another one.
            Ok(Some(started_at)) => {
                let known = KnownProcess {
                    started_at,
                    is_killed: false,
                    pass: self.pass,
                };
                self.known.insert(pid, known);
                self.stopped_since.get_or_insert_with(Instant::now);
                self.tell();
                true
            }
            // A process that has ended accepts signals until it is reaped.
            Ok(None) => {
                self.got_away += 1;
                false
            }
            // It could not be told apart from a later process with its id, so it is killed now.
            Err(_) => {
                let _ = self.signal(process, pid, Signal::KILL);
                self.killed += 1;
                true
            }
        }
    }

    fn signal(
        &self,
        process: Option<&OwnedFd>,
        pid: Pid,
        signal: Signal,
    ) -> rustix::io::Result<()> {
        match process {
            _ if self.progress.is_harmless => Ok(()),
            Some(process) => pidfd_send_signal(process, signal),
            None => kill_process(pid, signal),
        }
    }

    /// Inspects again those that are executing a program or ending, until they show what they are. It has to
    /// poll, because no event reports the end of an `execve`.
    fn settle_executing(&mut self, pass: &mut Pass) {
        let until = Deadline::after(self.executing_limit).min(self.deadline);
        let mut pause = PAUSES.0;
        while !self.executing.is_empty() && !until.has_passed() {
            let _ = poll::wait(&mut [], Some(Deadline::after(pause)));
            pause = PAUSES.1.min(pause * 2);
            for pid in std::mem::take(&mut self.executing) {
                match self.reader.inspect(pid) {
                    Inspection::Cookie => pass.new += usize::from(self.stop(pid)),
                    Inspection::Nothing | Inspection::Unknown => self.executing.push(pid),
                    Inspection::Ended { is_young: true } | Inspection::Gone => pass.strangers += 1,
                    Inspection::NoCookie | Inspection::Ended { is_young: false } => {}
                    Inspection::Unreadable => drop(self.unreadable.insert(pid)),
                }
            }
        }
        if !self.deadline.has_passed() {
            // They take so long on purpose, or wait for a disk. Later passes do not wait for them again.
            self.unreadable.extend(self.executing.drain(..));
        }
    }

    /// Inspects the newest processes for a moment; returns whether one with the cookie was stopped.
    fn chase(&mut self) -> bool {
        let until = Deadline::after(CHASE).min(self.deadline);
        let own = rustix::process::getpid();
        let mut before = None;
        while !until.has_passed() {
            let Some(last) = last_number() else {
                return false;
            };
            if before == Some(last) {
                continue;
            }
            before = Some(last);
            for number in (last - YOUNGEST + 1..=last).rev() {
                let Some(pid) = Pid::from_raw(number).filter(|pid| *pid != own && number > 0)
                else {
                    continue;
                };
                if self.known.contains_key(&pid) || self.unreadable.contains(&pid) {
                    continue;
                }
                // The descriptor is opened first, so that the signal follows the inspection at once.
                let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
                    continue;
                };
                match self.reader.inspect(pid) {
                    Inspection::Cookie if self.stop_by(Some(&process), pid) => return true,
                    Inspection::Unreadable => drop(self.unreadable.insert(pid)),
                    _ => {}
                }
            }
        }
        false
    }

    /// Kills all stopped processes.
    fn kill_stopped(&mut self) {
        if self.stopped_since.take().is_none() {
            return;
        }
        let stopped = self.known.iter().filter(|(_, known)| !known.is_killed);
        let stopped: Vec<(Pid, u64)> = stopped
            .map(|(pid, known)| (*pid, known.started_at))
            .collect();
        for (pid, started_at) in stopped {
            let opened = pidfd_open(pid, PidfdFlags::empty());
            // It may have been killed by another, and its id reused.
            if self.reader.has_ended(pid, started_at) {
                self.known.remove(&pid);
                continue;
            }
            let _ = self.signal(opened.as_ref().ok(), pid, Signal::KILL);
            self.killed += 1;
            if let Some(known) = self.known.get_mut(&pid) {
                known.is_killed = true;
            }
            if self.dying.len() < AT_ONCE {
                self.dying.extend(opened.ok());
            }
        }
        self.tell();
    }

    /// Waits until the killed processes have ended, at most for `limit`.
    fn wait_for_ends(&mut self, limit: Duration) {
        let until = Deadline::after(limit).min(self.deadline);
        if self.dying.is_empty() {
            // No descriptor to wait for.
            let _ = poll::wait(&mut [], Some(until));
        }
        while let Some(process) = self.dying.pop() {
            let mut descriptors = [PollFd::new(&process, PollFlags::IN)];
            if !matches!(poll::wait(&mut descriptors, Some(until)), Ok(true)) {
                self.dying.push(process);
                return;
            }
        }
    }

    /// Forgets the processes that have ended since they were last seen.
    fn recount(&mut self) {
        let reader = &mut self.reader;
        self.known
            .retain(|pid, known| !reader.has_ended(*pid, known.started_at));
        self.tell();
    }

    /// Updates the tally.
    fn tell(&self) {
        self.progress.tally.tell(self.found());
    }

    fn found(&self) -> Descendants {
        Descendants {
            left: self.known.len(),
            escaped: self.got_away,
            finished: self.has_seen_all,
        }
    }
}

/// Returns the processor time that this thread has used so far.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
