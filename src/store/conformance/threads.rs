//! What a store promises to the threads that share it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use serde_json::{Value, json};

use super::notes;
use super::probe::StoreProbe;
use super::samples;
use super::{Check, Outcome};
use crate::store::Record;

/// How often each writer writes.
const ROUNDS: u64 = 100;
const READERS: usize = 3;
pub(super) const WRITERS: u64 = 4;

pub(super) const CHECKS: &[Check] = &[
    ("a_reader_sees_whole_records", a_reader_sees_whole_records),
    (
        "a_reader_sees_what_was_acknowledged",
        a_reader_sees_what_was_acknowledged,
    ),
    (
        "writers_do_not_undo_each_other",
        writers_do_not_undo_each_other,
    ),
    (
        "notes_of_several_threads_are_all_kept",
        notes_of_several_threads_are_all_kept,
    ),
];

/// A record whose fields all have the same number, so that a mixture of two writes is noticed.
fn numbered(record: &Record, number: u64) -> Record {
    let mut record = record.clone();
    record.manifest.description = number.to_string();
    record
        .configuration
        .insert("number".to_owned(), json!(number));
    record.pending_configuration = Some(record.configuration.clone());
    record.overrides.environment = vec![("NUMBER".to_owned(), number.to_string())];
    record
}

/// Returns the number that all its fields have.
fn number(record: &Record) -> Outcome<u64> {
    let of = |members: Option<&serde_json::Map<String, Value>>| {
        members.and_then(|members| members.get("number")?.as_u64())
    };
    let variable = record.overrides.environment.first();
    let numbers = [
        record.manifest.description.parse().ok(),
        of(Some(&record.configuration)),
        of(record.pending_configuration.as_ref()),
        variable.and_then(|(_, value)| value.parse().ok()),
    ];
    match numbers {
        [Some(first), ..] if numbers.iter().all(|&one| one == Some(first)) => Ok(first),
        _ => Err(format!("a record mixes several writes: {numbers:?}").into()),
    }
}

fn a_reader_sees_whole_records(store: StoreProbe<'_>) -> Outcome {
    let record = samples::plain("numbered")?;
    store.put(&numbered(&record, 0))?;
    let read = |acknowledged: u64| {
        for found in [store.get(record.id)?, store.list()?.pop()] {
            let Some(found) = found else {
                return Err("a record is missing while it is replaced".into());
            };
            let found = number(&found)?;
            if found < acknowledged {
                return Err(
                    format!("{found} is read after {acknowledged} was acknowledged").into(),
                );
            }
        }
        Ok(())
    };
    while_reading(read, |acknowledge| {
        for round in 1..=ROUNDS {
            store.put(&numbered(&record, round))?;
            acknowledge(round);
        }
        Ok(())
    })
}

/// A record is written and deleted again and again, with another number each time.
fn a_reader_sees_what_was_acknowledged(store: StoreProbe<'_>) -> Outcome {
    let record = samples::plain("numbered")?;
    // The number acknowledges the deletion of all records up to it.
    let read = |deleted: u64| {
        for found in [store.get(record.id)?, store.list()?.pop()] {
            if let Some(found) = found
                && number(&found)? <= deleted
            {
                return Err("a record is read after its deletion was acknowledged".into());
            }
        }
        Ok(())
    };
    while_reading(read, |acknowledge| {
        for round in 1..=ROUNDS / 2 {
            let record = numbered(&record, round);
            store.put(&record)?;
            store.expect(&record)?;
            store.delete(record.id)?;
            acknowledge(round);
            store.expect_none(record.id)?;
        }
        Ok(())
    })
}

fn notes_of_several_threads_are_all_kept(store: StoreProbe<'_>) -> Outcome {
    if !notes::are_kept(&*store)? {
        return Ok(());
    }
    let write = |writer: u64| -> Outcome {
        let (kept, gone) = (format!("kept/{writer}"), format!("gone/{writer}"));
        for round in 1..=ROUNDS / 10 {
            store.set_note(&kept, Some(&round.to_string()))?;
            store.set_note(&gone, Some(""))?;
            store.set_note(&gone, None)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| spawn(scope, move || write(writer)))
            .collect();
        joined(threads)
    })?;
    let keys: Vec<_> = (0..WRITERS)
        .map(|writer| format!("kept/{writer}"))
        .collect();
    let last = (ROUNDS / 10).to_string();
    let expected: Vec<_> = keys.iter().map(|key| (&**key, &*last)).collect();
    notes::expect(&*store, "", &expected)
}

fn writers_do_not_undo_each_other(store: StoreProbe<'_>) -> Outcome {
    let archive = samples::archive("shared", 50_000)?;
    let shared = samples::plain("shared")?;
    let write = |_: u64| {
        let (kept, gone) = (samples::plain("kept")?, samples::plain("gone")?);
        for round in 1..=ROUNDS / 10 {
            store.put(&numbered(&kept, round))?;
            store.put(&gone)?;
            store.put(&numbered(&shared, round))?;
            store.put_archive(&archive)?;
            store.delete(gone.id)?;
            store.expect(&numbered(&kept, round))?;
            store.expect_none(gone.id)?;
        }
        store.expect_archive(&archive)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| spawn(scope, move || write(writer)))
            .collect();
        joined(threads)
    })?;
    let numbers: Result<Vec<_>, _> = store.list()?.iter().map(number).collect();
    let expected = vec![ROUNDS / 10; usize::try_from(WRITERS).unwrap_or_default() + 1];
    if numbers? != expected {
        return Err(format!(
            "{WRITERS} threads have written a record each and one together; not each is there \
             as it was written last"
        )
        .into());
    }
    store.expect_archives(&[&archive])
}

/// Runs `write` on this thread while other threads `read`, to which it passes what was acknowledged last.
fn while_reading(
    read: impl Fn(u64) -> Outcome + Sync,
    write: impl FnOnce(&dyn Fn(u64)) -> Outcome,
) -> Outcome {
    let acknowledged = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let reader = || {
        while !done.load(Ordering::Acquire) {
            read(acknowledged.load(Ordering::Acquire))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| spawn(scope, reader)).collect();
        let written = write(&|number| acknowledged.store(number, Ordering::Release));
        done.store(true, Ordering::Release);
        joined(readers).and(written)
    })
}

type Started<'scope> = std::io::Result<ScopedJoinHandle<'scope, Outcome>>;

fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    body: impl FnOnce() -> Outcome + Send + 'scope,
) -> Started<'scope> {
    Builder::new()
        .name("conformance".to_owned())
        .spawn_scoped(scope, body)
}

fn joined(threads: Vec<Started<'_>>) -> Outcome {
    let mut outcome = Ok(());
    for thread in threads {
        let ended = match thread.map(ScopedJoinHandle::join) {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => Err("the store has panicked".into()),
            Err(error) => Err(format!("cannot start a thread: {error}").into()),
        };
        outcome = outcome.and(ended);
    }
    outcome
}
