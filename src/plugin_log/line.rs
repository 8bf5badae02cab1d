//! Lines of a log: what one is, and handing many on at once. No I/O.

use std::borrow::Cow;
use std::sync::Arc;

use crate::line_splitter::LineSplitter;

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

/// Returns a line without its end, `\n` or `\r\n`.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

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
