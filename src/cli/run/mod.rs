//! `plugin-runner run`: hosts plugins in the foreground until it is asked to end.
//!
//! The calling thread waits for signals and for the end of everything; `printer` writes; all other
//! threads are the host's, except for those of `signals`, `pings`, `talk` and `watch`.

mod answers;
mod arguments;
mod host;
mod line;
mod records;
mod stage;
mod talk;
mod watch;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, never, select};
use parking_lot::Mutex;
use plugin_runner::report::ShutdownReport;
use plugin_runner::store::{MemoryStore, PluginKind, Record};
use plugin_runner::{Host, InstallationId, PluginMode, RuntimeProvider, StateChange};

use super::data_dir::DataDir;
use super::ending::{self, End, stop_timeout};
use super::error::CliError;
use super::lines::LineQueue;
use super::output::{Format, Human, Json, Paint};
use super::pings::Pings;
use super::printer::{self, Printer};
use super::signals::{Hangup, Signals};
use super::source::{self, NamedPlugin};
#[cfg(feature = "sprites")]
use super::sprites;
use answers::Answers;
pub(crate) use arguments::RunArguments;
use host::{configure, host, load};
use records::{records, sample_record};
use stage::{Stage, Staged};
use talk::{Input, Talked};

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
    let data = data_dir(arguments, &records)?;
    DataDir::remove_leftovers();
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
    let format = format(arguments, &plugins);
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

fn data_dir(arguments: &RunArguments, records: &[Record]) -> Result<DataDir, CliError> {
    match &arguments.data {
        Some(path) => DataDir::named(path),
        None if records.iter().any(source::unpacks_its_program) => {
            let (dir, note) = DataDir::temporary_for_programs()?;
            if let Some(note) = note {
                say(&note);
            }
            Ok(dir)
        }
        None => DataDir::temporary(),
    }
}

fn format(arguments: &RunArguments, plugins: &[NamedPlugin]) -> Format {
    if arguments.json {
        return Format::Json(Json::new(plugins));
    }
    let human = Human::new(plugins, Paint::for_stream(&io::stdout()));
    Format::Human(human.with_times(arguments.timestamps))
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
