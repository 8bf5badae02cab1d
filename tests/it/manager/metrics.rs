//! What Prometheus is told of a host and its plugins.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use plugin_runner::ReportedState::{self, Active, Errored};
use plugin_runner::protocol::Transport;
use plugin_runner::protocol::method::Ping;
use plugin_runner::{InstallationId, Manager};
use serde_json::json;

use super::store::{FailingStore, Step};
use super::{Managed, settings};
use crate::support::plugin::{call, manifest};
use crate::support::{LONG, wait_until};

/// A text that was read strictly: each family is described once, before its series, which stand together.
struct Scrape(HashMap<String, String>);

impl Scrape {
    #[track_caller]
    fn of(manager: &Manager) -> Self {
        Self::read(&manager.metrics())
    }

    #[track_caller]
    fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'));
        let (mut series, mut families) = (HashMap::new(), HashSet::new());
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let help = line.strip_prefix("# HELP plugin_runner_").expect(line);
            let (name, _) = help.split_once(' ').expect("a help text");
            assert!(families.insert(name), "{name} comes twice");
            let kind = lines.next().and_then(|line| {
                let kind = line.strip_prefix("# TYPE plugin_runner_")?;
                kind.strip_prefix(name)?.strip_prefix(' ')
            });
            let kind = kind.unwrap_or_else(|| panic!("{name} has no type"));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let line = line.strip_prefix("plugin_runner_").expect(line);
                let (key, value) = line.rsplit_once(' ').expect(line);
                let end = key.find('{').unwrap_or(key.len());
                let suffixes: &[&str] = match kind {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "counter" | "gauge" => &[""],
                    other => panic!("{name} is a {other}"),
                };
                let suffix = key[..end].strip_prefix(name);
                assert!(
                    suffix.is_some_and(|suffix| suffixes.contains(&suffix)),
                    "{line}"
                );
                value.parse::<f64>().expect(line);
                let earlier = series.insert(key.to_owned(), value.to_owned());
                assert_eq!(earlier, None, "{key} comes twice");
            }
        }
        Self(series)
    }

    /// The value of a series, by its name without the prefix.
    #[track_caller]
    fn value<T: FromStr>(&self, series: &str) -> T {
        let value = self.0.get(series);
        let value = value.unwrap_or_else(|| panic!("no {series} in {:#?}", self.0));
        let Ok(value) = value.parse() else {
            panic!("{series} is {value}");
        };
        value
    }

    #[track_caller]
    fn count(&self, series: &str) -> u64 {
        self.value(series)
    }

    #[track_caller]
    fn seconds(&self, series: &str) -> f64 {
        self.value(series)
    }

    fn of_plugin(&self, family: &str, id: InstallationId, name: &str) -> Option<f64> {
        let series = format!("{family}{{plugin=\"{id}\",name=\"{name}\"}}");
        self.0.get(&series).map(|value| value.parse().unwrap())
    }

    #[track_caller]
    fn expect_state(&self, id: InstallationId, state: ReportedState) {
        let label = format!("{{plugin=\"{id}\"");
        let of_plugin = |series: &&String| {
            series
                .strip_prefix("plugin_state")
                .is_some_and(|rest| rest.starts_with(&label))
        };
        let found: Vec<_> = self.0.keys().filter(of_plugin).collect();
        let state = format!("state=\"{state}\"}}");
        assert!(
            matches!(&*found, [one] if one.ends_with(&state)),
            "{found:?}"
        );
    }

    /// Checks that no counter is lower than before.
    #[track_caller]
    fn expect_not_below(&self, before: &Self) {
        let goes_up = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            let is_plugins = name.starts_with("plugin_");
            let ends = ["_total", "_bucket", "_sum", "_count"];
            !is_plugins && ends.iter().any(|end| name.ends_with(end))
        };
        let counters: Vec<_> = before
            .0
            .iter()
            .filter(|(series, _)| goes_up(series))
            .collect();
        assert!(counters.len() > 50, "only {}", counters.len());
        for (series, _) in counters {
            let (value, earlier) = (self.seconds(series), before.seconds(series));
            assert!(
                value >= earlier,
                "{series} went down from {earlier} to {value}"
            );
        }
    }
}

