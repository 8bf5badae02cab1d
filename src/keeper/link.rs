//! The host's end of the keeper: starts it, tells it which groups live, and starts another when it
//! dies. Used by the reaper's thread alone; nothing here blocks but the orderly end, which is bounded.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::Pid;

use super::{Keeper, KeeperStatus};
use crate::deadline::Deadline;
use crate::poll;
use crate::process::descendants::{self, Cookie};
use crate::process::{ExitWatch, resolve};
use crate::thread::Threads;

const SCRIPT: &str = include_str!("keeper.sh");

/// A keeper that lived for less is not worth starting again and again.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// So many short lives in a row, and the host goes on without.
const SHORT_LIVES: u32 = 5;
/// A keeper that takes not one byte for so long is replaced.
const STUCK_LIMIT: Duration = Duration::from_secs(2);
/// How long a keeper may take to end when it was told to.
const END_LIMIT: Duration = Duration::from_millis(200);
/// After a keeper that could not be had, the next is not tried for so long; then the next plugin that
/// is started brings it.
const RETRY_WAIT: Duration = Duration::from_secs(10);
/// Where the tool that makes a session is looked for: not in all of `PATH`, whose folders may be on a
/// disk that does not answer.
const TOOLS: &str = "/usr/bin:/bin:/usr/local/bin";

pub(crate) struct KeeperLink {
    keeper: Keeper,
    /// `None` when descendants are not looked for.
    cookie: Option<Cookie>,
    threads: Threads,
    status: KeeperStatus,
    /// The groups that live, to be told to a keeper that is started later.
    groups: BTreeSet<u32>,
    running: Option<Running>,
    /// Short lives in a row.
    short_lives: u32,
    /// When another is tried after one that could not be had.
    retry_at: Option<Instant>,
}

struct Running {
    child: Child,
    pipe: Pipe,
    watch: ExitWatch,
    since: Instant,
}

/// The way to a keeper's standard input.
struct Pipe {
    input: io::PipeWriter,
    /// Lines, or the rest of one, for which the pipe had no room.
    unsent: Vec<u8>,
    /// When it is given up unless it takes something before.
    stuck_at: Option<Instant>,
}

impl KeeperLink {
    pub(crate) fn new(
        keeper: Keeper,
        cookie: Option<Cookie>,
        threads: Threads,
        status: KeeperStatus,
    ) -> Self {
        if keeper == Keeper::None {
            status.set_problem("the keeper is switched off".to_owned());
        }
        Self {
            keeper,
            cookie,
            threads,
            status,
            groups: BTreeSet::new(),
            running: None,
            short_lives: 0,
            retry_at: None,
        }
    }

    /// Starts the keeper, if there is to be one and it does not run: before a process is spawned, so
    /// that none lives for a moment without it.
    pub(crate) fn ensure_started(&mut self) {
        let too_early = self.retry_at.is_some_and(|at| Instant::now() < at);
        if self.running.is_some() || self.keeper == Keeper::None || too_early {
            return;
        }
        match self.start() {
            Ok(running) => {
                self.retry_at = None;
                self.status.clear_problem();
                log::debug!("keeper started, process {}", running.child.id());
                self.running = Some(running);
            }
            Err(error) => self.do_without(&format!("the keeper could not be started: {error}")),
        }
    }

    /// A group has come to life.
    pub(crate) fn watch_group(&mut self, group: u32) {
        // Told once: a keeper that is started now hears of those that were there before.
        self.ensure_started();
        self.groups.insert(group);
        self.tell(&format!("+ {group}\n"));
    }

    /// A group has been killed; call before its leader is reaped.
    pub(crate) fn forget_group(&mut self, group: u32) {
        if self.groups.remove(&group) {
            self.tell(&format!("- {group}\n"));
        }
    }

    /// The pipe to the keeper, when it is full and there is more to be told.
    pub(crate) fn full_pipe(&self) -> Option<&io::PipeWriter> {
        let pipe = &self.running.as_ref()?.pipe;
        (!pipe.unsent.is_empty()).then_some(&pipe.input)
    }

