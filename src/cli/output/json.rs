//! One JSON object to a line, for programs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use plugin_runner::plugin_log::LogStream;
use plugin_runner::text::needs_escape;
use plugin_runner::{InstallationId, Problem, ReportedState, StateChange};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Notice;
use crate::cli::lines::Line;
use crate::cli::source::NamedPlugin;

/// Prints JSON for programs. `plugin` is the manifest's id, whether or not others share it.
#[derive(Debug)]
pub(crate) struct Json {
    manifest_ids: HashMap<InstallationId, Arc<str>>,
}

/// What every line begins with.
#[derive(Serialize)]
struct Head<'a> {
    /// RFC 3339.
    at: String,
    plugin: Option<&'a str>,
    installation: Option<InstallationId>,
}

/// The members come in this order.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum JsonLine<'a> {
    State {
        #[serde(flatten)]
        head: Head<'a>,
        from: ReportedState,
        to: ReportedState,
        message: Option<&'a str>,
        details: &'a Map<String, Value>,
    },
    Log {
        #[serde(flatten)]
        head: Head<'a>,
        stream: &'static str,
        line: &'a str,
    },
    External {
        #[serde(flatten)]
        head: Head<'a>,
        url: &'a str,
    },
    Call {
        #[serde(flatten)]
        head: Head<'a>,
        method: &'a str,
        params: &'a Value,
        #[serde(flatten)]
        outcome: Outcome<'a>,
    },
    Reply {
        #[serde(flatten)]
        head: Head<'a>,
        command: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
        #[serde(flatten)]
        outcome: Outcome<'a>,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome<'a> {
    Result(&'a Value),
    Error(&'a str),
}

impl<'a> Outcome<'a> {
    fn of(outcome: &'a Result<Value, String>) -> Self {
        match outcome {
            Ok(result) => Self::Result(result),
            Err(error) => Self::Error(error),
        }
    }
}

impl Json {
    pub(crate) fn new(plugins: &[NamedPlugin]) -> Self {
        let manifest_ids = plugins
            .iter()
            .map(|plugin| {
                let record = &plugin.record;
                (record.id, record.manifest.id.as_str().into())
            })
            .collect();
        Self { manifest_ids }
    }

    pub(super) fn state(&self, change: &StateChange, to: &mut String) {
        let details = change.problem.as_ref().map(Problem::to_json);
        let details = details.unwrap_or_default();
        write(
            &JsonLine::State {
                head: self.head(Some(change.plugin), change.at),
                from: change.from,
                to: change.to,
                message: change.message(),
                details: &details,
            },
            to,
        );
    }

    pub(super) fn line(&self, line: &Line, to: &mut String) {
        write(
            &JsonLine::Log {
                head: self.head(Some(line.plugin), line.at),
                stream: match line.stream {
                    LogStream::Stdout => "stdout",
                    // The host's own notes are about problems.
                    _ => "stderr",
                },
                line: &line.text,
            },
            to,
        );
    }

    pub(super) fn notice(&self, notice: &Notice, to: &mut String) {
        match notice {
            Notice::External { plugin, at, url } => write(
                &JsonLine::External {
                    head: self.head(Some(*plugin), *at),
                    url,
                },
                to,
            ),
            Notice::Call {
                plugin,
                at,
                method,
                params,
                answer,
            } => write(
                &JsonLine::Call {
                    head: self.head(Some(*plugin), *at),
                    method,
                    params,
                    outcome: Outcome::of(answer),
                },
                to,
            ),
            Notice::Reply {
                plugin,
                at,
                command,
                outcome,
                took,
            } => write(
                &JsonLine::Reply {
                    head: self.head(*plugin, *at),
                    command,
                    seconds: took.map(|took| took.as_secs_f64()),
                    outcome: Outcome::of(outcome),
                },
                to,
            ),
            // For people only.
            Notice::Ping { .. } => {}
        }
    }

    fn head(&self, plugin: Option<InstallationId>, at: SystemTime) -> Head<'_> {
        Head {
            at: humantime::format_rfc3339_millis(at).to_string(),
            plugin: plugin.map(|plugin| self.plugin(plugin)),
            installation: plugin,
        }
    }

    pub(super) fn plugin(&self, id: InstallationId) -> &str {
        self.manifest_ids.get(&id).map_or("", |id| id)
    }
}

/// Returns a line with an object in it, and its end.
pub(crate) fn json_line(object: &impl Serialize) -> String {
    let mut line = String::new();
    write(object, &mut line);
    line
}

fn write(object: &impl Serialize, to: &mut String) {
    match serde_json::to_string(object) {
        Ok(text) => {
            push_escaped(&text, to);
            to.push('\n');
        }
        // Cannot fail: these are strings, and JSON that was read as such.
        Err(error) => log::error!("cannot print an object: {error}"),
    }
}

/// Escapes what a terminal would obey: JSON may hold it raw, and may be shown on one. It stands only inside
/// strings, where an escape means the same.
pub(crate) fn push_escaped(json: &str, to: &mut String) {
    for character in json.chars() {
        if needs_escape(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                // Writing to a string succeeds.
                let _ = write!(to, "\\u{unit:04x}");
            }
        } else {
            to.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use plugin_runner::protocol::Manifest;
    use plugin_runner::store::{Record, Source};

    use super::*;
    use crate::cli::source::named;

    fn json() -> (Json, InstallationId) {
        let manifest = Manifest {
            id: "hello".to_owned(),
            ..Manifest::default()
        };
        let record = Record::supervised(manifest, Source::Directory("/x".into()));
        let id = record.id;
        (Json::new(&named(vec![record])), id)
    }

    #[test]
    fn lines_are_objects_with_their_members_in_order() {
        let (json, plugin) = json();
        let mut text = String::new();
        for (stream, line) in [
            (LogStream::Stdout, "a \"b\"\u{1b}\u{9b}\u{202e}ä"),
            (LogStream::Stderr, ""),
            (LogStream::Host, "x"),
        ] {
            json.line(
                &Line {
                    plugin,
                    stream,
                    text: line.to_owned(),
                    at: SystemTime::UNIX_EPOCH,
                    lost: 0,
                },
                &mut text,
            );
        }
        let head = format!(
            "{{\"type\":\"log\",\"at\":\"1970-01-01T00:00:00.000Z\",\"plugin\":\"hello\",\"installation\":\"{plugin}\","
        );
        assert_eq!(
            text.replace(&head, ""),
            "\"stream\":\"stdout\",\"line\":\"a \\\"b\\\"\\u001b\\u009b\\u202eä\"}\n\
             \"stream\":\"stderr\",\"line\":\"\"}\n\
             \"stream\":\"stderr\",\"line\":\"x\"}\n"
        );
    }

    #[test]
    fn an_external_plugin_gets_its_url_and_pings_are_not_for_programs() {
        let (json, plugin) = json();
        let mut text = String::new();
        json.notice(
            &Notice::Ping {
                plugin,
                at: SystemTime::UNIX_EPOCH,
                outcome: Err("no".to_owned()),
            },
            &mut text,
        );
        json.notice(
            &Notice::External {
                plugin,
                at: SystemTime::UNIX_EPOCH,
                url: "ws://127.0.0.1:1/rpc?token=t".to_owned(),
            },
            &mut text,
        );
        assert!(
            text.starts_with("{\"type\":\"external\",\"at\":\"1970-"),
            "{text}"
        );
        assert!(
            text.ends_with("\"url\":\"ws://127.0.0.1:1/rpc?token=t\"}\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }
}
