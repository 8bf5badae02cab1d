//! Replacing the installed version of a plugin's package by another one: by a new one at an update, or, at a
//! rollback by hand, by one that is kept (`versions`).
//!
//! At an update the new version is unpacked completely while the old one runs. If the plugin is running, the
//! new version is then started, and the record names it only once it is active. So any failure before that, and
//! a crash too, leaves the old version installed, with its files as it left them: those that it wrote beside its
//! program are copied to the new version, not moved. A rollback goes the same way, but uses the release that is
//! there, with the files that are in it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::intent::Intent;
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
use crate::shown;
use crate::state::{ActiveState, ReportedState};
use crate::store::{Record, Release};
use crate::text::Foreign;

/// The version that takes the place of another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To a package that was received: its release is unpacked afresh, and the plugin's files are migrated.
    Forward,
    /// To a release that is kept, as it was left.
    Back,
}

/// The outcome of an update, or of a [rollback](Manager::rollback) by hand.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct UpdateReport {
    /// The plugin as it is now.
    pub installation: Installation,
    /// Whether it was not installed before, and nothing was updated:
    /// [`install_or_update`](Manager::install_or_update) returns such a report.
    pub newly_installed: bool,
    /// Whether the package was installed already. Then a running plugin was not restarted; but files that were
    /// missing on disk have been restored, and a plugin that had errored is started again.
    pub unchanged: bool,
    /// The time from the stop of the previous version until the new one was active; `None` if the plugin was
    /// not wanted active, or not loaded. Serialised in seconds.
    #[serde(serialize_with = "shown::optional_seconds")]
    pub gap: Option<Duration>,
    /// How many files and links that the plugin wrote beside its program were migrated.
    pub migrated_files: usize,
    /// Bytes of these files.
    pub migrated_bytes: u64,
    /// What the plugin wrote beside its program and was not migrated, and why; the first 100. Paths begin at
    /// the directory that the plugin ran in.
    #[serde(serialize_with = "shown::left")]
    pub left: Vec<(PathBuf, String)>,
    /// How many were not migrated in all.
    pub left_count: usize,
    /// The directory that the previous version ran in, if it is kept and is another one: for files that
    /// could not be migrated.
    #[serde(serialize_with = "shown::optional_path")]
    pub previous: Option<PathBuf>,
}

impl UpdateReport {
    /// The report on a plugin that has just been installed.
    pub(super) fn of_new(installation: Installation) -> Self {
        Self {
            installation,
            newly_installed: true,
            unchanged: false,
            gap: None,
            migrated_files: 0,
            migrated_bytes: 0,
            left: Vec::new(),
            left_count: 0,
            previous: None,
        }
    }
}

impl Manager {
    /// Replaces the installed version of a package by another one. If the plugin is loaded and wanted active,
    /// its process is stopped and one of the new version started; if that does not become active, the previous
    /// version is restored. (A version that becomes active and fails later is restarted as usual, not rolled
    /// back.) Calls in flight fail with
    /// [`Disconnect::ByHost`](crate::error::Disconnect::ByHost), code 1012, `package updated`.
    ///
    /// Files that the plugin wrote beside its program, and that the new package does not bring itself,
    /// are copied to the new version; `PLUGIN_DATA_DIR` is not touched. If the previous version is restored, it
    /// has its files as it left them; what the new one wrote meanwhile stays in its directory until the next
    /// update.
    ///
    /// The previous version is kept, and can be gone [back](Self::rollback) to; so are those before it, up to
    /// [`ManagerSettings::releases`](super::ManagerSettings::releases) in all. A package whose release is kept is
    /// installed as any other: the files of that release are replaced.
    ///
    /// [`Installation::warnings`] lists what the author may not have meant. A package that is installed already
    /// is not reviewed again.
    ///
    /// # Blocking
    /// For other operations on it, at most
    /// [`busy_timeout`](super::ManagerSettings::busy_timeout); for the package, at most
    /// [`install_timeout`](super::ManagerSettings::install_timeout); for the stop, at most
    /// [`Timeouts::stop`](crate::Timeouts::stop); for the new version, and then for the previous one, at most
    /// [`activate_timeout`](super::ManagerSettings::activate_timeout) each. Deactivating or removing the plugin ends
    /// the wait for it.
    ///
    /// # Errors
    /// The previous version stays installed.
    /// - Those of [`install`](Self::install) that concern the package.
    /// - [`Error::NotInstalled`]; [`Error::Unsupported`] for an external plugin. A damaged record is not
    ///   an error: the update repairs it, except for a configuration that could not be read.
    /// - [`ErrorKind::OtherPlugin`](crate::ErrorKind::OtherPlugin): the package is another plugin's.
    /// - [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack): the new version did not become active, and the
    ///   previous one is as before; [`RollbackFailed`](crate::ErrorKind::RollbackFailed): it is back, but does
    ///   not run. The [source](std::error::Error::source) is why the new one did not become active.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy): another operation on it is in progress.
    /// - [`ErrorKind::MigrationTooLarge`](crate::ErrorKind::MigrationTooLarge); before the plugin is stopped, if
    ///   its files exceed the limits by then.
    /// - [`Error::Timeout`] with [`Phase::Stop`](crate::error::Phase::Stop), or
    ///   [`ErrorKind::DescendantsLeft`](crate::ErrorKind::DescendantsLeft): it could not be stopped.
    /// - [The store's](crate::store::Store#errors), [`Error::Io`], [`Error::ShutDown`].
    pub fn update_package(
        &self,
        id: InstallationId,
        source: PackageSource<'_>,
    ) -> Result<UpdateReport> {
        let inner = &self.inner;
        inner.check_runtime()?;
        ManagerInner::supervised(inner.record(id)?)?;
        let deadline = Deadline::after(inner.settings.install_timeout);
        let received = inner.receive(source, deadline)?;
        inner.update(id, &received, deadline)
    }
}

