//! Checks that an implementation of [`Store`] does what the host relies on.
//!
//! For the tests of whoever writes one:
//!
//! ```
//! use std::sync::Arc;
//!
//! use plugin_runner::store::{MemoryStore, Store, conformance};
//!
//! let mut open = || Arc::new(MemoryStore::default()) as Arc<dyn Store>;
//! conformance::check(&mut open).unwrap_or_else(|violation| panic!("{violation}"));
//! ```
//!
//! and, for one that keeps what it has, which is then checked for all of that and more:
//!
//! ```
//! # #[cfg(feature = "sqlite")] {
//! use std::path::PathBuf;
//! use std::sync::Arc;
//!
//! use plugin_runner::store::conformance::{self, Persistent};
//! use plugin_runner::store::{SqliteStore, Store};
//!
//! struct Subject {
//!     folder: PathBuf,
//!     opened: u32,
//! }
//!
//! impl Persistent for Subject {
//!     fn open_empty(&mut self) -> Arc<dyn Store> {
//!         self.opened += 1;
//!         self.reopen()
//!     }
//!
//!     fn reopen(&mut self) -> Arc<dyn Store> {
//!         let folder = self.folder.join(self.opened.to_string());
//!         Arc::new(SqliteStore::open(folder).unwrap())
//!     }
//! }
//!
//! let folder = std::env::temp_dir().join(format!("conformance-{}", std::process::id()));
//! let mut subject = Subject { folder: folder.clone(), opened: 0 };
//! let checked = conformance::check_persistent(&mut subject);
//! std::fs::remove_dir_all(&folder).unwrap();
//! checked.unwrap_or_else(|violation| panic!("{violation}"));
//! # }
//! ```
//!
//! Each promise is a check with a name, which a [`Violation`] tells. No check waits for a length of
//! time; how long they all take is up to the store, which is asked some two thousand times.

mod archives;
mod persistence;
mod probe;
mod records;
mod samples;
#[cfg(test)]
mod tests;
mod threads;

use std::error::Error;
use std::sync::Arc;

use probe::StoreProbe;

use super::Store;

/// A promise that a store does not keep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store fails the check {check}: {found}")]
#[non_exhaustive]
pub struct Violation {
    /// The check, by its name, which says what is promised.
    pub check: &'static str,
    /// What was found instead. Tokens are left out.
    pub found: String,
}

/// A kind of store that still has what it was given when it is opened again.
pub trait Persistent {
    /// Opens a store in a place of its own, with nothing in it. The stores opened before are closed
    /// by then, and not opened again.
    fn open_empty(&mut self) -> Arc<dyn Store>;

    /// Opens the store of the last [`open_empty`](Self::open_empty) again. All handles to it have
    /// been dropped.
    fn reopen(&mut self) -> Arc<dyn Store>;
}

/// What a check finds wrong, in words, or as an error of the store's.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A check, by the name that a [`Violation`] has.
type Check = (&'static str, fn(StoreProbe<'_>) -> Outcome);

/// A check for which the store is opened again.
type Reopening = (&'static str, fn(&mut dyn Persistent) -> Outcome);

/// Checks all that every store promises. `open` gives a new store with nothing in it each time.
///
/// # Errors
/// The first promise that is not kept.
pub fn check(open: &mut dyn FnMut() -> Arc<dyn Store>) -> Result<(), Violation> {
    for (name, check) in [records::CHECKS, archives::CHECKS, threads::CHECKS].concat() {
        let store = open();
        judge(name, check(StoreProbe(&*store)))?;
    }
    Ok(())
}

/// Checks all that [`check`] does, and that what was acknowledged is still there when the store is
/// opened again. (That it also is after a crash, no check in the same process can tell.)
///
/// # Errors
/// The first promise that is not kept.
pub fn check_persistent(subject: &mut dyn Persistent) -> Result<(), Violation> {
    check(&mut || subject.open_empty())?;
    for (name, check) in persistence::CHECKS {
        judge(name, check(subject))?;
    }
    Ok(())
}

fn judge(check: &'static str, outcome: Outcome) -> Result<(), Violation> {
    outcome.map_err(|found| Violation {
        check,
        found: found.to_string(),
    })
}
