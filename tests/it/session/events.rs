//! Events: who gets them, in which order, and what becomes of those that cannot be delivered.

use std::time::Duration;

use plugin_runner::report::PublishReport;
use plugin_runner::store::Record;
use plugin_runner::{ActiveState, Error, Limits, ReportedState, Timeouts};
use serde_json::{Value, json};

use crate::support::assert_matches;
use crate::support::session::{Bench, Plugin, Request, connect, ping, start_ping};

const LIKED: &str = "EventPostLiked";
const PUBLISHED: &str = "EventThreadPublished";

/// Makes a plugin consume events; one name is listed twice.
fn consumes(mut record: Record) -> Record {
    record.manifest.events_consumed = [LIKED, PUBLISHED, LIKED].map(str::to_owned).into();
    record
}

fn limited(limits: Limits) -> Bench {
    Bench::with(|builder| builder.limits(limits), consumes)
}

#[track_caller]
fn publish(bench: &Bench, number: usize) -> PublishReport {
    let payload = json!({"post_id": number, "root_post_id": number});
    bench.host.publish(LIKED, &payload).unwrap()
}

#[track_caller]
fn assert_published(bench: &Bench, number: usize, queued: usize, dropped: usize) {
    let report = publish(bench, number);
    assert_eq!(
        (report.queued, report.dropped),
        (queued, dropped),
        "event {number}"
    );
}

#[track_caller]
fn next_event(plugin: &Plugin, number: usize) -> Request {
    let request = plugin.expect("event");
    let expected = json!({"event": LIKED, "post_id": number, "root_post_id": number});
    assert_eq!(request.params, expected);
    request
}

#[track_caller]
fn accept_event(plugin: &Plugin, number: usize) {
    let request = next_event(plugin, number);
    plugin.reply(&request, json!({"ok": true}));
}

#[test]
fn events_go_to_those_that_consume_them_and_once() {
    let bench = Bench::with_record(consumes);
    let (both, none) = (bench.load(consumes), bench.load(|record| record));
    let (first, second) = (bench.connect(), connect(&both, ""));
    let uninterested = connect(&none, "");
    assert_published(&bench, 1, 2, 0);
    accept_event(&first, 1);
    accept_event(&second, 1);
    // Listed twice, and sent once.
    assert_published(&bench, 2, 2, 0);
    accept_event(&first, 2);
    accept_event(&second, 2);

    let report = bench
        .host
        .publish("EventNodeCreated", &json!({"id": 1}))
        .unwrap();
    assert_eq!(report, PublishReport::default());
    for (session, plugin) in [
        (&bench.session, &first),
        (&both, &second),
        (&none, &uninterested),
    ] {
        ping(session, plugin);
        assert!(plugin.has_nothing_more());
    }
    assert_eq!(none.counters().events_delivered, 0);
}

#[test]
fn an_event_is_the_name_beside_its_fields_and_nothing_else() {
    let bench = Bench::with_record(consumes);
    let plugin = bench.connect();
    // What the payload says of the name does not count.
    let payload = json!({"event": "other", "id": "d5k2jq45o2dtjn9ct5rg"});
    bench.host.publish(PUBLISHED, &payload).unwrap();
    let request = plugin.expect("event");
    assert_eq!(
        request.params,
        json!({"event": PUBLISHED, "id": "d5k2jq45o2dtjn9ct5rg"})
    );
    assert_eq!(request.message.as_object().unwrap().len(), 4);
    plugin.reply(&request, json!({"ok": true}));
}

#[test]
fn events_come_in_order_and_one_at_a_time() {
    let bench = Bench::with_record(consumes);
    let plugin = bench.connect();
    for number in 0..20 {
        assert_published(&bench, number, 1, 0);
    }
    for number in 0..20 {
        let event = next_event(&plugin, number);
        // While it is not answered, other calls come and go, and no other event comes.
        bench.ping(&plugin);
        assert!(plugin.has_nothing_more());
        plugin.reply(&event, json!({"ok": true}));
    }
    // The last is counted when the next arrives.
    assert_published(&bench, 20, 1, 0);
    let _last = next_event(&plugin, 20);
    let counters = bench.session.counters();
    assert_eq!((counters.events_delivered, counters.events_failed), (20, 0));
}

#[test]
fn over_the_length_of_the_queue_events_are_dropped_counted_and_reported() {
    let bench = limited(Limits::default().queued_events(2));
    let plugin = bench.connect();
    assert_published(&bench, 0, 1, 0);
    // In flight, so the queue is empty again.
    let first = next_event(&plugin, 0);
    assert_published(&bench, 1, 1, 0);
    assert_published(&bench, 2, 1, 0);
    assert_published(&bench, 3, 0, 1);
    assert_eq!(bench.session.counters().events_dropped, 1);
    // Those that fit are delivered, and there is room again.
    plugin.reply(&first, json!({"ok": true}));
    accept_event(&plugin, 1);
    let second = next_event(&plugin, 2);
    assert_published(&bench, 4, 1, 0);
    plugin.reply(&second, json!({"ok": true}));
    accept_event(&plugin, 4);
}

