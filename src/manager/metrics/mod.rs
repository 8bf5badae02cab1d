//! What a host and its plugins have done, as text for Prometheus: [`Manager::metrics`]. What is counted is counted
//! elsewhere (`session/totals.rs`); how it is written is in `exposition`. For
//! the HTTP API, plugin by plugin: `usage`.

mod exposition;
#[cfg(feature = "admin")]
mod usage;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use super::{Installation, Manager};
use crate::deadline::Deadline;
use crate::error::ErrorKind;
use crate::host::Host;
use crate::id::InstallationId;
use crate::process::usage::{GroupUsage, of_groups};
use crate::reaper::EndCause;
use crate::session::context::shown_name;
use crate::session::{Counters, RunProcess, Session};
use crate::state::{ActiveState, PluginMode, ReportedState};
use exposition::Exposition;
#[cfg(feature = "admin")]
pub(crate) use usage::{PluginUsage, ProcessUsage, Usage};

const TO_PLUGIN: &str = "to_plugin";
const FROM_PLUGIN: &str = "from_plugin";

/// How long reading what processes use may take.
const PROCESSES_LIMIT: Duration = Duration::from_secs(2);

/// How calls to plugins fail. Others are shown once there are any.
const USUAL_FAILURES: [ErrorKind; 10] = [
    ErrorKind::Timeout,
    ErrorKind::Rpc,
    ErrorKind::InvalidReply,
    ErrorKind::Disconnected,
    ErrorKind::NotReady,
    ErrorKind::WrongState,
    ErrorKind::PluginFailed,
    ErrorKind::NotLoaded,
    ErrorKind::Overloaded,
    ErrorKind::MessageTooLarge,
];

impl Manager {
    /// Returns what the host and its plugins have done and do now, in Prometheus' text format, to be served as
    /// `text/plain; version=0.0.4`.
    ///
    /// Counters count since the host was built, and keep what was counted of plugins that are unloaded or removed
    /// by now.
    ///
    #[doc = include_str!("families.md")]
    ///
    /// Errors, causes and faults are named as in [`ErrorKind`], [`EndCause`] and [`Counters`]. Only the last four
    /// families have a series for each installed plugin, with its id (`plugin`) and its manifest's id (`name`).
    /// Processor time and memory are known on Linux, of processes that this host has started itself, and without
    /// those that have left their process group.
    ///
    /// # Blocking
    /// For the store's own I/O, once, and for at most two seconds for the files in which the system says what
    /// processes use: one for each process of the machine. If that does not suffice, they are missing. Waits for no
    /// plugin.
    pub fn metrics(&self) -> String {
        let mut text = Exposition::default();
        let (host, sessions) = (self.host(), self.host().sessions());
        let counters = host.shared().context.totals.of_sessions();
        about_host(&mut text, host, &sessions);
        calls(&mut text, host, &counters);
        events_and_queues(&mut text, host, &sessions, &counters);
        runs(&mut text, host);
        connections(&mut text, host, &counters);
        self.plugins(&mut text, &sessions);
        text.into_text()
    }

    fn plugins(&self, text: &mut Exposition, sessions: &[Session]) {
        let plugins = self.list().inspect_err(|error| {
            log::debug!("metrics without plugins: {error}");
        });
        text.gauge("store_up", "Whether the installed plugins could be read.")
            .series(&[], plugins.is_ok());
        let Ok(plugins) = plugins else { return };
        installations(text, &plugins);
        let plugins: Vec<_> = plugins.iter().map(Named::of).collect();
        let mut up = text.gauge("plugin_up", "Whether a plugin that should be active is.");
        for plugin in &plugins {
            let is_active = plugin.state == ReportedState::Active;
            if is_active || plugin.wanted == ActiveState::Active {
                up.series(&plugin.labels(), is_active);
            }
        }
        let mut states = text.gauge("plugin_state", "The state of each installed plugin.");
        for plugin in &plugins {
            let [id, name] = plugin.labels();
            states.series(&[id, name, ("state", plugin.state.as_str())], true);
        }
        let used = used_by(sessions);
        let mut cpu = text.counter(
            "plugin_cpu_seconds",
            "Processor time of the present process of a plugin and its group.",
        );
        for plugin in &plugins {
            if let Some((process, usage)) = used.get(&plugin.key) {
                cpu.series(&plugin.labels(), process.highest(usage.cpu));
            }
        }
        let mut memory = text.gauge(
            "plugin_resident_memory_bytes",
            "Memory of the process of a plugin and its group.",
        );
        for plugin in &plugins {
            if let Some((_, usage)) = used.get(&plugin.key) {
                memory.series(&plugin.labels(), usage.resident);
            }
        }
    }
}

