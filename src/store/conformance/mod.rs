//! Checks that an implementation of [`Store`] does what the host relies on.
//!
//! It is for the tests of a store of one's own, with the feature `conformance`:
//!
//! ```
//! use std::sync::Arc;
//!
//! use plugin_runner::store::conformance;
//! use plugin_runner::{MemoryStore, Store};
//!
//! let mut open = || Arc::new(MemoryStore::default()) as Arc<dyn Store>;
//! conformance::check(&mut open).unwrap_or_else(|violation| panic!("{violation}"));
//! ```
//!
//! A store that keeps its content across restarts is checked for that as well:
//!
//! ```
//! # #[cfg(feature = "sqlite")] {
//! use std::path::PathBuf;
//! use std::sync::Arc;
//!
//! use plugin_runner::store::conformance::{self, Persistent};
//! use plugin_runner::{InstallationId, SqliteStore, Store};
//!
//! struct Subject {
//!     dir: PathBuf,
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
//!         let dir = self.dir.join(self.opened.to_string());
//!         Arc::new(SqliteStore::open(dir).unwrap())
//!     }
//!
//!     fn damage(&mut self, id: InstallationId) -> bool {
//!         let database = self.dir.join(format!("{}/plugins.sqlite", self.opened));
//!         let sql = format!("UPDATE installation SET overrides = '{{' WHERE id = '{id}'");
//!         rusqlite::Connection::open(database).unwrap().execute(&sql, []).unwrap();
//!         true
//!     }
//! }
//!
//! let dir = std::env::temp_dir().join(format!("conformance-{}", std::process::id()));
//! let mut subject = Subject { dir: dir.clone(), opened: 0 };
//! let checked = conformance::check_persistent(&mut subject);
//! std::fs::remove_dir_all(&dir).unwrap();
//! checked.unwrap_or_else(|violation| panic!("{violation}"));
//! # }
//! ```
//!
//! A store that keeps no [notes](Store#notes) is checked for saying so.
//!
//! Each promise is a check with a name, which a [`Violation`] has. No check sleeps; how long all of them
//! take depends on the store, which is called some two thousand times.

mod archives;
mod notes;
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
use crate::id::InstallationId;

/// A promise that is not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the check {check} fails: {found}")]
#[non_exhaustive]
pub struct Violation {
    /// The name of the check, which says what is promised.
    pub check: &'static str,
    /// What was found instead, without tokens.
    pub found: String,
}

/// A kind of store that keeps its content until it is opened again.
pub trait Persistent {
    /// Opens an empty store in a place of its own. The stores opened before are closed by then, and not
    /// opened again.
    fn open_empty(&mut self) -> Arc<dyn Store>;

    /// Opens the store of the last [`open_empty`](Self::open_empty) again. All handles to it have
    /// been dropped.
    fn reopen(&mut self) -> Arc<dyn Store>;

    /// Makes the record with this id unreadable in the store of the last [`open_empty`](Self::open_empty),
    /// which is not open: for example by writing half of a JSON text in its place. Returns false if single
    /// records cannot be damaged there; what a store shows of one is not checked then.
    fn damage(&mut self, id: InstallationId) -> bool;
}

/// The outcome of a check: what is wrong, in words or as an error of the store's.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A check, by the name that a [`Violation`] has.
type Check = (&'static str, fn(StoreProbe<'_>) -> Outcome);

/// A check for which the store is opened again.
type Reopening = (&'static str, fn(&mut dyn Persistent) -> Outcome);

/// Checks what every store promises. `open` returns a new, empty store each time.
///
/// # Blocking
/// As long as the store takes.
///
/// # Errors
/// The first promise that is not kept.
pub fn check(open: &mut dyn FnMut() -> Arc<dyn Store>) -> Result<(), Violation> {
    let checks = [
        records::CHECKS,
        archives::CHECKS,
        notes::CHECKS,
        threads::CHECKS,
    ];
    for (name, check) in checks.concat() {
        let store = open();
        judge(name, check(StoreProbe(&*store)))?;
    }
    Ok(())
}

/// Checks what [`check`] does, and that acknowledged writes are still there when the store is opened
/// again. (Whether they are after a crash, no check in the same process can tell.)
///
/// # Blocking
/// As long as the store takes.
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
