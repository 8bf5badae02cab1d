//! Stores that keep their promises, and stores that break one each.

mod persistence;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::threads::WRITERS;
use super::*;
use crate::auth::{ExternalToken, TokenDigest};
use crate::error::{Error, Result};
use crate::package::{Archive, ArchiveContent, PackageLimits};
use crate::store::{MemoryStore, PluginKind, Record, Source};
use crate::testing::LONG;

/// One promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    LosesPendingConfiguration,
    LosesMinusZero,
    LosesNanoseconds,
    LosesOddPaths,
    LosesLabels,
    LosesReleases,
    LosesAddedBy,
    AcceptsAnyLabel,
    AcceptsDamage,
    FindsDamage,
    MergesConfigurations,
    RefusesSecondDeletion,
    DeletesNothing,
    ListsInNoOrder,
    ForgetsFromList,
    CountsToNine,
    FindsOldTokens,
    FindsOnlyKeptTokens,
    TruncatesArchives,
    GivesUnknownArchives,
    MismeasuresArchives,
    KeepsDeletedArchives,
    DeletesRecordsOfArchives,
    WritesInTwoSteps,
    AcknowledgesEarly,
    LosesConcurrentWrites,
    KeepsNoNotes,
    KeepsNotesUnsaid,
    ForgetsNotes,
    KeepsRemovedNotes,
    FindsNotesByPattern,
    AcceptsAnyNote,
    DeletesNotesWithRecords,
    LosesConcurrentNotes,
}

/// A store in memory with a fault.
#[derive(Debug)]
struct Broken {
    fault: Fault,
    store: MemoryStore,
    tokens: Mutex<HashMap<TokenDigest, InstallationId>>,
    /// The record that the next write will write.
    late: Mutex<Option<Record>>,
    /// What was there when the writers met last.
    stale: Mutex<Vec<Record>>,
    meeting: Meeting,
    reads: AtomicU64,
}

/// Where all writers of the one check that has more than one wait for each other.
#[derive(Debug, Default)]
struct Meeting {
    /// How many writers have come, to all meetings together.
    come: Mutex<u64>,
    changed: Condvar,
}

impl Meeting {
    /// Waits until all have come; the last one to come does something before anybody goes.
    fn meet(&self, last: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut come = self.come.lock();
        *come += 1;
        if come.is_multiple_of(WRITERS) {
            let done = last();
            self.changed.notify_all();
            return done;
        }
        let all = come.next_multiple_of(WRITERS);
        let deadline = Instant::now() + LONG;
        while *come < all {
            let waited = self.changed.wait_until(&mut come, deadline);
            assert!(!waited.timed_out(), "the other writers do not come");
        }
        Ok(())
    }
}

