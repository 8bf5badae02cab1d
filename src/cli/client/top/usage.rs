//! What the host says of its plugins at two moments, and what follows from that: rates.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::Sort;
use crate::cli::client::api::Api;
use crate::cli::error::CliError;

/// How long the host may be silent. It reads processes for at most two seconds.
const SILENCE: Duration = Duration::from_secs(15);

/// What `GET /api/usage` answers.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Usage {
    at: String,
    call_durations: Vec<Bucket>,
    plugins: Vec<Plugin>,
}

/// Calls that took so long at most, since the host was built.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Bucket {
    up_to_seconds: Option<f64>,
    calls: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Plugin {
    id: String,
    manifest_id: String,
    state: String,
    since: String,
    restarts: u64,
    calls: u64,
    failed: u64,
    process: Option<Process>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Process {
    cpu_seconds: f64,
    memory_bytes: u64,
    processes: u64,
}

/// What was said, and when by this machine's clock.
#[derive(Clone, Debug)]
pub(super) struct Look {
    usage: Usage,
    when: Instant,
}

impl Look {
    /// Asks the host. Blocks for as long as connecting takes, and 15 s for each part of the answer.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub(super) fn at(api: &Api) -> Result<Self, CliError> {
        let answer = api.stream("/api/usage", None, SILENCE)?;
        let usage = api.json(answer)?;
        Ok(Self {
            usage,
            when: Instant::now(),
        })
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.when.elapsed()
    }
}

/// What there is to show of one moment.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) at: String,
    pub(super) rows: Vec<Row>,
    /// Of all plugins; unknown at the first look.
    pub(super) calls_per_second: Option<f64>,
    /// How long 99 of 100 of the calls between the two looks took at most; `None` if there were none.
    pub(super) p99: Option<AtMost>,
}

/// At most so many seconds; `None` for more than the host tells apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AtMost(pub(super) Option<f64>);

/// What there is to show of one plugin.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) plugin: String,
    pub(super) state: String,
    pub(super) since: String,
    /// Of a plugin that is active.
    pub(super) uptime: Option<Duration>,
    pub(super) restarts: u64,
    calls: u64,
    failed: u64,
    /// Unknown at the first look.
    pub(super) calls_per_second: Option<f64>,
    /// In percent of one processor; unknown at the first look at a process.
    pub(super) cpu_percent: Option<f64>,
    cpu_seconds: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
    processes: Option<u64>,
}

impl Round {
    /// Compares two looks.
    pub(super) fn between(before: Option<&Look>, now: &Look) -> Self {
        let seconds = before.map(|before| now.when.duration_since(before.when).as_secs_f64());
        let earlier: HashMap<_, _> = before
            .into_iter()
            .flat_map(|before| &before.usage.plugins)
            .map(|plugin| (plugin.id.as_str(), plugin))
            .collect();
        let plugins = now.usage.plugins.iter();
        let rows: Vec<_> = plugins
            .map(|plugin| {
                let earlier = earlier.get(plugin.id.as_str()).copied().zip(seconds);
                Row::of(plugin, earlier, &now.usage.at)
            })
            .collect();
        let known = rows.iter().filter_map(|row| row.calls_per_second);
        Self {
            at: now.usage.at.clone(),
            calls_per_second: seconds.map(|_| known.sum()),
            p99: before.and_then(|before| p99(&before.usage, &now.usage)),
            rows,
        }
    }

    /// Returns the rows in this order; among equals by name.
    pub(super) fn sorted(&self, by: Sort) -> Vec<&Row> {
        let mut rows: Vec<_> = self.rows.iter().collect();
        let number = |value: Option<f64>| value.unwrap_or(-1.0);
        rows.sort_by(|one, other| {
            let most_first = match by {
                Sort::Name => std::cmp::Ordering::Equal,
                Sort::Cpu => number(other.cpu_percent).total_cmp(&number(one.cpu_percent)),
                Sort::Memory => other.memory_bytes.cmp(&one.memory_bytes),
                Sort::Calls => {
                    number(other.calls_per_second).total_cmp(&number(one.calls_per_second))
                }
            };
            most_first
                .then_with(|| one.plugin.cmp(&other.plugin))
                .then_with(|| one.id.cmp(&other.id))
        });
        rows
    }
}

