//! `plugin-runner run`: hosts plugins in the foreground until it is asked to end.
//!
//! The calling thread waits for signals and for the end of everything; `printer` writes; all other
//! threads are the host's, except for those of `signals`, `pings`, `talk` and `watch`.

mod answers;
mod arguments;
mod line;
mod stage;
mod talk;
mod watch;

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, never, select};
use parking_lot::Mutex;
use plugin_runner::listener::Listener;
use plugin_runner::report::ShutdownReport;
use plugin_runner::store::{MemoryStore, PluginKind, Record, Source, Store};
use plugin_runner::{
    ActiveState, Health, Host, InstallationId, PluginMode, ProcessLimits, RestartPolicy,
    RuntimeProvider, Session, StateChange, Timeouts,
};

use super::client::input;
use super::data_dir::DataDir;
use super::ending::{self, End, stop_timeout};
use super::error::CliError;
use super::lines::LineQueue;
use super::output::{Format, Human, Json, Notice, Paint};
use super::pings::Pings;
use super::printer::{self, Printer, notify};
use super::serve::values::Size;
use super::signals::{Hangup, Signals};
use super::source::{self, NamedPlugin};
#[cfg(feature = "sprites")]
use super::sprites;
use super::{Variable, keeper, sample};
use answers::Answers;
pub(crate) use arguments::RunArguments;
use stage::{Stage, Staged};
use talk::{Configured, Input, Talked};