/// An installed plugin, with the texts of its labels.
struct Named {
    key: InstallationId,
    id: String,
    name: String,
    state: ReportedState,
    wanted: ActiveState,
}

impl Named {
    fn of(plugin: &Installation) -> Self {
        Self {
            key: plugin.id(),
            id: plugin.id().to_string(),
            name: shown_name(plugin.record()).to_string(),
            state: plugin.reported_state(),
            wanted: plugin.record().active_state,
        }
    }

    fn labels(&self) -> [(&'static str, &str); 2] {
        [("plugin", &self.id), ("name", &self.name)]
    }
}

fn about_host(text: &mut Exposition, host: &Host, sessions: &[Session]) {
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("runtime", host.runtime_name()),
    ];
    text.gauge("info", "The version of the plugin host.")
        .series(&labels, true);
    let since = host.shared().context.totals.since;
    text.gauge("start_time_seconds", "When the host was built.")
        .series(&[], since.duration_since(UNIX_EPOCH).unwrap_or_default());
    text.gauge("threads", "Threads of the host and its plugins.")
        .series(&[], host.thread_count());
    text.gauge("thread_limit", "How many threads there may be.")
        .series(&[], host.thread_limit());
    let mut loaded = HashMap::new();
    for session in sessions {
        *loaded.entry(session.reported_state()).or_insert(0_u64) += 1;
    }
    let mut family = text.gauge("sessions", "Loaded plugins.");
    for state in ReportedState::ALL {
        let count = loaded.get(state).copied().unwrap_or_default();
        family.series(&[("state", state.as_str())], count);
    }
}

fn calls(text: &mut Exposition, host: &Host, counters: &Counters) {
    let totals = &host.shared().context.totals;
    let (answered, failed) = (totals.answered.distribution(), totals.failed.distribution());
    let mut family = text.counter("calls", "Calls that have ended.");
    let mut ended = |direction, outcome, count: u64| {
        family.series(&[("direction", direction), ("outcome", outcome)], count);
    };
    ended(TO_PLUGIN, "ok", answered.count);
    for kind in ErrorKind::ALL {
        let count = totals.failures(*kind);
        if count > 0 || USUAL_FAILURES.contains(kind) {
            ended(TO_PLUGIN, kind.as_str(), count);
        }
    }
    ended(TO_PLUGIN, "abandoned", counters.abandoned);
    ended(FROM_PLUGIN, "ok", totals.answers(true));
    for (kind, count) in [
        (ErrorKind::Rpc, totals.answers(false)),
        (ErrorKind::Overloaded, counters.inbound_refused),
        (ErrorKind::RateLimited, counters.inbound_limited),
    ] {
        ended(FROM_PLUGIN, kind.as_str(), count);
    }
    text.histogram(
        "call_duration_seconds",
        "The time of calls to plugins that were sent.",
        &[
            (&[("outcome", "ok")], answered),
            (&[("outcome", "failed")], failed),
        ],
    );
    text.gauge("calls_in_flight", "Calls that wait for their answer.")
        .series(&[("direction", TO_PLUGIN)], counters.calls_in_flight)
        .series(&[("direction", FROM_PLUGIN)], counters.inbound_in_flight);
    text.counter("message_bytes", "Bytes of messages.")
        .series(&[("direction", TO_PLUGIN)], counters.bytes_sent)
        .series(&[("direction", FROM_PLUGIN)], counters.bytes_received);
}

fn events_and_queues(
    text: &mut Exposition,
    host: &Host,
    sessions: &[Session],
    counters: &Counters,
) {
    let context = &host.shared().context;
    let published = context.totals.events_published.load(Ordering::Relaxed);
    text.counter("events_published", "Events that were published.")
        .series(&[], published);
    text.counter("event_deliveries", "What became of events at plugins.")
        .series(&[("outcome", "delivered")], counters.events_delivered)
        .series(&[("outcome", "failed")], counters.events_failed)
        .series(&[("outcome", "dropped")], counters.events_dropped);
    let events: usize = sessions.iter().map(Session::queued_events).sum();
    text.gauge("queue_length", "What waits, or is being worked on.")
        .series(&[("queue", "events")], events)
        .series(
            &[("queue", "reaper")],
            context.services.reaper.queue_length(),
        );
}

