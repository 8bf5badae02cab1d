//! Nothing that is secret is in what an embedder logs or shows: not in what is serialised, not in `Debug`, not
//! in a log line, not in an error. Secret are the tokens of plugins, the access keys of a host's API, the values
//! of variables, configurations, payloads, URLs behind their host, and headers of handshakes.
//!
//! Exempt is what is there to show it: what a plugin itself says (its output, its errors, and its user agent,
//! which is a name that it gives itself), `Record`, `PluginKind` and `Overrides` as they are serialised, which is
//! the form of the store, and an installation with
//! [`show_configuration`](plugin_runner::Installation::show_configuration).
//!
//! A run with markers in all of that, in a process of its own because of its logger, collects what it can of
//! everything that is shown.

use std::process::Command;
use std::sync::Arc;

use log::{Level, LevelFilter};
use parking_lot::Mutex;
use plugin_runner::Services;
use plugin_runner::call::InboundCall;
use plugin_runner::error::RpcError;
use plugin_runner::protocol::AccessGrant;

use super::*;
use crate::support::alone::run_under;
use evidence::Evidence;

// Calls in either direction, and events.
mod calls;
// Configurations, accepted and not.
mod configuration;
// What was shown, and finding something in it.
mod evidence;
// Handshakes with tokens and headers of every kind.
mod handshakes;
// Packages by URL, and other settings with a URL.
#[cfg(feature = "fetch")]
mod packages;
// A plugin in Rust, which has the URL and the configuration too.
#[cfg(feature = "fetch")]
mod plugin_side;
// Databases that are damaged.
#[cfg(feature = "sqlite")]
mod store;
// Plugins on sprites.
#[cfg(all(target_os = "linux", feature = "sprites"))]
mod sprites;
// Plugins with variables of their own, from their installation to their removal.
mod supervised;

const VARIABLE: &str = "hush0environment";
const CONFIGURED: &str = "hush1configuration";
const URL: &str = "hush2url";
const HEADER: &str = "hush3header";
const ACCESS_KEY: &str = "hush4accesskey";
const PAYLOAD: &str = "hush5payload";

#[test]
fn nothing_secret_is_shown() {
    let mut with_a_variable = Command::new("env");
    with_a_variable.env("HUSH", VARIABLE);
    run_under(&mut with_a_variable, "manager::secrets::a_run_with_markers");
}

#[test]
#[ignore = "takes the process's logger; run by another test, in a process of its own"]
fn a_run_with_markers() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let evidence = Arc::new(Evidence::default());
    for (what, secret) in [
        ("a variable's value", VARIABLE),
        ("a configuration", CONFIGURED),
        ("a URL", URL),
        ("a header", HEADER),
        ("an access key", ACCESS_KEY),
        ("a payload", PAYLOAD),
    ] {
        evidence.hide(what, secret);
    }
    supervised::run(&evidence);
    configuration::run(&evidence);
    handshakes::run(&evidence);
    calls::run(&evidence);
    #[cfg(all(target_os = "linux", feature = "sprites"))]
    sprites::run(&evidence);
    #[cfg(feature = "fetch")]
    packages::run(&evidence);
    #[cfg(feature = "fetch")]
    plugin_side::run(&evidence);
    #[cfg(feature = "sqlite")]
    store::run(&evidence);
    for line in LINES.0.lock().drain(..) {
        evidence.add("log", "a line", line);
    }
    let leaks = evidence.leaks();
    let count = leaks.len();
    let leaks: Vec<_> = leaks.into_iter().collect();
    assert!(leaks.is_empty(), "{count} leaks:\n{}", leaks.join("\n\n"));
    let forms = evidence.forms();
    let expected = EXPECTED.iter();
    #[cfg(all(target_os = "linux", feature = "sprites"))]
    let expected = expected.chain(ON_SPRITES);
    for form in expected {
        assert!(forms.contains(*form), "no {form:?} among {forms:#?}");
    }
}

#[cfg(all(target_os = "linux", feature = "sprites"))]
const ON_SPRITES: &[&str] = &[
    "Debug SpritesSettings",
    "what is in a file on a sprite",
    "what is in a plugin's log",
    "target of a request",
];

/// What the run must have shown, or it proves nothing about it.
const EXPECTED: &[&str] = &[
    "Debug Admission",
    "Debug BootReport",
    "Debug CallEvent",
    "Debug Configure",
    "Debug Counters",
    "Debug Delivery",
    "Debug Error",
    "Debug Guarantees",
    "Debug HandshakeCounters",
    "Debug Host",
    "Debug HostBuilder",
    "Debug HostHandle",
    "Debug InboundCall",
    "Debug Installation",
    "Debug Listener",
    "Debug Manager",
    "Debug ManagerSettings",
    "Debug Memory",
    "Debug Overrides",
    "Debug PackageSource",
    "Debug Params",
    "Debug PendingCall",
    "Debug Plugin",
    "Debug Problem",
    "Debug PublishReport",
    "Debug Record",
    "Debug Refusal",
    "Debug RemoveReport",
    "Debug Reply",
    "Debug RequestHead",
    "Debug RunEnd",
    "Debug Session",
    "Debug SqliteStore",
    "Debug ShutdownReport",
    "Debug StateChange",
    "Debug StopReport",
    "Debug UpdateReport",
    "Debug WebSocket",
    "Display an error",
    "JSON BootReport",
    "JSON Counters",
    "JSON Delivery",
    "JSON Error",
    "JSON HandshakeCounters",
    "JSON Installation",
    "JSON Problem",
    "JSON PublishReport",
    "JSON RemoveReport",
    "JSON RunEnd",
    "JSON ShutdownReport",
    "JSON StateChange",
    "JSON StopReport",
    "JSON UpdateReport",
    "log a line",
];

