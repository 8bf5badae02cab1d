//! The keeper in Rust: what a program runs that an embedder names as its
//! [`Keeper::Command`](super::Keeper::Command).

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

/// How long descendants are looked for at most.
const SCAN_LIMIT: Duration = Duration::from_secs(5);
/// For so long must none be found before the keeper ends: what the host was just spawning shows the
/// cookie once it has executed its program.
const QUIET: Duration = Duration::from_secs(1);
/// No line is longer; what is, is no host's.
const LINE_LIMIT: usize = 256;

/// Keeps the host that started this process as its [`Keeper`](super::Keeper): waits on standard input
/// for the host's end, then kills the process groups that the host told of and all that bears its
/// cookie.
///
/// For a program that does nothing else. It must ignore or handle SIGINT, SIGTERM and SIGHUP, which
/// this function does not do for it; handlers must do nothing. Puts the process in a session of its
/// own.
///
/// # Blocking
/// Until the host has ended, and then until what it left is dead: a second at least, and about five at
/// most.
///
/// # Errors
/// When standard input cannot be read. What was left is killed then too.
pub fn serve() -> io::Result<()> {
    // Fails for the leader of a group, which has left the host's group already.
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
    /// The host ended in order.
    ended: bool,
}

impl WatchedGroups {
    /// Takes one line; one that is not understood is passed over.
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

    /// Takes the whole lines out of `text`.
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
            // The group may be gone.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        if let Some(cookie) = &self.cookie {
            kill_orphans(cookie);
        }
    }
}

/// Kills all that bears the cookie. Each look is on a thread of its own, since the system may not come
/// back from reading a process.
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
            // Better a look that may hang than none.
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

/// A group that may be signalled: never 0 and 1, which would be far more than a plugin.
fn group(text: &str) -> Option<i32> {
    text.parse().ok().filter(|group| *group > 1)
}

/// Reads what the host tells until it has ended.
fn listen(input: BorrowedFd<'_>, watched_groups: &mut WatchedGroups) -> io::Result<()> {
    // A copy of the pipe may be in a child that the embedder forked; the host's own end is certain.
    let host = host();
    let mut text = Vec::new();
    while !watched_groups.ended {
        let mut descriptors = vec![PollFd::from_borrowed_fd(input, PollFlags::IN)];
        descriptors.extend(host.as_ref().map(|host| PollFd::new(host, PollFlags::IN)));
        poll::wait(&mut descriptors, None)?;
        let is_readable = !descriptors[0].revents().is_empty();
        if !is_readable {
            // The host is gone, and all that it wrote has been read.
            return Ok(());
        }
        let mut buffer = [0; 1024];
        // Not through the standard library's buffer, of which `poll` knows nothing.
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

/// Readable once the host has ended, where the system has such a thing.
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
