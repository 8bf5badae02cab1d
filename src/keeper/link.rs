//! The host's end of the keeper: starts it, tells it which groups live, and replaces it when it has
//! ended or was stopped.
//!
//! Three locks, in this order. `current` is held while a keeper is started or replaced, which takes the
//! file system and a process; the reaper never waits for it. `announced` is held for an instant, to tell the
//! keeper something: what it is told goes to a pipe that takes it at once or not at all. `status` is held
//! for an instant, by those who ask whether the keeper can be relied upon too.
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

/// A keeper that lived for less is not worth starting again and again.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// So many short lives in a row, and the host goes on without.
const SHORT_LIVES: u32 = 5;
/// How long a new keeper may take to read what does not fit into its pipe.
const TELL_LIMIT: Duration = Duration::from_secs(2);
/// How long a keeper may take to end when it was told to, or killed.
const END_LIMIT: Duration = Duration::from_millis(200);
/// After a keeper that could not be had, the next is not tried for so long; then the next plugin that
/// is started brings it.
const RETRY_WAIT: Duration = Duration::from_secs(10);
/// Where the tool that makes a session is looked for: not in all of `PATH`, whose directories may be on
/// a disk that does not answer.
const TOOLS: &str = "/usr/bin:/bin:/usr/local/bin";
/// What a pipe holds on Linux unless told otherwise: thousands of lines.
const PIPE_SIZE: usize = 64 * 1024;
const WATCHER_STACK: usize = 256 * 1024;

/// The host's end of its keeper. Clones share it.
#[derive(Clone)]
pub(crate) struct KeeperLink {
    shared: Arc<LinkShared>,
}

struct LinkShared {
    keeper: Keeper,
    /// `None` when descendants are not looked for.
    cookie: Option<Cookie>,
    threads: Threads,
    status: Mutex<KeeperStatus>,
    current: Mutex<CurrentKeeper>,
    announced: Mutex<Announced>,
}

#[derive(Default)]
struct CurrentKeeper {
    running: Option<RunningKeeper>,
    /// The thread that waits for it lives.
    is_watched: bool,
    /// Short lives in a row.
    short_lives: u32,
    /// When another is tried after one that could not be had.
    retry_at: Option<Instant>,
}

struct RunningKeeper {
    child: Child,
    handle: Arc<KeeperHandle>,
    since: Instant,
}

#[derive(Default)]
struct Announced {
    /// The groups that live, to be told to a keeper that is started later.
    groups: BTreeSet<u32>,
    pipe: Option<KeeperPipe>,
    /// The host ends in order: no keeper is started any more.
    is_over: bool,
}

/// The way to a keeper's standard input.
struct KeeperPipe {
    input: Arc<io::PipeWriter>,
    /// What a keeper that is just being started could not be told at once.
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

    /// Why the keeper cannot be relied upon, if it cannot.
    pub(super) fn problem(&self) -> Option<String> {
        self.shared.status.lock().problem()
    }

    /// Starts the keeper, if there is to be one and it does not run: before a process is spawned, so
    /// that none lives for a moment without it. Waits for the file system.
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

    /// A group has come to life.
    pub(crate) fn watch_group(&self, group: u32) {
        let mut announced = self.shared.announced.lock();
        announced.groups.insert(group);
        announced.tell(&format!("+ {group}\n"));
    }

    /// A group has been killed; call before its leader is reaped. Never blocks.
    pub(crate) fn forget_group(&self, group: u32) {
        let mut announced = self.shared.announced.lock();
        if announced.groups.remove(&group) {
            announced.tell(&format!("- {group}\n"));
        }
    }

    /// Ends the keeper in order, for at most half a second. If nothing is left for it to do, it does
    /// nothing; else it kills what is.
    pub(crate) fn end(&self) {
        let nothing_lives = {
            let mut announced = self.shared.announced.lock();
            announced.is_over = true;
            let nothing_lives = announced.groups.is_empty();
            if nothing_lives {
                announced.tell("end\n");
            }
            // The end of its input; and what it is told from now on goes nowhere.
            announced.pipe = None;
            nothing_lives
        };
        let Some(mut current) = self.shared.current.try_lock_for(END_LIMIT) else {
            log::warn!("a keeper is being started while the host ends; it ends by itself");
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
            log::warn!("keeper does not end, killing it");
            running.handle.signal(Signal::KILL);
        }
        let _ = running.reap();
    }
}

impl RunningKeeper {
    /// Reaps a keeper that has ended or was killed. One in uninterruptible sleep is not waited for.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        if self.handle.ends_until(Deadline::after(END_LIMIT)) {
            self.child.wait()
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

impl LinkShared {
    /// The body of the thread that waits for the keeper. Ends with the host, or when there is no keeper.
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
            // Another thread may have been quicker.
            if let Some(running) = &current.running
                && let Some(changed) = running.handle.has_changed()
            {
                self.replace(&mut current, changed);
            }
        }
    }

    /// Replaces a keeper that has ended or was stopped by another, which hears all that lives.
    fn replace(&self, current: &mut CurrentKeeper, changed: Changed) {
        let Some(mut running) = current.running.take() else {
            return;
        };
        // Nothing else ends one that is stopped. Not by its number, which may be free: the embedder may reap
        // what is not its own.
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
            // Another host may look for all that bears its own.
            .env_remove(orphans::VARIABLE)
            .current_dir("/")
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        // It goes at once, so that an end of the host is the end of the keeper's input.
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
            Err(io::Error::other("it does not read what it is told"))
        });
        if running.is_err() {
            self.announced.lock().pipe = None;
        }
        running
    }

    /// Makes the way to a new keeper, with all that it has to know in it already: the host may die at
    /// any moment. From then on it hears what others hear. Returns the reading end.
    fn open_pipe(&self) -> io::Result<io::PipeReader> {
        let (stdin, input) = io::pipe()?;
        rustix::fs::fcntl_setfl(input.as_fd(), OFlags::NONBLOCK)?;
        let mut announced = self.announced.lock();
        if announced.is_over {
            return Err(io::Error::other("the host ends"));
        }
        let lines = announced.all(self.cookie.as_ref());
        // It works without as well.
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

    /// Tells a new keeper what did not fit into its pipe; returns whether it took that in time.
    fn tell_rest(&self, keeper: &Arc<KeeperHandle>) -> bool {
        let deadline = Deadline::after(TELL_LIMIT);
        loop {
            let input = {
                let mut announced = self.announced.lock();
                // The host ends meanwhile.
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
    /// All that a new keeper has to know.
    fn all(&self, cookie: Option<&Cookie>) -> Vec<u8> {
        let mut lines = cookie
            .map(|cookie| format!("cookie {}\n", cookie.as_str()))
            .unwrap_or_default();
        for group in &self.groups {
            let _ = writeln!(lines, "+ {group}");
        }
        lines.into_bytes()
    }

    /// Tells the keeper a line. One that has not read thousands of lines before is killed: its end brings
    /// another, which hears all anew.
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
    /// Writes what the pipe takes. An error is the keeper's end, which is noticed elsewhere.
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

/// Logs, whatever the embedder's logger does.
fn warn(text: &str) {
    let log = std::panic::AssertUnwindSafe(|| log::warn!("{text}"));
    let _ = std::panic::catch_unwind(log);
}

/// `sh` with the script, in a session of its own where the system has the tool for that, else in a
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
