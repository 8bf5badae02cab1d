//! Following what a plugin prints.

use std::io::Write as _;
use std::time::SystemTime;

use plugin_runner::InstallationId;
use plugin_runner::admin::AdminSettings;
use plugin_runner::plugin_log::LogSettings;
use serde_json::json;

use super::{Api, Events, TOKEN};
use crate::manager::{Managed, settings};
use crate::support::LONG;
use crate::support::host::TestHost;
use crate::support::http::connect;
use crate::support::output::OutputLine;
use crate::support::plugin::{call, manifest};

/// What the plugin prints without being asked to.
const UNASKED: [&str; 2] = ["started", "connected"];

impl Api {
    /// A server over a manager whose plugins' logs have room for a few lines in each file.
    fn with_small_logs(test: &'static str, files: usize) -> Self {
        let host = TestHost::with(test, |setup| {
            let log = LogSettings::default().max_file_size(100).keep(files);
            setup.configure(|builder| builder.log_settings(log));
        });
        Self::of(Managed::of(host, settings()), AdminSettings::default())
    }

    fn logs(&self, id: InstallationId, query: &str) -> Events {
        self.events(&format!("/api/plugins/{id}/logs{query}"), &[])
    }

    /// Waits until all that a plugin prints by itself is in its log.
    #[track_caller]
    fn settle(&self) {
        let last = UNASKED[1];
        let is_last = |line: &OutputLine| (line.text == last).then_some(());
        self.managed.host.output.wait_for(last, is_last);
    }

    /// Lets the plugin print lines with these numbers, and waits until they are in its log.
    #[track_caller]
    fn print(&self, id: InstallationId, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            let text = format!("line {number}");
            call(&self.managed.session(id), "log", &json!({ "line": text })).unwrap();
            let is_there = |line: &OutputLine| (line.text == text).then_some(());
            self.managed.host.output.wait_for(&text, is_there);
        }
    }
}

/// The next line that the plugin was asked to print.
#[track_caller]
fn asked(events: &mut Events) -> String {
    loop {
        let line = events.data();
        if !UNASKED.contains(&&*line) {
            return line;
        }
    }
}

#[track_caller]
fn expect_lines(events: &mut Events, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        let line = asked(events);
        assert_eq!(line, format!("line {number}"));
    }
}

#[test]
fn lines_come_from_the_oldest_on_through_rotation_until_the_plugin_is_removed() {
    let api = Api::with_small_logs("admin-logs", 1000);
    let plugin = api.managed.installed(api.managed.package("1", &[]));
    // It has never run.
    let mut early = api.logs(plugin, "");
    api.managed.activate(plugin, LONG).unwrap();
    api.print(plugin, 1..=30);
    api.managed.deactivate(plugin, LONG).unwrap();
    let mut late = api.logs(plugin, "");
    expect_lines(&mut early, 1..=30);
    expect_lines(&mut late, 1..=30);
    let mut tail = api.logs(plugin, "?tail=3");
    expect_lines(&mut tail, 28..=30);
    let mut new = api.logs(plugin, "?tail=0");
    api.managed.activate(plugin, LONG).unwrap();
    api.print(plugin, 31..=40);
    for events in [&mut early, &mut late, &mut tail, &mut new] {
        expect_lines(events, 31..=40);
    }
    api.managed.remove(plugin).unwrap();
    for mut events in [early, late, tail, new] {
        let end = events.next().unwrap();
        assert_eq!(end.name.as_deref(), Some("end"));
        assert_eq!(end.data, "the plugin was removed");
        assert_eq!(events.next(), None);
    }
    let answer = api.get(&format!("/api/plugins/{plugin}/logs"));
    assert_eq!(answer.problem(404).0, "not_installed");
    api.end();
}

#[test]
fn a_log_that_is_not_followed_ends_where_it_does() {
    let api = Api::with_small_logs("admin-logs-whole", 10);
    let plugin = api.managed.running(api.managed.package("1", &[]));
    api.settle();
    api.print(plugin, 1..=30);
    let mut events = api.logs(plugin, "?follow=false&tail=3");
    expect_lines(&mut events, 28..=30);
    let end = events.next().unwrap();
    assert_eq!(end.name.as_deref(), Some("end"));
    assert_eq!(end.data, "that is all so far");
    assert_eq!(events.next(), None);
    let (kind, _) = api
        .get(&format!("/api/plugins/{plugin}/logs?follow=1"))
        .problem(400);
    assert_eq!(kind, "invalid_input");
    api.end();
}

