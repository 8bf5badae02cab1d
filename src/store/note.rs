//! Notes: short texts of the host's own that a store keeps beside the records.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::error::{Error, ErrorKind, Result};

const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 1024;

/// Checks a note as every store has to before it keeps one: its key has 1 to 128 bytes, each of them one of
/// `a-z 0-9 - _ . /`, and its value has at most 1,024 bytes of any text.
///
/// # Errors
/// [`ErrorKind::InvalidInput`]: it is over these bounds.
pub fn validate_note(key: &str, value: Option<&str>) -> Result<()> {
    let is_plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/');
    let problem = if !(1..=LONGEST_KEY).contains(&key.len()) || !key.bytes().all(is_plain) {
        "the key of a note must be 1 to 128 of the characters a-z, 0-9, '-', '_', '.' and '/'"
    } else if value.is_some_and(|value| value.len() > LONGEST_VALUE) {
        "a note may have at most 1024 bytes"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, problem))
}

/// Returns the notes whose keys begin with `prefix`.
pub(super) fn below(notes: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    let found = notes.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
    found
        .take_while(|(key, _)| key.starts_with(prefix))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Sets or removes a note in memory.
pub(super) fn set(notes: &mut BTreeMap<String, String>, key: &str, value: Option<&str>) {
    match value {
        Some(value) => notes.insert(key.to_owned(), value.to_owned()),
        None => notes.remove(key),
    };
}
