//! The reaper: the one thread that owns every child process of a host. It alone waits, signals and
//! restarts, so that there is never more than one process per plugin and a process id is never used after
//! it was given back.
//!
//! What lives here: the thread, its commands, restart and kill timers. What does not: the policy
//! ([`policy`], pure), what one plugin's supervision looks like (`child`), anything that blocks. The thread
//! touches no file and takes no lock that is held around one: a run is prepared and its process spawned
//! on a short thread, which hands the process over; what the system's files say of processes is read on
//! short threads too.
//!
//! The thread sleeps in one `poll` over its wake pipe and every child's exit descriptor, until the
//! next timer is due; an idle host's reaper does not wake at all.

mod cause;
mod child;
mod hooks;
pub(crate) mod policy;

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
pub(crate) use cause::{Cause, EndedRun, how_to_connect};
pub(crate) use hooks::{Cancel, ChildHooks, ChildId, ChildSpec, OutputGuard, RunId, Transition};

use crate::deadline::Deadline;
use crate::error::{Descendants, Disconnect, Error, Result, StartError};
use crate::keeper::link::KeeperLink;
use crate::poll;
use crate::process::orphans::{OrphanScanner, ScanResult};
use crate::process::{ExitFindings, ExitReason};
use crate::thread::{Threads, panic_text};
use child::SupervisedChild;
use hooks::Spawned;

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
    commands: Sender<ReaperCommand>,
    wake: Arc<io::PipeWriter>,
    /// The number of the last run begun.
    last_run: Arc<AtomicU64>,
    last_child: Arc<AtomicU64>,
}

enum ReaperCommand {
    Start(Arc<dyn ChildHooks>),
    Stop {
        hooks: Arc<dyn ChildHooks>,
        grace: Duration,
        waiter: Option<StopWaiter>,
    },
    /// Something for a plugin that has a ward, if it has one.
    For(ChildId, ChildCommand),
    ShutDown,
}

enum ChildCommand {
    Forget,
    /// The thread that prepares and spawns has come back.
    Prepared(RunId, Result<Box<Spawned>, StartError>),
    Connected(RunId),
    Disconnected(RunId, Arc<Disconnect>),
    Drained(RunId),
    /// What the system's files say of the end of this run has been read.
    Examined(RunId, ExitFindings),
    /// The descendants of these runs that had left their groups have been looked for.
    Scanned {
        number: u64,
        runs: BTreeSet<RunId>,
        result: ScanResult,
    },
}

/// Somebody who waits for a stop, and until when.
pub(crate) struct StopWaiter {
    pub(crate) until: Instant,
    /// Has room for one.
    pub(crate) done: Sender<Stopped>,
}

