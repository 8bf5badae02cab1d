//! `Stage`: the plugins of a run, by their names, and what can be done with them while they run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use plugin_runner::protocol::method::{Ack, Configure};
use plugin_runner::report::Delivery;
use plugin_runner::store::{MemoryStore, Store as _};
use plugin_runner::{
    ActiveState, Host, InstallationId, PluginMode, Record, ReportedState, Session,
};
use serde_json::{Map, Value, json};

use super::line::{Command, HELP};
use crate::cli::output::Notice;
use crate::cli::source::{self, NamedPlugin};

/// How long plugins have to take an event before it is shown that they have not.
const EVENT: Duration = Duration::from_secs(10);
/// How long a plugin has to answer.
const CALL: Duration = Duration::from_secs(30);

/// A plugin, and where it was taken from.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) id: InstallationId,
    pub(super) name: Arc<str>,
    /// The directory or archive that its user works on, if it has one.
    pub(super) path: Option<PathBuf>,
}

/// The plugins of a run.
pub(super) struct Stage {
    pub(super) host: Host,
    pub(super) store: Arc<MemoryStore>,
    pub(super) plugins: Vec<Staged>,
    /// How long a plugin may take to come up, and to end.
    pub(super) connect: Duration,
    pub(super) stop: Duration,
    pub(super) notices: Sender<Notice>,
    /// Held while a plugin is taken away and comes back.
    pub(super) reloading: Mutex<()>,
}

/// What came of a command: what is shown, or a sentence.
pub(super) type Outcome = Result<Value, String>;

impl Staged {
    /// Returns a plugin with where it was taken from.
    pub(super) fn new(plugin: &NamedPlugin, path: Option<PathBuf>) -> Self {
        Self {
            id: plugin.record.id,
            name: plugin.name.clone(),
            path,
        }
    }
}

impl Stage {
    pub(super) fn names(&self) -> Vec<&str> {
        self.plugins.iter().map(|plugin| &*plugin.name).collect()
    }

    /// Returns the plugin that a command is for.
    ///
    /// # Errors
    /// A sentence: there are several, and none is named.
    pub(super) fn meant(&self, name: Option<&str>) -> Result<&Staged, String> {
        let names = || self.names().join(", ");
        match (name, &*self.plugins) {
            (None, [one]) => Ok(one),
            (None, _) => Err(format!("which one? begin with {}", names())),
            (Some(name), plugins) => plugins
                .iter()
                .find(|plugin| &*plugin.name == name)
                .ok_or_else(|| format!("there is no {name}, but {}", names())),
        }
    }

    fn session(&self, plugin: &Staged) -> Result<Session, String> {
        let session = self.host.session(plugin.id);
        session.ok_or_else(|| "it is not loaded".to_owned())
    }

    fn record(&self, plugin: &Staged) -> Result<Record, String> {
        let record = self
            .store
            .get(plugin.id)
            .map_err(|error| error.to_string())?;
        record.ok_or_else(|| "its record is gone".to_owned())
    }

    /// Waits until a plugin is active, if it is on its way there.
    fn active(&self, plugin: &Staged) -> Result<Session, String> {
        let session = self.session(plugin)?;
        match session.reported_state() {
            ReportedState::Active => {}
            ReportedState::Inactive | ReportedState::Stopping => {
                return Err("it does not run; start starts it".to_owned());
            }
            ReportedState::Errored => {
                return Err("it has errored; start starts it again".to_owned());
            }
            _ => session
                .wait_for(ReportedState::Active, self.connect)
                .map_err(|error| error.to_string())?,
        }
        Ok(session)
    }

    /// Does what a command says, and shows what comes of it. Returns whether that succeeded.
    ///
    /// Blocks until the plugin is active, at most for its time to connect, and then for its answer, at most 30
    /// seconds. The end of the host ends both.
    pub(super) fn perform(&self, name: Option<&str>, command: &Command) -> bool {
        let mut began = Instant::now();
        let (plugin, outcome) = match command {
            Command::Event(event, payload) => (None, self.publish(event, payload)),
            Command::Help => (None, Ok(json!(HELP))),
            _ => match self.meant(name) {
                Ok(plugin) => {
                    let outcome = self.ready(plugin, command).and_then(|()| {
                        // Without the time until it is up.
                        began = Instant::now();
                        self.perform_with(plugin, command)
                    });
                    (Some(plugin.id), outcome)
                }
                Err(problem) => (None, Err(problem)),
            },
        };
        let is_done = outcome.is_ok();
        self.show(plugin, command.to_string(), outcome, Some(began.elapsed()));
        is_done
    }

    /// Waits for what a command needs.
    fn ready(&self, plugin: &Staged, command: &Command) -> Result<(), String> {
        match command {
            Command::Call(..) | Command::Configure(_) => self.active(plugin).map(drop),
            _ => Ok(()),
        }
    }

