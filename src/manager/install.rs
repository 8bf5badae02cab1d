//! Installing: a plugin from a package comes to be. External ones are in `external`.

use super::intake::Intake;
use super::journal::Undertaking;
use super::source::PackageSource;
use super::{Installation, Manager, Shared};
use crate::deadline::Deadline;
use crate::error::{Error, Result, StoreError};
use crate::fault;
use crate::package::{self, Archive, ArchiveContent};
use crate::store::Record;
use crate::text::Foreign;

impl Manager {
    /// Installs a plugin from a package: receives, checks and unpacks it. It is inactive then; the same
    /// plugin may be installed more than once. What the author may not have meant is in
    /// [`Installation::warnings`].
    ///
    /// # Blocking
    /// At most [`install_timeout`](super::ManagerSettings::install_timeout), and for the reader or the
    /// disk beyond that, if those do not answer.
    ///
    /// # Errors
    /// Nothing is left of it then.
    /// - [`Error::Package`](crate::Error::Package): it is no package, breaks a limit of
    ///   [`PackageLimits`](package::PackageLimits), or could never be started; see
    ///   [`package::review`](package::review()).
    /// - [`Error::Manifest`](crate::Error::Manifest), with all that is wrong.
    /// - [`Error::Fetch`](crate::Error::Fetch): it could not be fetched.
    /// - [`Error::Setting`](crate::Error::Setting): the expected SHA-256 is none.
    /// - [`Error::Operation`](crate::Error::Operation): a limit of
    ///   [`ManagerSettings`](super::ManagerSettings), or another SHA-256 than expected.
    /// - [`Error::Disabled`](crate::Error::Disabled), [`Error::Unsupported`](crate::Error::Unsupported):
    ///   the runtime provider runs no packages.
    /// - [`Error::Timeout`](crate::Error::Timeout) with [`Phase::Install`](crate::error::Phase::Install).
    /// - [`Error::Io`](crate::Error::Io), the store's, or [`Error::ShutDown`](crate::Error::ShutDown).
    pub fn install(&self, source: PackageSource<'_>) -> Result<Installation> {
        let shared = &self.shared;
        shared.check_runtime()?;
        let deadline = Deadline::after(shared.settings.install_timeout);
        let intake = shared.receive(source, deadline)?;
        let warnings = Shared::judge(&intake)?;
        let Intake { archive, manifest } = &intake;
        let record = Record::supervised(manifest.clone(), intake.source());
        let id = record.id;
        let _operation = shared.begin(id, "install")?;
        let _room = shared.reserve_installation(id, Some(archive))?;
        let note = shared.note(id, &Undertaking::Install)?;
        let plugin = Foreign::new(&record.manifest.id);
        if let Err(error) = shared.place(&record, archive, deadline) {
            let removed = package::remove_installation(&shared.folder(id), false);
            note.done_if(plugin, &removed);
            shared.collect_archives();
            return Err(error);
        }
        note.done();
        log::info!("plugin {plugin}: installed as {id}");
        Ok(Installation {
            warnings,
            ..shared.view(record)
        })
    }

    /// The package that a plugin was installed from, byte for byte as it was stored. Of what the disk may
    /// have made of it since only the number of bytes is looked at.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// - [`Error::NotInstalled`](crate::Error::NotInstalled).
    /// - [`Error::Unsupported`](crate::Error::Unsupported): it is external, or not installed from a
    ///   package.
    /// - [`Error::Store`](crate::Error::Store): the archive is missing; or what else the store says.
    pub fn package(&self, id: crate::InstallationId) -> Result<ArchiveContent> {
        let shared = &self.shared;
        let record = Shared::supervised(shared.record(id)?)?;
        let sha256 = record.stored_archive().ok_or(Error::Unsupported(
            "the plugin was not installed from a package",
        ))?;
        shared.store().get_archive(sha256)?.ok_or_else(|| {
            let (sha256, problem) = (sha256.into(), "missing");
            StoreError::Archive { sha256, problem }.into()
        })
    }
}

impl Shared {
    /// Unpacks the archive of a new plugin, and stores it and the record.
    fn place(&self, record: &Record, archive: &Archive, deadline: Deadline) -> Result<()> {
        let id = record.id;
        fault::point(fault::RECEIVED, id);
        self.unpack(record, archive, deadline, package::unpack)?;
        fault::point(fault::UNPACKED, id);
        self.store().put_archive(archive)?;
        fault::point(fault::ARCHIVED, id);
        self.store().put(record.clone())?;
        fault::point(fault::RECORDED, id);
        Ok(())
    }
}
