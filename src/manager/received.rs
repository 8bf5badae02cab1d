//! `ReceivedPackage`: a package that has been received and checked, and is not installed yet.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use super::ManagerInner;
use super::source::{Origin, PackageSource};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, OperationError, PackageError, Phase, Result, StoreError};
#[cfg(feature = "fetch")]
use crate::fetch::FetchRequest;
use crate::package::{self, Archive, ArchiveContent, PackageLimits, Review, Spool};
use crate::protocol::manifest::Manifest;
use crate::store::{Record, Source};
use crate::text::Foreign;

/// The directory, below the data directory, for packages that are being received.
pub(super) const DIR: &str = "incoming";

/// [`package::unpack`] or [`package::unpack_afresh`].
type Unpack =
    fn(&Archive, &Path, &str, &PackageLimits, &dyn Fn() -> bool) -> Result<PathBuf, PackageError>;

/// A package that has been received and checked.
pub(super) struct ReceivedPackage {
    pub(super) archive: Archive,
    pub(super) manifest: Manifest,
    added_by: Option<String>,
    labels: BTreeMap<String, String>,
}

impl ReceivedPackage {
    /// Returns the source of a plugin that is installed from this.
    pub(super) fn source(&self) -> Source {
        Source::Stored {
            sha256: self.archive.sha256().to_owned(),
            size: self.archive.size(),
        }
    }

    /// Makes the record of a plugin that is installed from this.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: what the embedder wants to keep with it is out of bounds.
    pub(super) fn record(&self) -> Result<Record> {
        let mut record = Record::supervised(self.manifest.clone(), self.source());
        record.added_by.clone_from(&self.added_by);
        record.labels.clone_from(&self.labels);
        record.validate()?;
        Ok(record)
    }

    /// Refuses a package that could never be started; logs and returns what its author may not have meant. A
    /// package that is installed is never reviewed again: it may run somewhere, and rules may change.
    pub(super) fn review(&self) -> Result<Vec<String>> {
        let Review { problems, warnings } = package::review(&self.archive, &self.manifest);
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem);
        }
        for warning in &warnings {
            let id = Foreign::new(&self.manifest.id);
            log::warn!("plugin {id}: {warning}");
        }
        Ok(warnings)
    }
}

impl ManagerInner {
    /// Receives a package and checks what can be checked without unpacking it.
    pub(super) fn receive(
        &self,
        source: PackageSource<'_>,
        deadline: Deadline,
    ) -> Result<ReceivedPackage> {
        let limits = &self.context().settings.package_limits;
        let cancel = || deadline.has_passed() || self.context().is_shut_down();
        let expected = source.sha256.as_deref().map(digest).transpose()?;
        // The file is unlinked here already, and removed when the last handle to its content is closed.
        let spool = |reader: &mut dyn Read| {
            let data = &self.context().settings.data_dir;
            Spool::receive(data, DIR, reader, limits.archive_size, &cancel)
                .map(|spool| spool.content())
                .map_err(|error| self.cancelled(error))
        };
        let content = match source.origin {
            Origin::Bytes(bytes) => ArchiveContent::Memory(bytes),
            Origin::Reader(mut reader) => spool(&mut reader)?,
            Origin::File(path) => {
                let (mut file, _) = package::open_file(&path).map_err(|error| {
                    Error::io(format!("open package {}", path.display()), error)
                })?;
                spool(&mut file)?
            }
            #[cfg(feature = "fetch")]
            Origin::Url(url) => {
                let request = FetchRequest {
                    url: &url,
                    sha256: expected,
                    limit: limits.archive_size,
                    deadline,
                };
                let fetched = self.fetcher.fetch(&request, &cancel, spool);
                fetched.map_err(|error| self.cancelled(error))?
            }
        };
        let archive = Archive::from_content(content, limits, &cancel)
            .map_err(|error| self.cancelled(error))?;
        if expected.is_some_and(|expected| digest(archive.sha256()).ok() != Some(expected)) {
            return Err(OperationError::OtherArchive {
                found: archive.sha256().into(),
                expected: source.sha256.unwrap_or_default(),
            }
            .into());
        }
        let manifest = Manifest::parse(archive.manifest_bytes())?;
        Ok(ReceivedPackage {
            archive,
            manifest,
            added_by: source.added_by,
            labels: source.labels,
        })
    }

    /// Returns an archive of the store.
    ///
    /// # Errors
    /// [`ErrorKind::RecordDamaged`]: it is missing or damaged; and the store's.
    pub(super) fn stored_content(&self, sha256: &str) -> Result<ArchiveContent> {
        self.store().get_archive(sha256)?.ok_or_else(|| {
            let (sha256, problem) = (sha256.into(), "missing");
            StoreError::Archive { sha256, problem }.into()
        })
    }

    /// Reads a package that is kept in the store.
    pub(super) fn kept_package(&self, sha256: &str, deadline: Deadline) -> Result<ReceivedPackage> {
        let limits = &self.context().settings.package_limits;
        let cancel = || deadline.has_passed() || self.context().is_shut_down();
        let archive = Archive::from_content(self.stored_content(sha256)?, limits, &cancel)
            .map_err(|error| self.cancelled(error))?;
        if archive.sha256() != sha256 {
            let (sha256, problem) = (sha256.into(), "damaged");
            return Err(StoreError::Archive { sha256, problem }.into());
        }
        let manifest = Manifest::parse(archive.manifest_bytes())?;
        Ok(ReceivedPackage {
            archive,
            manifest,
            added_by: None,
            labels: BTreeMap::new(),
        })
    }

    /// Unpacks an archive with `unpack` as a release of the plugin of this record.
    pub(super) fn unpack(
        &self,
        record: &Record,
        archive: &Archive,
        deadline: Deadline,
        unpack: Unpack,
    ) -> Result<()> {
        let cancel = || deadline.has_passed() || self.context().is_shut_down();
        let (root, command) = (self.installation_dir(record.id), &record.manifest.command);
        let limits = &self.context().settings.package_limits;
        unpack(archive, &root, command, limits, &cancel)
            .map(drop)
            .map_err(|error| self.cancelled(error))
    }

    /// Converts the error of cancelled work into its reason: the host's shutdown, or else the deadline.
    pub(super) fn cancelled(&self, error: impl Into<Error>) -> Error {
        match error.into() {
            _ if self.context().is_shut_down() => Error::ShutDown,
            error if error.kind() == ErrorKind::Cancelled => {
                Error::timeout(Phase::Install, self.settings.install_timeout)
            }
            other => other,
        }
    }
}

/// Parses a SHA-256 in hexadecimal.
pub(super) fn digest(text: &str) -> Result<[u8; 32]> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Error::setting("sha256", format!("{text:?} is not 64 hexadecimal digits")))
}
