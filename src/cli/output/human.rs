//! Lines for people: the plugin's name, a mark that says what the line is, and the rest.
//!
//! `*` state, `|` standard output, `!` standard error, `>` anything else.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
    /// Whether each line begins with the time of day.
    has_times: bool,
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
            has_times: false,
        }
    }

    /// Lets each line begin with the time of day, in UTC.
    pub(crate) fn with_times(self, has_times: bool) -> Self {
        Self { has_times, ..self }
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
        self.put(Some(change.plugin), change.at, "*", &text, to);
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
        self.put(Some(line.plugin), line.at, mark, &text, to);
    }

    pub(super) fn notice(&self, notice: &Notice, to: &mut String) {
        match notice {
            Notice::External { plugin, at, url } => {
                self.put(Some(*plugin), *at, ">", &format!("connects to {url}"), to);
            }
            Notice::Ping {
                plugin,
                at,
                outcome: Ok(took),
            } => {
                let text = format!("ping answered {}", in_milliseconds(*took));
                self.put(Some(*plugin), *at, ">", &self.paint.faint(&text), to);
            }
            Notice::Ping {
                plugin,
                at,
                outcome: Err(problem),
            } => {
                let text = format!("ping failed: {}", harmless(problem));
                self.put(Some(*plugin), *at, ">", &self.paint.warning(&text), to);
            }
            Notice::Call {
                plugin,
                at,
                method,
                params,
                answer,
            } => {
                let asked = format!("calls {} {params}", harmless(method));
                let text = match answer {
                    Ok(answer) => format!("{asked}, is answered {answer}"),
                    Err(error) => self
                        .paint
                        .warning(&format!("{asked}, is refused: {}", harmless(error))),
                };
                self.put(Some(*plugin), *at, ">", &harmless(&text), to);
            }
            Notice::Reply {
                plugin,
                at,
                command,
                outcome,
                took,
            } => {
                let command = harmless(command);
                let took = took.map(|took| format!(" {}", in_milliseconds(took)));
                let took = self.paint.faint(&took.unwrap_or_default());
                let outcome = match outcome {
                    Ok(Value::String(text)) if text.contains('\n') => shown(text),
                    Ok(Value::String(text)) => format!("{command}: {}", harmless(text)),
                    Ok(value) => format!("{command}: {}{took}", harmless(&value.to_string())),
                    Err(error) => self
                        .paint
                        .warning(&format!("{command}: {}", harmless(error))),
                };
                for line in outcome.lines() {
                    self.put(*plugin, *at, ">", line, to);
                }
            }
        }
    }

    /// Appends what is known about an error, in a block below its line.
    fn details(&self, details: &Map<String, Value>, to: &mut String) {
        let times = if self.has_times { TIME.len() + 1 } else { 0 };
        let indent = times + self.width + 4;
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
        self.put(
            Some(plugin),
            SystemTime::now(),
            ">",
            &self.paint.warning(&text),
            to,
        );
    }

    fn put(
        &self,
        plugin: Option<InstallationId>,
        at: SystemTime,
        mark: &str,
        text: &str,
        to: &mut String,
    ) {
        let nothing = " ".repeat(self.width);
        let name = match plugin {
            Some(plugin) => self.names.get(&plugin).map_or("?", |name| name),
            None => &nothing,
        };
        let mark = self.paint.faint(mark);
        if self.has_times {
            let at = humantime::format_rfc3339_millis(at).to_string();
            let time = at.get(TIME).unwrap_or_default();
            let _ = write!(to, "{} ", self.paint.faint(time));
        }
        let _ = writeln!(to, "{name}  {mark} {text}");
    }
}

/// Where the time of day stands in RFC 3339.
const TIME: std::ops::Range<usize> = 11..23;

fn in_milliseconds(time: Duration) -> String {
    format!("in {:.2} ms", time.as_secs_f64() * 1_000.0)
}

/// Returns text of several lines, harmless.
fn shown(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(harmless).collect();
    lines.join("\n")
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
            let at = SystemTime::UNIX_EPOCH;
            human.notice(
                &Notice::Ping {
                    plugin,
                    at,
                    outcome,
                },
                &mut text,
            );
        }
        assert_eq!(
            text,
            "hello  > ping answered in 0.34 ms\nhello  > ping failed: no\\nway\n"
        );
    }

    #[test]
    fn replies_and_calls_are_one_line_each_and_may_have_the_time() {
        let plugins = plugins(&["hello"]);
        let human = Human::new(&plugins, Paint::new(false)).with_times(true);
        let plugin = plugins[0].record.id;
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(45_296_789);
        let reply = |plugin, command: &str, outcome, took| Notice::Reply {
            plugin,
            at,
            command: command.to_owned(),
            outcome,
            took,
        };
        let value = serde_json::json!({"status": "ok\u{1b}"});
        let took = Some(Duration::from_micros(1500));
        let mut text = String::new();
        human.notice(
            &reply(Some(plugin), "call ping", Ok(value), took),
            &mut text,
        );
        human.notice(
            &reply(None, "cal", Err("no\nway".to_owned()), None),
            &mut text,
        );
        human.notice(&reply(None, "help", Ok("a\nb".into()), None), &mut text);
        let call = Notice::Call {
            plugin,
            at,
            method: "kv_get".to_owned(),
            params: serde_json::json!({"key": "a"}),
            answer: Ok(serde_json::json!({})),
        };
        human.notice(&call, &mut text);
        assert_eq!(
            text,
            "12:34:56.789 hello  > call ping: {\"status\":\"ok\\u001b\"} in 1.50 ms\n\
             12:34:56.789        > cal: no\\nway\n\
             12:34:56.789        > a\n\
             12:34:56.789        > b\n\
             12:34:56.789 hello  > calls kv_get {\"key\":\"a\"}, is answered {}\n"
        );
    }
}
