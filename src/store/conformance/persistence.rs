//! What a persistent store promises beyond that: to have its content when it is opened again.

use super::notes;
use super::probe::StoreProbe;
use super::samples;
use super::{Outcome, Persistent, Reopening};
use crate::auth::ExternalToken;
use crate::id::InstallationId;
use crate::store::{PluginKind, Record};

pub(super) const CHECKS: &[Reopening] = &[
    ("records_survive_reopening", records_survive_reopening),
    ("deletions_survive_reopening", deletions_survive_reopening),
    ("tokens_survive_reopening", tokens_survive_reopening),
    ("archives_survive_reopening", archives_survive_reopening),
    ("notes_survive_reopening", notes_survive_reopening),
    (
        "a_damaged_record_is_shown_and_hides_no_other",
        a_damaged_record_is_shown_and_hides_no_other,
    ),
    (
        "a_damaged_record_can_be_replaced_and_deleted",
        a_damaged_record_can_be_replaced_and_deleted,
    ),
];

fn records_survive_reopening(subject: &mut dyn Persistent) -> Outcome {
    let archive = samples::archive("exotic", 10)?;
    let mut records = samples::exotic(&archive)?;
    {
        let store = subject.open_empty();
        let store = StoreProbe(&*store);
        store.put_archive(&archive)?;
        for record in &records {
            store.put(record)?;
        }
    }
    for round in 0..3 {
        let store = subject.reopen();
        let store = StoreProbe(&*store);
        for record in &records {
            store.expect(record)?;
        }
        if store.list()?.len() != records.len() {
            return Err("there are more records than were stored".into());
        }
        // What replaces survives as well.
        let variable = ("ROUND".to_owned(), round.to_string());
        records[0].overrides.environment.push(variable);
        store.put(&records[0])?;
    }
    Ok(())
}

fn deletions_survive_reopening(subject: &mut dyn Persistent) -> Outcome {
    let [kept, gone] = [samples::plain("kept")?, samples::plain("gone")?];
    {
        let store = subject.open_empty();
        let store = StoreProbe(&*store);
        store.put(&gone)?;
        store.put(&kept)?;
        store.delete(gone.id)?;
    }
    let store = subject.reopen();
    StoreProbe(&*store).expect_none(gone.id)?;
    StoreProbe(&*store).expect(&kept)
}

fn tokens_survive_reopening(subject: &mut dyn Persistent) -> Outcome {
    let token = ExternalToken::generate;
    let [old, new, hashed] = [token()?, token()?, token()?];
    let mut rotated = samples::external(&old)?;
    let mut unshown = samples::external(&hashed)?;
    unshown.kind = PluginKind::external_by_digest(&hashed.digest())?;
    {
        let store = subject.open_empty();
        let store = StoreProbe(&*store);
        store.put(&rotated)?;
        store.put(&unshown)?;
        rotated.kind = PluginKind::external(new.clone());
        store.put(&rotated)?;
    }
    let store = subject.reopen();
    for (token, expected, which) in [
        (&old, None, "for a token that was replaced"),
        (&new, Some(rotated.id), "for the token that replaced it"),
        (&hashed, Some(unshown.id), "for a token that is not kept"),
    ] {
        StoreProbe(&*store).expect_found(token, expected, which)?;
    }
    Ok(())
}

fn archives_survive_reopening(subject: &mut dyn Persistent) -> Outcome {
    let named = samples::archive("named", 100_000)?;
    let unnamed = samples::archive("unnamed", 10)?;
    let gone = samples::archive("gone", 10)?;
    let record = samples::stored(&named)?;
    {
        let store = subject.open_empty();
        let store = StoreProbe(&*store);
        for archive in [&named, &unnamed, &gone] {
            store.put_archive(archive)?;
        }
        store.put(&record)?;
        store.delete_archive(gone.sha256())?;
    }
    for _ in 0..2 {
        let store = subject.reopen();
        let store = StoreProbe(&*store);
        // The store does not judge which records name an archive.
        store.expect_archives(&[&named, &unnamed])?;
        store.expect_archive(&named)?;
        store.expect_archive(&unnamed)?;
        store.expect(&record)?;
    }
    Ok(())
}

