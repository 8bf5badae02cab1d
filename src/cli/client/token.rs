//! `token`: the tokens of external plugins.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;
use ureq::http::Method;

use super::host::{HostArguments, Need};
use super::{install, output, plugins};
use crate::cli::error::CliError;

const EXAMPLES: &str = "\
Examples:
  plugin-runner token rotate chat";

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Give an external plugin a new token, and print that. It is disconnected, and the old token is of no use.
    Rotate(Rotate),
}

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rotate {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Deserialize)]
struct Answer {
    token: String,
}

impl Token {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let Self::Rotate(rotate) = self;
        let connection = rotate.host.connect(Need::Host)?;
        let api = &connection.api;
        let plugin = plugins::find(api, &rotate.plugin)?;
        let answer: Answer = api
            .change(Method::POST, &plugin.path("/token"), None)
            .map_err(|error| error.about(plugin.called()))?;
        if rotate.host.json {
            output::json(&json!({
                "installation": plugin.id,
                "token": answer.token,
                "url": install::url(&connection, &answer.token),
            }))
        } else {
            // Alone, so that a script can take it.
            output::line(&answer.token)
        }
    }
}
