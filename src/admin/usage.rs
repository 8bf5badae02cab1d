//! `GET /api/usage`: what each plugin does and uses now.

use std::time::SystemTime;

use serde::Serialize;

use super::call::{Call, json};
use super::installation::rfc3339;
use super::problem::Problem;
use crate::http::Response;
use crate::id::InstallationId;
use crate::manager::{PluginUsage, ProcessUsage, Usage};
use crate::state::ReportedState;

#[derive(Serialize)]
struct Shown<'a> {
    at: String,
    call_durations: Vec<Bucket>,
    plugins: Vec<ShownPlugin<'a>>,
}

/// Calls that took so long at most.
#[derive(Serialize)]
struct Bucket {
    /// `None` for any time.
    up_to_seconds: Option<f64>,
    calls: u64,
}

#[derive(Serialize)]
struct ShownPlugin<'a> {
    id: InstallationId,
    manifest_id: &'a str,
    state: ReportedState,
    since: String,
    restarts: u64,
    calls: u64,
    failed: u64,
    process: Option<ShownProcess>,
}

#[derive(Serialize)]
struct ShownProcess {
    cpu_seconds: f64,
    memory_bytes: u64,
    processes: u64,
}

impl Bucket {
    /// Adds up the calls that were answered and those that failed.
    fn all(usage: &Usage) -> Vec<Self> {
        let [answered, failed] = &usage.calls;
        let pairs = answered.buckets.iter().zip(&failed.buckets);
        let mut buckets: Vec<_> = pairs
            .map(|((bound, answered), (_, failed))| Self {
                up_to_seconds: Some(bound.as_secs_f64()),
                calls: answered + failed,
            })
            .collect();
        buckets.push(Self {
            up_to_seconds: None,
            calls: answered.count + failed.count,
        });
        buckets
    }
}

impl<'a> From<&'a PluginUsage> for ShownPlugin<'a> {
    fn from(plugin: &'a PluginUsage) -> Self {
        let (installation, counters) = (&plugin.installation, &plugin.counters);
        Self {
            id: installation.id(),
            manifest_id: &installation.manifest().id,
            state: installation.reported_state(),
            since: rfc3339(installation.since()),
            restarts: plugin.restarts,
            calls: counters.calls,
            failed: counters.refusals
                + counters.timeouts
                + counters.disconnects
                + counters.other_errors,
            process: plugin.process.as_ref().map(ShownProcess::from),
        }
    }
}

impl From<&ProcessUsage> for ShownProcess {
    fn from(process: &ProcessUsage) -> Self {
        Self {
            cpu_seconds: process.cpu.as_secs_f64(),
            memory_bytes: process.memory,
            processes: process.processes,
        }
    }
}

pub(super) fn show(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let usage = call.manager().usage()?;
    let shown = Shown {
        at: rfc3339(SystemTime::now()),
        call_durations: Bucket::all(&usage),
        plugins: usage.plugins.iter().map(ShownPlugin::from).collect(),
    };
    json(200, &shown)
}
