//! The reaper: the one thread that owns every child process of a host. It alone waits, signals and
//! restarts, so that there is never more than one process per plugin and a process id is never used after
//! it was given back.
//!
//! What lives here: the thread, its commands, restart and kill timers. What does not: the policy
//! ([`policy`], pure), what one plugin's supervision looks like (`ward`), anything that blocks. The thread
//! touches no file and takes no lock that is held around one: a run is prepared and its process spawned
//! on a short thread, which hands the process over; what the system's files say of processes is read on
//! short threads too.
//!
//! The thread sleeps in one `poll` over its wake pipe and every child's exit descriptor, until the
//! next timer is due; an idle host's reaper does not wake at all.

mod cause;
mod charge;
pub(crate) mod policy;
mod ward;

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;

pub use cause::EndCause;
pub(crate) use cause::{Cause, Failure, how_to_connect};
pub(crate) use charge::{Cancel, Charge, ChargeSettings, OutputGuard, Run, Transition, WardId};

use crate::deadline::Deadline;
use crate::error::{Descendants, Disconnect, Error, Result, StartError};
use crate::keeper::link::KeeperLink;
use crate::poll;
use crate::process::descendants::{Looked, Looks};
use crate::process::{ExitReason, Findings};
use crate::thread::{Threads, panic_text};
use charge::Spawned;
use ward::Ward;

/// How a plugin was stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopReport {
    /// How the process ended; `None` when none was running, and for an external plugin.
    pub exit: Option<ExitReason>,
    /// Whether it had to be killed, because it did not end within the grace.
    pub killed: bool,
    /// From the request until nothing was left.
    pub took: Duration,
}

/// What came of a stop: a report once nothing is left, or what is left when that is given up.
pub(crate) type Stopped = std::result::Result<StopReport, Descendants>;

/// A handle to the reaper's thread. Every method only queues; none blocks.
#[derive(Clone, Debug)]
pub(crate) struct Reaper {
    /// Unbounded, because its senders must never wait; few and small messages.
    commands: Sender<Command>,
    wake: Arc<io::PipeWriter>,
    /// The number of the last run begun.
    last_run: Arc<AtomicU64>,
    last_ward: Arc<AtomicU64>,
}

enum Command {
    Start(Arc<dyn Charge>),
    Stop {
        charge: Arc<dyn Charge>,
        grace: Duration,
        waiter: Option<Waiter>,
    },
    /// Something for a plugin that has a ward, if it has one.
    For(WardId, Order),
    ShutDown,
}

enum Order {
    Forget,
    /// The thread that prepares and spawns has come back.
    Prepared(Run, Result<Box<Spawned>, StartError>),
    Connected(Run),
    Disconnected(Run, Arc<Disconnect>),
    Drained(Run),
    /// What the system's files say of the end of this run has been read.
    Found(Run, Findings),
    /// The descendants of these runs that had left their groups have been looked for.
    Looked {
        number: u64,
        runs: BTreeSet<Run>,
        looked: Looked,
    },
}

/// Somebody who waits for a stop, and until when.
pub(crate) struct Waiter {
    pub(crate) until: Instant,
    /// Has room for one.
    pub(crate) done: Sender<Stopped>,
}

