//! `Cleanup`: deletes the sprites of plugins that were removed, now or by an earlier host, and, where that is
//! switched on, sprites of this store that no installation has any more (`sweep`).
//!
//! What is to be deleted is noted in the store before the installation's record is deleted, and the note goes
//! when the service says that the sprite is gone; so no crash in between loses a sprite, or deletes one whose
//! plugin is still installed. Sprites are known by their names alone (`name`).
//!
//! One thread, `sprites-cleanup`, does all that; without a sweep it exists only while a sprite is to be deleted.
//! The lock is held for an instant, never during I/O.

mod name;
mod sweep;
// The fake of the service needs Linux.
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use self::name::SpriteNames;
use self::sweep::Sightings;
use super::client::Client;
use super::interrupt::{Interrupt, Within};
use crate::error::{Error, Result, SpritesError, SpritesProblem};
use crate::id::InstallationId;
use crate::store::Store;
use crate::thread::Threads;

/// Names a note of a sprite that has to be deleted; its name follows.
const TO_DELETE: &str = "sprites/delete/";

/// Names a note of a sprite that is kept for its data, although its plugin was removed; its name follows.
const KEPT: &str = "sprites/kept/";

/// How long a removal waits for its sprite to be deleted; and the time for the first attempt, so that the removal
/// can say why it failed.
const REMOVAL_TIME: Duration = Duration::from_secs(10);
const FIRST_TIME: Duration = Duration::from_secs(9);

/// The time between the attempts to delete a sprite; the last one holds from then on.
const LADDER: [u64; 5] = [1, 5, 30, 120, 600];

/// The time for one attempt to delete a sprite, within which the client makes several requests.
const DELETE_TIME: Duration = Duration::from_secs(60);

/// The time for the whole list of sprites.
const LIST_TIME: Duration = Duration::from_secs(120);

/// The client's requests want more than most threads do.
const STACK: usize = 512 * 1024;

/// Deletes sprites that are not needed any more, until it is [stopped](Self::stop). A clone is another handle to the
/// same one.
#[derive(Clone)]
pub(crate) struct Cleanup {
    shared: Arc<CleanupShared>,
}

struct CleanupShared {
    client: Client,
    store: Arc<dyn Store>,
    threads: Threads,
    names: SpriteNames,
    sweeps: bool,
    /// Ends the thread, and what it asks the service.
    interrupt: Interrupt,
    state: Mutex<State>,
    /// There is more to delete, or it is to stop.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The installations whose sprites are to be deleted.
    pending: BTreeMap<InstallationId, Retry>,
    /// Whether the thread runs or is about to.
    is_running: bool,
}

struct Retry {
    /// How many attempts have failed, and why the last one.
    failed: usize,
    why: Option<String>,
    due: Instant,
}

#[derive(Clone, Copy)]
enum Task {
    Delete(InstallationId),
    Sweep,
}

/// Why a sprite is not deleted yet.
enum Delay {
    Service(SpritesError),
    Store(Error),
}

impl Cleanup {
    /// Reads what earlier hosts have left to be deleted, and begins with it; makes the store's id if it has
    /// none. Of a removal that was cut short before the record was deleted the note is dropped, and the sprite
    /// stays. To be called before anything can be removed.
    ///
    /// With `sweep`, sprites that have a name of this store and no installation in it are deleted too; see
    /// `sweep`. That must be switched on only where no copy of the store is in use elsewhere: its sprites have
    /// the same names.
    ///
    /// # Blocking
    /// For the store's I/O.
    ///
    /// # Errors
    /// - [`Error::Setting`]: the store keeps no notes.
    /// - [`ErrorKind::StoreDamaged`](crate::ErrorKind::StoreDamaged): the store's id cannot be used.
    /// - [The store's](Store#errors).
    /// - [`Error::ThreadLimit`], [`Error::Io`]: there is something to do, and no thread for it.
    pub(crate) fn start(
        client: Client,
        store: Arc<dyn Store>,
        threads: Threads,
        sweep: bool,
    ) -> Result<Self> {
        let names = SpriteNames::of(&*store)?;
        let pending = left_over(&*store, &names)?;
        let interrupt =
            Interrupt::new().map_err(|error| Error::io("prepare deleting sprites", error))?;
        let shared = CleanupShared {
            client,
            store,
            threads,
            names,
            sweeps: sweep,
            interrupt,
            state: Mutex::new(State {
                is_running: sweep || !pending.is_empty(),
                pending,
            }),
            changed: Condvar::new(),
        };
        let cleanup = Self {
            shared: Arc::new(shared),
        };
        if cleanup.shared.state.lock().is_running {
            cleanup.spawn()?;
        }
        Ok(cleanup)
    }