#[test]
fn lines_have_times_and_a_stream_begins_at_one() {
    let begun = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let api = Api::with_small_logs("admin-log-times", 1000);
    let plugin = api.managed.running(api.managed.package("1", &[]));
    api.settle();
    api.print(plugin, 1..=30);
    let mut events = api.logs(plugin, &format!("?times=true&since={begun}"));
    let mut last = begun.clone();
    for expected in UNASKED
        .map(str::to_owned)
        .into_iter()
        .chain((1..=30).map(|number| format!("line {number}")))
    {
        let printed: serde_json::Value = serde_json::from_str(&events.data()).unwrap();
        assert_eq!(printed["line"], expected);
        let at = printed["at"].as_str().unwrap().to_owned();
        assert!(at >= last, "{at} after {last}");
        last = at;
    }
    assert!(*last <= *humantime::format_rfc3339_millis(SystemTime::now()).to_string());
    let mut later = api.logs(plugin, "?since=2999-01-01T00:00:00Z");
    api.print(plugin, 31..=31);
    expect_lines(&mut later, 31..=31);
    drop((events, later));
    for (query, named) in [
        ("since=10m", "UTC"),
        ("since=", "UTC"),
        ("since=2026-02-21T11:50:22Z&tail=1", "tail"),
        ("times=1", "times"),
    ] {
        let (kind, detail) = api
            .get(&format!("/api/plugins/{plugin}/logs?{query}"))
            .problem(400);
        assert_eq!(kind, "invalid_input");
        assert!(detail.contains(named), "{detail}");
    }
    api.end();
}

#[test]
fn a_comment_comes_when_nothing_else_does() {
    let api = Api::new("admin-log-quiet");
    let plugin = api.managed.installed(api.managed.package("1", &[]));
    let mut events = api.logs(plugin, "");
    while events.line().unwrap() != ": " {}
    drop(events);
    api.end();
}

#[test]
fn a_stream_goes_on_behind_an_id_through_rotation() {
    let api = Api::with_small_logs("admin-log-resume", 1000);
    let plugin = api.managed.running(api.managed.package("1", &[]));
    api.settle();
    let mut events = api.logs(plugin, "?tail=0");
    // There is a place to come back to before anything comes.
    let line = events.line().unwrap();
    let begin = line.strip_prefix("id: ").expect("an id").to_owned();
    api.print(plugin, 1..=20);
    let mut places = vec![begin];
    while places.len() <= 20 {
        let event = events.log_line();
        if !UNASKED.contains(&&*event.data) {
            assert_eq!(event.data, format!("line {}", places.len()));
            places.push(event.id.unwrap());
        }
    }
    drop(events);
    api.print(plugin, 21..=30);
    let path = format!("/api/plugins/{plugin}/logs");
    for (place, next) in places.iter().zip(1..) {
        let mut events = api.logs(plugin, &format!("?after={place}"));
        expect_lines(&mut events, next..=30);
    }
    // What a browser sends, whose URL is as it was.
    let header = [("Last-Event-ID", &*places[15])];
    for query in [
        String::new(),
        "?tail=1".to_owned(),
        format!("?after={}", places[2]),
    ] {
        let mut events = api.events(&format!("{path}{query}"), &header);
        expect_lines(&mut events, 16..=30);
    }
    for place in ["", "1", "-1", "a b", &"x".repeat(5000)] {
        let answer = api.send("GET", &path, &[("Last-Event-ID", place)], b"");
        let other = api.get(&format!("{path}?after={}", place.replace(' ', "+")));
        for answer in [answer, other] {
            assert_eq!(answer.problem(400).0, "invalid_input", "{place}");
        }
    }
    api.end();
}

