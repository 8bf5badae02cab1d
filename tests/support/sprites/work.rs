//! The thread of a session: it moves input and output, and waits for the end of the process.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, test_kill_process_group,
};

use super::command::{Started, resize};
use super::session::{Event, STDERR, STDOUT, Session};
use super::wake::{self, Sleeper};

/// How much is read at once, and comes in one frame at most.
const READ: usize = 32 * 1024;
/// How long a process group may take to be gone after SIGKILL.
const GONE: Duration = Duration::from_secs(30);

/// What the thread of a session does: moves input and output until the process has ended.
pub(super) struct Work {
    session: Arc<Session>,
    child: Child,
    watch: OwnedFd,
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    sleeper: Sleeper,
}

impl Work {
    pub(super) fn new(session: Arc<Session>, started: Started, sleeper: Sleeper) -> Self {
        let watch = pidfd_open(session.group, PidfdFlags::empty());
        Self {
            watch: watch.expect("a child that is not reaped"),
            session,
            child: started.child,
            stdin: started.stdin,
            stdout: Some(started.stdout),
            stderr: started.stderr,
            sleeper,
        }
    }

    pub(super) fn run(mut self) {
        let terminal = self
            .session
            .asked
            .tty
            .then(|| self.stdout.as_ref()?.try_clone().ok());
        let terminal = terminal.flatten();
        loop {
            if self.wait() {
                break;
            }
            self.sleeper.clear();
            let size = self.session.state.lock().size.take();
            if let (Some(size), Some(terminal)) = (size, &terminal) {
                resize(terminal, size);
            }
            self.move_input();
            self.move_output();
            if self.is_overdue() {
                self.session.signal(Signal::KILL);
            }
        }
        self.finish();
    }

    /// Waits for something to do; whether the process has ended.
    fn wait(&self) -> bool {
        let state = self.session.state.lock();
        let until = match (state.alone_since, self.session.asked.max_run) {
            (Some(since), Some(max_run)) if !self.is_overdue_at(since) => Some(since + max_run),
            _ => None,
        };
        let has_input = !state.input.is_empty();
        drop(state);
        let is_full = self.session.is_full();
        let mut descriptors = vec![
            PollFd::new(&self.watch, PollFlags::IN),
            PollFd::new(&self.sleeper, PollFlags::IN),
        ];
        if let Some(stdin) = self.stdin.as_ref().filter(|_| has_input) {
            descriptors.push(PollFd::new(stdin, PollFlags::OUT));
        }
        for output in [&self.stdout, &self.stderr].into_iter().flatten() {
            if !is_full {
                descriptors.push(PollFd::new(output, PollFlags::IN));
            }
        }
        wake::wait(&mut descriptors, until);
        !descriptors[0].revents().is_empty()
    }

    fn is_overdue_at(&self, alone_since: Instant) -> bool {
        let max_run = self.session.asked.max_run;
        max_run.is_some_and(|max_run| alone_since.elapsed() >= max_run)
    }

    /// Whether it has run on for too long without a client.
    fn is_overdue(&self) -> bool {
        let alone_since = self.session.state.lock().alone_since;
        alone_since.is_some_and(|since| self.is_overdue_at(since))
    }

    fn move_input(&mut self) {
        let mut state = self.session.state.lock();
        while let (Some(stdin), false) = (&mut self.stdin, state.input.is_empty()) {
            match stdin.write(state.input.as_slices().0) {
                Ok(written) => drop(state.input.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It reads no more.
                Err(_) => self.stdin = None,
            }
        }
        if self.stdin.is_none() || state.input_ends && !self.session.asked.tty {
            state.input.clear();
            self.stdin = None;
        }
    }

    fn move_output(&mut self) {
        for (number, output) in [(STDOUT, &mut self.stdout), (STDERR, &mut self.stderr)] {
            let mut buffer = vec![0; READ];
            while let Some(file) = output {
                match file.read(&mut buffer) {
                    Ok(read @ 1..) => self.session.tell(number, &buffer[..read]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // A terminal that nobody holds any more fails with EIO.
                    Ok(_) | Err(_) => *output = None,
                }
                if self.session.is_full() {
                    break;
                }
            }
        }
    }

    /// The process is a zombie: its group's id is still its own.
    fn finish(mut self) {
        let session = self.session.clone();
        {
            let mut state = session.state.lock();
            let _ = kill_process_group(session.group, Signal::KILL);
            state.leader_ended = true;
        }
        self.move_output();
        let status = self.child.wait().expect("a child of ours");
        let signalled = |status: ExitStatus| status.signal().map(|signal| 128 + signal);
        let code = status.code().or_else(|| signalled(status));
        let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255);
        let until = Instant::now() + GONE;
        while test_kill_process_group(session.group).is_ok() && has_living(session.group) {
            assert!(Instant::now() < until, "group {} does not die", session.id);
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let mut state = session.state.lock();
        state.code = Some(code);
        for client in &state.clients {
            client.tell(if state.is_lost {
                Event::Dropped
            } else {
                Event::Ended(code)
            });
        }
        drop(state);
        session.changed.notify_all();
    }
}

/// Whether one of the group's processes runs. Those that have ended may wait for long to be reaped by whoever
/// adopted them.
fn has_living(group: Pid) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats =
        processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    let mut fields = stats.filter_map(|stat| {
        // The name before them may have any character.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let state = fields.next()?.to_owned();
        Some((state, fields.nth(1)?.parse::<i32>().ok()?))
    });
    fields.any(|(state, of)| of == group.as_raw_pid() && !matches!(&*state, "Z" | "X"))
}
