//! `call` and `publish`: talking to plugins through their host.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use plugin_runner::text::escape;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use ureq::http::Method;

use super::host::{HostArguments, Need};
use super::progress::waiting;
use super::table::Table;
use super::{input, output, plugins};
use crate::cli::duration;
use crate::cli::error::CliError;

const CALL: &str = "\
Examples:
  plugin-runner call hello ping
  plugin-runner call hello ping '{}' --timeout 5s
  echo '{}' | plugin-runner call hello ping -";
const PUBLISH: &str = "\
Examples:
  plugin-runner publish EventThreadPublished '{\"id\": \"c9m1\"}'
  plugin-runner publish EventThreadPublished --wait 5s";

#[derive(Args, Debug)]
#[command(after_help = CALL)]
pub(crate) struct Call {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    /// The method.
    method: String,
    /// The parameters, a JSON object; @FILE reads them from a file, - from standard input [default: {}].
    #[arg(value_name = "JSON", value_parser = input::object)]
    params: Option<input::Object>,
    /// How long the plugin has to answer, at most 10m [default: 30s].
    #[arg(long, value_name = "D", value_parser = duration::parse_positive)]
    timeout: Option<Duration>,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Args, Debug)]
#[command(after_help = PUBLISH)]
pub(crate) struct Publish {
    /// The event's name.
    event: String,
    /// What the event says, a JSON object; @FILE reads it from a file, - from standard input [default: {}].
    #[arg(value_name = "JSON", value_parser = input::object)]
    payload: Option<input::Object>,
    /// Wait so long, at most 1m, until the plugins have answered, and say what each did.
    #[arg(long, value_name = "D", value_parser = duration::parse_positive)]
    wait: Option<Duration>,
    #[command(flatten)]
    host: HostArguments,
}

impl Call {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let params = input::read_object(self.params.as_ref())?;
        let connection = self.host.connect(Need::Host)?;
        let api = &connection.api;
        let plugin = plugins::find(api, &self.plugin)?;
        let mut body = json!({ "method": self.method, "params": params });
        if let Some(timeout) = self.timeout {
            body["timeout"] = timeout.as_secs_f64().into();
        }
        let called = plugin.called();
        let answer: Box<RawValue> = waiting(&format!("{called} is asked"), || {
            api.change(Method::POST, &plugin.path("/rpc"), Some(&body))
        })
        .map_err(|error| error.about(&called))?;
        if !self.host.json && std::io::stdout().is_terminal() {
            let answer: Value =
                serde_json::from_str(answer.get()).map_err(CliError::cannot("read the answer"))?;
            let answer = serde_json::to_string_pretty(&answer);
            let answer = answer.map_err(CliError::cannot("write JSON"))?;
            let mut lines = answer.lines();
            return lines.try_for_each(|line| output::line(&output::harmless(line)));
        }
        output::json(&answer)
    }
}

/// What came of an event: either counts, or what each plugin did.
#[derive(Deserialize)]
struct Published {
    queued: Option<u64>,
    dropped: Option<u64>,
    deliveries: Option<BTreeMap<String, String>>,
}

impl Publish {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let payload = input::read_object(self.payload.as_ref())?;
        let connection = self.host.connect(Need::Host)?;
        let api = &connection.api;
        let mut body = json!({ "event": self.event, "payload": payload });
        if let Some(wait) = self.wait {
            body["wait"] = wait.as_secs_f64().into();
        }
        let answer: Box<RawValue> = waiting("the event is delivered", || {
            api.change(Method::POST, "/api/events", Some(&body))
        })?;
        if self.host.json {
            return output::json(&answer);
        }
        let published: Published =
            serde_json::from_str(answer.get()).map_err(CliError::cannot("read the answer"))?;
        if let Some(deliveries) = published.deliveries {
            return tell_deliveries(api, &self.event, &deliveries);
        }
        let queued = published.queued.unwrap_or_default();
        let dropped = published.dropped.unwrap_or_default();
        if queued + dropped == 0 {
            return no_consumer(&self.event);
        }
        output::line(&format!(
            "queued for {} of {} plugins that consume it",
            queued,
            queued + dropped
        ))?;
        if dropped > 0 {
            return Err(format!("dropped by {dropped} plugins, whose queues are full").into());
        }
        Ok(())
    }
}

fn no_consumer(event: &str) -> Result<(), CliError> {
    output::line(&format!(
        "no active plugin consumes {:?}; its manifest names it in events_consumed",
        escape(event)
    ))
}

fn tell_deliveries(
    api: &super::api::Api,
    event: &str,
    deliveries: &BTreeMap<String, String>,
) -> Result<(), CliError> {
    if deliveries.is_empty() {
        return no_consumer(event);
    }
    let plugins: Vec<plugins::Plugin> = plugins::list(api)?;
    let mut table = Table::new(&["PLUGIN", "ID", "DELIVERY"]);
    for (id, delivery) in deliveries {
        let plugin = plugins.iter().find(|plugin| plugin.id.to_string() == *id);
        let name = plugin.map_or("", |plugin| plugin.manifest.id.as_str());
        table.row([name, id, delivery]);
    }
    output::table(&table)?;
    let failed = deliveries
        .values()
        .filter(|delivery| *delivery != "delivered")
        .count();
    if failed > 0 {
        return Err(format!("not delivered to {failed} of {} plugins", deliveries.len()).into());
    }
    Ok(())
}
