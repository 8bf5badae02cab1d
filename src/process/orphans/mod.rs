//! Descendants that left their plugin's process group: found by a random cookie in the environment
//! they inherited, and killed.
//!
//! What lives here: the cookie, and what all looks of one host share ([`OrphanScanner`]). How one look goes is in
//! `scan`, how it reads `/proc` in `proc`, how it recognises the cookie in `matcher`. When to look is the
//! reaper's and the keeper's.
//!
//! Only Linux shows the environment of other processes. Elsewhere nothing is found, and nothing can
//! be said of it either: [`ARE_FOUND`] is false.
//!
//! What still escapes: a process that was given another environment, that wrote over the memory in
//! which its environment was or keeps it from being read, that runs as another user or is marked as not
//! to be looked at (unless the host may look at it all the same), or that sits behind a `/proc` which
//! hides it.

#[cfg(target_os = "linux")]
mod matcher;
#[cfg(target_os = "linux")]
mod proc;
mod scan;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::deadline::Deadline;
use crate::error::{Descendants, Error, Result};

/// Whether this system shows what it takes.
pub(crate) const ARE_FOUND: bool = cfg!(target_os = "linux");

/// The variable that carries the cookie.
pub(crate) const VARIABLE: &str = "PLUGIN_RUNNER_COOKIE";

/// Bytes of the number of a run; twice as many characters.
const NUMBER_BYTES: usize = 8;

/// A look that reads one process for longer is given up; that process is passed over then.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_millis(250);
/// The stack of a thread that looks, in bytes.
pub(crate) const SCAN_STACK: usize = 128 * 1024;

/// Looks whose thread does not come back from reading one process, in all of a host. With so many no
/// further look is begun.
const STUCK_LIMIT: usize = 4;

/// A host's own random number, in hexadecimal. All that its plugins start bear it, with a number of the
/// run behind it that no plugin can guess of another's run.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Cookie {
    text: Arc<str>,
    /// What the numbers of runs are made with; told to nobody.
    key: [u8; 16],
}

impl Cookie {
    pub(crate) fn generate() -> Result<Self> {
        let mut bytes = [0; 16];
        let mut key = [0; 16];
        for random in [&mut bytes, &mut key] {
            getrandom::fill(random)
                .map_err(|error| Error::io("get random bytes for a cookie", error))?;
        }
        Ok(Self {
            text: HEXLOWER.encode(&bytes).into(),
            key,
        })
    }

    /// Takes what another process was told, for finding bearers of all runs; `None` for what cannot be a
    /// cookie.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
        (bytes.len() == 16).then(|| Self {
            text: text.into(),
            key: [0; 16],
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The value of the variable for one run.
    pub(crate) fn of_run(&self, run: u64) -> String {
        format!("{}.{}", self.text, self.number_of(run))
    }

    /// What stands for a run: not the run itself, or one plugin could have its processes taken for
    /// another's, and keep that from being stopped.
    fn number_of(&self, run: u64) -> String {
        let digest = Sha256::new()
            .chain_update(self.key)
            .chain_update(run.to_be_bytes())
            .finalize();
        HEXLOWER.encode(&digest[..NUMBER_BYTES])
    }

    /// The processes that bear it from these runs.
    pub(crate) fn match_runs<'a>(&self, runs: impl IntoIterator<Item = &'a u64>) -> CookieMatch {
        CookieMatch {
            numbers: Some(runs.into_iter().map(|run| self.number_of(*run)).collect()),
            ..self.match_all()
        }
    }

    /// The processes that bear it, whatever the run.
    pub(crate) fn match_all(&self) -> CookieMatch {
        CookieMatch {
            prefix: format!("{VARIABLE}={}.", self.text),
            numbers: None,
        }
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// Processes known by an entry of their environment.
pub(crate) struct CookieMatch {
    /// What the entry begins with; the number of the run follows.
    prefix: String,
    /// The numbers that count; `None` for any.
    numbers: Option<Box<[String]>>,
}

impl CookieMatch {
    /// Kills these processes and what they start meanwhile, and waits until they are dead and nothing was
    /// found for `quiet`. Ends at the deadline at the latest; nothing is left stopped then.
    ///
    /// Blocks beyond the deadline only for the first pass and for killing what was stopped, some 20 µs for
    /// each process; unless the system does not come back from reading one: see [`ScanProgress::give_up`].
    pub(crate) fn kill(
        &self,
        deadline: Deadline,
        quiet: Duration,
        progress: &ScanProgress,
    ) -> ScanResult {
        #[cfg(target_os = "linux")]
        return scan::kill(self, deadline, quiet, progress);
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (&self.prefix, &self.numbers, deadline, quiet, progress);
            let mut result = ScanResult::default();
            result.found.finished = true;
            result
        }
    }
}

/// What one look came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanResult {
    pub(crate) killed: usize,
    /// What was not killed.
    pub(crate) found: Descendants,
    /// Passed over: their environment could not be read.
    pub(crate) unclear: usize,
    /// The processor time that it took.
    pub(crate) cost: Duration,
}

/// What all looks of one host share. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct OrphanScanner {
    pub(crate) cookie: Cookie,
    shared: Arc<ScannerShared>,
}

