//! Lines: what one is, cutting a stream of bytes into them, and handing many on at once. No I/O.

use std::borrow::Cow;
use std::sync::Arc;

/// What every piece but the last of a line longer than
/// [`max_line`](super::LogSettings::max_line) ends in. A piece and its mark together are at most
/// `max_line` bytes.
pub const CONTINUES: &str = " [line continues]";

/// Where a line comes from. Not written to the file, where all are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogStream {
    /// The plugin's standard output.
    Stdout,
    /// The plugin's standard error.
    Stderr,
    /// The host, with notes for the readers of the plugin's log.
    Host,
}

/// A line as it was logged, for the tap.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine<'a> {
    /// Where it comes from.
    pub stream: LogStream,
    /// The line without its end, `\n` or `\r\n`. Bytes that are not UTF-8 are replaced by `U+FFFD`.
    /// Control characters are as the plugin printed them.
    pub text: Cow<'a, str>,
}

/// Called with every line, on the thread that logs it and in that thread's order; it holds up that
/// thread, so it must not block. If it panics, that is logged and it is not called again.
pub(crate) type LogTap = Arc<dyn Fn(&LogLine<'_>) + Send + Sync>;

/// Lines from one or more streams, to be written together. Each ends in `\n`.
#[derive(Debug, Default)]
pub(crate) struct LineBatch {
    bytes: Vec<u8>,
    /// Runs of lines from one stream: which, and where it ends.
    runs: Vec<(LogStream, usize)>,
}

impl LineBatch {
    /// Appends a line, given without its end.
    pub(crate) fn push(&mut self, stream: LogStream, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.bytes.push(b'\n');
        let end = self.bytes.len();
        match self.runs.last_mut() {
            Some(run) if run.0 == stream => run.1 = end,
            _ => self.runs.push((stream, end)),
        }
    }

    /// Appends a line, as several if it has line ends inside or is too long.
    pub(crate) fn push_cut(&mut self, stream: LogStream, line: &[u8], max_line: usize) {
        if line.len() <= max_line && !line.contains(&b'\n') {
            return self.push(stream, line);
        }
        let mut splitter = LineSplitter::new(max_line);
        splitter.push(line, |line| self.push(stream, line));
        splitter.push(b"\n", |line| self.push(stream, line));
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the lines as they go to the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the lines one by one, as text.
    pub(crate) fn lines(&self) -> impl Iterator<Item = LogLine<'_>> {
        let mut start = 0;
        self.runs.iter().flat_map(move |(stream, end)| {
            let run = &self.bytes[start..*end];
            start = *end;
            run.split_inclusive(|byte| *byte == b'\n')
                .map(|line| LogLine {
                    stream: *stream,
                    text: String::from_utf8_lossy(without_end(line)),
                })
        })
    }
}

/// Cuts a stream of bytes into lines of bounded length.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    max_line: usize,
    /// The beginning of a line whose end has not come yet; at most `max_line` bytes between calls.
    partial: Vec<u8>,
}

impl LineSplitter {
    /// `max_line` must have room for the mark and a character.
    pub(crate) fn new(max_line: usize) -> Self {
        Self {
            max_line: max_line.max(CONTINUES.len() + 4),
            partial: Vec::new(),
        }
    }

    /// Takes bytes, and calls `line` with each line that ends in them, without its `\n`.
    pub(crate) fn push(&mut self, mut input: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(length) = input.iter().position(|byte| *byte == b'\n') {
            let whole = &input[..length];
            input = &input[length + 1..];
            if self.partial.is_empty() && whole.len() <= self.max_line {
                line(whole);
            } else {
                self.partial.extend_from_slice(whole);
                self.cut(&mut line);
                line(&self.partial);
                self.partial.clear();
            }
        }
        self.partial.extend_from_slice(input);
        self.cut(&mut line);
    }

