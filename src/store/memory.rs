//! Records and archives in memory, gone with the process.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{PluginKind, Record, Store, StoredArchive};
use crate::auth::{ExternalToken, TokenDigest};
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::package::{Archive, ArchiveContent};

/// A [`Store`] in memory, archives too. Fails and blocks only where an archive that it is to keep has
/// to be read from a file.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: RwLock<RecordIndex>,
    archives: RwLock<HashMap<String, Arc<[u8]>>>,
}

/// Records by id, and which plugin has which external token.
#[derive(Debug, Default)]
pub(super) struct RecordIndex {
    /// Ids sort by the time they were made.
    records: BTreeMap<InstallationId, Record>,
    /// By the digest of the token: how long it takes to find one says something about digests at most,
    /// from which no token can be made. Tokens are random, so no two plugins have the same; if they do
    /// all the same, the youngest counts.
    external: HashMap<TokenDigest, BTreeSet<InstallationId>>,
}

impl RecordIndex {
    pub(super) fn get(&self, id: InstallationId) -> Option<&Record> {
        self.records.get(&id)
    }

    pub(super) fn list(&self) -> Vec<Record> {
        self.records.values().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.records.len()
    }

    pub(super) fn find_external(&self, token: &ExternalToken) -> Option<InstallationId> {
        self.external.get(&token.digest())?.last().copied()
    }

    pub(super) fn put(&mut self, record: Record) {
        self.remove(record.id);
        if let PluginKind::External(credential) = &record.kind {
            let bearers = self.external.entry(credential.digest());
            bearers.or_default().insert(record.id);
        }
        self.records.insert(record.id, record);
    }

    pub(super) fn remove(&mut self, id: InstallationId) {
        if let Some(record) = self.records.remove(&id)
            && let PluginKind::External(credential) = &record.kind
            && let Entry::Occupied(mut bearers) = self.external.entry(credential.digest())
        {
            bearers.get_mut().remove(&id);
            if bearers.get().is_empty() {
                bearers.remove();
            }
        }
    }
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

    fn list_archives(&self) -> Result<Vec<StoredArchive>> {
        let archives = self.archives.read();
        let stored = |(sha256, bytes): (&String, &Arc<[u8]>)| StoredArchive {
            sha256: sha256.clone(),
            size: bytes.len() as u64,
        };
        Ok(archives.iter().map(stored).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::ExternalCredential;
    use crate::protocol::manifest::Manifest;

    fn external(token: &ExternalToken) -> Record {
        let manifest = Manifest::parse(br#"{"id":"p","author":"a","name":"p"}"#).unwrap();
        let mut record = Record::external(manifest).unwrap();
        record.kind = PluginKind::External(ExternalCredential::new(token.clone()));
        record
    }

    #[test]
    fn a_token_is_found_until_it_is_replaced_or_its_plugin_removed() {
        let store = MemoryStore::default();
        let (old, new) = (
            ExternalToken::generate().unwrap(),
            ExternalToken::generate().unwrap(),
        );
        let mut record = external(&old);
        let id = record.id;
        store.put(record.clone()).unwrap();
        assert_eq!(store.find_external(&old).unwrap(), Some(id));
        assert_eq!(store.find_external(&new).unwrap(), None);
        record.kind = PluginKind::External(ExternalCredential::new(new.clone()));
        store.put(record).unwrap();
        assert_eq!(store.find_external(&old).unwrap(), None);
        assert_eq!(store.find_external(&new).unwrap(), Some(id));
        store.delete(id).unwrap();
        assert_eq!(store.find_external(&new).unwrap(), None);
        assert!(store.records.read().external.is_empty());
    }

    #[test]
    fn of_two_with_one_token_the_other_is_left() {
        let store = MemoryStore::default();
        let token = ExternalToken::generate().unwrap();
        let (first, second) = (external(&token), external(&token));
        let ids = [first.id, second.id];
        store.put(first).unwrap();
        store.put(second).unwrap();
        assert_eq!(store.find_external(&token).unwrap(), Some(ids[1]));
        store.delete(ids[1]).unwrap();
        assert_eq!(store.find_external(&token).unwrap(), Some(ids[0]));
        store.delete(ids[0]).unwrap();
        assert_eq!(store.find_external(&token).unwrap(), None);
    }
}
