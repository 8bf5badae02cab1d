//! `logs`: what a plugin has printed, and prints.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use plugin_runner::text::escape;
use serde::Deserialize;
use serde_json::json;

use super::events::{Event, Events};
use super::host::{HostArguments, Need};
use super::{output, plugins};
use crate::cli::duration;
use crate::cli::error::CliError;
use crate::cli::run::say;

const EXAMPLES: &str = "\
Examples:
  plugin-runner logs hello
  plugin-runner logs hello --lines all
  plugin-runner logs hello --since 10m --timestamps
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
    #[arg(long, short = 'n', alias = "tail", value_name = "N", default_value = "100", value_parser = lines)]
    lines: Lines,
    /// Begin with what was printed this long ago, such as 10m, or at a time, such as 2026-02-21T11:50:22Z; to about a
    /// second. Lines of which that is not known come too.
    #[arg(long, value_name = "TIME", conflicts_with = "lines", value_parser = since)]
    since: Option<SystemTime>,
    /// Show when each line was printed, to about a second; - if that is not known. With --json it is always there.
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    All,
    Last(usize),
}

/// A line, and when it was printed.
#[derive(Deserialize)]
struct Printed {
    at: Option<String>,
    line: String,
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
        path.push_str("times=true");
        if let Some(since) = self.since {
            let _ = write!(path, "&since={}", humantime::format_rfc3339_millis(since));
        } else if let Lines::Last(lines) = self.lines {
            let _ = write!(path, "&tail={lines}");
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

    fn line(&self, plugin: &plugins::Plugin, data: &str) -> Result<(), CliError> {
        let Printed { at, line } = serde_json::from_str(data)
            .map_err(|error| format!("the host sent what is no line of a log: {error}"))?;
        if self.host.json {
            return output::json(&json!({
                "at": at,
                "installation": plugin.id,
                "plugin": plugin.manifest.id,
                "line": line,
            }));
        }
        let line = output::harmless(&line);
        if self.timestamps {
            let at = at.map_or_else(|| "-".to_owned(), |at| escape(&at).to_string());
            return output::line(&format!("{at} {line}"));
        }
        output::line(&line)
    }
}

/// Reads how long ago, or when.
fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339(text) {
        return Ok(time);
    }
    let ago = duration::parse(text)
        .map_err(|problem| format!("{problem}; a time is written as 2026-02-21T11:50:22Z"))?;
    Ok(SystemTime::now()
        .checked_sub(ago)
        .unwrap_or(UNIX_EPOCH)
        .max(UNIX_EPOCH))
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
