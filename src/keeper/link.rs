//! The host's end of the keeper: starts it, announces process groups to it, and replaces it when it has
//! ended or was stopped.
//!
//! Three locks, taken in this order. `current` is held while a keeper is started or replaced, which needs
//! the file system and a new process; the reaper never waits for it. `announced` is held for an instant
//! while a line is written to the keeper's pipe, without blocking. `status` is held for an instant to
//! record, or to ask, whether the keeper works.
//!
//! A thread waits for the keeper to end or to be stopped, and sleeps otherwise.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};

use super::handle::{Changed, KeeperHandle};
use super::{Keeper, KeeperStatus};
use crate::deadline::Deadline;
use crate::poll;
use crate::process::orphans::{self, Cookie};
use crate::process::resolve;
use crate::thread::Threads;

const SCRIPT: &str = include_str!("keeper.sh");

/// A keeper that ended sooner than this counts as a short life.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// After this many short lives in a row the host continues without a keeper.
const SHORT_LIVES: u32 = 5;
/// How long a new keeper may take to read lines that did not fit into its pipe.
const TELL_LIMIT: Duration = Duration::from_secs(2);
/// How long a keeper may take to end after it was asked to, or killed.
const END_LIMIT: Duration = Duration::from_millis(200);
/// After a failed start of a keeper, the next attempt is made with the first plugin started after this
/// time.
const RETRY_WAIT: Duration = Duration::from_secs(10);
/// Where `setsid` is searched for. Not in all of `PATH`, whose directories may be on a file system that does
/// not respond.
const TOOLS: &str = "/usr/bin:/bin:/usr/local/bin";
/// The default capacity of a pipe on Linux: thousands of lines.
const PIPE_SIZE: usize = 64 * 1024;
const WATCHER_STACK: usize = 256 * 1024;

/// The host's end of its keeper. Clones share it.
#[derive(Clone)]
pub(crate) struct KeeperLink {
    shared: Arc<LinkShared>,
}

struct LinkShared {
    keeper: Keeper,
    /// `None` if orphans are not searched for.
    cookie: Option<Cookie>,
    threads: Threads,
    status: Mutex<KeeperStatus>,
    current: Mutex<CurrentKeeper>,
    announced: Mutex<Announced>,
}

#[derive(Default)]
struct CurrentKeeper {
    running: Option<RunningKeeper>,
    /// The thread that waits for it is running.
    is_watched: bool,
    /// Short lives in a row.
    short_lives: u32,
    /// When the next attempt may be made after a failed start.
    retry_at: Option<Instant>,
}

struct RunningKeeper {
    child: Child,
    handle: Arc<KeeperHandle>,
    since: Instant,
}

#[derive(Default)]
struct Announced {
    /// The running groups, which a keeper started later has to know.
    groups: BTreeSet<u32>,
    pipe: Option<KeeperPipe>,
    /// The host is shutting down: no keeper is started any more.
    is_over: bool,
}

/// The pipe to a keeper's standard input.
struct KeeperPipe {
    input: Arc<io::PipeWriter>,
    /// Lines that do not fit into the pipe while the keeper is being started.
    unsent: Vec<u8>,
    /// `None` while it is being started.
    keeper: Option<Arc<KeeperHandle>>,
}

