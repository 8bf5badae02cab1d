//! `Admission`: the limits on how many plugins are installed and how much room their archives take,
//! kept also by installations that are under way at once.

use parking_lot::Mutex;

use super::Shared;
use crate::error::{OperationError, Result};
use crate::package::Archive;

/// What installations that are under way will take.
#[derive(Debug, Default)]
pub(super) struct Admission {
    expected: Mutex<Expected>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    installations: usize,
    bytes: u64,
}

/// Room for one installation, or one archive, until that is stored. Dropping it gives the room back.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    admission: &'a Admission,
    own: Expected,
}

impl Shared {
    /// Makes sure of room for `installations` more, and for an archive if there is one.
    ///
    /// # Errors
    /// [`OperationError::TooManyInstallations`], [`OperationError::ArchivesTooLarge`], or the store's.
    pub(super) fn admit(
        &self,
        installations: usize,
        archive: Option<&Archive>,
    ) -> Result<Admitted<'_>> {
        let store = self.store();
        // Room is made sure of first and what is stored is looked at second: so of two at once at
        // least one sees the other, wherever that is in its work.
        let stored = store.list_archives()?;
        let known = |archive: &&Archive| !stored.iter().any(|one| one.sha256 == archive.sha256());
        let bytes = archive.filter(known).map_or(0, Archive::size);
        let own = Expected {
            installations,
            bytes,
        };
        let all = {
            let mut expected = self.admission.expected.lock();
            expected.installations += own.installations;
            expected.bytes = expected.bytes.saturating_add(own.bytes);
            *expected
        };
        let admitted = Admitted {
            admission: &self.admission,
            own,
        };
        let limit = self.settings.installations;
        if own.installations > 0 && store.count()?.saturating_add(all.installations) > limit {
            return Err(OperationError::TooManyInstallations { limit }.into());
        }
        let stored = store
            .list_archives()?
            .iter()
            .map(|archive| archive.size)
            .sum::<u64>();
        let (needed, limit) = (
            stored.saturating_add(all.bytes),
            self.settings.archive_bytes,
        );
        if own.bytes > 0 && needed > limit {
            return Err(OperationError::ArchivesTooLarge { needed, limit }.into());
        }
        Ok(admitted)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut expected = self.admission.expected.lock();
        expected.installations -= self.own.installations;
        expected.bytes -= self.own.bytes.min(expected.bytes);
    }
}
