//! What commands print on standard output.

use std::io::{self, Write as _};

use serde::Serialize;

use super::table::{Table, terminal_width};
use crate::cli::error::CliError;
pub(super) use crate::cli::output::harmless;
use crate::cli::output::push_escaped;
use crate::cli::run::say;

/// Prints lines.
///
/// # Errors
/// [`CliError::reader_has_left`] when nothing reads them any more, which ends the program with 0; and what the system
/// reports.
pub(in crate::cli) fn print(text: &str) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    let written = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::reader_has_left(),
        _ => CliError::cannot("write to standard output")(error),
    })
}

/// Prints a line.
///
/// # Errors
/// As [`print`].
pub(in crate::cli) fn line(text: &str) -> Result<(), CliError> {
    print(&format!("{text}\n"))
}

/// Prints an object as one line of JSON. What the host has sent stays as it is (`RawValue`), but for line ends and what
/// a terminal would obey: plugins have written parts of it.
///
/// # Errors
/// As [`print`].
pub(in crate::cli) fn json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value).map_err(CliError::cannot("write JSON"))?;
    line(&one_line(&text))
}

/// Makes JSON one line that a terminal can show. It says the same: raw white space stands only between values.
fn one_line(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    push_escaped(&json.replace(['\n', '\r', '\t'], " "), &mut text);
    text
}

/// Prints a table that fits the terminal.
///
/// # Errors
/// As [`print`].
pub(super) fn table(table: &Table) -> Result<(), CliError> {
    let mut text = table.lines(terminal_width()).join("\n");
    text.push('\n');
    print(&text)
}

/// Does something for each name, also after a failure.
///
/// # Errors
/// The first failure; the others are said.
pub(super) fn each(
    names: &[String],
    mut body: impl FnMut(&str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut outcome = Ok(());
    for name in names {
        match body(name) {
            Err(failure) if outcome.is_err() => say(&failure.to_string()),
            Err(failure) if failure.is_said() => return Err(failure),
            Err(failure) => outcome = Err(failure),
            Ok(()) => {}
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_a_plugin_is_one_harmless_line_that_says_the_same() {
        let json = "{\r\n\t\"a\\n\": [1.00,\n\"\u{9b}2J\"]\n}";
        let shown = one_line(json);
        assert_eq!(shown, "{   \"a\\n\": [1.00, \"\\u009b2J\"] }");
        let value = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(json));
    }
}
