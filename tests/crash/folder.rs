//! Looking at the folder after a kill, as the next process on it does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use plugin_runner::auth::ExternalToken;
use plugin_runner::store::{Record, Store as _};
use plugin_runner::{ActiveState, InstallationId, Manager, PluginMode};

use crate::driver::{self, OWN_FILE};
use crate::model::{Known, Model, after, begun_as, subject};
use crate::operation::Operation;
use crate::support::{LONG, names, wait_until};

/// Opens the folder and looks at everything. Takes what was under way into the model, as it turned out.
pub(crate) fn check(folder: &Path, model: &mut Model, what: &str) {
    let under_way: Vec<Operation> = model.under_way().into_iter().cloned().collect();
    let what = format!("{what}, under way {under_way:?}");
    let (store, manager) = driver::open(folder);
    store
        .check_integrity()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let records = store.list().unwrap();
    compare(folder, model, &records, &under_way, &what);
    check_files(folder, model, &records, &what);
    boot(&manager, &records, &what);
    let report = manager.host().shutdown(LONG);
    assert!(report.is_complete(), "{what}: {report:?}");
    model.settle();
}

/// Compares the records, and what plugins wrote, with what is known.
fn compare(
    folder: &Path,
    model: &mut Model,
    records: &[Record],
    under_way: &[Operation],
    what: &str,
) {
    let mut installing: Vec<Known> = under_way.iter().filter_map(begun_as).collect();
    let mut missing: BTreeSet<InstallationId> = model.plugins.keys().copied().collect();
    for record in records {
        assert_eq!(record.damage, None, "{what}: {record:?}");
        let id = record.id;
        let found = known(folder, record);
        missing.remove(&id);
        let own: Option<&Operation> = under_way
            .iter()
            .find(|operation| subject(operation) == Some(id));
        if let Some(before) = model.plugins.get(&id) {
            let mut possible = vec![before.clone()];
            possible.extend(own.map(|operation| after(before, operation)));
            assert!(
                possible.contains(&found),
                "{what}: {id} is {found:?}, expected one of {possible:?}"
            );
        } else {
            let place = installing.iter().position(|known| *known == found);
            let place = place.unwrap_or_else(|| panic!("{what}: nobody installed {found:?}"));
            installing.remove(place);
        }
        if let Some(token) = model.tokens.get(&id) {
            let token = ExternalToken::parse(token).unwrap();
            let rotating = matches!(own, Some(Operation::Rotate { .. }));
            assert!(
                record.has_token(&token) || rotating,
                "{what}: {id} does not have its token"
            );
            if !record.has_token(&token) {
                // Nobody was told the new one.
                model.tokens.remove(&id);
            }
        }
        model.plugins.insert(id, found);
    }
    for id in missing {
        let removing = under_way.iter().find_map(|operation| match operation {
            Operation::Remove { id: own, keep_data } if *own == id => Some(*keep_data),
            _ => None,
        });
        let keep_data = removing.unwrap_or_else(|| panic!("{what}: {id} is gone"));
        model.plugins.remove(&id);
        model.tokens.remove(&id);
        if keep_data {
            model.kept.insert(id);
        }
    }
}

fn known(folder: &Path, record: &Record) -> Known {
    let external = record.mode() == PluginMode::External;
    let own = |sha256: &str| {
        let path = driver::releases(folder, record.id)
            .join(sha256)
            .join(OWN_FILE);
        let text = fs::read_to_string(path).ok()?;
        Some(text.parse().unwrap())
    };
    let older = record.releases.iter().skip(1);
    Known {
        external,
        version: record.manifest.version.parse().unwrap(),
        active: record.active_state,
        configured: record
            .configuration
            .get("value")
            .map(|value| value.as_u64().unwrap()),
        overridden: serde_json::to_value(&record.overrides).unwrap()["outgoing_message"].as_u64(),
        own: record.stored_archive().and_then(own),
        kept: older
            .map(|release| (release.version.parse().unwrap(), own(&release.sha256)))
            .collect(),
    }
}