    /// Returns the name of the sprite of this installation.
    pub(crate) fn name_of(&self, id: InstallationId) -> String {
        self.shared.names.of_installation(id)
    }

    /// Notes that the sprite of this installation has to be deleted, or with `keep_data` that no sweep may delete
    /// it. To be called before the record is deleted: it has no meaning as long as there is one.
    ///
    /// # Blocking
    /// For the store's I/O.
    ///
    /// # Errors
    /// [The store's](Store#errors).
    pub(crate) fn note_removal(&self, id: InstallationId, keep_data: bool) -> Result<()> {
        let shared = &self.shared;
        let (key, opposite) = if keep_data {
            (shared.kept_key(id), shared.key(id))
        } else {
            (shared.key(id), shared.kept_key(id))
        };
        // Of a removal that failed and whose note could not be forgotten.
        if shared.has_note(&opposite)? {
            shared.store.set_note(&opposite, None)?;
        }
        shared.store.set_note(&key, Some(""))
    }

    /// Has the sprite of this installation, whose record is deleted, deleted, if that was noted; or, if the record
    /// is not deleted after all, forgets the note. Returns what is left to be done.
    ///
    /// # Blocking
    /// For the store's I/O, and up to 10 s for the service.
    pub(crate) fn removed(&self, id: InstallationId, is_gone: bool) -> Option<String> {
        let shared = &self.shared;
        if !is_gone {
            for key in [shared.key(id), shared.kept_key(id)] {
                if let Err(error) = shared.store.set_note(&key, None) {
                    let name = self.name_of(id);
                    log::warn!("cannot take back the note of the sprite {name}: {error}");
                }
            }
            return None;
        }
        if matches!(shared.has_note(&shared.key(id)), Ok(false)) {
            return None;
        }
        let name = self.name_of(id);
        if !self.remove(id) {
            return Some(format!(
                "the sprite {name} is not deleted yet: the host is shut down"
            ));
        }
        let until = Instant::now() + REMOVAL_TIME;
        let mut state = shared.state.lock();
        while state
            .pending
            .get(&id)
            .is_some_and(|retry| retry.failed == 0)
            && !shared.interrupt.is_cancelled()
            && !shared.changed.wait_until(&mut state, until).timed_out()
        {}
        let left = state.pending.get(&id)?;
        let why = left.why.as_deref();
        let why = why.unwrap_or("the service has not been asked, or has not answered");
        Some(format!("the sprite {name} is not deleted yet: {why}"))
    }

    /// Has the sprite of this installation, whose record is deleted, deleted soon. Never blocks. After
    /// [`stop`](Self::stop), for which it returns false, or where there is no thread for it, that is left to the
    /// next removal or host.
    pub(crate) fn remove(&self, id: InstallationId) -> bool {
        let is_running = {
            let mut state = self.shared.state.lock();
            if self.shared.interrupt.is_cancelled() {
                return false;
            }
            state.pending.insert(id, Retry::now());
            self.shared.changed.notify_all();
            std::mem::replace(&mut state.is_running, true)
        };
        if !is_running && let Err(error) = self.spawn() {
            let name = self.name_of(id);
            log::warn!(
                "{error}; the sprite {name} is deleted with the next one, or by the next host"
            );
            if let Some(retry) = self.shared.state.lock().pending.get_mut(&id) {
                retry.failed += 1;
                retry.why = Some(error.to_string());
            }
        }
        true
    }

