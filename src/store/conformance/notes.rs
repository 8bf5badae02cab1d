//! What a store that keeps notes promises about them. One that keeps none has to say so, and nothing else.

use std::collections::BTreeMap;

use super::probe::StoreProbe;
use super::samples;
use super::{Check, Outcome};
use crate::error::ErrorKind;
use crate::store::Store;

pub(super) const CHECKS: &[Check] = &[
    (
        "a_note_is_kept_until_it_is_replaced_or_removed",
        a_note_is_kept_until_it_is_replaced_or_removed,
    ),
    (
        "notes_are_found_by_the_beginning_of_their_keys",
        notes_are_found_by_the_beginning_of_their_keys,
    ),
    (
        "what_no_store_keeps_as_a_note_is_refused",
        what_no_store_keeps_as_a_note_is_refused,
    ),
    (
        "notes_and_records_do_not_touch_each_other",
        notes_and_records_do_not_touch_each_other,
    ),
];

/// Whether the store keeps notes.
pub(super) fn are_kept(store: &dyn Store) -> Outcome<bool> {
    let is_unsupported = |error: &crate::Error| error.kind() == ErrorKind::Unsupported;
    match store.notes("") {
        Ok(_) => Ok(true),
        Err(error) if is_unsupported(&error) => match store.set_note("key", Some("value")) {
            Err(error) if is_unsupported(&error) => Ok(false),
            Err(error) => Err(error.into()),
            Ok(()) => Err("notes says that none are kept, and set_note acknowledges one".into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// The store has exactly these notes below the prefix.
pub(super) fn expect(store: &dyn Store, prefix: &str, expected: &[(&str, &str)]) -> Outcome {
    let notes = expected.iter().map(|(key, value)| (*key, *value));
    let expected: BTreeMap<&str, &str> = notes.collect();
    let found = store.notes(prefix)?;
    let is_same = found.len() == expected.len()
        && found
            .iter()
            .all(|(key, value)| expected.get(&**key) == Some(&&**value));
    if is_same {
        Ok(())
    } else {
        Err(format!("the notes below {prefix:?} are {found:?}, expected {expected:?}").into())
    }
}

fn a_note_is_kept_until_it_is_replaced_or_removed(store: StoreProbe<'_>) -> Outcome {
    if !are_kept(&*store)? {
        return Ok(());
    }
    expect(&*store, "", &[])?;
    let longest_key = "sprites/delete/0-9_.z".repeat(7)[..128].to_owned();
    let longest = "ü\0\n'\"\\".repeat(200)[..1024].to_owned();
    for value in ["first", "", &longest, "last"] {
        for key in ["store_id", "a", &longest_key] {
            store.set_note(key, Some(value))?;
        }
        let all = [("store_id", value), ("a", value), (&*longest_key, value)];
        expect(&*store, "", &all)?;
    }
    for _ in 0..2 {
        store.set_note("a", None)?;
        expect(
            &*store,
            "",
            &[("store_id", "last"), (&*longest_key, "last")],
        )?;
    }
    store.set_note("a", Some("again"))?;
    expect(&*store, "a", &[("a", "again")])
}

fn notes_are_found_by_the_beginning_of_their_keys(store: StoreProbe<'_>) -> Outcome {
    if !are_kept(&*store)? {
        return Ok(());
    }
    for key in ["a", "a.c", "a/b", "a/c", "a_c", "abc", "b/a/b", "z"] {
        store.set_note(key, Some(key))?;
    }
    let found = [
        ("a/", &["a/b", "a/c"][..]),
        ("a_", &["a_c"]),
        ("a.", &["a.c"]),
        ("a/b", &["a/b"]),
        ("b", &["b/a/b"]),
        ("z", &["z"]),
        ("%", &[]),
        ("a/b/", &[]),
        ("a", &["a", "a.c", "a/b", "a/c", "a_c", "abc"]),
    ];
    for (prefix, keys) in found {
        let notes: Vec<_> = keys.iter().map(|key| (*key, *key)).collect();
        expect(&*store, prefix, &notes)?;
    }
    Ok(())
}

/// See [`validate_note`](crate::store::validate_note).
fn what_no_store_keeps_as_a_note_is_refused(store: StoreProbe<'_>) -> Outcome {
    if !are_kept(&*store)? {
        return Ok(());
    }
    store.set_note("known", Some("value"))?;
    let (key, value) = ("k".repeat(129), "x".repeat(1025));
    for (what, key, value) in [
        ("with an empty key", "", Some("")),
        ("with a key of 129 bytes", &key, Some("")),
        ("with a key with a capital letter", "Known", Some("")),
        ("with a key with a space", "a b", Some("")),
        ("with a key with a letter beyond ASCII", "ü", Some("")),
        ("of 1025 bytes", "known", Some(&*value)),
    ] {
        if store.set_note(key, value).is_ok() {
            return Err(format!("set_note stores a note {what}").into());
        }
        expect(&*store, "", &[("known", "value")])?;
    }
    Ok(())
}

fn notes_and_records_do_not_touch_each_other(store: StoreProbe<'_>) -> Outcome {
    if !are_kept(&*store)? {
        return Ok(());
    }
    let record = samples::plain("noted")?;
    let key = format!("sprites/delete/{}", record.id);
    store.set_note(&key, Some("value"))?;
    store.expect_none(record.id)?;
    store.put(&record)?;
    store.expect(&record)?;
    if store.list()?.len() != 1 {
        return Err("a note is listed as a record".into());
    }
    store.set_note(&key, Some("other"))?;
    store.delete(record.id)?;
    expect(&*store, "", &[(&*key, "other")])
}
