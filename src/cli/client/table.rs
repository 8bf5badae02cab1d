//! Tables for people: columns that fit the terminal.

use std::io::IsTerminal as _;

use plugin_runner::text::escape;
use unicode_width::UnicodeWidthStr as _;

/// Between two columns.
const GAP: usize = 2;
/// Cells that a column keeps where there is no room for all of it.
const LEAST: usize = 8;

/// Rows under a head. What plugins and people have chosen is escaped.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// The columns that are left out one after the other where there is no room for all.
    spared: &'static [&'static str],
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|&name| name.to_owned()).collect();
        Self {
            rows: vec![head],
            spared: &[],
        }
    }

    /// Leaves these columns out, one after the other, where there is no room for all.
    pub(super) fn sparing(self, spared: &'static [&'static str]) -> Self {
        Self { spared, ..self }
    }

    /// Adds a row with a cell for each column.
    pub(super) fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let cells = cells
            .into_iter()
            .map(|cell| escape(cell.as_ref()).to_string());
        self.rows.push(cells.collect());
    }

    /// Returns the lines, none wider than this if that is possible: columns are left out, and the widest are cut.
    pub(super) fn lines(&self, width: Option<usize>) -> Vec<String> {
        if let Some(fitting) = width.and_then(|width| self.without_spared(width)) {
            return fitting.lines(width);
        }
        let mut widths = self.widths();
        if let Some(width) = width {
            let gaps = GAP * widths.len().saturating_sub(1);
            fit(&mut widths, width.saturating_sub(gaps));
        }
        self.rows.iter().map(|row| line(row, &widths)).collect()
    }

    /// Returns the table without the next column that can be spared, if it is too wide and there is one.
    fn without_spared(&self, width: usize) -> Option<Self> {
        let (next, spared) = self.spared.split_first()?;
        if self.narrowest() <= width {
            return None;
        }
        let place = self.rows.first()?.iter().position(|name| name == next)?;
        let mut rows = self.rows.clone();
        for row in &mut rows {
            row.remove(place);
        }
        Some(Self { rows, spared })
    }

    /// Returns the width of which no line needs more.
    pub(super) fn narrowest(&self) -> usize {
        let widths = self.widths();
        let gaps = GAP * widths.len().saturating_sub(1);
        widths.iter().map(|&width| width.min(LEAST)).sum::<usize>() + gaps
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.width()).max().unwrap_or_default()
            })
            .collect()
    }
}

/// Returns the width of the terminal that standard output is; `None` if it is none, so that programs get all.
pub(super) fn terminal_width() -> Option<usize> {
    let output = std::io::stdout();
    if !output.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&output).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Makes the widest column narrower until all fit, or none can be.
fn fit(widths: &mut [usize], room: usize) {
    while widths.iter().sum::<usize>() > room {
        let widest = widths.iter_mut().max();
        match widest {
            Some(widest) if *widest > LEAST => *widest -= 1,
            _ => return,
        }
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (index, (cell, &width)) in row.iter().zip(widths).enumerate() {
        let cell = cut(cell, width);
        line.push_str(&cell);
        if index + 1 < row.len() {
            line.extend(std::iter::repeat_n(
                ' ',
                width.saturating_sub(cell.width()) + GAP,
            ));
        }
    }
    line.trim_end().to_owned()
}

/// Returns text of at most this width, whose end shows that something is missing.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let mut shown = String::new();
    for character in text.chars() {
        let end = shown.len();
        shown.push(character);
        // Not the sum of its characters' widths: one may make the one before it wider.
        if shown.width() > room {
            shown.truncate(end);
            break;
        }
    }
    shown.push('…');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["ID", "TEXT"]);
        table.row(["a", "a text that is rather long"]);
        table.row(["bcd", "日本語のとても長い説明文です"]);
        table.row(["e", "\u{1b}[2J"]);
        table
    }

    #[test]
    fn columns_are_aligned_and_nothing_is_cut_without_a_width() {
        assert_eq!(
            table().lines(None),
            [
                "ID   TEXT",
                "a    a text that is rather long",
                "bcd  日本語のとても長い説明文です",
                "e    \\u{1b}[2J",
            ]
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 20..40 {
            for line in table().lines(Some(width)) {
                assert!(line.width() <= width, "{line:?} at {width}");
            }
        }
        let lines = table().lines(Some(20));
        assert_eq!(lines[1], "a    a text that is…");
        assert_eq!(lines[2], "bcd  日本語のとても…");
    }

    #[test]
    fn characters_that_widen_others_are_cut_like_all() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["\u{263a}\u{fe0f}".repeat(40).as_str(), "b"]);
        for line in table.lines(Some(20)) {
            assert!(line.width() <= 20, "{line:?}");
        }
    }

    #[test]
    fn columns_that_can_be_spared_give_way_one_after_the_other() {
        let table = || table().sparing(&["TEXT"]);
        assert_eq!(table().lines(Some(20)).len(), 4);
        assert!(table().lines(Some(20))[0].contains("TEXT"));
        assert_eq!(table().lines(Some(12)), ["ID", "a", "bcd", "e"]);
        assert!(table().lines(None)[0].contains("TEXT"));
    }

    #[test]
    fn a_terminal_that_is_too_narrow_gets_what_there_is() {
        let lines = table().lines(Some(3));
        assert_eq!(lines[1], "a    a text …");
    }
}
