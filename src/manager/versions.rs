//! Versions: which releases of a plugin are kept, and going back to one by hand. The record says which they are;
//! replacing one by another, in either direction, is in `update`.

use std::time::SystemTime;

use serde::Serialize;

use super::received;
use super::update::{Direction, UpdateReport};
use super::{Manager, ManagerInner};
use crate::deadline::Deadline;
use crate::error::{OperationError, Result};
use crate::id::InstallationId;
use crate::shown;
use crate::store::{Record, Release};

/// A release of a plugin that is kept. It serialises as it is; times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Version {
    /// The SHA-256 of its package, in lower-case hexadecimal, which tells it from the others.
    pub sha256: String,
    /// The size of its package in bytes.
    pub size: u64,
    /// The version in its manifest, at most 256 bytes of it; may be empty, and the same for two of them.
    pub version: String,
    /// Whether it is the one that the plugin runs from.
    pub is_current: bool,
    /// When the plugin was last given this release, by an installation, an update or a rollback. `None` if it is
    /// from before that was kept.
    #[serde(serialize_with = "shown::optional_time")]
    pub used_from: Option<SystemTime>,
    /// When another release last took its place; `None` for the current one.
    #[serde(serialize_with = "shown::optional_time")]
    pub used_until: Option<SystemTime>,
}

impl Manager {
    /// Returns the releases of a plugin that are kept: the current one, and those that it can go back to
    /// ([`rollback`](Self::rollback)), the one that was used last first. How many there are at most is
    /// [`ManagerSettings::releases`](super::ManagerSettings::releases). There are none of a plugin that was not
    /// installed from a package; those that a version of this crate without this list has left behind are not in it.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// - [`Error::NotInstalled`](crate::Error::NotInstalled).
    /// - [`Error::Unsupported`](crate::Error::Unsupported): the plugin is external.
    /// - [The store's](crate::store::Store#errors).
    pub fn versions(&self, id: InstallationId) -> Result<Vec<Version>> {
        let record = ManagerInner::supervised(self.inner.record(id)?)?;
        let current = record.stored_archive();
        let version = |release: Release| Version {
            is_current: current == Some(&*release.sha256),
            sha256: release.sha256,
            size: release.size,
            version: release.version,
            used_from: release.used_from,
            used_until: release.used_until,
        };
        Ok(record.kept_releases().into_iter().map(version).collect())
    }

    /// Goes back to a release that is kept: to the one whose package has the SHA-256 `to`, in hexadecimal, or
    /// without that to the one that was used before the current one. If the plugin is loaded and wanted active, it
    /// is stopped and started in that release; if it does not become active, the one that ran before is restored,
    /// as [`update_package`](Self::update_package) does. Calls in flight fail with
    /// [`Disconnect::ByHost`](crate::error::Disconnect::ByHost), code 1012, `package rolled back`.
    ///
    /// The plugin finds the files beside its program as that release left them: none are migrated, so what it wrote
    /// there since is not in them. `PLUGIN_DATA_DIR` and the configuration stay as they are. If the directory of
    /// the release is gone, it is unpacked again, without such files. On a sprite, where a release may be missing
    /// because the sprite was made again, it is deployed as at an update, with the files of the release before.
    ///
    /// The release that was left is kept, with its files, so that a second rollback returns to it. Naming the
    /// current release changes nothing, and restores what is missing of it
    /// ([`UpdateReport::unchanged`]).
    ///
    /// # Blocking
    /// As [`update_package`](Self::update_package), with the package read from the store.
    ///
    /// # Errors
    /// The plugin is as before.
    /// - [`Error::NotInstalled`](crate::Error::NotInstalled).
    /// - [`Error::Unsupported`](crate::Error::Unsupported): the plugin is external.
    /// - [`ErrorKind::UnknownVersion`](crate::ErrorKind::UnknownVersion): no release with this SHA-256 is kept; the
    ///   text names those that are. Or there is none but the current one.
    /// - [`Error::Setting`](crate::Error::Setting): `to` is not 64 hexadecimal digits.
    /// - [`ErrorKind::RecordDamaged`](crate::ErrorKind::RecordDamaged): its record is damaged, which an update can
    ///   repair; or the archive of the release is missing or damaged.
    /// - [`ErrorKind::InvalidManifest`](crate::ErrorKind::InvalidManifest), or those of reading a package: this
    ///   version of the crate does not take the release any more.
    /// - [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack): it did not become active in the release, and the
    ///   one before is as it was; [`RollbackFailed`](crate::ErrorKind::RollbackFailed): it is back, but does not
    ///   run.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy), and those of [`update_package`](Self::update_package) that
    ///   concern the stop, the store and the host.
    pub fn rollback(&self, id: InstallationId, to: Option<&str>) -> Result<UpdateReport> {
        let inner = &self.inner;
        inner.check_runtime()?;
        let to = to.map(|to| to.trim().to_lowercase());
        to.as_deref().map(received::digest).transpose()?;
        let operation = inner.begin(id, "rollback")?;
        let record = ManagerInner::supervised(inner.sound_record(id)?)?;
        let release = kept_release(&record, to.as_deref())?;
        let deadline = Deadline::after(inner.settings.install_timeout);
        let package = inner.kept_package(&release.sha256, deadline)?;
        inner.exchange(&operation, record, &package, Direction::Back, deadline)
    }
}

/// Finds the release with this SHA-256, or else the one that was used before the current one.
fn kept_release(record: &Record, sha256: Option<&str>) -> Result<Release, OperationError> {
    let kept = record.kept_releases();
    let Some(wanted) = sha256 else {
        // The first is the current one.
        let before = kept.into_iter().nth(1);
        return before.ok_or(OperationError::NoOtherVersion);
    };
    let found = kept.iter().find(|release| release.sha256 == wanted);
    found
        .cloned()
        .ok_or_else(|| OperationError::UnknownVersion {
            wanted: wanted.into(),
            kept: (kept.into_iter())
                .map(|release| (release.sha256, release.version))
                .collect(),
        })
}
