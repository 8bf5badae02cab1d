//! A stream of server-sent events.

use std::io;

use super::wire::Wire;

/// One event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event<'e> {
    /// Where a client that connects again wants to go on.
    pub(crate) id: Option<&'e str>,
    /// Its type; `message` if there is none.
    pub(crate) name: Option<&'e str>,
    /// Its data; what has several lines arrives with a line feed between each two.
    pub(crate) data: &'e str,
}

/// The client's end of a stream of events. The thread of the connection writes to it; a client that reads
/// too slowly is given up after [`HttpSettings::write`](super::HttpSettings::write), and holds up no other.
pub(crate) struct EventStream<'c> {
    wire: &'c Wire,
    is_chunked: bool,
    has_failed: bool,
}

impl<'c> EventStream<'c> {
    pub(super) fn new(wire: &'c Wire, is_chunked: bool) -> Self {
        Self {
            wire,
            is_chunked,
            has_failed: false,
        }
    }

    /// Sends an event.
    ///
    /// # Blocking
    /// At most for [`HttpSettings::write`](super::HttpSettings::write) for each 64 KiB.
    ///
    /// # Errors
    /// `InvalidInput` if the id or the name has a line end or NUL, which harms nothing. After any other
    /// error the stream has ended.
    pub(crate) fn send(&mut self, event: &Event<'_>) -> io::Result<()> {
        let mut text = String::with_capacity(event.data.len() + 64);
        for (field, value) in [("id: ", event.id), ("event: ", event.name)] {
            let Some(value) = value else { continue };
            if has_line_end(value) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            text.extend([field, value, "\n"]);
        }
        for line in lines(event.data) {
            text.extend(["data: ", line, "\n"]);
        }
        text.push('\n');
        self.write(&text)
    }

    /// Tells where a client that connects again wants to go on, without an event.
    ///
    /// # Blocking
    /// As [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) fn send_id(&mut self, id: &str) -> io::Result<()> {
        if has_line_end(id) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.write(&format!("id: {id}\n\n"))
    }

    /// Sends a comment, which clients ignore: a heartbeat.
    ///
    /// # Blocking
    /// As [`send`](Self::send).
    ///
    /// # Errors
    /// The stream has ended.
    pub(crate) fn comment(&mut self, text: &str) -> io::Result<()> {
        let mut comment = String::with_capacity(text.len() + 8);
        for line in lines(text) {
            comment.extend([": ", line, "\n"]);
        }
        comment.push('\n');
        self.write(&comment)
    }

    /// Whether the client is still there and the server does not stop. Who waits for something to send asks
    /// once a second. Never blocks.
    pub(crate) fn is_open(&self) -> bool {
        !self.has_failed && self.wire.is_open()
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        // Nothing is half-written, so that the stream can still end as a whole one.
        if !self.is_open() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = if self.is_chunked {
            let chunk = format!("{:x}\r\n{text}\r\n", text.len());
            self.wire.write(chunk.as_bytes())
        } else {
            self.wire.write(text.as_bytes())
        };
        written.inspect_err(|_| self.has_failed = true)
    }

    /// Ends the stream, so that the client sees that it is whole.
    pub(super) fn end(self) -> io::Result<()> {
        if self.has_failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.is_chunked {
            self.wire.write(b"0\r\n\r\n")?;
        }
        Ok(())
    }
}

/// Whether it would end its field, or be ignored for a NUL.
fn has_line_end(value: &str) -> bool {
    value.contains(['\r', '\n', '\0'])
}

/// Splits text where a client of events would: at CR, LF, and both together.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let Some(end) = memchr::memchr2(b'\r', b'\n', text.as_bytes()) else {
            return Some(text);
        };
        let (line, after) = text.split_at(end);
        let length = if after.starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&after[length..]);
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_split_where_its_reader_would() {
        for (text, wanted) in [
            ("", vec![""]),
            ("a", vec!["a"]),
            ("a\nb", vec!["a", "b"]),
            ("a\r\nb", vec!["a", "b"]),
            ("a\rb", vec!["a", "b"]),
            ("a\n\rb\n", vec!["a", "", "b", ""]),
        ] {
            assert_eq!(lines(text).collect::<Vec<_>>(), wanted, "{text:?}");
        }
    }
}