impl ManagerInner {
    /// Updates a plugin to a package that has been received.
    pub(super) fn update(
        &self,
        id: InstallationId,
        received: &ReceivedPackage,
        deadline: Deadline,
    ) -> Result<UpdateReport> {
        let operation = self.begin(id, "update_package")?;
        let record = ManagerInner::supervised(self.record(id)?)?;
        // If the record is damaged, its manifest may not be the plugin's: any package may replace it.
        if record.damage.is_none() && record.manifest.id != received.manifest.id {
            return Err(OperationError::OtherPlugin {
                installed: record.manifest.id.into(),
                found: received.manifest.id.as_str().into(),
            }
            .into());
        }
        self.exchange(&operation, record, received, Direction::Forward, deadline)
    }

    /// Replaces the package that a plugin runs from, within an operation on it.
    pub(super) fn exchange(
        &self,
        operation: &Operation<'_>,
        record: Record,
        received: &ReceivedPackage,
        direction: Direction,
        deadline: Deadline,
    ) -> Result<UpdateReport> {
        let id = record.id;
        let _room = self.reserve(id, Some(&received.archive))?;
        let new = received.archive.sha256().to_owned();
        let old = record.stored_archive().map(str::to_owned);
        let root = self.installation_dir(id);
        let mut candidate = candidate(&record, received);
        let releases = candidate.releases.clone();
        if direction == Direction::Forward && old.as_deref() != Some(&*new) {
            candidate.releases.truncate(self.settings.releases);
        }
        let transaction = UpdateTransaction {
            inner: self,
            operation,
            direction,
            candidate,
            releases,
            old: old.as_ref().map(|old| package::release_dir(&root, old)),
            new: package::release_dir(&root, &new),
            record,
            progress: Cell::new(UpdateProgress::Received),
        };
        if old.as_deref() == Some(&*new) {
            return transaction.repair(received, deadline);
        }
        let warnings = match direction {
            Direction::Forward => received.review()?,
            Direction::Back => Vec::new(),
        };
        let intent_file = self.write_intent(id, &Intent::Update { new: new.clone() })?;
        let result = transaction.run(received, deadline);
        let removed = match transaction.progress.get() {
            UpdateProgress::Received => Ok(()),
            // A release that never ran is of no use.
            UpdateProgress::Unpacked => package::remove_release(&root, &new),
            // The plugin runs in one of the releases again, and the record does not say in which.
            UpdateProgress::Used if result.is_err() && old.is_none() => Ok(()),
            UpdateProgress::Used => {
                let kept = match &result {
                    Ok(_) => &transaction.candidate.releases,
                    // With the version that failed, so that it can be examined.
                    Err(_) => &transaction.releases,
                };
                let kept: Vec<&str> = kept.iter().map(|release| &*release.sha256).collect();
                package::keep_releases(&root, &kept)
            }
        };
        intent_file.done_if(Foreign::new(&transaction.record.manifest.id), &removed);
        self.collect_archives();
        let mut update = result?;
        let manifest = &transaction.candidate.manifest;
        let (plugin, version) = (Foreign::new(&manifest.id), Foreign::new(&manifest.version));
        let done = match direction {
            Direction::Forward => "updated",
            Direction::Back => "went back",
        };
        log::info!("plugin {plugin}: {done} to version {version:?}");
        update.installation = update.installation.warned(warnings);
        Ok(update)
    }
}