    /// When [`attend`](Self::attend) has something to do though nothing happened.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.running.as_ref()?.pipe.stuck_at
    }

    /// Goes on telling, and looks at the clock.
    pub(crate) fn attend(&mut self, now: Instant) {
        let Some(running) = &mut self.running else {
            return;
        };
        running.pipe.flush();
        if running.pipe.stuck_at.take_if(|at| *at <= now).is_some() {
            log::warn!("keeper takes no more lines, killing it");
            // Its end is noticed as any other, and brings another.
            let _ = running.child.kill();
        }
    }

    /// The descriptor that tells of the keeper's end.
    pub(crate) fn exit_watch(&self) -> Option<&ExitWatch> {
        self.running.as_ref().map(|running| &running.watch)
    }

    /// The keeper has ended, which nobody asked for: starts another, which hears all that lives.
    pub(crate) fn exited(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let lived = running.since.elapsed();
        let status = running.child.wait();
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        self.short_lives = if lived < SHORT_LIFE {
            self.short_lives + 1
        } else {
            0
        };
        if self.short_lives >= SHORT_LIVES {
            self.do_without(&format!("the keeper ends as soon as it is started ({how})"));
            return;
        }
        log::warn!("keeper ended ({how}); starting another");
        self.ensure_started();
    }

    fn do_without(&mut self, problem: &str) {
        self.retry_at = Some(Instant::now() + RETRY_WAIT);
        self.short_lives = 0;
        self.status.set_problem(problem.to_owned());
        log::warn!("{problem}; plugins may outlive a host that is killed");
    }

    fn start(&self) -> Result<Running, io::Error> {
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
        // What it has to know is in the pipe before it exists: the host may die at any moment.
        let told = self.told();
        let (stdin, input) = io::pipe()?;
        rustix::fs::fcntl_setfl(input.as_fd(), OFlags::NONBLOCK)?;
        // Little memory, and it shows soon when nobody reads. It works without as well.
        #[cfg(target_os = "linux")]
        let _ = rustix::pipe::fcntl_setpipe_size(&input, (2 * told.len()).max(4096));
        let mut pipe = Pipe {
            input,
            unsent: told,
            stuck_at: None,
        };
        pipe.flush();
        let mut child = command
            // Somebody else's host may look for all that bears its own.
            .env_remove(descendants::VARIABLE)
            .current_dir("/")
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        match ExitWatch::new(Pid::from_child(&child), &self.threads) {
            Ok(watch) => Ok(Running {
                child,
                pipe,
                watch,
                since: Instant::now(),
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(io::Error::other(error))
            }
        }
    }

    /// All that a new keeper has to know.
    fn told(&self) -> Vec<u8> {
        let cookie = self.cookie.as_ref();
        let mut lines = cookie
            .map(|cookie| format!("cookie {}\n", cookie.as_str()))
            .unwrap_or_default();
        for group in &self.groups {
            let _ = writeln!(lines, "+ {group}");
        }
        lines.into_bytes()
    }

    fn tell(&mut self, line: &str) {
        if let Some(running) = &mut self.running {
            running.pipe.unsent.extend_from_slice(line.as_bytes());
            running.pipe.flush();
        }
    }

    /// Ends the keeper in order: nothing is left for it to do.
    pub(crate) fn end(&mut self) {
        let nothing_lives = self.groups.is_empty();
        if nothing_lives {
            self.tell("end\n");
        }
        let Some(Running {
            mut child,
            mut pipe,
            watch,
            ..
        }) = self.running.take()
        else {
            return;
        };
        let told = pipe.flush_until(Deadline::after(END_LIMIT));
        if nothing_lives && !told {
            // It has not heard which groups are gone, and would kill whoever has their numbers now.
            let _ = child.kill();
        }
        drop(pipe);
        let ended = poll::readable(watch.as_fd(), Deadline::after(END_LIMIT));
        if !matches!(ended, Ok(true)) {
            log::warn!("keeper does not end, killing it");
            let _ = child.kill();
        }
        let _ = child.wait();
    }
}

impl Pipe {
    /// Writes what the pipe takes. An error is the keeper's end, which is noticed elsewhere.
    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.input.write(&self.unsent) {
                Ok(written) => {
                    self.unsent.drain(..written);
                    self.stuck_at = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck_at
                        .get_or_insert_with(|| Instant::now() + STUCK_LIMIT);
                    return;
                }
                Err(_) => {
                    self.unsent.clear();
                    return;
                }
            }
        }
    }

    /// Writes all, waiting for room; gives whether that was possible.
    fn flush_until(&mut self, deadline: Deadline) -> bool {
        self.flush();
        while !self.unsent.is_empty() {
            if !matches!(poll::writable(self.input.as_fd(), deadline), Ok(true)) {
                return false;
            }
            self.flush();
        }
        true
    }
}

impl Drop for KeeperLink {
    fn drop(&mut self) {
        self.end();
    }
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
