//! `Admission`: the limits on how many plugins are installed and how much room their archives take,
//! kept also by installations that are under way at once.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use super::Shared;
use crate::error::{OperationError, Result};
use crate::id::InstallationId;
use crate::package::Archive;

/// What installations that are under way will take.
#[derive(Debug, Default)]
pub(super) struct Admission {
    expected: Mutex<HashMap<u64, Expected>>,
}

#[derive(Clone, Debug)]
struct Expected {
    /// The plugin that is to be, if it is a new one.
    installation: Option<InstallationId>,
    /// The SHA-256 and the size of its archive, if it has one.
    archive: Option<(String, u64)>,
}

/// Room for one installation, or one archive, until that is stored. Dropping it gives the room back.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    admission: &'a Admission,
    number: u64,
}

impl Shared {
    /// Makes sure of room for one more installation, if there is to be one, and for an archive if there
    /// is one.
    ///
    /// # Errors
    /// [`OperationError::TooManyInstallations`], [`OperationError::ArchivesTooLarge`], or the store's.
    pub(super) fn admit(
        &self,
        installation: Option<InstallationId>,
        archive: Option<&Archive>,
    ) -> Result<Admitted<'_>> {
        // Room is made sure of first, and what is stored is looked at second: so of two at once at least
        // one sees the other, wherever that is in its work. Nothing that is under way and stored already
        // counts twice.
        let (admitted, expected) = self.admission.add(Expected {
            installation,
            archive: archive.map(|archive| (archive.sha256().to_owned(), archive.size())),
        });
        let store = self.store();
        let limit = self.settings.installations;
        if installation.is_some() {
            let mut ids: HashSet<_> = expected.iter().filter_map(|one| one.installation).collect();
            let mut count = store.count()?.saturating_add(ids.len());
            if count > limit {
                ids.extend(store.list()?.iter().map(|record| record.id));
                count = ids.len();
            }
            if count > limit {
                return Err(OperationError::TooManyInstallations { limit }.into());
            }
        }
        let Some(archive) = archive else {
            return Ok(admitted);
        };
        let stored = store.list_archives()?;
        if stored.iter().any(|one| one.sha256 == archive.sha256()) {
            return Ok(admitted);
        }
        let mut archives: HashMap<_, _> =
            expected.into_iter().filter_map(|one| one.archive).collect();
        archives.extend(stored.into_iter().map(|one| (one.sha256, one.size)));
        let needed = archives
            .values()
            .fold(0, |sum: u64, size| sum.saturating_add(*size));
        let limit = self.settings.archive_bytes;
        if needed > limit {
            return Err(OperationError::ArchivesTooLarge { needed, limit }.into());
        }
        Ok(admitted)
    }
}

impl Admission {
    /// Gives all that is under way, this one included.
    fn add(&self, own: Expected) -> (Admitted<'_>, Vec<Expected>) {
        let mut expected = self.expected.lock();
        let number = expected.keys().max().map_or(0, |last| last + 1);
        expected.insert(number, own);
        let admitted = Admitted {
            admission: self,
            number,
        };
        (admitted, expected.values().cloned().collect())
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.expected.lock().remove(&self.number);
    }
}