    /// Ends the thread at once. What is not deleted yet is left to the next host. Never blocks.
    pub(crate) fn stop(&self) {
        self.shared.interrupt.cancel();
        // Under the lock, or a thread that is about to wait would miss it.
        let _state = self.shared.state.lock();
        self.shared.changed.notify_all();
    }

    fn spawn(&self) -> Result<()> {
        let shared = self.shared.clone();
        let started = self
            .shared
            .threads
            .spawn("sprites-cleanup", STACK, move || {
                let _running = Running(&shared);
                shared.run();
            });
        started.inspect_err(|_| self.shared.state.lock().is_running = false)
    }
}

impl CleanupShared {
    fn run(&self) {
        let mut sightings = Sightings::default();
        let mut next_sweep = Instant::now();
        while let Some(task) = self.next(next_sweep) {
            match task {
                Task::Delete(id) => self.delete(id),
                Task::Sweep => {
                    if let Err(error) = self.sweep(&mut sightings, Instant::now())
                        && !self.interrupt.is_cancelled()
                    {
                        log::warn!("a sweep of sprites was cut short: {error}");
                    }
                    // From its end on, so that the store is asked no sooner either.
                    next_sweep = Instant::now() + sweep::PERIOD;
                }
            }
        }
    }

    /// Waits for what is to be done next; `None` if the thread is to end.
    fn next(&self, next_sweep: Instant) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            let deletions = state.pending.iter();
            let deletions = deletions.map(|(id, retry)| (retry.due, Task::Delete(*id)));
            let sweep = self.sweeps.then_some((next_sweep, Task::Sweep));
            let next = deletions.chain(sweep).min_by_key(|(due, _)| *due);
            let Some((due, task)) = next.filter(|_| !self.interrupt.is_cancelled()) else {
                state.is_running = false;
                return None;
            };
            if due <= Instant::now() {
                return Some(task);
            }
            self.changed.wait_until(&mut state, due);
        }
    }

    fn delete(&self, id: InstallationId) {
        let Err(delay) = self.try_to_delete(id) else {
            self.state.lock().pending.remove(&id);
            self.changed.notify_all();
            return;
        };
        let wait = {
            let mut state = self.state.lock();
            let Some(retry) = state.pending.get_mut(&id) else {
                return;
            };
            let wait = wait(retry.failed, delay.asked());
            retry.failed += 1;
            retry.why = Some(delay.to_string());
            retry.due = Instant::now() + wait;
            self.changed.notify_all();
            wait
        };
        if !self.interrupt.is_cancelled() {
            let name = self.names.of_installation(id);
            log::warn!(
                "the sprite {name} of a removed plugin is still to be deleted: {delay}; again in {wait:?}"
            );
        }
    }

    fn try_to_delete(&self, id: InstallationId) -> Result<(), Delay> {
        let name = self.names.of_installation(id);
        if self.store.get(id).map_err(Delay::Store)?.is_some() {
            // The note stays, for the next host to judge: it may have been made anew meanwhile.
            log::warn!("the sprite {name} is kept, since its plugin is installed");
            return Ok(());
        }
        // The removal may have been one that keeps the sprite, and the store could not be asked then.
        let key = self.key(id);
        if !self.has_note(&key).map_err(Delay::Store)? {
            return Ok(());
        }
        let is_first = |retry: &Retry| retry.failed == 0;
        let time = if self.state.lock().pending.get(&id).is_some_and(is_first) {
            FIRST_TIME
        } else {
            DELETE_TIME
        };
        let within = Within::new(time, &self.interrupt);
        let deleted = self.client.delete_sprite(&name, within);
        if deleted.map_err(Delay::Service)? {
            log::debug!("deleted the sprite {name} of a removed plugin");
        }
        self.store.set_note(&key, None).map_err(Delay::Store)
    }

    /// Looks once for sprites that no installation has, and deletes those of which `sightings` says so.
    fn sweep(&self, sightings: &mut Sightings, now: Instant) -> Result<()> {
        let within = Within::new(LIST_TIME, &self.interrupt);
        let listed = self.client.sprites(self.names.prefix(), within)?;
        let listed: BTreeSet<_> = listed
            .iter()
            .filter_map(|sprite| self.names.installation(&sprite.name))
            .collect();
        // After the service, so that what is installed meanwhile is found.
        let records = self.store.list()?;
        let installed = records.iter().map(|record| record.id).collect();
        for id in sightings.look(&listed, &installed, now) {
            if self.store.get(id)?.is_some() || self.has_note(&self.kept_key(id))? {
                continue;
            }
            let name = self.names.of_installation(id);
            let within = Within::new(DELETE_TIME, &self.interrupt);
            let deleted = self.client.delete_sprite(&name, within);
            // Or one that never can be deleted would be tried first for ever, and no other one.
            if deleted.inspect_err(|_| sightings.forget(id))? {
                log::info!("deleted the sprite {name}, which no installation has");
            }
        }
        Ok(())
    }

    fn key(&self, id: InstallationId) -> String {
        format!("{TO_DELETE}{}", self.names.of_installation(id))
    }

    fn has_note(&self, key: &str) -> Result<bool> {
        Ok(self.store.notes(key)?.contains_key(key))
    }

    fn kept_key(&self, id: InstallationId) -> String {
        format!("{KEPT}{}", self.names.of_installation(id))
    }
}

