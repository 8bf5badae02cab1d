//! Updating: another version of a plugin's package in the place of the one that is installed.
//!
//! The new version is put on disk whole while the old one runs. Then, if the plugin runs, the new one is
//! tried; the record names it only once it is active. So whatever goes wrong before that, and a crash
//! too, leaves the old one installed, with its files as it left them: those that it wrote beside its
//! program are copied to the new version, not moved.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::intent::{Intent, keep_two_releases};
use super::operations::Operation;
use super::received::ReceivedPackage;
use super::source::PackageSource;
use super::{Installation, Manager, ManagerInner};
use crate::deadline::Deadline;
use crate::duplex::close_code;
use crate::error::{Error, OperationError, PackageError, Result};
use crate::fault;
use crate::id::InstallationId;
use crate::package::{self, MigratedFiles, MigrationLimits};
use crate::session::Session;
use crate::state::{ActiveState, ReportedState};
use crate::store::{PluginKind, Record};
use crate::text::Foreign;

const REASON: &str = "package updated";

/// How a plugin is updated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpdateOptions {
    /// Puts the version before in its place again if the new one does not come up. Default true.
    pub roll_back: bool,
    /// Until the new version must be active, if not
    /// [`ManagerSettings::activate_timeout`](super::ManagerSettings::activate_timeout).
    pub activate_timeout: Option<Duration>,
}

impl Default for UpdateOptions {
    fn default() -> Self {
        Self {
            roll_back: true,
            activate_timeout: None,
        }
    }
}

impl UpdateOptions {
    /// Sets [`roll_back`](Self::roll_back).
    #[must_use]
    pub const fn with_roll_back(mut self, yes: bool) -> Self {
        self.roll_back = yes;
        self
    }

    /// Sets [`activate_timeout`](Self::activate_timeout).
    #[must_use]
    pub const fn with_activate_timeout(mut self, timeout: Duration) -> Self {
        self.activate_timeout = Some(timeout);
        self
    }
}

/// What an update came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UpdateReport {
    /// The plugin as it is now.
    pub installation: Installation,
    /// Whether it is the package that was installed already. Then nothing was restarted; but what of it
    /// was missing on disk is there again, and a plugin that had errored is started once more.
    pub unchanged: bool,
    /// From the stop of the version before until the new one was active; `None` when the plugin was
    /// not wanted active, or not loaded.
    pub gap: Option<Duration>,
    /// What of the plugin's own files, beside its program, was migrated over.
    pub migrated: MigratedFiles,
    /// The folder that the version before ran in, and still is, if it is another one: for what could not
    /// be migrated over. It goes with the next update.
    pub previous: Option<PathBuf>,
}