#[test]
fn over_the_bytes_of_the_queue_events_are_dropped_too() {
    let bench = limited(Limits::default().queued_event_bytes(1000));
    let plugin = bench.connect();
    let sized = |length: usize| json!({"text": "x".repeat(length)});
    assert_published(&bench, 0, 1, 0);
    let first = next_event(&plugin, 0);
    let publish = |length| bench.host.publish(LIKED, &sized(length)).unwrap().dropped;
    assert_eq!(publish(1000), 1, "larger than the whole queue");
    assert_eq!(publish(600), 0);
    assert_eq!(publish(600), 1);
    assert_eq!(publish(100), 0);
    plugin.reply(&first, json!({"ok": true}));
    for length in [600, 100] {
        let event = plugin.expect("event");
        assert_eq!(event.params["text"].as_str().unwrap().len(), length);
        plugin.reply(&event, json!({"ok": true}));
    }
}

#[test]
fn one_plugin_that_does_not_answer_does_not_keep_events_from_another() {
    let bench = Bench::with_record(consumes);
    let other = bench.load(consumes);
    let (silent, plugin) = (bench.connect(), connect(&other, ""));
    for number in 0..5 {
        assert_published(&bench, number, 2, 0);
    }
    next_event(&silent, 0);
    for number in 0..5 {
        accept_event(&plugin, number);
    }
}

#[test]
fn an_event_that_is_not_answered_in_time_makes_way_for_the_next() {
    let timeouts = Timeouts::default().call(Duration::from_millis(50));
    let bench = Bench::with(|builder| builder.timeouts(timeouts), consumes);
    let plugin = bench.connect();
    for number in 0..2 {
        assert_published(&bench, number, 1, 0);
    }
    next_event(&plugin, 0);
    next_event(&plugin, 1);
    let counters = bench.session.counters();
    assert_eq!((counters.events_delivered, counters.events_failed), (0, 1));
}

#[test]
fn an_event_that_the_plugin_refuses_counts_as_failed_and_is_not_sent_again() {
    let bench = Bench::with_record(consumes);
    let plugin = bench.connect();
    for number in 0..4 {
        assert_published(&bench, number, 1, 0);
    }
    let refused = next_event(&plugin, 0);
    plugin.refuse(&refused, -32000, "handler error: no");
    let denied = next_event(&plugin, 1);
    plugin.reply(&denied, json!({"ok": false}));
    let odd = next_event(&plugin, 2);
    plugin.reply(&odd, json!({}));
    next_event(&plugin, 3);
    let counters = bench.session.counters();
    assert_eq!((counters.events_delivered, counters.events_failed), (0, 3));
}

#[test]
fn events_published_while_a_plugin_is_away_are_lost_to_it() {
    let bench = Bench::with_record(consumes);
    // It has not connected yet.
    assert_published(&bench, 0, 0, 0);
    let plugin = bench.connect();
    for number in 1..=10 {
        assert_published(&bench, number, 1, 0);
    }
    next_event(&plugin, 1);
    drop(plugin);
    bench.wait_for(ReportedState::Connecting);
    assert_published(&bench, 11, 0, 0);

    let plugin = bench.connect();
    bench.ping(&plugin);
    assert!(plugin.has_nothing_more());
    assert_published(&bench, 12, 1, 0);
    next_event(&plugin, 12);
    // The one in flight failed; the rest was dropped, or failed as soon as its turn came.
    let counters = bench.session.counters();
    assert_eq!(counters.events_delivered, 0);
    assert_eq!(counters.events_dropped + counters.events_failed, 10);

    bench.set(ActiveState::Inactive);
    assert_published(&bench, 13, 0, 0);
}

#[test]
fn publishing_waits_for_no_plugin() {
    let bench = Bench::with_record(consumes);
    let _never_read = bench.connect_silent();
    // More than the connection takes; the first is stuck in the write.
    let large = json!({"text": "x".repeat(1024 * 1024)});
    for _ in 0..3 {
        assert_eq!(bench.host.publish(LIKED, &large).unwrap().queued, 1);
    }
    // Calls of others are not refused for it either.
    drop(start_ping(&bench.session));
}

#[test]
fn a_payload_that_is_no_object_is_refused() {
    let bench = Bench::with_record(consumes);
    for payload in [json!(null), json!([1]), json!("text")] {
        let error = bench.host.publish(LIKED, &payload).unwrap_err();
        assert_matches!(error, Error::Encode { .. });
    }
    let unit: Value = Value::Null;
    assert!(bench.host.publish("not consumed", &unit).is_err());
}
