//! `Quota`: the limits on how many plugins are installed and how much room their archives take, kept also
//! by operations that are in progress at the same time; and the removal of archives that no record names.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use super::ManagerInner;
use crate::error::{OperationError, Result};
use crate::id::InstallationId;
use crate::package::Archive;
use crate::state::PluginMode;
use crate::store::Record;

/// What operations that are in progress will store. An operation reserves after it has begun, so that there
/// is one entry for each installation.
#[derive(Debug, Default)]
pub(super) struct Quota(Mutex<Reserved>);

#[derive(Debug, Default)]
struct Reserved {
    /// The SHA-256 and the size of the archive, if there is one.
    archives: HashMap<InstallationId, Option<(String, u64)>>,
    /// Whether an archive that no record names was left because it is reserved.
    uncollected: bool,
}

/// Room for one installation, or one archive, until that is stored. Dropping it releases the room.
pub(super) struct QuotaGuard<'a> {
    inner: &'a ManagerInner,
    id: InstallationId,
}

impl ManagerInner {
    /// Reserves room for a plugin that is being installed, and for its archive if it has one.
    ///
    /// # Errors
    /// [`OperationError::TooManyInstallations`], [`OperationError::ArchivesTooLarge`], or the store's.
    pub(super) fn reserve_installation(
        &self,
        id: InstallationId,
        archive: Option<&Archive>,
    ) -> Result<QuotaGuard<'_>> {
        let guard = self.reserve(id, archive)?;
        let mut ids: HashSet<_> = self.quota.0.lock().archives.keys().copied().collect();
        let limit = self.settings.installations;
        let mut count = self.store().count()?.saturating_add(ids.len());
        if count > limit {
            // Those that are stored already must not count twice.
            ids.extend(self.store().list()?.iter().map(|record| record.id));
            count = ids.len();
        }
        if count > limit {
            return Err(OperationError::TooManyInstallations { limit }.into());
        }
        Ok(guard)
    }

    /// Reserves room for the archive of one installation. Until the guard is dropped, the archive is not
    /// removed, although no record may name it yet.
    ///
    /// # Errors
    /// [`OperationError::ArchivesTooLarge`], or the store's.
    pub(super) fn reserve(
        &self,
        id: InstallationId,
        archive: Option<&Archive>,
    ) -> Result<QuotaGuard<'_>> {
        // Room is reserved first, and the store is read second: so of two operations at least one sees
        // the other, wherever that is in its work.
        let own = archive.map(|archive| (archive.sha256().to_owned(), archive.size()));
        let mut archives: HashMap<String, u64> = {
            let mut reserved = self.quota.0.lock();
            reserved.archives.insert(id, own);
            reserved.archives.values().flatten().cloned().collect()
        };
        let guard = QuotaGuard { inner: self, id };
        let Some(archive) = archive else {
            return Ok(guard);
        };
        let stored = self.store().list_archives()?;
        if stored.contains_key(archive.sha256()) {
            return Ok(guard);
        }
        archives.extend(stored);
        let needed = archives
            .values()
            .fold(0, |sum: u64, size| sum.saturating_add(*size));
        let limit = self.settings.archive_bytes;
        if needed > limit {
            return Err(OperationError::ArchivesTooLarge { needed, limit }.into());
        }
        Ok(guard)
    }

    /// Removes archives that no record names. One that is reserved is left until its operation ends. What
    /// cannot be removed is logged and left for the next time: nothing depends on it.
    pub(super) fn collect_archives(&self) {
        // Held while archives are removed: an operation that is about to store one waits for that.
        let mut reserved = self.quota.0.lock();
        if let Err(error) = self.collect_unreserved(&mut reserved) {
            log::warn!("cannot remove archives that no plugin needs: {error}; left for later");
        }
    }

    fn collect_unreserved(&self, reserved: &mut Reserved) -> Result<()> {
        let store = self.store();
        let records = store.list()?;
        // It may name any archive, and may be repaired yet.
        let is_unclear = |record: &Record| {
            record.damage.is_some()
                && record.mode() == PluginMode::Supervised
                && (record.stored_archive().is_none() || record.releases.is_empty())
        };
        if let Some(record) = records.iter().find(|record| is_unclear(record)) {
            log::debug!("archives stay, as plugin {} may need any", record.id);
            return Ok(());
        }
        let kept = records.iter().flat_map(|record| &record.releases);
        let named: HashSet<&str> = (records.iter().filter_map(Record::stored_archive))
            .chain(kept.map(|release| &*release.sha256))
            .collect();
        let mut result = Ok(());
        for archive in store.list_archives()?.into_keys() {
            let mut in_use = reserved.archives.values().flatten();
            if named.contains(&*archive) {
                continue;
            }
            if in_use.any(|(sha256, _)| *sha256 == archive) {
                reserved.uncollected = true;
            } else {
                // One that cannot be removed does not keep the others.
                result = result.and(store.delete_archive(&archive));
            }
        }
        result
    }
}

impl Drop for QuotaGuard<'_> {
    fn drop(&mut self) {
        let uncollected = {
            let mut reserved = self.inner.quota.0.lock();
            reserved.archives.remove(&self.id);
            std::mem::take(&mut reserved.uncollected)
        };
        if uncollected {
            self.inner.collect_archives();
        }
    }
}
