//! `Logs`: the logs of a host's plugins. An installation has one at a time, whatever holds it: a session, the
//! thread that writes what the plugin prints, a follower. So a follower lives through unloading and loading.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::handle::PluginLog;
use crate::error::{Error, Result};
use crate::id::InstallationId;

/// The logs of one host.
#[derive(Default)]
pub(crate) struct Logs(Mutex<HashMap<InstallationId, Arc<LogSlot>>>);

/// Where the log of one installation is found while it is open.
pub(crate) struct LogSlot {
    id: InstallationId,
    /// `None` once the installation has been removed. Held while the log is being opened, so that no two
    /// write to one directory.
    log: Mutex<Option<Weak<PluginLog>>>,
}

impl Logs {
    /// The slot of an installation. Never waits for the disk.
    pub(crate) fn slot(&self, id: InstallationId) -> Arc<LogSlot> {
        let mut slots = self.0.lock();
        // Nothing says when a slot has become useless. This keeps their number within twice what is in use.
        if slots.len() == slots.capacity() {
            slots.retain(|_, slot| slot.is_used());
        }
        let new = || {
            Arc::new(LogSlot {
                id,
                log: Mutex::new(Some(Weak::new())),
            })
        };
        slots.entry(id).or_insert_with(new).clone()
    }

    /// Ends the log of an installation that has been removed: followers read what is there, and then get
    /// [`Error::NotInstalled`]. Waits for the log to be opened, if it just is.
    pub(crate) fn remove(&self, id: InstallationId) {
        let Some(slot) = self.0.lock().remove(&id) else {
            return;
        };
        let log = slot.log.lock().take();
        if let Some(log) = log.and_then(|log| log.upgrade()) {
            log.end(id);
        }
    }
}

impl LogSlot {
    pub(crate) fn id(&self) -> InstallationId {
        self.id
    }

    /// The log: the one that is open already, or else what `open` returns, which may wait for the disk.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] when the installation has been removed, or the errors of `open`.
    pub(crate) fn get_or_open(
        &self,
        open: impl FnOnce() -> Result<PluginLog>,
    ) -> Result<Arc<PluginLog>> {
        let mut log = self.log.lock();
        let log = log.as_mut().ok_or(Error::NotInstalled(self.id))?;
        if let Some(log) = log.upgrade() {
            return Ok(log);
        }
        let opened = Arc::new(open()?);
        *log = Arc::downgrade(&opened);
        Ok(opened)
    }

    fn is_used(self: &Arc<Self>) -> bool {
        let is_open = || {
            let log = self.log.try_lock();
            log.is_none_or(|log| log.as_ref().is_some_and(|log| log.strong_count() > 0))
        };
        Arc::strong_count(self) > 1 || is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogSettings;
    use super::super::scratch::Scratch;
    use super::*;
    use crate::testing::assert_matches;

    #[test]
    fn there_is_one_log_for_an_installation_until_nothing_holds_it() {
        let scratch = Scratch::new("one");
        let open = || PluginLog::open(scratch.logs(), LogSettings::default(), None);
        let (logs, id) = (Logs::default(), InstallationId::generate());
        let first = logs.slot(id).get_or_open(open).unwrap();
        let second = logs.slot(id).get_or_open(|| panic!("it is open")).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let other = logs.slot(InstallationId::generate());
        assert!(!Arc::ptr_eq(&first, &other.get_or_open(open).unwrap()));

        drop(first);
        let weak = Arc::downgrade(&second);
        drop(second);
        assert!(weak.upgrade().is_none());
        logs.slot(id).get_or_open(open).unwrap();
    }

    #[test]
    fn nothing_is_opened_for_an_installation_that_has_been_removed() {
        let (logs, id) = (Logs::default(), InstallationId::generate());
        let slot = logs.slot(id);
        logs.remove(id);
        let error = slot.get_or_open(|| panic!("removed")).unwrap_err();
        assert_matches!(error, Error::NotInstalled(removed) if removed == id);
    }

    #[test]
    fn slots_that_nothing_uses_go() {
        let logs = Logs::default();
        let used: Vec<_> = (0..10)
            .map(|_| logs.slot(InstallationId::generate()))
            .collect();
        for _ in 0..1000 {
            logs.slot(InstallationId::generate());
        }
        assert!(logs.0.lock().len() < 100);
        for slot in used {
            assert!(Arc::ptr_eq(&slot, &logs.slot(slot.id)));
        }
    }
}