fn notes_survive_reopening(subject: &mut dyn Persistent) -> Outcome {
    {
        let store = subject.open_empty();
        if !notes::are_kept(&*store)? {
            return Ok(());
        }
        for key in ["kept", "replaced", "removed"] {
            store.set_note(key, Some("first"))?;
        }
        store.set_note("replaced", Some(""))?;
        store.set_note("removed", None)?;
    }
    for _ in 0..2 {
        let store = subject.reopen();
        let expected = [("kept", "first"), ("replaced", "")];
        notes::expect(&*store, "", &expected)?;
    }
    Ok(())
}

fn a_damaged_record_is_shown_and_hides_no_other(subject: &mut dyn Persistent) -> Outcome {
    let token = ExternalToken::generate()?;
    let mut records = [
        samples::plain("before")?,
        samples::plain("damaged")?,
        samples::plain("after")?,
    ];
    // Ids are in this order, unless the clock was set back.
    records.sort_by_key(|record| record.id);
    records[2].kind = PluginKind::external(token.clone());
    let [before, damaged, after] = &records;
    if !stored_and_damaged(subject, &records, damaged.id)? {
        return Ok(());
    }
    // What is asked and refused changes nothing.
    for _ in 0..2 {
        let store = subject.reopen();
        let store = StoreProbe(&*store);
        store.expect(before)?;
        store.expect(after)?;
        store.expect_found(&token, Some(after.id), "beside a damaged record")?;
        let list = store.list()?;
        let ids = |records: &[Record]| records.iter().map(|one| one.id).collect::<Vec<_>>();
        let (found, expected) = (ids(&list), ids(&records));
        if found != expected {
            return Err(format!("list returns {found:?}, expected {expected:?}").into());
        }
        let count = store.count()?;
        if count != records.len() {
            return Err(
                format!("of three records, one of them damaged, count returns {count}").into(),
            );
        }
        for (asked, found) in [
            ("list", list.into_iter().nth(1)),
            ("get", store.get(damaged.id)?),
        ] {
            match found {
                Some(found) if found.damage.is_some() => {
                    if store.0.put(found).is_ok() {
                        return Err("put stores a damaged record as it was read".into());
                    }
                }
                Some(_) => return Err(format!("{asked} returns a damaged record as whole").into()),
                None => return Err(format!("{asked} does not return a damaged record").into()),
            }
        }
    }
    Ok(())
}

fn a_damaged_record_can_be_replaced_and_deleted(subject: &mut dyn Persistent) -> Outcome {
    let records = [samples::plain("damaged")?, samples::plain("other")?];
    let [damaged, other] = &records;
    if !stored_and_damaged(subject, &records, damaged.id)? {
        return Ok(());
    }
    {
        let store = subject.reopen();
        StoreProbe(&*store).put(damaged)?;
        StoreProbe(&*store).expect(damaged)?;
    }
    {
        let store = subject.reopen();
        StoreProbe(&*store).expect(damaged)?;
    }
    subject.damage(damaged.id);
    {
        let store = subject.reopen();
        store.delete(damaged.id)?;
        StoreProbe(&*store).expect_none(damaged.id)?;
    }
    let store = subject.reopen();
    StoreProbe(&*store).expect_none(damaged.id)?;
    StoreProbe(&*store).expect(other)
}

/// Stores these records in a new store, which is closed then, and damages the one with this id. Returns
/// whether that is possible.
fn stored_and_damaged(
    subject: &mut dyn Persistent,
    records: &[Record],
    id: InstallationId,
) -> Outcome<bool> {
    {
        let store = subject.open_empty();
        for record in records {
            StoreProbe(&*store).put(record)?;
        }
    }
    Ok(subject.damage(id))
}
