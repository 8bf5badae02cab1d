//! `plugin-runner run`: hosts plugins in the foreground until it is asked to end.
//!
//! The calling thread waits for signals and for the end of everything; `printer` writes; all other
//! threads are the host's, except for those of `signals` and `pings`.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, select};
use plugin_runner::listener::Listener;
use plugin_runner::report::ShutdownReport;
use plugin_runner::store::{MemoryStore, PluginKind, Record, Source, Store};
use plugin_runner::{
    ActiveState, Host, InstallationId, PluginMode, ReportedState, RestartPolicy, RuntimeProvider,
    Session, StateChange, Timeouts,
};

use super::data_dir::DataDir;
use super::ending::{self, End, stop_timeout};
use super::error::CliError;
use super::lines::LineQueue;
use super::output::{Format, Human, Json, Notice, Paint};
use super::pings::Pings;
use super::printer::{Printer, notify};
use super::signals::{Hangup, Signals};
use super::source::{self, NamedPlugin};
#[cfg(feature = "sprites")]
use super::sprites;
use super::{RunArguments, Variable, keeper, sample};

/// How long sprites may still be deleted after a second signal.
const LAST_DELETIONS: Duration = Duration::from_secs(1);
/// How long the reader of standard output may take for the rest.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The message at the first request to end.
const STOPPING: &str = "stopping; once more to kill";

/// Why a run ends.
enum Ending {
    /// A signal.
    Asked,
    /// The reader of standard output has left, or it cannot be written.
    Output(io::Result<()>),
    /// There is nothing left that could run.
    AllErrored,
}

/// Hosts the plugins until the end.
///
/// # Errors
/// [`CliError`] when a plugin cannot be loaded, when all have errored, or when something could not
/// be ended.
pub(crate) fn run(arguments: &RunArguments) -> Result<(), CliError> {
    // First, so that from here on a signal ends the run in order.
    let signals = Signals::listen(Hangup::End).map_err(CliError::cannot("listen for signals"))?;
    let sampling = arguments.paths.is_empty() && arguments.external.is_empty();
    let mut records = records(arguments)?;
    let data = match &arguments.data {
        Some(path) => DataDir::named(path)?,
        None if records.iter().any(source::unpacks_its_program) => {
            let (dir, note) = DataDir::temporary_for_programs()?;
            if let Some(note) = note {
                say(&note);
            }
            dir
        }
        None => DataDir::temporary()?,
    };
    if sampling {
        records.push(sample_record(&data, arguments.runtime)?);
    }
    if data.is_kept() {
        for record in &mut records {
            if record.mode() == PluginMode::External {
                let token = data.token(record.id)?;
                record.kind = PluginKind::external(token);
            }
        }
    }
    let plugins = source::named(records);

    let lines = Arc::new(LineQueue::new(
        plugins.iter().map(|plugin| plugin.record.id),
    ));
    let host = host(arguments, &data, &plugins, lines.clone())?;
    let listener = host
        .listen(arguments.listen.as_str())
        .map_err(|error| CliError::from(error).about(format!("--listen {}", arguments.listen)))?;
    // Not before the arguments are known to be good.
    if sampling {
        say("no plugin given, so this runs the built-in sample; Ctrl-C ends it");
    }
    let format = if arguments.json {
        Format::Json(Json::new(&plugins))
    } else {
        Format::Human(Human::new(&plugins, Paint::for_stream(&io::stdout())))
    };
    let printer = Printer::start(format, host.subscribe(), lines)?;
    let changes = host.subscribe();

    let loaded = load(&host, &listener, &plugins, &printer);
    let pings = match loaded.as_deref() {
        Ok([session]) if sampling => Pings::start(session.clone(), printer.notices().clone()).ok(),
        _ => None,
    };
    let mut asked = false;
    let outcome = loaded.and_then(|sessions| {
        let ending = wait(&signals, &changes, &sessions, &printer);
        asked = matches!(ending, Ending::Asked);
        judge(ending, &plugins)
    });
    // Sprites go the way of the temporary directory.
    let is_elsewhere = arguments.runtime != RuntimeProvider::Local;
    let removed = (is_elsewhere && !data.is_kept()).then_some(&*plugins);
    let ended = shut_down(
        &host,
        arguments.stop_grace,
        &signals,
        asked,
        &plugins,
        removed.unwrap_or_default(),
    );
    drop(pings);
    printer.finish(LAST_WORDS);
    // The first error counts.
    outcome.and(ended)
}

