//! Installing a plugin from a package. External plugins are in `external`.

use super::intent::Intent;
use super::received::ReceivedPackage;
use super::source::PackageSource;
use super::update::UpdateReport;
use super::{Installation, Manager, ManagerInner};
use crate::deadline::Deadline;
use crate::error::{Error, OperationError, Result};
use crate::fault;
use crate::package::{self, Archive, ArchiveContent};
use crate::store::Record;
use crate::text::Foreign;

impl Manager {
    /// Installs a plugin from a package: receives, checks and unpacks it. The new plugin is inactive. The
    /// same plugin may be installed more than once. [`Installation::warnings`] lists what the author may not
    /// have meant.
    ///
    /// # Blocking
    /// At most [`install_timeout`](super::ManagerSettings::install_timeout), and longer only while the
    /// reader or the disk blocks.
    ///
    /// # Errors
    /// An error leaves nothing behind.
    /// - [`ErrorKind::InvalidPackage`](crate::ErrorKind::InvalidPackage): it is not a package, or could never be
    ///   started; see [`package::review`](package::review()).
    /// - [`ErrorKind::PackageTooLarge`](crate::ErrorKind::PackageTooLarge): it exceeds a limit of
    ///   [`PackageLimits`](package::PackageLimits).
    /// - [`ErrorKind::InvalidManifest`](crate::ErrorKind::InvalidManifest), with all problems of the manifest.
    /// - What the [runtime refuses](crate::runtime::Runtime::accept).
    /// - [`ErrorKind::FetchFailed`](crate::ErrorKind::FetchFailed),
    ///   [`FetchRefused`](crate::ErrorKind::FetchRefused), [`PrivateAddress`](crate::ErrorKind::PrivateAddress)
    ///   or [`InvalidInput`](crate::ErrorKind::InvalidInput): it could not be fetched from its URL.
    /// - [`Error::Setting`]: the expected SHA-256 is malformed.
    /// - [`ErrorKind::DigestMismatch`](crate::ErrorKind::DigestMismatch): its SHA-256 is not the expected one.
    /// - [`ErrorKind::InstallationLimit`](crate::ErrorKind::InstallationLimit): a limit of
    ///   [`ManagerSettings`](super::ManagerSettings).
    /// - [`Error::Disabled`], [`Error::Unsupported`]: the runtime provider cannot run packages.
    /// - [`Error::Timeout`] with [`Phase::Install`](crate::error::Phase::Install).
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the source's labels, or who adds it, are
    ///   out of bounds.
    /// - [`Error::Io`], [the store's](crate::store::Store#errors), or [`Error::ShutDown`].
    pub fn install(&self, source: PackageSource<'_>) -> Result<Installation> {
        let inner = &self.inner;
        inner.check_runtime()?;
        let deadline = Deadline::after(inner.settings.install_timeout);
        let received = inner.receive(source, deadline)?;
        inner.install(&received, deadline)
    }

    /// Installs a plugin from a package as [`install`](Self::install) does, or updates it as
    /// [`update_package`](Self::update_package) does if a plugin with the package's manifest id is installed.
    /// Of calls at the same time with the same plugin only one installs it. A record so damaged that its
    /// manifest is lost is not found by that id.
    ///
    /// # Blocking
    /// As [`install`](Self::install) or [`update_package`](Self::update_package), and at most
    /// [`busy_timeout`](super::ManagerSettings::busy_timeout) for other calls with the same plugin.
    ///
    /// # Errors
    /// - Those of [`install`](Self::install) or [`update_package`](Self::update_package).
    /// - [`ErrorKind::Ambiguous`](crate::ErrorKind::Ambiguous): more than one plugin with this manifest id is
    ///   installed, so that one has to be [updated](Self::update_package) by its installation id.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy): another call with the same plugin is in progress.
    pub fn install_or_update(&self, source: PackageSource<'_>) -> Result<UpdateReport> {
        let inner = &self.inner;
        inner.check_runtime()?;
        let deadline = Deadline::after(inner.settings.install_timeout);
        let received = inner.receive(source, deadline)?;
        let manifest_id = &received.manifest.id;
        let limit = inner.settings.busy_timeout;
        let deployments = &inner.deployments;
        let _deployment = deployments.begin(manifest_id.clone(), "install_or_update", limit)?;
        let mut records = inner.store().list()?;
        records.retain(|record| record.manifest.id == *manifest_id);
        match &records[..] {
            [] => {}
            [record] => match inner.update(record.id, &received, deadline) {
                // It was removed meanwhile.
                Err(Error::NotInstalled(_)) => {}
                updated => return updated,
            },
            [..] => {
                let (manifest_id, count) = (manifest_id.as_str().into(), records.len());
                return Err(OperationError::Ambiguous { manifest_id, count }.into());
            }
        }
        let installed = inner.install(&received, deadline)?;
        Ok(UpdateReport::of_new(installed))
    }

    /// Returns the package that a plugin was installed from, as it was stored. Only its size is checked again;
    /// bytes that the disk has changed since are not noticed.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// - [`Error::NotInstalled`].
    /// - [`Error::Unsupported`]: it is external, or was not installed from a package.
    /// - [`ErrorKind::RecordDamaged`](crate::ErrorKind::RecordDamaged): the archive is missing.
    /// - [The store's](crate::store::Store#errors).
    pub fn package(&self, id: crate::InstallationId) -> Result<ArchiveContent> {
        let inner = &self.inner;
        let record = ManagerInner::supervised(inner.record(id)?)?;
        let sha256 = record.stored_archive().ok_or(Error::Unsupported(
            "the plugin was not installed from a package",
        ))?;
        inner.stored_content(sha256)
    }
}

impl ManagerInner {
    /// Installs a plugin from a package that has been received.
    fn install(&self, received: &ReceivedPackage, deadline: Deadline) -> Result<Installation> {
        let warnings = received.review()?;
        let archive = &received.archive;
        let record = received.record()?;
        let id = record.id;
        let _operation = self.begin(id, "install")?;
        let room = self.reserve_installation(id, Some(archive))?;
        let intent_file = self.write_intent(id, &Intent::Install)?;
        let plugin = Foreign::new(&record.manifest.id);
        if let Err(error) = self.unpack_and_store(&record, archive, deadline) {
            let removed = package::remove_installation(&self.installation_dir(id), false);
            intent_file.done_if(plugin, &removed);
            // First, since its archive may go now.
            drop(room);
            self.collect_archives();
            return Err(error);
        }
        intent_file.done();
        self.revised();
        log::info!("plugin {plugin}: installed as {id}");
        Ok(self.view(record).warned(warnings))
    }

    /// Unpacks the archive of a new plugin, and stores the archive and the record.
    fn unpack_and_store(
        &self,
        record: &Record,
        archive: &Archive,
        deadline: Deadline,
    ) -> Result<()> {
        let id = record.id;
        fault::point(fault::RECEIVED, id);
        self.unpack(record, archive, deadline, package::unpack_once)?;
        fault::point(fault::UNPACKED, id);
        self.store().put_archive(archive)?;
        fault::point(fault::ARCHIVED, id);
        self.check_accepted(record)?;
        self.store().put(record.clone())?;
        fault::point(fault::RECORDED, id);
        Ok(())
    }
}
