//! `activate`, `deactivate` and `restart`: whether plugins run.

use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;
use ureq::http::Method;

use super::host::{HostArguments, Need};
use super::plugins::{self, Plugin};
use super::progress::waiting;
use super::{api::Api, output};
use crate::cli::error::{CliError, Status};

const ACTIVATE: &str = "\
Examples:
  plugin-runner activate hello
  plugin-runner activate hello --json";
const DEACTIVATE: &str = "\
Examples:
  plugin-runner deactivate hello";
const RESTART: &str = "\
Examples:
  plugin-runner restart hello";

#[derive(Args, Debug)]
#[command(after_help = ACTIVATE)]
pub(crate) struct Activate {
    #[command(flatten)]
    plugins: Plugins,
}

#[derive(Args, Debug)]
#[command(after_help = DEACTIVATE)]
pub(crate) struct Deactivate {
    #[command(flatten)]
    plugins: Plugins,
}

#[derive(Args, Debug)]
#[command(after_help = RESTART)]
pub(crate) struct Restart {
    #[command(flatten)]
    plugins: Plugins,
}

#[derive(Args, Debug)]
struct Plugins {
    /// What each is called: its id in the manifest, its installation's id, or a beginning of that.
    #[arg(value_name = "PLUGIN", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    host: HostArguments,
}

impl Activate {
    pub(super) fn run(&self) -> Result<(), CliError> {
        self.plugins.each("activating", activate)
    }
}

impl Deactivate {
    pub(super) fn run(&self) -> Result<(), CliError> {
        self.plugins.each("deactivating", |api, plugin| {
            let body = json!({ "active": "inactive" });
            api.change(Method::PATCH, &plugin.path("/active"), Some(&body))
        })
    }
}

impl Restart {
    pub(super) fn run(&self) -> Result<(), CliError> {
        self.plugins.each("restarting", |api, plugin| {
            let restarted = api.change(Method::POST, &plugin.path("/restart"), None);
            restarted.map_err(|error| with_log(error, plugin))
        })
    }
}

/// Starts a plugin, and waits until it is up.
///
/// # Errors
/// What the host says, with how to see the plugin's own words.
pub(super) fn activate(api: &Api, plugin: &Plugin) -> Result<Box<RawValue>, CliError> {
    let body = json!({ "active": "active" });
    let activated = api.change(Method::PATCH, &plugin.path("/active"), Some(&body));
    activated.map_err(|error| with_log(error, plugin))
}

fn with_log(error: CliError, plugin: &Plugin) -> CliError {
    if error.status() == Status::Failed && plugin.connection.mode == "supervised" {
        error.with(format!("see plugin-runner logs {}", plugin.id))
    } else {
        error
    }
}

impl Plugins {
    /// Does one thing to each of them, also after a failure, and prints what came of it.
    ///
    /// # Errors
    /// The first failure; the others are said.
    fn each(
        &self,
        doing: &str,
        change: impl Fn(&Api, &Plugin) -> Result<Box<RawValue>, CliError>,
    ) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Host)?;
        let api = &connection.api;
        output::each(&self.names, |name| {
            let plugin = plugins::find(api, name)?;
            let called = plugin.called();
            let about = |error: CliError| error.about(&called);
            let changed = waiting(&format!("{doing} {called}"), || change(api, &plugin));
            let changed = changed.map_err(about)?;
            if self.host.json {
                return output::json(&changed);
            }
            let plugin: Plugin =
                serde_json::from_str(changed.get()).map_err(CliError::cannot("read the answer"))?;
            output::line(&format!("{called} is {}", plugin.status.state))
        })
    }
}