impl KeeperLink {
    pub(crate) fn new(keeper: Keeper, cookie: Option<Cookie>, threads: Threads) -> Self {
        let mut status = KeeperStatus::default();
        if keeper == Keeper::None {
            status.set_problem("the keeper is switched off".to_owned());
        }
        let shared = LinkShared {
            keeper,
            cookie,
            threads,
            status: Mutex::new(status),
            current: Mutex::default(),
            announced: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    pub(super) fn is_shell(&self) -> bool {
        self.shared.keeper == Keeper::Shell
    }

    /// Returns why the keeper does not work, if it does not.
    pub(super) fn problem(&self) -> Option<String> {
        self.shared.status.lock().problem()
    }

    /// Starts the keeper, if there is to be one and it is not running. Called before a process is spawned,
    /// so that none ever runs without a keeper. Waits for the file system.
    pub(crate) fn ensure_started(&self) {
        let shared = &self.shared;
        if shared.keeper == Keeper::None {
            return;
        }
        let mut current = shared.current.lock();
        match &current.running {
            Some(running) => {
                if let Some(changed) = running.handle.has_changed() {
                    shared.replace(&mut current, changed);
                }
            }
            None => {
                if current.retry_at.is_none_or(|at| at <= Instant::now()) {
                    shared.start_or_do_without(&mut current);
                }
            }
        }
        if current.running.is_some() && !current.is_watched {
            let watcher = shared.clone();
            let watch = move || watcher.watch();
            let started = shared.threads.spawn("keeper", WATCHER_STACK, watch);
            current.is_watched = started.is_ok();
            if let Err(error) = started {
                warn(&format!("the keeper is not watched: {error}"));
            }
        }
    }

    /// Announces a new process group. Never blocks.
    pub(crate) fn watch_group(&self, group: u32) {
        let mut announced = self.shared.announced.lock();
        announced.groups.insert(group);
        announced.tell(&format!("+ {group}\n"));
    }

    /// Announces that a group has been killed; call it before the leader is reaped. Never blocks.
    pub(crate) fn forget_group(&self, group: u32) {
        let mut announced = self.shared.announced.lock();
        if announced.groups.remove(&group) {
            announced.tell(&format!("- {group}\n"));
        }
    }

    /// Ends the keeper when the host shuts down, and waits for that for at most half a second. If processes
    /// are left, the keeper kills them first.
    pub(crate) fn end(&self) {
        let nothing_lives = {
            let mut announced = self.shared.announced.lock();
            announced.is_over = true;
            let nothing_lives = announced.groups.is_empty();
            if nothing_lives {
                announced.tell("end\n");
            }
            // The end of the keeper's input; later announcements are dropped.
            announced.pipe = None;
            nothing_lives
        };
        let Some(mut current) = self.shared.current.try_lock_for(END_LIMIT) else {
            log::warn!("a keeper is being started while the host shuts down; it ends by itself");
            return;
        };
        let Some(mut running) = current.running.take() else {
            return;
        };
        self.shared.status.lock().keeper = None;
        if !nothing_lives {
            return;
        }
        if !running.handle.ends_until(Deadline::after(END_LIMIT)) {
            log::warn!("the keeper does not end, killing it");
            running.handle.signal(Signal::KILL);
        }
        let _ = running.reap();
    }
}

impl RunningKeeper {
    /// Reaps a keeper that has ended or was killed. Does not wait for one in uninterruptible sleep.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        if self.handle.ends_until(Deadline::after(END_LIMIT)) {
            self.child.wait()
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

impl LinkShared {
    /// The body of the thread that waits for the keeper. Ends at shutdown, or when there is no keeper.
    fn watch(&self) {
        loop {
            let handle = {
                let mut current = self.current.lock();
                let Some(running) = &current.running else {
                    current.is_watched = false;
                    return;
                };
                running.handle.clone()
            };
            handle.wait_for_change();
            let mut current = self.current.lock();
            if self.announced.lock().is_over {
                current.is_watched = false;
                return;
            }
            // Another thread may have replaced it already.
            if let Some(running) = &current.running
                && let Some(changed) = running.handle.has_changed()
            {
                self.replace(&mut current, changed);
            }
        }
    }

    /// Starts another keeper in the place of one that has ended or was stopped.
    fn replace(&self, current: &mut CurrentKeeper, changed: Changed) {
        let Some(mut running) = current.running.take() else {
            return;
        };
        // Only SIGKILL ends a stopped process. It is sent through the pidfd, because the embedder may have
        // reaped the keeper, and its id may be reused.
        running.handle.signal(Signal::KILL);
        let status = running.reap();
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        match changed {
            Changed::Stopped(_) => {
                let problem = self
                    .status
                    .lock()
                    .add_stop(Instant::now(), &changed.to_string());
                warn(&problem.unwrap_or_else(|| format!("keeper {changed}; starting another")));
            }
            Changed::Ended => {
                let lived = running.since.elapsed();
                current.short_lives = if lived < SHORT_LIFE {
                    current.short_lives + 1
                } else {
                    0
                };
                if current.short_lives >= SHORT_LIVES {
                    let problem = format!("the keeper ends as soon as it is started ({how})");
                    self.do_without(current, &problem);
                    return;
                }
                warn(&format!("keeper ended ({how}); starting another"));
            }
        }
        self.start_or_do_without(current);
    }

    fn start_or_do_without(&self, current: &mut CurrentKeeper) {
        match self.start() {
            Ok(running) => {
                current.retry_at = None;
                self.status.lock().set_keeper(running.handle.clone());
                log::debug!("keeper started, process {}", running.child.id());
                current.running = Some(running);
            }
            Err(error) => {
                let problem = format!("the keeper could not be started: {error}");
                self.do_without(current, &problem);
            }
        }
    }

    fn do_without(&self, current: &mut CurrentKeeper, problem: &str) {
        self.announced.lock().pipe = None;
        current.retry_at = Some(Instant::now() + RETRY_WAIT);
        current.short_lives = 0;
        self.status.lock().set_problem(problem.to_owned());
        warn(&format!(
            "{problem}; plugins may outlive a host that is killed"
        ));
    }

    fn start(&self) -> io::Result<RunningKeeper> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let mut command = match &self.keeper {
            Keeper::None => return Err(io::ErrorKind::Unsupported.into()),
            Keeper::Shell => shell(&path),
            Keeper::Command { program, args } => {
                let mut command = Command::new(program);
                command.args(args);
                command
            }
        };
        let stdin = self.open_pipe()?;
        let spawned = command
            // This process may itself be a plugin of another host, which searches for its own cookie.
            .env_remove(orphans::VARIABLE)
            .current_dir("/")
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        // Closes the host's copy of the reading end: the keeper's must be the only one.
        drop(command);
        let running = spawned.and_then(|child| {
            let mut running = RunningKeeper {
                handle: Arc::new(KeeperHandle::of(Pid::from_child(&child))),
                child,
                since: Instant::now(),
            };
            if self.tell_rest(&running.handle) {
                return Ok(running);
            }
            running.handle.signal(Signal::KILL);
            let _ = running.reap();
            Err(io::Error::other("it does not read its input"))
        });
        if running.is_err() {
            self.announced.lock().pipe = None;
        }
        running
    }

    /// Creates the pipe to a new keeper and returns its reading end. The pipe already holds all that the
    /// keeper has to know, because the host may die at any moment, and receives all later announcements.
    fn open_pipe(&self) -> io::Result<io::PipeReader> {
        let (stdin, input) = io::pipe()?;
        rustix::fs::fcntl_setfl(input.as_fd(), OFlags::NONBLOCK)?;
        let mut announced = self.announced.lock();
        if announced.is_over {
            return Err(io::Error::other("the host ends"));
        }
        let lines = announced.all(self.cookie.as_ref());
        // Optional: the rest is sent once the keeper reads.
        #[cfg(target_os = "linux")]
        if lines.len() > PIPE_SIZE / 2 {
            let _ = rustix::pipe::fcntl_setpipe_size(&input, 2 * lines.len());
        }
        let mut pipe = KeeperPipe {
            input: Arc::new(input),
            unsent: lines,
            keeper: None,
        };
        pipe.flush();
        announced.pipe = Some(pipe);
        Ok(stdin)
    }

    /// Sends a new keeper the lines that did not fit into its pipe; returns whether it read them in time.
    fn tell_rest(&self, keeper: &Arc<KeeperHandle>) -> bool {
        let deadline = Deadline::after(TELL_LIMIT);
        loop {
            let input = {
                let mut announced = self.announced.lock();
                // The host is shutting down meanwhile.
                let Some(pipe) = &mut announced.pipe else {
                    return true;
                };
                pipe.flush();
                if pipe.unsent.is_empty() {
                    pipe.keeper = Some(keeper.clone());
                    return true;
                }
                pipe.input.clone()
            };
            if !matches!(poll::writable(input.as_fd(), deadline), Ok(true)) {
                return false;
            }
        }
    }
}

impl Announced {
    /// Returns the lines with all that a new keeper has to know.
    fn all(&self, cookie: Option<&Cookie>) -> Vec<u8> {
        let mut lines = cookie
            .map(|cookie| format!("cookie {}\n", cookie.as_str()))
            .unwrap_or_default();
        for group in &self.groups {
            let _ = writeln!(lines, "+ {group}");
        }
        lines.into_bytes()
    }

    /// Sends the keeper a line. If it has not read thousands of earlier lines it is killed, and the next
    /// keeper receives all groups again.
    fn tell(&mut self, line: &str) {
        let Some(pipe) = &mut self.pipe else { return };
        pipe.unsent.extend_from_slice(line.as_bytes());
        pipe.flush();
        if let Some(keeper) = &pipe.keeper
            && !pipe.unsent.is_empty()
        {
            keeper.signal(Signal::KILL);
            self.pipe = None;
        }
    }
}

impl KeeperPipe {
    /// Writes as much as fits into the pipe. An error means that the keeper has ended, which its thread
    /// notices.
    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match (&*self.input).write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.unsent.clear(),
            }
        }
    }
}

/// Logs. A panic of the embedder's logger is caught.
fn warn(text: &str) {
    let log = std::panic::AssertUnwindSafe(|| log::warn!("{text}"));
    let _ = std::panic::catch_unwind(log);
}

/// Returns the command of the keeper in `sh`: in a session of its own if the system has `setsid`, else in a
/// process group of its own.
fn shell(path: &OsStr) -> Command {
    let own_session: Result<_, crate::error::StartError> =
        resolve("setsid", Path::new("/"), Some(OsStr::new(TOOLS)));
    let mut command = if let Ok(setsid) = own_session {
        let mut command = Command::new(setsid);
        command.arg("/bin/sh");
        command
    } else {
        let mut command = Command::new("/bin/sh");
        command.process_group(0);
        command
    };
    command
        .args(["-c", SCRIPT, "plugin-runner-keeper"])
        .env_clear()
        .env("PATH", path);
    command
}