fn outcome(direction: &str, outcome: &str) -> String {
    format!("calls_total{{direction=\"{direction}\",outcome=\"{outcome}\"}}")
}

fn state(state: ReportedState) -> String {
    format!("sessions{{state=\"{state}\"}}")
}

#[test]
fn calls_are_counted_by_their_ends_and_stay_counted_when_the_plugin_is_gone() {
    let managed = Managed::new("metrics_calls");
    let empty = Scrape::of(&managed);
    assert_eq!(empty.count(&outcome("to_plugin", "ok")), 0);
    assert_eq!(empty.count(&outcome("to_plugin", "timeout")), 0);
    let id = managed.running(managed.package("1", &[]));
    let session = managed.session(id);
    for _ in 0..3 {
        session.call(&Ping {}, LONG).unwrap();
    }
    call(&session, "fail", &json!({})).unwrap_err();
    let slow = Duration::from_millis(30);
    call(&session, "sleep", &json!({ "ms": 30 })).unwrap();
    session
        .call_raw("sleep", &json!({ "ms": 10_000 }), Duration::from_millis(1))
        .unwrap_err();
    drop(
        session
            .start_call_raw("sleep", &json!({ "ms": 10_000 }), LONG)
            .unwrap(),
    );
    let waiting = session
        .start_call_raw("sleep", &json!({ "ms": 10_000 }), LONG)
        .unwrap();
    let now = Scrape::of(&managed);
    assert_eq!(now.count("calls_in_flight{direction=\"to_plugin\"}"), 1);
    assert_eq!(now.count(&outcome("to_plugin", "ok")), 4);
    assert_eq!(now.count(&outcome("to_plugin", "rpc")), 1);
    assert_eq!(now.count(&outcome("to_plugin", "timeout")), 1);
    assert_eq!(now.count(&outcome("to_plugin", "abandoned")), 1);
    assert_eq!(now.count(&outcome("to_plugin", "disconnected")), 0);
    let bucket = |le: &str| {
        let series = format!("call_duration_seconds_bucket{{outcome=\"ok\",le=\"{le}\"}}");
        now.count(&series)
    };
    assert!(bucket("0.025") <= 3, "one took 30 ms");
    assert_eq!(bucket("60"), 4);
    assert_eq!(bucket("+Inf"), 4);
    assert_eq!(now.count("call_duration_seconds_count{outcome=\"ok\"}"), 4);
    assert!(now.seconds("call_duration_seconds_sum{outcome=\"ok\"}") >= slow.as_secs_f64());
    assert_eq!(
        now.count("call_duration_seconds_count{outcome=\"failed\"}"),
        2
    );

    // Stopped, forgotten, and removed, while a call waits.
    managed.deactivate(id, LONG).unwrap();
    waiting.wait().unwrap_err();
    call(&session, "echo", &json!({})).unwrap_err();
    let stopped = Scrape::of(&managed);
    assert_eq!(stopped.count(&outcome("to_plugin", "disconnected")), 1);
    assert_eq!(stopped.count(&outcome("to_plugin", "wrong_state")), 1);
    // One that was never sent took no time.
    assert_eq!(
        stopped.count("call_duration_seconds_count{outcome=\"failed\"}"),
        3
    );
    assert_eq!(stopped.count("run_ends_total{cause=\"stopped\"}"), 1);
    assert_eq!(stopped.count("restarts_total{cause=\"stopped\"}"), 0);
    managed.host.unload(id).unwrap();
    managed.remove(id).unwrap();
    drop(session);
    let gone = Scrape::of(&managed);
    gone.expect_not_below(&stopped);
    assert_eq!(gone.count("connections_total"), 1);
    assert_eq!(gone.count("calls_in_flight{direction=\"to_plugin\"}"), 0);
    assert_eq!(gone.count(&state(ReportedState::Inactive)), 0);
    assert_eq!(gone.of_plugin("plugin_up", id, "scripted"), None);

    // What the next one counts comes on top.
    let id = managed.running(managed.package("1", &[]));
    managed.session(id).call(&Ping {}, LONG).unwrap();
    let again = Scrape::of(&managed);
    again.expect_not_below(&gone);
    assert_eq!(again.count(&outcome("to_plugin", "ok")), 5);
    assert_eq!(again.count("connections_total"), 2);
}

