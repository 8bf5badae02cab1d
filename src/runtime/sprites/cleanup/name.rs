//! The names of this store's sprites: `pr-<store id>-<installation id>`. The id keeps stores apart that share
//! an account; it is made once and kept in the store.

use std::io;

use crate::error::{Error, ErrorKind, Result};
use crate::id::InstallationId;
use crate::store::Store;

const STORE_ID: &str = "store_id";
const LENGTH: usize = 8;
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Makes and reads names of sprites.
#[derive(Clone, Debug)]
pub(super) struct SpriteNames {
    prefix: String,
}

impl SpriteNames {
    /// The names that sprites of this store have.
    ///
    /// # Errors
    /// Those of [`store_id`].
    pub(super) fn of(store: &dyn Store) -> Result<Self> {
        let id = store_id(store)?;
        Ok(Self {
            prefix: format!("pr-{id}-"),
        })
    }

    /// What all names begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn of_installation(&self, id: InstallationId) -> String {
        format!("{}{id}", self.prefix)
    }

    /// Returns the installation whose sprite has this name; `None` for every name but exactly such a one.
    pub(super) fn installation(&self, name: &str) -> Option<InstallationId> {
        name.strip_prefix(&self.prefix)?.parse().ok()
    }
}

/// Returns the id of the store, which is made if it has none: 8 random characters of `a-z0-9`.
///
/// # Blocking
/// For the store's I/O.
///
/// # Errors
/// - [`Error::Setting`]: the store keeps no notes.
/// - [`ErrorKind::StoreDamaged`]: what it keeps is no such id. Another one is not made in its place, since
///   the sprites there are have the old one in their names.
/// - [The store's](Store#errors); [`Error::Io`]: the system has no random bytes.
pub(super) fn store_id(store: &dyn Store) -> Result<String> {
    if let Some(id) = kept(store)? {
        return Ok(id);
    }
    store.set_note(STORE_ID, Some(&random_id()?))?;
    // Whatever was kept counts, if another host was quicker.
    kept(store)?.ok_or_else(|| {
        let problem = "the store has acknowledged the note `store_id` and does not return it";
        Error::new(ErrorKind::StoreFailed, problem)
    })
}

fn kept(store: &dyn Store) -> Result<Option<String>> {
    let mut notes = store.notes(STORE_ID).map_err(|error| match error.kind() {
        ErrorKind::Unsupported => Error::setting(
            "store",
            "it keeps no notes, which plugins on sprites need; implement Store::notes and \
             Store::set_note, or use SqliteStore",
        ),
        _ => error,
    })?;
    let Some(id) = notes.remove(STORE_ID) else {
        return Ok(None);
    };
    if id.len() == LENGTH && id.bytes().all(|byte| ALPHABET.contains(&byte)) {
        return Ok(Some(id));
    }
    Err(Error::new(
        ErrorKind::StoreDamaged,
        "the note `store_id` of the store is damaged; set it to what follows `pr-` in the names of its \
         sprites, or remove it if there are none",
    ))
}

fn random_id() -> Result<String> {
    // The largest multiple of 36 in a byte: bytes from here up would make some characters likelier.
    const UNBIASED: u8 = 36 * 7;
    let mut id = String::with_capacity(LENGTH);
    while id.len() < LENGTH {
        let mut random = [0; 2 * LENGTH];
        getrandom::fill(&mut random)
            .map_err(|error| Error::io("make the id of the store", io::Error::other(error)))?;
        let usable = random.iter().filter(|byte| **byte < UNBIASED);
        let characters = usable.map(|byte| char::from(ALPHABET[usize::from(byte % 36)]));
        id.extend(characters.take(LENGTH - id.len()));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn a_store_has_one_id_for_ever_and_no_two_have_the_same() {
        let stores: Vec<_> = (0..100).map(|_| MemoryStore::default()).collect();
        let ids: Vec<_> = stores.iter().map(|one| store_id(one).unwrap()).collect();
        let again: Vec<_> = stores.iter().map(|one| store_id(one).unwrap()).collect();
        assert_eq!(ids, again);
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        for id in &ids {
            assert!(id.len() == 8 && id.bytes().all(is_plain), "{id}");
        }
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 100);
    }

    #[test]
    fn a_damaged_id_is_not_replaced() {
        for damaged in [
            "",
            "abcdefg",
            "abcdefghi",
            "ABCDEFGH",
            "abcdefg-",
            "\u{fffd}bcdef",
        ] {
            let store = MemoryStore::default();
            store.set_note(STORE_ID, Some(damaged)).unwrap();
            let error = store_id(&store).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StoreDamaged);
            assert_eq!(store.notes("").unwrap()[STORE_ID], damaged);
        }
    }

    #[test]
    fn only_exactly_such_a_name_is_an_installations() {
        let names = SpriteNames {
            prefix: "pr-abcdefgh-".to_owned(),
        };
        let id = InstallationId::generate();
        let name = names.of_installation(id);
        assert_eq!(name.len(), 32);
        assert_eq!(names.installation(&name), Some(id));
        for other in [
            format!("storyden-plugin-{id}"),
            format!("pr-abcdefgi-{id}"),
            format!("pr-abcdefgh{id}"),
            format!("pr-abcdefgh--{id}"),
            format!("{name}-2"),
            format!("{name}2"),
            format!("x{name}"),
            name[..31].to_owned(),
            name.to_uppercase(),
            "pr-abcdefgh-".to_owned(),
            "pr-abcdefgh-notes".to_owned(),
            String::new(),
        ] {
            assert_eq!(names.installation(&other), None, "{other}");
        }
    }
}
