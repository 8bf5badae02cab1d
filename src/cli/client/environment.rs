//! `env`: variables that a plugin has in its environment besides the host's.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::host::{HostArguments, Need};
use super::plugins::Plugin;
use super::table::Table;
use super::{output, plugins};
use crate::cli::error::CliError;
use crate::cli::{Variable, variable};

const LIST: &str = "\
Examples:
  plugin-runner env list hello
  plugin-runner env list hello --show";
const SET: &str = "\
Examples:
  plugin-runner env set hello LEVEL=debug
  HOME_TOKEN=secret plugin-runner env set hello HOME_TOKEN";
const UNSET: &str = "\
Examples:
  plugin-runner env unset hello LEVEL";

#[derive(Debug, Subcommand)]
pub(crate) enum Env {
    /// List the names of the variables, or with --show their values too.
    List(List),
    /// Set variables, from the plugin's next start on.
    Set(Set),
    /// Remove variables, from the plugin's next start on.
    Unset(Unset),
}

#[derive(Args, Debug)]
#[command(after_help = LIST)]
pub(crate) struct List {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    /// Show the values, which may be secrets.
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Args, Debug)]
#[command(after_help = SET)]
pub(crate) struct Set {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    /// A variable with its value; without one it has this program's, so that no other user sees it.
    #[arg(value_name = "NAME[=VALUE]", required = true, value_parser = variable)]
    variables: Vec<Variable>,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Args, Debug)]
#[command(after_help = UNSET)]
pub(crate) struct Unset {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    /// Names of variables.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Deserialize)]
struct Overrides {
    environment: Value,
}

impl Env {
    pub(super) fn run(&self) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run(),
            Self::Set(set) => set.run(),
            Self::Unset(unset) => unset.run(),
        }
    }
}

impl List {
    fn run(&self) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Installed)?;
        let plugin = plugins::find(&connection.api, &self.plugin)?;
        let query = if self.show { "?values=true" } else { "" };
        let path = plugin.path(&format!("/overrides{query}"));
        let Overrides { environment } = connection.api.get(&path)?;
        if self.host.json {
            return output::json(&json!({ "installation": plugin.id, "environment": environment }));
        }
        let empty = environment.as_array().is_none_or(Vec::is_empty)
            && environment.as_object().is_none_or(Map::is_empty);
        if empty {
            return output::line(&format!("no variable is set for {}", plugin.called()));
        }
        if let Some(names) = environment.as_array() {
            let mut names = names.iter().filter_map(Value::as_str);
            return names.try_for_each(output::line);
        }
        let mut table = Table::new(&["NAME", "VALUE"]);
        for (name, value) in environment.as_object().into_iter().flatten() {
            table.row([name.as_str(), value.as_str().unwrap_or_default()]);
        }
        output::table(&table)
    }
}

impl Set {
    fn run(&self) -> Result<(), CliError> {
        let mut environment = Map::new();
        for Variable { name, value } in &self.variables {
            let value = match value {
                Some(value) => value.clone(),
                None => std::env::var(name).map_err(|_| {
                    CliError::usage(format!(
                        "{name} is not in the environment; write {name}=VALUE"
                    ))
                })?,
            };
            environment.insert(name.clone(), value.into());
        }
        let names = self.variables.iter().map(|variable| variable.name.as_str());
        change(&self.host, &self.plugin, environment, "set", names)
    }
}

impl Unset {
    fn run(&self) -> Result<(), CliError> {
        let names = || self.names.iter().map(String::as_str);
        let environment = names().map(|name| (name.to_owned(), Value::Null));
        change(
            &self.host,
            &self.plugin,
            environment.collect(),
            "removed",
            names(),
        )
    }
}

fn change<'a>(
    host: &HostArguments,
    name: &str,
    environment: Map<String, Value>,
    done: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), CliError> {
    let connection = host.connect(Need::Installed)?;
    let api = &connection.api;
    let plugin = plugins::find(api, name)?;
    let body = json!({ "environment": environment });
    let changed: Value = api
        .change(Method::PATCH, &plugin.path("/overrides"), Some(&body))
        .map_err(|error| error.about(plugin.called()))?;
    if host.json {
        return output::json(&json!({
            "installation": plugin.id,
            "environment": changed["environment"],
        }));
    }
    let names = names.collect::<Vec<_>>().join(", ");
    let called = plugin.called();
    output::line(&format!("{called}: {names} {done}{}", counts_from(&plugin)))
}

/// Says from when on a change counts.
pub(super) fn counts_from(plugin: &Plugin) -> String {
    match &*plugin.status.state {
        "inactive" | "error" => String::new(),
        _ => format!(
            "; it counts after plugin-runner restart {}",
            plugin.manifest.id
        ),
    }
}
