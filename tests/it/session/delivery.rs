//! A publisher that waits until its event is settled everywhere.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use plugin_runner::error::RpcError;
use plugin_runner::report::Delivery;
use plugin_runner::store::Record;
use plugin_runner::{Error, InstallationId, Limits, WeakHost};
use serde_json::json;

use crate::support::assert_matches;
use crate::support::session::{Bench, Plugin, SHORT, connect};
use crate::support::{LONG, wait_until};

const LIKED: &str = "EventPostLiked";

fn consumes(mut record: Record) -> Record {
    record.manifest.events_consumed = vec![LIKED.to_owned()];
    record
}

#[track_caller]
fn publish_and_wait(bench: &Bench, timeout: Duration) -> BTreeMap<InstallationId, Delivery> {
    let (payload, began) = (json!({"post_id": 1}), Instant::now());
    let report = bench
        .host
        .publish_and_wait(LIKED, &payload, timeout)
        .unwrap();
    assert!(began.elapsed() < LONG, "only its timeout woke it");
    report
}

/// At how many plugins this became of it.
fn count(plugins: &BTreeMap<InstallationId, Delivery>, delivery: Delivery) -> usize {
    let deliveries = plugins.values();
    deliveries.filter(|each| **each == delivery).count()
}

/// Publishes without waiting, and returns when the plugin is busy with the event.
#[track_caller]
fn keep_busy(bench: &Bench, plugin: &Plugin) {
    bench.host.publish(LIKED, &json!({"first": true})).unwrap();
    plugin.expect("event");
}

#[test]
fn a_publisher_that_waits_learns_what_became_of_the_event_at_each_plugin() {
    let bench = Bench::with_record(consumes);
    let load = || {
        let session = bench.load(consumes);
        let plugin = connect(&session, "");
        (session, plugin)
    };
    let (accepting, accepts) = load();
    let (refusing, refuses) = load();
    let (denying, denies) = load();
    let (leaving, leaves) = load();
    let (unloaded, unloads) = load();
    let uninterested = bench.load(|record| record);
    let _connected = connect(&uninterested, "");

    thread::scope(|scope| {
        let waiting = scope.spawn(|| publish_and_wait(&bench, LONG));
        let event = accepts.expect("event");
        assert_eq!(event.params, json!({"event": LIKED, "post_id": 1}));
        accepts.reply(&event, json!({"ok": true}));
        refuses.refuse(&refuses.expect("event"), -32000, "handler error: no");
        denies.reply(&denies.expect("event"), json!({"ok": false}));
        leaves.expect("event");
        drop(leaves);
        unloads.expect("event");
        assert!(!waiting.is_finished(), "one has not answered");
        bench.host.unload(unloaded.id()).unwrap();

        let report = waiting.join().unwrap();
        assert_eq!(report.len(), 5);
        for (session, expected) in [
            (&accepting, Some(Delivery::Delivered)),
            (&refusing, Some(Delivery::Failed)),
            (&denying, Some(Delivery::Failed)),
            (&leaving, Some(Delivery::Failed)),
            (&unloaded, Some(Delivery::Failed)),
            (&uninterested, None),
            // It is not connected.
            (&bench.session, None),
        ] {
            assert_eq!(report.get(&session.id()).copied(), expected);
        }
        assert_eq!(count(&report, Delivery::Delivered), 1);
        assert_eq!(count(&report, Delivery::Failed), 4);
    });
    assert_eq!(accepting.counters().events_delivered, 1);
}

#[test]
fn an_event_that_no_plugin_is_there_for_is_not_waited_for() {
    let bench = Bench::with_record(consumes);
    let report = publish_and_wait(&bench, LONG);
    assert_eq!(report, BTreeMap::default());
    let refused = bench.host.publish_and_wait(LIKED, &json!(1), LONG);
    assert_matches!(refused, Err(Error::Encode { .. }));
    bench.host.drain(LONG).unwrap();
    let refused = bench.host.publish_and_wait(LIKED, &json!({}), LONG);
    assert_matches!(refused, Err(Error::ShutDown));
}