    fn perform_with(&self, plugin: &Staged, command: &Command) -> Outcome {
        match command {
            Command::Call(method, params) => {
                let reply = self.session(plugin)?.call_raw(method, params, CALL);
                let reply = reply.map_err(|error| error.to_string())?;
                serde_json::from_str(reply.as_json()).map_err(|error| error.to_string())
            }
            Command::Configure(configuration) => self.configure(plugin, configuration),
            Command::Restart => self.restart(plugin),
            Command::Stop => {
                self.supervised(plugin)?
                    .stop(self.stop)
                    .map_err(|error| error.to_string())?;
                Ok(json!("stopped"))
            }
            Command::Start => {
                let session = self.supervised(plugin)?;
                session.start().map_err(|error| error.to_string())?;
                Ok(json!("started"))
            }
            Command::State => {
                let session = self.session(plugin)?;
                let state = session.reported_state().as_str();
                Ok(match session.error_message() {
                    Some(message) => json!(format!("{state}: {message}")),
                    None => json!(state),
                })
            }
            Command::Event(..) | Command::Help | Command::Quit => Ok(Value::Null),
        }
    }

    fn supervised(&self, plugin: &Staged) -> Result<plugin_runner::Supervised, String> {
        let session = self.session(plugin)?;
        session
            .supervised()
            .ok_or_else(|| "it runs elsewhere, and is started and stopped there".to_owned())
    }

    fn publish(&self, event: &str, payload: &Map<String, Value>) -> Outcome {
        // Those that are on their way would miss it. What runs elsewhere may never come.
        for plugin in &self.plugins {
            if self.supervised(plugin).is_ok() {
                let _ = self.active(plugin);
            }
        }
        let delivered = self.host.publish_and_wait(event, payload, EVENT);
        let delivered = delivered.map_err(|error| error.to_string())?;
        if delivered.is_empty() {
            return Err(format!(
                "no active plugin consumes {event:?}; its manifest names it in events_consumed"
            ));
        }
        let all: Map<_, _> = self
            .plugins
            .iter()
            .filter_map(|plugin| Some((plugin.name.to_string(), json!(delivered.get(&plugin.id)?))))
            .collect();
        if delivered
            .values()
            .all(|delivery| *delivery == Delivery::Delivered)
        {
            return Ok(all.into());
        }
        Err(Value::from(all).to_string())
    }

    /// Proposes a configuration to a plugin, and keeps it if the plugin accepts it.
    pub(super) fn configure(&self, plugin: &Staged, configuration: &Map<String, Value>) -> Outcome {
        let session = self.active(plugin)?;
        let problems = session.manifest().configuration_problems(configuration);
        if !problems.is_empty() {
            let problems = problems
                .iter()
                .map(|problem| format!("{}: {}", problem.field, problem.message));
            return Err(problems.collect::<Vec<_>>().join("; "));
        }
        match session.call(&Configure(configuration.clone()), CALL) {
            Ok(Ack { ok: true }) => {}
            Ok(Ack { ok: false }) => return Err("the plugin refuses it".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        let mut record = self.record(plugin)?;
        record.configuration.clone_from(configuration);
        self.store.put(record).map_err(|error| error.to_string())?;
        Ok(json!("accepted"))
    }

    /// Takes a plugin away, and brings it back as it is in its directory or archive now.
    pub(super) fn restart(&self, plugin: &Staged) -> Outcome {
        let _reloading = self.reloading.lock();
        self.supervised(plugin)?;
        let mut record = self.record(plugin)?;
        if let Some(path) = &plugin.path {
            // What cannot be read any more does not end what runs.
            let now = source::supervised(path).map_err(|error| error.to_string())?;
            record.manifest = now.manifest;
            record.kind = now.kind;
        }
        record.set_active_state(ActiveState::Active);
        self.host
            .unload(plugin.id)
            .map_err(|error| error.to_string())?;
        self.store.put(record).map_err(|error| error.to_string())?;
        self.host
            .load(plugin.id)
            .map_err(|error| error.to_string())?;
        Ok(json!("started again"))
    }

    /// Whether none of the plugins could run any more by itself.
    pub(super) fn has_nothing_left(&self) -> bool {
        self.plugins.iter().all(|plugin| {
            let session = self.host.session(plugin.id);
            session.is_some_and(|session| session.reported_state() == ReportedState::Errored)
        })
    }

    /// Shows what came of something.
    ///
    /// Blocks while the output is not read, so that no reply is lost. The end of the process ends that.
    pub(super) fn show(
        &self,
        plugin: Option<InstallationId>,
        command: String,
        outcome: Outcome,
        took: Option<Duration>,
    ) {
        let at = SystemTime::now();
        let notice = Notice::Reply {
            plugin,
            at,
            command,
            outcome,
            took,
        };
        // The receiver is gone if the output cannot be written any more.
        let _ = self.notices.send(notice);
    }

    /// Returns the plugins whose files can change.
    pub(super) fn watched(&self) -> impl Iterator<Item = (&Staged, &PathBuf)> {
        let plugins = self.plugins.iter();
        plugins.filter_map(|plugin| {
            let session = self.host.session(plugin.id)?;
            let path = plugin.path.as_ref()?;
            (session.mode() == PluginMode::Supervised).then_some((plugin, path))
        })
    }
}
