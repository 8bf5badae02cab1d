//! A plugin's run on a sprite, from its start to its end.
//!
//! A thread follows the exec socket and writes what the program prints to two pipes; for a plugin that talks over
//! standard input, a second one copies a pipe to the socket. Each kill is a call of the service's, made on a
//! thread of its own. Everything is over when the run's end is concluded, which whoever learns of it first
//! does: that cancels what the others wait for.
//!
//! `follow` is the first thread, with what is done when the socket ends without the program's exit; `kill` ends the
//! program; `pipes` has the pipes.

mod follow;
mod kill;
mod pipes;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::follow::Follower;
use super::client::Client;
use super::exec::{ExecReader, ExecWriter};
use super::interrupt::{Interrupt, Within};
use super::program::Program;
use crate::error::{SpritesError, SpritesProblem};
use crate::process::ExitReason;
use crate::runtime::{RunExit, RunHandle, RunPipes, StopSignal};
use crate::text::Foreign;
use crate::thread::Threads;

/// Enough for a TLS handshake.
const STACK: usize = 512 * 1024;

/// How long a start that is cancelled attempts to end what it may have begun.
const CANCELLED: Duration = Duration::from_secs(2);

/// Writes a line of the host's own into the plugin's log. Must not block.
pub(crate) type Note = Arc<dyn Fn(&str) + Send + Sync>;

/// Where a run is begun, and what it uses.
pub(crate) struct RunSetup {
    pub(crate) client: Client,
    pub(crate) sprite: String,
    pub(crate) threads: Threads,
    pub(crate) note: Note,
    pub(crate) limits: RunLimits,
}

/// The times of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunLimits {
    /// How long the program may run on without a connection; the service is told, and ends it then.
    pub(crate) detached: Duration,
    /// How long it is tried to connect again.
    pub(crate) attach: Duration,
    /// A connection that lasts so long has recovered: its loss is another one.
    pub(crate) settled: Duration,
    /// A program that has ended so early, with nothing printed and no exit, was not started.
    pub(crate) early: Duration,
    /// How long an exit may take once the service has said that the program has ended, and how long a kill
    /// may take when the run was given up.
    pub(crate) exit: Duration,
    /// How often the service is asked for a sign of life, and how long it may be without one.
    #[cfg(test)]
    pub(in crate::runtime::sprites) silence: Option<(Duration, Duration)>,
}

/// A program on a sprite. Dropping it before its end closes the socket and attempts one kill on a thread,
/// for 5 s at most.
pub(crate) struct SpriteRun {
    shared: Arc<RunShared>,
    ended: io::PipeReader,
}

/// How a run has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpriteExit {
    pub(crate) end: SpriteEnd,
    /// Whether it was asked to end, did not, and was ended by SIGKILL.
    pub(crate) was_forced: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SpriteEnd {
    /// The service has said so. A shell's status of 128 and more stands for a signal.
    Exited(ExitReason),
    /// The service has not said how; this is no failure of the program.
    Lost(Loss),
}

/// Why it is not known how a program has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Loss {
    #[error("the service did not start the program{}", said(.0.as_deref()))]
    NotStarted(Option<String>),
    #[error("the connection to the sprite was lost, and the program has ended meanwhile")]
    EndedMeanwhile,
    /// The program was ended.
    #[error("the connection to the sprite was lost for longer than {0:?}")]
    TooLong(Duration),
    /// The program was ended.
    #[error(
        "the connection to the sprite was lost, and what was under way between plugin and host with it"
    )]
    Stream,
    /// The service did not answer, for as long as the service lets the program run on, and longer.
    #[error(
        "the connection to the sprite was lost, and it could not be learned whether the program has ended"
    )]
    Unknown,
}

struct RunShared {
    client: Client,
    sprite: String,
    threads: Threads,
    note: Note,
    limits: RunLimits,
    /// Cancelled when the run is over.
    over: Interrupt,
    state: Mutex<RunState>,
}

