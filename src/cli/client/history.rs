//! `history`: how a plugin's runs ended.

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::host::{HostArguments, Need};
use super::plugins;
use super::table::Table;
use super::{output, time};
use crate::cli::error::CliError;

const EXAMPLES: &str = "\
Examples:
  plugin-runner history hello
  plugin-runner history hello --json";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct History {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Deserialize)]
struct Answer {
    problem: Option<Problem>,
    runs: Vec<Ended>,
    last_lines: Vec<String>,
}

#[derive(Deserialize)]
struct Ended {
    run: u64,
    started_at: String,
    #[serde(rename = "ended_at")]
    at: String,
    problem: Problem,
    given_up: bool,
}

#[derive(Deserialize)]
struct Problem {
    error: String,
    #[serde(flatten)]
    details: Map<String, Value>,
}

impl History {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Installed)?;
        let plugin = plugins::find(&connection.api, &self.plugin)?;
        let answer: Answer = connection.api.get(&plugin.path("/history"))?;
        if self.host.json {
            return answer.runs.iter().try_for_each(|run| {
                output::json(&json!({
                    "at": run.at,
                    "installation": plugin.id,
                    "run": run.run,
                    "started_at": run.started_at,
                    "error": run.problem.error,
                    "details": run.problem.details,
                    "given_up": run.given_up,
                }))
            });
        }
        if answer.runs.is_empty() {
            output::line(if connection.has_host() {
                "no run has ended since the host came up"
            } else {
                "a host remembers how runs ended for as long as it runs, and none does"
            })?;
        } else {
            let mut table =
                Table::new(&["RUN", "ENDED", "TOOK", "HOW", "THEN"]).sparing(&["TOOK", "THEN"]);
            for run in &answer.runs {
                let then = if run.given_up { "given up" } else { run.then() };
                table.row([
                    run.run.to_string().as_str(),
                    &time::at_and_ago(&run.at),
                    &time::between(&run.started_at, &run.at),
                    &run.problem.error,
                    then,
                ]);
            }
            output::table(&table)?;
        }
        if let Some(problem) = &answer.problem {
            output::line(&format!(
                "now: {}",
                plugin_runner::text::escape(&problem.error)
            ))?;
        }
        if !answer.last_lines.is_empty() {
            output::line("last lines of its log:")?;
        }
        let mut lines = answer.last_lines.iter();
        lines.try_for_each(|line| output::line(&format!("  {}", output::harmless(line))))
    }
}

impl Ended {
    fn then(&self) -> &'static str {
        let is_restarted = self
            .problem
            .details
            .contains_key("restarting_after_seconds");
        if is_restarted {
            "started again"
        } else {
            "stopped"
        }
    }
}
