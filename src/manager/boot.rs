//! Starting all plugins that are wanted active, when a host comes up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::Serialize;

use super::{Manager, ManagerInner};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::id::InstallationId;
use crate::protocol::manifest::Transport;
use crate::session::Session;
use crate::shown;
use crate::state::{ActiveState, PluginMode, ReportedState};
use crate::store::Record;

/// The stack of a thread that starts plugins and waits for them.
const STACK: usize = 256 * 1024;

/// The outcome of a boot, for the plugins that are wanted active. One that was deactivated or removed before it came
/// up is in none of the lists.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct BootReport {
    /// Supervised plugins that are active.
    pub active: Vec<InstallationId>,
    /// Supervised plugins that are still starting; their start continues.
    pub starting: Vec<InstallationId>,
    /// External plugins that may connect now.
    pub awaited: Vec<InstallationId>,
    /// Plugins that did not come up, and why. Their state is `errored`.
    #[serde(serialize_with = "shown::failed")]
    pub failed: Vec<(InstallationId, Error)>,
    /// How long the boot took. Serialised in seconds.
    #[serde(serialize_with = "shown::seconds")]
    pub took: Duration,
}

/// How long a plugin that starts slowly keeps others from being started.
const BOOT_WAIT: Duration = Duration::from_secs(30);

enum BootOutcome {
    Active,
    Starting,
    Awaited,
    Failed(Error),
}

impl Manager {
    /// Starts every plugin that is wanted active, a few at once
    /// ([`boot_parallel`](super::ManagerSettings::boot_parallel)), and lets external ones connect. No
    /// plugin keeps another one from being started: one that fails is in the report, and one that takes
    /// longer than 30 s makes room for the next.
    ///
    /// Plugins need something to connect to: a [listener](crate::Host::listen), or
    /// [`rpc_base_url`](crate::HostBuilder::rpc_base_url).
    ///
    /// Where runs may outlive a host that was killed, what such a host has left of plugins that are not wanted
    /// active is ended as well, which is not waited for.
    ///
    /// # Blocking
    /// Until each plugin has come up or failed, at most `timeout`, and for the store. After `timeout` the
    /// remaining plugins are started too, without waiting for any. State changes wake it.
    ///
    /// # Errors
    /// - [`Error::Setting`]: there are plugins that have nothing to connect to. None was started.
    /// - [`Error::ShutDown`], or [the store's](crate::store::Store#errors).
    pub fn boot(&self, timeout: Duration) -> Result<BootReport> {
        let began = Instant::now();
        let deadline = Deadline::after(timeout);
        let inner = &self.inner;
        if inner.context().is_shut_down() {
            return Err(Error::ShutDown);
        }
        let is_wanted = |record: &Record| record.active_state == ActiveState::Active;
        let (records, others): (Vec<_>, Vec<_>) =
            inner.store().list()?.into_iter().partition(is_wanted);
        let connects = |record: &Record| {
            record.mode() == PluginMode::Supervised
                && record.manifest.transport == Transport::WebSocket
        };
        if records.iter().any(connects) && inner.context().services.addresses.base_url().is_none() {
            return Err(Error::setting(
                "rpc_base_url",
                "it is not set, and no listener is there for plugins to connect to",
            ));
        }
        inner.end_left_over(&others);
        let mut report = inner.boot_all(&records, deadline);
        report.took = began.elapsed();
        inner.booted.store(true, Ordering::Release);
        Ok(report)
    }
}

impl ManagerInner {
    fn boot_all(self: &Arc<Self>, records: &[Record], deadline: Deadline) -> BootReport {
        let (jobs, waiting) = unbounded();
        for record in records {
            let _ = jobs.send((record.id, record.mode()));
        }
        drop(jobs);
        let (done, outcomes) = unbounded();
        // One of them is the caller's own thread.
        for number in 1..self.settings.boot_parallel.min(records.len()) {
            let (inner, waiting, done) = (self.clone(), waiting.clone(), done.clone());
            let started = self.context().services.threads.spawn(
                &format!("boot-{number}"),
                STACK,
                move || {
                    inner.boot_some(&waiting, &done, deadline);
                    // Dropped first, so that this thread does not keep the host after the boot.
                    drop(inner);
                    drop(done);
                },
            );
            if let Err(error) = started {
                log::warn!("starting fewer plugins at once: {error}");
                break;
            }
        }
        self.boot_some(&waiting, &done, deadline);
        drop(done);
        let mut outcomes: Vec<_> = outcomes.iter().collect();
        outcomes.sort_unstable_by_key(|(id, _)| *id);
        let mut report = BootReport::default();
        for (id, outcome) in outcomes {
            match outcome {
                BootOutcome::Active => report.active.push(id),
                BootOutcome::Starting => report.starting.push(id),
                BootOutcome::Awaited => report.awaited.push(id),
                BootOutcome::Failed(error) => report.failed.push((id, error)),
            }
        }
        report
    }

