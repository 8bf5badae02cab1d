//! `config`: a plugin's configuration.

use clap::{Args, Subcommand};
use plugin_runner::text::escape;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::api::Api;
use super::host::{Connection, HostArguments, Need};
use super::plugins::Plugin;
use super::progress::waiting;
use super::table::Table;
use super::{input, output, plugins};
use crate::cli::error::CliError;

const GET: &str = "\
Examples:
  plugin-runner config get hello";
const SET: &str = "\
Examples:
  plugin-runner config set hello greeting='good morning' volume=11
  plugin-runner config set hello --file settings.json";
const SCHEMA: &str = "\
Examples:
  plugin-runner config schema hello";

/// How similar a name must be to be suggested, from 0 to 1.
const SIMILAR: f64 = 0.75;

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show what is set.
    Get(Get),
    /// Change what is named, or with --file everything. A plugin that runs is asked whether it agrees.
    Set(Set),
    /// Show what can be set.
    Schema(Schema),
}

#[derive(Args, Debug)]
#[command(after_help = GET)]
pub(crate) struct Get {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Args, Debug)]
#[command(after_help = SCHEMA)]
pub(crate) struct Schema {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Args, Debug)]
#[command(after_help = SET)]
pub(crate) struct Set {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    /// Fields and their values, which are read as the schema says.
    #[arg(value_name = "KEY=VALUE", required_unless_present = "file", value_parser = assignment)]
    values: Vec<Assignment>,
    /// A file with a JSON object that replaces everything; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "values")]
    file: Option<String>,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Clone, Debug)]
struct Assignment {
    key: String,
    value: String,
}

#[derive(Deserialize)]
struct Fields {
    fields: Vec<Field>,
}

#[derive(Deserialize, Serialize)]
struct Field {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    label: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Value>,
}

impl Config {
    pub(super) fn run(&self) -> Result<(), CliError> {
        match self {
            Self::Get(get) => get.run(),
            Self::Set(set) => set.run(),
            Self::Schema(schema) => schema.run(),
        }
    }
}

impl Get {
    fn run(&self) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Installed)?;
        let plugin = plugins::find(&connection.api, &self.plugin)?;
        let stored: Map<String, Value> = connection.api.get(&plugin.path("/configuration"))?;
        if self.host.json {
            return output::json(&stored);
        }
        if stored.is_empty() {
            return output::line(&format!("nothing is set for {}", plugin.called()));
        }
        print(&stored)
    }
}

fn print(stored: &Map<String, Value>) -> Result<(), CliError> {
    let mut table = Table::new(&["KEY", "VALUE"]);
    for (key, value) in stored {
        table.row([key, &shown(value)]);
    }
    output::table(&table)
}

/// A text is shown without quotes, as `set` takes it.
fn shown(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

impl Schema {
    fn run(&self) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Installed)?;
        let plugin = plugins::find(&connection.api, &self.plugin)?;
        let Fields { fields } = fields(&connection.api, &plugin)?;
        if self.host.json {
            return fields.iter().try_for_each(output::json);
        }
        if fields.is_empty() {
            let called = plugin.called();
            return output::line(&format!(
                "{called} has no configuration schema: anything can be set"
            ));
        }
        let mut table = Table::new(&["KEY", "TYPE", "DEFAULT", "LABEL", "DESCRIPTION"])
            .sparing(&["LABEL", "DESCRIPTION"]);
        for field in &fields {
            let default = field.default.as_ref().map(shown).unwrap_or_default();
            let row = [
                &field.id,
                &field.kind,
                &default,
                &field.label,
                &field.description,
            ];
            table.row(row);
        }
        output::table(&table)
    }
}

fn fields(api: &Api, plugin: &Plugin) -> Result<Fields, CliError> {
    api.get(&plugin.path("/configuration-schema"))
}

