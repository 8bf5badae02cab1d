//! What a store promises about records.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::probe::{StoreProbe, same};
use super::samples;
use super::{Check, Outcome};
use crate::auth::ExternalToken;
use crate::id::{InstallationId, Xid};
use crate::protocol::configuration::Configuration;
use crate::state::ActiveState;
use crate::store::{PluginKind, RELEASES, Record, Release, Source};

pub(super) const CHECKS: &[Check] = &[
    ("an_empty_store_has_nothing", an_empty_store_has_nothing),
    ("a_record_comes_back_whole", a_record_comes_back_whole),
    (
        "what_cannot_be_kept_is_refused",
        what_cannot_be_kept_is_refused,
    ),
    (
        "what_no_store_keeps_is_refused",
        what_no_store_keeps_is_refused,
    ),
    ("a_put_replaces", a_put_replaces),
    (
        "a_delete_removes_and_may_be_repeated",
        a_delete_removes_and_may_be_repeated,
    ),
    ("a_list_is_whole_and_by_id", a_list_is_whole_and_by_id),
    (
        "a_token_finds_its_plugin_until_it_is_replaced",
        a_token_finds_its_plugin_until_it_is_replaced,
    ),
];

fn an_empty_store_has_nothing(store: StoreProbe<'_>) -> Outcome {
    let id = InstallationId::generate();
    let found = store.list()?.len() + store.count()? + store.list_archives()?.len();
    if found > 0 {
        return Err("there is something in a new store".into());
    }
    store.expect_none(id)?;
    if store.find_external(&ExternalToken::generate()?)?.is_some() {
        return Err("find_external finds a plugin in a new store".into());
    }
    Ok(store.delete(id)?)
}

fn a_record_comes_back_whole(store: StoreProbe<'_>) -> Outcome {
    let archive = samples::archive("exotic", 10)?;
    store.put_archive(&archive)?;
    let records = samples::exotic(&archive)?;
    for record in &records {
        store.put(record)?;
        store.expect(record)?;
    }
    // None of them has changed another.
    for record in &records {
        store.expect(record)?;
    }
    Ok(())
}

/// A path need not be UTF-8 and a time may be before 1970, which not every store can keep. A store that
/// cannot must report that and keep what it had.
fn what_cannot_be_kept_is_refused(store: StoreProbe<'_>) -> Outcome {
    let path = OsStr::from_bytes(b"/not/\xff/utf-8");
    let mut odd_path = samples::plain("path")?;
    let mut odd_time = samples::plain("time")?;
    let before = [odd_path.clone(), odd_time.clone()];
    odd_path.kind = PluginKind::Supervised(Source::Archive(path.into()));
    odd_time.added_at = SystemTime::UNIX_EPOCH - Duration::new(86_400, 1);
    for (before, odd) in before.iter().zip([odd_path, odd_time]) {
        store.put(before)?;
        let kept = store.put(&odd).is_ok();
        store
            .expect(if kept { &odd } else { before })
            .map_err(|found| {
                let put = if kept { "acknowledged" } else { "refused" };
                format!("after a put that was {put}: {found}")
            })?;
    }
    Ok(())
}

/// See [`Record::validate`].
fn what_no_store_keeps_is_refused(store: StoreProbe<'_>) -> Outcome {
    let known = samples::plain("known")?;
    store.put(&known)?;
    let label = |key: &str, value: &str| {
        let mut record = known.clone();
        record.labels.insert(key.to_owned(), value.to_owned());
        record
    };
    let mut added = known.clone();
    added.added_by = Some("x".repeat(257));
    let mut many = known.clone();
    let numbered = |number: u32| (number.to_string(), String::new());
    many.labels = (0..33).map(numbered).collect();
    let release = |sha256: &str, version: &str| {
        let mut release = Release::new(sha256, 1, "");
        version.clone_into(&mut release.version);
        release
    };
    let with = |releases: Vec<Release>| {
        let mut record = known.clone();
        record.releases = releases;
        record
    };
    let digest = "ab".repeat(32);
    let mut damaged = known.clone();
    damaged.damage = Some("cannot be read".into());
    for (what, record) in [
        ("with an added_by of 257 bytes", added),
        ("with 33 labels", many),
        ("with a label whose key is empty", label("", "")),
        (
            "with a label whose key has 64 bytes",
            label(&"k".repeat(64), ""),
        ),
        (
            "with a label whose key has a capital letter",
            label("Team", ""),
        ),
        (
            "with a label whose key has a letter beyond ASCII",
            label("ü", ""),
        ),
        (
            "with a label whose value has 257 bytes",
            label("k", &"x".repeat(257)),
        ),
        (
            "with 17 releases",
            with(vec![release(&digest, "1"); RELEASES + 1]),
        ),
        (
            "with a release whose SHA-256 is none",
            with(vec![release("../x", "1")]),
        ),
        (
            "with a release whose version has 257 bytes",
            with(vec![release(&digest, &"x".repeat(257))]),
        ),
        ("that is damaged", damaged),
    ] {
        if store.0.put(record).is_ok() {
            return Err(format!("put stores a record {what}").into());
        }
        store.expect(&known)?;
    }
    Ok(())
}

