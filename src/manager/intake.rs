//! `Intake`: a package that has been received and found good, and is not installed yet.

use std::io::Read;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use super::Shared;
use super::source::{Origin, PackageSource};
use crate::deadline::Deadline;
use crate::error::{Error, OperationError, PackageError, Phase, Result};
#[cfg(feature = "fetch")]
use crate::fetch::FetchRequest;
use crate::package::{
    self, Archive, ArchiveContent, PackageLimits, PackageWarning, PluginFiles, Review, Spool,
    review,
};
use crate::protocol::manifest::Manifest;
use crate::store::Record;
use crate::text::Foreign;

/// Where packages are while they are being received, below the data folder.
pub(super) const FOLDER: &str = "incoming";

/// [`package::unpack`](crate::package::unpack), or `unpack_afresh`.
type Unpack =
    fn(&Archive, &Path, &str, &PackageLimits, &dyn Fn() -> bool) -> Result<PathBuf, PackageError>;

/// A package that has been received and found good.
pub(super) struct Intake {
    pub(super) archive: Archive,
    pub(super) manifest: Manifest,
    /// What the archive is read from; removed with this.
    _spool: Option<Spool>,
}

impl Shared {
    /// Receives a package and checks all that can be checked without unpacking it.
    pub(super) fn receive(&self, source: PackageSource<'_>, deadline: Deadline) -> Result<Intake> {
        let limits = &self.context().settings.package_limits;
        let cancel = || deadline.has_passed() || self.context().is_shut_down();
        let expected = source.sha256.as_deref().map(digest).transpose()?;
        let spool = |reader: &mut dyn Read| {
            let data = &self.context().settings.data_dir;
            Spool::receive(data, FOLDER, reader, limits.archive_size, &cancel)
                .map_err(|error| self.too_late(error.into(), &cancel))
        };
        let (content, spool) = match source.origin {
            Origin::Bytes(bytes) => (ArchiveContent::Memory(bytes), None),
            Origin::Reader(mut reader) => with_content(spool(&mut reader)?),
            Origin::File(path) => with_content(spool(&mut open(&path)?)?),
            #[cfg(feature = "fetch")]
            Origin::Url(url) => {
                let request = FetchRequest {
                    url: &url,
                    sha256: expected,
                    limit: limits.archive_size,
                    deadline,
                };
                let fetched = self.fetcher.fetch(&request, &cancel, spool);
                with_content(fetched.map_err(|error| self.too_late(error, &cancel))?)
            }
        };
        let archive = Archive::from_content(content, limits, &cancel)
            .map_err(|error| self.too_late(error.into(), &cancel))?;
        if expected.is_some_and(|expected| digest(archive.sha256()).ok() != Some(expected)) {
            return Err(OperationError::OtherArchive {
                found: archive.sha256().into(),
                expected: source.sha256.unwrap_or_default(),
            }
            .into());
        }
        let manifest = Manifest::parse(archive.manifest_bytes())?;
        Ok(Intake {
            archive,
            manifest,
            _spool: spool,
        })
    }

    /// Refuses a package that could never be started, and returns what its author may not have meant,
    /// once it is logged. A package that is installed is never judged again: it may run somewhere, and
    /// rules may change.
    pub(super) fn judge(intake: &Intake) -> Result<Vec<PackageWarning>> {
        let Review { problems, warnings } =
            review(PluginFiles::Archive(&intake.archive), &intake.manifest);
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem.into());
        }
        for warning in &warnings {
            let id = Foreign::new(&intake.manifest.id);
            log::warn!("plugin {id}: {warning}");
        }
        Ok(warnings)
    }

    /// Puts an archive on disk as a release of the plugin of this record, in the way that `unpack` does.
    pub(super) fn unpack(
        &self,
        record: &Record,
        archive: &Archive,
        deadline: Deadline,
        unpack: Unpack,
    ) -> Result<()> {
        let cancel = || deadline.has_passed() || self.context().is_shut_down();
        let (root, command) = (self.folder(record.id), &record.manifest.command);
        let limits = &self.context().settings.package_limits;
        match unpack(archive, &root, command, limits, &cancel) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.too_late(error.into(), &cancel)),
        }
    }

    /// What was cancelled because the time was over says so.
    pub(super) fn too_late(&self, error: Error, cancelled: &dyn Fn() -> bool) -> Error {
        match error {
            _ if self.context().is_shut_down() => Error::ShutDown,
            Error::Package(package)
                if matches!(*package, PackageError::Cancelled) && cancelled() =>
            {
                Error::timeout(Phase::Install, self.settings.install_timeout)
            }
            other => other,
        }
    }
}

/// The bytes of a SHA-256 in hexadecimal.
pub(super) fn digest(text: &str) -> Result<[u8; 32]> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Error::setting("sha256", format!("{text:?} is not 64 hexadecimal digits")))
}

fn with_content(spool: Spool) -> (ArchiveContent, Option<Spool>) {
    (spool.content(), Some(spool))
}

fn open(path: &Path) -> Result<std::fs::File> {
    let opened = package::open_file(path).map(|(file, _)| file);
    opened.map_err(|error| Error::io(format!("open package {}", path.display()), error))
}
