//! The body of a request: a stream with a bound, a deadline, and one way to read it.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::refusal::RefusalAnswer;
use super::settings::HttpSettings;
use super::wire::Wire;
use crate::deadline::Deadline;

/// Longest size line of a chunk, in bytes, with its line end.
const SIZE_LINE: usize = 256;
/// Most digits of a chunk's size.
const SIZE_DIGITS: usize = 8;
/// Longest line of a trailer, in bytes, with its line end.
const TRAILER_LINE: usize = 4 * 1024;
/// Most bytes of chunk extensions and trailers in one body.
const OVERHEAD: usize = 16 * 1024;
/// How much of a body that the handler left is read for the sake of the next request, in bytes.
const LEFT_OVER: u64 = 64 * 1024;

/// How the length of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It has more bytes than the handler's limit.
    TooLarge { limit: u64 },
    /// It took longer than its bytes may take.
    Timeout,
    /// Its chunks are malformed.
    Malformed,
    /// The peer went away, or the server stops.
    Gone,
}

impl BodyError {
    /// Returns the answer to a request with such a body.
    pub(crate) fn answer(self) -> &'static RefusalAnswer {
        match self {
            Self::TooLarge { .. } => RefusalAnswer::BODY_TOO_LARGE,
            Self::Timeout => RefusalAnswer::REQUEST_TIMEOUT,
            Self::Malformed | Self::Gone => RefusalAnswer::BAD_REQUEST,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "the body has more than {limit} bytes"),
            Self::Timeout => f.write_str("the body did not come in time"),
            Self::Malformed => f.write_str("the body has malformed chunks"),
            Self::Gone => f.write_str("the connection ended within the body"),
        }
    }
}

impl std::error::Error for BodyError {}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> Self {
        let kind = match error {
            BodyError::TooLarge { .. } => io::ErrorKind::FileTooLarge,
            BodyError::Timeout => io::ErrorKind::TimedOut,
            BodyError::Malformed => io::ErrorKind::InvalidData,
            BodyError::Gone => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}

/// Where in the body reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// So many bytes of a plain body are left.
    Plain(u64),
    /// Before the size line of a chunk.
    Size,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// Before the line end behind a chunk.
    ChunkEnd,
    /// Behind the last chunk.
    Trailers,
    End,
}

/// The body of one request, on its connection.
pub(crate) struct Body<'c> {
    pub(super) wire: &'c mut Wire,
    place: Place,
    /// Most bytes that the handler accepts.
    limit: u64,
    received: u64,
    /// What is left of [`OVERHEAD`].
    overhead: usize,
    /// The client waits for 100 before it sends the body.
    is_awaited: bool,
    /// When the first byte was asked for.
    began: Option<Instant>,
    time: Duration,
    rate: u64,
    /// The same error again for whoever goes on.
    error: Option<BodyError>,
}

impl<'c> Body<'c> {
    pub(super) fn new(
        wire: &'c mut Wire,
        framing: Framing,
        expects_continue: bool,
        settings: &HttpSettings,
    ) -> Self {
        let place = match framing {
            Framing::Length(0) => Place::End,
            Framing::Length(length) => Place::Plain(length),
            Framing::Chunked => Place::Size,
        };
        Self {
            wire,
            place,
            limit: 0,
            received: 0,
            overhead: OVERHEAD,
            is_awaited: expects_continue && place != Place::End,
            began: None,
            time: settings.body,
            rate: settings.body_rate.max(1),
            error: None,
        }
    }

    /// Sets the most bytes that are accepted, from the beginning of the body.
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Returns why reading failed, if it did.
    pub(super) fn error(&self) -> Option<BodyError> {
        self.error
    }

    /// Whether the connection can be used for another request, as far as it can be told before the rest is
    /// read: not if much is left, nor if the client still waits for 100, and may send the body or not.
    pub(super) fn may_be_skipped(&self) -> bool {
        let is_much = matches!(self.place, Place::Plain(left) if left > LEFT_OVER);
        self.error.is_none() && !is_much && !self.is_awaited
    }