pub(crate) const EXAMPLES: &str = "\
Examples:
  plugin-runner run ./hello
  plugin-runner run ./hello --watch --timestamps
  echo 'call ping' | plugin-runner run ./hello --stdin --config settings.json
  plugin-runner run --external chat.json --answer 'kv_get={\"value\": 1}'";

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
    /// All commands on standard input were done, or one of them was to end everything.
    Talked(Talked),
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
    // In the order of the records.
    let paths: Vec<_> = arguments.paths.iter().cloned().map(Some).collect();
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
    let mut plugins = source::named(records);
    let configurations = configure(&mut plugins, &arguments.config)?;

    let lines = Arc::new(LineQueue::new(
        plugins.iter().map(|plugin| plugin.record.id),
    ));
    let (notices, received_notices) = printer::notices();
    let answers = Answers::new(&arguments.answer, notices.clone())?;
    let store = Arc::new(MemoryStore::default());
    let host = host(
        arguments,
        &data,
        &plugins,
        (store.clone(), lines.clone(), answers),
    )?;
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
        let human = Human::new(&plugins, Paint::for_stream(&io::stdout()));
        Format::Human(human.with_times(arguments.timestamps))
    };
    let printer = Printer::start(format, host.subscribe(), lines, received_notices)?;
    let changes = host.subscribe();

    let loaded = load(&host, &listener, &plugins, &notices);
    let pings = match loaded.as_deref() {
        Ok([session]) if sampling => Pings::start(session.clone(), notices.clone()).ok(),
        _ => None,
    };
    let mut asked = false;
    let outcome = loaded.and_then(|_| {
        let paths = paths.into_iter().chain(std::iter::repeat(None));
        let staged = plugins.iter().zip(paths);
        let stage = Arc::new(Stage {
            host: host.clone(),
            store,
            plugins: staged
                .map(|(plugin, path)| Staged::new(plugin, path))
                .collect(),
            connect: arguments.connect_timeout,
            stop: stop_timeout(arguments.stop_grace),
            notices,
            reloading: Mutex::default(),
        });
        let input = Input::find(arguments.stdin);
        let talked = talk::start(stage.clone(), input, configurations)?;
        if arguments.watch {
            watch::start(stage.clone())?;
        }
        let ending = wait(&signals, &changes, &talked, &printer, || {
            !arguments.watch && stage.has_nothing_left()
        });
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

/// Sets the configurations that the arguments name, and returns them.
///
/// # Errors
/// [`CliError`] when one cannot be read, or it is not clear whose it is.
fn configure(plugins: &mut [NamedPlugin], files: &[String]) -> Result<Vec<Configured>, CliError> {
    let mut configurations = Vec::new();
    for text in files {
        let about = |error: CliError| error.about(format!("--config {text}"));
        let (plugin, file) = match &mut *plugins {
            [one] => (one, text.as_str()),
            several => {
                let named = text.split_once('=').and_then(|(name, file)| {
                    let mut several = several.iter_mut();
                    Some((several.find(|plugin| &*plugin.name == name)?, file))
                });
                named.ok_or_else(|| {
                    about(CliError::usage("there are several plugins: write ID=FILE"))
                })?
            }
        };
        let file = input::Object::File(file.into());
        let configuration = input::read_object(Some(&file)).map_err(about)?;
        let problems = plugin
            .record
            .manifest
            .configuration_problems(&configuration);
        for problem in &problems {
            say(&format!(
                "--config {text}: {}: {}",
                problem.field, problem.message
            ));
        }
        if !problems.is_empty() {
            return Err(about(CliError::usage(
                "the plugin's schema does not allow it",
            )));
        }
        plugin.record.configuration.clone_from(&configuration);
        configurations.push((plugin.record.id, configuration));
    }
    Ok(configurations)
}

/// What a host is made with: where its records are, and what its plugins' output and calls go to.
type Parts = (Arc<MemoryStore>, Arc<LineQueue>, Answers);

fn host(
    arguments: &RunArguments,
    data: &DataDir,
    plugins: &[NamedPlugin],
    (store, lines, answers): Parts,
) -> Result<Host, CliError> {
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
        .process_limits(limits(arguments))
        .services(answers)
        .on_output(move |id, _, line| lines.push(id, line.stream, &line.text));
    if arguments.no_health {
        builder = builder.health(Health::default().interval(Duration::ZERO));
    }
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

fn limits(arguments: &RunArguments) -> ProcessLimits {
    let mut limits = ProcessLimits::default();
    if let Some(Size(bytes)) = arguments.plugin_memory {
        limits = limits.memory(bytes);
    }
    if let Some(time) = arguments.plugin_cpu_time {
        limits = limits.cpu_time(time);
    }
    if let Some(processes) = arguments.plugin_processes {
        limits = limits.processes(processes);
    }
    if let Some(files) = arguments.plugin_open_files {
        limits = limits.open_files(files);
    }
    if let Some(nice) = arguments.plugin_nice {
        limits = limits.nice(nice);
    }
    limits
}

/// Loads all plugins, which starts them.
fn load(
    host: &Host,
    listener: &Listener,
    plugins: &[NamedPlugin],
    notices: &Sender<Notice>,
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
            let at = SystemTime::now();
            notify(notices, Notice::External { plugin, at, url });
        }
        let session = host.load(record.id).map_err(|error| about(error.into()))?;
        sessions.push(session);
    }
    Ok(sessions)
}

/// Waits for a reason to end. `is_over` is asked when a plugin's state has changed.
fn wait(
    signals: &Signals,
    changes: &Receiver<StateChange>,
    talked: &Receiver<Talked>,
    printer: &Printer,
    is_over: impl Fn() -> bool,
) -> Ending {
    // Whoever talks is gone if there is nothing to read.
    let mut talked = Some(talked);
    let silent = never();
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
            recv(talked.unwrap_or(&silent)) -> end => match end {
                Ok(end) => return Ending::Talked(end),
                Err(_) => talked = None,
            },
            recv(changes) -> _ => {
                // Read rather than taken from the changes, some of which may have been dropped.
                if is_over() {
                    return Ending::AllErrored;
                }
            }
        }
    }
}

fn judge(ending: Ending, plugins: &[NamedPlugin]) -> Result<(), CliError> {
    match ending {
        Ending::Asked | Ending::Output(Ok(())) | Ending::Talked(Talked { failed: 0 }) => Ok(()),
        Ending::Talked(Talked { failed }) => Err(match failed {
            1 => "a command failed".into(),
            failed => format!("{failed} commands failed").into(),
        }),
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
