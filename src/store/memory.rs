//! `MemoryStore`: records, archives and notes in memory, lost when the process ends.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::sync::Arc;

use parking_lot::RwLock;

use super::index::RecordIndex;
use super::{Record, Store, note, validate_note};
use crate::auth::ExternalToken;
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::package::{Archive, ArchiveContent};

/// A [`Store`] that keeps records, archives and notes in memory. It fails only for a record or a note that no
/// store keeps ([`Record::validate`], [`validate_note`]), and fails and blocks where an archive to be stored has to be read from a file.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: RwLock<RecordIndex>,
    archives: RwLock<HashMap<String, Arc<[u8]>>>,
    notes: RwLock<BTreeMap<String, String>>,
}

impl Store for MemoryStore {
    fn get(&self, id: InstallationId) -> Result<Option<Record>> {
        Ok(self.records.read().get(id).cloned())
    }

    fn list(&self) -> Result<Vec<Record>> {
        Ok(self.records.read().list())
    }

    fn count(&self) -> Result<usize> {
        Ok(self.records.read().count())
    }

    fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        Ok(self.records.read().find_external(token))
    }

    fn put(&self, record: Record) -> Result<()> {
        record.validate()?;
        self.records.write().put(record);
        Ok(())
    }

    fn delete(&self, id: InstallationId) -> Result<()> {
        self.records.write().remove(id);
        Ok(())
    }

    fn put_archive(&self, archive: &Archive) -> Result<()> {
        let sha256 = archive.sha256();
        if self.archives.read().contains_key(sha256) {
            return Ok(());
        }
        let bytes = match archive.content() {
            ArchiveContent::Memory(bytes) => bytes.clone(),
            content => {
                let mut bytes = Vec::new();
                content
                    .reader()
                    .read_to_end(&mut bytes)
                    .map_err(|error| Error::io(format!("read the archive {sha256}"), error))?;
                bytes.into()
            }
        };
        self.archives.write().insert(sha256.to_owned(), bytes);
        Ok(())
    }

    fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>> {
        let archives = self.archives.read();
        Ok(archives.get(sha256).cloned().map(ArchiveContent::Memory))
    }

    fn delete_archive(&self, sha256: &str) -> Result<()> {
        self.archives.write().remove(sha256);
        Ok(())
    }

    fn list_archives(&self) -> Result<BTreeMap<String, u64>> {
        let archives = self.archives.read();
        let stored = |(sha256, bytes): (&String, &Arc<[u8]>)| (sha256.clone(), bytes.len() as u64);
        Ok(archives.iter().map(stored).collect())
    }

    fn notes(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        Ok(note::below(&self.notes.read(), prefix))
    }

    fn set_note(&self, key: &str, value: Option<&str>) -> Result<()> {
        validate_note(key, value)?;
        note::set(&mut self.notes.write(), key, value);
        Ok(())
    }
}