fn a_put_replaces(store: StoreProbe<'_>) -> Outcome {
    let archive = samples::archive("exotic", 10)?;
    store.put_archive(&archive)?;
    let bystander = samples::plain("bystander")?;
    store.put(&bystander)?;
    let mut record = samples::plain("first")?;
    let id = record.id;
    store.put(&record)?;
    // It is replaced by records that differ in everything, and by one that is empty again.
    let mut last = samples::plain("last")?;
    last.id = id;
    for mut next in samples::exotic(&archive)?.into_iter().chain([last]) {
        next.id = id;
        store.put(&next)?;
        store.expect(&next)?;
        record = next;
    }
    // A single field counts as well.
    record.configuration = members("a", 1);
    store.put(&record)?;
    record.pending_configuration = Some(members("a", 2));
    store.put(&record)?;
    store.expect(&record)?;
    record.pending_configuration = None;
    store.put(&record)?;
    store.expect(&record)?;
    record.set_active_state(ActiveState::Active);
    store.put(&record)?;
    store.expect(&record)?;
    store.expect(&bystander)?;
    match store.list()?.len() {
        2 => Ok(()),
        found => Err(format!("of two records, list returns {found}").into()),
    }
}

fn a_delete_removes_and_may_be_repeated(store: StoreProbe<'_>) -> Outcome {
    let (kept, gone) = (samples::plain("kept")?, samples::plain("gone")?);
    store.put(&kept)?;
    store.put(&gone)?;
    for _ in 0..2 {
        store.delete(gone.id)?;
        store.expect_none(gone.id)?;
        store.expect(&kept)?;
    }
    store.put(&gone)?;
    store.expect(&gone)
}

fn a_list_is_whole_and_by_id(store: StoreProbe<'_>) -> Outcome {
    let mut records = Vec::new();
    // In no order, with ids that any other order than that of their bytes would get wrong.
    for number in 1..=40_u8 {
        let mut bytes = [0; 12];
        bytes[0] = number.wrapping_mul(101);
        bytes[11] = number;
        records.push(with_id(bytes)?);
    }
    records.push(with_id([0; 12])?);
    records.push(with_id([0xff; 12])?);
    for record in &records {
        store.put(record)?;
    }
    // Writing a record again must not change its place.
    store.put(&records[0])?;
    records.sort_by_key(|record| record.id);
    let list = store.list()?;
    let ids = |records: &[Record]| records.iter().map(|one| one.id).collect::<Vec<_>>();
    let (expected, found) = (ids(&records), ids(&list));
    if found != expected {
        let place = found.iter().zip(&expected).take_while(|(a, b)| a == b);
        let place = place.count();
        return Err(format!(
            "of {} records, list returns {}; at position {place} there is {:?}, expected {:?}",
            expected.len(),
            found.len(),
            found.get(place),
            expected.get(place)
        )
        .into());
    }
    let count = store.count()?;
    if count != records.len() {
        return Err(format!("of {} records, count returns {count}", records.len()).into());
    }
    for (record, found) in records.iter().zip(&list) {
        same("list", record, Some(found))?;
    }
    Ok(())
}

fn a_token_finds_its_plugin_until_it_is_replaced(store: StoreProbe<'_>) -> Outcome {
    let token = ExternalToken::generate;
    let [first, second, third] = [token()?, token()?, token()?];
    let finds = |token, expected, when: &str| store.expect_found(token, expected, when);
    let mut record = samples::external(&first)?;
    let other = samples::external(&third)?;
    let id = Some(record.id);
    store.put(&other)?;
    store.put(&record)?;
    finds(&first, id, "after an installation")?;
    finds(&second, None, "for an unknown token")?;
    record.configuration = members("a", 1);
    store.put(&record)?;
    finds(&first, id, "after another field changed")?;
    record.kind = PluginKind::external_by_digest(&first.digest())?;
    store.put(&record)?;
    finds(&first, id, "when only its digest is kept")?;
    record.kind = PluginKind::external(second.clone());
    store.put(&record)?;
    finds(&first, None, "after a rotation, for the old token")?;
    finds(&second, id, "after a rotation, for the new token")?;
    record.kind = PluginKind::external(first.clone());
    store.put(&record)?;
    finds(&second, None, "after a second rotation, for the old token")?;
    finds(&first, id, "after a second rotation, for the new token")?;
    record.kind = PluginKind::Supervised(Source::Directory("/plugins".into()));
    store.put(&record)?;
    finds(&first, None, "when it is not external any more")?;
    record.kind = PluginKind::external(first.clone());
    store.put(&record)?;
    store.delete(record.id)?;
    finds(&first, None, "after its removal")?;
    finds(
        &third,
        Some(other.id),
        "for a plugin that nothing was done to",
    )
}

fn with_id(bytes: [u8; 12]) -> Outcome<Record> {
    let mut record = samples::plain("listed")?;
    record.id = Xid::from_bytes(bytes).into();
    Ok(record)
}

fn members(name: &str, value: u32) -> Configuration {
    Configuration::from_iter([(name.to_owned(), json!(value))])
}