/// Gives access to the API of a host.
struct Generous;

impl Services for Generous {
    fn access_get(&self, _call: &InboundCall) -> Result<AccessGrant, RpcError> {
        AccessGrant::new(ACCESS_KEY, "https://forum.example")
            .map_err(|error| RpcError::new(RpcError::INTERNAL, error.to_string()))
    }
}

/// A manager whose hooks show what they are given.
struct Watched {
    managed: Managed,
    changes: crossbeam_channel::Receiver<plugin_runner::StateChange>,
    evidence: Arc<Evidence>,
}

impl Deref for Watched {
    type Target = Managed;

    fn deref(&self) -> &Managed {
        &self.managed
    }
}

impl Watched {
    fn new(evidence: &Arc<Evidence>, settings: ManagerSettings) -> Self {
        Self::with(evidence, settings, |_| {})
    }

    fn with(
        evidence: &Arc<Evidence>,
        settings: ManagerSettings,
        change: impl FnOnce(&mut Setup),
    ) -> Self {
        let (of_calls, of_methods) = (evidence.clone(), evidence.clone());
        let host = TestHost::with("secrets", |setup| {
            setup.policy(|policy| policy.max_restart_attempts(1));
            setup.configure(|builder| {
                builder
                    .pass_variable("HUSH")
                    .services(Generous)
                    .on_call(move |call| {
                        of_calls.debug(call);
                        if let Some(error) = call.error() {
                            of_calls.error(error);
                        }
                    })
                    .method_raw("probe", move |call, params| {
                        of_methods.debug(call);
                        of_methods.debug(params);
                        Err(RpcError::new(1, "no"))
                    })
            });
            change(setup);
        });
        Self {
            changes: host.subscribe(),
            managed: Managed::of(host, settings),
            evidence: evidence.clone(),
        }
    }

    /// Collects what can be seen of every plugin and of the host.
    fn look(&self) {
        let evidence = &self.evidence;
        let host: &plugin_runner::Host = &self.host;
        let manager: &Manager = &self.manager;
        evidence.debug(host);
        evidence.debug(&host.downgrade());
        evidence.debug(manager);
        evidence.debug(manager.settings());
        evidence.debug(&self.store);
        evidence.both(&host.guarantees());
        evidence.both(&host.handshake_counters());
        for installation in manager.list().unwrap() {
            evidence.both(&installation);
            evidence.debug(installation.record());
            evidence.debug(&installation.record().overrides);
            evidence.debug(&installation.clone().show_configuration());
            evidence.both(&installation.problem());
        }
        for session in host.sessions() {
            evidence.debug(&session);
            evidence.debug(&session.supervised());
            evidence.both(&session.counters());
            evidence.both(&session.error_details());
            evidence.both(&session.error_message());
            evidence.both(&session.reported_state());
            evidence.debug(&session.follow_log());
            if let Some(problem) = session.problem() {
                evidence.both(&problem);
                evidence.add("Display", "Problem", problem.to_string());
            }
            for end in session.restart_history() {
                evidence.both(&end);
            }
        }
        for change in self.changes.try_iter() {
            evidence.both(&change);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.look();
        self.evidence.both(&self.host.shutdown(LONG));
        for change in self.changes.try_iter() {
            self.evidence.both(&change);
        }
    }
}

static LINES: Lines = Lines(Mutex::new(Vec::new()));

/// A logger that keeps the crate's lines at every level. Other crates write out whole messages and requests
/// at the level of traces, which the crate's documents say.
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("plugin_runner") || metadata.level() <= Level::Debug
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{} {}: {}", record.level(), record.target(), record.args());
            self.0.lock().push(line);
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_line_of_the_crate_or_of_another_is_kept() {
    let lines = Lines(Mutex::default());
    let mut kept = Vec::new();
    for (target, level, is_kept) in [
        ("plugin_runner::rpc", Level::Trace, true),
        ("ureq::run", Level::Debug, true),
        ("ureq::run", Level::Trace, false),
    ] {
        let record = log::Record::builder()
            .target(target)
            .level(level)
            .args(format_args!("planted"))
            .build();
        log::Log::log(&lines, &record);
        kept.extend(is_kept.then(|| format!("{level} {target}: planted")));
    }
    assert_eq!(*lines.0.lock(), kept);
}
