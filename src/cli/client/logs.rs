//! `logs`: what a plugin has printed, and prints.

use std::fmt::Write as _;
use std::time::SystemTime;

use clap::Args;
use plugin_runner::text::escape;
use serde::Deserialize;
use serde_json::json;

use super::events::{Event, Events};
use super::host::{HostArguments, Need};
use super::{output, plugins};
use crate::cli::error::CliError;
use crate::cli::run::say;

const EXAMPLES: &str = "\
Examples:
  plugin-runner logs hello
  plugin-runner logs hello --lines all
  plugin-runner logs hello --follow --lines 10";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Logs {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    /// Go on with what it prints, until Ctrl-C. A host that goes away is waited for, for a minute.
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines to begin with; all for everything that is kept.
    #[arg(long, short = 'n', value_name = "N", default_value = "100", value_parser = lines)]
    lines: Lines,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    All,
    Last(usize),
}

/// Lines that were deleted before they could be shown.
#[derive(Deserialize)]
struct Gap {
    bytes: Option<u64>,
}

impl Logs {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Installed)?;
        let api = &connection.api;
        let plugin = plugins::find(api, &self.plugin)?;
        if plugin.connection.mode == "external" {
            return Err(format!(
                "{} runs elsewhere, so its host has no log of it",
                plugin.called()
            )
            .into());
        }
        let mut path = plugin.path("/logs");
        path.push_str(if self.follow { "?" } else { "?follow=false&" });
        if let Lines::Last(lines) = self.lines {
            let _ = write!(path, "tail={lines}");
        }
        let find = || Ok(self.host.connect(Need::Host)?.api);
        let mut events = Events::open(api, path, &find)?;
        loop {
            let Event { name, data } = events.next()?;
            match &*name {
                "" => self.line(&plugin, &data)?,
                "gap" => tell_gap(&data),
                "end" if self.follow => {
                    return Err(format!("{}: {}", plugin.called(), escape(&data)).into());
                }
                "end" => return Ok(()),
                // Of a later version.
                _ => {}
            }
        }
    }

    fn line(&self, plugin: &plugins::Plugin, line: &str) -> Result<(), CliError> {
        if !self.host.json {
            return output::line(&output::harmless(line));
        }
        let mut object = json!({
            "installation": plugin.id,
            "plugin": plugin.manifest.id,
            "line": line,
        });
        // A log has no times; only what comes now has one.
        if self.follow {
            let now = humantime::format_rfc3339_millis(SystemTime::now());
            object["at"] = now.to_string().into();
        }
        output::json(&object)
    }
}

fn tell_gap(data: &str) {
    let bytes = serde_json::from_str(data)
        .ok()
        .and_then(|Gap { bytes }| bytes);
    match bytes {
        Some(bytes) => say(&format!(
            "{bytes} bytes of the log were deleted before they could be shown"
        )),
        None => say("a part of the log was deleted before it could be shown"),
    }
}

fn lines(text: &str) -> Result<Lines, String> {
    match text {
        "all" => Ok(Lines::All),
        text => text
            .parse()
            .map(Lines::Last)
            .map_err(|_| "write a number of lines, or all".to_owned()),
    }
}