#[derive(Default)]
struct RunState {
    /// Whether there may be a program.
    has_started: bool,
    /// The session's id, once it is known.
    session: Option<String>,
    /// The socket in use; none while it is lost.
    writer: Option<ExecWriter>,
    /// What was asked for last.
    kill: Option<StopSignal>,
    /// A kill for which there was no thread.
    left_kill: Option<(StopSignal, Duration)>,
    was_forced: bool,
    end: Option<SpriteEnd>,
}

/// Starts a program, and follows it from now on. No other program may be running on the sprite.
///
/// # Errors
/// The program cannot be started: the service's errors, those of threads and descriptors, and
/// [`Cancelled`](SpritesProblem::Cancelled). It may have been started all the same. Then there is no connection to it,
/// and the service ends it after [`RunLimits::detached`] if the next start does not do so before; if the start was
/// cancelled, it has been attempted to end it already.
///
/// # Blocking
/// Until the service has started the program and has taken its environment; bounded by `within`, and 2 s more if
/// it is cancelled.
pub(crate) fn begin(
    setup: RunSetup,
    program: &Program,
    within: Within<'_>,
) -> Result<(SpriteRun, RunPipes), SpritesError> {
    let action = "start a program on the sprite";
    let system = |error: io::Error| SpritesError {
        action,
        problem: SpritesProblem::Thread(Box::new(crate::error::Error::io("prepare a run", error))),
    };
    let no_thread = |error| SpritesError {
        action,
        problem: SpritesProblem::Thread(Box::new(error)),
    };
    let shared = Arc::new(RunShared {
        client: setup.client,
        sprite: setup.sprite,
        threads: setup.threads,
        note: setup.note,
        limits: setup.limits,
        over: Interrupt::new().map_err(system)?,
        state: Mutex::default(),
    });
    let (ended, at_end) = io::pipe().map_err(system)?;
    let (stdout, from_stdout) = pipes::output().map_err(system)?;
    let (stderr, from_stderr) = pipes::output().map_err(system)?;
    let run = SpriteRun {
        shared: shared.clone(),
        ended,
    };
    if program.has_stdin() {
        pipes::prefer_room(&stderr);
    }
    let mut pipes = RunPipes {
        stdin: None,
        stdout: Some(stdout),
        stderr: Some(stderr),
    };
    // The threads come first: a program that nobody could follow must not be started. They end if what they
    // wait for does not come.
    let (give_reader, reader) = crossbeam_channel::bounded(1);
    let (give_writer, writer) = crossbeam_channel::bounded(1);
    let follower = Follower::new(
        shared.clone(),
        (from_stdout, from_stderr),
        program.has_stdin(),
        at_end,
    );
    let body = move || {
        // Whole, so that it is dropped here whatever happens.
        let follower = follower;
        if let Ok(reader) = reader.recv() {
            follower.run(reader);
        }
    };
    let threads = &shared.threads;
    threads
        .spawn("sprite-output", STACK, body)
        .map_err(no_thread)?;
    if program.has_stdin() {
        let (copied, stdin) = io::pipe().map_err(system)?;
        pipes.stdin = Some(stdin.into());
        let shared = shared.clone();
        let body = move || {
            if let Ok(writer) = writer.recv() {
                pipes::copy_input(&copied, &writer, &shared.over);
            }
        };
        threads
            .spawn("sprite-input", STACK, body)
            .map_err(no_thread)?;
    }

    let started = program.with_command(shared.limits.detached, |command| {
        let (client, sprite) = (&shared.client, &shared.sprite);
        client.start_with(sprite, command, program.preamble(), within)
    });
    let (mut reader, writer) = started.inspect_err(|error| {
        // No other start follows one that is cancelled, so nobody else ends what the service may have begun.
        if matches!(error.problem, SpritesProblem::Cancelled) {
            kill::kill_once(&shared, CANCELLED);
        }
    })?;
    shared.state.lock().has_started = true;
    shared.connect(&mut reader, &writer);
    if !program.has_stdin() {
        // It may fail: the plugin reads none of it. If the connection has ended, what the service has said before
        // is yet to be read, and says more; if the start is cancelled, there is a run to be ended.
        let _ = writer.end_stdin(within);
    }
    // Their threads take them, or are over.
    let _ = give_writer.send(writer);
    let _ = give_reader.send(reader);
    Ok((run, pipes))
}

