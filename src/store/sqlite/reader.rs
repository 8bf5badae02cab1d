//! `StoreReader`: a store that is only read, and that another process may own and change meanwhile.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::archive_files;
use super::database;
use super::dir::StoreDir;
use super::failure;
use super::row;
use super::schema::WITH_NOTES;
use super::writer;
use crate::auth::ExternalToken;
use crate::error::Result;
use crate::id::InstallationId;
use crate::package::{Archive, ArchiveContent};
use crate::store::{Record, Store, note};

/// Opens the database anew for each question: in between it holds no lock that an owner would wait for,
/// and it always reads the database that is there now.
#[derive(Debug)]
pub(super) struct StoreReader {
    dir: StoreDir,
}

impl StoreReader {
    /// See [`SqliteStore::open_read_only`](super::SqliteStore::open_read_only).
    pub(super) fn open(dir: StoreDir) -> Result<Self> {
        let reader = Self { dir };
        let path = reader.dir.database();
        reader.read(|connection| {
            database::expect_known(connection, &path)?;
            database::expect_whole(connection, &reader.dir)
        })?;
        Ok(reader)
    }

    pub(super) fn dir(&self) -> &StoreDir {
        &self.dir
    }

    pub(super) fn check_integrity(&self) -> Result<()> {
        let path = self.dir.database();
        self.read(|connection| database::check_integrity(connection, &path))
    }

    fn archive_size(&self, sha256: &str) -> Result<Option<u64>> {
        Ok(self.list_archives()?.get(sha256).copied())
    }

    fn records(&self, condition: &str, parameter: Option<&str>) -> Result<Vec<Record>> {
        let path = self.dir.database();
        self.read(|connection| {
            // An owner of another version may have migrated it.
            let schema = database::expect_known(connection, &path)?;
            let rows = row::select(connection, schema, condition, parameter)
                .map_err(failure::database("read", &path))?;
            Ok(row::decode_all(&rows).0)
        })
    }

    fn read<T>(&self, ask: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        ask(&database::open_to_read(&self.dir)?)
    }

    fn read_only<T>(&self) -> Result<T> {
        Err(failure::read_only(&self.dir.database()).into())
    }
}

impl Store for StoreReader {
    fn get(&self, id: InstallationId) -> Result<Option<Record>> {
        Ok(self.records("WHERE id = ?1", Some(&id.to_string()))?.pop())
    }

    fn list(&self) -> Result<Vec<Record>> {
        self.records("ORDER BY id", None)
    }

    fn find_external(&self, token: &ExternalToken) -> Result<Option<InstallationId>> {
        let digest = token.digest();
        let mut found = self.records("WHERE token_digest = ?1 ORDER BY id", Some(&digest))?;
        found.retain(|record| record.has_token(token));
        Ok(found.pop().map(|record| record.id))
    }

    fn get_archive(&self, sha256: &str) -> Result<Option<ArchiveContent>> {
        let Some(size) = self.archive_size(sha256)? else {
            return Ok(None);
        };
        match archive_files::open(&self.dir, sha256, size) {
            // Deleted in between, or replaced by a whole one.
            Err(error) => match self.archive_size(sha256)? {
                None => Ok(None),
                Some(now) if now != size => archive_files::open(&self.dir, sha256, now).map(Some),
                Some(_) => Err(error),
            },
            content => content.map(Some),
        }
    }

    fn list_archives(&self) -> Result<BTreeMap<String, u64>> {
        let path = self.dir.database();
        self.read(|connection| {
            writer::archives(connection).map_err(failure::database("read", &path))
        })
    }

    fn notes(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        let path = self.dir.database();
        let notes = self.read(|connection| {
            if database::expect_known(connection, &path)? < WITH_NOTES {
                return Ok(BTreeMap::new());
            }
            writer::notes(connection).map_err(failure::database("read", &path))
        })?;
        Ok(note::below(&notes, prefix))
    }

    fn put(&self, _: Record) -> Result<()> {
        self.read_only()
    }

    fn delete(&self, _: InstallationId) -> Result<()> {
        self.read_only()
    }

    fn put_archive(&self, _: &Archive) -> Result<()> {
        self.read_only()
    }

    fn delete_archive(&self, _: &str) -> Result<()> {
        self.read_only()
    }

    fn set_note(&self, _: &str, _: Option<&str>) -> Result<()> {
        self.read_only()
    }
}
