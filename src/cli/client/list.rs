//! `list`: what is installed.

use clap::Args;
use serde_json::value::RawValue;

use super::host::{HostArguments, Need};
use super::plugins::{self, Plugin};
use super::table::Table;
use super::{output, time};
use crate::cli::error::CliError;

const EXAMPLES: &str = "\
Examples:
  plugin-runner list
  plugin-runner list --json";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    #[command(flatten)]
    host: HostArguments,
}

impl List {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Installed)?;
        if self.host.json {
            let all: Vec<Box<RawValue>> = plugins::list(&connection.api)?;
            return all.iter().try_for_each(output::json);
        }
        let all: Vec<Plugin> = plugins::list(&connection.api)?;
        let mut table = Table::new(&[
            "PLUGIN", "ID", "VERSION", "MODE", "STATE", "SINCE", "MESSAGE",
        ])
        .sparing(&["MODE", "VERSION", "SINCE", "ID"]);
        for plugin in &all {
            let status = &plugin.status;
            table.row([
                plugin.manifest.id.as_str(),
                &plugin.id.to_string(),
                &plugin.version,
                &plugin.connection.mode,
                &status.state,
                &status.since().map(time::ago).unwrap_or_default(),
                status.message.as_deref().unwrap_or_default(),
            ]);
        }
        if all.is_empty() {
            return output::line("nothing is installed; plugin-runner install PACKAGE does that");
        }
        output::table(&table)
    }
}