fn runs(text: &mut Exposition, host: &Host) {
    let totals = &host.shared().context.totals;
    let mut ends = text.counter("run_ends", "Runs of plugins that have ended.");
    for cause in EndCause::ALL {
        ends.series(&[("cause", cause.as_str())], totals.run_ends(*cause));
    }
    let mut restarts = text.counter("restarts", "Ended runs that another one follows.");
    for cause in EndCause::ALL {
        restarts.series(&[("cause", cause.as_str())], totals.restarts(*cause));
    }
    let lost = totals.log_lines_lost.load(Ordering::Relaxed);
    text.counter("log_lines_lost", "Lines of output that are in no log.")
        .series(&[], lost);
}

fn connections(text: &mut Exposition, host: &Host, counters: &Counters) {
    let handshakes = host.handshake_counters();
    let mut family = text.counter("handshakes", "Handshakes that were decided.");
    for (outcome, count) in [
        ("accepted", handshakes.accepted),
        ("refused_400", handshakes.refused_400),
        ("refused_401", handshakes.refused_401),
        ("refused_403", handshakes.refused_403),
        ("refused_404", handshakes.refused_404),
        ("refused_405", handshakes.refused_405),
        ("refused_426", handshakes.refused_426),
        ("refused_431", handshakes.refused_431),
        ("refused_500", handshakes.refused_500),
        ("refused_503", handshakes.refused_503),
        ("over_limit", handshakes.over_limit),
        ("timed_out", handshakes.timed_out),
        ("hung_up", handshakes.hung_up),
        ("no_thread", handshakes.no_thread),
    ] {
        family.series(&[("outcome", outcome)], count);
    }
    text.gauge("handshakes_in_progress", "Handshakes that are not decided.")
        .series(&[], handshakes.in_progress);
    text.counter("accept_errors", "Connections that the system refused.")
        .series(&[], handshakes.accept_errors);
    text.counter("connections", "Connections of plugins that were attached.")
        .series(&[], counters.connections);
    let mut family = text.counter("connection_faults", "What plugins should not have sent.");
    for (fault, count) in [
        ("stray_replies", counters.stray_replies),
        ("notifications", counters.notifications),
        ("unreadable", counters.unreadable),
        ("binary", counters.binary),
        ("too_large", counters.too_large),
        ("not_utf8", counters.not_utf8),
        ("violations", counters.violations),
        ("stalls", counters.stalls),
        ("overflows", counters.overflows),
    ] {
        family.series(&[("fault", fault)], count);
    }
    text.counter("missed_pings", "Pings without a sign of life in time.")
        .series(&[], counters.pings_missed);
}

fn installations(text: &mut Exposition, plugins: &[Installation]) {
    let mut family = text.gauge("installations", "Installed plugins.");
    for mode in PluginMode::ALL {
        for wanted in ActiveState::ALL {
            let is_such = |plugin: &&Installation| {
                let record = plugin.record();
                (record.mode(), record.active_state) == (*mode, *wanted)
            };
            let count = plugins.iter().filter(is_such).count();
            let labels = [("mode", mode.as_str()), ("wanted", wanted.as_str())];
            family.series(&labels, count);
        }
    }
}

/// Returns what the processes of plugins use.
fn used_by(sessions: &[Session]) -> HashMap<InstallationId, (RunProcess, GroupUsage)> {
    let processes: Vec<_> = (sessions.iter())
        .filter_map(|session| Some((session.id(), session.process()?)))
        .collect();
    let leaders = processes.iter().map(|(_, process)| process.pid);
    let deadline = Deadline::after(PROCESSES_LIMIT);
    let used = of_groups(leaders, deadline).unwrap_or_default();
    processes
        .into_iter()
        .filter_map(|(id, process)| {
            let usage = *used.get(&process.pid)?;
            Some((id, (process, usage)))
        })
        .collect()
}
