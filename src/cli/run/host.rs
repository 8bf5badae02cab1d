//! The host of a run: what the arguments say of it, and loading its plugins.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::Sender;
use plugin_runner::listener::Listener;
use plugin_runner::store::{MemoryStore, Store as _};
use plugin_runner::{
    ActiveState, Health, Host, PluginMode, ProcessLimits, RestartPolicy, RuntimeProvider, Session,
    Timeouts,
};

use super::answers::Answers;
use super::arguments::RunArguments;
use super::say;
use super::talk::Configured;
use crate::cli::client::input;
use crate::cli::data_dir::DataDir;
use crate::cli::ending::stop_timeout;
use crate::cli::error::CliError;
use crate::cli::lines::LineQueue;
use crate::cli::output::Notice;
use crate::cli::printer::notify;
use crate::cli::serve::values::PluginLimits;
use crate::cli::source::NamedPlugin;
#[cfg(feature = "sprites")]
use crate::cli::sprites;
use crate::cli::{Variable, keeper};

/// Sets the configurations that the arguments name, and returns them.
///
/// # Errors
/// [`CliError`] when one cannot be read, or it is not clear whose it is.
pub(super) fn configure(
    plugins: &mut [NamedPlugin],
    files: &[String],
) -> Result<Vec<Configured>, CliError> {
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
pub(super) type Parts = (Arc<MemoryStore>, Arc<LineQueue>, Answers);

pub(super) fn host(
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
    ProcessLimits::from(PluginLimits {
        memory: arguments.plugin_memory,
        cpu_time: arguments.plugin_cpu_time,
        processes: arguments.plugin_processes,
        open_files: arguments.plugin_open_files,
        nice: arguments.plugin_nice,
    })
}

/// Loads all plugins, which starts them.
pub(super) fn load(
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