impl Reaper {
    /// Starts the thread. What bears the cookie of a run is killed when the run ends.
    pub(crate) fn start(
        threads: &Threads,
        keeper: KeeperLink,
        looks: Option<Looks>,
    ) -> Result<Self> {
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
            last_ward: Arc::default(),
        };
        let body = Thread {
            context: Context {
                reaper: reaper.clone(),
                threads: threads.clone(),
                keeper,
                looks,
                next_background_look: Cell::new(Instant::now()),
                shutting_down: false,
            },
            inbox,
            wake: reader,
            wards: HashMap::new(),
            lingering: Vec::new(),
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

    /// A place for a new session.
    pub(crate) fn new_ward(&self) -> WardId {
        WardId(self.last_ward.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Asks for a run. The last request wins, also against a stop under way.
    pub(crate) fn request_start(&self, charge: Arc<dyn Charge>) {
        self.send(Command::Start(charge));
    }

    /// Asks for an end: SIGINT now, or for a stdio plugin the end of its input now and SIGINT after a third
    /// of the grace; SIGTERM after half of it, SIGKILL after all of it.
    /// The waiter hears when nothing is left.
    pub(crate) fn request_stop(
        &self,
        charge: Arc<dyn Charge>,
        grace: Duration,
        waiter: Option<Waiter>,
    ) {
        self.send(Command::Stop {
            charge,
            grace,
            waiter,
        });
    }

    /// Lets go of a session that is gone, and of all that may be left of its plugin.
    pub(crate) fn forget(&self, ward: WardId) {
        self.tell(ward, Order::Forget);
    }

    fn tell(&self, ward: WardId, order: Order) {
        self.send(Command::For(ward, order));
    }

    /// The plugin of this run is connected.
    pub(crate) fn connected(&self, ward: WardId, run: Run) {
        self.tell(ward, Order::Connected(run));
    }

    /// The connection of this run has ended, and all that came over it has been read.
    pub(crate) fn disconnected(&self, ward: WardId, run: Run, cause: Arc<Disconnect>) {
        self.tell(ward, Order::Disconnected(run, cause));
    }

    /// All output of this run has been taken.
    pub(crate) fn drained(&self, ward: WardId, run: Run) {
        self.tell(ward, Order::Drained(run));
    }

    /// Kills what still runs, starts nothing more, and ends the thread after the last child.
    pub(crate) fn shut_down(&self) {
        self.send(Command::ShutDown);
    }
}

/// What a ward needs of the reaper.
pub(super) struct Context {
    pub(super) reaper: Reaper,
    pub(super) threads: Threads,
    pub(super) keeper: KeeperLink,
    /// `None` when descendants are not looked for.
    pub(super) looks: Option<Looks>,
    /// Looks that nobody waits for share what little of a processor they may have: none before this.
    pub(super) next_background_look: Cell<Instant>,
    /// Nothing is started any more.
    pub(super) shutting_down: bool,
}

struct Thread {
    context: Context,
    inbox: Receiver<Command>,
    wake: io::PipeReader,
    wards: HashMap<WardId, Ward>,
    /// Those whose session is gone and of whose plugin something is left.
    lingering: Vec<WardId>,
}

impl Thread {
    fn run(mut self) {
        loop {
            let ended = self.sleep();
            while let Ok(command) = self.inbox.try_recv() {
                self.obey(command);
            }
            for ward in ended {
                self.with(ward, Ward::exited);
            }
            let now = Instant::now();
            for ward in self.wards.values_mut() {
                if ward.due().is_some_and(|due| due <= now) {
                    guarded(ward, &self.context, |ward, context| {
                        ward.attend(context, now);
                    });
                }
            }
            // Last in a round: what looks would take the processor from has been done.
            for ward in self.wards.values_mut() {
                if ward.plans_look(now) {
                    guarded(ward, &self.context, Ward::begin_look);
                }
            }
            self.wards.retain(|_, ward| !ward.is_over());
            self.lingering.retain(|ward| self.wards.contains_key(ward));
            if self.context.shutting_down && self.wards.values().all(Ward::is_idle) {
                // A panic in it, the logger's say, comes too late to cost anything.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| self.context.keeper.end()));
                return;
            }
        }
    }

    /// Does something with a ward, if it is there.
    fn with(&mut self, ward: WardId, act: impl FnOnce(&mut Ward, &Context)) {
        if let Some(ward) = self.wards.get_mut(&ward) {
            guarded(ward, &self.context, act);
        }
    }

    /// Sleeps until a command, an exit or a timer; gives those whose process has ended.
    fn sleep(&mut self) -> Vec<WardId> {
        let due = self.wards.values().filter_map(Ward::due).min();
        let watched = |(id, ward): (&WardId, _)| Some((*id, Ward::watch(ward)?));
        let watches: Vec<_> = self.wards.iter().filter_map(watched).collect();
        let mut descriptors = vec![PollFd::new(&self.wake, PollFlags::IN)];
        descriptors.extend(
            watches
                .iter()
                .map(|(_, watch)| PollFd::new(*watch, PollFlags::IN)),
        );
        if let Err(error) = poll::wait(&mut descriptors, due.map(Deadline::at)) {
            // Out of memory, say: not again at once.
            log::error!("reaper cannot poll: {error}");
            thread::park_timeout(Duration::from_millis(10));
            return Vec::new();
        }
        let ready = descriptors[1..]
            .iter()
            .map(|descriptor| !descriptor.revents().is_empty());
        let ended = watches
            .iter()
            .zip(ready)
            .filter_map(|((ward, _), ready)| ready.then_some(*ward))
            .collect();
        let mut drain = [0; 64];
        while matches!((&self.wake).read(&mut drain), Ok(read) if read == drain.len()) {}
        ended
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Start(charge) => {
                let id = charge.ward();
                self.ward(&charge);
                self.with(id, Ward::start);
                charge.start_obeyed();
            }
            Command::Stop {
                charge,
                grace,
                waiter,
            } => {
                // One that was never started may have to end what an earlier session left.
                self.ward(&charge);
                self.with(charge.ward(), |ward, _| ward.stop(grace, waiter));
            }
            // One that was never started has no ward, and nothing of it is there.
            Command::For(ward, order) => {
                if matches!(order, Order::Forget) && self.wards.contains_key(&ward) {
                    self.lingering.push(ward);
                }
                self.with(ward, |ward, context| ward.obey(context, order));
            }
            Command::ShutDown => {
                self.context.shutting_down = true;
                for ward in self.wards.values_mut() {
                    guarded(ward, &self.context, |ward, _| ward.end());
                }
            }
        }
    }

    /// Makes the ward of this charge, if it is not there. It takes over what is left of the plugin from the
    /// session that it was loaded with before: it is not stopped, and does not begin anew, beside that.
    fn ward(&mut self, charge: &Arc<dyn Charge>) {
        if self.wards.contains_key(&charge.ward()) {
            return;
        }
        let mut ward = Ward::new(charge.clone());
        for old in &self.lingering {
            if let Some(old) = self.wards.get_mut(old).filter(|old| old.is_of(charge.id())) {
                ward.inherit(old);
            }
        }
        self.wards.insert(charge.ward(), ward);
    }
}

/// Does something with a ward. A panic in it, the embedder's logger's say, costs that plugin and no
/// other.
fn guarded(ward: &mut Ward, context: &Context, act: impl FnOnce(&mut Ward, &Context)) {
    let act = AssertUnwindSafe(|| act(ward, context));
    if let Err(panic) = panic::catch_unwind(act) {
        let text = panic_text(&*panic).to_string();
        // Its second panic is swallowed: there is nothing more to be done.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| ward.give_up(context, &text)));
    }
}