#[derive(Debug, Default)]
struct ScannerShared {
    /// Processes from which a read did not come back yet: they are passed over.
    stuck: Mutex<HashSet<i32>>,
    escaped: AtomicU64,
}

impl OrphanScanner {
    pub(crate) fn new(cookie: Cookie) -> Self {
        Self {
            cookie,
            shared: Arc::default(),
        }
    }

    /// For a look that begins now; `None` when too many do not come back.
    pub(crate) fn begin(&self, tally: &Arc<Tally>, is_harmless: bool) -> Option<Arc<ScanProgress>> {
        let may_begin = self.shared.stuck.lock().len() < STUCK_LIMIT;
        may_begin.then(|| {
            Arc::new(ScanProgress {
                at: Mutex::new(CurrentRead::default()),
                tally: tally.clone(),
                shared: self.shared.clone(),
                is_harmless,
            })
        })
    }

    /// How many processes have been seen and got away, since the host was built.
    pub(crate) fn escaped(&self) -> u64 {
        self.shared.escaped.load(Ordering::Relaxed)
    }

    pub(crate) fn add_escaped(&self, count: usize) {
        self.shared
            .escaped
            .fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// What looks for one plugin's descendants have found so far, for those who wait for them.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counted>);

/// Locked for an instant only.
#[derive(Debug, Default)]
struct Counted {
    found: Descendants,
    /// Some were found, or a look was not finished.
    is_telling: bool,
    /// Nothing else is waited for.
    is_awaited: bool,
}

impl Tally {
    pub(crate) fn set_awaited(&self, yes: bool) {
        self.0.lock().is_awaited = yes;
    }

    /// What is left, if that is known, and nothing else is waited for.
    pub(crate) fn awaited(&self) -> Option<Descendants> {
        let counted = self.0.lock();
        (counted.is_awaited && counted.is_telling).then_some(counted.found)
    }

    /// Takes what a look that goes on has found.
    pub(crate) fn tell(&self, found: Descendants) {
        let mut counted = self.0.lock();
        if found.left > 0 || found.escaped > 0 || counted.is_telling {
            counted.found = found;
            counted.is_telling = true;
        }
    }

    /// Takes what a look came to.
    pub(crate) fn set(&self, found: Descendants) {
        let mut counted = self.0.lock();
        counted.found = found;
        counted.is_telling = !found.is_clear();
    }

    pub(crate) fn descendants(&self) -> Descendants {
        self.0.lock().found
    }
}

/// Where a look is, for those that wait for it on another thread.
#[derive(Debug)]
pub(crate) struct ScanProgress {
    /// Locked for an instant only.
    at: Mutex<CurrentRead>,
    tally: Arc<Tally>,
    shared: Arc<ScannerShared>,
    /// A test wants to see what comes when signals have no effect.
    is_harmless: bool,
}

#[derive(Debug, Default)]
struct CurrentRead {
    /// The process that is being read.
    reading: Option<(i32, Instant)>,
    given_up: bool,
}

impl ScanProgress {
    /// Gives the look up if it has been reading one process for so long; returns whether it is given up.
    /// That process is passed over by others until the read comes back.
    pub(crate) fn give_up(&self, timeout: Duration) -> bool {
        let mut at = self.at.lock();
        if let Some((process, since)) = at.reading
            && !at.given_up
            && since.elapsed() >= timeout
        {
            at.given_up = true;
            self.shared.stuck.lock().insert(process);
        }
        at.given_up
    }

    #[cfg(target_os = "linux")]
    fn is_stuck(&self, process: i32) -> bool {
        self.shared.stuck.lock().contains(&process)
    }

    #[cfg(target_os = "linux")]
    fn begin_reading(&self, process: i32) {
        self.at.lock().reading = Some((process, Instant::now()));
    }

    #[cfg(target_os = "linux")]
    fn end_reading(&self, process: i32) {
        let mut at = self.at.lock();
        at.reading = None;
        if at.given_up {
            self.shared.stuck.lock().remove(&process);
        }
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.at.lock().given_up
    }
}
