//! `Asked`: a store, asked in words that a violation can repeat; and comparing what it answers.

use std::io::Read as _;

use serde::Serialize;

use super::Outcome;
use crate::auth::ExternalToken;
use crate::id::InstallationId;
use crate::package::{Archive, ArchiveContent};
use crate::store::{PluginKind, Record, Store, StoredArchive};

/// A store whose errors say what was being asked.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a>(pub(super) &'a dyn Store);

impl Asked<'_> {
    pub(super) fn get(self, id: InstallationId) -> Result<Option<Record>, String> {
        self.0.get(id).map_err(said("get"))
    }

    pub(super) fn list(self) -> Result<Vec<Record>, String> {
        self.0.list().map_err(said("list"))
    }

    pub(super) fn count(self) -> Result<usize, String> {
        self.0.count().map_err(said("count"))
    }

    pub(super) fn put(self, record: &Record) -> Outcome {
        self.0.put(record.clone()).map_err(said("put"))
    }

    pub(super) fn delete(self, id: InstallationId) -> Outcome {
        self.0.delete(id).map_err(said("delete"))
    }

    pub(super) fn find(self, token: &ExternalToken) -> Result<Option<InstallationId>, String> {
        self.0.find_external(token).map_err(said("find_external"))
    }

    pub(super) fn put_archive(self, archive: &Archive) -> Outcome {
        self.0.put_archive(archive).map_err(said("put_archive"))
    }

    pub(super) fn get_archive(self, sha256: &str) -> Result<Option<ArchiveContent>, String> {
        self.0.get_archive(sha256).map_err(said("get_archive"))
    }

    pub(super) fn delete_archive(self, sha256: &str) -> Outcome {
        self.0
            .delete_archive(sha256)
            .map_err(said("delete_archive"))
    }

    pub(super) fn list_archives(self) -> Result<Vec<StoredArchive>, String> {
        let mut archives = self.0.list_archives().map_err(said("list_archives"))?;
        archives.sort_by(|one, other| one.sha256.cmp(&other.sha256));
        Ok(archives)
    }

    /// The store has this record, alone and in the list.
    pub(super) fn expect(self, record: &Record) -> Outcome {
        let found = self.get(record.id)?;
        same("get", record, found.as_ref())?;
        let list = self.list()?;
        same("list", record, list.iter().find(|one| one.id == record.id))
    }

    /// The store has no record with this id.
    pub(super) fn expect_none(self, id: InstallationId) -> Outcome {
        if self.get(id)?.is_some() {
            return Err(format!("get gives {id}, which is not there"));
        }
        if self.list()?.iter().any(|record| record.id == id) {
            return Err(format!("list gives {id}, which is not there"));
        }
        Ok(())
    }

    /// The store has exactly these archives, by their list.
    pub(super) fn expect_archives(self, expected: &[&Archive]) -> Outcome {
        let mut expected: Vec<_> = expected.iter().map(|archive| archive.sha256()).collect();
        expected.sort_unstable();
        let found = self.list_archives()?;
        let found: Vec<_> = found
            .iter()
            .map(|archive| archive.sha256.as_str())
            .collect();
        if found == expected {
            Ok(())
        } else {
            Err(format!(
                "list_archives gives {found:?}, expected {expected:?}"
            ))
        }
    }

    /// The store has this archive, byte for byte.
    pub(super) fn expect_archive(self, archive: &Archive) -> Outcome {
        let sha256 = archive.sha256();
        let Some(content) = self.get_archive(sha256)? else {
            return Err(format!("get_archive does not give {sha256}"));
        };
        expect_content(archive, &content)
    }
}

/// The content is this archive's, byte for byte, for each of two readers.
pub(super) fn expect_content(archive: &Archive, content: &ArchiveContent) -> Outcome {
    let expected = read(archive.content())?;
    let size = content
        .size()
        .map_err(|error| format!("the size of an archive: {error}"))?;
    if size != expected.len() as u64 {
        return Err(format!(
            "an archive of {} bytes is given back with a size of {size}",
            expected.len()
        ));
    }
    for which in ["first", "second"] {
        let found = read(content)?;
        if found != expected {
            let place = found.iter().zip(&expected).take_while(|(a, b)| a == b);
            return Err(format!(
                "the {which} reader of an archive of {} bytes gives {} bytes, and the first that \
                 differs is at {}",
                expected.len(),
                found.len(),
                place.count()
            ));
        }
    }
    Ok(())
}

/// What is found is this record, in every field.
pub(super) fn same(asked: &str, expected: &Record, found: Option<&Record>) -> Outcome {
    let id = expected.id;
    let Some(found) = found else {
        return Err(format!("{asked} does not give {id}"));
    };
    let wrong = |field: &str, was: String, is: String| {
        Err(format!(
            "{asked} gives {id} with another {field}: expected {was}, found {is}"
        ))
    };
    // Field by field, so that one that is added here must be thought of.
    let Record {
        id: found_id,
        manifest,
        kind,
        active_state,
        active_state_changed_at,
        configuration,
        unsettled_configuration,
        added_at,
        overrides,
        damage,
    } = found;
    // As text: zero and minus zero are equal, and are not the same.
    for (field, was, is) in [
        ("id", text(&id), text(found_id)),
        ("manifest", text(&expected.manifest), text(manifest)),
        (
            "active_state",
            text(&expected.active_state),
            text(active_state),
        ),
        (
            "configuration",
            text(&expected.configuration),
            text(configuration),
        ),
        (
            "unsettled_configuration",
            text(&expected.unsettled_configuration),
            text(unsettled_configuration),
        ),
        ("overrides", text(&expected.overrides), text(overrides)),
    ] {
        if was != is {
            return wrong(field, was, is);
        }
    }
    // What Debug shows has no token in it, so a wrong token may look the same.
    if expected.kind != *kind {
        return wrong("kind", debug(&expected.kind), debug(kind));
    }
    if let (PluginKind::External(was), PluginKind::External(is)) = (&expected.kind, kind)
        && was.token().map(ExternalToken::expose) != is.token().map(ExternalToken::expose)
    {
        return wrong("token", debug(was), debug(is));
    }
    for (field, was, is) in [
        (
            "active_state_changed_at",
            expected.active_state_changed_at,
            *active_state_changed_at,
        ),
        ("added_at", expected.added_at, *added_at),
    ] {
        if was != is {
            return wrong(field, debug(&was), debug(&is));
        }
    }
    match damage {
        Some(problem) => Err(format!("{asked} gives {id} as damaged: {problem}")),
        None => Ok(()),
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| format!("({error})"))
}

fn debug(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

fn read(content: &ArchiveContent) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match content.reader().read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("an archive cannot be read: {error}")),
    }
}

fn said(asked: &'static str) -> impl Fn(crate::Error) -> String {
    move |error| format!("{asked} fails: {error}")
}