    /// Reads what the handler left. Returns whether that was the whole rest: not if it is much, malformed, or
    /// does not come in time.
    pub(super) fn skip(&mut self, time: Duration) -> bool {
        self.limit = self.received.saturating_add(LEFT_OVER);
        let mut buffer = [0; 4096];
        let deadline = Deadline::after(time);
        loop {
            match self.next(&mut buffer, deadline) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// The deadline for what comes next: the whole time, and what the bytes so far may have taken.
    fn deadline(&mut self) -> Deadline {
        let began = *self.began.get_or_insert_with(Instant::now);
        let bought = Duration::from_millis(self.received.saturating_mul(1000) / self.rate);
        Deadline::after(
            self.time
                .saturating_add(bought)
                .saturating_sub(began.elapsed()),
        )
    }

    fn next(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, BodyError> {
        loop {
            match self.place {
                Place::End => return Ok(0),
                Place::Plain(left) => {
                    let count = self.take(left, buffer, deadline)?;
                    let left = left - count as u64;
                    self.place = if left == 0 {
                        Place::End
                    } else {
                        Place::Plain(left)
                    };
                    return Ok(count);
                }
                Place::Size => {
                    let (size, extension) = parse_size(self.line(SIZE_LINE, deadline)?)?;
                    self.charge(extension)?;
                    self.place = match size {
                        0 => Place::Trailers,
                        size => Place::Chunk(size),
                    };
                }
                Place::Chunk(left) => {
                    let count = self.take(left, buffer, deadline)?;
                    let left = left - count as u64;
                    self.place = if left == 0 {
                        Place::ChunkEnd
                    } else {
                        Place::Chunk(left)
                    };
                    return Ok(count);
                }
                Place::ChunkEnd => {
                    if !self.line(2, deadline)?.is_empty() {
                        return Err(BodyError::Malformed);
                    }
                    self.place = Place::Size;
                }
                Place::Trailers => {
                    let length = self.line(TRAILER_LINE, deadline)?.len();
                    if length == 0 {
                        self.place = Place::End;
                    }
                    self.charge(length)?;
                }
            }
        }
    }

    /// Takes bytes of the body itself, of which so many are left here.
    fn take(
        &mut self,
        left: u64,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> Result<usize, BodyError> {
        if left > self.limit - self.received.min(self.limit) {
            return Err(BodyError::TooLarge { limit: self.limit });
        }
        let room = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.wire.read(&mut buffer[..room], deadline);
        let count = count.map_err(|error| to_body_error(&error))?;
        if count == 0 {
            return Err(BodyError::Gone);
        }
        self.received += count as u64;
        Ok(count)
    }

    /// Reads a line of at most so many bytes, which ends in CR and LF, and returns it without them.
    fn line(&mut self, limit: usize, deadline: Deadline) -> Result<&[u8], BodyError> {
        let mut searched = 0;
        let end = loop {
            let ahead = self.wire.ahead();
            let within = &ahead[..ahead.len().min(limit)];
            if let Some(found) = memchr::memchr(b'\n', &within[searched..]) {
                break searched + found + 1;
            }
            if within.len() == limit {
                return Err(BodyError::Malformed);
            }
            searched = within.len();
            let read = self.wire.read_ahead(deadline);
            if read.map_err(|error| to_body_error(&error))? == 0 {
                return Err(BodyError::Gone);
            }
        };
        let line = self.wire.take(end).strip_suffix(b"\r\n");
        let line = line.ok_or(BodyError::Malformed)?;
        let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        if line.iter().all(is_text) {
            Ok(line)
        } else {
            Err(BodyError::Malformed)
        }
    }

    fn charge(&mut self, bytes: usize) -> Result<(), BodyError> {
        let left = self.overhead.checked_sub(bytes);
        self.overhead = left.ok_or(BodyError::Malformed)?;
        Ok(())
    }

    /// Asks the client for the body, if it waits for that.
    fn ask(&mut self) -> Result<(), BodyError> {
        if !self.is_awaited {
            return Ok(());
        }
        if let Place::Plain(length) = self.place
            && length > self.limit
        {
            return Err(BodyError::TooLarge { limit: self.limit });
        }
        self.is_awaited = false;
        let asked = self.wire.write(b"HTTP/1.1 100 Continue\r\n\r\n");
        asked.map_err(|error| to_body_error(&error))
    }
}

fn to_body_error(error: &io::Error) -> BodyError {
    match error.kind() {
        io::ErrorKind::TimedOut => BodyError::Timeout,
        _ => BodyError::Gone,
    }
}

impl Read for Body<'_> {
    /// # Blocking
    /// Until there is a byte, at most for what is left of the time for the whole body.
    ///
    /// # Errors
    /// A [`BodyError`], and the same again after that.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let deadline = self.deadline();
        let read = self.ask().and_then(|()| self.next(buffer, deadline));
        Ok(read.inspect_err(|error| self.error = Some(*error))?)
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("place", &self.place)
            .field("received", &self.received)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// Parses the size line of a chunk. Returns the size, and how many bytes follow it.
fn parse_size(line: &[u8]) -> Result<(u64, usize), BodyError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let count = digits.clone().count();
    // Space is allowed before the semicolon of an extension, by those who allow what they must not send.
    let is_whole = matches!(line.get(count), None | Some(b';'));
    if count == 0 || count > SIZE_DIGITS || !is_whole {
        return Err(BodyError::Malformed);
    }
    let size = digits.fold(0, |size, digit| {
        size * 16 + u64::from(char::from(*digit).to_digit(16).unwrap_or(0))
    });
    Ok((size, line.len() - count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_chunk_has_digits_alone() {
        for (line, size) in [
            ("0", Some(0)),
            ("a", Some(10)),
            ("00000A", Some(10)),
            ("FFFFFFFF", Some(0xffff_ffff)),
            ("5;name=value", Some(5)),
            ("", None),
            (";x", None),
            ("000000005", None),
            ("+5", None),
            ("-5", None),
            ("0x5", None),
            ("5 ", None),
            (" 5", None),
            ("5 ;x", None),
            ("g", None),
            ("\u{665}", None),
        ] {
            let found = parse_size(line.as_bytes()).ok().map(|(size, _)| size);
            assert_eq!(found, size, "{line:?}");
        }
    }
}
