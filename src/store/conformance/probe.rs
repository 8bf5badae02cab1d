//! `StoreProbe`: a store, and comparisons of what it returns with what it should return.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::Deref;

use serde::Serialize;

use super::Outcome;
use crate::auth::ExternalToken;
use crate::id::InstallationId;
use crate::package::{Archive, ArchiveContent};
use crate::store::{Record, Store};

/// A store, and what it is expected to have.
#[derive(Clone, Copy)]
pub(super) struct StoreProbe<'a>(pub(super) &'a dyn Store);

impl<'a> Deref for StoreProbe<'a> {
    type Target = dyn Store + 'a;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl StoreProbe<'_> {
    pub(super) fn put(self, record: &Record) -> Outcome {
        Ok(self.0.put(record.clone())?)
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
            return Err(format!("get returns {id}, which is not there").into());
        }
        if self.list()?.iter().any(|record| record.id == id) {
            return Err(format!("list returns {id}, which is not there").into());
        }
        Ok(())
    }

    /// The store finds this plugin by the token.
    pub(super) fn expect_found(
        self,
        token: &ExternalToken,
        expected: Option<InstallationId>,
        when: &str,
    ) -> Outcome {
        match self.find_external(token)? {
            found if found == expected => Ok(()),
            found => Err(
                format!("{when}, find_external returns {found:?}, expected {expected:?}").into(),
            ),
        }
    }

    /// The store has exactly these archives, with their sizes, by its list.
    pub(super) fn expect_archives(self, expected: &[&Archive]) -> Outcome {
        let sizes = expected.iter().map(|archive| {
            let size = archive.content().size()?;
            Ok((archive.sha256().to_owned(), size))
        });
        let expected = sizes.collect::<std::io::Result<BTreeMap<_, _>>>()?;
        let found = self.list_archives()?;
        if found == expected {
            Ok(())
        } else {
            Err(format!("list_archives returns {found:?}, expected {expected:?}").into())
        }
    }

    /// The store has this archive, byte for byte.
    pub(super) fn expect_archive(self, archive: &Archive) -> Outcome {
        let sha256 = archive.sha256();
        let Some(content) = self.get_archive(sha256)? else {
            return Err(format!("get_archive does not return {sha256}").into());
        };
        expect_content(archive, &content)
    }
}

/// The content is this archive's, byte for byte, for each of two readers.
pub(super) fn expect_content(archive: &Archive, content: &ArchiveContent) -> Outcome {
    let expected = read(archive.content())?;
    let size = content.size()?;
    if size != expected.len() as u64 {
        return Err(format!(
            "an archive of {} bytes comes back with a size of {size}",
            expected.len()
        )
        .into());
    }
    for which in ["first", "second"] {
        let found = read(content)?;
        if found != expected {
            let place = found.iter().zip(&expected).take_while(|(a, b)| a == b);
            return Err(format!(
                "the {which} reader of an archive of {} bytes returns {} bytes, and the first that \
                 differs is at {}",
                expected.len(),
                found.len(),
                place.count()
            )
            .into());
        }
    }
    Ok(())
}

/// What is found is this record, in every field.
pub(super) fn same(asked: &str, expected: &Record, found: Option<&Record>) -> Outcome {
    let id = expected.id;
    let Some(found) = found else {
        return Err(format!("{asked} does not return {id}").into());
    };
    let wrong = |field: &str, was: String, is: String| {
        Err(format!("{asked} returns {id} with another {field}: expected {was}, found {is}").into())
    };
    // Destructured, so that a new field cannot be forgotten here.
    let Record {
        id: found_id,
        manifest,
        kind,
        active_state,
        active_state_changed_at,
        configuration,
        pending_configuration,
        added_at,
        overrides,
        added_by,
        labels,
        releases,
        damage,
    } = found;
    // As text: zero and minus zero compare equal, but are not the same.
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
            "pending_configuration",
            text(&expected.pending_configuration),
            text(pending_configuration),
        ),
        ("overrides", text(&expected.overrides), text(overrides)),
        ("added_by", text(&expected.added_by), text(added_by)),
        ("labels", text(&expected.labels), text(labels)),
        ("releases", text(&expected.releases), text(releases)),
    ] {
        if was != is {
            return wrong(field, was, is);
        }
    }
    // Debug leaves tokens out, so a wrong token may look the same.
    if expected.kind != *kind {
        return wrong("kind", debug(&expected.kind), debug(kind));
    }
    let (was, is) = (expected.external_token(), found.external_token());
    if was.map(ExternalToken::expose) != is.map(ExternalToken::expose) {
        return wrong("token", debug(&was), debug(&is));
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
        Some(problem) => Err(format!("{asked} returns {id} as damaged: {problem}").into()),
        None => Ok(()),
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| format!("({error})"))
}

fn debug(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

fn read(content: &ArchiveContent) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    content.reader().read_to_end(&mut bytes)?;
    Ok(bytes)
}
