//! `versions` and `rollback`: what a plugin was before.

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, json};
use ureq::http::Method;

use super::host::{HostArguments, Need};
use super::plugins::{self, Plugin};
use super::progress::waiting;
use super::table::Table;
use super::{output, time};
use crate::cli::error::CliError;

const VERSIONS: &str = "\
Examples:
  plugin-runner versions hello";
const ROLLBACK: &str = "\
Examples:
  plugin-runner rollback hello
  plugin-runner rollback hello --to 1.0.0";

#[derive(Args, Debug)]
#[command(after_help = VERSIONS)]
pub(crate) struct Versions {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Args, Debug)]
#[command(after_help = ROLLBACK)]
pub(crate) struct Rollback {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    /// The version, or a beginning of its SHA-256 [default: the one before the current one].
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Deserialize)]
struct List {
    versions: Vec<Release>,
}

#[derive(Deserialize, Serialize)]
struct Release {
    version: String,
    sha256: String,
    size: u64,
    is_current: bool,
    used_from: Option<String>,
    used_until: Option<String>,
}

impl Versions {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Installed)?;
        let plugin = plugins::find(&connection.api, &self.plugin)?;
        let List { versions } = connection.api.get(&plugin.path("/versions"))?;
        if self.host.json {
            return versions.iter().try_for_each(|version| {
                let mut line = Map::new();
                line.insert("installation".to_owned(), json!(plugin.id));
                if let Ok(serde_json::Value::Object(members)) = serde_json::to_value(version) {
                    line.extend(members);
                }
                output::json(&line)
            });
        }
        let mut table = Table::new(&["VERSION", "SHA-256", "BYTES", "USED FROM", "UNTIL"]);
        for version in &versions {
            let until = match &version.used_until {
                _ if version.is_current => "now".to_owned(),
                Some(until) => time::at_and_ago(until),
                None => String::new(),
            };
            table.row([
                version.version.as_str(),
                &version.sha256[..version.sha256.len().min(12)],
                &version.size.to_string(),
                &version
                    .used_from
                    .as_deref()
                    .map(time::at_and_ago)
                    .unwrap_or_default(),
                &until,
            ]);
        }
        output::table(&table)
    }
}

impl Rollback {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Host)?;
        let api = &connection.api;
        let plugin = plugins::find(api, &self.plugin)?;
        let called = plugin.called();
        let body = match &self.to {
            Some(to) => json!({ "to": to }),
            None => json!({}),
        };
        let back: Box<RawValue> = waiting(&format!("rolling back {called}"), || {
            api.change(Method::POST, &plugin.path("/rollback"), Some(&body))
        })
        .map_err(|error| error.about(&called))?;
        if self.host.json {
            return output::json(&back);
        }
        let back: Plugin =
            serde_json::from_str(back.get()).map_err(CliError::cannot("read the answer"))?;
        let state = back.status.state;
        let version = back.version;
        output::line(&format!(
            "{called} is {version} again, and {state}; it was {}",
            plugin.version
        ))
    }
}
