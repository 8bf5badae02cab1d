//! The thread that follows a program's socket, and what it does when that ends without the program's exit.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pipes::OutputPipe;
use super::{Loss, RunShared, SpriteEnd, exit_reason};
use crate::error::{SpritesError, SpritesProblem};
use crate::runtime::StopSignal;
use crate::runtime::sprites::exec::{ExecEvent, ExecReader};
use crate::runtime::sprites::interrupt::Within;
use crate::runtime::sprites::program::NOT_STARTED;
use crate::text::Foreign;

/// The waits before it is tried to connect again, beyond those that the client makes; the last one for ever.
const LADDER: [u64; 6] = [0, 250, 500, 1_000, 2_000, 4_000];

/// What the thread has. Its end is that of the run.
pub(super) struct Follower {
    shared: Arc<RunShared>,
    // Dropped before `at_end`: what was printed is there when the end is.
    stdout: OutputPipe,
    stderr: OutputPipe,
    has_stdin: bool,
    started: Instant,
    has_printed: bool,
    /// What the service has said last about why it did not do something.
    said: Option<String>,
    /// When the connection was lost first, if it has not recovered for good since; and how often it was tried
    /// to connect again.
    lost: Option<Instant>,
    attempts: usize,
    /// Its end is the notice.
    _at_end: io::PipeWriter,
}

/// What came of a program that the connection was lost to.
enum Regained {
    Connected(ExecReader),
    Lost(Loss),
    /// The run is over, or ends with a kill that is under way.
    Over,
}

impl Follower {
    pub(super) fn new(
        shared: Arc<RunShared>,
        (stdout, stderr): (OutputPipe, OutputPipe),
        has_stdin: bool,
        at_end: io::PipeWriter,
    ) -> Self {
        Self {
            shared,
            stdout,
            stderr,
            has_stdin,
            started: Instant::now(),
            has_printed: false,
            said: None,
            lost: None,
            attempts: 0,
            _at_end: at_end,
        }
    }

    /// Follows the program to the end of the run.
    pub(super) fn run(mut self, mut reader: ExecReader) {
        self.started = Instant::now();
        loop {
            let connected = Instant::now();
            let problem = match self.follow(&mut reader) {
                Ok(code) => {
                    self.shared.conclude(self.end(code));
                    return;
                }
                Err(error) => error.problem,
            };
            drop(reader);
            if self.shared.over.is_cancelled() {
                return;
            }
            self.shared.disconnect();
            if connected.elapsed() >= self.shared.limits.settled {
                self.lost = None;
                self.attempts = 0;
            }
            let noticed = Instant::now();
            let lost = *self.lost.get_or_insert(noticed);
            match self.regain(lost) {
                Regained::Connected(again) => {
                    let gap = noticed.elapsed();
                    self.shared.note(&format!(
                        "the connection to the sprite was lost ({problem}) and is back after {gap:.1?}; \
                         what the plugin printed meanwhile may be missing, or be repeated"
                    ));
                    reader = again;
                }
                Regained::Lost(loss) => {
                    self.shared.conclude(SpriteEnd::Lost(loss));
                    return;
                }
                Regained::Over => return,
            }
        }
    }

    /// Takes what comes over the socket; returns the program's exit.
    fn follow(&mut self, reader: &mut ExecReader) -> Result<i32, SpritesError> {
        loop {
            let over = &self.shared.over;
            let goes_on = match reader.next(None)? {
                None => true,
                Some(ExecEvent::Session { id }) => {
                    self.shared.state.lock().session = Some(id);
                    true
                }
                Some(ExecEvent::Stdout(bytes)) => {
                    self.has_printed = true;
                    self.stdout.write(&bytes, over)
                }
                Some(ExecEvent::Stderr(bytes)) => {
                    self.has_printed = true;
                    self.stderr.write(&bytes, over)
                }
                Some(ExecEvent::Problem(text)) => {
                    let shown = Foreign::new(&text);
                    self.shared.note(&format!("the service says: {shown}"));
                    self.said = Some(text);
                    true
                }
                Some(ExecEvent::Exit(code)) => return Ok(code),
            };
            if !goes_on {
                return Err(SpritesError {
                    action: "follow the program on the sprite",
                    problem: SpritesProblem::Cancelled,
                });
            }
        }
    }

    fn end(&self, code: i32) -> SpriteEnd {
        if code == NOT_STARTED && self.lost.is_some() {
            // The environment was on the connection that was lost.
            return SpriteEnd::Lost(Loss::NotStarted(None));
        }
        SpriteEnd::Exited(exit_reason(code))
    }