/// No file is there that should not be, and none is missing.
fn check_files(folder: &Path, model: &Model, records: &[Record], what: &str) {
    let expected = |name: &str| {
        matches!(
            name,
            "plugins.sqlite"
                | "plugins.sqlite-wal"
                | "plugins.sqlite-shm"
                | "owner.lock"
                | "manager.lock"
                | "archives"
                | "operations"
                | "incoming"
        )
    };
    for name in names(folder).into_iter().filter(|name| !expected(name)) {
        let id: InstallationId = name
            .parse()
            .unwrap_or_else(|_| panic!("{what}: stray {name}"));
        let inside = names(&folder.join(&name));
        match records.iter().find(|record| record.id == id) {
            Some(record) => check_releases(folder, record, &inside, what),
            None => assert!(
                model.kept.contains(&id)
                    && inside.iter().all(|name| name == "data" || name == "logs"),
                "{what}: {id} is removed and there is {inside:?}"
            ),
        }
    }
    for empty in ["operations", "incoming"] {
        let inside = names(&folder.join(empty));
        assert!(inside.is_empty(), "{what}: {empty}: {inside:?}");
    }
    let archives = names(&folder.join("archives"));
    let needed: BTreeSet<String> = records
        .iter()
        .flat_map(|record| &record.releases)
        .map(|release| format!("{}.zip", release.sha256))
        .collect();
    assert!(
        archives.iter().eq(&needed),
        "{what}: {archives:?}, not {needed:?}"
    );
}

fn check_releases(folder: &Path, record: &Record, inside: &[String], what: &str) {
    let id = record.id;
    let current = record.stored_archive();
    let current = current.unwrap_or_else(|| panic!("{what}: external {id} has a folder"));
    for name in inside {
        assert!(
            ["releases", "staging", "data", "logs"].contains(&name.as_str()),
            "{what}: stray {name} of {id}"
        );
    }
    let root = folder.join(id.to_string());
    let staging = names(&root.join("staging"));
    assert!(staging.is_empty(), "{what}: staging of {id}: {staging:?}");
    let releases = names(&root.join("releases"));
    assert_eq!(
        record.releases[0].sha256, current,
        "{what}: {id} runs from another release"
    );
    let kept: BTreeSet<&str> = (record.releases.iter())
        .map(|release| &*release.sha256)
        .collect();
    assert!(
        releases.iter().eq(&kept),
        "{what}: {id} has {releases:?}, not {kept:?}"
    );
    assert!(kept.len() <= driver::RELEASES, "{what}: {id} has {kept:?}");
    for release in &releases {
        let release = root.join("releases").join(release);
        assert!(
            release.join(".complete").is_file(),
            "{what}: half {}",
            release.display()
        );
    }
    let release = driver::release(folder, record);
    let version = fs::read_to_string(release.join("assets/version.txt")).unwrap();
    assert_eq!(version, record.manifest.version, "{what}: {id}");
}

/// Every plugin that is wanted active comes up, and is told what is stored if it may have been told
/// something else.
fn boot(manager: &Manager, records: &[Record], what: &str) {
    let listener = manager.host().listen("127.0.0.1:0").unwrap();
    let report = manager.boot(LONG).unwrap();
    let wanted = |mode| {
        let wanted =
            |record: &&Record| record.mode() == mode && record.active_state == ActiveState::Active;
        let ids = records.iter().filter(wanted).map(|record| record.id);
        ids.collect::<Vec<_>>()
    };
    assert!(report.failed.is_empty(), "{what}: {report:?}");
    assert_eq!(report.active, wanted(PluginMode::Supervised), "{what}");
    assert_eq!(report.awaited, wanted(PluginMode::External), "{what}");
    for id in report.active {
        let told = format!("{what}: {id} to be told its configuration again");
        let unsettled = || {
            manager
                .get(id)
                .unwrap()
                .record()
                .pending_configuration
                .clone()
        };
        wait_until(&told, || unsettled().is_none());
    }
    drop(listener);
}
