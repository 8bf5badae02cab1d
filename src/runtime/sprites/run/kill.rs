//! Ending a program: the service does it, and is asked until it is certain that the program has ended.

use std::sync::Arc;
use std::time::Duration;

use super::{Loss, RunShared, STACK, SpriteEnd, SpriteRun, exit_reason};
use crate::deadline::Deadline;
use crate::error::SpritesError;
use crate::runtime::StopSignal;
use crate::runtime::sprites::exec::KillReport;
use crate::runtime::sprites::interrupt::{Interrupt, Within};

/// The wait before the service is asked again after a failure; the client has made several attempts before it.
const AGAIN: Duration = Duration::from_secs(2);

/// How often it is asked for the id of a session that it has not listed yet.
const LOOK: Duration = Duration::from_millis(250);

/// Returns the service's name of a signal.
const fn name(signal: StopSignal) -> &'static str {
    match signal {
        StopSignal::Interrupt => "INT",
        StopSignal::Terminate => "TERM",
        StopSignal::Kill => "KILL",
    }
}

impl SpriteRun {
    /// Has the program end: it is sent the signal, and SIGKILL if it has not ended after `kill_in`. The service
    /// does both, in one call that is made until it is certain. Only the first signal counts, and a later
    /// [`Kill`](StopSignal::Kill). Never blocks.
    pub(super) fn ask(&self, signal: StopSignal, kill_in: Duration) {
        let shared = &self.shared;
        {
            let mut state = shared.state.lock();
            let counts = match state.kill {
                None => true,
                Some(asked) => signal == StopSignal::Kill && asked != StopSignal::Kill,
            };
            if !counts || shared.over.is_cancelled() {
                return;
            }
            state.kill = Some(signal);
        }
        let body = {
            let shared = shared.clone();
            move || shared.kill_and_conclude(signal, kill_in)
        };
        if let Err(error) = shared.threads.spawn("sprite-kill", STACK, body) {
            log::warn!("{error}; what the plugin prints while it ends is lost");
            // The thread that follows the socket does it instead.
            let mut state = shared.state.lock();
            state.left_kill = Some((signal, kill_in));
            let writer = state.writer.take();
            drop(state);
            if let Some(writer) = writer {
                writer.close();
            }
        }
    }
}

/// Attempts to end the program of a run that was given up.
pub(super) fn kill_last(shared: &Arc<RunShared>) {
    let body = {
        let shared = shared.clone();
        move || kill_once(&shared, shared.limits.exit)
    };
    if let Err(error) = shared.threads.spawn("sprite-kill", STACK, body) {
        log::warn!("a plugin runs on for a while: {error}");
    }
}

/// Attempts to end the program, whatever was cancelled.
pub(super) fn kill_once(shared: &RunShared, limit: Duration) {
    let Ok(interrupt) = Interrupt::new() else {
        return;
    };
    let within = Within::new(limit, &interrupt);
    if let Err(error) = shared.kill(StopSignal::Kill, Duration::ZERO, within) {
        log::warn!("a plugin runs on for a while: {error}");
    }
}

impl RunShared {
    /// Ends the program, and the run with what the service says of it if the socket does not say it first.
    pub(super) fn kill_and_conclude(&self, signal: StopSignal, grace: Duration) {
        let Some(report) = self.kill_until_certain(signal, grace, self.always()) else {
            return;
        };
        self.state.lock().was_forced |= report.was_forced;
        if self.is_connected() {
            // What it printed last is on its way as well.
            let exit = self.limits.exit;
            let _ = self.within(exit).pause(exit);
        }
        let exit_code = report.exit_code.map(exit_reason);
        let end = exit_code.map_or(SpriteEnd::Lost(Loss::EndedMeanwhile), SpriteEnd::Exited);
        self.conclude(end);
    }

    /// Has the service end the program, until it says that it has ended; `None` when the time is over or the
    /// run is.
    pub(super) fn kill_until_certain(
        &self,
        signal: StopSignal,
        grace: Duration,
        within: Within<'_>,
    ) -> Option<KillReport> {
        let mut is_noted = false;
        loop {
            let error = match self.kill(signal, grace, within) {
                Ok(report) => return Some(report),
                Err(error) => error,
            };
            within.check().ok()?;
            if !is_noted {
                self.note(&format!("{error}; trying again"));
                is_noted = true;
            }
            within.pause(AGAIN).ok()?;
        }
    }

    fn kill(
        &self,
        signal: StopSignal,
        grace: Duration,
        within: Within<'_>,
    ) -> Result<KillReport, SpritesError> {
        let mut all = KillReport::default();
        for id in self.sessions(within)? {
            let (client, sprite) = (&self.client, &self.sprite);
            let report = client.kill(sprite, &id, name(signal), grace, within)?;
            all.was_there |= report.was_there;
            all.was_forced |= report.was_forced;
            all.exit_code = report.exit_code.or(all.exit_code);
        }
        Ok(all)
    }

    /// Returns the program's session; if it is not known, all there are. While the socket says that there is
    /// one, a list without any is not believed at once.
    fn sessions(&self, within: Within<'_>) -> Result<Vec<String>, SpritesError> {
        let until = Deadline::after(self.limits.exit);
        loop {
            if let Some(id) = self.state.lock().session.clone() {
                return Ok(vec![id]);
            }
            let listed = self.listed(within)?;
            if !listed.is_empty() || !self.is_connected() || until.has_passed() {
                return Ok(listed);
            }
            within.pause(LOOK).map_err(|problem| SpritesError {
                action: "find the program on the sprite",
                problem,
            })?;
        }
    }

    /// Returns the ids of all sessions on the sprite.
    pub(super) fn listed(&self, within: Within<'_>) -> Result<Vec<String>, SpritesError> {
        match self.client.sessions(&self.sprite, within) {
            Ok(listed) => Ok(listed.into_iter().map(|session| session.id).collect()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