impl Broken {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            store: MemoryStore::default(),
            tokens: Mutex::default(),
            late: Mutex::default(),
            stale: Mutex::default(),
            meeting: Meeting::default(),
            reads: AtomicU64::new(0),
        }
    }

    /// Lets readers see what is there now, if there are any.
    fn let_read(&self) {
        let before = self.reads.load(Ordering::SeqCst);
        for _ in 0..20_000 {
            if self.reads.load(Ordering::SeqCst) > before + 4 {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn spoil(&self, record: &mut Record) {
        match self.fault {
            Fault::LosesPendingConfiguration => record.pending_configuration = None,
            Fault::LosesMinusZero => {
                if let Some(number) = record.configuration.get_mut("minus zero") {
                    *number = 0.0.into();
                }
            }
            Fault::LosesNanoseconds => {
                let since = record.added_at.duration_since(std::time::UNIX_EPOCH);
                let seconds = since.map_or(0, |since| since.as_secs());
                record.added_at = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
            }
            Fault::LosesOddPaths => {
                if let PluginKind::Supervised(Source::Archive(path)) = &mut record.kind {
                    *path = path.to_string_lossy().into_owned().into();
                }
            }
            Fault::LosesLabels => record.labels.clear(),
            Fault::LosesReleases => record.releases.truncate(1),
            Fault::LosesAddedBy => record.added_by = None,
            Fault::AcceptsDamage => record.damage = None,
            _ => {}
        }
    }
}

impl Store for Broken {
    fn get(&self, id: InstallationId) -> Result<Option<Record>> {
        let mut record = self.store.get(id)?;
        if let (Fault::FindsDamage, Some(record)) = (self.fault, &mut record) {
            record.damage = Some("everything".into());
        }
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(record)
    }

    fn list(&self) -> Result<Vec<Record>> {
        let mut list = self.store.list()?;
        match self.fault {
            Fault::ListsInNoOrder => list.reverse(),
            Fault::ForgetsFromList => list.truncate(20),
            _ => {}
        }
        Ok(list)
    }

    fn count(&self) -> Result<usize> {
        match self.fault {
            Fault::CountsToNine => Ok(self.store.count()?.min(9)),
            _ => self.store.count(),
        }
    }

    fn put(&self, mut record: Record) -> Result<()> {
        self.spoil(&mut record);
        if let Some(digest) = record.kind.token_digest() {
            self.tokens.lock().insert(digest, record.id);
        }
        match self.fault {
            Fault::AcceptsAnyLabel if record.damage.is_none() && record.validate().is_err() => {
                return Ok(());
            }
            Fault::MergesConfigurations => {
                if let Some(before) = self.store.get(record.id)? {
                    let mut merged = before.configuration;
                    merged.append(&mut record.configuration);
                    record.configuration = merged;
                }
            }
            // Elsewhere there are no readers that could be waited for.
            Fault::WritesInTwoSteps if record.manifest.name == "numbered" => {
                if let Some(mut half) = self.store.get(record.id)? {
                    half.configuration = record.configuration.clone();
                    self.store.put(half)?;
                    self.let_read();
                }
            }
            Fault::AcknowledgesEarly => {
                if let Some(late) = self.late.lock().take() {
                    self.store.put(late)?;
                }
                // The first of all, and whatever somebody looks at at once, is there in time.
                if record.manifest.name == "numbered" && record.manifest.description != "0" {
                    *self.late.lock() = Some(record);
                    return Ok(());
                }
            }
            Fault::LosesConcurrentWrites if record.manifest.name == "shared" => {
                self.store.put(record)?;
                // As one that writes back all that it had read before; when all writers have written, and
                // before any of them looks.
                self.meeting.meet(|| {
                    let now = self.store.list()?;
                    for record in std::mem::replace(&mut *self.stale.lock(), now) {
                        self.store.put(record)?;
                    }
                    Ok(())
                })?;
                return Ok(());
            }
            _ => {}
        }
        self.store.put(record)
    }

    fn delete(&self, id: InstallationId) -> Result<()> {
        if self.fault == Fault::DeletesNothing {
            return Ok(());
        }
        if self.fault == Fault::RefusesSecondDeletion && self.store.get(id)?.is_none() {
            return Err(Error::NotInstalled(id));
        }
        if self.fault == Fault::DeletesNotesWithRecords {
            self.store.set_note(&format!("sprites/delete/{id}"), None)?;
        }
        self.store.delete(id)
    }

    fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        match self.fault {
            Fault::FindsOldTokens => Ok(self.tokens.lock().get(&token.binary_digest()).copied()),
            Fault::FindsOnlyKeptTokens => {
                let kept = |record: &Record| record.external_token() == Some(token);
                Ok(self
                    .store
                    .list()?
                    .iter()
                    .find(|one| kept(one))
                    .map(|one| one.id))
            }
            _ => self.store.find_external(token),
        }
    }

    fn put_archive(&self, archive: &Archive) -> Result<()> {
        self.store.put_archive(archive)
    }

    fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>> {
        let content = self.store.get_archive(sha256)?;
        match self.fault {
            Fault::TruncatesArchives => Ok(content.map(|content| {
                let mut bytes = Vec::new();
                content
                    .reader()
                    .take(100_000)
                    .read_to_end(&mut bytes)
                    .unwrap();
                ArchiveContent::Memory(bytes.into())
            })),
            Fault::GivesUnknownArchives => {
                Ok(content.or_else(|| Some(ArchiveContent::Memory([].into()))))
            }
            _ => Ok(content),
        }
    }

    fn delete_archive(&self, sha256: &str) -> Result<()> {
        match self.fault {
            Fault::KeepsDeletedArchives => return Ok(()),
            Fault::DeletesRecordsOfArchives => {
                for record in self.store.list()? {
                    if record.stored_archive() == Some(sha256) {
                        self.store.delete(record.id)?;
                    }
                }
            }
            _ => {}
        }
        self.store.delete_archive(sha256)
    }

    fn list_archives(&self) -> Result<BTreeMap<String, u64>> {
        let mut archives = self.store.list_archives()?;
        if self.fault == Fault::MismeasuresArchives {
            for size in archives.values_mut() {
                *size += 1;
            }
        }
        Ok(archives)
    }

    fn notes(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        match self.fault {
            Fault::KeepsNoNotes | Fault::KeepsNotesUnsaid => Err(Error::Unsupported("no notes")),
            Fault::FindsNotesByPattern => {
                let mut notes = self.store.notes("")?;
                let pairs = |key: &str| {
                    key.len() >= prefix.len() && {
                        let mut pairs = prefix.bytes().zip(key.bytes());
                        pairs.all(|(one, other)| one == b'_' || one == other)
                    }
                };
                notes.retain(|key, _| pairs(key));
                Ok(notes)
            }
            _ => self.store.notes(prefix),
        }
    }

    fn set_note(&self, key: &str, value: Option<&str>) -> Result<()> {
        match self.fault {
            Fault::KeepsNoNotes => return Err(Error::Unsupported("no notes")),
            Fault::ForgetsNotes => return Ok(()),
            Fault::KeepsRemovedNotes if value.is_none() => return Ok(()),
            Fault::AcceptsAnyNote if key.len() != 3 => {
                let _ = self.store.set_note(key, value);
                return Ok(());
            }
            // As one that writes back what it had read before.
            Fault::LosesConcurrentNotes if key.starts_with("kept/") => {
                self.store.set_note(key, value)?;
                return self
                    .meeting
                    .meet(|| self.store.set_note("kept/0", Some("0")));
            }
            _ => {}
        }
        self.store.set_note(key, value)
    }
}

#[track_caller]
fn caught(fault: Fault) -> Violation {
    let mut open = || Arc::new(Broken::new(fault)) as Arc<dyn Store>;
    check(&mut open).expect_err("nothing was found")
}

#[test]
fn a_store_in_memory_keeps_its_promises() {
    check(&mut || Arc::new(MemoryStore::default())).unwrap();
    check(&mut || Arc::new(Broken::new(Fault::None))).unwrap();
    check(&mut || Arc::new(Broken::new(Fault::KeepsNoNotes))).unwrap();
}

#[test]
fn each_broken_promise_is_caught_by_its_check() {
    use Fault::*;

    for (fault, expected) in [
        (LosesPendingConfiguration, "a_record_comes_back_whole"),
        (LosesMinusZero, "a_record_comes_back_whole"),
        (LosesNanoseconds, "a_record_comes_back_whole"),
        (LosesLabels, "a_record_comes_back_whole"),
        (LosesReleases, "a_record_comes_back_whole"),
        (LosesAddedBy, "a_record_comes_back_whole"),
        (FindsDamage, "a_record_comes_back_whole"),
        (AcceptsAnyLabel, "what_no_store_keeps_is_refused"),
        (AcceptsDamage, "what_no_store_keeps_is_refused"),
        (LosesOddPaths, "what_cannot_be_kept_is_refused"),
        (MergesConfigurations, "a_put_replaces"),
        (RefusesSecondDeletion, "an_empty_store_has_nothing"),
        (DeletesNothing, "a_delete_removes_and_may_be_repeated"),
        (ListsInNoOrder, "a_list_is_whole_and_by_id"),
        (ForgetsFromList, "a_list_is_whole_and_by_id"),
        (CountsToNine, "a_list_is_whole_and_by_id"),
        (
            FindsOldTokens,
            "a_token_finds_its_plugin_until_it_is_replaced",
        ),
        (
            FindsOnlyKeptTokens,
            "a_token_finds_its_plugin_until_it_is_replaced",
        ),
        (TruncatesArchives, "an_archive_comes_back_byte_for_byte"),
        (MismeasuresArchives, "an_archive_comes_back_byte_for_byte"),
        (
            GivesUnknownArchives,
            "a_missing_archive_is_none_and_may_be_deleted",
        ),
        (KeepsDeletedArchives, "an_archive_is_kept_once"),
        (
            DeletesRecordsOfArchives,
            "a_refused_deletion_changes_nothing",
        ),
        (WritesInTwoSteps, "a_reader_sees_whole_records"),
        (LosesConcurrentWrites, "writers_do_not_undo_each_other"),
        (
            KeepsNotesUnsaid,
            "a_note_is_kept_until_it_is_replaced_or_removed",
        ),
        (
            ForgetsNotes,
            "a_note_is_kept_until_it_is_replaced_or_removed",
        ),
        (
            KeepsRemovedNotes,
            "a_note_is_kept_until_it_is_replaced_or_removed",
        ),
        (
            FindsNotesByPattern,
            "notes_are_found_by_the_beginning_of_their_keys",
        ),
        (AcceptsAnyNote, "what_no_store_keeps_as_a_note_is_refused"),
        (
            DeletesNotesWithRecords,
            "notes_and_records_do_not_touch_each_other",
        ),
        (
            LosesConcurrentNotes,
            "notes_of_several_threads_are_all_kept",
        ),
    ] {
        let violation = caught(fault);
        assert_eq!(violation.check, expected, "{fault:?}: {violation}");
    }
    // Where a reader comes at the right moment, another check sees it first.
    let violation = caught(AcknowledgesEarly);
    let expected = [
        "a_reader_sees_whole_records",
        "a_reader_sees_what_was_acknowledged",
    ];
    assert!(expected.contains(&violation.check), "{violation}");
}

#[test]
fn what_was_found_is_told_without_tokens() {
    let violation = caught(Fault::FindsOldTokens);
    assert!(!violation.to_string().contains("sdprt_"), "{violation}");
    let violation = caught(Fault::LosesPendingConfiguration);
    let text = violation.to_string();
    assert!(
        text.starts_with("the check a_record_comes_back_whole fails: get returns ")
            && text.contains(" with another pending_configuration: expected {"),
        "{text}"
    );
}
