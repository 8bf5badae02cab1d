//! `Picture`: what is shown, as lines that fit a terminal of any size.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use indicatif::BinaryBytes;
use plugin_runner::text::escape;

use super::Sort;
use super::usage::{Round, Row};
use crate::cli::client::table::{Table, cut};
use crate::cli::client::time::roughly;

/// The columns as they stand, each with how long it is kept where there is no room for all of them, and whether its
/// cells are numbers.
const COLUMNS: [Column; 7] = [
    Column::new("PLUGIN", 6, false),
    Column::new("STATE", 5, false),
    Column::new("UPTIME", 1, true),
    Column::new("RESTARTS", 0, true),
    Column::new("CALLS/S", 2, true),
    Column::new("CPU", 4, true),
    Column::new("MEMORY", 3, true),
];

struct Column {
    head: &'static str,
    worth: usize,
    is_number: bool,
}

impl Column {
    const fn new(head: &'static str, worth: usize, is_number: bool) -> Self {
        Self {
            head,
            worth,
            is_number,
        }
    }
}

/// Cells of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) width: usize,
    pub(super) height: usize,
}

/// What is shown now.
pub(super) struct Picture {
    base: String,
    sort: Sort,
    round: Round,
    /// What there is to say of a host that has gone.
    gone: Option<String>,
}

impl Picture {
    pub(super) fn new(base: &str, sort: Sort, round: Round) -> Self {
        Self {
            base: base.to_owned(),
            sort,
            round,
            gone: None,
        }
    }

    pub(super) fn show(&mut self, base: &str, round: Round) {
        *self = Self::new(base, self.sort, round);
    }

    /// What was shown last stays.
    pub(super) fn host_has_gone(&mut self, why: &str) {
        self.gone = Some(why.to_owned());
    }

    /// Returns the lines, as many and as wide as the terminal at most. Rows without room are counted in the last one.
    pub(super) fn lines(&self, size: Size) -> Vec<String> {
        let width = Some(size.width);
        let mut lines = vec![match &self.gone {
            Some(why) => fitting(&format!("waiting for the host: {why}"), width),
            None => summary(&self.base, &self.round, width),
        }];
        let mut table = table(&self.round, self.sort, width);
        let room = size.height.saturating_sub(lines.len());
        if table.len() > room {
            let shown = room.saturating_sub(1);
            let missing = table.len() - shown.max(1);
            table.truncate(shown);
            table.push(fitting(&format!("… and {missing} more"), width));
        }
        lines.extend(table);
        lines.truncate(size.height.max(1));
        lines
    }
}

/// Returns what can be said of all plugins in a line.
pub(super) fn summary(base: &str, round: &Round, width: Option<usize>) -> String {
    let all = round.rows.len();
    let active = round.rows.iter().filter(|row| row.state == "active");
    let plugins = if all == 1 { "plugin" } else { "plugins" };
    let mut said = format!("{all} {plugins}, {} active", active.count());
    if let Some(calls) = round.calls_per_second {
        let _ = write!(said, "; {calls:.1} calls/s");
    }
    match round.p99.map(|at_most| at_most.0) {
        None => {}
        Some(None) => said.push_str(", p99 of minutes"),
        Some(Some(seconds)) => {
            let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            let _ = write!(said, ", p99 ≤ {time:?}");
        }
    }
    fitting(&format!("{said}; {base}"), width)
}

/// Returns the rows under their head. What there is no room for is left out, column by column, and the end of long
/// names.
pub(super) fn table(round: &Round, sort: Sort, width: Option<usize>) -> Vec<String> {
    let rows = round.sorted(sort);
    let mut names: HashMap<&str, usize> = HashMap::new();
    for row in &rows {
        *names.entry(&row.plugin).or_default() += 1;
    }
    let cells: Vec<_> = rows
        .iter()
        .map(|row| cells(row, names[row.plugin.as_str()] > 1))
        .collect();
    let mut columns: Vec<_> = COLUMNS.iter().enumerate().collect();
    loop {
        let table = with_columns(&columns, &cells);
        let fits = width.is_none_or(|width| table.narrowest() <= width);
        if fits || columns.len() == 1 {
            let lines = table.lines(width).into_iter();
            return lines.map(|line| fitting_line(&line, width)).collect();
        }
        let least = columns.iter().map(|(_, column)| column.worth).min();
        columns.retain(|(_, column)| Some(column.worth) > least);
    }
}

