//! Orphans: descendants of a plugin that left its process group. A scan finds them by a random cookie in the
//! environment that they inherited, and kills them.
//!
//! What lives here: the cookie, and what all scans of one host share ([`OrphanScanner`]). `scan` is one scan,
//! `proc` reads `/proc`, `matcher` recognises the cookie. When to scan is decided in `reaper` and `keeper`.
//!
//! Only Linux shows the environment of other processes. Elsewhere no orphan is found: [`ARE_FOUND`] is
//! false.
//!
//! A process escapes the scan if it was started with another environment, overwrote the memory that held
//! its environment or prevents it from being read, runs as another user or is marked as not dumpable
//! (unless the host may read it all the same), or is hidden by the way `/proc` is mounted.

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

/// Whether this system shows the environment of other processes.
pub(crate) const ARE_FOUND: bool = cfg!(target_os = "linux");

/// The environment variable that carries the cookie.
pub(crate) const VARIABLE: &str = "PLUGIN_RUNNER_COOKIE";

/// The length of a run's number in bytes; in text it is twice as long.
const NUMBER_BYTES: usize = 8;

/// A scan that reads one process for longer than this is given up, and the next one skips that process.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_millis(250);
/// The stack of a thread that scans, in bytes.
pub(crate) const SCAN_STACK: usize = 128 * 1024;

/// No further scan begins while the threads of this many scans, in all of a host, are stuck reading a
/// process.
const STUCK_LIMIT: usize = 4;

/// A random number of one host, in hexadecimal. The processes of its plugins carry it in their environment,
/// followed by a number of the run that other plugins cannot guess.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Cookie {
    text: Arc<str>,
    /// The secret from which the numbers of runs are derived.
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

    /// Parses the cookie of another process, whose orphans of all runs can then be found; `None` if the text
    /// is not a cookie.
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

    /// Returns the value of the variable for one run.
    pub(crate) fn of_run(&self, run: u64) -> String {
        format!("{}.{}", self.text, self.number_of(run))
    }

    /// Returns the number that stands for a run. It is not the run's id: with that a plugin could pass its
    /// processes off as another plugin's, and keep that one from being stopped.
    fn number_of(&self, run: u64) -> String {
        let digest = Sha256::new()
            .chain_update(self.key)
            .chain_update(run.to_be_bytes())
            .finalize();
        HEXLOWER.encode(&digest[..NUMBER_BYTES])
    }

    /// Matches the processes of these runs.
    pub(crate) fn match_runs<'a>(&self, runs: impl IntoIterator<Item = &'a u64>) -> CookieMatch {
        CookieMatch {
            numbers: Some(runs.into_iter().map(|run| self.number_of(*run)).collect()),
            ..self.match_all()
        }
    }

    /// Matches the processes of all runs.
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

/// Which processes a scan is for, recognised by an entry of their environment.
pub(crate) struct CookieMatch {
    /// The beginning of the entry; the number of the run follows.
    prefix: String,
    /// The numbers that match; `None` for any.
    numbers: Option<Box<[String]>>,
}

impl CookieMatch {
    /// Kills these processes and those that they start meanwhile, and waits until they are dead and none was
    /// found for `quiet`. Returns at the deadline at the latest, and leaves no process stopped.
    ///
    /// Blocks beyond the deadline only for the first pass and for killing what was stopped, about 20 µs per
    /// process; or if the system does not return from reading a process: see [`ScanProgress::give_up`].
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

/// The result of one scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanResult {
    pub(crate) killed: usize,
    /// What was found and not killed.
    pub(crate) found: Descendants,
    /// Processes that were skipped because their environment could not be read.
    pub(crate) unclear: usize,
    /// The processor time that the scan took.
    pub(crate) cost: Duration,
}

/// What all scans of one host share. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct OrphanScanner {
    pub(crate) cookie: Cookie,
    shared: Arc<ScannerShared>,
}

#[derive(Debug, Default)]
struct ScannerShared {
    /// Processes on which a read is stuck; scans skip them.
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

    /// Returns the progress of a scan that begins now; `None` if too many scans are stuck.
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

    /// Returns how many processes have been seen and escaped since the host was built.
    pub(crate) fn escaped(&self) -> u64 {
        self.shared.escaped.load(Ordering::Relaxed)
    }

    pub(crate) fn add_escaped(&self, count: usize) {
        self.shared
            .escaped
            .fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// What the scans for one plugin have found so far, for callers that wait for its end.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counted>);

/// The lock around it is held for an instant only.
#[derive(Debug, Default)]
struct Counted {
    found: Descendants,
    /// Orphans were found, or a scan was not finished.
    is_known: bool,
    /// The end of the plugin waits for nothing but orphans.
    is_awaited: bool,
}

impl Tally {
    pub(crate) fn set_awaited(&self, yes: bool) {
        self.0.lock().is_awaited = yes;
    }

    /// Returns what is left, if that is known and the end of the plugin waits for nothing else.
    pub(crate) fn awaited(&self) -> Option<Descendants> {
        let counted = self.0.lock();
        (counted.is_awaited && counted.is_known).then_some(counted.found)
    }

    /// Takes what a scan has found so far.
    pub(crate) fn tell(&self, found: Descendants) {
        let mut counted = self.0.lock();
        if found.left > 0 || found.escaped > 0 || counted.is_known {
            counted.found = found;
            counted.is_known = true;
        }
    }

    /// Takes what a scan has found in the end.
    pub(crate) fn set(&self, found: Descendants) {
        let mut counted = self.0.lock();
        counted.found = found;
        counted.is_known = !found.is_clear();
    }

    pub(crate) fn descendants(&self) -> Descendants {
        self.0.lock().found
    }
}

/// How far a scan is, for the thread that waits for it.
#[derive(Debug)]
pub(crate) struct ScanProgress {
    /// The lock is held for an instant only.
    at: Mutex<CurrentRead>,
    tally: Arc<Tally>,
    shared: Arc<ScannerShared>,
    /// Set by tests: signals have no effect.
    is_harmless: bool,
}

#[derive(Debug, Default)]
struct CurrentRead {
    /// The process that is being read, and since when.
    reading: Option<(i32, Instant)>,
    given_up: bool,
}

impl ScanProgress {
    /// Gives the scan up if it has been reading one process for `timeout`; returns whether it is given up.
    /// Other scans skip that process until the read returns.
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

    pub(crate) fn is_abandoned(&self) -> bool {
        self.at.lock().given_up
    }
}
