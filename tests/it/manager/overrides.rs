//! A plugin's own settings, and what the embedder keeps with it: stored whole or not at all, whatever else
//! is done to the plugin meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use plugin_runner::ReportedState::{Active, Inactive};
use plugin_runner::manager::PackageSource;
use plugin_runner::store::Overrides;
use plugin_runner::{Health, InstallationId, ProcessLimits};
use serde_json::{Value, json};

use super::store::{FailingStore, Step};
use super::{Managed, object, settings};
use crate::support::LONG;
use crate::support::host::active;
use crate::support::peer::Peer;
use crate::support::plugin::{TRANSPORTS, call, manifest};

impl Managed {
    /// What the process has of a variable.
    #[track_caller]
    pub(crate) fn variable(&self, id: InstallationId, name: &str) -> Value {
        let described = call(&self.session(id), "describe", &json!({})).unwrap();
        described["environment"][name].clone()
    }

    #[track_caller]
    fn stored_overrides(&self, id: InstallationId) -> Overrides {
        self.store.get(id).unwrap().unwrap().overrides
    }
}

fn named(value: &str) -> Overrides {
    Overrides::default().environment([("OWN_NAME", value)])
}

#[test]
fn a_running_plugin_has_its_new_settings_at_its_next_start() {
    for transport in TRANSPORTS {
        let managed = Managed::new("overrides");
        let package = managed.package_of("scripted", "1", transport, &["alone"]);
        let id = managed.running(package);
        let session = managed.session(id);
        let limits = ProcessLimits::default().open_files(123);
        let own = named("first")
            .process_limits(limits)
            .outbound_message(2_000);
        let shown = managed.set_overrides(id, own.clone()).unwrap();
        assert_eq!(
            (shown.reported_state(), &shown.record().overrides),
            (Active, &own)
        );
        assert_eq!(managed.variable(id, "OWN_NAME"), Value::Null, "too soon");
        managed.restart(id, LONG).unwrap();
        assert_eq!(managed.variable(id, "OWN_NAME"), "first");
        let script = json!({"script": "test $(ulimit -n) = 123"});
        call(&session, "shell", &script).unwrap();
        let large = json!({"line": "x".repeat(2_000)});
        let error = call(&session, "log", &large).unwrap_err();
        assert!(error.to_string().contains("2000"), "{error}");
        // Whole: what is not named again is gone, and inactive it is fine as well.
        managed.deactivate(id, LONG).unwrap();
        let shown = managed.set_overrides(id, named("second")).unwrap();
        assert_eq!(shown.reported_state(), Inactive);
        managed.activate(id, LONG).unwrap();
        assert_eq!(managed.variable(id, "OWN_NAME"), "second");
        call(&session, "log", &large).unwrap();
        call(&session, "shell", &script).unwrap_err();
        managed.lock(id).expect_one_at_a_time();
    }
}

#[test]
fn settings_that_cannot_work_are_refused_by_name_and_change_nothing() {
    let managed = Managed::new("bad-overrides");
    let id = managed.installed(managed.package("1", &[]));
    managed.set_overrides(id, named("good")).unwrap();
    let variable = |name: &str, value: &str| Overrides::default().environment([(name, value)]);
    let health = Health::default().timeout(Duration::ZERO);
    for (bad, name) in [
        (variable("", "hush"), "environment"),
        (variable("A=B", "hush"), "environment"),
        (variable("A\0", "hush"), "environment"),
        (variable("A", "hush\0"), "environment"),
        (variable("STORYDEN_RPC_URL", "hush"), "environment"),
        (variable("PLUGIN_DATA_DIR", "hush"), "environment"),
        (Overrides::default().outbound_message(0), "outbound_message"),
        (Overrides::default().health(health), "health.timeout"),
        (
            Overrides::default().process_limits(ProcessLimits::default().nice(20)),
            "nice",
        ),
    ] {
        let error = managed.set_overrides(id, bad).unwrap_err().to_string();
        assert!(error.starts_with(&format!("setting {name}: ")), "{error}");
        assert!(!error.contains("hush"), "{error}");
        assert_eq!(managed.stored_overrides(id), named("good"));
    }
}

