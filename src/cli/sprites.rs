//! Plugins on sprites: the account from the environment, the name of the store that a kept data directory
//! remembers, and deleting the sprites of a run whose directory is temporary.

use plugin_runner::runtime::SpritesSettings;
use plugin_runner::{Host, Manager, PluginMode, Store};

use super::RunArguments;
use super::data_dir::DataDir;
use super::error::CliError;
use super::source::NamedPlugin;

const KEY: &str = "SPRITES_API_KEY";
const URL: &str = "SPRITES_API_URL";
/// The host's note that distinguishes the sprites of this store from those of others.
const STORE_ID: &str = "store_id";

/// Returns the account that the environment names.
///
/// # Errors
/// [`CliError`] names what is missing.
pub(crate) fn settings(arguments: &RunArguments) -> Result<SpritesSettings, CliError> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(key) = variable(KEY) else {
        return Err(CliError::usage(format!(
            "--runtime sprites needs the account's key in the environment variable {KEY}"
        )));
    };
    if arguments.public_url.is_none() {
        return Err(CliError::usage(format!(
            "--runtime sprites needs --public-url URL, at which sprites reach --listen {}",
            arguments.listen
        )));
    }
    let settings = SpritesSettings::new(key);
    Ok(match variable(URL) {
        Some(url) => settings.api_url(url),
        None => settings,
    })
}

/// Gives the store the id that it had in the last run with this directory.
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

/// Stops these plugins and deletes their sprites; returns what could not be done.
pub(crate) fn delete(host: &Host, plugins: &[NamedPlugin]) -> Vec<String> {
    let supervised = |plugin: &&NamedPlugin| plugin.record.mode() == PluginMode::Supervised;
    let plugins: Vec<_> = plugins.iter().filter(supervised).collect();
    if plugins.is_empty() {
        return Vec::new();
    }
    let manager = match Manager::new(host.clone()) {
        Ok(manager) => manager,
        Err(error) => return vec![format!("the sprites are not deleted: {error}")],
    };
    let remove = |plugin: &NamedPlugin| match manager.remove(plugin.record.id) {
        Ok(report) => report.left,
        Err(error) => Some(error.to_string()),
    };
    let problems = plugins.into_iter().filter_map(|plugin| {
        let problem = remove(plugin)?;
        Some(format!("plugin {}: {problem}", plugin.name))
    });
    problems.collect()
}