impl Reaper {
    /// Starts the thread. What bears the cookie of a run is killed when the run ends.
    pub(crate) fn start(
        threads: &Threads,
        keeper: KeeperLink,
        scanner: Option<OrphanScanner>,
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
            last_child: Arc::default(),
        };
        let body = ReaperThread {
            context: Context {
                reaper: reaper.clone(),
                threads: threads.clone(),
                keeper,
                scanner,
                next_background_scan: Cell::new(Instant::now()),
                shutting_down: false,
            },
            inbox,
            wake: reader,
            children: HashMap::new(),
            lingering: Vec::new(),
        };
        threads.spawn("host-reaper", 256 * 1024, move || body.run())?;
        Ok(reaper)
    }

    fn send(&self, command: ReaperCommand) {
        // After shutdown nobody listens, and nothing is left to be told.
        if self.commands.send(command).is_ok() {
            // A full pipe has woken the thread already.
            let _ = (&*self.wake).write(&[0]);
        }
    }

    fn next_run(&self) -> RunId {
        self.last_run.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A place for a new session.
    pub(crate) fn new_child_id(&self) -> ChildId {
        ChildId(self.last_child.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Asks for a run. The last request wins, also against a stop under way.
    pub(crate) fn request_start(&self, hooks: Arc<dyn ChildHooks>) {
        self.send(ReaperCommand::Start(hooks));
    }

    /// Asks for an end: SIGINT now, or for a stdio plugin the end of its input now and SIGINT after a third
    /// of the grace; SIGTERM after half of it, SIGKILL after all of it.
    /// The waiter hears when nothing is left.
    pub(crate) fn request_stop(
        &self,
        hooks: Arc<dyn ChildHooks>,
        grace: Duration,
        waiter: Option<StopWaiter>,
    ) {
        self.send(ReaperCommand::Stop {
            hooks,
            grace,
            waiter,
        });
    }

    /// Lets go of a session that is gone, and of all that may be left of its plugin.
    pub(crate) fn forget(&self, child: ChildId) {
        self.tell(child, ChildCommand::Forget);
    }

    fn tell(&self, child: ChildId, command: ChildCommand) {
        self.send(ReaperCommand::For(child, command));
    }

    /// The plugin of this run is connected.
    pub(crate) fn connected(&self, child: ChildId, run: RunId) {
        self.tell(child, ChildCommand::Connected(run));
    }

    /// The connection of this run has ended, and all that came over it has been read.
    pub(crate) fn disconnected(&self, child: ChildId, run: RunId, cause: Arc<Disconnect>) {
        self.tell(child, ChildCommand::Disconnected(run, cause));
    }

    /// All output of this run has been taken.
    pub(crate) fn drained(&self, child: ChildId, run: RunId) {
        self.tell(child, ChildCommand::Drained(run));
    }

    /// Kills what still runs, starts nothing more, and ends the thread after the last child.
    pub(crate) fn shut_down(&self) {
        self.send(ReaperCommand::ShutDown);
    }
}

/// What a ward needs of the reaper.
pub(super) struct Context {
    pub(super) reaper: Reaper,
    pub(super) threads: Threads,
    pub(super) keeper: KeeperLink,
    /// `None` when descendants are not looked for.
    pub(super) scanner: Option<OrphanScanner>,
    /// Looks that nobody waits for share what little of a processor they may have: none before this.
    pub(super) next_background_scan: Cell<Instant>,
    /// Nothing is started any more.
    pub(super) shutting_down: bool,
}

struct ReaperThread {
    context: Context,
    inbox: Receiver<ReaperCommand>,
    wake: io::PipeReader,
    children: HashMap<ChildId, SupervisedChild>,
    /// Those whose session is gone and of whose plugin something is left.
    lingering: Vec<ChildId>,
}

impl ReaperThread {
    fn run(mut self) {
        loop {
            let ended = self.sleep();
            while let Ok(command) = self.inbox.try_recv() {
                self.handle(command);
            }
            for child in ended {
                self.with(child, SupervisedChild::exited);
            }
            let now = Instant::now();
            for child in self.children.values_mut() {
                if child.due().is_some_and(|due| due <= now) {
                    guarded(child, &self.context, |child, context| {
                        child.tick(context, now);
                    });
                }
            }
            // Last in a round: what looks would take the processor from has been done.
            for child in self.children.values_mut() {
                if child.is_scan_due(now) {
                    guarded(child, &self.context, SupervisedChild::begin_scan);
                }
            }
            self.children.retain(|_, child| !child.is_over());
            self.lingering
                .retain(|child| self.children.contains_key(child));
            if self.context.shutting_down && self.children.values().all(SupervisedChild::is_idle) {
                // A panic in it, the logger's say, comes too late to cost anything.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| self.context.keeper.end()));
                return;
            }
        }
    }

    /// Does something with a ward, if it is there.
    fn with(&mut self, child: ChildId, act: impl FnOnce(&mut SupervisedChild, &Context)) {
        if let Some(child) = self.children.get_mut(&child) {
            guarded(child, &self.context, act);
        }
    }

    /// Sleeps until a command, an exit or a timer; gives those whose process has ended.
    fn sleep(&mut self) -> Vec<ChildId> {
        let due = self
            .children
            .values()
            .filter_map(SupervisedChild::due)
            .min();
        let watched = |(id, child): (&ChildId, _)| Some((*id, SupervisedChild::watch(child)?));
        let watches: Vec<_> = self.children.iter().filter_map(watched).collect();
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
            .filter_map(|((child, _), ready)| ready.then_some(*child))
            .collect();
        let mut drain = [0; 64];
        while matches!((&self.wake).read(&mut drain), Ok(read) if read == drain.len()) {}
        ended
    }

    fn handle(&mut self, command: ReaperCommand) {
        match command {
            ReaperCommand::Start(hooks) => {
                let id = hooks.child_id();
                self.ensure_child(&hooks);
                self.with(id, SupervisedChild::start);
                hooks.start_handled();
            }
            ReaperCommand::Stop {
                hooks,
                grace,
                waiter,
            } => {
                // One that was never started may have to end what an earlier session left.
                self.ensure_child(&hooks);
                self.with(hooks.child_id(), |child, _| child.stop(grace, waiter));
            }
            // One that was never started has no ward, and nothing of it is there.
            ReaperCommand::For(child, command) => {
                if matches!(command, ChildCommand::Forget) && self.children.contains_key(&child) {
                    self.lingering.push(child);
                }
                self.with(child, |child, context| child.handle(context, command));
            }
            ReaperCommand::ShutDown => {
                self.context.shutting_down = true;
                for child in self.children.values_mut() {
                    guarded(child, &self.context, |child, _| child.end());
                }
            }
        }
    }

    /// Makes the ward of this charge, if it is not there. It takes over what is left of the plugin from the
    /// session that it was loaded with before: it is not stopped, and does not begin anew, beside that.
    fn ensure_child(&mut self, hooks: &Arc<dyn ChildHooks>) {
        if self.children.contains_key(&hooks.child_id()) {
            return;
        }
        let mut child = SupervisedChild::new(hooks.clone());
        for old in &self.lingering {
            if let Some(old) = self
                .children
                .get_mut(old)
                .filter(|old| old.is_of(hooks.id()))
            {
                child.inherit(old);
            }
        }
        self.children.insert(hooks.child_id(), child);
    }
}

/// Does something with a ward. A panic in it, the embedder's logger's say, costs that plugin and no
/// other.
fn guarded(
    child: &mut SupervisedChild,
    context: &Context,
    act: impl FnOnce(&mut SupervisedChild, &Context),
) {
    let act = AssertUnwindSafe(|| act(child, context));
    if let Err(panic) = panic::catch_unwind(act) {
        let text = panic_text(&*panic).to_string();
        // Its second panic is swallowed: there is nothing more to be done.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| child.give_up(context, &text)));
    }
}