/// Returns the plugins that the arguments name.
fn records(arguments: &RunArguments) -> Result<Vec<Record>, CliError> {
    let paths = arguments.paths.iter().map(|path| (path, true));
    let external = arguments.external.iter().map(|path| (path, false));
    let mut occurrences: HashMap<PathBuf, usize> = HashMap::new();
    let mut records = Vec::new();
    for (path, supervised) in paths.chain(external) {
        let record = if supervised {
            source::supervised(path)
        } else {
            source::external(path)
        };
        let mut record = record.map_err(|failure| failure.about(path.display()))?;
        if arguments.data.is_some() {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let occurrence = occurrences.entry(path.clone()).or_default();
            record.id = source::lasting_id(&record, &path, *occurrence);
            *occurrence += 1;
        }
        records.push(record);
    }
    Ok(records)
}

/// Returns the record of the sample, in a directory of its own: this very program, or a script where this
/// program is not. In a directory that is kept it is the same plugin in every run.
fn sample_record(data: &DataDir, runtime: RuntimeProvider) -> Result<Record, CliError> {
    let dir = data.path().join("sample");
    std::fs::create_dir_all(&dir).map_err(CliError::cannot(format!(
        "create the directory {}",
        dir.display()
    )))?;
    let manifest = if runtime == RuntimeProvider::Local {
        let program = std::env::current_exe();
        sample::manifest(&program.map_err(CliError::cannot("find this program's file"))?)
    } else {
        sample::script(&dir).map_err(CliError::cannot("write the sample's script"))?
    };
    let mut record = Record::supervised(manifest, Source::Directory(dir.clone()));
    if data.is_kept() {
        let path = dir.canonicalize().unwrap_or(dir);
        record.id = source::lasting_id(&record, &path, 0);
    }
    Ok(record)
}

fn host(
    arguments: &RunArguments,
    data: &DataDir,
    plugins: &[NamedPlugin],
    lines: Arc<LineQueue>,
) -> Result<Host, CliError> {
    let store = Arc::new(MemoryStore::default());
    for plugin in plugins {
        let mut record = plugin.record.clone();
        if record.mode() == PluginMode::Supervised {
            record.set_active_state(ActiveState::Active);
        }
        let variables = arguments.env.iter();
        let given = variables.filter_map(|one| Some((&one.name, one.value.as_ref()?)));
        record.overrides = record.overrides.environment(given);
        store.put(record)?;
    }
    let timeouts = Timeouts::default()
        .connect(arguments.connect_timeout)
        .stop_grace(arguments.stop_grace)
        .stop(stop_timeout(arguments.stop_grace));
    let policy = RestartPolicy::default()
        .max_restart_attempts(arguments.max_restart_attempts)
        .max_backoff(arguments.max_backoff)
        .crash_threshold(arguments.crash_threshold)
        .crash_backoff(arguments.crash_backoff);
    let mut builder = Host::builder()
        .data_dir(data.path())
        .timeouts(timeouts)
        .restart_policy(policy)
        .on_output(move |id, _, line| lines.push(id, line.stream, &line.text));
    if let Some(keeper) = keeper() {
        builder = builder.keeper(keeper);
    }
    for Variable { name, value } in &arguments.env {
        if value.is_none() {
            builder = builder.pass_variable(name);
        }
    }
    if let Some(url) = &arguments.public_url {
        builder = builder.rpc_base_url(url);
    }
    match arguments.runtime {
        #[cfg(feature = "sprites")]
        RuntimeProvider::Sprites => {
            builder = builder.sprites(sprites::settings(arguments)?);
            sprites::recall_store_id(&*store, data)?;
            let host = builder.store(store.clone()).build()?;
            sprites::remember_store_id(&*store, data)?;
            Ok(host)
        }
        runtime => Ok(builder.store(store).runtime_provider(runtime).build()?),
    }
}

