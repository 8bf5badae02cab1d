//! Records in memory, gone with the process.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use parking_lot::RwLock;

use super::{PluginKind, Record, Store};
use crate::auth::{ExternalToken, TokenDigest};
use crate::error::Result;
use crate::id::InstallationId;

/// A [`Store`] in memory. Never fails, never blocks.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Ids sort by the time they were made.
    records: BTreeMap<InstallationId, Record>,
    /// Which plugin has which external token. By the digest of the token: how long it takes to find
    /// one says something about digests at most, from which no token can be made. Tokens are random,
    /// so no two plugins have the same; if they do all the same, the youngest counts.
    external: HashMap<TokenDigest, BTreeSet<InstallationId>>,
}

impl Inner {
    fn remove(&mut self, id: InstallationId) {
        if let Some(record) = self.records.remove(&id)
            && let PluginKind::External(token) = &record.kind
            && let Entry::Occupied(mut bearers) = self.external.entry(token.digest())
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
        Ok(self.inner.read().records.get(&id).cloned())
    }

    fn list(&self) -> Result<Vec<Record>> {
        Ok(self.inner.read().records.values().cloned().collect())
    }

    fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        let inner = self.inner.read();
        let bearers = inner.external.get(&token.digest());
        let id = bearers.and_then(BTreeSet::last);
        let record = id.and_then(|id| inner.records.get(id));
        Ok(record
            .filter(|record| record.has_token(token))
            .map(|record| record.id))
    }

    fn put(&self, record: Record) -> Result<()> {
        let mut inner = self.inner.write();
        inner.remove(record.id);
        if let PluginKind::External(token) = &record.kind {
            let bearers = inner.external.entry(token.digest());
            bearers.or_default().insert(record.id);
        }
        inner.records.insert(record.id, record);
        Ok(())
    }

    fn delete(&self, id: InstallationId) -> Result<()> {
        self.inner.write().remove(id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::manifest::Manifest;

    fn external(token: &ExternalToken) -> Record {
        let manifest = Manifest::parse(br#"{"id":"p","author":"a","name":"p"}"#).unwrap();
        let mut record = Record::external(manifest).unwrap();
        record.kind = PluginKind::External(token.clone());
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
        record.kind = PluginKind::External(new.clone());
        store.put(record).unwrap();
        assert_eq!(store.find_external(&old).unwrap(), None);
        assert_eq!(store.find_external(&new).unwrap(), Some(id));
        store.delete(id).unwrap();
        assert_eq!(store.find_external(&new).unwrap(), None);
        assert!(store.inner.read().external.is_empty());
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
