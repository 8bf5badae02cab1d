//! `Run`: one run of a plugin, as a runtime returns it and the reaper holds it, from its start until nothing of
//! it is left; and [`RunExit`]: how it ended.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::process::{ExitReason, ProcessEnd, ProcessLimits};

/// A run that has begun: from the start of a plugin's program until nothing of it is left.
#[derive(Debug)]
pub struct Run {
    pub(crate) handle: Box<dyn RunHandle>,
    pub(crate) pipes: RunPipes,
    /// What is left to be done on the thread that started it, once it is under way.
    pub(super) afterwards: Option<Afterwards>,
}

/// What a plugin reads and prints: the host's ends of pipes, or of stream sockets, such as connections to another
/// machine. The host switches them to non-blocking mode.
///
/// For a stdio plugin the end of its standard output is the end of its connection. The host may stop reading for
/// a while; a runtime that copies output must notice the end of the run all the same.
#[derive(Debug, Default)]
pub struct RunPipes {
    /// What is written here the plugin reads on its standard input. Needed for a stdio plugin; with any other
    /// it is closed at once.
    pub stdin: Option<OwnedFd>,
    /// What the plugin prints on its standard output. Needed for a stdio plugin.
    pub stdout: Option<OwnedFd>,
    /// What it prints on its standard error.
    pub stderr: Option<OwnedFd>,
}

/// What the host can do to a run, and learn of it. It belongs to the host's reaper, a single thread that
/// serves all plugins: no method may block, nor wait for a lock that is held during I/O. What takes time, such as
/// a request over the network, is handed to a thread of the runtime's own.
///
/// A run that has lost its connection to the place where it runs connects again by itself. If it cannot go on, it
/// sees to it that the program has ended, and ends as [`lost`](RunExit::lost). Until it has [`ended`](Self::ended),
/// the host starts no other run of the plugin; a stop's time may run out meanwhile, and then the plugin stays
/// `stopping`. Dropping the handle ends what is left of the run, without waiting for it. A panic in a method ends
/// the run, and the plugin is `errored`.
pub trait RunHandle: fmt::Debug + Send {
    /// Returns what it is, for log lines, such as `process 4711`.
    fn describe(&self) -> String;

    /// Returns its process's id for error details, if it is a process of this machine.
    fn pid(&self) -> Option<u32> {
        None
    }

    /// Returns a descriptor that is readable, or closed at its other end, once the run has ended and nothing of
    /// it is left: no process, and no output that is still on its way. The host reads what is in the
    /// [pipes](RunPipes) by then; later output may be lost. The descriptor is polled, never read.
    fn ended(&self) -> BorrowedFd<'_>;

    /// Asks the run to end; [`StopSignal::Kill`] ends it. While it has not ended, stronger signals follow, and the
    /// kill after `kill_in`, which is zero with the kill itself. A runtime can pass `kill_in` on and have the run
    /// killed where it runs, and says so with [`RunExit::killed`]. A signal to a run that has ended ends what is
    /// left of it, if anything can be. There is no error: what could not be delivered is the runtime's to repeat.
    fn signal(&self, signal: StopSignal, kill_in: Duration);

    /// Returns what finds out how the run ended, if that takes longer than [`finish`](Self::finish) may.
    /// Called once it has ended by itself; what is returned runs on a thread of its own, with a stack of 512 KiB,
    /// which `finish` waits for at most a second.
    fn examine(&self) -> Option<Box<dyn FnOnce() + Send>> {
        None
    }

    /// Returns how the run ended, and releases what it held. Called once it has ended; or, after a panic of the
    /// host's, before: then the run has to be ended.
    fn finish(self: Box<Self>) -> RunExit;
}

/// A signal to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopSignal {
    /// SIGINT: the run is asked to end.
    Interrupt,
    /// SIGTERM: the same, for programs that ignore SIGINT, as those started in the background may.
    Terminate,
    /// SIGKILL: the run is ended at once.
    Kill,
}

/// How a run has ended. Shown in the protocol's words, such as `exit status 3`.
#[derive(Clone, Debug)]
pub struct RunExit {
    pub(crate) reason: ExitReason,
    /// As [`RunHandle::pid`] returned it; set by the reaper.
    pub(crate) pid: Option<u32>,
    /// Whether it left a core file, or handed one to a crash handler.
    pub(crate) core_dumped: bool,
    /// The limits in force when it ended.
    pub(crate) limits: ProcessLimits,
    /// Whether it was killed, because it did not end within the grace, by other means than a signal of the
    /// host's.
    pub(crate) was_killed: bool,
    pub(crate) finding: Option<ExitFinding>,
}

/// Why a run ended that the host did not end, where its status does not say.
#[derive(Clone, Debug)]
pub(crate) enum ExitFinding {
    OutOfMemory,
    CpuTime,
    /// The host has lost the run, for this reason; the plugin is not to blame.
    Lost(Arc<str>),
}

/// The work of a run's last moment.
pub(super) struct Afterwards(pub(super) Box<dyn FnOnce() + Send>);

impl Run {
    /// Returns a run that the runtime itself looks after. For a process on this machine,
    /// [`Launch::spawn`](super::Launch::spawn) returns one that the host looks after.
    pub fn new(handle: impl RunHandle + 'static, pipes: RunPipes) -> Self {
        Self {
            handle: Box::new(handle),
            pipes,
            afterwards: None,
        }
    }

    /// Takes what the thread that started the run has still to do when it has been handed over.
    pub(crate) fn take_afterwards(&mut self) -> Option<impl FnOnce() + use<>> {
        self.afterwards.take().map(|Afterwards(work)| work)
    }
}

impl RunExit {
    /// Returns an exit with this reason; [`ExitReason::Unknown`] if the runtime cannot tell. A status of 128 plus
    /// the number of a signal, which shells and containers return for a program that a signal ended, is left as it
    /// is.
    pub fn new(reason: ExitReason) -> Self {
        Self {
            reason,
            pid: None,
            core_dumped: false,
            limits: ProcessLimits::default(),
            was_killed: false,
            finding: None,
        }
    }

    /// Says that it was killed for lack of memory.
    #[must_use]
    pub fn out_of_memory(mut self) -> Self {
        self.finding = Some(ExitFinding::OutOfMemory);
        self
    }

    /// Says that it did not end within the `kill_in` of a [signal](RunHandle::signal), and that the runtime killed
    /// it without waiting for the host's [`StopSignal::Kill`].
    #[must_use]
    pub fn killed(mut self) -> Self {
        self.was_killed = true;
        self
    }

    /// Says that the connection to the run was lost, and why: that is not the plugin's fault, and uses up none of
    /// its [restarts](crate::RestartPolicy::max_restart_attempts). `why` takes the place of the status in texts.
    #[must_use]
    pub fn lost(mut self, why: impl Into<String>) -> Self {
        self.finding = Some(ExitFinding::Lost(why.into().into()));
        self
    }
}

impl From<ProcessEnd> for RunExit {
    fn from(end: ProcessEnd) -> Self {
        let finding = if end.was_out_of_cpu_time() {
            Some(ExitFinding::CpuTime)
        } else if end.was_out_of_memory() {
            Some(ExitFinding::OutOfMemory)
        } else {
            None
        };
        Self {
            reason: end.exit,
            pid: None,
            core_dumped: end.core_dumped,
            limits: end.limits,
            was_killed: false,
            finding,
        }
    }
}

impl fmt::Display for RunExit {
    /// In the protocol's words; the core is mentioned as Storyden's Go host does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        if self.core_dumped {
            f.write_str(" (core dumped)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Afterwards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Afterwards")
    }
}
