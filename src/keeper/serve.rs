//! The keeper in Rust: the main function of a [`Keeper::Command`](super::Keeper::Command).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::deadline::Deadline;
use crate::poll;
use crate::process::orphans::{Cookie, OrphanScanner, READ_TIMEOUT, SCAN_STACK, Tally};
use crate::thread::Threads;

/// How long the keeper scans for orphans at most.
const SCAN_LIMIT: Duration = Duration::from_secs(5);
/// The keeper ends once it has found no orphan for this time: a process that the host was just spawning
/// shows the cookie only when it has executed its program.
const QUIET: Duration = Duration::from_secs(1);
/// Longer than any line of a host, in bytes.
const LINE_LIMIT: usize = 256;

/// Runs the [`Keeper`](super::Keeper) of the host that started this process: waits for the host's end on
/// standard input, then kills the process groups that the host has announced and all processes with its
/// cookie.
///
/// It is meant for a program that does nothing else. That program has to ignore SIGINT, SIGTERM and SIGHUP,
/// or handle them by doing nothing; this function does not. It moves the process to a session of its own.
///
/// # Blocking
/// Until the host has ended, and then until what it left is dead, which takes between one second and about
/// five.
///
/// # Errors
/// The system's error if standard input cannot be read. What the host left is killed in this case too.
pub fn serve() -> io::Result<()> {
    // Fails for the leader of a process group, which is not in the host's group anyway.
    let _ = rustix::process::setsid();
    let stdin = io::stdin();
    let mut watched_groups = WatchedGroups::default();
    let listened = listen(stdin.as_fd(), &mut watched_groups);
    watched_groups.kill_all();
    listened
}

#[derive(Debug, Default)]
struct WatchedGroups {
    groups: BTreeSet<i32>,
    cookie: Option<Cookie>,
    /// The host has shut down in order.
    ended: bool,
}

impl WatchedGroups {
    /// Handles one line; unknown lines are ignored.
    fn handle_line(&mut self, line: &str) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("cookie", value) => self.cookie = Cookie::from_text(value),
            ("+", value) => self.groups.extend(group(value)),
            ("-", value) => {
                if let Some(group) = group(value) {
                    self.groups.remove(&group);
                }
            }
            ("end", _) => self.ended = true,
            _ => {}
        }
    }

    /// Removes complete lines from `text` and handles them.
    fn handle_lines(&mut self, text: &mut Vec<u8>) {
        while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            self.handle_line(String::from_utf8_lossy(&line).trim_end());
        }
        if text.len() > LINE_LIMIT {
            text.clear();
        }
    }

    fn kill_all(&self) {
        if self.ended {
            return;
        }
        for group in self.groups.iter().filter_map(|group| Pid::from_raw(*group)) {
            // An error means that the group is gone.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        if let Some(cookie) = &self.cookie {
            kill_orphans(cookie);
        }
    }
}

/// Kills all processes with the cookie. Each scan has a thread of its own, because reading a process may
/// hang.
fn kill_orphans(cookie: &Cookie) {
    let (scanner, threads) = (OrphanScanner::new(cookie.clone()), Threads::with_limit(16));
    let deadline = Deadline::after(SCAN_LIMIT);
    while !deadline.has_passed() {
        let Some(progress) = scanner.begin(&Tally::default().into(), false) else {
            return;
        };
        let (done, result) = crossbeam_channel::bounded(1);
        let (matching, watched) = (cookie.match_all(), progress.clone());
        let started = threads.spawn("scan-orphans", SCAN_STACK, move || {
            let _ = done.send(matching.kill(deadline, QUIET, &watched));
        });
        if started.is_err() {
            // A scan that may hang is better than none.
            cookie.match_all().kill(deadline, QUIET, &progress);
            return;
        }
        loop {
            match result.recv_timeout(READ_TIMEOUT) {
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                    if progress.give_up(READ_TIMEOUT) {
                        break;
                    }
                }
                _ => return,
            }
        }
    }
}

/// Parses the id of a group. Refuses 0 and 1, which would signal far more than a plugin.
fn group(text: &str) -> Option<i32> {
    text.parse().ok().filter(|group| *group > 1)
}

/// Reads and handles lines until the host has ended.
fn listen(input: BorrowedFd<'_>, watched_groups: &mut WatchedGroups) -> io::Result<()> {
    // A child that the embedder forked may hold a copy of the pipe open, so the host's process is watched
    // too.
    let host = host();
    let mut text = Vec::new();
    while !watched_groups.ended {
        let mut descriptors = vec![PollFd::from_borrowed_fd(input, PollFlags::IN)];
        descriptors.extend(host.as_ref().map(|host| PollFd::new(host, PollFlags::IN)));
        poll::wait(&mut descriptors, None)?;
        let is_readable = !descriptors[0].revents().is_empty();
        if !is_readable {
            // The host has ended, and all that it wrote has been read.
            return Ok(());
        }
        let mut buffer = [0; 1024];
        // Reads the descriptor itself: lines in the buffer of `io::stdin` would be invisible to `poll`.
        match rustix::io::read(input, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                text.extend_from_slice(&buffer[..count]);
                watched_groups.handle_lines(&mut text);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Opens a descriptor that is readable once the host has ended, if the system has pidfds.
fn host() -> Option<OwnedFd> {
    #[cfg(target_os = "linux")]
    {
        let parent = rustix::process::getppid()?;
        rustix::process::pidfd_open(parent, rustix::process::PidfdFlags::empty()).ok()
    }
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_and_go_and_nonsense_is_passed_over() {
        let mut watched_groups = WatchedGroups::default();
        let mut text = b"cookie 00112233445566778899aabbccddeeff\n+ 10\n+ 20\n- 10\n+ 0\n+ -1\n\
            + 1\n- 99\nwhat\n\n+ 3"
            .to_vec();
        watched_groups.handle_lines(&mut text);
        assert_eq!(watched_groups.groups, BTreeSet::from([20]));
        assert!(watched_groups.cookie.is_some());
        text.extend_from_slice(b"0\nend\n");
        watched_groups.handle_lines(&mut text);
        assert_eq!(watched_groups.groups, BTreeSet::from([20, 30]));
        assert!(watched_groups.ended);
        let mut endless = vec![b'x'; 10 * LINE_LIMIT];
        watched_groups.handle_lines(&mut endless);
        assert!(endless.is_empty());
    }
}
