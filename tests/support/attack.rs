//! What becomes of hostile plugins: which of their processes live, counted by the tests themselves, and what
//! a host says of it.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plugin_runner::report::StopReport;
use plugin_runner::store::Record;
use plugin_runner::{ErrorKind, Result, Session};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::attacker::attacker;
use super::host::TestHost;
use super::plugin::{command, over_stdio};
use super::{LONG, number, wait_until, wait_within};

const VARIABLE: &str = "PLUGIN_RUNNER_COOKIE";
/// As much of an environment as a program can be started with.
const ENVIRONMENT: u64 = 8 * 1024 * 1024;

/// A process, and not another that got its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// When it was started, in the system's ticks.
    started: u64,
}

impl Process {
    /// Reads a line of `/proc/<pid>/stat`; gives its state too.
    fn parse(line: &str) -> Option<(Self, char)> {
        let pid = line.split(' ').next()?.parse().ok()?;
        // After the name, which is in parentheses and may hold anything, with the third field.
        let (_, after) = line.rsplit_once(')')?;
        let mut fields = after.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let started = fields.nth(18)?.parse().ok()?;
        Some((Self { pid, started }, state))
    }

    pub(crate) fn of(pid: i32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self::parse(&line)?.0)
    }

    /// Its state as the system shows it, `T` for one that is stopped; `None` for one that has ended.
    pub(crate) fn state(self) -> Option<char> {
        let line = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let (found, state) = Self::parse(&line)?;
        // The first thread of one that lives may have ended.
        let has_ended = matches!(state, 'Z' | 'X') && {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid));
            tasks.map_or(0, Iterator::count) <= 1
        };
        (found == self && !has_ended).then_some(state)
    }

    pub(crate) fn is_alive(self) -> bool {
        self.state().is_some()
    }

    pub(crate) fn kill(self) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        // If it lives after this was opened, it is what was opened.
        if let Ok(opened) = pidfd_open(pid, PidfdFlags::empty())
            && self.is_alive()
        {
            let _ = pidfd_send_signal(opened, Signal::KILL);
        }
    }
}

/// All processes whose environment has an entry of the cookie that begins so; those that have ended and
/// are not reaped have none.
pub(crate) fn bearers(cookie: &str) -> Vec<Process> {
    let entry = format!("{VARIABLE}={cookie}");
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Some(process) = Process::of(pid) else {
            continue;
        };
        let mut environment = Vec::new();
        let Ok(file) = File::open(format!("/proc/{pid}/environ")) else {
            continue;
        };
        let _ = file.take(ENVIRONMENT).read_to_end(&mut environment);
        let mut entries = environment.split(|&byte| byte == 0);
        if entries.any(|found| found.starts_with(entry.as_bytes())) {
            found.push(process);
        }
    }
    found
}

/// The folder of an attack. Dropping it ends what is left of it.
#[derive(Debug)]
pub(crate) struct Attack(PathBuf);

