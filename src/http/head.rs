//! The head of a request: reads it under a deadline, and parses it. What the parts mean is decided by the
//! users: `request` for this server, `listener` for a WebSocket handshake.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};

use super::slots::Slot;
use crate::deadline::Deadline;
use crate::duplex::websocket::Socket;
use crate::poll;

/// Most header lines in a head.
const HEADERS: usize = 64;

/// Why a head could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// It has more bytes than the limit.
    TooLarge,
    /// The slot was given to another connection.
    SlotLost,
    /// The peer went away, or the server stops.
    Gone,
    /// The deadline passed.
    Timeout,
}

/// What ends the reading of a head early.
#[derive(Clone, Copy)]
pub(crate) struct Interruption<'a> {
    /// Its other end is closed when the server stops.
    pub(crate) stop: &'a io::PipeReader,
    pub(crate) slot: &'a Slot,
}

/// Reads until the end of a head of at most `limit` bytes, and returns its length. `bytes` begins with what
/// was read before, and may hold more than the head afterwards. Blocks at most until the deadline; an
/// interruption wakes it.
pub(crate) fn read_head(
    socket: &Socket,
    bytes: &mut Vec<u8>,
    limit: usize,
    deadline: Deadline,
    interruption: Option<Interruption<'_>>,
) -> Result<usize, HeadError> {
    let mut searched = 0;
    loop {
        // Checked each time, so that a peer that keeps sending is interrupted too.
        if interruption.is_some_and(|interruption| interruption.slot.is_lost()) {
            return Err(HeadError::SlotLost);
        }
        if let Some(end) = end_of_head(bytes, searched) {
            // More than the limit may have been read before.
            return if end > limit {
                Err(HeadError::TooLarge)
            } else {
                Ok(end)
            };
        }
        if bytes.len() >= limit {
            return Err(HeadError::TooLarge);
        }
        searched = bytes.len().saturating_sub(3);
        wait_readable(socket, deadline, interruption.map(|it| it.stop))?;
        let mut chunk = [0; 1024];
        let room = chunk.len().min(limit - bytes.len());
        match socket.read(&mut chunk[..room]) {
            // The slot was given away, which ended reading: handled above.
            Ok(0) if interruption.is_some_and(|it| it.slot.is_lost()) => {}
            Ok(0) => return Err(HeadError::Gone),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            Err(_) => return Err(HeadError::Gone),
        }
    }
}

/// Returns the length of the head that these bytes begin with, if its end is among those from `from` on.
pub(crate) fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes[from..]
        .windows(4)
        .position(|window| window == b"\r\n\r\n")?;
    Some(from + found + 4)
}

/// Waits until there is something to read.
pub(crate) fn wait_readable(
    socket: &Socket,
    deadline: Deadline,
    stop: Option<&io::PipeReader>,
) -> Result<(), HeadError> {
    // A peer that keeps sending is always readable, so the deadline is checked here too.
    if deadline.has_passed() {
        return Err(HeadError::Timeout);
    }
    let mut descriptors = vec![PollFd::new(socket, PollFlags::IN)];
    if let Some(stop) = stop {
        descriptors.push(PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN));
    }
    match poll::wait(&mut descriptors, Some(deadline)) {
        Ok(false) => Err(HeadError::Timeout),
        Ok(true) => match descriptors.get(1) {
            Some(stop) if !stop.revents().is_empty() => Err(HeadError::Gone),
            _ => Ok(()),
        },
        Err(_) => Err(HeadError::Gone),
    }
}

/// A parsed head. Values are as they came, without the space around them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ParsedHead {
    pub(crate) method: String,
    /// Path and query, still encoded.
    pub(crate) target: String,
    /// The second figure of the HTTP version: 0 or 1.
    pub(crate) minor: u8,
    /// All header lines in their order.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

/// Why a head cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// It has more than 64 header lines.
    TooManyHeaders,
    /// It is of another version than 1.0 and 1.1.
    Version,
    Malformed,
}

impl ParsedHead {
    /// Parses a whole head.
    ///
    /// Accepts lines that end in a line feed alone, as `httparse` does.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            // A line that is only a line feed ends the head for the parser, but not for `read_head`:
            // what follows it would be lost.
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(ParseError::TooManyHeaders),
            Err(httparse::Error::Version) => return Err(ParseError::Version),
            Ok(_) | Err(_) => return Err(ParseError::Malformed),
        }
        let headers = request.headers.iter();
        Ok(Self {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            minor: request.version.unwrap_or_default(),
            headers: headers
                .map(|header| (header.name.to_owned(), header.value.to_owned()))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD_LIMIT: usize = 8 * 1024;

    #[test]
    fn the_limit_holds_for_what_was_read_before_too() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = Socket::from(socket);
        let filler = "GET / HTTP/1.1\r\nx: \r\n\r\n".len();
        for over in [0, 1] {
            let value = "y".repeat(HEAD_LIMIT - filler + over);
            let head = format!("GET / HTTP/1.1\r\nx: {value}\r\n\r\nrest").into_bytes();
            let deadline = Deadline::after(std::time::Duration::from_secs(30));
            let mut read = head.clone();
            let found = read_head(&socket, &mut read, HEAD_LIMIT, deadline, None);
            let whole = if over == 0 {
                Ok(HEAD_LIMIT)
            } else {
                Err(HeadError::TooLarge)
            };
            assert_eq!((found, &read), (whole, &head));
        }
    }
}
