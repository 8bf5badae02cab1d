//! `Plugin`: an installed plugin as the API shows it, and finding one by what people call it.

use plugin_runner::InstallationId;
use plugin_runner::text::escape;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::api::Api;
use crate::cli::error::CliError;

/// How similar a name must be to be suggested, from 0 to 1.
const SIMILAR: f64 = 0.75;
/// How many plugins a message names.
const NAMED: usize = 5;

#[derive(Debug, Deserialize)]
pub(super) struct Plugin {
    pub(super) id: InstallationId,
    pub(super) added_at: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) version: String,
    pub(super) manifest: Manifest,
    pub(super) connection: Connection,
    pub(super) status: Status,
}

#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) author: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Connection {
    pub(super) mode: String,
    /// Only when it was just made.
    pub(super) token: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Status {
    #[serde(rename = "active_state")]
    pub(super) state: String,
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) details: Map<String, Value>,
    /// The rest is one time: since when it is so.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Status {
    /// Returns since when it is so, in RFC 3339, if the host says so.
    pub(super) fn since(&self) -> Option<&str> {
        let mut times = self.rest.iter().filter(|(name, _)| name.ends_with("_at"));
        times.find_map(|(_, time)| time.as_str())
    }
}

/// Everything that is installed.
#[derive(Deserialize)]
struct List<T> {
    plugins: Vec<T>,
}

/// Returns everything that is installed, each as the API shows it.
///
/// # Errors
/// As [`Api::get`].
pub(super) fn list<T: serde::de::DeserializeOwned>(api: &Api) -> Result<Vec<T>, CliError> {
    Ok(api.get::<List<T>>("/api/plugins")?.plugins)
}

/// Finds the plugin that is called so: by its installation's id, a beginning of that which no other has, or the id in
/// its manifest if no other has it.
///
/// # Errors
/// As [`Api::get`]; [`CliError::no_such_plugin`] when there is none, or more than one.
pub(super) fn find(api: &Api, name: &str) -> Result<Plugin, CliError> {
    chosen(list(api)?, name)
}

fn chosen(plugins: Vec<Plugin>, name: &str) -> Result<Plugin, CliError> {
    let ways: [&dyn Fn(&Plugin) -> bool; 3] = [
        &|plugin| plugin.id.to_string() == name,
        &|plugin| plugin.manifest.id == name,
        &|plugin| !name.is_empty() && plugin.id.to_string().starts_with(name),
    ];
    for is_meant in ways {
        let found: Vec<_> = plugins.iter().filter(|plugin| is_meant(plugin)).collect();
        match &*found {
            [] => {}
            [one] => {
                let id = one.id;
                let mut all = plugins.into_iter();
                // It was found among them.
                return all.find(|plugin| plugin.id == id).ok_or_else(|| {
                    CliError::no_such_plugin(format!("there is no plugin {:?}", escape(name)))
                });
            }
            several => {
                let several = ambiguous(name, several);
                return Err(several.with("name the one that is meant by its id"));
            }
        }
    }
    let shown = escape(name);
    let similar = plugins
        .iter()
        .map(|plugin| (strsim::jaro(&plugin.manifest.id, name), plugin))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    Err(CliError::no_such_plugin(match similar {
        Some((_, plugin)) => format!(
            "there is no plugin {shown:?}; did you mean {}?",
            plugin.called()
        ),
        None if plugins.is_empty() => {
            format!(
                "there is no plugin {shown:?}: nothing is installed; see plugin-runner install --help"
            )
        }
        None => format!("there is no plugin {shown:?}; plugin-runner list shows those there are"),
    }))
}

/// Returns an error for a name that fits several plugins. The way out depends on the command.
pub(super) fn ambiguous(name: &str, several: &[&Plugin]) -> CliError {
    let several: Vec<_> = several.iter().map(|plugin| plugin.called()).collect();
    CliError::no_such_plugin(format!(
        "{:?} may be any of {}",
        escape(name),
        some(&several)
    ))
}

impl Plugin {
    /// Returns what it is called in a message: its manifest's id, and its own.
    pub(super) fn called(&self) -> String {
        format!("{} ({})", escape(&self.manifest.id), self.id)
    }

    /// Returns the path of one of its operations, such as `/logs`; of the plugin itself if that is empty.
    pub(super) fn path(&self, operation: &str) -> String {
        format!("/api/plugins/{}{operation}", self.id)
    }
}

fn some(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
