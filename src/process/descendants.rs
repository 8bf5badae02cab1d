//! Descendants that left their plugin's process group: found by a random cookie in the environment
//! they inherited, and killed.
//!
//! Only Linux shows the environment of other processes. Elsewhere nothing is found, and nothing can
//! be said of it either: [`ARE_FOUND`] is false.
//!
//! What still escapes: a process that was given another environment, that wrote over the memory in
//! which its environment was, that runs as another user or is marked as not to be looked at (unless
//! the host may look at it all the same), that sits behind a `/proc` which hides it, or that executes
//! one program after the other so fast that none of a few looks meets it in between. What does not live here: when to look, which
//! is the reaper's and the keeper's.

use std::fmt;
use std::sync::Arc;

use data_encoding::HEXLOWER;

use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// Whether this system shows what it takes.
pub(crate) const ARE_FOUND: bool = cfg!(target_os = "linux");

/// The variable that carries the cookie.
pub(crate) const VARIABLE: &str = "PLUGIN_RUNNER_COOKIE";

/// A host's own random number, in hexadecimal. All that its plugins start bear it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Cookie(Arc<str>);

impl Cookie {
    pub(crate) fn generate() -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::io("get random bytes for a cookie", error))?;
        Ok(Self(HEXLOWER.encode(&bytes).into()))
    }

    /// Takes what another process was told; `None` for what cannot be a cookie.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
        (bytes.len() == 16).then(|| Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The value of the variable for one run.
    pub(crate) fn of_run(&self, run: u64) -> String {
        format!("{}.{run}", self.0)
    }

    /// Those that bear it from this run.
    pub(crate) fn bearers_of_run(&self, run: u64) -> Bearers {
        Bearers {
            entry: format!("{VARIABLE}={}", self.of_run(run)),
            whole: true,
        }
    }

    /// Those that bear it, whatever the run.
    pub(crate) fn bearers(&self) -> Bearers {
        Bearers {
            entry: format!("{VARIABLE}={}.", self.0),
            whole: false,
        }
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// Processes known by an entry of their environment.
pub(crate) struct Bearers {
    entry: String,
    /// The entry must be just that; else it must begin so.
    whole: bool,
}

impl Bearers {
    /// Whether they have this environment: entries, each with a zero byte behind it.
    fn have(&self, environment: &[u8]) -> bool {
        let entry = self.entry.as_bytes();
        environment.split(|&byte| byte == 0).any(|found| {
            if self.whole {
                found == entry
            } else {
                found.starts_with(entry)
            }
        })
    }

    /// Kills them and what they start meanwhile, and waits until they are dead. Gives how many there
    /// were and how many of them are not known to be dead at the deadline.
    ///
    /// With a deadline that has passed they are looked for once, killed, and not waited for.
    pub(crate) fn kill(&self, deadline: Deadline) -> Swept {
        #[cfg(target_os = "linux")]
        return linux::kill(self, deadline);
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (self.have(&[]), deadline);
            Swept::default()
        }
    }
}

/// What looking for descendants came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) killed: usize,
    /// Killed, and not dead in time.
    pub(crate) left: usize,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::{self, File};
    use std::io::{self, Read as _};
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags};
    use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

    use super::{Bearers, Swept};
    use crate::deadline::Deadline;
    use crate::poll;

    /// So many are killed before the next look, each of which takes a descriptor meanwhile.
    const AT_ONCE: usize = 64;
    /// A process that is just executing another program shows no environment. It is looked at so
    /// often again.
    const LOOKS: u32 = 4;
    const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

    pub(super) fn kill(bearers: &Bearers, deadline: Deadline) -> Swept {
        let mut swept = Swept::default();
        let mut look = Look::new(bearers);
        loop {
            // Those of the look before are among all that are looked at now.
            look.unclear.clear();
            match processes() {
                Ok(processes) => look.at(processes),
                Err(error) => {
                    log::warn!("cannot look for descendants: {error}");
                    swept.left = swept.left.max(1);
                    return swept;
                }
            }
            for _ in 1..LOOKS {
                if look.unclear.is_empty() || deadline.has_passed() {
                    break;
                }
                // Nothing wakes it: there is no event for the end of an `execve`.
                let _ = poll::wait(&mut [], Some(Deadline::after(BETWEEN_LOOKS)));
                let unclear = std::mem::take(&mut look.unclear);
                look.at(unclear.into_iter());
            }
            if look.killed == 0 {
                return swept;
            }
            swept.killed += std::mem::take(&mut look.killed);
            swept.left = look.wait_for_ends(deadline);
            // What they started before they died is found by the next look.
            if deadline.has_passed() {
                return swept;
            }
        }
    }

    fn processes() -> io::Result<impl Iterator<Item = Pid>> {
        let own = rustix::process::getpid();
        let entries = fs::read_dir("/proc")?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(Pid::from_raw)
            .filter(move |pid| *pid != own))
    }

    /// Bytes that are read at a time: more than nearly all that is read here.
    const READ: usize = 32 * 1024;

    /// One look at many processes.
    struct Look<'a> {
        bearers: &'a Bearers,
        /// What a process showed, for as long as `shown` says; kept for the next.
        buffer: Vec<u8>,
        shown: usize,
        killed: usize,
        /// Of those that were killed, as far as the system gives such descriptors.
        dying: Vec<OwnedFd>,
        /// Those that showed no environment and may have one.
        unclear: Vec<Pid>,
    }

    enum Shows {
        Cookie,
        NoCookie,
        Nothing,
    }

    impl<'a> Look<'a> {
        fn new(bearers: &'a Bearers) -> Self {
            Self {
                bearers,
                buffer: vec![0; READ],
                shown: 0,
                killed: 0,
                dying: Vec::new(),
                unclear: Vec::new(),
            }
        }

        fn at(&mut self, processes: impl Iterator<Item = Pid>) {
            for pid in processes {
                if self.dying.len() >= AT_ONCE {
                    return;
                }
                match self.what_shows(pid) {
                    Shows::Cookie => self.kill(pid),
                    Shows::NoCookie => {}
                    Shows::Nothing => self.unclear.push(pid),
                }
            }
        }

        fn kill(&mut self, pid: Pid) {
            let opened = pidfd_open(pid, PidfdFlags::empty());
            // Once more: it may have ended meanwhile, and the id be somebody else's.
            if !matches!(self.what_shows(pid), Shows::Cookie) {
                return;
            }
            let signalled = match &opened {
                Ok(process) => pidfd_send_signal(process, Signal::KILL),
                // An old kernel, or none left.
                Err(_) => kill_process(pid, Signal::KILL),
            };
            if signalled.is_ok() {
                self.killed += 1;
                self.dying.extend(opened.ok());
            }
        }

        fn what_shows(&mut self, pid: Pid) -> Shows {
            let pid = pid.as_raw_nonzero();
            match self.read(&format!("/proc/{pid}/environ")) {
                Ok(true) => return self.judge(),
                // However often it is tried.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Shows::NoCookie;
                }
                Ok(false) | Err(_) => {}
            }
            // On most systems that is every second process: the kernel's threads, and those that have
            // ended. So it is found out in one go.
            if !matches!(self.read(&format!("/proc/{pid}/stat")), Ok(true)) {
                return Shows::NoCookie;
            }
            match Status::parse(&self.buffer[..self.shown]) {
                None | Some(Status::Over) => Shows::NoCookie,
                // Or the environment was just being put in place; then it shows by now.
                Some(Status::NoEnvironment) => match self.read(&format!("/proc/{pid}/environ")) {
                    Ok(true) => self.judge(),
                    _ => Shows::NoCookie,
                },
                Some(Status::Unclear) => Shows::Nothing,
                Some(Status::FirstThreadEnded) => self.what_threads_show(pid),
            }
        }

        /// For a process whose first thread has ended before the others.
        fn what_threads_show(&mut self, pid: impl std::fmt::Display) -> Shows {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"));
            let has_memory = tasks.into_iter().flatten().flatten().any(|task| {
                let read = self.read(&format!("{}/environ", task.path().display()));
                matches!(read, Ok(true))
            });
            if has_memory {
                self.judge()
            } else {
                Shows::Nothing
            }
        }

        fn judge(&self) -> Shows {
            if self.bearers.have(&self.buffer[..self.shown]) {
                Shows::Cookie
            } else {
                Shows::NoCookie
            }
        }

        /// Reads a file of the kernel's whole; gives whether there is anything in it. Not with the
        /// standard library's way to the end, which asks for sizes that these files do not have.
        fn read(&mut self, path: &str) -> io::Result<bool> {
            self.shown = 0;
            let mut file = File::open(path)?;
            loop {
                if self.shown == self.buffer.len() {
                    self.buffer.resize(2 * self.shown, 0);
                }
                match file.read(&mut self.buffer[self.shown..]) {
                    Ok(0) => return Ok(self.shown > 0),
                    Ok(count) => self.shown += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        self.shown = 0;
                        return Err(error);
                    }
                }
            }
        }

        /// Waits until all that were killed have ended; gives how many have not at the deadline.
        fn wait_for_ends(&mut self, deadline: Deadline) -> usize {
            while let Some(process) = self.dying.last() {
                let mut descriptors = [PollFd::new(process, PollFlags::IN)];
                match poll::wait(&mut descriptors, Some(deadline)) {
                    Ok(true) => drop(self.dying.pop()),
                    Ok(false) | Err(_) => break,
                }
            }
            std::mem::take(&mut self.dying).len()
        }
    }

    /// What is known of a process that shows no environment.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) enum Status {
        /// A thread of the kernel's, or one that has ended.
        Over,
        /// It was started without any variable.
        NoEnvironment,
        /// The first of its threads has ended, and others have not.
        FirstThreadEnded,
        /// It is just executing another program, or was when it was asked.
        Unclear,
    }

    impl Status {
        /// Reads `/proc/<pid>/stat`.
        pub(super) fn parse(status: &[u8]) -> Option<Self> {
            const KERNEL_THREAD: u64 = 0x0020_0000;
            // Behind the name, which may hold anything. Numbered from 1, the state is the third.
            let end_of_name = status.iter().rposition(|&byte| byte == b')')?;
            let fields = std::str::from_utf8(&status[end_of_name + 1..]).ok()?;
            let fields: Vec<&str> = fields.split_whitespace().collect();
            let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
            if number(9)? & KERNEL_THREAD != 0 {
                return Some(Self::Over);
            }
            if matches!(*fields.first()?, "Z" | "X") {
                return Some(match number(20) {
                    Some(0 | 1) => Self::Over,
                    _ => Self::FirstThreadEnded,
                });
            }
            // Where the environment begins and ends in its memory. In a program that is not yet in
            // place both are 0.
            Some(match (number(50), number(51)) {
                (Some(from), Some(to)) if from == to && from != 0 => Self::NoEnvironment,
                _ => Self::Unclear,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn bearers_are_told_by_the_whole_entry_of_their_run() {
        let cookie = Cookie::generate().unwrap();
        let of = |run| format!("PATH=/bin\0{VARIABLE}={}\0LAST=1\0", cookie.of_run(run));
        assert!(cookie.bearers_of_run(1).have(of(1).as_bytes()));
        assert!(!cookie.bearers_of_run(1).have(of(12).as_bytes()));
        assert!(cookie.bearers().have(of(12).as_bytes()));
        let in_a_value = format!("X={VARIABLE}={}\0", cookie.of_run(1));
        assert!(!cookie.bearers().have(in_a_value.as_bytes()));
        let other = Cookie::generate().unwrap();
        assert!(!other.bearers().have(of(1).as_bytes()));
        assert!(!cookie.bearers().have(b""));
    }

    #[test]
    fn a_cookie_is_read_back_and_nothing_else_is_one() {
        let cookie = Cookie::generate().unwrap();
        assert_eq!(Cookie::from_text(cookie.as_str()), Some(cookie));
        for text in ["", "00", "zz", &"0".repeat(31), &"A".repeat(32)] {
            assert_eq!(Cookie::from_text(text), None, "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn why_a_process_shows_no_environment_is_told_apart() {
        use super::linux::Status;

        let status = |state: &str, flags: u32, threads: u32, from: u64, to: u64| {
            let zeros = |count| vec!["0"; count].join(" ");
            let line = format!(
                "12 (a) b) {state} {} {flags} {} {threads} {} {from} {to} 0\n",
                zeros(5),
                zeros(10),
                zeros(29)
            );
            Status::parse(line.as_bytes()).unwrap()
        };
        assert_eq!(status("I", 0x0020_8040, 1, 0, 0), Status::Over);
        assert_eq!(status("Z", 0x0040_0044, 1, 0, 0), Status::Over);
        assert_eq!(status("Z", 0x0040_0044, 3, 0, 0), Status::FirstThreadEnded);
        assert_eq!(status("S", 0x0040_0000, 1, 7, 7), Status::NoEnvironment);
        assert_eq!(status("R", 0x0040_0000, 1, 0, 0), Status::Unclear);
        // It has one by now.
        assert_eq!(status("R", 0x0040_0000, 1, 7, 9), Status::Unclear);
        assert_eq!(Status::parse(b"12 (a"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_without_any_variable_is_seen_through_at_once() {
        use super::linux::Status;

        let mut child = Command::new("cat")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its answer shows that it is in place.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        let mut answer = [0];
        let output = child.stdout.as_mut().unwrap();
        output.read_exact(&mut answer).unwrap();
        let status = std::fs::read(format!("/proc/{}/stat", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Status::parse(&status), Some(Status::NoEnvironment));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn they_are_killed_with_all_that_they_start_and_others_are_not() {
        let cookie = Cookie::generate().unwrap();
        // Each shell starts another in a session of its own; all hold the pipe open.
        let script = "for i in 1 2 3; do setsid sh -c 'setsid sleep 1000 & sleep 1000' & done; \
                      echo; exec sleep 1000";
        let start = |run| {
            Command::new("/bin/sh")
                .args(["-c", script])
                .env(VARIABLE, cookie.of_run(run))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let (mut one, mut other) = (start(1), start(2));
        let mut byte = [0];
        one.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        other
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
        let swept = cookie
            .bearers_of_run(1)
            .kill(Deadline::after(Duration::from_secs(30)));
        assert!(swept.killed >= 4 && swept.left == 0, "{swept:?}");
        // The pipe has ended, so nothing of it lives.
        assert_eq!(one.stdout.as_mut().unwrap().read(&mut byte).unwrap(), 0);
        one.wait().unwrap();
        assert!(other.try_wait().unwrap().is_none(), "the other run was hit");
        cookie
            .bearers()
            .kill(Deadline::after(Duration::from_secs(30)));
        assert_eq!(other.stdout.as_mut().unwrap().read(&mut byte).unwrap(), 0);
        other.wait().unwrap();
    }
}
