//! What must hold whatever happens: violations, counts, and the legal sequences of states.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use plugin_runner::{InstallationId, PluginMode, ReportedState, StateChange};

use crate::support::events::is_legal;

/// Violations beyond these are counted only: the first ones tell.
const KEPT: usize = 20;

/// What was seen. Shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    violations: Mutex<Vec<String>>,
    violation_count: AtomicU64,
    pub(crate) changes: AtomicU64,
    operations: Mutex<BTreeMap<String, Tally>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    done: u64,
    refused: u64,
    slowest: Duration,
}

impl Verdict {
    pub(crate) fn violate(&self, what: impl Into<String>) {
        self.violation_count.fetch_add(1, Ordering::Relaxed);
        let mut violations = self.violations.lock();
        if violations.len() < KEPT {
            let what = what.into();
            eprintln!("stress: violation: {what}");
            violations.push(what);
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.violation_count.load(Ordering::Relaxed) == 0
    }

    /// Counts an operation that took so long.
    pub(crate) fn count(&self, operation: &str, done: bool, took: Duration) {
        let mut operations = self.operations.lock();
        let tally = operations.entry(operation.to_owned()).or_default();
        tally.done += u64::from(done);
        tally.refused += u64::from(!done);
        tally.slowest = tally.slowest.max(took);
    }

    pub(crate) fn total(&self) -> u64 {
        let operations = self.operations.lock();
        operations
            .values()
            .map(|tally| tally.done + tally.refused)
            .sum()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24}{:>9}{:>9}{:>12}",
            "operation", "done", "refused", "slowest"
        )?;
        for (name, tally) in &*self.operations.lock() {
            let Tally {
                done,
                refused,
                slowest,
            } = tally;
            let millis = slowest.as_secs_f64() * 1e3;
            writeln!(f, "{name:<24}{done:>9}{refused:>9}{millis:>9.1} ms")?;
        }
        let changes = self.changes.load(Ordering::Relaxed);
        let violations = self.violation_count.load(Ordering::Relaxed);
        write!(
            f,
            "{} operations, {changes} state changes, {violations} violations",
            self.total()
        )
    }
}

/// Checks every state change of a host, on a thread of its own, until the host and all of its
/// sessions are gone. Gives what each plugin was in last.
pub(crate) fn check_changes(
    verdict: &std::sync::Arc<Verdict>,
    changes: Receiver<StateChange>,
    modes: HashMap<InstallationId, PluginMode>,
) -> JoinHandle<HashMap<InstallationId, ReportedState>> {
    let verdict = verdict.clone();
    std::thread::spawn(move || {
        let mut states: HashMap<_, _> = modes
            .keys()
            .map(|plugin| (*plugin, ReportedState::Inactive))
            .collect();
        let mut sequence = 0;
        for change in changes {
            verdict.changes.fetch_add(1, Ordering::Relaxed);
            if change.missed != 0 || change.sequence != sequence + 1 {
                verdict.violate(format!("a gap after number {sequence}: {change:?}"));
            }
            sequence = change.sequence;
            let before = states.insert(change.plugin, change.to);
            if before != Some(change.from) {
                verdict.violate(format!(
                    "left another state than {before:?}, which it was in: {change:?}"
                ));
            }
            if !is_legal(modes[&change.plugin], &change) {
                verdict.violate(format!("no legal change: {change:?}"));
            }
        }
        states
    })
}
