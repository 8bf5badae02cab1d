//! The reaper: the one thread that owns every child process of a host. It alone spawns, waits,
//! signals and restarts, so that there is never more than one process per plugin and a process id
//! is never used after it was given back.
//!
//! What lives here: the thread, its commands, restart and kill timers. What does not: the policy
//! ([`policy`], pure), what one plugin's supervision looks like (`ward`), anything that blocks:
//! preparing a run happens on a short thread of its own.
//!
//! The thread sleeps in one `poll` over its wake pipe and every child's exit descriptor, until the
//! next timer is due; an idle host's reaper does not wake at all.

mod charge;
pub(crate) mod policy;
mod ward;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

pub(crate) use charge::{
    Cancel, Cause, Charge, ChargeSettings, Failure, OutputGuard, Run, Transition,
};

use crate::error::{Disconnect, Error, Result, StartError};
use crate::id::InstallationId;
use crate::process::{ExitReason, ProcessCommand};
use crate::thread::Threads;
use ward::Ward;

/// What is left to say about a plugin that was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopReport {
    /// How the process ended; `None` when none was running.
    pub exit: Option<ExitReason>,
    /// Whether it had to be killed, because it did not end within the grace.
    pub killed: bool,
    /// From the request until nothing was left.
    pub took: Duration,
}

/// A handle to the reaper's thread. Every method only queues; none blocks.
#[derive(Clone, Debug)]
pub(crate) struct Reaper {
    /// Unbounded, because its senders must never wait; few and small messages.
    commands: Sender<Command>,
    wake: Arc<io::PipeWriter>,
    /// The number of the last run begun.
    last_run: Arc<AtomicU64>,
}

enum Command {
    Start(Arc<dyn Charge>),
    Stop {
        id: InstallationId,
        grace: Duration,
        done: Option<Sender<StopReport>>,
    },
    Forget(InstallationId),
    Prepared {
        id: InstallationId,
        run: Run,
        result: Result<ProcessCommand, StartError>,
    },
    Connected {
        id: InstallationId,
        run: Run,
    },
    Disconnected {
        id: InstallationId,
        run: Run,
        cause: Arc<Disconnect>,
    },
    Drained {
        id: InstallationId,
        run: Run,
    },
    ShutDown,
}

impl Reaper {
    /// Starts the thread.
    pub(crate) fn start(threads: &Threads) -> Result<Self> {
        let failed = |error: io::Error| Error::io("create the reaper's wake pipe", error);
        let (reader, writer) = io::pipe().map_err(failed)?;
        for descriptor in [reader.as_fd(), writer.as_fd()] {
            rustix::fs::fcntl_setfl(descriptor, OFlags::NONBLOCK)
                .map_err(|error| failed(error.into()))?;
        }
        let (commands, inbox) = unbounded();
        let reaper = Self {
            commands,
            wake: Arc::new(writer),
            last_run: Arc::default(),
        };
        let body = Thread {
            reaper: reaper.clone(),
            inbox,
            wake: reader,
            threads: threads.clone(),
            wards: HashMap::new(),
            shutting_down: false,
        };
        threads.spawn("host-reaper", 256 * 1024, move || body.run())?;
        Ok(reaper)
    }

    fn send(&self, command: Command) {
        // After shutdown nobody listens, and nothing is left to be told.
        if self.commands.send(command).is_ok() {
            // A full pipe has woken the thread already.
            let _ = (&*self.wake).write(&[0]);
        }
    }

    fn next_run(&self) -> Run {
        self.last_run.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Asks for a run. The last request wins, also against a stop under way.
    pub(crate) fn request_start(&self, charge: Arc<dyn Charge>) {
        self.send(Command::Start(charge));
    }

    /// Asks for an end: SIGINT now, SIGTERM after half of the grace, SIGKILL after all of it.
    /// `done` hears when nothing is left.
    pub(crate) fn request_stop(
        &self,
        id: InstallationId,
        grace: Duration,
        done: Option<Sender<StopReport>>,
    ) {
        self.send(Command::Stop { id, grace, done });
    }

    /// Lets go of a stopped plugin.
    pub(crate) fn forget(&self, id: InstallationId) {
        self.send(Command::Forget(id));
    }

    /// The plugin of this run is connected.
    pub(crate) fn connected(&self, id: InstallationId, run: Run) {
        self.send(Command::Connected { id, run });
    }

    /// The connection of this run ended.
    pub(crate) fn disconnected(&self, id: InstallationId, run: Run, cause: Arc<Disconnect>) {
        self.send(Command::Disconnected { id, run, cause });
    }

    /// All output of this run has been taken.
    pub(crate) fn drained(&self, id: InstallationId, run: Run) {
        self.send(Command::Drained { id, run });
    }

    /// Ends the thread, after the last child. Stop everything first.
    pub(crate) fn shut_down(&self) {
        self.send(Command::ShutDown);
    }
}

/// What a ward needs of the reaper.
pub(super) struct Context<'a> {
    pub(super) reaper: &'a Reaper,
    pub(super) threads: &'a Threads,
}

