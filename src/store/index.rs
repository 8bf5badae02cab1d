//! `RecordIndex`: records in memory, by id and by token. Its users do the locking.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Record;
use crate::auth::{ExternalToken, TokenDigest};
use crate::id::InstallationId;

/// Records by id, and the plugin of each external token.
#[derive(Debug, Default)]
pub(super) struct RecordIndex {
    /// Ids sort by the time of their creation.
    records: BTreeMap<InstallationId, Record>,
    /// By the token's digest: the time that a search takes can reveal a digest at most, from which no
    /// token can be computed. Tokens are random, so no two plugins should share one; if they do, the
    /// youngest counts.
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
        self.external.get(&token.binary_digest())?.last().copied()
    }

    pub(super) fn put(&mut self, record: Record) {
        self.remove(record.id);
        if let Some(digest) = record.kind.token_digest() {
            let holders = self.external.entry(digest);
            holders.or_default().insert(record.id);
        }
        self.records.insert(record.id, record);
    }

    pub(super) fn remove(&mut self, id: InstallationId) {
        if let Some(record) = self.records.remove(&id)
            && let Some(digest) = record.kind.token_digest()
            && let Entry::Occupied(mut holders) = self.external.entry(digest)
        {
            holders.get_mut().remove(&id);
            if holders.get().is_empty() {
                holders.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::manifest::Manifest;
    use crate::store::PluginKind;

    fn external(token: &ExternalToken) -> Record {
        let manifest = Manifest::parse(br#"{"id":"p","author":"a","name":"p"}"#).unwrap();
        let mut record = Record::external(manifest).unwrap();
        record.kind = PluginKind::external(token.clone());
        record
    }

    #[test]
    fn a_token_is_found_until_it_is_replaced_or_its_plugin_removed() {
        let mut index = RecordIndex::default();
        let (old, new) = (
            ExternalToken::generate().unwrap(),
            ExternalToken::generate().unwrap(),
        );
        let mut record = external(&old);
        let id = record.id;
        index.put(record.clone());
        assert_eq!(index.find_external(&old), Some(id));
        assert_eq!(index.find_external(&new), None);
        record.kind = PluginKind::external(new.clone());
        index.put(record);
        assert_eq!(index.find_external(&old), None);
        assert_eq!(index.find_external(&new), Some(id));
        index.remove(id);
        assert_eq!(index.find_external(&new), None);
        assert!(index.external.is_empty());
    }

    #[test]
    fn of_two_with_one_token_the_other_is_left() {
        let mut index = RecordIndex::default();
        let token = ExternalToken::generate().unwrap();
        let (first, second) = (external(&token), external(&token));
        let ids = [first.id, second.id];
        index.put(first);
        index.put(second);
        assert_eq!(index.find_external(&token), Some(ids[1]));
        index.remove(ids[1]);
        assert_eq!(index.find_external(&token), Some(ids[0]));
        index.remove(ids[0]);
        assert_eq!(index.find_external(&token), None);
    }
}
