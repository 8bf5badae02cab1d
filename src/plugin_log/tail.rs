//! `Tail`: the last lines of a log, in memory, for error details.

use std::collections::VecDeque;

use super::line::without_end;

/// Bytes of a line that are kept; enough for a message, and twenty of them still fit a report.
const MAX_LENGTH: usize = 1024;

/// The last few lines.
#[derive(Debug)]
pub(super) struct Tail {
    limit: usize,
    lines: VecDeque<String>,
}

impl Tail {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            lines: VecDeque::new(),
        }
    }

    /// Takes lines that each end in `\n`. Reads only as many of the last as are kept.
    pub(super) fn extend(&mut self, lines: &[u8]) {
        let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
        let mut recent: Vec<String> = lines
            .rsplit(|byte| *byte == b'\n')
            .take(self.limit)
            .map(shorten)
            .collect();
        let excess = (self.lines.len() + recent.len()).saturating_sub(self.limit);
        self.lines.drain(..excess);
        self.lines.extend(recent.drain(..).rev());
    }

    pub(super) fn clear(&mut self) {
        self.lines.clear();
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

fn shorten(line: &[u8]) -> String {
    let line = without_end(line);
    let mut text = String::from_utf8_lossy(&line[..line.len().min(MAX_LENGTH + 4)]).into_owned();
    if text.len() > MAX_LENGTH {
        let end = (0..=MAX_LENGTH)
            .rev()
            .find(|place| text.is_char_boundary(*place))
            .unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay() {
        let mut tail = Tail::new(3);
        tail.extend(b"1\n2\n");
        assert_eq!(tail.lines(), ["1", "2"]);
        tail.extend(b"3\r\n4\n");
        assert_eq!(tail.lines(), ["2", "3", "4"]);
        tail.extend(b"5\n\n7\n8\n9\n");
        assert_eq!(tail.lines(), ["7", "8", "9"]);
        tail.extend(b"\n");
        assert_eq!(tail.lines(), ["8", "9", ""]);
    }

    #[test]
    fn none_stay_when_none_are_wanted() {
        let mut tail = Tail::new(0);
        tail.extend(b"1\n");
        assert!(tail.lines().is_empty());
    }

    #[test]
    fn long_lines_are_shortened_between_characters() {
        let mut tail = Tail::new(1);
        let text = format!("{}{}", "x".repeat(MAX_LENGTH - 1), "ä".repeat(1000));
        tail.extend(format!("{text}\n").as_bytes());
        assert_eq!(tail.lines(), [format!("{}…", "x".repeat(MAX_LENGTH - 1))]);
        let exact = "x".repeat(MAX_LENGTH);
        tail.extend(format!("{exact}\n").as_bytes());
        assert_eq!(tail.lines(), [exact]);
    }
}
