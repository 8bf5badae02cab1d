//! `limits`: what a plugin's processes may use.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::environment::counts_from;
use super::host::{HostArguments, Need};
use super::table::Table;
use super::{output, plugins};
use crate::cli::duration;
use crate::cli::error::CliError;
use crate::cli::serve::values::{self, Size};

const EXAMPLES: &str = "\
Examples:
  plugin-runner limits hello
  plugin-runner limits hello --memory 4GiB --open-files 256
  plugin-runner limits hello --memory none";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Limits {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    /// Address space of each process, such as 512MiB; none for the host's own limit.
    #[arg(long, value_name = "SIZE", value_parser = clearable(values::size))]
    memory: Option<Limit<Size>>,
    /// Processor time of each process, such as 1h.
    #[arg(long, value_name = "D", value_parser = clearable(duration::parse_positive))]
    cpu_time: Option<Limit<Duration>>,
    /// Processes and threads of the user that plugins run as.
    #[arg(long, value_name = "N", value_parser = clearable(values::positive))]
    processes: Option<Limit<u64>>,
    /// Open descriptors of each process.
    #[arg(long, value_name = "N", value_parser = clearable(values::positive))]
    open_files: Option<Limit<u64>>,
    /// Scheduling priority, from -20, the highest, to 19.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clearable(values::nice))]
    nice: Option<Limit<i32>>,
    #[command(flatten)]
    host: HostArguments,
}

/// A limit, or none of the plugin's own.
#[derive(Clone, Copy, Debug)]
enum Limit<T> {
    Own(T),
    None,
}

#[derive(Deserialize)]
struct Overrides {
    #[serde(default)]
    process_limits: Map<String, Value>,
}

/// Reads a limit with this, or `none`.
fn clearable<T>(
    parse: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Limit<T>, String> + Clone + Send + Sync {
    move |text| match text {
        "none" => Ok(Limit::None),
        text => parse(text)
            .map(Limit::Own)
            .map_err(|problem| format!("{problem}, or none for the host's own limit")),
    }
}

impl Limits {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let changes = self.changes();
        let connection = self.host.connect(Need::Installed)?;
        let api = &connection.api;
        let plugin = plugins::find(api, &self.plugin)?;
        let path = plugin.path("/overrides");
        let Overrides { process_limits } = if changes.is_empty() {
            api.get(&path)?
        } else {
            let body = json!({ "process_limits": changes });
            let changed = api.change(Method::PATCH, &path, Some(&body));
            changed.map_err(|error: CliError| error.about(plugin.called()))?
        };
        if self.host.json {
            let line = json!({ "installation": plugin.id, "process_limits": process_limits });
            return output::json(&line);
        }
        let called = plugin.called();
        if process_limits.is_empty() {
            output::line(&format!(
                "{called} has no limits of its own; those of the host apply"
            ))?;
        } else {
            let mut table = Table::new(&["LIMIT", "VALUE"]);
            for (name, value) in &process_limits {
                table.row([name.replace('_', "-"), shown(name, value)]);
            }
            output::table(&table)?;
        }
        if changes.is_empty() {
            return Ok(());
        }
        output::line(&format!("{called}: changed{}", counts_from(&plugin)))
    }

    fn changes(&self) -> Map<String, Value> {
        let mut changes = Map::new();
        let mut put = |name: &str, limit: Option<Value>| {
            if let Some(limit) = limit {
                changes.insert(name.to_owned(), limit);
            }
        };
        put(
            "memory",
            self.memory
                .map(|limit| limit.json(|Size(bytes)| json!(bytes))),
        );
        put(
            "cpu_time",
            self.cpu_time
                .map(|limit| limit.json(|time| json!(time.as_secs_f64()))),
        );
        put(
            "processes",
            self.processes.map(|limit| limit.json(|count| json!(count))),
        );
        put(
            "open_files",
            self.open_files
                .map(|limit| limit.json(|count| json!(count))),
        );
        put(
            "nice",
            self.nice.map(|limit| limit.json(|nice| json!(nice))),
        );
        changes
    }
}

impl<T> Limit<T> {
    fn json(self, own: impl FnOnce(T) -> Value) -> Value {
        match self {
            Self::Own(limit) => own(limit),
            Self::None => Value::Null,
        }
    }
}

fn shown(name: &str, value: &Value) -> String {
    match (name, value.as_u64()) {
        ("memory", Some(bytes)) => Size(bytes).to_string(),
        ("cpu_time", Some(seconds)) => duration::shown(Duration::from_secs(seconds)),
        _ => value.to_string(),
    }
}
