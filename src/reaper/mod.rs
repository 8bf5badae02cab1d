//! The reaper: the one thread that owns every child process of a host. It alone waits, signals and
//! restarts, so that there is never more than one process per plugin and no process id is used after the
//! process was reaped.
//!
//! What lives here: the thread, its commands and its loop. What does not: the restart policy ([`policy`],
//! pure functions), the supervision of one plugin (`child`), anything that blocks. The thread touches no
//! file and takes no lock that is held around file access: short-lived threads prepare runs and spawn
//! their processes, read what files of the system say about processes, and report back with a command.
//!
//! The thread sleeps in one `poll` on its wake pipe and every child's exit descriptor until the next timer
//! is due; the reaper of an idle host does not wake at all.

mod cause;
mod child;
mod hooks;
pub(crate) mod policy;

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use serde::Serialize;

pub use cause::EndCause;
pub(crate) use cause::{Cause, EndedRun, how_to_connect};
pub(crate) use hooks::{ChildHooks, ChildId, ChildSpec, RunId, Transition};

use crate::deadline::Deadline;
use crate::error::{Descendants, Disconnect, Error, Phase, Result, StartError};
use crate::keeper::link::KeeperLink;
use crate::poll;
use crate::process::ExitReason;
use crate::process::orphans::{OrphanScanner, ScanResult};
use crate::runtime::Run;
use crate::shown;
use crate::thread::{Threads, panic_text};
use child::Child;

/// How a plugin was stopped. Serialised with the time in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StopReport {
    /// How the process ended; `None` if none was running, and for an external plugin.
    pub exit: Option<ExitReason>,
    /// Whether it was killed because it did not end within the grace.
    pub killed: bool,
    /// The time from the request until nothing was left.
    #[serde(serialize_with = "shown::seconds")]
    pub took: Duration,
}

/// The result of a stop: a report once nothing is left, or what is left when waiting was given up.
pub(crate) type Stopped = std::result::Result<StopReport, Descendants>;

/// A handle to the reaper's thread. Its methods queue a command and never block.
#[derive(Clone, Debug)]
pub(crate) struct Reaper {
    /// Unbounded, because its senders must never wait; its messages are few and small.
    commands: Sender<ReaperCommand>,
    wake: Arc<io::PipeWriter>,
    /// The last id given to a child or a run.
    last_id: Arc<AtomicU64>,
}

enum ReaperCommand {
    Start(Arc<dyn ChildHooks>),
    Clear(Arc<dyn ChildHooks>),
    Stop {
        hooks: Arc<dyn ChildHooks>,
        grace: Duration,
        waiter: Option<StopWaiter>,
    },
    /// To be answered at once.
    Answer(Sender<()>),
    /// A command for a child, dropped if there is none.
    For(ChildId, ChildCommand),
    ShutDown,
}

enum ChildCommand {
    Forget,
    /// The result of preparing and starting.
    Prepared(RunId, Result<Box<Run>, StartError>),
    /// What earlier hosts have left is gone, as far as can be known.
    Cleared,
    Connected(RunId),
    Disconnected(RunId, Arc<Disconnect>),
    Drained(RunId),
    /// It was found out how this run ended.
    Examined(RunId),
    /// The result of a scan for orphans of these runs.
    Scanned {
        number: u64,
        runs: BTreeSet<RunId>,
        result: ScanResult,
    },
}

/// A caller that waits for a stop.
pub(crate) struct StopWaiter {
    pub(crate) until: Instant,
    /// Has room for one result.
    pub(crate) done: Sender<Stopped>,
}