impl Set {
    fn run(&self) -> Result<(), CliError> {
        let file = match &self.file {
            None => None,
            Some(path) if path == "-" => {
                Some(input::read_object(Some(&input::Object::StandardInput))?)
            }
            Some(path) => Some(input::read_object(Some(&input::Object::File(path.into())))?),
        };
        let connection = self.host.connect(Need::Installed)?;
        let api = &connection.api;
        let plugin = plugins::find(api, &self.plugin)?;
        let proposal = if let Some(whole) = file {
            whole
        } else {
            let Fields { fields } = fields(api, &plugin)?;
            let mut stored: Map<String, Value> = api.get(&plugin.path("/configuration"))?;
            for Assignment { key, value } in &self.values {
                stored.insert(key.clone(), typed(&fields, key, value)?);
            }
            stored
        };
        let called = plugin.called();
        let (stored, is_agreed) = propose(&connection, &plugin, &proposal.into())
            .map_err(|error| error.about(&called))?;
        if self.host.json {
            return output::json(&stored);
        }
        output::line(&if is_agreed {
            format!("{called} is configured")
        } else {
            format!("{called} is configured; it does not run, and is told when it starts")
        })
    }
}

/// Proposes a configuration to the plugin, or stores it if the plugin does not run. Returns what is stored, and whether
/// the plugin has agreed to it.
fn propose(
    connection: &Connection,
    plugin: &Plugin,
    proposal: &Value,
) -> Result<(Map<String, Value>, bool), CliError> {
    let api = &connection.api;
    let does_run = ["active", "connecting", "starting", "restarting"];
    let does_run = connection.has_host() && does_run.contains(&plugin.status.state.as_str());
    let query = if does_run { "" } else { "?propose=false" };
    let path = plugin.path(&format!("/configuration{query}"));
    let stored = waiting(&format!("configuring {}", plugin.called()), || {
        api.change(Method::PATCH, &path, Some(proposal))
    })?;
    Ok((stored, does_run))
}

/// Reads a value as the schema says.
fn typed(fields: &[Field], key: &str, text: &str) -> Result<Value, CliError> {
    let shown = escape(key).to_string();
    let Some(field) = fields.iter().find(|field| field.id == key) else {
        // Without a schema everything is a text, unless it can only be something else.
        if fields.is_empty() {
            return Ok(serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
        }
        let similar = fields
            .iter()
            .map(|field| (strsim::jaro(&field.id, key), field))
            .filter(|(similarity, _)| *similarity >= SIMILAR)
            .max_by(|one, other| one.0.total_cmp(&other.0));
        return Err(CliError::usage(match similar {
            Some((_, field)) => format!(
                "there is no field {shown:?}; did you mean {}?",
                escape(&field.id)
            ),
            None => format!(
                "there is no field {shown:?}; plugin-runner config schema shows those there are"
            ),
        }));
    };
    let wrong = |expected: &str| {
        let text = escape(text).to_string();
        CliError::usage(format!(
            "{shown}={text}: the field {shown} takes {expected}"
        ))
    };
    match &*field.kind {
        "number" => match serde_json::from_str(text) {
            Ok(number @ Value::Number(_)) => Ok(number),
            _ => Err(wrong("a number, such as 1.5")),
        },
        "boolean" => match text {
            "true" => Ok(json!(true)),
            "false" => Ok(json!(false)),
            _ => Err(wrong("true or false")),
        },
        _ => Ok(json!(text)),
    }
}

fn assignment(text: &str) -> Result<Assignment, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(Assignment {
            key: key.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Vec<Field> {
        let field = |id: &str, kind: &str| Field {
            id: id.to_owned(),
            kind: kind.to_owned(),
            label: String::new(),
            description: String::new(),
            default: None,
        };
        vec![
            field("greeting", "string"),
            field("volume", "number"),
            field("loud", "boolean"),
        ]
    }

    #[test]
    fn values_are_read_as_the_schema_says() {
        let typed = |key, text| typed(&schema(), key, text).map_err(|error| error.to_string());
        assert_eq!(typed("greeting", "11"), Ok(json!("11")));
        assert_eq!(typed("greeting", ""), Ok(json!("")));
        assert_eq!(typed("volume", "1.5"), Ok(json!(1.5)));
        assert_eq!(typed("loud", "true"), Ok(json!(true)));
        for (key, text, said) in [
            ("volume", "loud", "a number"),
            ("volume", "\"1\"", "a number"),
            ("loud", "yes", "true or false"),
            ("greting", "hi", "did you mean greeting"),
            ("colour", "red", "config schema"),
        ] {
            let problem = typed(key, text).unwrap_err();
            assert!(problem.contains(said), "{problem}");
        }
        let free = super::typed(&[], "any", "1").unwrap();
        assert_eq!(free, json!(1));
        assert_eq!(super::typed(&[], "any", "a b").unwrap(), json!("a b"));
    }
}