#[test]
fn each_plugin_is_shown_with_its_state_and_what_it_uses() {
    let managed = Managed::new("metrics_states");
    let package =
        |name: &str, words: &[&str]| managed.package_of(name, "1", Transport::WebSocket, words);
    let steady = managed.running(package("steady", &[]));
    let broken = managed.installed(package("broken", &["exit-at", "start", "7"]));
    managed.activate(broken, LONG).unwrap_err();
    let resting = managed.installed(package("resting", &[]));
    let (outside, _) = managed.install_external(manifest("outside")).unwrap();
    let outside = outside.id();

    let now = Scrape::of(&managed);
    for (id, is) in [
        (steady, Active),
        (broken, Errored),
        (resting, ReportedState::Inactive),
        (outside, ReportedState::Connecting),
    ] {
        now.expect_state(id, is);
    }
    assert_eq!(now.of_plugin("plugin_up", steady, "steady"), Some(1.0));
    assert_eq!(now.of_plugin("plugin_up", broken, "broken"), Some(0.0));
    assert_eq!(now.of_plugin("plugin_up", resting, "resting"), None);
    assert_eq!(now.of_plugin("plugin_up", outside, "outside"), Some(0.0));
    for (is, count) in [
        (Active, 1),
        (Errored, 1),
        (ReportedState::Connecting, 1),
        (ReportedState::Restarting, 0),
    ] {
        assert_eq!(now.count(&state(is)), count, "{is}");
    }
    let installed = |mode: &str, wanted: &str| {
        now.count(&format!(
            "installations{{mode=\"{mode}\",wanted=\"{wanted}\"}}"
        ))
    };
    assert_eq!(installed("supervised", "active"), 2);
    assert_eq!(installed("supervised", "inactive"), 1);
    assert_eq!(installed("external", "active"), 1);
    assert_eq!(installed("external", "inactive"), 0);
    assert_eq!(now.count("store_up"), 1);
    // As often as it is restarted, and once more.
    assert_eq!(now.count("run_ends_total{cause=\"exited\"}"), 4);
    assert_eq!(now.count("restarts_total{cause=\"exited\"}"), 3);

    if cfg!(target_os = "linux") {
        let memory =
            |scrape: &Scrape, id, name| scrape.of_plugin("plugin_resident_memory_bytes", id, name);
        assert!(memory(&now, steady, "steady").unwrap() > 100_000.0);
        for (id, name) in [
            (broken, "broken"),
            (resting, "resting"),
            (outside, "outside"),
        ] {
            assert_eq!(memory(&now, id, name), None, "{name}");
        }
        // The work of a process that it has started, and that has ended, counts as its own.
        let cpu = |scrape: &Scrape| scrape.of_plugin("plugin_cpu_seconds_total", steady, "steady");
        let before = cpu(&now).unwrap();
        let work = json!({"script": "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done"});
        wait_until("processor time to be used", || {
            call(&managed.session(steady), "shell", &work).unwrap();
            cpu(&Scrape::of(&managed)).unwrap() >= before + 0.02
        });
        managed.deactivate(steady, LONG).unwrap();
        let stopped = Scrape::of(&managed);
        assert_eq!(
            (memory(&stopped, steady, "steady"), cpu(&stopped)),
            (None, None)
        );
    }
}

