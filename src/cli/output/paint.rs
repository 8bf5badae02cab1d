//! Colours, and keeping what plugins print from doing anything else to the terminal.

use std::borrow::Cow;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Effects, Style};
use plugin_runner::ReportedState;
use plugin_runner::text;

/// The colours of names, one plugin after the other.
const NAME_COLOURS: [AnsiColor; 5] = [
    AnsiColor::Cyan,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Yellow,
    AnsiColor::Green,
];

/// Puts text in colour, or leaves it as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    coloured: bool,
}

impl Paint {
    pub(crate) const fn new(coloured: bool) -> Self {
        Self { coloured }
    }

    /// Colours if this is a terminal that has them, unless the environment says otherwise: `NO_COLOR`,
    /// `CLICOLOR`, `CLICOLOR_FORCE`.
    pub(crate) fn for_stream(stream: &impl RawStream) -> Self {
        Self::new(AutoStream::choice(stream) != ColorChoice::Never)
    }

    pub(crate) const fn is_coloured(self) -> bool {
        self.coloured
    }

    /// Returns a plugin's name, padded, in the colour of its place.
    pub(super) fn name(self, name: &str, place: usize, width: usize) -> String {
        let colour = NAME_COLOURS[place % NAME_COLOURS.len()];
        self.with(colour.on_default(), &format!("{name:width$}"))
    }

    pub(super) fn state(self, state: ReportedState) -> String {
        let style = match state {
            ReportedState::Active => AnsiColor::Green.on_default().bold(),
            ReportedState::Errored => AnsiColor::Red.on_default().bold(),
            ReportedState::Restarting | ReportedState::Stopping => AnsiColor::Yellow.on_default(),
            ReportedState::Inactive | ReportedState::Starting | ReportedState::Connecting => {
                Style::new().bold()
            }
        };
        self.with(style, state.as_str())
    }

    /// Returns text that is less important than the rest.
    pub(super) fn faint(self, text: &str) -> String {
        self.with(Effects::DIMMED.into(), text)
    }

    pub(super) fn warning(self, text: &str) -> String {
        self.with(AnsiColor::Yellow.on_default(), text)
    }

    pub(crate) fn with(self, style: Style, text: &str) -> String {
        let style = if self.coloured { style } else { Style::new() };
        format!("{style}{text}{style:#}")
    }
}

/// Returns text from a plugin as it can be shown: its colours are dropped, and whatever else a terminal would
/// obey instead of showing it is escaped, except for the tab. It is not cut, being what people want to read.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let needs_escape = |character: char| text::needs_escape(character) && character != '\t';
    if !text.contains(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some(after) = after_colour(rest) {
            rest = after;
            continue;
        }
        if needs_escape(character) {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
        rest = &rest[character.len_utf8()..];
    }
    Cow::Owned(clean)
}

/// Returns what comes after a colour sequence (`ESC [ 1 ; 31 m`), if the text begins with one.
fn after_colour(text: &str) -> Option<&str> {
    text.strip_prefix("\u{1b}[")?
        .trim_start_matches(|character: char| character.is_ascii_digit() || character == ';')
        .strip_prefix('m')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_plugins_print_cannot_steer_the_terminal() {
        for (text, shown) in [
            ("plain äöü\ttab", "plain äöü\ttab"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("a\rb\u{7}", "a\\rb\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{1b}", "\\u{1b}"),
            ("a\u{202e}b\u{2028}c", "a\\u{202e}b\\u{2028}c"),
        ] {
            assert_eq!(harmless(text), shown);
        }
    }

    #[test]
    fn without_colours_there_is_no_escape() {
        let plain = Paint::new(false);
        assert_eq!(plain.name("a", 7, 3), "a  ");
        assert_eq!(plain.state(ReportedState::Active), "active");
        let coloured = Paint::new(true).state(ReportedState::Active);
        assert_eq!(coloured, "\u{1b}[1m\u{1b}[32mactive\u{1b}[0m");
    }
}
