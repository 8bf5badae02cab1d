//! Shuts a host down, in order, within a deadline, and reports.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use serde::Serialize;

use super::HostShared;
use crate::deadline::Deadline;
use crate::duplex::close_code;
use crate::id::InstallationId;
use crate::reaper::Stopped;
use crate::session::{Session, Stopping};
use crate::shown;
use crate::state::PluginMode;
use crate::thread::panic_text;

/// How long the peers of all connections have, at the same time, to end their sides.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// The least time for a connection whose close frame could not be written with the others'.
const CLOSE_LEAST: Duration = Duration::from_millis(100);
const CLOSE_REASON: &str = "host is shutting down";
/// Reserved at the end of a shutdown for threads to end, beyond the deadline if need be.
const THREADS_GRACE: Duration = Duration::from_millis(250);

/// The result of a shutdown. Serialised with the time in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Plugins that had to be killed, because they did not end within the grace.
    pub killed: Vec<InstallationId>,
    /// Plugins that have not ended entirely.
    pub unfinished: Vec<InstallationId>,
    /// In words, the descendants left by those of them whose own process has ended. The host goes on trying to end
    /// them until this process ends; then the keeper does.
    #[serde(serialize_with = "shown::descendants")]
    pub descendants: Vec<(InstallationId, String)>,
    /// Names of threads that had not ended, such as one that runs the embedder's handler.
    pub threads: Vec<String>,
    /// How long the shutdown took.
    #[serde(serialize_with = "shown::seconds")]
    pub took: Duration,
}

impl ShutdownReport {
    /// Whether everything has ended.
    pub fn is_complete(&self) -> bool {
        self.unfinished.is_empty() && self.threads.is_empty()
    }

    fn count(&mut self, session: &Session, stopped: Option<Stopped>) {
        let id = session.id();
        match stopped {
            Some(Ok(stopped)) if stopped.killed => self.killed.push(id),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => {
                self.unfinished.push(id);
                let left = session.descendants();
                self.descendants
                    .extend(left.map(|left| (id, left.to_string())));
            }
        }
    }
}

/// Plugins, and the channel on which each one's end will be reported.
type Waits = Vec<(Session, Receiver<Stopped>)>;

impl HostShared {
    pub(super) fn shut_down(&self, timeout: Duration) -> ShutdownReport {
        let began = Instant::now();
        let deadline = Deadline::after(timeout);
        let Some(mut ended) = self.ended.try_lock_until(deadline.instant()) else {
            // Another thread is shutting down, with a later deadline.
            return ShutdownReport {
                unfinished: self.stopping.lock().clone(),
                threads: self.context.services.threads.names(),
                took: began.elapsed(),
                ..ShutdownReport::default()
            };
        };
        if let Some(report) = &*ended {
            return report.clone();
        }
        self.context.shut_down.store(true, Ordering::Release);
        self.context.drain.begin();
        // Unresponsive peers are being stopped anyway.
        self.context.services.health.end();
        for listener in self.listeners.lock().drain(..) {
            listener.stop();
        }
        let mut report = ShutdownReport::default();
        let late = self.stop_all(timeout, deadline, &mut report);
        self.context.services.reaper.shut_down();
        if let Some(runtime) = &self.context.services.runtime {
            // Its panic must not keep the report from the caller.
            let told = panic::catch_unwind(AssertUnwindSafe(|| runtime.shut_down()));
            if let Err(panic) = told {
                let text = panic_text(&*panic);
                log::error!("the runtime panicked at the end of the host: {text}");
            }
        }
        let threads = &self.context.services.threads;
        let until = deadline.instant().max(Instant::now() + THREADS_GRACE);
        if threads.join_all(Deadline::at(until)) > 0 {
            report.threads = threads.names();
        }
        // Discarding the sessions killed what was left of their plugins; it has had time to end.
        for (session, stopped) in late {
            report.count(&session, stopped.try_recv().ok());
        }
        self.stopping.lock().clone_from(&report.unfinished);
        report.took = began.elapsed();
        *ended = Some(report.clone());
        report
    }

    /// Stops all plugins at once and ends their sessions. Returns those that had not ended by the
    /// deadline.
    fn stop_all(
        &self,
        timeout: Duration,
        deadline: Deadline,
        report: &mut ShutdownReport,
    ) -> Waits {
        let sessions: Vec<Session> = std::mem::take(&mut *self.sessions.write())
            .into_values()
            .collect();
        *self.stopping.lock() = sessions.iter().map(Session::id).collect();
        // All processes and peers are told to end before the first one is waited for.
        let is_supervised = |session: &&Session| session.mode() == PluginMode::Supervised;
        let (supervised, external): (Vec<_>, Vec<_>) = sessions.iter().partition(is_supervised);
        let (mut waits, mut closes) = (Vec::new(), Vec::new());
        for session in supervised.into_iter().chain(external) {
            match session.request_stop(timeout, close_code::RESTART, CLOSE_REASON) {
                Ok(Stopping::Process(stopped)) => waits.push((session.clone(), stopped)),
                Ok(Stopping::Connection(Some(connection))) => {
                    let begun = connection.begin_close(close_code::RESTART, CLOSE_REASON);
                    closes.push((connection, begun));
                }
                // Unloaded meanwhile, or not connected.
                Ok(Stopping::Connection(None)) | Err(_) => {}
            }
        }
        // Half of the time is kept for processes and threads.
        let until = Deadline::after(CLOSE_LIMIT.min(deadline.remaining() / 2));
        for (connection, begun) in closes {
            // A peer whose close was begun shares its time with the others; any other gets a little.
            let until = if begun {
                until
            } else {
                until.max(Deadline::after(CLOSE_LEAST)).min(deadline)
            };
            connection.close(close_code::RESTART, CLOSE_REASON, until);
        }
        let mut late = Vec::new();
        for (session, stopped) in waits {
            match stopped.recv_deadline(deadline.instant()) {
                Ok(stopped) => report.count(&session, Some(stopped)),
                Err(_) => late.push((session, stopped)),
            }
        }
        *self.stopping.lock() = late.iter().map(|(session, _)| session.id()).collect();
        for session in sessions {
            session.discard();
        }
        late
    }
}
