//! `get`: one plugin, whole.

use std::fmt::Write as _;

use clap::Args;
use plugin_runner::text::escape;
use serde_json::value::RawValue;

use super::host::{HostArguments, Need};
use super::{output, plugins, time};
use crate::cli::error::CliError;

const EXAMPLES: &str = "\
Examples:
  plugin-runner get hello
  plugin-runner get hello --json";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Get {
    /// Its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    #[command(flatten)]
    host: HostArguments,
}

impl Get {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Installed)?;
        let plugin = plugins::find(&connection.api, &self.plugin)?;
        if self.host.json {
            let whole: Box<RawValue> = connection.api.get(&plugin.path(""))?;
            return output::json(&whole);
        }
        let status = &plugin.status;
        let state = match status.since() {
            Some(since) => format!("{} since {}", status.state, time::at_and_ago(since)),
            None => status.state.clone(),
        };
        let details = status
            .details
            .iter()
            .map(|(name, value)| format!("{name} {value}"));
        let details = details.collect::<Vec<_>>().join(", ");
        let rows = [
            ("Plugin", plugin.manifest.id.as_str()),
            ("Installation", &plugin.id.to_string()),
            ("Name", &plugin.name),
            ("Version", &plugin.version),
            ("Author", &plugin.manifest.author),
            ("Description", &plugin.description),
            ("Mode", &plugin.connection.mode),
            ("Installed", &time::at_and_ago(&plugin.added_at)),
            ("State", &state),
            ("Problem", status.message.as_deref().unwrap_or_default()),
            ("Details", &details),
        ];
        let mut text = String::new();
        for (name, value) in rows {
            if !value.is_empty() {
                let _ = writeln!(text, "{name:13} {}", escape(value));
            }
        }
        output::print(&text)
    }
}
