//! Tests in a process of their own: those that look at the whole process, and those whose process is
//! the host that something happens to. They are marked as ignored and run by other tests.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Instant;

use crossbeam_channel::{Receiver, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, kill_process, pidfd_open,
    pidfd_send_signal, waitid,
};

use super::LONG;
use super::assert_matches;

/// Run exactly the ignored test that follows.
const ARGUMENTS: [&str; 3] = ["--exact", "--ignored", "--nocapture"];

/// Runs an ignored test to its end, which must be a good one; gives what it printed.
#[track_caller]
pub(crate) fn run_alone(test: &str) -> String {
    run_under(&mut Command::new("env"), test)
}

/// The same with this command in front, which executes what its further arguments say.
#[track_caller]
pub(crate) fn run_under(command: &mut Command, test: &str) -> String {
    let output = command
        .arg(std::env::current_exe().unwrap())
        .args(ARGUMENTS)
        .arg(test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{test}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text.into_owned()
}

/// An ignored test as a command, to be given variables.
pub(crate) fn command(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(ARGUMENTS).arg(test);
    command
}

/// An ignored test that runs, and is told on its standard input what to do. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Driver {
    child: Child,
    stdin: ChildStdin,
    pub(crate) lines: Receiver<String>,
}

impl Driver {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = unbounded();
        // Ends with the output, which a child of the driver's may hold open a little longer.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            stdin,
            lines,
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for a line that begins so; gives what comes after.
    #[track_caller]
    pub(crate) fn wait_for(&self, beginning: &str) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            let line = self.lines.recv_deadline(deadline);
            let line = line.unwrap_or_else(|error| panic!("no line {beginning:?}: {error}"));
            // The test harness writes in front of the first line.
            if let Some((_, rest)) = line.split_once(beginning) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Writes it a line.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// Kills it, so that it can do nothing about it.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    /// Waits for its own end.
    pub(crate) fn wait(&mut self) {
        Watched::new(self.pid()).expect_end("the driver");
        self.child.wait().unwrap();
    }

    /// Its children at this moment.
    pub(crate) fn children(&self) -> Vec<Pid> {
        children(self.pid())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The children of a process at this moment.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let tasks = format!("/proc/{}/task", parent.as_raw_nonzero());
    let mut tasks: Vec<u32> = fs::read_dir(&tasks)
        .unwrap()
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect();
    // The children of a thread that ends become the first thread's: that is asked last, or one that
    // changes hands would not be seen.
    tasks.sort_unstable_by(|a, b| b.cmp(a));
    let mut children = BTreeSet::new();
    for task in tasks {
        // A thread may have ended meanwhile.
        let path = format!("/proc/{}/task/{task}/children", parent.as_raw_nonzero());
        let text = fs::read_to_string(path).unwrap_or_default();
        children.extend(
            text.split_whitespace()
                .map(|pid| pid.parse::<i32>().unwrap()),
        );
    }
    children.into_iter().filter_map(Pid::from_raw).collect()
}

/// Python that executes what its arguments say, after this.
pub(crate) fn after_python(code: &str) -> Command {
    let mut command = Command::new("python3");
    let code = format!("import os, sys\n{code}\nos.execvp(sys.argv[1], sys.argv[1:])");
    command.args(["-c", &code]);
    command
}

/// What the process has that it could forget to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// Also those that have ended and were not waited for.
    pub(crate) children: usize,
}

impl Holdings {
    pub(crate) fn now() -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
        Self {
            descriptors: count("fd"),
            threads: count("task"),
            children: children(getpid()).len(),
        }
    }

    /// What the process has once it has no more than this many threads: one that counts as ended may
    /// still be on its last instructions, and must not be counted as one that was there before.
    #[track_caller]
    pub(crate) fn at_rest(threads: usize) -> Self {
        let deadline = Instant::now() + LONG;
        loop {
            let now = Self::now();
            if now.threads == threads {
                // What ended threads had was closed before they ended.
                return Self::now();
            }
            assert!(
                Instant::now() < deadline,
                "there were {threads} threads at rest, there is {now}"
            );
            std::thread::yield_now();
        }
    }

    /// Waits until the process has just this.
    #[track_caller]
    pub(crate) fn expect(self) {
        let deadline = Instant::now() + LONG;
        loop {
            let now = Self::now();
            if now == self {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "there was {self}, there is {now}"
            );
            std::thread::yield_now();
        }
    }
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            descriptors,
            threads,
            children,
        } = self;
        write!(
            f,
            "{descriptors} descriptors, {threads} threads, {children} children"
        )
    }
}

/// Asserts that the process has no child, not even one that has ended and was not waited for.
#[track_caller]
pub(crate) fn expect_no_children() {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let child = waitid(WaitId::All, options);
    assert_matches!(
        child,
        Err(rustix::io::Errno::CHILD),
        "there is a child left"
    );
}

/// A process whose end can be waited for, whoever its parent is.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) pid: Pid,
    descriptor: OwnedFd,
}

impl Watched {
    #[track_caller]
    pub(crate) fn new(pid: Pid) -> Self {
        Self {
            pid,
            descriptor: pidfd_open(pid, PidfdFlags::empty()).unwrap(),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn expect_end(&self, what: &str) {
        let timeout = Timespec::try_from(LONG).unwrap();
        let mut descriptors = [PollFd::new(&self.descriptor, PollFlags::IN)];
        let ready = loop {
            match poll(&mut descriptors, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.unwrap(),
            }
        };
        assert_eq!(ready, 1, "{what} ({:?}) did not end in time", self.pid);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // It may be one that the test has frozen.
            let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
        }
    }
}
