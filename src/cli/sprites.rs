//! Plugins on sprites: the account from the environment, the name of the store that a kept data directory
//! remembers, and deleting the sprites of a run whose directory is temporary.

use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use plugin_runner::runtime::SpritesSettings;
use plugin_runner::{Host, InstallationId, Manager, PluginMode, Session, Store};

use super::data_dir::DataDir;
use super::error::CliError;
use super::run::RunArguments;
use super::run::say;
use super::source::NamedPlugin;

const KEY: &str = "SPRITES_API_KEY";
const URL: &str = "SPRITES_API_URL";
/// The host's note that distinguishes the sprites of this store from those of others.
const STORE_ID: &str = "store_id";
/// Deleting sprites for longer than this is said.
const SLOW: Duration = Duration::from_secs(1);

/// Returns the account that the environment names.
///
/// # Errors
/// [`CliError`] names what is missing.
pub(crate) fn settings(arguments: &RunArguments) -> Result<SpritesSettings, CliError> {
    let variable = |name| {
        let value = std::env::var(name).ok();
        value.filter(|value| !value.trim().is_empty())
    };
    let Some(key) = variable(KEY) else {
        return Err(CliError::usage(format!(
            "--runtime sprites needs the key of an account at sprites.dev in the environment variable {KEY}"
        )));
    };
    if arguments.public_url.is_none() {
        return Err(CliError::usage(format!(
            "--runtime sprites needs --public-url URL, such as wss://plugins.example.com, at which sprites reach \
             --listen {}",
            arguments.listen
        )));
    }
    let settings = SpritesSettings::new(key);
    Ok(match variable(URL) {
        Some(url) => settings.api_url(url),
        None => settings,
    })
}

/// Sets the id that the store had in the last run with this directory.
///
/// # Errors
/// [`CliError`] when the file with it cannot be read.
pub(crate) fn recall_store_id(store: &dyn Store, data: &DataDir) -> Result<(), CliError> {
    if let Some(id) = data.store_id()? {
        store.set_note(STORE_ID, Some(&id))?;
    }
    Ok(())
}

/// Keeps the store's id for the next run with this directory, which then finds its sprites again.
///
/// # Errors
/// [`CliError`] when the file with it cannot be written.
pub(crate) fn remember_store_id(store: &dyn Store, data: &DataDir) -> Result<(), CliError> {
    if data.is_kept()
        && data.store_id()?.is_none()
        && let Some(id) = store.notes(STORE_ID)?.get(STORE_ID)
    {
        data.set_store_id(id)?;
    }
    Ok(())
}

/// What came of deleting sprites.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    /// Plugins that had to be killed, because they did not end within the grace.
    pub(crate) killed: Vec<InstallationId>,
    /// What could not be deleted, and why.
    pub(crate) problems: Vec<String>,
}

/// Stops these plugins, all at once, and deletes their sprites.
pub(crate) fn delete(host: &Host, plugins: &[NamedPlugin], stop: Duration) -> Deleted {
    let supervised = |plugin: &&NamedPlugin| plugin.record.mode() == PluginMode::Supervised;
    let plugins: Vec<_> = plugins.iter().filter(supervised).collect();
    let mut deleted = Deleted::default();
    if plugins.is_empty() {
        return deleted;
    }
    let manager = match Manager::new(host.clone()) {
        Ok(manager) => manager,
        Err(error) => {
            let problem = format!("the sprites are not deleted: {error}");
            deleted.problems.push(problem);
            return deleted;
        }
    };
    thread::scope(|scope| {
        let stop = |plugin: &&NamedPlugin| {
            let id = plugin.record.id;
            let stop = move || stop_one(host, id, stop).then_some(id);
            let builder = thread::Builder::new().name("stop".to_owned());
            // Without a thread of its own its removal stops it.
            builder.spawn_scoped(scope, stop).ok()
        };
        let stops: Vec<_> = plugins.iter().filter_map(stop).collect();
        let stopped = stops.into_iter().filter_map(|stop| stop.join().ok());
        deleted.killed.extend(stopped.flatten());

        // Nothing is ever sent: it is closed at the end.
        let (deleting, ended) = bounded::<()>(0);
        let tell = move || {
            if ended.recv_timeout(SLOW) == Err(RecvTimeoutError::Timeout) {
                say("deleting the sprites; once more to leave them");
            }
        };
        let _ = thread::Builder::new().spawn_scoped(scope, tell);
        // One after another, as the host deletes them: each has its own time.
        for plugin in plugins {
            deleted.problems.extend(remove_one(&manager, plugin));
        }
        drop(deleting);
    });
    deleted
}

/// Returns whether it had to be killed. What goes wrong, its removal says.
fn stop_one(host: &Host, id: InstallationId, stop: Duration) -> bool {
    let session = host.session(id);
    let supervised = session.as_ref().and_then(Session::supervised);
    let report = supervised.and_then(|supervised| supervised.stop(stop).ok());
    report.is_some_and(|report| report.killed)
}

/// Returns what is left of it.
fn remove_one(manager: &Manager, plugin: &NamedPlugin) -> Option<String> {
    let problem = match manager.remove(plugin.record.id) {
        Ok(report) => report.left?,
        Err(error) => format!(
            "its sprite, whose name ends with {}, is left: {error}",
            plugin.record.id
        ),
    };
    let name = &plugin.name;
    Some(format!(
        "plugin {name}: {problem}; nothing tries again, so delete it by hand if it is there"
    ))
}
