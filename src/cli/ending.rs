//! Ending a host in order, while signals that come meanwhile can hurry it.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{after, bounded, never, select};
use plugin_runner::report::ShutdownReport;
use plugin_runner::{Host, InstallationId, Session};

use super::duration;
use super::error::CliError;
use super::signals::Signals;

/// Time for what comes after the stop grace: the kill, and taking the output that is left.
const AFTER_GRACE: Duration = Duration::from_secs(2);

/// Returns how long a shutdown may take with this stop grace.
pub(crate) fn stop_timeout(grace: Duration) -> Duration {
    grace.saturating_add(AFTER_GRACE)
}

/// How a host is ended.
pub(crate) struct End<'a> {
    pub(crate) host: &'a Host,
    pub(crate) signals: &'a Signals,
    /// Whether the end was asked for by a signal. If not, the first one only says so: its sender does not
    /// know that the end has begun.
    pub(crate) asked: bool,
    /// Of a shutdown.
    pub(crate) timeout: Duration,
    /// How long what is not a plugin may go on after a second signal; `None` for as long as it takes.
    pub(crate) last: Option<Duration>,
    /// Says that the end has begun.
    pub(crate) say: &'a dyn Fn(),
    /// Hurries what is not a plugin. Must not block.
    pub(crate) hurry: &'a dyn Fn(),
}

impl End<'_> {
    /// Runs `body`, which shuts the host down. A signal meanwhile kills what is left. Returns what `body` does,
    /// and whether there was such a signal.
    pub(crate) fn by(
        &self,
        body: impl Fn() -> ShutdownReport + Send + Sync,
    ) -> (ShutdownReport, bool) {
        // A shutdown takes the sessions out of the host.
        let sessions = self.host.sessions();
        let mut asked = self.asked;
        let mut impatient = false;
        let report = thread::scope(|scope| {
            let (sender, done) = bounded(1);
            let body = &body;
            let ending = move || drop(sender.send(body()));
            if thread::Builder::new()
                .name("shutdown".to_owned())
                .spawn_scoped(scope, ending)
                .is_err()
            {
                return body();
            }
            let mut leave = never();
            loop {
                select! {
                    recv(done) -> report => return report.unwrap_or_default(),
                    recv(self.signals.received()) -> _ => {
                        if !std::mem::replace(&mut asked, true) {
                            (self.say)();
                            continue;
                        }
                        impatient = true;
                        (self.hurry)();
                        for supervised in sessions.iter().filter_map(Session::supervised) {
                            // Only a request: the shutdown under way waits for the end.
                            let _ = supervised.stop(Duration::ZERO);
                        }
                        if let Some(last) = self.last {
                            leave = after(last);
                        }
                    }
                    recv(leave) -> _ => {
                        // This ends the waits for everything that needs the host.
                        self.host.shutdown(self.timeout);
                    }
                }
            }
        });
        (report, impatient)
    }
}

/// Says what had to be killed and what did not end.
///
/// # Errors
/// [`CliError`] when something could not be ended in time, or was ended at once on a second signal.
pub(crate) fn judge(
    report: &ShutdownReport,
    impatient: bool,
    grace: Duration,
    name: &dyn Fn(&InstallationId) -> Option<String>,
    say: &dyn Fn(&str),
) -> Result<(), CliError> {
    let names = |ids: &[InstallationId]| {
        let names: Vec<_> = ids.iter().filter_map(name).collect();
        names.join(", ")
    };
    if !report.unfinished.is_empty() {
        let mut text = format!("could not end in time: {}", names(&report.unfinished));
        for (id, left) in &report.descendants {
            let _ = write!(text, "; {}: {left}", names(&[*id]));
        }
        return Err(text.into());
    }
    if impatient {
        return Err("ended at once on a second signal".into());
    }
    if !report.killed.is_empty() {
        say(&format!(
            "killed, because it had not ended in {}: {}",
            duration::shown(grace),
            names(&report.killed)
        ));
    }
    if !report.threads.is_empty() {
        log::warn!("threads that did not end: {}", report.threads.join(", "));
    }
    Ok(())
}
