//! Lines for people: the plugin's name, a mark that says what the line is, and the rest.
//!
//! `*` state, `|` standard output, `!` standard error, `>` anything else.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use plugin_runner::plugin_log::LogStream;
use plugin_runner::{InstallationId, Problem, ReportedState, StateChange};
use serde_json::{Map, Value};

use super::Notice;
use super::paint::{Paint, harmless};
use crate::cli::lines::Line;
use crate::cli::source::NamedPlugin;

/// Prints lines for people.
#[derive(Debug)]
pub(crate) struct Human {
    paint: Paint,
    /// Painted and padded.
    names: HashMap<InstallationId, Arc<str>>,
    width: usize,
}

impl Human {
    pub(crate) fn new(plugins: &[NamedPlugin], paint: Paint) -> Self {
        let width = plugins.iter().map(|plugin| plugin.name.len()).max();
        let width = width.unwrap_or_default();
        let names = plugins
            .iter()
            .enumerate()
            .map(|(place, plugin)| {
                let name = paint.name(&plugin.name, place, width);
                (plugin.record.id, name.into())
            })
            .collect();
        Self {
            paint,
            names,
            width,
        }
    }

    pub(super) fn state(&self, change: &StateChange, to: &mut String) {
        let state = self.paint.state(change.to);
        let message = change.message().unwrap_or_default();
        let message = harmless(message);
        let text = match change.to {
            ReportedState::Restarting => {
                match change.problem.as_ref().and_then(Problem::restart_after) {
                    Some(Duration::ZERO) => format!("{state} at once: {message}"),
                    Some(after) => format!("{state} in {after:?}: {message}"),
                    None => format!("{state}: {message}"),
                }
            }
            ReportedState::Errored => format!("{state}: {message}"),
            ReportedState::Connecting
                if change.from == ReportedState::Active && !message.is_empty() =>
            {
                format!("{state}: {message}")
            }
            // The message was shown with the state before.
            _ => state,
        };
        self.put(change.plugin, "*", &text, to);
        if change.to == ReportedState::Errored
            && let Some(problem) = &change.problem
        {
            self.details(&problem.to_json(), to);
        }
    }

    pub(super) fn line(&self, line: &Line, to: &mut String) {
        let text = harmless(&line.text);
        let mark = match line.stream {
            LogStream::Stdout => "|",
            _ => "!",
        };
        self.put(line.plugin, mark, &text, to);
    }

    pub(super) fn notice(&self, notice: &Notice, to: &mut String) {
        match notice {
            Notice::External { plugin, url } => {
                self.put(*plugin, ">", &format!("connects to {url}"), to);
            }
            Notice::Ping {
                plugin,
                outcome: Ok(took),
            } => {
                let milliseconds = took.as_secs_f64() * 1_000.0;
                let text = format!("ping answered in {milliseconds:.2} ms");
                self.put(*plugin, ">", &self.paint.faint(&text), to);
            }
            Notice::Ping {
                plugin,
                outcome: Err(problem),
            } => {
                let text = format!("ping failed: {}", harmless(problem));
                self.put(*plugin, ">", &self.paint.warning(&text), to);
            }
        }
    }

    /// Appends what is known about an error, in a block below its line.
    fn details(&self, details: &Map<String, Value>, to: &mut String) {
        let indent = self.width + 4;
        let mut row = |name: &str, value: &str| {
            let name = self.paint.faint(&format!("{name:12}"));
            // Writing to a string succeeds.
            let _ = writeln!(to, "{:indent$}{name} {}", "", harmless(value));
        };
        if let Some(status) = details.get("exit_status").and_then(Value::as_str) {
            row("ended with", status);
        }
        if let Some(attempts) = details.get("attempts").and_then(Value::as_u64) {
            row("attempts", &attempts.to_string());
        }
        let output = details.get("output").and_then(Value::as_array);
        let output = output.map(Vec::as_slice).unwrap_or_default();
        for (index, line) in output.iter().filter_map(Value::as_str).enumerate() {
            row(if index == 0 { "last output" } else { "" }, line);
        }
    }

    pub(super) fn lost(&self, plugin: InstallationId, lost: u64, to: &mut String) {
        let lines = if lost == 1 { "line" } else { "lines" };
        let text = format!(
            "{lost} {lines} left out here, because the output is not read fast enough; the \
             plugin's log, which --data keeps, has them"
        );
        self.put(plugin, ">", &self.paint.warning(&text), to);
    }

    fn put(&self, plugin: InstallationId, mark: &str, text: &str, to: &mut String) {
        let name = self.names.get(&plugin).map_or("?", |name| name);
        let mark = self.paint.faint(mark);
        let _ = writeln!(to, "{name}  {mark} {text}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use plugin_runner::protocol::Manifest;
    use plugin_runner::store::{Record, Source};

    use super::*;
    use crate::cli::source::named;

    fn plugins(ids: &[&str]) -> Vec<NamedPlugin> {
        let record = |id: &&str| {
            let manifest = Manifest {
                id: (*id).to_owned(),
                ..Manifest::default()
            };
            Record::supervised(manifest, Source::Directory("/x".into()))
        };
        named(ids.iter().map(record).collect())
    }

    fn line(plugin: &NamedPlugin, stream: LogStream, text: &str) -> Line {
        Line {
            plugin: plugin.record.id,
            stream,
            text: text.to_owned(),
            at: SystemTime::now(),
            lost: 0,
        }
    }

    #[test]
    fn lines_are_aligned_and_marked() {
        let plugins = plugins(&["short", "much-longer", "short"]);
        let human = Human::new(&plugins, Paint::new(false));
        let mut text = String::new();
        human.line(&line(&plugins[0], LogStream::Stdout, "out"), &mut text);
        human.line(
            &line(&plugins[1], LogStream::Stderr, "\u{1b}[31merr\r"),
            &mut text,
        );
        human.lost(plugins[2].record.id, 2, &mut text);
        human.line(&line(&plugins[2], LogStream::Stdout, ""), &mut text);
        assert_eq!(
            text,
            "short#1      | out\n\
             much-longer  ! err\\r\n\
             short#2      > 2 lines left out here, because the output is not read fast enough; \
             the plugin's log, which --data keeps, has them\n\
             short#2      | \n"
        );
    }

    #[test]
    fn an_error_has_a_block_with_what_is_known() {
        let human = Human::new(&plugins(&["hello"]), Paint::new(false));
        let details = serde_json::json!({
            "exit_status": "exit status 42", "attempts": 4, "output": ["one", "two\u{7}"],
        });
        let mut text = String::new();
        human.details(details.as_object().unwrap(), &mut text);
        assert_eq!(
            text,
            "         ended with   exit status 42\n         attempts     4\n         \
             last output  one\n                      two\\u{7}\n"
        );
    }

    #[test]
    fn pings_show_the_round_trip() {
        let plugins = plugins(&["hello"]);
        let human = Human::new(&plugins, Paint::new(false));
        let plugin = plugins[0].record.id;
        let mut text = String::new();
        for outcome in [Ok(Duration::from_micros(340)), Err("no\nway".to_owned())] {
            human.notice(&Notice::Ping { plugin, outcome }, &mut text);
        }
        assert_eq!(
            text,
            "hello  > ping answered in 0.34 ms\nhello  > ping failed: no\\nway\n"
        );
    }
}