impl Reaper {
    /// Starts the thread. With a scanner, orphans of a run are killed when the run ends.
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
            last_id: Arc::default(),
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
            to_clear: VecDeque::new(),
            clearing: 0,
        };
        threads.spawn("host-reaper", 256 * 1024, move || body.run())?;
        Ok(reaper)
    }

    fn send(&self, command: ReaperCommand) {
        // After shutdown the thread is gone, and the command would have nothing to do.
        if self.commands.send(command).is_ok() {
            // If the pipe is full, the thread has been woken already.
            let _ = (&*self.wake).write(&[0]);
        }
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns how many commands wait.
    pub(crate) fn queue_length(&self) -> usize {
        self.commands.len()
    }

    /// Returns an id for a new session.
    pub(crate) fn new_child_id(&self) -> ChildId {
        ChildId(self.next_id())
    }

    /// Requests a run. The last request wins, also over a stop under way.
    pub(crate) fn request_start(&self, hooks: Arc<dyn ChildHooks>) {
        self.send(ReaperCommand::Start(hooks));
    }

    /// Requests that what earlier hosts have left of the plugin is ended.
    pub(crate) fn request_clear(&self, hooks: Arc<dyn ChildHooks>) {
        self.send(ReaperCommand::Clear(hooks));
    }

    /// Requests a stop: SIGINT now, or for a stdio plugin the end of its input now and SIGINT after a third
    /// of the grace; SIGTERM after half of it, SIGKILL at its end. The waiter receives the result once
    /// nothing is left.
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

    /// Reports that a session is gone. Ends what is left of its plugin.
    pub(crate) fn forget(&self, child: ChildId) {
        self.tell(child, ChildCommand::Forget);
    }

    fn tell(&self, child: ChildId, command: ChildCommand) {
        self.send(ReaperCommand::For(child, command));
    }

    /// Reports that the plugin of this run is connected.
    pub(crate) fn connected(&self, child: ChildId, run: RunId) {
        self.tell(child, ChildCommand::Connected(run));
    }

    /// Reports that the connection of this run has ended and all that came over it has been read.
    pub(crate) fn disconnected(&self, child: ChildId, run: RunId, cause: Arc<Disconnect>) {
        self.tell(child, ChildCommand::Disconnected(run, cause));
    }

    /// Reports that all output of this run is in the log.
    pub(crate) fn drained(&self, child: ChildId, run: RunId) {
        self.tell(child, ChildCommand::Drained(run));
    }

    /// Waits until the thread has answered: until it has come through its loop.
    ///
    /// # Errors
    /// - [`Error::Timeout`] with [`Phase::Reaper`].
    /// - [`Error::ShutDown`]: it has ended.
    pub(crate) fn expect_answer(&self, timeout: Duration) -> Result<()> {
        let (sender, answered) = bounded(1);
        self.send(ReaperCommand::Answer(sender));
        answered.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => Error::timeout(Phase::Reaper, timeout),
            RecvTimeoutError::Disconnected => Error::ShutDown,
        })
    }

    /// Kills all processes, starts no more, and ends the thread after the last child.
    pub(crate) fn shut_down(&self) {
        self.send(ReaperCommand::ShutDown);
    }
}

/// What children use of the reaper.
pub(super) struct Context {
    pub(super) reaper: Reaper,
    pub(super) threads: Threads,
    pub(super) keeper: KeeperLink,
    /// `None` if orphans are not searched for.
    pub(super) scanner: Option<OrphanScanner>,
    /// No background scan begins before this time: the scans of all plugins share a small part of a
    /// processor.
    pub(super) next_background_scan: Cell<Instant>,
    /// No run is started any more.
    pub(super) shutting_down: bool,
}

struct ReaperThread {
    context: Context,
    inbox: Receiver<ReaperCommand>,
    wake: io::PipeReader,
    children: HashMap<ChildId, Child>,
    /// Children whose session is gone and that are not done yet.
    lingering: Vec<ChildId>,
    /// Children that what earlier hosts left is to be ended of, and how many threads do that now.
    to_clear: VecDeque<ChildId>,
    clearing: usize,
}

/// The most threads that end what earlier hosts left: a host that has thousands of plugins to look after may have
/// neither threads for all of them, nor a place that bears so many requests at once.
const MOST_CLEARING: usize = 8;

impl ReaperThread {
    fn run(mut self) {
        loop {
            let ended = self.sleep();
            while let Ok(command) = self.inbox.try_recv() {
                self.handle(command);
            }
            for child in ended {
                self.with(child, Child::exited);
            }
            let now = Instant::now();
            for child in self.children.values_mut() {
                if child.due().is_some_and(|due| due <= now) {
                    catch_panic(child, &self.context, |child, context| {
                        child.tick(context, now);
                    });
                }
            }
            // Scans begin last, so that they do not compete with the above for the processor.
            for child in self.children.values_mut() {
                if child.is_scan_due(now) {
                    catch_panic(child, &self.context, Child::begin_scan);
                }
            }
            self.children.retain(|_, child| !child.is_over());
            self.lingering
                .retain(|child| self.children.contains_key(child));
            if self.context.shutting_down && self.children.values().all(Child::is_idle) {
                // A panic in it, for example in the embedder's logger, comes too late to matter.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| self.context.keeper.end()));
                return;
            }
        }
    }

