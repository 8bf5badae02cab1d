//! Text from outside: what a plugin says must neither forge a line of a log, nor steer a terminal, nor be
//! of any length, when it is shown or sent on.

use std::borrow::Cow;
use std::fmt::{self, Write};

use crate::id::InstallationId;

/// Returns text from outside as it can be shown on one line of a log or a terminal: every character is escaped
/// that would not be seen as itself (see [`needs_escape`]). The work is done when it is shown.
///
/// [`Display`](fmt::Display) shows the text alone, [`Debug`](fmt::Debug) in quotes, with quotes and
/// backslashes escaped as well. A precision is the most characters that are shown, where an escaped character
/// counts as many as its escape has; how many bytes were cut off follows.
///
/// ```
/// use plugin_runner::text::escape;
///
/// assert_eq!(escape("two\nlines").to_string(), r"two\nlines");
/// assert_eq!(format!("{:?}", escape("a \"b\"")), r#""a \"b\"""#);
/// assert_eq!(format!("{:.3}", escape("abcdefg")), "abc… (4 more bytes)");
/// ```
pub fn escape(text: &str) -> impl fmt::Display + fmt::Debug + Copy {
    Foreign::new(text).limited_to(usize::MAX)
}

/// Text from outside, shown as by [`escape`], and cut to a limit. Creating it is cheap; the work is done when it
/// is shown.
#[derive(Clone, Copy)]
pub(crate) struct Foreign<'a> {
    text: &'a str,
    limit: usize,
}

impl<'a> Foreign<'a> {
    /// How many characters are shown unless another limit is set. An escaped character counts as many as
    /// its escape has.
    pub(crate) const LIMIT: usize = 1024;

    /// Shows up to [`LIMIT`](Self::LIMIT) characters of this text.
    pub(crate) const fn new(text: &'a str) -> Self {
        Self {
            text,
            limit: Self::LIMIT,
        }
    }

    /// Shows up to this many characters.
    #[must_use]
    pub(crate) const fn limited_to(self, characters: usize) -> Self {
        Self {
            limit: characters,
            ..self
        }
    }

    fn write(self, f: &mut fmt::Formatter<'_>, escaped: impl Fn(char) -> bool) -> fmt::Result {
        let mut room = f.precision().unwrap_or(self.limit);
        for (place, character) in self.text.char_indices() {
            let escaped = escaped(character);
            let escape = character.escape_default();
            let width = if escaped { escape.len() } else { 1 };
            if width > room {
                return f.write_str(&more(self.text.len() - place));
            }
            room -= width;
            if escaped {
                write!(f, "{escape}")?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, needs_escape)
    }
}

impl fmt::Debug for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        self.write(f, |character| {
            needs_escape(character) || matches!(character, '"' | '\\')
        })?;
        f.write_char('"')
    }
}

/// The byte order mark, which some editors and encoders put at the start of each text.
pub(crate) const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Returns whether a character does something else than being seen: control characters (line feeds and
/// escapes among them), separators of lines and paragraphs, and characters that change the direction
/// of text or are invisible.
pub const fn needs_escape(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
    )
}

/// The name of a plugin in a log line: `plugin hello (d0abc…)`, with the id of its manifest and that of
/// its installation. Several installations may share the first, and people do not know the second.
#[derive(Clone, Copy)]
pub(crate) struct PluginName<'a> {
    /// The id of the manifest, empty if it could not be read.
    pub(crate) manifest_id: &'a str,
    pub(crate) id: InstallationId,
}

impl fmt::Display for PluginName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { manifest_id, id } = self;
        if manifest_id.is_empty() {
            write!(f, "plugin {id}")
        } else {
            write!(f, "plugin {} ({id})", Foreign::new(manifest_id))
        }
    }
}

/// Returns at most `limit` bytes of the text, cut between characters, and then how many more there were.
pub(crate) fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end));
    let (kept, rest) = text.split_at(end.unwrap_or_default());
    Cow::Owned(format!("{kept}{}", more(rest.len())))
}

fn more(bytes: usize) -> String {
    format!("… ({bytes} more bytes)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_what_is_seen_is_left() {
        for (text, shown) in [
            ("plain äöü 🎉", "plain äöü 🎉"),
            ("a\r\nb\tc", r"a\r\nb\tc"),
            (
                "\u{1b}[31mred\u{7f}\u{9b}2J",
                r"\u{1b}[31mred\u{7f}\u{9b}2J",
            ),
            (
                "a\u{202e}b\u{2066}c\u{200f}d\u{61c}",
                r"a\u{202e}b\u{2066}c\u{200f}d\u{61c}",
            ),
            ("\u{2028}\u{2029}\u{85}\0", r"\u{2028}\u{2029}\u{85}\u{0}"),
            (r#"as "it" is\n"#, r#"as "it" is\n"#),
        ] {
            assert_eq!(Foreign::new(text).to_string(), shown);
            // What has been made fit stays as it is.
            assert_eq!(Foreign::new(shown).to_string(), shown);
        }
        let all: String = ('\0'..=char::MAX).collect();
        let shown = Foreign::new(&all).limited_to(usize::MAX).to_string();
        assert!(!shown.contains(needs_escape) && !shown.contains(char::is_control));
    }

    /// Several errors show short names that way.
    #[test]
    fn the_standard_way_to_quote_leaves_nothing_else_either() {
        for character in ('\0'..=char::MAX).filter(|character| needs_escape(*character)) {
            let quoted = format!("{:?}", character.to_string());
            assert!(!quoted.contains(needs_escape), "{character:?}");
        }
    }

    #[test]
    fn a_plugin_is_named_by_both_ids() {
        let id = InstallationId::generate();
        let name = |manifest_id| PluginName { manifest_id, id }.to_string();
        assert_eq!(name("a\nb"), format!(r"plugin a\nb ({id})"));
        assert_eq!(name(""), format!("plugin {id}"));
    }

    #[test]
    fn in_quotes_it_is_known_where_it_ends() {
        let text = "a\"\\\n";
        assert_eq!(format!("{:?}", Foreign::new(text)), r#""a\"\\\n""#);
    }

    #[test]
    fn it_is_cut_by_what_is_shown_and_says_so() {
        let shown = |text: &str| Foreign::new(text).limited_to(10).to_string();
        assert_eq!(shown(&"ä".repeat(10)), "ä".repeat(10));
        assert_eq!(shown(&"ä".repeat(11)), "ääääääääää… (2 more bytes)");
        assert_eq!(shown(&"\u{1}".repeat(3)), r"\u{1}\u{1}… (1 more bytes)");
        let long = Foreign::new(&"\u{202e}".repeat(4 << 20)).to_string();
        assert!(long.len() < 1100, "{}", long.len());
    }

    #[test]
    fn what_others_show_is_cut_only_where_they_say_so() {
        let long = "ä".repeat(4 * Foreign::LIMIT);
        assert_eq!(escape(&long).to_string(), long);
        assert_eq!(format!("{:.2}", escape("ä\nb")), "ä… (2 more bytes)");
        assert_eq!(
            format!("{:.3?}", escape("a\"b")),
            r#""a\"… (1 more bytes)""#
        );
    }

    #[test]
    fn what_is_sent_on_is_cut_between_characters() {
        assert_eq!(cut("äää", 6), "äää");
        assert_eq!(cut("äää", 5), "ää… (2 more bytes)");
        assert_eq!(cut("ä", 0), "… (2 more bytes)");
        assert_eq!(cut("", 0), "");
    }
}
