//! Stores that are opened again, and what they lose.

use super::*;

/// Stores that persist in that what they have is copied into the next.
struct Handed {
    store: Arc<Damaged>,
    forgets: Forgets,
}

/// A store in memory, some of whose records cannot be read.
#[derive(Debug)]
struct Damaged {
    store: MemoryStore,
    ids: Mutex<BTreeSet<InstallationId>>,
    forgets: Forgets,
}

impl Damaged {
    fn new(forgets: Forgets) -> Self {
        Self {
            store: MemoryStore::default(),
            ids: Mutex::default(),
            forgets,
        }
    }

    fn shown(&self, record: Record) -> Record {
        if !self.ids.lock().contains(&record.id) || self.forgets == Forgets::Damage {
            return record;
        }
        Record::damaged(record.id, "it was to be")
    }
}

impl Store for Damaged {
    fn get(&self, id: InstallationId) -> Result<Option<Record>> {
        Ok(self.store.get(id)?.map(|record| self.shown(record)))
    }

    fn list(&self) -> Result<Vec<Record>> {
        let is_damaged = |record: &Record| self.ids.lock().contains(&record.id);
        let mut list = self.store.list()?;
        match self.forgets {
            Forgets::OthersThanDamaged if list.iter().any(is_damaged) => {
                return Err(Error::io("list", std::io::ErrorKind::InvalidData));
            }
            Forgets::DamagedInList => list.retain(|record| !is_damaged(record)),
            _ => {}
        }
        Ok(list.into_iter().map(|record| self.shown(record)).collect())
    }

    fn put(&self, mut record: Record) -> Result<()> {
        if self.forgets == Forgets::WhatIsDamaged && self.ids.lock().contains(&record.id) {
            record.damage = None;
        }
        let id = record.id;
        self.store.put(record)?;
        if self.forgets != Forgets::ToMend {
            self.ids.lock().remove(&id);
        }
        Ok(())
    }

    fn delete(&self, id: InstallationId) -> Result<()> {
        self.store.delete(id)
    }

    fn put_archive(&self, archive: &Archive) -> Result<()> {
        self.store.put_archive(archive)
    }

    fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>> {
        self.store.get_archive(sha256)
    }

    fn delete_archive(&self, sha256: &str) -> Result<()> {
        self.store.delete_archive(sha256)
    }

    fn list_archives(&self) -> Result<BTreeMap<String, u64>> {
        self.store.list_archives()
    }

    fn notes(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        self.store.notes(prefix)
    }

    fn set_note(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.store.set_note(key, value)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgets {
    Nothing,
    Notes,
    Everything,
    Archives,
    Digests,
    /// That a record is damaged.
    Damage,
    DamagedInList,
    OthersThanDamaged,
    /// What a damaged record was, for its stand-ins.
    WhatIsDamaged,
    ToMend,
}

impl Persistent for Handed {
    fn open_empty(&mut self) -> Arc<dyn Store> {
        self.store = Arc::new(Damaged::new(self.forgets));
        self.store.clone()
    }

    fn reopen(&mut self) -> Arc<dyn Store> {
        let again = Damaged::new(self.forgets);
        for mut record in self.store.store.list().unwrap() {
            if let PluginKind::External { token: None, .. } = &record.kind
                && self.forgets == Forgets::Digests
            {
                record.kind = PluginKind::known_by(TokenDigest::default());
            }
            if self.forgets != Forgets::Everything {
                again.put(record).unwrap();
            }
        }
        for sha256 in self.store.list_archives().unwrap().into_keys() {
            if ![Forgets::Everything, Forgets::Archives].contains(&self.forgets) {
                let content = self.store.get_archive(&sha256).unwrap().unwrap();
                let limits = PackageLimits::default();
                let archive = Archive::from_content(content, &limits, &|| false);
                again.put_archive(&archive.unwrap()).unwrap();
            }
        }
        if self.forgets != Forgets::Notes {
            for (key, value) in self.store.notes("").unwrap() {
                again.set_note(&key, Some(&value)).unwrap();
            }
        }
        *again.ids.lock() = self.store.ids.lock().clone();
        self.store = Arc::new(again);
        self.store.clone()
    }

    fn damage(&mut self, id: InstallationId) -> bool {
        self.store.ids.lock().insert(id)
    }
}

#[test]
fn what_is_lost_between_two_openings_is_caught() {
    let check = |forgets| {
        let store = Arc::new(Damaged::new(forgets));
        check_persistent(&mut Handed { store, forgets })
    };
    check(Forgets::Nothing).unwrap();
    for (forgets, expected) in [
        (Forgets::Everything, "records_survive_reopening"),
        (Forgets::Archives, "archives_survive_reopening"),
        (Forgets::Notes, "notes_survive_reopening"),
        (Forgets::Digests, "records_survive_reopening"),
        (
            Forgets::Damage,
            "a_damaged_record_is_shown_and_hides_no_other",
        ),
        (
            Forgets::DamagedInList,
            "a_damaged_record_is_shown_and_hides_no_other",
        ),
        (
            Forgets::OthersThanDamaged,
            "a_damaged_record_is_shown_and_hides_no_other",
        ),
        (
            Forgets::WhatIsDamaged,
            "a_damaged_record_is_shown_and_hides_no_other",
        ),
        (
            Forgets::ToMend,
            "a_damaged_record_can_be_replaced_and_deleted",
        ),
    ] {
        let violation = check(forgets).unwrap_err();
        assert_eq!(violation.check, expected, "{violation}");
    }
}