impl Manager {
    /// Puts another version of a package in the place of the one that is installed. If the plugin is
    /// loaded and wanted active, its process is stopped and one of the new version started; if that does
    /// not become active, the version before is put back. (One that becomes active and fails after that
    /// has come up: it is started again as any other.) Calls in flight fail with
    /// [`Disconnect::ByHost`](crate::error::Disconnect::ByHost), code 1012, `package updated`.
    ///
    /// Files that the plugin wrote beside its program, and that the new package does not bring itself,
    /// are copied to the new version; what it keeps in `PLUGIN_DATA_DIR` is not touched at all. After
    /// a rollback the version before has its files as it left them; what the new one wrote meanwhile
    /// stays in the folder that it ran in, until the next update.
    ///
    /// What the author may not have meant is in [`Installation::warnings`]. The package that is installed
    /// already is not judged again.
    ///
    /// # Blocking
    /// For other operations on it, at most
    /// [`busy_timeout`](super::ManagerSettings::busy_timeout); for the package, at most
    /// [`install_timeout`](super::ManagerSettings::install_timeout); for the stop, at most the host's stop
    /// timeout; for the new version, and then for the one before, at most
    /// [`activate_timeout`](UpdateOptions::activate_timeout) each. Stopping or removing the plugin ends
    /// the wait for it.
    ///
    /// # Errors
    /// The version before stays installed, unless rolling back was switched off.
    /// - Those of [`install`](Self::install) that concern the package.
    /// - [`Error::NotInstalled`]; [`Error::Unsupported`] for an external plugin. A damaged record is no
    ///   hindrance: the update puts it right, but for a configuration that could not be read.
    /// - [`Error::Operation`] with [`OperationError::OtherPlugin`], [`OperationError::RolledBack`] or
    ///   [`OperationError::Busy`].
    /// - [`Error::Package`] with [`CarryOverTooLarge`](crate::error::PackageError::CarryOverTooLarge) or
    ///   [`CarryOverPathsTooLarge`](crate::error::PackageError::CarryOverPathsTooLarge), before the plugin
    ///   is stopped if it is so by then.
    /// - [`Error::Timeout`] with [`Phase::Stop`](crate::error::Phase::Stop), or [`Error::DescendantsLeft`]: it
    ///   could not be stopped.
    /// - With rolling back switched off, why the new version did not come up.
    /// - The store's, [`Error::Io`], [`Error::ShutDown`].
    pub fn update_package(
        &self,
        id: InstallationId,
        source: PackageSource<'_>,
        options: &UpdateOptions,
    ) -> Result<UpdateReport> {
        let inner = &self.inner;
        inner.check_runtime()?;
        ManagerInner::supervised(inner.record(id)?)?;
        let deadline = Deadline::after(inner.settings.install_timeout);
        let received = inner.receive(source, deadline)?;
        let operation = inner.begin(id, "update_package")?;
        let record = ManagerInner::supervised(inner.record(id)?)?;
        // One that could not be read may be replaced by anything.
        if record.damage.is_none() && record.manifest.id != received.manifest.id {
            return Err(OperationError::OtherPlugin {
                installed: record.manifest.id.into(),
                found: received.manifest.id.into(),
            }
            .into());
        }
        let _room = inner.reserve(id, Some(&received.archive))?;
        let new = received.archive.sha256().to_owned();
        let old = record.stored_archive().map(str::to_owned);
        let root = inner.installation_dir(id);
        let transaction = UpdateTransaction {
            inner,
            operation: &operation,
            candidate: candidate(&record, &received),
            old: old.as_ref().map(|old| package::release_dir(&root, old)),
            new: package::release_dir(&root, &new),
            record,
            options,
            progress: Cell::new(UpdateProgress::Received),
        };
        if old.as_deref() == Some(&*new) {
            return transaction.repair(&received, deadline);
        }
        let warnings = received.review()?;
        let intent = Intent::Update {
            new: new.clone(),
            old: old.clone(),
        };
        let intent_file = inner.write_intent(id, &intent)?;
        let result = transaction.run(&received, deadline);
        let removed = match transaction.progress.get() {
            UpdateProgress::Received => Ok(()),
            // What never ran is not left.
            UpdateProgress::Unpacked => package::remove_release(&root, &new),
            // What runs again is in one of the releases, and nobody says in which.
            UpdateProgress::Used if result.is_err() && old.is_none() => Ok(()),
            // What failed is, for a look.
            UpdateProgress::Used => keep_two_releases(&root, &new, old.as_deref()),
        };
        intent_file.done_if(Foreign::new(&transaction.record.manifest.id), &removed);
        inner.collect_archives();
        let mut update = result?;
        let manifest = &transaction.candidate.manifest;
        let (plugin, version) = (Foreign::new(&manifest.id), Foreign::new(&manifest.version));
        log::info!("plugin {plugin}: updated to version {version:?}");
        update.installation.warnings = warnings;
        Ok(update)
    }
}

fn candidate(record: &Record, received: &ReceivedPackage) -> Record {
    let mut candidate = record.clone();
    candidate.manifest = received.manifest.clone();
    candidate.kind = PluginKind::Supervised(received.source());
    candidate.damage = None;
    candidate
}

