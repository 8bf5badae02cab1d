//! What a store promises about archives.

use super::probe::{StoreProbe, expect_content};
use super::samples;
use super::{Check, Outcome};

pub(super) const CHECKS: &[Check] = &[
    (
        "an_archive_comes_back_byte_for_byte",
        an_archive_comes_back_byte_for_byte,
    ),
    ("an_archive_is_kept_once", an_archive_is_kept_once),
    (
        "a_missing_archive_is_none_and_may_be_deleted",
        a_missing_archive_is_none_and_may_be_deleted,
    ),
    ("a_deleted_archive_is_gone", a_deleted_archive_is_gone),
    (
        "an_archive_stays_readable_while_it_is_held",
        an_archive_stays_readable_while_it_is_held,
    ),
    (
        "a_refused_deletion_changes_nothing",
        a_refused_deletion_changes_nothing,
    ),
];

fn an_archive_comes_back_byte_for_byte(store: StoreProbe<'_>) -> Outcome {
    let mut archives = Vec::new();
    // Some of these sizes do not fit into the chunks in which stores copy.
    for size in [0, 1, 65_536, 300_007] {
        archives.push(samples::archive("kept", size)?);
    }
    for archive in &archives {
        store.put_archive(archive)?;
        store.expect_archive(archive)?;
    }
    for archive in &archives {
        store.expect_archive(archive)?;
    }
    let expected: Vec<_> = archives.iter().collect();
    store.expect_archives(&expected)
}

fn an_archive_is_kept_once(store: StoreProbe<'_>) -> Outcome {
    let archive = samples::archive("once", 1_000)?;
    for _ in 0..3 {
        store.put_archive(&archive)?;
        store.expect_archives(&[&archive])?;
        store.expect_archive(&archive)?;
    }
    // Not once for each that was put.
    store.delete_archive(archive.sha256())?;
    store.expect_archives(&[])
}

fn a_missing_archive_is_none_and_may_be_deleted(store: StoreProbe<'_>) -> Outcome {
    let archive = samples::archive("there", 10)?;
    store.put_archive(&archive)?;
    for sha256 in ["0".repeat(64).as_str(), "", "no digest", "../plugins"] {
        if store.get_archive(sha256)?.is_some() {
            return Err(format!("get_archive returns {sha256:?}, which was never stored").into());
        }
        store.delete_archive(sha256)?;
    }
    store.expect_archive(&archive)
}

fn a_deleted_archive_is_gone(store: StoreProbe<'_>) -> Outcome {
    let [kept, gone] = [samples::archive("kept", 9)?, samples::archive("gone", 9)?];
    store.put_archive(&kept)?;
    for _ in 0..2 {
        store.put_archive(&gone)?;
        store.expect_archive(&gone)?;
        store.delete_archive(gone.sha256())?;
        if store.get_archive(gone.sha256())?.is_some() {
            return Err("get_archive returns an archive that was deleted".into());
        }
        store.expect_archives(&[&kept])?;
        store.expect_archive(&kept)?;
    }
    Ok(())
}

fn an_archive_stays_readable_while_it_is_held(store: StoreProbe<'_>) -> Outcome {
    let archive = samples::archive("held", 200_000)?;
    store.put_archive(&archive)?;
    let Some(held) = store.get_archive(archive.sha256())? else {
        return Err("get_archive does not return what was stored".into());
    };
    store.delete_archive(archive.sha256())?;
    expect_content(&archive, &held).map_err(|found| format!("after its deletion: {found}"))?;
    store.put_archive(&archive)?;
    expect_content(&archive, &held).map_err(|found| format!("stored again: {found}"))?;
    store.expect_archive(&archive)
}

/// A store may refuse to delete an archive that a record names, and must still have it then.
fn a_refused_deletion_changes_nothing(store: StoreProbe<'_>) -> Outcome {
    let archive = samples::archive("named", 10)?;
    let record = samples::stored(&archive)?;
    store.put_archive(&archive)?;
    store.put(&record)?;
    if store.0.delete_archive(archive.sha256()).is_err() {
        store.expect_archive(&archive)?;
        store.expect_archives(&[&archive])?;
    } else {
        store.expect_archives(&[])?;
    }
    store.expect(&record)?;
    store.delete(record.id)?;
    store.delete_archive(archive.sha256())?;
    store.expect_archives(&[])
}