/// Says that the thread has ended, if it ends by a panic; otherwise it has said so itself.
struct Running<'a>(&'a CleanupShared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.lock().is_running = false;
        }
    }
}

impl Retry {
    fn now() -> Self {
        Self {
            failed: 0,
            why: None,
            due: Instant::now(),
        }
    }
}

impl Delay {
    /// How long the service asks to wait.
    fn asked(&self) -> Option<Duration> {
        match self {
            Self::Service(error) => match error.problem {
                SpritesProblem::RateLimited { wait, .. }
                | SpritesProblem::Unavailable { wait, .. } => wait,
                _ => None,
            },
            Self::Store(_) => None,
        }
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Cleanup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cleanup")
            .field("prefix", &self.shared.names.prefix())
            .field("sweeps", &self.shared.sweeps)
            .finish_non_exhaustive()
    }
}

/// Returns how long to wait after another attempt failed, `failed` having done so before: as long as the
/// service asks for, but no longer than the ladder ever says.
fn wait(failed: usize, asked: Option<Duration>) -> Duration {
    let last = LADDER.len() - 1;
    let step = Duration::from_secs(LADDER[failed.min(last)]);
    let longest = Duration::from_secs(LADDER[last]);
    asked.map_or(step, |asked| asked.clamp(step, longest))
}

/// Reads the notes of earlier hosts.
fn left_over(store: &dyn Store, names: &SpriteNames) -> Result<BTreeMap<InstallationId, Retry>> {
    let mut pending = BTreeMap::new();
    for key in store.notes(TO_DELETE)?.into_keys() {
        let name = key.strip_prefix(TO_DELETE).unwrap_or_default();
        let Some(id) = names.installation(name) else {
            log::warn!("the note {key:?} names no sprite of this store and is left alone");
            continue;
        };
        if store.get(id)?.is_some() {
            store.set_note(&key, None)?;
            log::debug!("the sprite {name} stays: its plugin was not removed");
        } else {
            pending.insert(id, Retry::now());
        }
    }
    Ok(pending)
}
