//! `versions` and `rollback`: what a plugin was before.

use clap::Args;
use plugin_runner::text::escape;
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

/// How many versions a message names.
const NAMED: usize = 10;

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
        let List { versions } = connection
            .api
            .get(&plugin.path("/versions"))
            .map_err(|error: CliError| error.about(plugin.called()))?;
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
        let mut table = Table::new(&["VERSION", "SHA-256", "BYTES", "USED FROM", "UNTIL"])
            .sparing(&["BYTES", "SHA-256"]);
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

/// Finds the version that is called so: by its name, of which it takes the one that was used last before the current
/// one, or by a beginning of its SHA-256 that no other has.
///
/// # Errors
/// [`CliError`] names those there are.
fn chosen<'a>(versions: &'a [Release], to: &str) -> Result<&'a Release, CliError> {
    let named = || versions.iter().filter(|version| version.version == to);
    // The current one only if there is no other of that name: the host says then that it is in use.
    let earlier = named().find(|version| !version.is_current);
    if let Some(version) = earlier.or_else(|| named().next()) {
        return Ok(version);
    }
    let start = to.to_ascii_lowercase();
    let begin: Vec<_> = versions
        .iter()
        .filter(|version| !to.is_empty() && version.sha256.starts_with(&start))
        .collect();
    match &*begin {
        [one] => Ok(one),
        [] => {
            let kept: Vec<_> = versions
                .iter()
                .take(NAMED)
                .map(|version| escape(&version.version).to_string())
                .collect();
            Err(format!(
                "no version {:?} of it is kept; there are {}",
                escape(to),
                kept.join(", ")
            )
            .into())
        }
        _ => Err(format!(
            "several versions begin with {:?}; write more of the SHA-256",
            escape(to)
        )
        .into()),
    }
}

impl Rollback {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Host)?;
        let api = &connection.api;
        let plugin = plugins::find(api, &self.plugin)?;
        let called = plugin.called();
        let body = match &self.to {
            Some(to) => {
                let List { versions } = api.get(&plugin.path("/versions"))?;
                let to = chosen(&versions, to).map_err(|error| error.about(&called))?;
                json!({ "to": to.sha256 })
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str, sha256: &str, is_current: bool) -> Release {
        Release {
            version: version.to_owned(),
            sha256: sha256.to_owned(),
            size: 1,
            is_current,
            used_from: None,
            used_until: None,
        }
    }

    #[test]
    fn a_version_is_found_by_its_name_and_by_the_beginning_of_its_hash() {
        let versions = [
            release("2.0.0", "aa11", true),
            release("2.0.0", "ab22", false),
            release("1.0.0", "cc33", false),
        ];
        let found = |to| chosen(&versions, to).map(|version| &*version.sha256);
        assert_eq!(found("1.0.0").unwrap(), "cc33");
        assert_eq!(
            found("2.0.0").unwrap(),
            "ab22",
            "the current one is of no use"
        );
        assert_eq!(found("CC").unwrap(), "cc33");
        assert_eq!(found("aa1").unwrap(), "aa11");
        let said = |to| found(to).unwrap_err().to_string();
        assert_eq!(
            said("a"),
            r#"several versions begin with "a"; write more of the SHA-256"#
        );
        for to in ["", "3.0.0"] {
            let expected =
                format!("no version {to:?} of it is kept; there are 2.0.0, 2.0.0, 1.0.0");
            assert_eq!(said(to), expected);
        }
    }
}