#[test]
fn settings_are_not_lost_to_a_configuration_that_the_plugin_is_slow_to_accept() {
    let managed = Managed::new("overrides-meet");
    let (installed, token) = managed.install_external(manifest("outside")).unwrap();
    let id = installed.id();
    let target = format!("/rpc?token={}", token.expose());
    let mut peer = Peer::connect(managed.host.address(), &target);
    active(&managed.session(id));
    let proposal = object(json!({"channel": "new"}));
    thread::scope(|scope| {
        let configuring = scope.spawn(|| managed.configure(id, proposal.clone()));
        let asked = peer.receive();
        assert_eq!(asked["method"], "configure");
        // The plugin has not answered yet.
        let setting = scope.spawn(|| managed.set_overrides(id, named("kept")));
        let labelling = scope.spawn(|| managed.set_labels(id, labels(&[("team", "red")])));
        thread::yield_now();
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"ok": true}});
        peer.send(answer.to_string());
        configuring.join().unwrap().unwrap();
        setting.join().unwrap().unwrap();
        labelling.join().unwrap().unwrap();
    });
    let record = managed.store.get(id).unwrap().unwrap();
    assert_eq!(record.configuration, proposal);
    assert_eq!(record.overrides, named("kept"));
    assert_eq!(record.labels, labels(&[("team", "red")]));
}

#[test]
fn settings_outlast_an_update_and_a_store_that_fails_keeps_the_old_ones() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "overrides-store", settings());
    let id = managed.running(managed.package("1", &[]));
    managed.set_overrides(id, named("kept")).unwrap();
    store.fail(Step::Put, 0);
    managed.set_overrides(id, named("lost")).unwrap_err();
    managed.set_labels(id, labels(&[("a", "b")])).unwrap_err();
    store.mend();
    managed.update(id, managed.package("2", &[])).unwrap();
    assert_eq!(managed.variable(id, "OWN_NAME"), "kept");
    assert_eq!(managed.get(id).unwrap().record().labels, labels(&[]));
    // A record that cannot be read whole is not written over.
    store.damage(
        managed.store.get(id).unwrap().unwrap(),
        "half of it is gone",
    );
    let error = managed.set_overrides(id, named("lost")).unwrap_err();
    assert!(error.to_string().contains("half of it is gone"), "{error}");
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn who_added_a_plugin_and_its_labels_are_kept_from_its_installation_on() {
    let managed = Managed::new("labels");
    let source = PackageSource::bytes(managed.package("1", &[]))
        .added_by("Ada")
        .labels([("team", "red"), ("tier", "1")]);
    let id = managed.install(source).unwrap().id();
    let own = |id| {
        let record = managed.get(id).unwrap().record().clone();
        (record.added_by, record.labels)
    };
    let ada = Some("Ada".to_owned());
    assert_eq!(
        own(id),
        (ada.clone(), labels(&[("team", "red"), ("tier", "1")]))
    );
    // Labels are replaced whole, and who updates a plugin has not added it.
    managed.set_labels(id, [("team", "blue")]).unwrap();
    let source = PackageSource::bytes(managed.package("2", &[]))
        .added_by("Bob")
        .labels([("team", "green")]);
    managed.update_package(id, source).unwrap();
    assert_eq!(own(id), (ada, labels(&[("team", "blue")])));
    let (installed, _) = managed.install_external(manifest("outside")).unwrap();
    managed.set_added_by(installed.id(), "Eve").unwrap();
    assert_eq!(own(installed.id()).0.as_deref(), Some("Eve"));
    managed.set_added_by(installed.id(), None).unwrap();
    assert_eq!(own(installed.id()).0, None);
}

#[test]
fn labels_out_of_bounds_are_refused_by_name_before_anything_is_unpacked() {
    let managed = Managed::new("bad-labels");
    let source = || PackageSource::bytes(managed.package("1", &[]));
    let long = "x".repeat(257);
    let bad = [("Team", "red")];
    let error = managed.install(source().labels(bad)).unwrap_err();
    assert!(error.to_string().contains("Team"), "{error}");
    let error = managed.install(source().added_by(&long)).unwrap_err();
    assert!(error.to_string().contains("added_by"), "{error}");
    managed.expect_nothing_at_all();
    let id = managed.install(source()).unwrap().id();
    let error = managed.set_labels(id, bad).unwrap_err();
    assert!(error.to_string().contains("Team"), "{error}");
    let error = managed.set_added_by(id, &*long).unwrap_err();
    assert!(error.to_string().contains("added_by"), "{error}");
    let record = managed.store.get(id).unwrap().unwrap();
    assert_eq!((record.added_by, record.labels), (None, labels(&[])));
}