impl Row {
    fn of(plugin: &Plugin, earlier: Option<(&Plugin, f64)>, at: &str) -> Self {
        let Plugin { calls, process, .. } = plugin;
        let is_active = plugin.state == "active";
        let cpu_percent = earlier.and_then(|(before, seconds)| {
            let (before, now) = (before.process?.cpu_seconds, process.as_ref()?.cpu_seconds);
            // Less than before is another process, which has had no longer.
            let used = if now < before { now } else { now - before };
            per(used * 100.0, seconds)
        });
        Self {
            id: plugin.id.clone(),
            plugin: plugin.manifest_id.clone(),
            state: plugin.state.clone(),
            since: plugin.since.clone(),
            uptime: is_active.then(|| between(&plugin.since, at)).flatten(),
            restarts: plugin.restarts,
            calls: *calls,
            failed: plugin.failed,
            calls_per_second: earlier
                .and_then(|(before, seconds)| per(number(since(before.calls, *calls)), seconds)),
            cpu_percent,
            cpu_seconds: process.map(|process| process.cpu_seconds),
            memory_bytes: process.map(|process| process.memory_bytes),
            processes: process.map(|process| process.processes),
        }
    }

    pub(super) fn to_json(&self, at: &str) -> Value {
        json!({
            "at": at,
            "installation": self.id,
            "plugin": self.plugin,
            "state": self.state,
            "since": self.since,
            "restarts": self.restarts,
            "calls": self.calls,
            "failed": self.failed,
            "calls_per_second": self.calls_per_second.map(rounded),
            "cpu_percent": self.cpu_percent.map(rounded),
            "cpu_seconds": self.cpu_seconds,
            "memory_bytes": self.memory_bytes,
            "processes": self.processes,
        })
    }
}

/// Returns how much a count has grown. One that is lower than before began again, with the host or the session.
const fn since(before: u64, now: u64) -> u64 {
    match now.checked_sub(before) {
        Some(more) => more,
        None => now,
    }
}

/// Numbers between two looks are small enough.
fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn per(amount: f64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| amount / seconds)
}

/// Three digits behind the point say enough.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn between(start: &str, end: &str) -> Option<Duration> {
    let time = |text| humantime::parse_rfc3339(text).ok();
    Some(time(end)?.duration_since(time(start)?).unwrap_or_default())
}

