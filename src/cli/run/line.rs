//! The commands that are typed while plugins run: what a line says.

use std::fmt;

use serde_json::{Map, Value};

/// A command, and the plugin that it is for if it names one.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub(super) plugin: Option<String>,
    pub(super) command: Command,
}

#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Call(String, Map<String, Value>),
    Event(String, Map<String, Value>),
    Configure(Map<String, Value>),
    Restart,
    Stop,
    Start,
    State,
    Help,
    Quit,
}

pub(super) const HELP: &str = "\
call METHOD {…}      call a method of the plugin, with a JSON object as params
event NAME {…}       publish an event to the plugins that consume it
configure {…}        propose a configuration
restart, stop, start what happens to the plugin
state                how it is
quit                 end everything, as Ctrl-C does
With several plugins the name of one comes first: hello call ping";

const VERBS: [&str; 10] = [
    "call",
    "event",
    "configure",
    "restart",
    "stop",
    "start",
    "state",
    "help",
    "quit",
    "exit",
];
/// How similar a word must be to be suggested, from 0 to 1.
const SIMILAR: f64 = 0.75;

impl Line {
    /// Reads a line that is not blank. `names` are those of the plugins.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(super) fn parse(text: &str, names: &[&str]) -> Result<Self, String> {
        let (first, rest) = word(text);
        if VERBS.contains(&first) {
            let command = Command::parse(first, rest)?;
            return Ok(Self {
                plugin: None,
                command,
            });
        }
        if names.contains(&first) {
            let (verb, rest) = word(rest);
            if verb.is_empty() {
                return Err(format!("what is {first} to do? {first} call ping calls it"));
            }
            let command = Command::parse(verb, rest)?;
            return Ok(Self {
                plugin: Some(first.to_owned()),
                command,
            });
        }
        Err(unknown(
            first,
            VERBS.iter().copied().chain(names.iter().copied()),
        ))
    }
}

/// As it can be typed, without what may be long.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(method, _) => write!(f, "call {method}"),
            Self::Event(event, _) => write!(f, "event {event}"),
            Self::Configure(_) => f.write_str("configure"),
            Self::Restart => f.write_str("restart"),
            Self::Stop => f.write_str("stop"),
            Self::Start => f.write_str("start"),
            Self::State => f.write_str("state"),
            Self::Help => f.write_str("help"),
            Self::Quit => f.write_str("quit"),
        }
    }
}

impl Command {
    fn parse(verb: &str, rest: &str) -> Result<Self, String> {
        let named = || {
            let (name, rest) = word(rest);
            if name.is_empty() {
                return Err(format!("{verb} what? write {verb} NAME {{…}}"));
            }
            Ok((name.to_owned(), object(rest)?))
        };
        let alone = |command| {
            if rest.is_empty() {
                Ok(command)
            } else {
                Err(format!("{verb} stands alone, without {rest}"))
            }
        };
        match verb {
            "call" => named().map(|(method, params)| Self::Call(method, params)),
            "event" => named().map(|(event, payload)| Self::Event(event, payload)),
            "configure" if rest.is_empty() => {
                Err("configure with what? write configure {\"name\": \"value\"}".to_owned())
            }
            "configure" => object(rest).map(Self::Configure),
            "restart" => alone(Self::Restart),
            "stop" => alone(Self::Stop),
            "start" => alone(Self::Start),
            "state" => alone(Self::State),
            "help" => Ok(Self::Help),
            "quit" | "exit" => alone(Self::Quit),
            verb => Err(unknown(verb, VERBS.into_iter())),
        }
    }
}

fn unknown<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let lower = word.to_lowercase();
    let similar = known
        .map(|known| (strsim::jaro(known, &lower), known))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match similar {
        Some((_, similar)) => format!("there is no {word:.100?}; did you mean {similar}?"),
        None => format!("there is no {word:.100?}; help shows what there is"),
    }
}

/// Returns the first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_start())
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    crate::cli::client::input::parse(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Line, String> {
        Line::parse(text, &["hello", "other"])
    }

    #[test]
    fn a_line_is_a_command_for_a_plugin() {
        let object = |value: Value| value.as_object().cloned().unwrap();
        let line = |plugin: Option<&str>, command| Line {
            plugin: plugin.map(str::to_owned),
            command,
        };
        let call = |params| Command::Call("ping".to_owned(), object(params));
        for (text, expected) in [
            ("call ping", line(None, call(json!({})))),
            (
                "  call   ping  {\"a\": 1} ",
                line(None, call(json!({"a": 1}))),
            ),
            ("hello call ping", line(Some("hello"), call(json!({})))),
            (
                "configure {\"a\":null}",
                line(None, Command::Configure(object(json!({"a": null})))),
            ),
            ("other stop", line(Some("other"), Command::Stop)),
            ("exit", line(None, Command::Quit)),
            ("help me", line(None, Command::Help)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        for (text, words) in [
            ("cal ping", "did you mean call?"),
            ("CALL ping", "did you mean call?"),
            ("helo state", "did you mean hello?"),
            ("xyzzy", "help shows"),
            ("call", "call what?"),
            ("hello", "hello call ping"),
            ("hello frobnicate", "help shows"),
            ("call ping 1", "a JSON object"),
            ("call ping {", "this is no JSON"),
            ("configure", "configure with what?"),
            ("stop it", "stands alone"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(words), "{text}: {problem}");
            assert!(!problem.contains('\n'), "{problem}");
        }
    }
}
