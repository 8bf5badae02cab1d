//! The configuration file: its settings as text, each with its line.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::super::super::private_file::{open_named, read_short};
use super::TABLE;
use super::reader::nearest;

/// More than any configuration has.
const LIMIT: u64 = 256 * 1024;

/// What a file has, and everything that is wrong with it.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    pub(super) entries: Vec<Entry>,
    pub(super) problems: Vec<String>,
}

/// A setting in the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) line: usize,
    /// What it is, or what is wrong with it.
    pub(super) text: Result<String, String>,
}

impl ConfigFile {
    /// Reads the file; without a path there is nothing in it.
    pub(super) fn read(path: &Path) -> Self {
        let text = open_named(path).and_then(|file| read_short(file, LIMIT));
        match text {
            Ok(text) => Self::parse(&text, path),
            Err(error) => Self {
                entries: Vec::new(),
                problems: vec![format!("cannot read the file {}: {error}", path.display())],
            },
        }
    }

    pub(super) fn parse(text: &str, path: &Path) -> Self {
        // A place may be inside of a character, and at the end.
        let before = |at: usize| &text.as_bytes()[..at.min(text.len())];
        let line = |at| before(at).split(|byte| *byte == b'\n').count();
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut found = Self::default();
        let at = |line: usize| format!("{}:{line}", path.display());
        for error in errors {
            let at = at(error.span().map_or(1, |span| line(span.start)));
            let problem = format!("{at}: {}", error.message());
            // One mistake in the text is often several for the parser.
            if !found.has_problem_at(&at) {
                found.problems.push(problem);
            }
        }
        for (key, value) in table.get_ref() {
            let name = key.get_ref();
            let line = line(key.span().start);
            // What the parser made of a line that is wrong was not meant.
            if found.has_problem_at(&at(line)) {
                continue;
            }
            let Some(setting) = TABLE.iter().find(|setting| setting.name == name) else {
                let names = TABLE.iter().map(|setting| setting.name);
                let known = match nearest(name, names) {
                    Some(near) => format!("; did you mean {near}?"),
                    None => "; plugin-runner serve --check shows all".to_owned(),
                };
                let problem = format!("{}: there is no setting {name:?}{known}", at(line));
                found.problems.push(problem);
                continue;
            };
            let text = if setting.is_secret {
                let variable = setting.variable;
                Err(format!(
                    "a secret does not belong into this file; set the variable {variable}"
                ))
            } else {
                value_text(value.get_ref(), setting.is_list)
            };
            found.entries.push(Entry {
                name: setting.name,
                line,
                text,
            });
        }
        found
    }

    fn has_problem_at(&self, place: &str) -> bool {
        let at = format!("{place}: ");
        self.problems.iter().any(|problem| problem.starts_with(&at))
    }
}

/// Returns the value as it would be written for a flag.
fn value_text(value: &DeValue<'_>, is_list: bool) -> Result<String, String> {
    match value {
        DeValue::Array(items) if is_list => {
            let items = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                _ => Err("each of them is a text between quotes".to_owned()),
            });
            Ok(items.collect::<Result<Vec<_>, _>>()?.join(","))
        }
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Float(number) => Ok(number.to_string()),
        DeValue::Boolean(_) => Err("it is not a yes or no".to_owned()),
        DeValue::Array(_) => Err("it is one value, not several".to_owned()),
        DeValue::Table(_) => Err("it is a value, not a table".to_owned()),
        DeValue::Datetime(_) => Err("it is not a time; write a text between quotes".to_owned()),
    }
}
