//! Records in the database: what they come back as, and what nobody may find.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use plugin_runner::auth::ExternalToken;
use plugin_runner::store::PluginKind;

#[test]
fn paths_and_times_of_all_kinds_are_kept() {
    use std::os::unix::ffi::OsStringExt as _;

    let dir = StoreDir::new();
    let store = dir.open();
    let bytes = (1..=255).filter(|byte| *byte != b'/').collect();
    let path = PathBuf::from(std::ffi::OsString::from_vec(bytes));
    let mut odd = record("odd");
    odd.kind = PluginKind::Supervised(Source::Archive(path));
    odd.added_at = UNIX_EPOCH - Duration::new(86_400 * 365 * 200, 1);
    odd.active_state_changed_at = UNIX_EPOCH + Duration::from_nanos(i64::MAX.unsigned_abs());
    store.put(odd.clone()).unwrap();
    assert_eq!(store.get(odd.id).unwrap(), Some(odd.clone()));
    drop(store);
    assert_eq!(dir.open().get(odd.id).unwrap(), Some(odd));
}

#[test]
fn what_could_not_be_read_back_is_refused() {
    let dir = StoreDir::new();
    let store = dir.open();
    let known = record("known");
    store.put(known.clone()).unwrap();
    let mut far = known.clone();
    far.added_at = UNIX_EPOCH + Duration::from_secs(86_400 * 365 * 400);
    let mut deep = known.clone();
    let mut value = serde_json::json!(1);
    for _ in 0..200 {
        value = serde_json::json!([value]);
    }
    deep.configuration.insert("deep".to_owned(), value);
    let mut large = known.clone();
    let (sha256, size) = ("0".repeat(64), u64::MAX);
    large.kind = PluginKind::Supervised(Source::Stored { sha256, size });
    for (odd, problem) in [
        (far, "added_at"),
        (deep, "configuration"),
        (large, "archive"),
    ] {
        let error = store_error(store.put(odd));
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(problem), "{error}");
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&known));
    }
    drop(store);
    assert_eq!(dir.open().list().unwrap(), [known]);
}

/// Whether this is anywhere in the directory.
fn is_in(dir: &StoreDir, token: &ExternalToken) -> bool {
    let secret = token.expose().as_bytes();
    let secret = secret.strip_prefix(b"sdprt_").unwrap();
    dir.content()
        .iter()
        .any(|(_, bytes)| memchr::memmem::find(bytes, secret).is_some())
}

#[test]
fn a_token_that_is_not_kept_is_nowhere() {
    let dir = StoreDir::new();
    let store = dir.open();
    let [never, taken, kept] = std::array::from_fn(|_| ExternalToken::generate().unwrap());
    let put = |record: &mut Record, kind| {
        record.kind = kind;
        store.put(record.clone()).unwrap();
    };
    let mut external = Record::external(manifest("never")).unwrap();
    put(
        &mut external,
        PluginKind::external_by_digest(&never.digest()).unwrap(),
    );
    let never_id = external.id;
    let mut external = Record::external(manifest("taken")).unwrap();
    put(&mut external, PluginKind::external(taken.clone()));
    put(
        &mut external,
        PluginKind::external_by_digest(&taken.digest()).unwrap(),
    );
    let mut external = Record::external(manifest("kept")).unwrap();
    put(&mut external, PluginKind::external(kept.clone()));
    // While the store is open, and what was written before is in its log.
    assert!(!is_in(&dir, &never));
    assert!(is_in(&dir, &kept));
    assert!(!format!("{store:?}").contains(kept.expose()));
    drop(store);
    assert!(!is_in(&dir, &never));
    assert!(!is_in(&dir, &taken), "it was to be overwritten");
    assert!(is_in(&dir, &kept));
    let store = dir.open();
    assert_eq!(store.find_external(&never).unwrap(), Some(never_id));
    assert_eq!(
        store.get(external.id).unwrap().unwrap().external_token(),
        Some(&kept)
    );
}