impl Attack {
    pub(crate) fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// One of several in this test's folder.
    pub(crate) fn of(host: &TestHost, name: &str) -> Self {
        Self::new(host.folder().join(format!("attack-{name}")))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// A plugin that does this, over stdio; it never becomes active.
    pub(crate) fn record(&self, host: &TestHost, id: &str, args: &[&str]) -> Record {
        let folder = self.0.to_str().unwrap();
        let args: Vec<&str> = [folder].into_iter().chain(args.iter().copied()).collect();
        over_stdio(command(host, id, attacker().to_str().unwrap(), &args))
    }

    /// Loads it, starts it, and waits until all of it is there.
    #[track_caller]
    pub(crate) fn run(&self, host: &TestHost, id: &str, args: &[&str]) -> Session {
        let session = host.install(self.record(host, id, args));
        self.start(&session);
        session
    }

    /// Starts it and waits until all of it is there.
    #[track_caller]
    pub(crate) fn start(&self, session: &Session) {
        let _ = fs::remove_file(self.0.join("ready"));
        session.supervised().unwrap().start().unwrap();
        self.wait_until_ready();
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        wait_until("the attackers to come up", || self.has("ready"));
    }

    /// Whether this file is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }

    /// The value of the variable, in its last run.
    pub(crate) fn cookie(&self) -> String {
        fs::read_to_string(self.0.join("cookie")).unwrap()
    }

    /// The part of the cookie that all plugins of the host share.
    pub(crate) fn cookie_of_host(&self) -> String {
        let cookie = self.cookie();
        let (host, _) = cookie.split_once('.').unwrap();
        format!("{host}.")
    }

    /// Kills the process of the plugin, so that it is started again.
    #[track_caller]
    pub(crate) fn crash(&self) {
        let _ = fs::remove_file(self.0.join("ready"));
        let line = fs::read_to_string(self.0.join("leader")).unwrap();
        let (leader, _) = Process::parse(&line).unwrap();
        leader.kill();
    }

    /// All processes that wrote down that they are there.
    pub(crate) fn written(&self) -> Vec<Process> {
        let text = fs::read_to_string(self.0.join("pids")).unwrap_or_default();
        let parse = |line| Some(Process::parse(line)?.0);
        text.lines().filter_map(parse).collect()
    }

    /// Those of them that live.
    pub(crate) fn living(&self) -> Vec<Process> {
        let mut written = self.written();
        written.retain(|process| process.is_alive());
        written
    }

    /// Whether any process of it lives, written down or not. Exact: the lock goes with the last of them,
    /// before that can be reaped. Not to be asked while one may be coming up, which looks itself whether it is the
    /// first.
    pub(crate) fn is_alive(&self) -> bool {
        let Ok(file) = File::open(self.0.join("alive")) else {
            return false;
        };
        flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
    }

    /// Waits until nothing of it is left, by any way of looking.
    #[track_caller]
    pub(crate) fn expect_all_dead(&self, within: Duration) {
        wait_within("the last process of the attack to end", within, || {
            !self.is_alive()
        });
        let living = self.living();
        assert!(living.is_empty(), "written down and alive: {living:?}");
        if self.has("cookie") {
            let bearers = bearers(&self.cookie());
            assert!(bearers.is_empty(), "bears the cookie: {bearers:?}");
        }
    }

    /// No run has begun while something of the one before was there.
    #[track_caller]
    pub(crate) fn expect_one_run_at_a_time(&self) {
        assert!(!self.has("not-alone"), "a run began beside the one before");
    }

    /// Those that are stopped by a signal.
    pub(crate) fn frozen(&self) -> Vec<Process> {
        let mut written = self.written();
        written.retain(|process| process.state() == Some('T'));
        written
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        if !self.is_alive() {
            return;
        }
        let _ = File::create(self.0.join("end"));
        for process in self.living() {
            process.kill();
        }
        let until = Instant::now() + LONG;
        while self.is_alive() && Instant::now() < until {
            std::thread::yield_now();
        }
    }
}

/// What a host says of those that are left, read from its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) left: usize,
    pub(crate) escaped: usize,
    pub(crate) finished: bool,
}

impl Told {
    pub(crate) fn read(text: &str) -> Self {
        let before = |words: &str| {
            let (start, _) = text.split_once(words)?;
            let number = start.rsplit(' ').nth(1)?;
            Some(number.parse().expect("a number of processes"))
        };
        let read = Self {
            left: before(" of it left").unwrap_or(0),
            escaped: before(" got away").unwrap_or(0),
            finished: !text.contains("not finished"),
        };
        assert!(read.left > 0 || text.contains("no process of it"), "{text}");
        read
    }
}

/// What a host says of descendants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing is left.
    Complete,
    /// By name, how many.
    Left(Told),
    /// Something else went wrong.
    Other(String),
}

/// What a stop said.
pub(crate) fn said(stopped: &Result<StopReport>) -> Said {
    match stopped {
        Ok(_) => Said::Complete,
        Err(error) if error.kind() == ErrorKind::DescendantsLeft => {
            Said::Left(Told::read(&error.to_string()))
        }
        Err(error) => Said::Other(error.to_string()),
    }
}

/// How often something is done: by a variable of the environment, where the figure matters.
pub(crate) fn trials(variable: &str, usual: usize) -> usize {
    number(variable).map_or(usual, |set| usize::try_from(set).unwrap())
}

/// Keeps the processors busy at the lowest priority, with as many loops as `PLUGIN_RUNNER_BUSY` says.
#[derive(Debug)]
pub(crate) struct Busy(Vec<std::process::Child>);

impl Busy {
    pub(crate) fn as_told() -> Self {
        let busy = |_| {
            std::process::Command::new("nice")
                .args(["-n", "19", "/bin/sh", "-c", "while :; do :; done"])
                .spawn()
                .unwrap()
        };
        Self((0..trials("PLUGIN_RUNNER_BUSY", 0)).map(busy).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