impl SpriteRun {
    /// Returns how the run has ended; there is an answer once [its descriptor](AsFd) is readable, if not before.
    pub(crate) fn exit(&self) -> Option<SpriteExit> {
        let state = self.shared.state.lock();
        let end = state.end.clone()?;
        // The service may have said that it ended before it said by what.
        let was_killed = end == SpriteEnd::Exited(ExitReason::Signal(9));
        Some(SpriteExit {
            end,
            was_forced: state.was_forced || state.kill.is_some() && was_killed,
        })
    }
}

/// A descriptor that becomes readable when the run has ended and all that was printed is in the pipes.
impl AsFd for SpriteRun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

impl RunHandle for SpriteRun {
    fn describe(&self) -> String {
        format!("on sprite {}", self.shared.sprite)
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    fn signal(&self, signal: StopSignal, kill_in: Duration) {
        self.ask(signal, kill_in);
    }

    fn finish(self: Box<Self>) -> RunExit {
        let Some(SpriteExit { end, was_forced }) = self.exit() else {
            return RunExit::new(ExitReason::Unknown).lost("it was given up");
        };
        let exit = match end {
            SpriteEnd::Exited(reason) => RunExit::new(reason),
            SpriteEnd::Lost(loss) => RunExit::new(ExitReason::Unknown).lost(loss.to_string()),
        };
        if was_forced { exit.killed() } else { exit }
    }
}

impl Drop for SpriteRun {
    fn drop(&mut self) {
        let shared = &self.shared;
        if shared.over.is_cancelled() {
            return;
        }
        shared.end();
        if shared.state.lock().has_started {
            kill::kill_last(shared);
        }
    }
}

impl RunShared {
    fn within(&self, limit: Duration) -> Within<'_> {
        Within::new(limit, &self.over)
    }

    /// For what has no limit but the end of the run.
    fn always(&self) -> Within<'_> {
        self.within(Duration::MAX)
    }

    /// Takes a socket into use, unless the run is over.
    fn connect(&self, reader: &mut ExecReader, writer: &ExecWriter) {
        #[cfg(test)]
        if let Some((ping, silence)) = self.limits.silence {
            reader.hurry(ping, silence);
        }
        let _ = reader;
        let is_left = {
            let mut state = self.state.lock();
            state.writer = Some(writer.clone());
            state.left_kill.is_some()
        };
        // Asked last: who ends the run does so before it closes the socket.
        if is_left || self.over.is_cancelled() {
            writer.close();
        }
    }

    fn disconnect(&self) {
        self.state.lock().writer = None;
    }

    fn is_connected(&self) -> bool {
        self.state.lock().writer.is_some()
    }

    /// The first to know how the run has ended is right.
    fn conclude(&self, end: SpriteEnd) {
        self.state.lock().end.get_or_insert(end);
        self.end();
    }

    /// Ends all that its threads do.
    fn end(&self) {
        self.over.cancel();
        let writer = self.state.lock().writer.take();
        if let Some(writer) = writer {
            writer.close();
        }
    }

    fn note(&self, line: &str) {
        (self.note)(line);
    }
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            detached: Duration::from_secs(60),
            attach: Duration::from_secs(60),
            settled: Duration::from_secs(10),
            early: Duration::from_secs(2),
            exit: Duration::from_secs(5),
            #[cfg(test)]
            silence: None,
        }
    }
}

impl RunLimits {
    /// Returns until when it makes sense to ask for the end of a program that was lost then: a minute longer
    /// than the service lets it run on.
    fn last(&self, lost: Instant) -> Duration {
        (self.detached + self.attach).saturating_sub(lost.elapsed())
    }
}

impl fmt::Debug for SpriteRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpriteRun").finish_non_exhaustive()
    }
}

impl fmt::Debug for RunSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunSetup").finish_non_exhaustive()
    }
}

/// Returns what a status of the service's stands for.
fn exit_reason(code: i32) -> ExitReason {
    match code {
        129..=159 => ExitReason::Signal(code - 128),
        code => ExitReason::Code(code),
    }
}

fn said(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty())
        .map_or_else(String::new, |text| format!(": {}", Foreign::new(text)))
}