/// Loads all plugins, which starts them.
fn load(
    host: &Host,
    listener: &Listener,
    plugins: &[NamedPlugin],
    printer: &Printer,
) -> Result<Vec<Session>, CliError> {
    let mut sessions = Vec::new();
    for plugin in plugins {
        let record = &plugin.record;
        let about = |failure: CliError| failure.about(format!("plugin {}", plugin.name));
        if let Some(token) = record.external_token() {
            let url = token
                .connection_url(&listener.base_url())
                .map_err(|error| about(error.to_string().into()))?;
            let plugin = record.id;
            notify(printer.notices(), Notice::External { plugin, url });
        }
        let session = host.load(record.id).map_err(|error| about(error.into()))?;
        sessions.push(session);
    }
    Ok(sessions)
}

/// Waits for a reason to end.
fn wait(
    signals: &Signals,
    changes: &Receiver<StateChange>,
    sessions: &[Session],
    printer: &Printer,
) -> Ending {
    loop {
        select! {
            recv(signals.received()) -> _ => {
                say(STOPPING);
                return Ending::Asked;
            }
            recv(printer.done()) -> result => {
                let failed = |_| Err(io::Error::other("the thread that writes it ended"));
                return Ending::Output(result.unwrap_or_else(failed));
            }
            recv(changes) -> _ => {
                // Read rather than taken from the changes, some of which may have been dropped.
                let errored = |session: &Session| {
                    session.reported_state() == ReportedState::Errored
                };
                if sessions.iter().all(errored) {
                    return Ending::AllErrored;
                }
            }
        }
    }
}

fn judge(ending: Ending, plugins: &[NamedPlugin]) -> Result<(), CliError> {
    match ending {
        Ending::Asked | Ending::Output(Ok(())) => Ok(()),
        // The reader has left, as `head` does.
        Ending::Output(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Ending::Output(Err(error)) => Err(CliError::cannot("write to standard output")(error)),
        Ending::AllErrored => {
            let which = match plugins {
                [plugin] => format!("plugin {} has", plugin.name),
                _ => format!("all {} plugins have", plugins.len()),
            };
            Err(format!("{which} errored, so nothing runs any more").into())
        }
    }
}

/// Stops everything in order, and deletes the sprites of the plugins that are `removed`.
fn shut_down(
    host: &Host,
    grace: Duration,
    signals: &Signals,
    asked: bool,
    plugins: &[NamedPlugin],
    removed: &[NamedPlugin],
) -> Result<(), CliError> {
    let timeout = stop_timeout(grace);
    let end = End {
        host,
        signals,
        asked,
        timeout,
        // Sprites that are being deleted.
        last: if removed.is_empty() {
            None
        } else {
            Some(LAST_DELETIONS)
        },
        say: &|| say(STOPPING),
        hurry: &|| {},
    };
    let (report, impatient) = end.by(|| {
        #[cfg(feature = "sprites")]
        let deleted = sprites::delete(host, removed, timeout);
        #[cfg_attr(not(feature = "sprites"), expect(unused_mut))]
        let mut report = host.shutdown(timeout);
        #[cfg(feature = "sprites")]
        {
            report.killed.extend(deleted.killed);
            deleted.problems.iter().for_each(|problem| say(problem));
        }
        report
    });
    tell(&report, impatient, grace, plugins)
}

fn tell(
    report: &ShutdownReport,
    impatient: bool,
    grace: Duration,
    plugins: &[NamedPlugin],
) -> Result<(), CliError> {
    let name = |id: &InstallationId| {
        let plugin = plugins.iter().find(|plugin| plugin.record.id == *id);
        plugin.map(|plugin| plugin.name.to_string())
    };
    ending::judge(report, impatient, grace, &name, &say)
}

/// Prints a message to standard error.
pub(super) fn say(text: &str) {
    // Without standard error there is no other way.
    // At once, or a line of standard output could come in between on a terminal.
    let _ = io::stderr().write_all(format!("plugin-runner: {text}\n").as_bytes());
}
