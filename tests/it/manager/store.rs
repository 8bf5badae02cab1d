//! A store that fails or waits where a test says so, on top of any other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use plugin_runner::auth::ExternalToken;
use plugin_runner::package::{Archive, ArchiveContent};
use plugin_runner::store::{MemoryStore, Record, Store};
use plugin_runner::{Error, ErrorKind, InstallationId, Result};

/// A step that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    List,
    Put,
    Delete,
    PutArchive,
    DeleteArchive,
    SetNote,
}

/// A step after which a thread can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Get,
    LookUp,
    Put,
    PutArchive,
    SetNote,
}

#[derive(Debug)]
struct Holding {
    after: Done,
    reach: Sender<()>,
    released: Receiver<()>,
}

/// A store that fails where a test says so.
#[derive(Debug)]
pub(crate) struct FailingStore {
    inner: Arc<dyn Store>,
    /// Which step fails, after so many of it that succeed, until it is mended.
    failing: Mutex<Option<(Step, usize)>>,
    /// A thread that has done this reports it, and waits before it returns.
    held: Mutex<Option<Holding>>,
    /// Shown instead of the stored record.
    stand_in: Mutex<Option<Record>>,
    /// How many notes were written; `None` if it keeps none.
    noted: Mutex<Option<usize>>,
}

impl Default for FailingStore {
    fn default() -> Self {
        Self::over(Arc::new(MemoryStore::default()))
    }
}

impl FailingStore {
    pub(super) fn over(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            failing: Mutex::default(),
            held: Mutex::default(),
            stand_in: Mutex::default(),
            noted: Mutex::new(Some(0)),
        }
    }

    /// Lets this step fail from now on, after so many that succeed.
    pub(super) fn fail(&self, step: Step, spared: usize) {
        *self.failing.lock() = Some((step, spared));
    }

    /// Lets every step succeed from now on.
    pub(super) fn mend(&self) {
        *self.failing.lock() = None;
    }

    /// Shows this record as damaged until another one with its id is stored.
    pub(crate) fn damage(&self, mut record: Record, problem: &str) {
        record.damage = Some(problem.into());
        *self.stand_in.lock() = Some(record);
    }

    /// How many notes were written.
    pub(super) fn notes_written(&self) -> usize {
        self.noted.lock().unwrap_or_default()
    }

    /// Keeps no notes from now on.
    pub(super) fn keep_no_notes(&self) {
        *self.noted.lock() = None;
    }

    /// Holds the next thread that does this, after it is done.
    pub(super) fn hold(&self, done: Done) -> Held {
        let (reach, reached) = bounded(1);
        let (release, released) = bounded(0);
        *self.held.lock() = Some(Holding {
            after: done,
            reach,
            released,
        });
        Held {
            reached,
            _release: release,
        }
    }

    fn wait_if_held(&self, done: Done) {
        let held = self.held.lock().take_if(|held| held.after == done);
        if let Some(held) = held {
            let _ = held.reach.send(());
            // Nothing is ever sent: it ends when the other end is dropped.
            let _ = held.released.recv();
        }
    }

    fn pass(&self, step: Step) -> Result<()> {
        if let Some((failing, spared)) = &mut *self.failing.lock()
            && *failing == step
        {
            if *spared == 0 {
                return Err(Error::io("store", std::io::ErrorKind::StorageFull));
            }
            *spared -= 1;
        }
        Ok(())
    }

    fn shown(&self, record: Record) -> Record {
        match &*self.stand_in.lock() {
            Some(damaged) if damaged.id == record.id => damaged.clone(),
            _ => record,
        }
    }
}

/// A thread that is held. Dropping this lets it go on.
pub(super) struct Held {
    reached: Receiver<()>,
    _release: Sender<()>,
}

impl Held {
    #[track_caller]
    pub(super) fn expect(&self, timeout: Duration) {
        self.reached
            .recv_timeout(timeout)
            .expect("no thread asked the store for it in time");
    }
}

impl Store for FailingStore {
    fn get(&self, id: InstallationId) -> Result<Option<Record>> {
        let found = self.inner.get(id)?.map(|record| self.shown(record));
        self.wait_if_held(Done::Get);
        Ok(found)
    }

    fn list(&self) -> Result<Vec<Record>> {
        self.pass(Step::List)?;
        let records = self.inner.list()?.into_iter();
        Ok(records.map(|record| self.shown(record)).collect())
    }

    fn put(&self, record: Record) -> Result<()> {
        self.pass(Step::Put)?;
        self.stand_in
            .lock()
            .take_if(|damaged| damaged.id == record.id);
        let put = self.inner.put(record);
        self.wait_if_held(Done::Put);
        put
    }

    fn delete(&self, id: InstallationId) -> Result<()> {
        self.pass(Step::Delete)?;
        self.inner.delete(id)
    }

    fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        let found = self.inner.find_external(token);
        self.wait_if_held(Done::LookUp);
        found
    }

    fn put_archive(&self, archive: &Archive) -> Result<()> {
        self.pass(Step::PutArchive)?;
        let put = self.inner.put_archive(archive);
        self.wait_if_held(Done::PutArchive);
        put
    }

    fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>> {
        self.inner.get_archive(sha256)
    }

    fn delete_archive(&self, sha256: &str) -> Result<()> {
        self.pass(Step::DeleteArchive)?;
        self.inner.delete_archive(sha256)
    }

    fn list_archives(&self) -> Result<BTreeMap<String, u64>> {
        self.inner.list_archives()
    }

    fn notes(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        self.inner.notes(prefix)
    }

    fn set_note(&self, key: &str, value: Option<&str>) -> Result<()> {
        match &mut *self.noted.lock() {
            Some(count) => *count += 1,
            None => return Err(Error::new(ErrorKind::Unsupported, "no notes here")),
        }
        self.pass(Step::SetNote)?;
        let noted = self.inner.set_note(key, value);
        self.wait_if_held(Done::SetNote);
        noted
    }
}
