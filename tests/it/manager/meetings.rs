//! Many operations at once on a few installations, whatever they are: each has an outcome that it may
//! have, and what is stored, what is on disk and what runs are of one mind in the end.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use plugin_runner::store::{MemoryStore, Overrides, Store};
use plugin_runner::{ActiveState, Error, ErrorKind, InstallationId, ReportedState};
use serde_json::{Value, json};

use super::{Managed, object, settings};
use crate::random::Random;
#[cfg(feature = "sqlite")]
use crate::support::host::{TestHost, active};
use crate::support::plugin::call;
use crate::support::{LONG, TestDir};

const THREADS: u64 = 4;
const ROUNDS: u64 = 40;
const PLUGINS: usize = 3;

/// What may come of an operation that others come in the way of.
fn is_expected(error: &Error) -> bool {
    match error {
        // Removed by another.
        Error::NotInstalled(_)
        | Error::NotLoaded(_)
        // Stopped by another, not started, or seen while a new version was on trial.
        | Error::State { .. }
        | Error::Disconnected(_) => true,
        error => matches!(
            error.kind(),
            ErrorKind::RolledBack | ErrorKind::RollbackFailed | ErrorKind::ConfigurationUncertain
        ),
    }
}

fn operate(managed: &Managed, id: InstallationId, packages: &[Vec<u8>], random: &mut Random) {
    let (what, result) = match random.below(11) {
        0 | 1 => ("activate", managed.activate(id, LONG).map(drop)),
        2 => ("request", managed.request_activation(id).map(drop)),
        3 => ("deactivate", managed.deactivate(id, LONG).map(drop)),
        4 => {
            let package = packages[random.below(packages.len())].clone();
            let update = managed.update(id, package);
            ("update", update.map(drop))
        }
        5 => {
            let proposal = object(json!({"number": random.below(1_000)}));
            let configured = managed.configure(id, proposal);
            ("configure", configured.map(drop))
        }
        6 => ("restart", managed.restart(id, LONG).map(drop)),
        7 => {
            let number = random.below(1_000).to_string();
            let overrides = Overrides::default().environment([("NUMBER", number)]);
            let set = managed.set_overrides(id, overrides);
            ("set_overrides", set.map(drop))
        }
        8 | 9 => match managed.rollback(id, None) {
            // It has no other version yet.
            Err(error) if error.kind() == ErrorKind::UnknownVersion => return,
            back => ("rollback", back.map(drop)),
        },
        _ => ("boot", managed.boot(LONG).map(drop)),
    };
    if let Err(error) = result {
        assert!(is_expected(&error), "{what}: {error}");
    }
}

#[test]
fn operations_that_meet_leave_everything_of_one_mind() {
    operations_meet(Arc::new(MemoryStore::default()));
}

#[cfg(feature = "sqlite")]
#[test]
fn operations_that_meet_in_a_database_leave_everything_of_one_mind() {
    let folder = TestDir::new("meetings-database");
    let store = plugin_runner::store::SqliteStore::open(folder.path()).unwrap();
    operations_meet(Arc::new(store));
}

fn operations_meet(store: Arc<dyn Store>) {
    let host = TestHost::with("meetings", |setup| {
        // None of these ends is a crash.
        setup.policy(|policy| policy.crash_threshold(Duration::ZERO));
        setup.configure(|builder| builder.store(store));
    });
    let managed = Managed::of(host, settings());
    let mut packages = ["1", "2", "3"]
        .map(|version| managed.package(version, &["alone"]))
        .to_vec();
    // One that never comes up.
    packages.push(managed.package("4", &["alone", "exit-at", "start", "1"]));
    let plugins: [Mutex<InstallationId>; PLUGINS] =
        std::array::from_fn(|_| Mutex::new(managed.installed(packages[0].clone())));
    thread::scope(|scope| {
        for seed in 1..=THREADS {
            let (managed, packages) = (&managed, &packages);
            let plugins = &plugins;
            scope.spawn(move || {
                let mut random = Random::new(seed, 0);
                for _ in 0..ROUNDS {
                    let place = &plugins[random.below(PLUGINS)];
                    let id = *place.lock();
                    if random.one_in(12) {
                        match managed.remove(id) {
                            Ok(_) => *place.lock() = managed.installed(packages[0].clone()),
                            Err(Error::NotInstalled(_)) => {}
                            Err(error) => panic!("remove: {error}"),
                        }
                    } else {
                        operate(managed, id, packages, &mut random);
                    }
                }
            });
        }
    });
    let installed = managed.list().unwrap();
    assert_eq!(installed.len(), PLUGINS);
    for shown in &installed {
        let id = shown.id();
        assert!(plugins.iter().any(|place| *place.lock() == id));
        managed.lock(id).expect_one_at_a_time();
        match shown.record().active_state {
            ActiveState::Inactive => {
                assert!(!managed.lock(id).is_held(), "it runs, and is not wanted");
                assert_eq!(shown.reported_state(), ReportedState::Inactive);
            }
            // Put in place while it was stopped, when nothing is tried.
            ActiveState::Active if shown.manifest().version == "4" => {
                let session = managed.session(id);
                let error = session.wait_for(ReportedState::Active, LONG);
                assert!(error.is_err(), "what always exits is active");
            }
            ActiveState::Active => {
                let session = managed.session(id);
                active(&session);
                assert_eq!(managed.answering_version(id), shown.manifest().version);
                let asked = call(&session, "configuration", &json!({})).unwrap();
                let stored = managed.configuration(id).unwrap();
                assert_eq!(asked["configuration"], Value::from(stored));
                // From its next start on.
                managed.restart(id, LONG).unwrap();
                let own = serde_json::to_value(&shown.record().overrides).unwrap();
                assert_eq!(managed.variable(id, "NUMBER"), own["environment"][0][1]);
            }
        }
    }
    managed.expect_nothing_left_over();
    for shown in installed {
        managed.remove(shown.id()).unwrap();
    }
    managed.expect_nothing_at_all();
}
