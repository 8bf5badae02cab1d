//! What is installed, updated, configured and removed by a manager, and what of it is kept meanwhile.

use std::fs;

use plugin_runner::ReportedState::{Active, Connecting, Inactive, Starting, Stopping};
use plugin_runner::protocol::Transport;
use plugin_runner::store::Overrides;
use plugin_runner::{ErrorKind, InstallationId};
use serde_json::{Value, json};

use super::place::Place;
use crate::manager::{Managed, settings};
use crate::support::plugin::{TRANSPORTS, call};
use crate::support::{LONG, failed, names, object, wait_until};

/// Each start leaves a line in this file of its data.
const STARTS: &[&str] = &["alone", "write-file", "starts"];

fn managed(place: &Place) -> Managed {
    Managed::of(place.host(), settings())
}

#[track_caller]
fn starts(place: &Place, managed: &Managed, id: InstallationId) -> usize {
    let file = place.data(&managed.host, id).join("starts");
    fs::read_to_string(file).unwrap().lines().count()
}

/// What the plugin gets when it asks for its configuration.
#[track_caller]
fn asked(managed: &Managed, id: InstallationId) -> Value {
    let answer = call(&managed.session(id), "configuration", &json!({})).unwrap();
    answer["configuration"].clone()
}

pub(super) fn what_a_plugin_has_is_kept_through_restarts_and_updates(place: &Place) {
    for transport in TRANSPORTS {
        let managed = managed(place);
        let package = |version| managed.package_of("scripted", version, transport, STARTS);
        let id = managed.running(package("1"));
        let own = Overrides::default().environment([("OWN_NAME", "a 'b' $(c)\n\"d\"")]);
        managed.set_overrides(id, own).unwrap();
        let configuration = json!({"channel": "news"});
        managed
            .configure(id, object(configuration.clone()))
            .unwrap();
        managed.write_own_file(id, "own.txt", "kept");
        let expect_all = |version: &str, started: usize| {
            assert_eq!(managed.answering_version(id), version);
            assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("kept"));
            assert_eq!(asked(&managed, id), configuration);
            assert_eq!(managed.variable(id, "OWN_NAME"), "a 'b' $(c)\n\"d\"");
            assert_eq!(starts(place, &managed, id), started);
        };
        let mut events = managed.host.events();
        managed.restart(id, LONG).unwrap();
        events.expect(id, &[Stopping, Inactive, Starting, Connecting, Active]);
        expect_all("1", 2);
        let updated = managed.update(id, package("2")).unwrap();
        assert_eq!(updated.installation.reported_state(), Active);
        expect_all("2", 3);
        // Updated while it is inactive, it is the new one at its next start.
        managed.deactivate(id, LONG).unwrap();
        managed.update(id, package("3")).unwrap();
        managed.activate(id, LONG).unwrap();
        expect_all("3", 4);
        // And back again, to what was removed meanwhile.
        managed.update(id, package("1")).unwrap();
        expect_all("1", 5);
        let releases = names(&place.releases(&managed.host, id));
        // What is not kept any more goes from a sprite with the next version that comes there.
        assert!((2..=3).contains(&releases.len()), "{releases:?}");
        place.lock(&managed.host, id).expect_one_at_a_time();
        place.expect_one_at_a_time(&managed.host);
    }
}

pub(super) fn a_version_that_fails_gives_way_to_the_one_before(place: &Place) {
    let managed = managed(place);
    let package = |version, arguments: &[&str]| {
        managed.package_of("scripted", version, Transport::WebSocket, arguments)
    };
    let id = managed.running(package("1", STARTS));
    managed.write_own_file(id, "own.txt", "kept");
    let failing = package("2", &["alone", "exit-at", "start", "7"]);
    let error = failed(ErrorKind::RolledBack, managed.update(id, failing));
    assert!(error.to_string().contains("exit status 7"), "{error}");
    assert_eq!(managed.answering_version(id), "1");
    assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("kept"));
    // The same version may come again, and be better.
    managed.update(id, package("2", STARTS)).unwrap();
    assert_eq!(managed.answering_version(id), "2");
    assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("kept"));
    assert_eq!(starts(place, &managed, id), 3);
    place.lock(&managed.host, id).expect_one_at_a_time();
}

pub(super) fn a_removed_plugin_goes_with_all_it_had(place: &Place) {
    let managed = managed(place);
    for transport in TRANSPORTS {
        let package = managed.package_of(transport.as_str(), "1", transport, STARTS);
        let id = managed.running(package);
        let process = managed.host.lifelines.next();
        let (data, releases) = (
            place.data(&managed.host, id),
            place.releases(&managed.host, id),
        );
        assert!(data.exists() && releases.exists());
        managed.remove(id).unwrap();
        process.expect_end();
        wait_until("its files to be gone", || {
            !data.exists() && !releases.exists()
        });
    }
    assert!(managed.list().unwrap().is_empty());
}

pub(super) fn a_plugin_goes_back_to_its_files_and_forward_again(place: &Place) {
    let managed = managed(place);
    let package = |version, arguments: &[&str]| {
        managed.package_of("scripted", version, Transport::WebSocket, arguments)
    };
    let id = managed.running(package("1", STARTS));
    managed.write_own_file(id, "own.txt", "from 1");
    managed.update(id, package("2", STARTS)).unwrap();
    managed.write_own_file(id, "own.txt", "from 2");
    // One that fails costs neither.
    let failing = package("3", &["alone", "exit-at", "start", "7"]);
    failed(ErrorKind::RolledBack, managed.update(id, failing));
    for version in ["1", "2", "1"] {
        let report = managed.rollback(id, None).unwrap();
        assert_eq!(report.installation.reported_state(), Active);
        assert_eq!(managed.answering_version(id), version);
        let own = managed.own_file(id, "own.txt");
        assert_eq!(own, Some(format!("from {version}")));
    }
    // On from there.
    managed.update(id, package("4", STARTS)).unwrap();
    assert_eq!(managed.own_file(id, "own.txt").as_deref(), Some("from 1"));
    place.lock(&managed.host, id).expect_one_at_a_time();
    place.expect_one_at_a_time(&managed.host);
}