#[test]
fn lines_that_are_gone_are_told_of() {
    let api = Api::with_small_logs("admin-log-gap", 1);
    let plugin = api.managed.running(api.managed.package("1", &[]));
    let mut events = api.logs(plugin, "");
    api.print(plugin, 1..=1);
    let place = loop {
        let event = events.next().unwrap();
        if event.data == "line 1" {
            break event.id.unwrap();
        }
    };
    drop(events);
    api.print(plugin, 2..=60);
    let mut events = api.logs(plugin, &format!("?after={place}"));
    let gap = events.next().unwrap();
    assert_eq!(gap.name.as_deref(), Some("gap"));
    let missing: serde_json::Value = serde_json::from_str(&gap.data).unwrap();
    let bytes = missing["bytes"].as_u64().unwrap();
    assert!((100..600).contains(&bytes), "{missing}");
    let first = events.data();
    let first: u32 = first.strip_prefix("line ").unwrap().parse().unwrap();
    assert!(first > 40, "{first}");
    expect_lines(&mut events, first + 1..=60);
    drop(events);
    // A client that has read of the gap does not read of it again.
    let mut events = api.logs(plugin, &format!("?after={}", gap.id.unwrap()));
    expect_lines(&mut events, first..=60);
    drop(events);
    api.end();
}

#[test]
fn a_line_is_one_event_whatever_is_in_it() {
    let api = Api::new("admin-log-odd");
    let plugin = api.managed.running(api.managed.package("1", &[]));
    api.settle();
    let mut events = api.logs(plugin, "?tail=0");
    for (text, data) in [
        ("event: end", "event: end"),
        (" a: b", " a: b"),
        ("", ""),
        ("data\u{0}", "data\u{0}"),
        // Where a client would see the end of a line, it is told of one.
        ("one\rdata: two", "one\ndata: two"),
    ] {
        call(
            &api.managed.session(plugin),
            "log",
            &json!({ "line": text }),
        )
        .unwrap();
        assert_eq!(asked(&mut events), data);
    }
    drop(events);
    api.end();
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let api = Api::new("admin-log-wrong");
    let plugin = api.managed.installed(api.managed.package("1", &[]));
    let path = format!("/api/plugins/{plugin}/logs");
    for tail in ["", "-1", "ten", "1.5", "99999999999999999999999"] {
        let answer = api.get(&format!("{path}?tail={tail}"));
        let (kind, detail) = answer.problem(400);
        assert_eq!(kind, "invalid_input");
        assert!(detail.contains("tail"), "{detail}");
    }
    let (outside, _) = api.managed.install_external(manifest("outside")).unwrap();
    let answer = api.get(&format!("/api/plugins/{}/logs", outside.id()));
    assert_eq!(answer.problem(400).0, "unsupported");
    let answer = api.get("/api/plugins/d5k1vvc5o2dtjn9ct4bg/logs");
    assert_eq!(answer.problem(404).0, "not_installed");
    let head = api.send("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.text()), (200, String::new()));
    let content_type = head.header("Content-Type");
    assert_eq!(content_type, Some("text/event-stream; charset=utf-8"));
    assert_eq!(head.header("Cache-Control"), Some("no-cache"));
    api.end();
}

#[test]
fn a_stop_of_the_server_ends_streams() {
    let api = Api::new("admin-log-stop");
    let plugin = api.managed.installed(api.managed.package("1", &[]));
    let mut events = api.logs(plugin, "");
    assert_eq!(api.server.stop(LONG), 0);
    assert_eq!(events.next(), None, "it has no end");
    api.end();
}

#[test]
fn readers_that_are_stuck_hold_up_nobody() {
    let api = Api::new("admin-log-stuck");
    let plugin = api
        .managed
        .running(api.managed.package("1", &["flood-output"]));
    let request = format!(
        "GET /api/plugins/{plugin}/logs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    let stuck: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = connect(api.server.address());
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut reader = api.logs(plugin, "?tail=1");
    for _ in 0..10_000 {
        let line = reader.data();
        let is_known = UNASKED.contains(&&*line) || line.starts_with("flood ");
        assert!(is_known, "{line}");
    }
    assert_eq!(api.shown(plugin)["status"]["active_state"], "active");
    drop(reader);
    api.end();
    drop(stuck);
}