/// Finds the bucket in which the 99th of 100 calls is.
fn p99(before: &Usage, now: &Usage) -> Option<AtMost> {
    let is_same_host = before.call_durations.len() == now.call_durations.len();
    let mut more = now.call_durations.iter().enumerate().map(|(index, now)| {
        let before = before.call_durations.get(index).filter(|_| is_same_host);
        let calls = since(before.map_or(0, |before| before.calls), now.calls);
        (now.up_to_seconds, calls)
    });
    let all = more.clone().next_back()?.1;
    let wanted = all - all / 100;
    let (bound, _) = (all > 0)
        .then(|| more.find(|(_, calls)| *calls >= wanted))
        .flatten()?;
    Some(AtMost(bound))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A name, its calls, and the processor time and memory of its process.
    type Given<'a> = (&'a str, u64, Option<(f64, u64)>);

    /// A look at this second, at plugins that are active since the first.
    pub(in crate::cli::client::top) fn look(
        began: Instant,
        second: u64,
        plugins: &[Given<'_>],
        buckets: &[u64],
    ) -> Look {
        let plugins: Vec<_> = plugins
            .iter()
            .enumerate()
            .map(|(index, (name, calls, process))| {
                let process = process.map(|(cpu, memory)| {
                    json!({"cpu_seconds": cpu, "memory_bytes": memory, "processes": 1})
                });
                json!({
                    "id": format!("id{index}"), "manifest_id": name, "state": "active",
                    "since": "2026-08-20T09:00:00.000Z", "restarts": 2, "calls": calls, "failed": 0,
                    "process": process,
                })
            })
            .collect();
        let bounds = [json!(0.001), json!(0.0025), Value::Null];
        let buckets: Vec<_> = bounds
            .iter()
            .zip(buckets)
            .map(|(bound, calls)| json!({"up_to_seconds": bound, "calls": calls}))
            .collect();
        let usage = json!({
            "at": format!("2026-08-20T09:01:{second:02}.000Z"),
            "call_durations": buckets, "plugins": plugins,
        });
        Look {
            usage: serde_json::from_value(usage).unwrap(),
            when: began + Duration::from_secs(second),
        }
    }

    /// Compares in two seconds.
    fn round(before: &[Given<'_>], now: &[Given<'_>], buckets: [&[u64]; 2]) -> Round {
        let began = Instant::now();
        let before = look(began, 1, before, buckets[0]);
        Round::between(Some(&before), &look(began, 3, now, buckets[1]))
    }

    #[test]
    fn rates_are_what_was_added_between_two_looks() {
        let round = round(
            &[("a", 100, Some((5.0, 1))), ("b", 7, Some((2.0, 1)))],
            &[
                ("a", 110, Some((6.0, 2))),
                ("b", 7, None),
                ("c", 9, Some((1.0, 1))),
            ],
            [&[0, 0, 0], &[0, 0, 0]],
        );
        let rates: Vec<_> = round
            .rows
            .iter()
            .map(|row| (row.calls_per_second, row.cpu_percent, row.memory_bytes))
            .collect();
        assert_eq!(
            rates,
            [
                (Some(5.0), Some(50.0), Some(2)),
                (Some(0.0), None, None),
                (None, None, Some(1)),
            ]
        );
        assert_eq!(round.calls_per_second, Some(5.0));
        assert_eq!(round.rows[0].uptime, Some(Duration::from_secs(63)));
        assert_eq!(round.p99, None, "there were no calls");
    }

    #[test]
    fn what_began_again_counts_from_nothing() {
        let round = round(
            &[("a", 100, Some((5.0, 1)))],
            &[("a", 4, Some((1.0, 1)))],
            [&[50, 90, 90], &[2, 4, 4]],
        );
        let row = &round.rows[0];
        assert_eq!(
            (row.calls_per_second, row.cpu_percent),
            (Some(2.0), Some(50.0))
        );
        assert_eq!(round.p99, Some(AtMost(Some(0.0025))));
    }

    #[test]
    fn nothing_is_known_of_rates_at_the_first_look() {
        let first = look(Instant::now(), 0, &[("a", 9, Some((1.0, 1)))], &[1, 1, 1]);
        let round = Round::between(None, &first);
        let row = &round.rows[0];
        assert_eq!((row.calls_per_second, row.cpu_percent), (None, None));
        assert_eq!((round.calls_per_second, round.p99), (None, None));
        let shown = row.to_json(&round.at);
        assert_eq!(shown["calls_per_second"], Value::Null);
        assert_eq!(shown["installation"], "id0");
        assert_eq!(shown["at"], "2026-08-20T09:01:00.000Z");
    }

    #[test]
    fn of_a_hundred_calls_one_may_take_longer() {
        let p99 = |now: &[u64]| round(&[], &[], [&[10, 10, 10], now]).p99;
        assert_eq!(p99(&[109, 110, 110]), Some(AtMost(Some(0.001))));
        assert_eq!(p99(&[108, 110, 110]), Some(AtMost(Some(0.0025))));
        assert_eq!(p99(&[10, 10, 11]), Some(AtMost(None)));
        assert_eq!(p99(&[10, 10, 10]), None);
    }

    #[test]
    fn rows_are_in_order() {
        let round = round(
            &[
                ("b", 0, Some((0.0, 0))),
                ("a", 0, Some((0.0, 0))),
                ("c", 0, Some((0.0, 0))),
            ],
            &[
                ("b", 1, Some((3.0, 20))),
                ("a", 3, None),
                ("c", 1, Some((2.0, 30))),
            ],
            [&[], &[]],
        );
        let order = |by| -> String {
            let rows = round.sorted(by).into_iter();
            rows.map(|row| row.plugin.clone()).collect()
        };
        assert_eq!(order(Sort::Name), "abc");
        assert_eq!(order(Sort::Cpu), "bca");
        assert_eq!(order(Sort::Memory), "cba");
        assert_eq!(order(Sort::Calls), "abc");
    }
}
