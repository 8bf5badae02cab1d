//! The store: a record of each installed plugin, the archives, short notes of the host's own, and the trait
//! for keeping them. Nothing
//! here starts or stops a plugin; the manager and the session give records their meaning.

#[cfg(feature = "conformance")]
pub mod conformance;
mod index;
mod kind;
mod memory;
mod note;
mod overrides;
mod record;
mod release;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::collections::BTreeMap;
use std::fmt;

pub use kind::{PluginKind, Source};
pub use memory::MemoryStore;
pub use note::validate_note;
pub use overrides::Overrides;
pub use record::Record;
pub(crate) use release::RELEASES;
pub use release::Release;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use crate::auth::ExternalToken;
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::package::{Archive, ArchiveContent};

/// Keeps records, and the archives that they name. Implementations are shared between threads and must
/// not lose an acknowledged write: after a crash it has happened wholly or not at all. The host asks for
/// a record whenever a plugin is loaded, is started, connects or calls, and each of these waits for the
/// answer: an implementation on a remote database should cache the records.
///
/// The feature `conformance` adds `store::conformance`, with which an implementation's tests check it. The
/// example `tests/examples/json_store.rs` is a whole implementation in 250 lines.
///
/// The manager stores an archive before the first record that names it, as the one that the plugin runs from or
/// among its [`releases`](Record::releases), and removes it after the last one: a store need not count
/// references.
///
/// # Notes
/// A store can also keep notes: short texts by key, for what the host itself has to remember, with the
/// bounds of [`validate_note`]. They are as durable as records, hold no secret, and belong to no plugin:
/// deleting a record removes none. Only plugins on sprites need them: an id of the store, which is made once
/// (`store_id`), and a note for each sprite that has to be deleted and is not yet (`sprites/delete/<name>`).
/// [`Manager::check`](crate::Manager::check) writes one as well, to see whether it can (`check`).
///
/// # Errors
/// Implementations make their errors with [`Error::io`](crate::Error::io), and with
/// [`Error::new`](crate::Error::new) of the kind that fits. The host and the manager return them unchanged.
/// - [`ErrorKind::StoreBusy`](crate::ErrorKind::StoreBusy): another program has locked the store, or a remote
///   one does not answer; it may work later.
/// - [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull), [`ReadOnly`](crate::ErrorKind::ReadOnly) or
///   [`Io`](crate::ErrorKind::Io): the system refused.
/// - [`ErrorKind::RecordDamaged`](crate::ErrorKind::RecordDamaged): an archive is damaged.
/// - [`ErrorKind::StoreDamaged`](crate::ErrorKind::StoreDamaged): more is.
/// - [`ErrorKind::StoreFailed`](crate::ErrorKind::StoreFailed): anything else.
pub trait Store: Send + Sync + fmt::Debug {
    /// Returns the record with this id. A record that cannot be read whole is returned with its
    /// [`damage`](Record::damage), at least as [`Record::damaged`].
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [Those of every method](Store#errors).
    fn get(&self, id: InstallationId) -> Result<Option<Record>>;

    /// Returns all records in the order of their ids, which is oldest first. One that is damaged is
    /// among them and keeps no other from being read.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [Those of every method](Store#errors).
    fn list(&self) -> Result<Vec<Record>>;

    /// Returns the number of records. The default implementation counts [`list`](Self::list).
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [Those of every method](Store#errors).
    fn count(&self) -> Result<usize> {
        Ok(self.list()?.len())
    }

    /// Stores a record, replacing one with the same id. Implementations call [`Record::validate`] first: a
    /// record with [`damage`](Record::damage), for example, must not be stored as it is, since its stand-ins
    /// would replace what may still be repaired. It is replaced by a whole one, and can be deleted.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// Those of [`Record::validate`] and [of every method](Store#errors). Nothing has changed then.
    fn put(&self, record: Record) -> Result<()>;

    /// Removes a record, if it is there.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [Those of every method](Store#errors). Nothing has changed then.
    fn delete(&self, id: InstallationId) -> Result<()>;

    /// Returns the external plugin with this token; see [`Record::has_token`]. Called at each
    /// handshake of an external plugin. The default implementation searches [`list`](Self::list), which takes
    /// longer the more plugins there are; a database can have an index of the digests of
    /// [`PluginKind::External`], and look for [`ExternalToken::digest`].
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [Those of every method](Store#errors).
    fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        let mut found = None;
        for record in self.list()? {
            if record.has_token(token) {
                found = Some(record.id);
            }
        }
        Ok(found)
    }

    /// Stores this archive under its SHA-256. If the store has it, only content that is lost is
    /// replaced. The archive need not be in memory, and need not be read into it.
    ///
    /// # Blocking
    /// For the store's own I/O, and for reading the archive.
    ///
    /// # Errors
    /// [Those of every method](Store#errors). Nothing has changed then.
    fn put_archive(&self, archive: &Archive) -> Result<()>;

    /// Returns the archive with this SHA-256. The content stays readable while it is held, also after
    /// the archive is deleted.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [Those of every method](Store#errors).
    fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>>;

    /// Removes an archive, if it is there.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [`ErrorKind::ArchiveInUse`](crate::ErrorKind::ArchiveInUse): a plugin [runs from
    /// it](Record::stored_archive); and [those of every method](Store#errors). Nothing has changed then.
    fn delete_archive(&self, sha256: &str) -> Result<()>;

    /// Returns the sizes in bytes of all archives, by their SHA-256 in lower-case hexadecimal.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [Those of every method](Store#errors).
    fn list_archives(&self) -> Result<BTreeMap<String, u64>>;

    /// Returns the [notes](Store#notes) whose keys begin with `prefix`, by their keys; all notes if it is empty.
    /// The default implementation says that the store keeps none.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the store keeps no notes, whatever the prefix;
    /// and [those of every method](Store#errors).
    fn notes(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        let _ = prefix;
        Err(NO_NOTES)
    }

    /// Keeps a [note](Store#notes), replacing one with the same key; `None` removes it, if it is there.
    /// Implementations call [`validate_note`] first. The default implementation says that the store keeps none.
    ///
    /// # Blocking
    /// For the store's own I/O.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the store keeps no notes; those of
    /// [`validate_note`]; and [those of every method](Store#errors). Nothing has changed then.
    fn set_note(&self, key: &str, value: Option<&str>) -> Result<()> {
        let _ = (key, value);
        Err(NO_NOTES)
    }
}

/// What a store that keeps no notes says when it is asked.
const NO_NOTES: Error = Error::Unsupported("this store keeps no notes of the host's");