fn candidate(record: &Record, received: &ReceivedPackage) -> Record {
    let mut candidate = record.clone();
    let archive = &received.archive;
    candidate.set_release(received.manifest.clone(), archive.sha256(), archive.size());
    candidate.damage = None;
    candidate
}

/// One update, or one rollback by hand.
struct UpdateTransaction<'a> {
    inner: &'a ManagerInner,
    operation: &'a Operation<'a>,
    direction: Direction,
    /// The stored record.
    record: Record,
    /// The record of the new version.
    candidate: Record,
    /// All releases of the plugin, the new one first, with those that go once the new one is stored.
    releases: Vec<Release>,
    /// The release of the previous version, if its archive is in the store.
    old: Option<PathBuf>,
    /// The release of the new version.
    new: PathBuf,
    progress: Cell<UpdateProgress>,
}

/// How far an update has come on disk.
#[derive(Clone, Copy)]
enum UpdateProgress {
    /// Nothing has been added.
    Received,
    /// The new release may be in place, and nothing has used it.
    Unpacked,
    /// The new release has run, or a record names it.
    Used,
}

impl UpdateTransaction<'_> {
    /// Restores what is missing of a package that is installed already.
    fn repair(&self, received: &ReceivedPackage, deadline: Deadline) -> Result<UpdateReport> {
        let (inner, archive) = (self.inner, &received.archive);
        inner.store().put_archive(archive)?;
        inner.unpack(&self.candidate, archive, deadline, package::unpack_once)?;
        if self.record != self.candidate {
            inner.store().put(self.candidate.clone())?;
            inner.revised();
        }
        if self.candidate.active_state == ActiveState::Active
            && let Some(session) = inner.host.session(self.record.id)
            && session.reported_state() == ReportedState::Errored
        {
            // What it lacked may have been restored.
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
        match self.direction {
            Direction::Forward => self.unpack_afresh(received, deadline)?,
            Direction::Back => self.find_or_unpack(received, deadline)?,
        }
        fault::point(fault::UNPACKED, id);
        inner.store().put_archive(&received.archive)?;
        fault::point(fault::ARCHIVED, id);
        inner.check_accepted(&self.candidate)?;
        let session = inner.host.session(id);
        if let Some(session) = session
            && self.record.active_state == ActiveState::Active
        {
            return self.swap(&session);
        }
        let migrated = self.migrate_files()?;
        inner.store().put(self.candidate.clone())?;
        inner.revised();
        self.progress.set(UpdateProgress::Used);
        fault::point(fault::RECORDED, id);
        Ok(self.report(None, migrated))
    }

    fn unpack_afresh(&self, received: &ReceivedPackage, deadline: Deadline) -> Result<()> {
        let (inner, archive) = (self.inner, &received.archive);
        // Limits are checked before anything is stopped, as far as that is possible.
        self.migrate(package::check_untracked_files)?;
        if self.record.damage.is_none() && self.record.has_release(archive.sha256()) {
            // Its files go now, whether the update succeeds or not, so it cannot be gone back to.
            let mut record = self.record.clone();
            (record.releases).retain(|release| release.sha256 != archive.sha256());
            inner.store().put(record)?;
            self.progress.set(UpdateProgress::Unpacked);
        }
        // An earlier run of this version may have left files that are outdated now.
        inner.unpack(&self.candidate, archive, deadline, package::unpack_afresh)?;
        self.progress.set(UpdateProgress::Unpacked);
        Ok(())
    }

    fn find_or_unpack(&self, received: &ReceivedPackage, deadline: Deadline) -> Result<()> {
        if !self.new.is_dir() {
            let plugin = Foreign::new(&self.record.manifest.id);
            log::warn!(
                "plugin {plugin}: {} is gone, and is unpacked again without the files that the plugin wrote",
                self.new.display()
            );
        }
        let (inner, once) = (self.inner, package::unpack_once);
        inner.unpack(&self.candidate, &received.archive, deadline, once)
    }

    /// Stops the previous version and starts the new one.
    fn swap(&self, session: &Session) -> Result<UpdateReport> {
        let (inner, id) = (self.inner, self.record.id);
        let was_active = session.reported_state() == ReportedState::Active;
        let began = Instant::now();
        let stop = inner.context().settings.timeouts.stop;
        let back = |cause| Err(self.put_back(session, cause, was_active, began));
        if let Err(error) = session.stop_with(stop, close_code::RESTART, self.reason()) {
            // The host goes on stopping it, and starts it again after that.
            let _ = session.set_active_state(ActiveState::Active);
            return Err(error);
        }
        let migrated = match self.migrate_files() {
            Ok(migrated) => migrated,
            Err(error) => return back(error),
        };
        session.set_candidate(Some(Record {
            releases: self.releases.clone(),
            ..self.candidate.clone()
        }));
        self.progress.set(UpdateProgress::Used);
        if let Err(cause) = self.start(session) {
            return back(cause);
        }
        fault::point(fault::TRIED, id);
        if let Err(cause) = inner.store().put(self.candidate.clone()) {
            return back(cause);
        }
        inner.revised();
        session.set_candidate(None);
        fault::point(fault::RECORDED, id);
        Ok(self.report(Some(began.elapsed()), migrated))
    }

    /// Starts the plugin, and waits until it is active.
    fn start(&self, session: &Session) -> Result<()> {
        let timeout = self.inner.settings.activate_timeout;
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
            message: Some("it was stopped meanwhile".into()),
        })
    }

    /// Restores the previous version, and returns the error of the update.
    fn put_back(&self, session: &Session, cause: Error, was_active: bool, began: Instant) -> Error {
        let stop = self.inner.context().settings.timeouts.stop;
        // Read before the stop, which clears it.
        let problem = last_problem(session, &cause);
        let stopped = session.stop_with(stop, close_code::RESTART, self.reason());
        session.set_candidate(None);
        let restored = match stopped {
            // The operation that cancelled the wait wants it stopped.
            _ if self.operation.is_wait_cancelled() => Ok(()),
            Ok(_) if was_active => self.start(session),
            Ok(_) => session.set_active_state(ActiveState::Active),
            // The host goes on stopping it, and starts the previous version after that.
            Err(error) => session
                .set_active_state(ActiveState::Active)
                .and(Err(error)),
        };
        if self.inner.context().is_shut_down() {
            // The next boot starts what is installed.
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

    /// Returns what the plugin is told when its connection is closed.
    const fn reason(&self) -> &'static str {
        match self.direction {
            Direction::Forward => "package updated",
            Direction::Back => "package rolled back",
        }
    }

    /// Calls `migrate` with the old release, the limits and the check for cancellation, if there is an old
    /// release whose files are to be in the new one.
    fn migrate<T: Default>(
        &self,
        migrate: impl FnOnce(&Path, &MigrationLimits, &dyn Fn() -> bool) -> Result<T, PackageError>,
    ) -> Result<T> {
        let (Some(old), Direction::Forward) = (&self.old, self.direction) else {
            return Ok(T::default());
        };
        let cancel = || self.inner.context().is_shut_down();
        migrate(old, &self.inner.settings.migration(), &cancel)
            .map_err(|error| self.inner.cancelled(error))
    }

    fn migrate_files(&self) -> Result<MigratedFiles> {
        let migrated = self.migrate(|old, limits, cancel| {
            package::migrate_files(old, &self.new, limits, cancel)
        })?;
        fault::point(fault::MIGRATED, self.record.id);
        Ok(migrated)
    }

    fn report(&self, gap: Option<Duration>, migrated: MigratedFiles) -> UpdateReport {
        let old = self.record.stored_archive();
        let is_kept = old.is_some_and(|old| self.candidate.has_release(old));
        UpdateReport {
            installation: self.inner.view(self.candidate.clone()),
            newly_installed: false,
            unchanged: false,
            gap,
            migrated_files: migrated.files,
            migrated_bytes: migrated.bytes,
            left: (migrated.left.into_iter())
                .map(|left| (left.path, left.reason.to_string()))
                .collect(),
            left_count: migrated.left_count,
            previous: (self.old.clone()).filter(|dir| is_kept && dir.is_dir()),
        }
    }
}

/// Returns what is wrong with the plugin, unless `cause` says that, and the last line that it printed.
fn last_problem(session: &Session, cause: &Error) -> Option<Arc<str>> {
    let problem = session.problem()?;
    let message = problem.message();
    let message = (!cause.to_string().contains(message)).then_some(message);
    let line = problem.output().last();
    let line = line.map(|line| format!("its last output: {line}"));
    match (message, line) {
        (Some(message), Some(line)) => Some(format!("{message}; {line}").into()),
        (Some(message), None) => Some(message.into()),
        (None, line) => line.map(Into::into),
    }
}
