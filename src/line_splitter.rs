//! Cuts a stream of bytes into lines of bounded length. No I/O.

/// What every piece but the last of a line over the limit of its log ends in. A piece and its mark
/// together are at most as long as that limit, in bytes.
pub const CONTINUES: &str = " [line continues]";

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
}
