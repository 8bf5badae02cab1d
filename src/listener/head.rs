//! The head of a handshake request: reads it under a deadline, and parses it.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};

use super::refusal::RefusalAnswer;
use super::slots::HandshakeSlot;
use crate::deadline::Deadline;
use crate::duplex::websocket::Socket;
use crate::poll;

/// Largest head that is read, in bytes.
pub(super) const HEAD_LIMIT: usize = 8 * 1024;
/// Most header lines in a head.
const HEADERS: usize = 64;

/// The bytes of a head, and those that came right behind it.
#[derive(Debug)]
pub(super) struct RawHead {
    pub(super) head: Vec<u8>,
    pub(super) rest: Vec<u8>,
}

/// Why a head could not be read.
#[derive(Debug)]
pub(super) enum HeadError {
    /// The peer is to be sent this answer.
    Refused(&'static RefusalAnswer),
    /// The peer went away, or the listener stops.
    Gone,
    /// The deadline passed.
    Timeout,
}

/// What ends the reading of a head early, on the host's own listener.
#[derive(Clone, Copy)]
pub(super) struct Interruption<'a> {
    /// Its other end is closed when the listener stops.
    pub(super) stop: &'a io::PipeReader,
    pub(super) slot: &'a HandshakeSlot,
}

/// Reads until the end of the head. Blocks at most until the deadline; an interruption wakes it.
pub(super) fn read_head(
    socket: &Socket,
    already_read: Vec<u8>,
    deadline: Deadline,
    interruption: Option<Interruption<'_>>,
) -> Result<RawHead, HeadError> {
    let mut bytes = already_read;
    let mut searched = 0;
    loop {
        // Checked each time, so that a peer that keeps sending is interrupted too.
        if interruption.is_some_and(|interruption| interruption.slot.is_lost()) {
            return Err(HeadError::Refused(RefusalAnswer::BUSY));
        }
        if let Some(end) = end_of_head(&bytes, searched) {
            // An embedder may have read more than this limit.
            if end > HEAD_LIMIT {
                return Err(HeadError::Refused(RefusalAnswer::HEAD_TOO_LARGE));
            }
            let rest = bytes.split_off(end);
            return Ok(RawHead { head: bytes, rest });
        }
        if bytes.len() >= HEAD_LIMIT {
            return Err(HeadError::Refused(RefusalAnswer::HEAD_TOO_LARGE));
        }
        searched = bytes.len().saturating_sub(3);
        wait_readable(socket, deadline, interruption.map(|it| it.stop))?;
        let mut chunk = [0; 1024];
        let room = chunk.len().min(HEAD_LIMIT - bytes.len());
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

pub(super) fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes[from..]
        .windows(4)
        .position(|window| window == b"\r\n\r\n")?;
    Some(from + found + 4)
}

fn wait_readable(
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

/// The parts of a request head that the handshake uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    /// Path and query as they came.
    pub(super) target: String,
    /// HTTP/1.1, and not older.
    pub(super) is_current: bool,
    pub(super) user_agent: Option<String>,
    pub(super) host: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) connection: Vec<String>,
    pub(super) upgrade: Vec<String>,
    pub(super) versions: Vec<String>,
    pub(super) keys: Vec<String>,
}

impl Head {
    /// Parses a whole head.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static RefusalAnswer> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            // A line that is only a line feed ends the head for the parser, but not for `read_head`:
            // what follows it would be lost.
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(RefusalAnswer::HEAD_TOO_LARGE),
            Ok(_) | Err(_) => return Err(RefusalAnswer::BAD_REQUEST),
        }
        let mut head = Self {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            is_current: request.version == Some(1),
            ..Self::default()
        };
        for header in request.headers.iter() {
            // Only the user agent may contain anything but ASCII, and it decides nothing.
            let value = String::from_utf8_lossy(header.value).trim().to_owned();
            let list = || {
                value
                    .split(',')
                    .map(|item| item.trim().to_ascii_lowercase())
            };
            match header.name.to_ascii_lowercase().as_str() {
                "user-agent" => once(&mut head.user_agent, value)?,
                "host" => once(&mut head.host, value)?,
                "origin" => once(&mut head.origin, value)?,
                // A body would be read as frames here, and frames as a body by a proxy.
                "content-length" if value == "0" => {}
                "content-length" | "transfer-encoding" => return Err(RefusalAnswer::BAD_REQUEST),
                // Lists, which may be split over several headers.
                "connection" => head.connection.extend(list()),
                "upgrade" => head.upgrade.extend(list()),
                // `check_upgrade` counts them.
                "sec-websocket-version" => head.versions.push(value),
                "sec-websocket-key" => head.keys.push(value),
                _ => {}
            }
        }
        Ok(head)
    }
}