    /// Ends what an earlier host may have left of plugins that are not to be started: one that was killed
    /// while it stopped them. Loading them does it.
    fn end_left_over(&self, records: &[Record]) {
        let runtime = self.context().services.runtime.as_ref();
        if runtime.is_none_or(|runtime| runtime.outlives_host().is_none()) {
            return;
        }
        // What is loaded has been seen to, and may have been started by the embedder.
        let is_left = |record: &&Record| {
            record.mode() == PluginMode::Supervised && self.host.session(record.id).is_none()
        };
        for record in records.iter().filter(is_left) {
            // Without waiting: the wanted ones are yet to be started.
            let at_once = Deadline::after(Duration::ZERO);
            if let Err(error) = self.load_for_boot(record.id, at_once) {
                let plugin = self.display_name(record.id);
                log::warn!("{plugin}: what earlier hosts left of it may be running: {error}");
            }
        }
    }

    /// Starts plugins of the queue until it is empty.
    fn boot_some(
        &self,
        waiting: &Receiver<(InstallationId, PluginMode)>,
        done: &Sender<(InstallationId, BootOutcome)>,
        deadline: Deadline,
    ) {
        for (id, mode) in waiting {
            let outcome = self.boot_one(id, mode, deadline);
            if let BootOutcome::Failed(error) = &outcome {
                if self.is_withdrawn(id, error, deadline) {
                    log::info!(
                        "{}: deactivated or removed before it came up",
                        self.display_name(id)
                    );
                    continue;
                }
                log::error!("{}: did not come up: {error}", self.display_name(id));
            }
            let _ = done.send((id, outcome));
        }
    }

    /// Returns whether a plugin that did not come up is not wanted any more.
    fn is_withdrawn(&self, id: InstallationId, error: &Error, deadline: Deadline) -> bool {
        // What stopped it may be a removal that has yet to delete the record. If it was busy, that was waited for.
        let _operation = (error.kind() != ErrorKind::Busy).then(|| {
            let limit = self.settings.busy_timeout.min(deadline.remaining());
            self.begin_within(id, "boot", limit)
        });
        match self.record(id) {
            Ok(record) => record.active_state == ActiveState::Inactive,
            Err(error) => matches!(error, Error::NotInstalled(_)),
        }
    }

    /// Loads a plugin, or requests the start of one that is loaded.
    fn load_for_boot(&self, id: InstallationId, deadline: Deadline) -> Result<Session> {
        // Another operation may be about to change what it runs, or whether it does.
        let limit = self.settings.busy_timeout.min(deadline.remaining());
        let _operation = self.begin_within(id, "boot", limit)?;
        let Some(session) = self.host.session(id) else {
            return self.host.load(id);
        };
        session.set_active_state(self.record(id)?.active_state)?;
        Ok(session)
    }

    fn boot_one(&self, id: InstallationId, mode: PluginMode, deadline: Deadline) -> BootOutcome {
        let session = match self.load_for_boot(id, deadline) {
            Ok(session) => session,
            // It was removed meanwhile.
            Err(error @ Error::NotInstalled(_)) => return BootOutcome::Failed(error),
            Err(error) => {
                self.failures.lock().insert(id, error.to_string().into());
                return BootOutcome::Failed(error);
            }
        };
        self.failures.lock().remove(&id);
        if mode == PluginMode::External {
            return BootOutcome::Awaited;
        }
        let wait = BOOT_WAIT.min(deadline.remaining());
        match session.wait_for(ReportedState::Active, wait) {
            Ok(()) => BootOutcome::Active,
            Err(error) if error.is_timeout() => BootOutcome::Starting,
            Err(error) => BootOutcome::Failed(error),
        }
    }
}