    /// Finds out what has become of the program, and connects to it again if that makes sense.
    fn regain(&mut self, lost: Instant) -> Regained {
        let shared = self.shared.clone();
        let limit = shared.limits.attach;
        loop {
            let left_kill = shared.state.lock().left_kill.take();
            if let Some((signal, grace)) = left_kill {
                shared.kill_and_conclude(signal, grace);
                return Regained::Over;
            }
            if shared.state.lock().kill.is_some() {
                return self.leave_to_kill(lost);
            }
            if self.has_stdin {
                // The stream has lost its place. Callers learn of it now, not when the program is known to be
                // gone, for which the service may have to come back first.
                self.stdout.close();
                return self.kill(lost, Loss::Stream);
            }
            let within = shared.within(limit.saturating_sub(lost.elapsed()));
            let step = LADDER[self.attempts.min(LADDER.len() - 1)];
            self.attempts += 1;
            let listed = within
                .pause(Duration::from_millis(step))
                .and_then(|()| shared.listed(within).map_err(|error| error.problem));
            let known = shared.state.lock().session.clone();
            match (listed, known) {
                (Ok(listed), Some(known)) if !listed.contains(&known) => return self.ended(lost),
                (Ok(listed), None) if listed.is_empty() => return self.ended(lost),
                // Which of them is it?
                (Ok(listed), None) if listed.len() > 1 => {
                    return self.kill(lost, Loss::TooLong(limit));
                }
                (Ok(listed), known) => {
                    let id = known
                        .or_else(|| listed.into_iter().next())
                        .unwrap_or_default();
                    match self.attach(&id, within) {
                        Ok(reader) => return Regained::Connected(reader),
                        Err(error) => log::debug!("{error}"),
                    }
                }
                (Err(problem), _) => {
                    log::debug!("cannot find the program on the sprite: {problem}");
                }
            }
            if shared.over.is_cancelled() {
                return Regained::Over;
            }
            if lost.elapsed() >= limit {
                return self.kill(lost, Loss::TooLong(limit));
            }
        }
    }

    fn attach(&self, id: &str, within: Within<'_>) -> Result<ExecReader, SpritesError> {
        let shared = &self.shared;
        let attached = shared.client.attach(&shared.sprite, id, true, within);
        let (mut reader, writer) = attached?;
        shared.connect(&mut reader, &writer);
        // In case it did not arrive: without it, a start that got no environment waits for ever. If this does not
        // either, the socket is lost again.
        let _ = writer.end_stdin(within);
        Ok(reader)
    }

    /// The program has ended, and was not killed from here.
    fn ended(&self, lost: Instant) -> Regained {
        if self.shared.state.lock().kill.is_some() {
            return self.leave_to_kill(lost);
        }
        Regained::Lost(self.not_started(lost).unwrap_or(Loss::EndedMeanwhile))
    }

    /// A program that was never there has left no trace.
    fn not_started(&self, lost: Instant) -> Option<Loss> {
        let was_early = lost.duration_since(self.started) < self.shared.limits.early;
        (was_early && !self.has_printed).then(|| Loss::NotStarted(self.said.clone()))
    }

    /// Ends the program, which is of no use any more.
    fn kill(&self, lost: Instant, loss: Loss) -> Regained {
        let shared = &self.shared;
        shared.state.lock().kill = Some(StopSignal::Kill);
        let within = shared.within(shared.limits.last(lost));
        let report = shared.kill_until_certain(StopSignal::Kill, Duration::ZERO, within);
        shared.state.lock().kill = None;
        match report {
            _ if shared.over.is_cancelled() => Regained::Over,
            None => Regained::Lost(Loss::Unknown),
            Some(report) if !report.was_there => {
                Regained::Lost(self.not_started(lost).unwrap_or(loss))
            }
            Some(_) => Regained::Lost(loss),
        }
    }

    /// Waits for the kill that is under way, whose end is that of the run.
    fn leave_to_kill(&self, lost: Instant) -> Regained {
        let last = self.shared.limits.last(lost);
        match self.shared.within(last).pause(last) {
            Err(SpritesProblem::Timeout { .. }) | Ok(()) => Regained::Lost(Loss::Unknown),
            Err(_) => Regained::Over,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // If nobody knows better: the thread was not begun, or has panicked.
        self.shared.conclude(SpriteEnd::Lost(Loss::Unknown));
    }
}