fn with_columns(columns: &[(usize, &Column)], rows: &[[String; 7]]) -> Table {
    let padded: Vec<Vec<String>> = columns
        .iter()
        .map(|&(index, column)| {
            let cells = std::iter::once(column.head).chain(rows.iter().map(|row| &*row[index]));
            if !column.is_number {
                return cells.map(str::to_owned).collect();
            }
            let width = cells.clone().map(str::len).max().unwrap_or_default();
            cells.map(|cell| format!("{cell:>width$}")).collect()
        })
        .collect();
    let row = |index: usize| padded.iter().map(move |column| &*column[index]);
    let mut table = Table::new(&row(0).collect::<Vec<_>>());
    for index in 1..=rows.len() {
        table.row(row(index));
    }
    table
}

fn cells(row: &Row, is_ambiguous: bool) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let name = if is_ambiguous {
        format!("{} {}", row.plugin, row.id)
    } else {
        row.plugin.clone()
    };
    [
        name,
        row.state.clone(),
        or_dash(row.uptime.map(roughly)),
        row.restarts.to_string(),
        or_dash(row.calls_per_second.map(|calls| format!("{calls:.1}"))),
        or_dash(row.cpu_percent.map(|cpu| format!("{cpu:.1}%"))),
        or_dash(row.memory_bytes.map(size)),
    ]
}

fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

fn fitting(text: &str, width: Option<usize>) -> String {
    fitting_line(&escape(text).to_string(), width)
}

fn fitting_line(line: &str, width: Option<usize>) -> String {
    width.map_or_else(|| line.to_owned(), |width| cut(line, width))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use unicode_width::UnicodeWidthStr as _;

    use super::super::usage::tests::look;
    use super::*;

    fn picture() -> Picture {
        let began = Instant::now();
        let mut plugins = vec![
            ("hello", 10, Some((1.0, 3 << 20))),
            ("a-rather-long-name-of-a-plugin", 0, Some((1.0, 700 << 20))),
            ("\u{1b}[2Jevil", 0, None),
            ("twice", 0, None),
            ("twice", 0, None),
        ];
        let before = look(began, 1, &plugins, &[0, 0, 0]);
        plugins[0].1 = 35;
        plugins[0].2 = Some((1.25, 3 << 20));
        let now = look(began, 3, &plugins, &[20, 25, 25]);
        Picture::new(
            "http://127.0.0.1:1",
            Sort::Name,
            Round::between(Some(&before), &now),
        )
    }

    fn lines(width: usize, height: usize) -> Vec<String> {
        picture().lines(Size { width, height })
    }

    #[test]
    fn where_there_is_room_everything_is_shown() {
        assert_eq!(
            lines(200, 50),
            [
                "5 plugins, 5 active; 12.5 calls/s, p99 ≤ 2.5ms; http://127.0.0.1:1",
                "PLUGIN                          STATE   UPTIME  RESTARTS  CALLS/S    CPU      MEMORY",
                "\\u{1b}[2Jevil                   active    1m3s         2      0.0      -           -",
                "a-rather-long-name-of-a-plugin  active    1m3s         2      0.0   0.0%  700.00 MiB",
                "hello                           active    1m3s         2     12.5  12.5%    3.00 MiB",
                "twice id3                       active    1m3s         2      0.0      -           -",
                "twice id4                       active    1m3s         2      0.0      -           -",
            ]
        );
    }

    #[test]
    fn where_there_is_little_room_what_matters_most_is_shown() {
        assert_eq!(
            lines(40, 5),
            [
                "5 plugins, 5 active; 12.5 calls/s, p99 …",
                "PLUGIN         STATE     CPU      MEMORY",
                "\\u{1b}[2Jevil  active      -           -",
                "a-rather-lon…  active   0.0%  700.00 MiB",
                "… and 3 more",
            ]
        );
    }

    #[test]
    fn every_size_is_kept_to() {
        let mut picture = picture();
        for _ in ["the host is there", "it has gone"] {
            for width in 1..120 {
                for height in 1..12 {
                    let lines = picture.lines(Size { width, height });
                    assert!(lines.len() <= height, "{width} times {height}: {lines:?}");
                    for line in &lines {
                        assert!(line.width() <= width, "{width} times {height}: {line:?}");
                    }
                    if (4..7).contains(&height) && width > 12 {
                        let missing = format!("… and {} more", 8 - height);
                        assert_eq!(*lines.last().unwrap(), missing);
                    }
                }
            }
            picture.host_has_gone("no host is running at http://127.0.0.1:1");
        }
    }

    #[test]
    fn a_host_that_has_gone_is_said_above_what_was_last_seen() {
        let mut picture = picture();
        picture.host_has_gone("no host is running at http://127.0.0.1:1");
        let size = Size {
            width: 200,
            height: 50,
        };
        let gone = picture.lines(size);
        assert_eq!(
            gone[0],
            "waiting for the host: no host is running at http://127.0.0.1:1"
        );
        assert_eq!(gone[1..], lines(200, 50)[1..]);
    }
}
