//! Records in memory, gone with the process.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use super::{Record, Store};
use crate::auth::ExternalToken;
use crate::error::Result;
use crate::id::InstallationId;

/// A [`Store`] in memory. Never fails, never blocks.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// Ids sort by the time they were made.
    records: RwLock<BTreeMap<InstallationId, Record>>,
}

impl Store for MemoryStore {
    fn get(&self, id: InstallationId) -> Result<Option<Record>> {
        Ok(self.records.read().get(&id).cloned())
    }

    fn list(&self) -> Result<Vec<Record>> {
        Ok(self.records.read().values().cloned().collect())
    }

    fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        let records = self.records.read();
        // All of them are looked at, so that the time taken says nothing about which it was.
        Ok(records.values().fold(None, |found, record| {
            if record.has_token(token) {
                Some(record.id)
            } else {
                found
            }
        }))
    }

    fn put(&self, record: Record) -> Result<()> {
        self.records.write().insert(record.id, record);
        Ok(())
    }

    fn delete(&self, id: InstallationId) -> Result<()> {
        self.records.write().remove(&id);
        Ok(())
    }
}