#[test]
fn a_crash_is_counted_by_its_cause_and_so_is_what_a_plugin_asks() {
    let managed = Managed::new("metrics_crash");
    let id = managed.running(managed.package("1", &[]));
    let session = managed.session(id);
    let back = json!({"method": "get_config", "params": {}});
    call(&session, "call_back", &back).unwrap();
    call(&session, "call_back", &json!({"method": "unknown"})).unwrap_err();
    let connected = || session.counters().connections;
    call(&session, "kill", &json!({ "signal": 9 })).unwrap_err();
    wait_until("the next run", || connected() == 2);
    session.wait_for(Active, LONG).unwrap();

    let now = Scrape::of(&managed);
    assert_eq!(now.count("run_ends_total{cause=\"killed_by_signal\"}"), 1);
    assert_eq!(now.count("restarts_total{cause=\"killed_by_signal\"}"), 1);
    assert_eq!(now.count(&outcome("to_plugin", "disconnected")), 1);
    assert_eq!(now.count(&outcome("from_plugin", "ok")), 1);
    assert_eq!(now.count(&outcome("from_plugin", "rpc")), 1);
    assert_eq!(now.count("connections_total"), 2);
    assert_eq!(now.count("handshakes_total{outcome=\"accepted\"}"), 2);
    assert!(now.count("message_bytes_total{direction=\"from_plugin\"}") > 100);
}

#[test]
fn events_are_counted_where_they_are_published_and_where_they_arrive() {
    let managed = Managed::new("metrics_events");
    let mut hears = manifest("hears");
    hears.command = "./run".to_owned();
    hears.events_consumed = vec!["EventPostLiked".to_owned()];
    managed.running(managed.package_with(&hears, &[]));
    let publish = |name| {
        managed
            .host
            .publish_and_wait(name, &json!({}), LONG)
            .unwrap()
    };
    assert_eq!(publish("EventPostLiked").len(), 1);
    assert_eq!(publish("EventThreadPublished").len(), 0);
    let now = Scrape::of(&managed);
    assert_eq!(now.count("events_published_total"), 2);
    assert_eq!(
        now.count("event_deliveries_total{outcome=\"delivered\"}"),
        1
    );
    assert_eq!(now.count("event_deliveries_total{outcome=\"failed\"}"), 0);
    assert!(now.count("queue_length{queue=\"events\"}") <= 1);
}

#[test]
fn lines_that_are_in_no_log_stay_counted() {
    let managed = Managed::new("metrics_lines");
    let id = managed.running(managed.package("1", &[]));
    let logs = managed.folder(id).join("logs");
    fs::remove_dir_all(&logs).unwrap();
    fs::write(&logs, "in the way").unwrap();
    call(&managed.session(id), "log", &json!({ "line": "lost" })).unwrap();
    let lost = || Scrape::of(&managed).count("log_lines_lost_total");
    wait_until("a lost line", || lost() > 0);
    fs::remove_file(&logs).unwrap();
    managed.deactivate(id, LONG).unwrap();
    let before = lost();
    managed.host.unload(id).unwrap();
    assert_eq!(lost(), before);
}

#[test]
fn without_the_store_the_rest_is_still_told() {
    let store = Arc::new(FailingStore::default());
    let managed = Managed::over(store.clone(), "metrics_store", settings());
    let id = managed.running(managed.package("1", &[]));
    managed.session(id).call(&Ping {}, LONG).unwrap();
    store.fail(Step::List, 0);
    let now = Scrape::of(&managed);
    assert_eq!(now.count("store_up"), 0);
    assert_eq!(now.of_plugin("plugin_up", id, "scripted"), None);
    assert_eq!(now.count(&state(Active)), 1);
    assert_eq!(now.count(&outcome("to_plugin", "ok")), 1);
    store.mend();
    assert_eq!(Scrape::of(&managed).count("store_up"), 1);
}