struct Thread {
    reaper: Reaper,
    inbox: Receiver<Command>,
    wake: io::PipeReader,
    threads: Threads,
    wards: HashMap<InstallationId, Ward>,
    shutting_down: bool,
}

impl Thread {
    fn run(mut self) {
        loop {
            let ended = self.sleep();
            while let Ok(command) = self.inbox.try_recv() {
                self.obey(command);
            }
            let context = Context {
                reaper: &self.reaper,
                threads: &self.threads,
            };
            for id in ended {
                if let Some(ward) = self.wards.get_mut(&id) {
                    ward.exited();
                }
            }
            let now = Instant::now();
            for ward in self.wards.values_mut() {
                ward.attend(&context, now);
            }
            self.wards.retain(|_, ward| !ward.is_forgotten());
            if self.shutting_down && self.wards.values().all(Ward::is_idle) {
                return;
            }
        }
    }

    /// Sleeps until a command, an exit or a timer; gives the plugins whose process has ended.
    fn sleep(&mut self) -> Vec<InstallationId> {
        let due = self.wards.values().filter_map(Ward::due).min();
        let timeout = due.map(|due| {
            let left = due.saturating_duration_since(Instant::now());
            // Rounded up: waking a moment early would only mean another round.
            let left = left + Duration::from_micros(50);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let watched = |(id, ward): (&InstallationId, _)| Some((*id, Ward::watch(ward)?));
        let watches: Vec<_> = self.wards.iter().filter_map(watched).collect();
        let mut descriptors = vec![PollFd::new(&self.wake, PollFlags::IN)];
        descriptors.extend(
            watches
                .iter()
                .map(|(_, watch)| PollFd::new(*watch, PollFlags::IN)),
        );
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Vec::new(),
            Err(error) => {
                // Out of memory, say.
                log::error!("reaper cannot poll: {error}");
                return Vec::new();
            }
        }
        let ready = descriptors[1..]
            .iter()
            .map(|descriptor| !descriptor.revents().is_empty());
        let ended = watches
            .iter()
            .zip(ready)
            .filter_map(|((id, _), ready)| ready.then_some(*id))
            .collect();
        let mut drain = [0; 64];
        while matches!((&self.wake).read(&mut drain), Ok(read) if read == drain.len()) {}
        ended
    }

    fn obey(&mut self, command: Command) {
        let context = Context {
            reaper: &self.reaper,
            threads: &self.threads,
        };
        match command {
            Command::Start(charge) => {
                if self.shutting_down {
                    charge.transition(Transition::Inactive);
                    return;
                }
                let ward = self
                    .wards
                    .entry(charge.id())
                    .or_insert_with(|| Ward::new(charge.clone()));
                if ward.is_forgotten() {
                    // Unloaded and loaded again in one round: it reports to the new session.
                    *ward = Ward::new(charge);
                }
                ward.start(&context);
            }
            Command::Stop { id, grace, done } => match self.wards.get_mut(&id) {
                Some(ward) => ward.stop(grace, done),
                None => {
                    // Never started: there is nothing to wait for.
                    if let Some(done) = done {
                        let _ = done.send(StopReport {
                            exit: None,
                            killed: false,
                            took: Duration::ZERO,
                        });
                    }
                }
            },
            Command::Forget(id) => {
                if let Some(ward) = self.wards.get_mut(&id) {
                    ward.forget();
                }
            }
            Command::Prepared { id, run, result } => {
                if let Some(ward) = self.wards.get_mut(&id) {
                    ward.prepared(&context, run, result);
                }
            }
            Command::Connected { id, run } => {
                if let Some(ward) = self.wards.get_mut(&id) {
                    ward.connected(run);
                }
            }
            Command::Disconnected { id, run, cause } => {
                if let Some(ward) = self.wards.get_mut(&id) {
                    ward.disconnected(run, cause);
                }
            }
            Command::Drained { id, run } => {
                if let Some(ward) = self.wards.get_mut(&id) {
                    ward.drained(&context, run);
                }
            }
            Command::ShutDown => self.shutting_down = true,
        }
    }
}
