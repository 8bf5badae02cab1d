//! The lock that a fixture told to be `alone` holds for as long as it lives. Exact, unlike a lifeline
//! or a process id: the system gives it back before the process can be reaped.

use std::fs::{self, File};
use std::path::PathBuf;

use plugin_runner::Session;
use rustix::fs::{FlockOperation, fcntl_lock};

use super::host::TestHost;

/// One plugin's lock, which is found anew each time.
pub(crate) struct Lock(Box<dyn Fn() -> PathBuf + Send + Sync>);

impl Lock {
    /// The lock of a plugin with this data folder (`PLUGIN_DATA_DIR`).
    pub(crate) fn in_folder(data: PathBuf) -> Self {
        Self::found(move || data.clone())
    }

    /// The same, where it is not known yet where that folder is.
    pub(crate) fn found(find: impl Fn() -> PathBuf + Send + Sync + 'static) -> Self {
        Self(Box::new(find))
    }

    pub(crate) fn of(host: &TestHost, session: &Session) -> Self {
        Self::in_folder(host.installation_folder(session).join("data"))
    }

    /// Whether a process of it lives. Not to be asked while one may be coming up: looking takes the
    /// lock for a moment.
    pub(crate) fn is_held(&self) -> bool {
        let path = (self.0)().join("alone");
        let Ok(file) = File::options().append(true).open(path) else {
            return false;
        };
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
    }

    /// The ids of processes that came up while another lived.
    pub(crate) fn second_processes(&self) -> Option<String> {
        fs::read_to_string((self.0)().join("not-alone")).ok()
    }

    #[track_caller]
    pub(crate) fn expect_one_at_a_time(&self) {
        let second = self.second_processes();
        assert_eq!(second, None, "there was more than one process");
    }
}
