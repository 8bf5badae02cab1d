//! The whole life of a plugin, from its archive to its end, over both transports.

use std::fs;

use plugin_runner::ReportedState::{Active, Connecting, Inactive, Starting, Stopping};
use plugin_runner::protocol::method::{Configure, Ping};
use plugin_runner::report::ExitReason;
use plugin_runner::{ActiveState, Error};
use serde_json::{Map, Value, json};

use super::place::{Place, packed, packed_as};
use crate::support::host::active;
use crate::support::plugin::{TRANSPORTS, With as _, call, python};
use crate::support::{LONG, assert_matches};

pub(super) fn a_plugin_lives_from_its_archive_to_its_stop(place: &Place) {
    for transport in TRANSPORTS {
        let host = place.host();
        let record = packed_as(&host, "alive", transport, &["write-file", "starts"]);
        let mut events = host.events();
        let session = host.install(record);
        let id = session.id();
        assert_eq!(session.reported_state(), Inactive);
        assert_eq!(session.started_at(), None);
        for round in 1..=2 {
            session.supervised().unwrap().start().unwrap();
            active(&session);
            events.expect(id, &[Starting, Connecting, Active]);
            assert!(session.started_at().is_some());
            assert_eq!(session.error_message(), None);
            let lifeline = host.lifelines.next();

            let pong = session.call(&Ping {}, LONG).unwrap();
            assert!(pong.pong);
            let params = json!({"round": round, "text": "grüß \" \\ \n \u{2028}"});
            assert_eq!(call(&session, "echo", &params).unwrap()["echo"], params);
            let found = call(&session, "describe", &json!({})).unwrap();
            assert_eq!(found["pid"], lifeline.pid);
            let directory = found["directory"].as_str().unwrap();
            let releases = place.releases(&host, session.id());
            assert!(
                directory.starts_with(&*releases.to_string_lossy()),
                "{directory}"
            );

            let report = session.supervised().unwrap().stop(LONG).unwrap();
            assert!(!report.killed, "{report:?}");
            assert_matches!(
                report.exit,
                Some(ExitReason::Signal(2) | ExitReason::Code(0)),
                "{report:?}"
            );
            events.expect(id, &[Stopping, Inactive]);
            lifeline.expect_end();
            // Its data is still there, from both rounds.
            let starts = place.data(&host, session.id()).join("starts");
            let lines = fs::read_to_string(&starts).unwrap().lines().count();
            assert_eq!(lines, round);
        }
    }
}

pub(super) fn a_record_that_is_wanted_active_starts_at_load(place: &Place) {
    let host = place.host();
    for transport in TRANSPORTS {
        let record = packed(&host, transport, &["behave"])
            .with(|record| record.set_active_state(ActiveState::Active));
        let session = host.install(record);
        active(&session);
        assert_eq!(host.session(session.id()).unwrap().id(), session.id());
    }
    assert_eq!(host.sessions().len(), 2);
}

pub(super) fn a_plugin_hears_its_configuration_and_events_and_asks_for_what_is_stored(
    place: &Place,
) {
    for transport in TRANSPORTS {
        let host = place.host();
        let mut record = packed(&host, transport, &["behave"]);
        record.manifest.events_consumed = vec!["EventThreadPublished".to_owned()];
        let mut stored = Map::new();
        stored.insert("channel".to_owned(), "news".into());
        let session = host.run(record.with(|record| record.configuration.clone_from(&stored)));
        assert!(session.call(&Configure(stored.clone()), LONG).unwrap().ok);
        let asked = call(&session, "configuration", &json!({})).unwrap();
        assert_eq!(asked["configuration"], Value::from(stored));
        for number in 0..10 {
            let payload = json!({"id": format!("{number}")});
            host.publish("EventThreadPublished", &payload).unwrap();
            host.publish("EventThreadDeleted", &payload).unwrap();
        }
        host.output.wait_for_nth("of the tenth event", 9, |line| {
            (line.text == "event EventThreadPublished").then_some(())
        });
        let heard = call(&session, "events", &json!({})).unwrap();
        let ids: Vec<&Value> = heard["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| &event["id"])
            .collect();
        assert_eq!(ids, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    }
}

pub(super) fn python_answers_and_asks_over_stdio(place: &Place) {
    let host = place.host();
    let mut configuration = Map::new();
    configuration.insert("greeting".to_owned(), "grüß dich".into());
    let mut events = host.events();
    let session =
        host.run(python(&host, "python").with(|record| record.configuration = configuration));
    events.expect(session.id(), &[Starting, Connecting, Active]);
    assert!(session.started_at().is_some());

    let pong = session.call(&Ping {}, LONG).unwrap();
    assert_eq!(pong.status.as_deref(), Some("healthy"));
    let params = json!({"text": "a\nb\u{2028}ü\"", "list": [1, 2.5, null]});
    let answer = call(&session, "echo", &params).unwrap();
    assert_eq!(answer["echo"], params);
    let answer = call(&session, "call_back", &json!({})).unwrap();
    assert_eq!(answer["config"], json!({"greeting": "grüß dich"}));
    let refused = call(&session, "dance", &json!({})).unwrap_err();
    assert_matches!(&refused, Error::Rpc(error) if error.code == -32601);
    assert_eq!(session.reported_state(), Active);
}