    /// Ends the stream: calls `line` with the last line if it had no end.
    pub(crate) fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            line(&self.partial);
            self.partial = Vec::new();
        }
    }

    /// Calls `line` with pieces until no more than a line's length is left.
    fn cut(&mut self, line: &mut impl FnMut(&[u8])) {
        let mut rest = self.partial.as_slice();
        let mut marked = Vec::new();
        while rest.len() > self.max_line {
            let (piece, next) = rest.split_at(boundary(rest, self.max_line - CONTINUES.len()));
            marked.clear();
            marked.extend_from_slice(piece);
            marked.extend_from_slice(CONTINUES.as_bytes());
            line(&marked);
            rest = next;
        }
        let given = self.partial.len() - rest.len();
        self.partial.drain(..given);
    }
}

/// Returns the last position at or before `at` that does not lie within a character. Bytes that are not
/// UTF-8 are cut anywhere.
fn boundary(bytes: &[u8], at: usize) -> usize {
    let continues = |place: usize| bytes[place] & 0b1100_0000 == 0b1000_0000;
    (at.saturating_sub(3)..=at)
        .rev()
        .find(|place| !continues(*place))
        .filter(|place| *place > 0)
        .unwrap_or(at)
}

/// Returns a line without its end, `\n` or `\r\n`.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(max_line: usize, inputs: &[&[u8]]) -> Vec<String> {
        let mut splitter = LineSplitter::new(max_line);
        let mut lines = Vec::new();
        for input in inputs {
            splitter.push(input, |line| {
                lines.push(String::from_utf8_lossy(line).into_owned());
            });
        }
        splitter.finish(|line| lines.push(String::from_utf8_lossy(line).into_owned()));
        lines
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let text = b"one\n\ntwo\r\nthree";
        let expected = ["one", "", "two\r", "three"];
        assert_eq!(split(100, &[text]), expected);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(split(100, &bytes), expected);
    }

    #[test]
    fn an_empty_stream_has_no_lines() {
        assert_eq!(split(100, &[b""]), Vec::<String>::new());
        assert_eq!(split(100, &[b"a\n"]), ["a"]);
    }

    #[test]
    fn a_line_of_the_greatest_length_is_whole_and_a_longer_one_is_cut() {
        let line = vec![b'x'; 64];
        assert_eq!(split(64, &[&line, b"\n"]), ["x".repeat(64)]);
        let line = vec![b'x'; 65];
        let piece = 64 - CONTINUES.len();
        let expected = [
            format!("{}{CONTINUES}", "x".repeat(piece)),
            "x".repeat(65 - piece),
        ];
        assert_eq!(split(64, &[&line, b"\n"]), expected);
        assert_eq!(split(64, &[&line]), expected);
    }

    #[test]
    fn a_line_without_end_is_given_as_it_comes_and_nothing_of_it_is_lost() {
        let text = "0123456789".repeat(1000);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(7).collect();
        let lines = split(100, &bytes);
        assert!(lines.iter().all(|line| line.len() <= 100));
        let joined: String = lines
            .iter()
            .map(|line| line.strip_suffix(CONTINUES).unwrap_or(line))
            .collect();
        assert_eq!(joined, text);
    }

    #[test]
    fn characters_are_not_torn() {
        let text = "ä€𝄞".repeat(200);
        for max_line in 64..80 {
            for line in split(max_line, &[text.as_bytes()]) {
                assert!(!line.contains('\u{fffd}'), "{max_line}: {line}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_characters_are_cut_all_the_same() {
        let lines = split(64, &[&[0x80; 1000]]);
        assert!(lines.len() > 1000 / 64);
    }

    #[test]
    fn a_batch_keeps_order_and_streams() {
        let mut batch = LineBatch::default();
        batch.push(LogStream::Stdout, b"a");
        batch.push(LogStream::Stdout, b"b\r");
        batch.push(LogStream::Stderr, b"\xffc");
        batch.push(LogStream::Stdout, b"");
        assert_eq!(batch.bytes(), b"a\nb\r\n\xffc\n\n");
        let lines: Vec<_> = batch
            .lines()
            .map(|line| (line.stream, line.text.into_owned()))
            .collect();
        assert_eq!(
            lines,
            [
                (LogStream::Stdout, "a".to_owned()),
                (LogStream::Stdout, "b".to_owned()),
                (LogStream::Stderr, "\u{fffd}c".to_owned()),
                (LogStream::Stdout, String::new()),
            ]
        );
    }
}