/// Stores the value of a header that may occur once: with two, a proxy in front may have used the other.
fn once(slot: &mut Option<String>, value: String) -> Result<(), &'static RefusalAnswer> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(RefusalAnswer::BAD_REQUEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_matches;

    #[test]
    fn the_limit_holds_for_what_was_read_before_too() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = Socket::from(socket);
        let filler = "GET / HTTP/1.1\r\nx: \r\n\r\n".len();
        for over in [0, 1] {
            let value = "y".repeat(HEAD_LIMIT - filler + over);
            let head = format!("GET / HTTP/1.1\r\nx: {value}\r\n\r\nrest").into_bytes();
            let deadline = Deadline::after(std::time::Duration::from_secs(30));
            match read_head(&socket, head, deadline, None) {
                Ok(raw) if over == 0 => assert_eq!(raw.rest, b"rest"),
                Err(HeadError::Refused(refusal)) if over == 1 => assert_eq!(refusal.status, 431),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The status that a complete handshake with these lines besides is refused with, or 101.
    fn judged(lines: &str) -> u16 {
        let head = format!(
            "GET /rpc HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        );
        let head = Head::parse(head.as_bytes());
        match head.and_then(|head| super::super::decision::check_upgrade(&head)) {
            Ok(_) => 101,
            Err(refusal) => refusal.status,
        }
    }

    #[test]
    fn what_decides_stands_there_once_unless_it_is_a_list() {
        for (lines, status) in [
            ("", 101),
            ("Host: h\r\n", 400),
            ("Origin: http://h\r\n", 101),
            ("Origin: http://h\r\nOrigin: http://h\r\n", 400),
            ("Origin: http://evil\r\nOrigin: http://h\r\n", 400),
            ("oRIGIN: http://h\r\nOrigin:\r\n", 400),
            ("Origin: http://h, http://h\r\n", 403),
            ("User-Agent: a\r\n", 101),
            ("User-Agent: a\r\nUser-Agent: a\r\n", 400),
            ("User-Agent:\r\nUser-Agent: a\r\n", 400),
            ("Sec-WebSocket-Version: 13\r\n", 400),
            ("Sec-WebSocket-Version: 8\r\n", 400),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
            ("Content-Length: 0\r\n", 101),
            ("Content-Length: 0\r\nContent-Length: 0\r\n", 101),
            ("Content-Length: 0\r\nContent-Length: 5\r\n", 400),
            ("Content-Length: 0, 0\r\n", 400),
            ("Transfer-Encoding: identity\r\n", 400),
            // Lists may come in pieces.
            ("Connection: keep-alive\r\nConnection: Upgrade\r\n", 101),
            ("Upgrade: h2c\r\n", 101),
            ("Accept: a\r\nAccept: b\r\n", 101),
        ] {
            assert_eq!(judged(lines), status, "{lines:?}");
        }
    }

    #[test]
    fn what_stands_behind_an_empty_line_is_not_lost() {
        let good = b"GET /rpc HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(Head::parse(good).unwrap().host.as_deref(), Some("h"));
        for bad in [
            &b"GET /rpc HTTP/1.1\r\nHost: h\r\n\nUpgrade: websocket\r\n\r\n"[..],
            b"GET /rpc HTTP/1.1\n\nHost: h\r\n\r\n",
        ] {
            assert_matches!(Head::parse(bad), Err(refusal) if refusal.status == 400);
        }
    }
}