    /// Calls `act` for a child, if there is one with this id.
    fn with(&mut self, child: ChildId, act: impl FnOnce(&mut Child, &Context)) {
        if let Some(child) = self.children.get_mut(&child) {
            catch_panic(child, &self.context, act);
        }
    }

    /// Sleeps until a command, an exit or a timer; returns the children whose process has ended.
    fn sleep(&mut self) -> Vec<ChildId> {
        let due = self.children.values().filter_map(Child::due).min();
        let mut watches = Vec::new();
        let mut panicked = None;
        for (id, child) in &self.children {
            match panic::catch_unwind(AssertUnwindSafe(|| child.watch())) {
                Ok(watch) => watches.extend(watch.map(|watch| (*id, watch))),
                Err(panic) => panicked = Some((*id, panic)),
            }
        }
        if let Some((id, panic)) = panicked {
            // The others are watched at the next call, which follows at once.
            self.with(id, |_, _| panic::resume_unwind(panic));
            return Vec::new();
        }
        let mut descriptors = vec![PollFd::new(&self.wake, PollFlags::IN)];
        descriptors.extend(
            watches
                .iter()
                .map(|(_, watch)| PollFd::from_borrowed_fd(*watch, PollFlags::IN)),
        );
        if let Err(error) = poll::wait(&mut descriptors, due.map(Deadline::at)) {
            // For example out of memory: pauses before the next attempt.
            log::error!("the reaper cannot poll: {error}");
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
                self.with(id, Child::start);
                hooks.start_handled();
            }
            ReaperCommand::Clear(hooks) => {
                self.ensure_child(&hooks);
                self.to_clear.push_back(hooks.child_id());
                self.clear_next();
            }
            ReaperCommand::Stop {
                hooks,
                grace,
                waiter,
            } => {
                // A child that was never started may have to end what an earlier session left.
                self.ensure_child(&hooks);
                self.with(hooks.child_id(), |child, _| child.stop(grace, waiter));
            }
            ReaperCommand::Answer(waiter) => drop(waiter.send(())),
            // A plugin that was never started has no child, and nothing of it can be left.
            ReaperCommand::For(child, command) => {
                if matches!(command, ChildCommand::Forget) && self.children.contains_key(&child) {
                    self.lingering.push(child);
                }
                let is_cleared = matches!(command, ChildCommand::Cleared);
                self.with(child, |child, context| child.handle(context, command));
                if is_cleared {
                    self.clearing = self.clearing.saturating_sub(1);
                    self.clear_next();
                }
            }
            ReaperCommand::ShutDown => {
                self.context.shutting_down = true;
                self.to_clear.clear();
                for child in self.children.values_mut() {
                    catch_panic(child, &self.context, |child, _| child.end());
                }
            }
        }
    }

    /// Has as many of those cleared that wait for it as may be at once.
    fn clear_next(&mut self) {
        while self.clearing < MOST_CLEARING
            && let Some(id) = self.to_clear.pop_front()
        {
            let mut has_begun = false;
            self.with(id, |child, context| has_begun = child.clear(context));
            self.clearing += usize::from(has_begun);
        }
    }

    /// Creates the child for these hooks, if there is none. It takes over the orphans that an earlier session
    /// of the same plugin left, so that it neither reports a stop nor starts a run beside them.
    fn ensure_child(&mut self, hooks: &Arc<dyn ChildHooks>) {
        if self.children.contains_key(&hooks.child_id()) {
            return;
        }
        let mut child = Child::new(hooks.clone());
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

/// Calls `act` for a child. A panic in it, for example in the embedder's logger, ends that plugin's run and
/// leaves the others alone.
fn catch_panic(child: &mut Child, context: &Context, act: impl FnOnce(&mut Child, &Context)) {
    let act = AssertUnwindSafe(|| act(child, context));
    if let Err(panic) = panic::catch_unwind(act) {
        let text = panic_text(&*panic).to_string();
        // A second panic is swallowed, because nothing more can be done.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| child.give_up(context, &text)));
    }
}
