//! One JSON object to a line, for programs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

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

/// The members come in this order.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum JsonLine<'a> {
    State {
        plugin: &'a str,
        installation: InstallationId,
        from: ReportedState,
        to: ReportedState,
        message: Option<&'a str>,
        details: &'a Map<String, Value>,
    },
    Log {
        plugin: &'a str,
        stream: &'static str,
        line: &'a str,
    },
    External {
        plugin: &'a str,
        url: &'a str,
    },
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
                plugin: self.plugin(change.plugin),
                installation: change.plugin,
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
                plugin: self.plugin(line.plugin),
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
            Notice::External { plugin, url } => write(
                &JsonLine::External {
                    plugin: self.plugin(*plugin),
                    url,
                },
                to,
            ),
            // For people only.
            Notice::Ping { .. } => {}
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
fn push_escaped(json: &str, to: &mut String) {
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
    use std::time::SystemTime;

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
                    at: SystemTime::now(),
                    lost: 0,
                },
                &mut text,
            );
        }
        assert_eq!(
            text,
            "{\"type\":\"log\",\"plugin\":\"hello\",\"stream\":\"stdout\",\"line\":\"a \\\"b\\\"\\u001b\\u009b\\u202eä\"}\n\
             {\"type\":\"log\",\"plugin\":\"hello\",\"stream\":\"stderr\",\"line\":\"\"}\n\
             {\"type\":\"log\",\"plugin\":\"hello\",\"stream\":\"stderr\",\"line\":\"x\"}\n"
        );
    }

    #[test]
    fn an_external_plugin_gets_its_url_and_pings_are_not_for_programs() {
        let (json, plugin) = json();
        let mut text = String::new();
        json.notice(
            &Notice::Ping {
                plugin,
                outcome: Err("no".to_owned()),
            },
            &mut text,
        );
        json.notice(
            &Notice::External {
                plugin,
                url: "ws://127.0.0.1:1/rpc?token=t".to_owned(),
            },
            &mut text,
        );
        assert_eq!(
            text,
            "{\"type\":\"external\",\"plugin\":\"hello\",\"url\":\"ws://127.0.0.1:1/rpc?token=t\"}\n"
        );
    }
}
