//! A database whose rows are damaged, with something secret in the place of what should be there.

use plugin_runner::store::SqliteStore;
use rusqlite::Connection;

use super::*;

pub(super) fn run(evidence: &Arc<Evidence>) {
    for column in [
        "configuration",
        "unsettled_configuration",
        "overrides",
        "token",
        "token_digest",
        "source_kind",
        "mode",
        "active_state",
    ] {
        for value in [
            CONFIGURED.to_owned(),
            json!(CONFIGURED).to_string(),
            json!({ "environment": CONFIGURED }).to_string(),
            json!({ "environment": [["NAME", {"value": CONFIGURED}]] }).to_string(),
            format!("{{\"environment\": [[\"NAME\", \"{CONFIGURED}"),
        ] {
            damaged(evidence, column, &value);
        }
    }
}

fn damaged(evidence: &Arc<Evidence>, column: &str, value: &str) {
    let directory = TestDir::new("secrets-database");
    let open = || SqliteStore::open(directory.path()).unwrap();
    let store = open();
    let record = plugin_runner::store::Record::external(manifest("outside")).unwrap();
    evidence.debug(&record);
    let id = record.id;
    store.put(record).unwrap();
    drop(store);
    let database = Connection::open(directory.path().join("plugins.sqlite")).unwrap();
    let changed = database.execute(&format!("UPDATE installation SET {column} = ?"), [value]);
    assert_eq!(changed.unwrap(), 1);
    drop(database);
    let store = Arc::new(open());
    evidence.debug(&*store);
    for record in store.list().unwrap() {
        evidence.debug(&record);
        if let Err(error) = record.validate() {
            evidence.error(&error);
        }
    }
    let host = TestHost::with("secrets-damaged", |setup| {
        setup.configure(|builder| builder.store(store));
    });
    let managed = Managed::of(host, settings());
    evidence.both(&managed.get(id).unwrap());
    for result in [
        managed.configure(id, serde_json::Map::new()).map(drop),
        managed.activate(id, LONG).map(drop),
        managed.rotate_token(id).map(drop),
    ] {
        if let Err(error) = result {
            evidence.error(&error);
        }
    }
    evidence.both(&managed.boot(LONG).unwrap());
}