#[test]
fn the_end_of_a_connection_wakes_the_publisher_of_an_event_that_was_queued() {
    let bench = Bench::with_record(consumes);
    let plugin = bench.connect();
    keep_busy(&bench, &plugin);
    // Loaded later, and so it receives the next event when that is queued for the first.
    let other = bench.load(consumes);
    let accepts = connect(&other, "");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| publish_and_wait(&bench, LONG));
        accepts.reply(&accepts.expect("event"), json!({"ok": true}));
        drop(plugin);
        let report = waiting.join().unwrap();
        assert_eq!(report.get(&other.id()).copied(), Some(Delivery::Delivered));
        // The latter if its turn came before the end of the connection was seen.
        assert_matches!(
            report.get(&bench.session.id()).copied(),
            Some(Delivery::Dropped | Delivery::Failed)
        );
    });
}

#[test]
fn a_plugin_whose_queue_is_full_is_not_waited_for() {
    let limits = Limits::default().queued_events(1);
    let bench = Bench::with(|builder| builder.limits(limits), consumes);
    let plugin = bench.connect();
    keep_busy(&bench, &plugin);
    bench.host.publish(LIKED, &json!({"second": true})).unwrap();
    let report = publish_and_wait(&bench, LONG);
    assert_eq!(
        report.get(&bench.session.id()).copied(),
        Some(Delivery::Dropped)
    );
}

#[test]
fn after_its_timeout_a_publisher_stops_waiting_and_the_event_is_still_delivered() {
    let bench = Bench::with_record(consumes);
    let plugin = bench.connect();
    let report = publish_and_wait(&bench, SHORT);
    assert_eq!(
        report.get(&bench.session.id()).copied(),
        Some(Delivery::Unanswered)
    );
    let event = plugin.expect("event");
    plugin.reply(&event, json!({"ok": true}));
    wait_until("the delivery is counted", || {
        bench.session.counters().events_delivered == 1
    });
}

/// A host with a method whose handler publishes an event and waits; its timeout is in the params.
fn announcing() -> Bench {
    let host = Arc::new(OnceLock::<WeakHost>::new());
    let own = host.clone();
    let bench = Bench::with(
        move |builder| {
            builder.method("announce", move |_, timeout: Duration| {
                let host = own.get().and_then(WeakHost::upgrade).unwrap();
                let report = host.publish_and_wait(LIKED, &json!({}), timeout);
                let report =
                    report.map_err(|error| RpcError::new(RpcError::INTERNAL, error.to_string()))?;
                Ok(json!({
                    "delivered": count(&report, Delivery::Delivered),
                    "unanswered": count(&report, Delivery::Unanswered),
                }))
            })
        },
        consumes,
    );
    host.set(bench.host.downgrade()).unwrap();
    bench
}

/// Asks for an announcement under the id 1.
fn announce(plugin: &Plugin, timeout: Duration) {
    plugin.ask("1", "announce", &json!(timeout).to_string());
}

#[test]
fn a_handler_may_wait_for_the_plugin_that_called_it() {
    let bench = announcing();
    let plugin = bench.connect();
    announce(&plugin, LONG);
    let event = plugin.expect("event");
    plugin.reply(&event, json!({"ok": true}));
    assert_eq!(plugin.answer("1")["result"]["delivered"], 1);
}

#[test]
fn a_plugin_that_waits_for_its_own_call_first_keeps_the_handler_to_its_timeout() {
    let bench = announcing();
    let plugin = bench.connect();
    announce(&plugin, SHORT);
    // Only now does it look at the event.
    assert_eq!(plugin.answer("1")["result"]["unanswered"], 1);
    let event = plugin.expect("event");
    plugin.reply(&event, json!({"ok": true}));
    // Nor does one that calls from its handler of an event wait for ever.
    keep_busy(&bench, &plugin);
    announce(&plugin, SHORT);
    assert_eq!(plugin.answer("1")["result"]["unanswered"], 1);
}