/// One update.
struct UpdateTransaction<'a> {
    inner: &'a ManagerInner,
    operation: &'a Operation<'a>,
    /// As it is stored.
    record: Record,
    /// As it is to be.
    candidate: Record,
    /// Where the version before runs, if it is in the store.
    old: Option<PathBuf>,
    new: PathBuf,
    options: &'a UpdateOptions,
    progress: Cell<UpdateProgress>,
}

/// How far an update has come, as to what there is on disk.
#[derive(Clone, Copy)]
enum UpdateProgress {
    /// Nothing is in place that was not before.
    Received,
    /// The new release is in place, and nothing has used it.
    Unpacked,
    /// The new release has run, or a record names it.
    Used,
}

impl UpdateTransaction<'_> {
    /// The same package once more: whatever of it is missing is put right.
    fn repair(&self, received: &ReceivedPackage, deadline: Deadline) -> Result<UpdateReport> {
        let inner = self.inner;
        inner.store().put_archive(&received.archive)?;
        inner.unpack(
            &self.candidate,
            &received.archive,
            deadline,
            package::unpack,
        )?;
        if self.record != self.candidate {
            inner.store().put(self.candidate.clone())?;
        }
        if self.candidate.active_state == ActiveState::Active
            && let Some(session) = inner.host.session(self.record.id)
            && session.reported_state() == ReportedState::Errored
        {
            // What it lacked may be there now.
            session.set_active_state(ActiveState::Active)?;
        }
        Ok(UpdateReport {
            unchanged: true,
            previous: None,
            ..self.report(None, MigratedFiles::default())
        })
    }

    fn run(&self, received: &ReceivedPackage, deadline: Deadline) -> Result<UpdateReport> {
        let (inner, id) = (self.inner, self.record.id);
        fault::point(fault::RECEIVED, id);
        // Seen before anything is stopped, as far as it can be.
        self.migrate(package::check_untracked_files)?;
        // Afresh: what an earlier run of this version left there is not what the plugin has now.
        let afresh = package::unpack_afresh;
        inner.unpack(&self.candidate, &received.archive, deadline, afresh)?;
        self.progress.set(UpdateProgress::Unpacked);
        fault::point(fault::UNPACKED, id);
        inner.store().put_archive(&received.archive)?;
        fault::point(fault::ARCHIVED, id);
        let session = inner.host.session(id);
        if let Some(session) = session
            && self.record.active_state == ActiveState::Active
        {
            return self.swap(&session);
        }
        let migrated = self.migrate_files()?;
        inner.store().put(self.candidate.clone())?;
        self.progress.set(UpdateProgress::Used);
        fault::point(fault::RECORDED, id);
        Ok(self.report(None, migrated))
    }

    /// Stops the version before and starts the new one.
    fn swap(&self, session: &Session) -> Result<UpdateReport> {
        let (inner, id) = (self.inner, self.record.id);
        let was_active = session.reported_state() == ReportedState::Active;
        let began = Instant::now();
        let stop = inner.context().settings.timeouts.stop;
        let back = |cause| Err(self.roll_back(session, cause, was_active, began));
        if let Err(error) = session.stop_with(stop, close_code::RESTART, REASON) {
            // It goes on being stopped; and then it is to run again, if it can be.
            let _ = session.set_active_state(ActiveState::Active);
            return Err(error);
        }
        let migrated = match self.migrate_files() {
            Ok(migrated) => migrated,
            Err(error) => return back(error),
        };
        if self.options.roll_back {
            session.set_candidate(Some(self.candidate.clone()));
        } else if let Err(error) = inner.store().put(self.candidate.clone()) {
            return back(error);
        }
        self.progress.set(UpdateProgress::Used);
        if let Err(cause) = self.start(session) {
            return if self.options.roll_back {
                back(cause)
            } else {
                Err(cause)
            };
        }
        fault::point(fault::TRIED, id);
        if self.options.roll_back {
            if let Err(cause) = inner.store().put(self.candidate.clone()) {
                return back(cause);
            }
            session.set_candidate(None);
        }
        fault::point(fault::RECORDED, id);
        Ok(self.report(Some(began.elapsed()), migrated))
    }

    /// Starts what is to run now, and waits until it does.
    fn start(&self, session: &Session) -> Result<()> {
        let settings = &self.inner.settings;
        let timeout = self.options.activate_timeout;
        let timeout = timeout.unwrap_or(settings.activate_timeout);
        if !self.operation.is_wait_cancelled() {
            // In this order: an operation that cancels the wait requests the stop after this start, or its
            // cancel is seen here.
            session.set_active_state(ActiveState::Active)?;
            if self.operation.begin_wait() {
                let started = session.wait_for(ReportedState::Active, timeout);
                self.operation.end_wait();
                if started.is_ok() || !self.operation.is_wait_cancelled() {
                    return started;
                }
            } else {
                let stop = self.inner.context().settings.timeouts.stop;
                session.request_stop(stop, close_code::NORMAL, "closed")?;
            }
        }
        Err(Error::State {
            state: session.reported_state(),
            message: Some("it was to be stopped meanwhile".into()),
        })
    }

    /// Puts the version before in its place again, and gives the error that says so.
    fn roll_back(
        &self,
        session: &Session,
        cause: Error,
        was_active: bool,
        began: Instant,
    ) -> Error {
        let stop = self.inner.context().settings.timeouts.stop;
        // Looked at before the stop, which clears it.
        let problem = last_problem(session, &cause);
        let stopped = session.stop_with(stop, close_code::RESTART, REASON);
        session.set_candidate(None);
        let restored = match stopped {
            // Whoever told it to give up wants it stopped.
            _ if self.operation.is_wait_cancelled() => Ok(()),
            Ok(_) if was_active => self.start(session),
            Ok(_) => session.set_active_state(ActiveState::Active),
            // It goes on being stopped; and then the one before is to run again, if it can be.
            Err(error) => session
                .set_active_state(ActiveState::Active)
                .and(Err(error)),
        };
        if self.inner.context().is_shut_down() {
            // What is installed runs again after the next boot.
            return Error::ShutDown;
        }
        let gap = began.elapsed();
        let restored = restored.err();
        let error = OperationError::RolledBack {
            cause,
            problem,
            restored,
            gap,
        };
        log::error!("plugin {}: {error}", Foreign::new(&self.record.manifest.id));
        error.into()
    }

    /// Calls this with the limits on what is migrated, and with what cancels that.
    fn migrate<T: Default>(
        &self,
        migrate: impl FnOnce(&Path, &MigrationLimits, &dyn Fn() -> bool) -> Result<T, PackageError>,
    ) -> Result<T> {
        let Some(old) = &self.old else {
            return Ok(T::default());
        };
        let cancel = || self.inner.context().is_shut_down();
        migrate(old, &self.inner.settings.migration, &cancel)
            .map_err(|error| self.inner.cancelled(error))
    }

    fn migrate_files(&self) -> Result<MigratedFiles> {
        let migrated = self.migrate(|old, limits, cancel| {
            package::migrate_files(old, &self.new, limits, cancel)
        })?;
        fault::point(fault::CARRIED, self.record.id);
        Ok(migrated)
    }

    fn report(&self, gap: Option<Duration>, migrated: MigratedFiles) -> UpdateReport {
        UpdateReport {
            installation: self.inner.view(self.candidate.clone()),
            unchanged: false,
            gap,
            migrated,
            previous: self.old.clone().filter(|dir| dir.is_dir()),
        }
    }
}

/// What is wrong with the plugin, unless `cause` says that, and the last line that it printed.
fn last_problem(session: &Session, cause: &Error) -> Option<Arc<str>> {
    let now = session.snapshot();
    let cause = cause.to_string();
    let message = now.message.filter(|message| !cause.contains(&**message));
    let output = now.details.get("output").and_then(Value::as_array);
    let line = output.and_then(|lines| lines.last()?.as_str());
    let line = line.map(|line| format!("its last output: {line}"));
    match (message, line) {
        (Some(message), Some(line)) => Some(format!("{message}; {line}").into()),
        (message, line) => message.or_else(|| line.map(Into::into)),
    }
}
